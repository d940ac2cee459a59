"""What a child process of the comparison does: prepare a case, quantize it, or answer with a model.

python -m peers.work TASK ANSWER ARGUMENTS      (all three JSON; the answer is a file to write)
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import case as cases
from .case import Case
from .quantizers import QUANTIZERS

if TYPE_CHECKING:
    from dlcv_deploy.types import Engine

BATCH = 50
_KIB = 1024


def prepare(network: str, images: int, tests: int, folder: str) -> dict[str, Any]:
    """Export a network and write its case."""
    cases.prepare(network, images, tests, Path(folder))
    return {}


def quantize(quantizer: str, case: str, out: str) -> dict[str, Any]:
    """Calibrate and quantize; the clock runs from the fp32 graph on the disk to the INT8 model on the disk."""
    chosen = QUANTIZERS[quantizer]
    for module in chosen.imports:
        importlib.import_module(module)
    given = Case.open(Path(case))
    start = time.perf_counter()
    path = chosen.run(given, chosen.setting, Path(out))
    seconds = time.perf_counter() - start
    files = [path, *(path.with_suffix(".bin"),) * (path.suffix == ".xml")]
    return {
        "model": str(path),
        "seconds": seconds,
        "size_bytes": sum(file.stat().st_size for file in files),
        **_spent(),
    }


def answer(model: str, case: str, out: str) -> dict[str, Any]:
    """The logits of all test images on OpenVINO, as a file, and the share of multiply-adds that it runs in INT8."""
    from dlcv_deploy.backends import openvino
    from dlcv_deploy.types import CompileOptions, Engine

    given, path = Case.open(Path(case)), Path(model)
    assert given.test is not None
    if path.suffix == ".xml":
        files = {"model.xml": path.read_bytes(), "model.bin": path.with_suffix(".bin").read_bytes()}
        engine = Engine(openvino.name, "CPU", openvino.ability().version, files)
    else:
        engine = openvino.compile(path.read_bytes(), CompileOptions())
    logits = []
    with openvino.load(engine) as session:
        (source,), (target,) = session.inputs, session.outputs
        for start in range(0, len(given.test), BATCH):
            batch = given.inputs(given.test, start, min(start + BATCH, len(given.test)))
            logits.append(session.run({source.name: batch})[target.name])
    np.save(out, np.concatenate(logits))
    return {"int8_share": int8_share(engine, given.fp32.read_bytes())}


def int8_share(engine: Engine, fp32: bytes) -> float | None:
    """The share of the multiply-adds of the fp32 graph that an engine computes in INT8; None where it does not tell."""
    from onnx import load_model_from_string

    from dlcv_deploy.backends import openvino
    from dlcv_deploy.graph.macs import multiply_adds

    work, runs_in = multiply_adds(load_model_from_string(fp32)), openvino.runs_in(engine, fp32)
    if not work.keys() <= runs_in.keys():
        return None
    return sum(count for name, count in work.items() if runs_in[name] == "int8") / sum(work.values())


def _spent() -> dict[str, Any]:
    """This process's peak memory, its own and not what it inherited, and all its processor time."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    peak = own.ru_maxrss * (1 if sys.platform == "darwin" else _KIB)
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss starts with the parent's
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        peak = int(line.split()[1]) * _KIB
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in (own, children))
    return {"peak_bytes": peak, "cpu_seconds": cpu}


TASKS: dict[str, Callable[..., dict[str, Any]]] = {"prepare": prepare, "quantize": quantize, "answer": answer}


def main(task: str, to: str, arguments: str) -> None:
    """Do a task and write its answer, or the error that ended it."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # neither OpenVINO nor NNCF is to report home
    try:
        value = {"value": TASKS[task](**json.loads(arguments))}
    except MemoryError as e:
        value = {"error": f"out of memory ({e})"}
    except Exception as e:  # whatever a tool raises is its row in the table
        value = {"error": " ".join(f"{type(e).__name__}: {e}".split())[:300]}
    Path(to).write_text(json.dumps(value))


if __name__ == "__main__":
    main(*sys.argv[1:])
