"""What this project's runtimes add to the backend's own call, in Python and in C++, at batch 1 on OpenVINO.

    python benchmarks/runtime.py resnet50-int8.dlcv [--prefix PREFIX] [--time 60] [--output FILE]

Within one process the bare call (an inference request on memory that it was given once, its outputs left where they
are) and the runtime's take turns in rounds, forth and back; the ratio is that of a round's medians, with its 95 %
interval. Python: ``Engine.run``. C++: ``dlcv::Engine::run`` of the library that ``dlcv-deploy cpp PREFIX`` installed,
by ``benchmarks/cpp``, which is built anew; left out without ``--prefix``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from dlcv_deploy.atomic import write_whole
from dlcv_deploy.backends import openvino as backend
from dlcv_deploy.bundle import open_bundle
from dlcv_deploy.latency.measure import Effort, measure
from dlcv_deploy.latency.statistics import Blocks, percentile, ratio
from dlcv_deploy.proof import measured_on
from dlcv_deploy.runtime import Engine

HERE = Path(__file__).parent
LIMITS_PERCENT = {"python": 3.0, "c++": 1.0}


def bare(bundle: Path, batch: np.ndarray) -> Callable[[], object]:
    """OpenVINO's own call, of a model compiled as this project compiles it."""
    import openvino as ov

    engine = open_bundle(bundle).engine(backend.name)
    model = backend._core().read_model(engine.files["model.xml"], engine.files["model.bin"])
    request = backend._compiled(ov, model).create_infer_request()
    request.set_input_tensor(0, ov.Tensor(batch, shared_memory=True))
    return request.infer


def in_python(bundle: Path, effort: Effort) -> Mapping[str, Blocks]:
    """Rounds of both in this process."""
    with Engine.load(bundle, backend=backend.name) as engine:
        batch = np.random.default_rng(0).standard_normal((1, *engine.inputs[0].shape)).astype(np.float32)
        return measure({"bare": bare(bundle, batch), "runtime": lambda: engine.run(batch)}, effort).blocks


def in_cpp(bundle: Path, prefix: Path, effort: Effort) -> Mapping[str, Blocks]:
    """Rounds of both in a process of C++."""
    import openvino

    cmake = Path(openvino.__file__).parent / "cmake"
    with tempfile.TemporaryDirectory() as room:
        paths = f"-DCMAKE_PREFIX_PATH={prefix.resolve()}"
        configure = ["cmake", "-S", HERE / "cpp", "-B", room, paths, f"-DOpenVINO_DIR={cmake}"]
        for command in (configure, ["cmake", "--build", room]):
            subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL)
        seconds = str(effort.limit_s)
        out = subprocess.run([f"{room}/overhead", str(bundle), seconds], check=True, capture_output=True, text=True)
    found: Mapping[str, Blocks] = json.loads(out.stdout)
    return found


def row(blocks: Mapping[str, Blocks]) -> dict[str, float]:
    """What the runtime adds, in percent of the bare call, and its interval."""
    times, low, high = ratio(blocks["runtime"], blocks["bare"])
    median_ms = 1e3 * percentile([s for block in blocks["bare"] for s in block], 50)
    added = {"added_percent": 100 * (times - 1), "low": 100 * (low - 1), "high": 100 * (high - 1)}
    return {"bare_ms": median_ms, **added, "rounds": len(blocks["bare"])}


def main() -> int:
    """Measure, print, and say whether the limits are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--prefix", type=Path, help="Where the C++ library is installed.")
    parser.add_argument("--time", type=float, default=60.0, help="Seconds for each language.")
    parser.add_argument("--output", type=Path, help="A JSON file to write.")
    asked = parser.parse_args()
    effort = Effort(limit_s=asked.time, within=1e-4, rounds=10)
    rows = {"python": row(in_python(asked.bundle, effort))}
    if asked.prefix:
        rows["c++"] = row(in_cpp(asked.bundle, asked.prefix, effort))
    for name, found in rows.items():
        print(
            f"{name:7}{found['added_percent']:+.2f} % ({found['low']:+.2f} to {found['high']:+.2f}) on "
            f"{found['bare_ms']:.3f} ms; the limit is {LIMITS_PERCENT[name]:g} %, {found['rounds']} rounds"
        )
    if asked.output:
        value = {"bundle": asked.bundle.name, "rows": rows, "limits_percent": LIMITS_PERCENT}
        write_whole(asked.output, json.dumps({**value, "machine": measured_on()}, indent=2, default=str).encode())
    return int(any(found["added_percent"] > LIMITS_PERCENT[name] for name, found in rows.items()))


if __name__ == "__main__":
    sys.exit(main())
