"""Latency of a bundle's OpenVINO engine as this tool runs it, against OpenVINO's own benchmark_app on the same file.

    python benchmarks/against_benchmark_app.py resnet50-int8.dlcv

Both at batch 1, synchronous, latency hint, same precision hint, in alternating rounds; what counts is the ratio of the
medians of the rounds.
"""

import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from dlcv_deploy import backends
from dlcv_deploy.backends.base import Session
from dlcv_deploy.bundle import open_bundle

ROUNDS, CALLS = 7, 200


def ours(session: Session) -> float:
    """Median of one round, in ms."""
    spec = session.inputs[0]
    feed = {spec.name: np.random.default_rng(0).standard_normal((1, *spec.shape), np.float32)}
    for _ in range(20):
        session.run(feed)
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        session.run(feed)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def theirs(xml: Path, shape: str) -> float:
    """The median that benchmark_app prints, in ms."""
    app = Path(sys.executable).with_name("benchmark_app")
    words = ["-m", xml, "-d", "CPU", "-hint", "latency", "-api", "sync", "-niter", CALLS, "-shape", shape]
    line = [app, *map(str, words), "-infer_precision", "f32"]
    quiet = {**os.environ, "CI": "true"}  # no telemetry
    out = subprocess.run(line, env=quiet, capture_output=True, text=True, check=True)
    return float(re.search(r"Median:\s+([\d.]+) ms", out.stdout)[1])


def main() -> None:
    """Run the rounds and print the ratio."""
    path = Path(sys.argv[1])
    bundle = open_bundle(path)
    xml = path / next(p for p in bundle.manifest.engines["openvino"]["files"].values() if p.endswith(".xml"))
    shape = "[" + ",".join(map(str, (1, *bundle.manifest.inputs[0].shape))) + "]"
    mine, app = [], []
    with backends.get("openvino").load(bundle.engine("openvino")) as session:
        for _ in range(ROUNDS):
            mine.append(ours(session))
            app.append(theirs(xml, shape))
    print(f"dlcv-deploy    {' '.join(f'{v:.2f}' for v in mine)} ms")
    print(f"benchmark_app  {' '.join(f'{v:.2f}' for v in app)} ms")
    print(f"ratio of medians {statistics.median(mine) / statistics.median(app):.3f}")


if __name__ == "__main__":
    main()
