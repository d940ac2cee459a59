"""How fast tensors fold into histograms, beside np.histogram; and how long the whole pass over a network takes.

    python benchmarks/observe.py
    python benchmarks/observe.py NETWORK.onnx --images 64

Ours and np.histogram take turns; ratios of medians are what counts, times depend on the machine. np.histogram is given
the range and fills as many bins; it is spared finding the largest value and checking for NaN, which ours does too.

With a network (``dlcv-deploy export resnet50 --weights random -o resnet50.onnx``), noise goes through it once and all
methods are applied to the histograms. Peak memory is that of this process, which does not import PyTorch.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dlcv_deploy.calibration.calibrate import histograms
from dlcv_deploy.calibration.channels import ChannelPeaks
from dlcv_deploy.calibration.collect import observed, workers_here
from dlcv_deploy.calibration.histogram import BINS, Histogram
from dlcv_deploy.calibration.methods import METHODS
from dlcv_deploy.calibration.samples import noise
from dlcv_deploy.graph.qdq import quantizable
from dlcv_deploy.proof import part_of
from dlcv_deploy.types import Preprocess

SHAPE, ROUNDS = (1, 256, 177, 177), 9
"""8 million values."""


def seconds(call: Callable[[], object]) -> float:
    """Processor time of one call, which runs on one thread."""
    start = time.process_time()
    call()
    return time.process_time() - start


def tensors() -> None:
    """One tensor at a time."""
    bell = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    for name, x in (("convolution output", bell), ("ReLU output", np.maximum(bell, 0))):
        top = Histogram.of(x).top
        calls = (
            lambda x=x: Histogram.of(x),
            lambda x=x, top=top: np.histogram(np.abs(x), bins=BINS, range=(0, top)),
            lambda x=x: ChannelPeaks().add(x),
        )
        rounds = [[seconds(call) for call in calls] for _ in range(ROUNDS)]
        ours, numpys, peaks = (statistics.median(column) * 1e9 / x.size for column in zip(*rounds, strict=True))
        print(
            f"{name:<20} {ours:5.2f} ns a value, np.histogram {numpys:5.2f}: {numpys / ours:.1f} times as fast; "
            f"channel peaks {peaks:.2f}"
        )
    histogram = Histogram.of(bell)
    merge = statistics.median(seconds(lambda: histogram.merge(histogram)) for _ in range(ROUNDS))
    print(f"{'merge':<20} {merge * 1e6:5.0f} us")
    for name, method in METHODS.items():
        took = statistics.median(seconds(lambda method=method: method(histogram)) for _ in range(ROUNDS))
        print(f"{name:<20} {took * 1e3:5.2f} ms a tensor")


@contextmanager
def clocked(what: str):  # noqa: ANN201
    """Print what a step took."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{what:<20} {wall:6.2f} s, {cpu:6.2f} s of CPU, peak {peak:5.0f} MiB")


def network(path: Path, images: int, workers: int) -> None:
    """A whole pass: all tensors that INT8 needs a range for, all methods."""
    from onnx import load_model_from_string

    with clocked("in all"):
        with clocked("session"):
            onnx = path.read_bytes()
            names = quantizable(load_model_from_string(onnx))
            session = part_of(observed(onnx, names), streams=workers)
        size = session.inputs[0].shape[-1]
        pre = Preprocess(size, size, "resize", (0.5,) * 3, (0.25,) * 3)
        with session, clocked(f"{images} images"):
            found = histograms(session, names, noise(images, size), pre, workers=workers)
        with clocked(f"{len(METHODS)} x {len(found)} ranges"):
            for method in METHODS.values():
                for histogram in found.values():
                    method(histogram)
    assert "torch" not in sys.modules


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("onnx", type=Path, nargs="?", help="a network as dlcv-deploy exports it")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--workers", type=int, default=workers_here())
    asked = parser.parse_args()
    if asked.onnx is None:
        tensors()
    else:
        network(asked.onnx, asked.images, asked.workers)


if __name__ == "__main__":
    main()
