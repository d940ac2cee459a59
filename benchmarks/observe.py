"""How fast a tensor folds into its histogram, beside np.histogram on the same values in the same run.

    python benchmarks/observe.py

The two take turns; ratios of medians are what counts, times depend on the machine. np.histogram is given the range and
fills as many bins; it is spared finding the largest value and checking for NaN, which ours does too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from dlcv_deploy.calibration.histogram import BINS, Histogram
from dlcv_deploy.calibration.methods import METHODS

VALUES, ROUNDS = 8_000_000, 9


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    rng = np.random.default_rng(0)
    bell = rng.standard_normal(VALUES, np.float32)
    for name, x in (("convolution output", bell), ("ReLU output", np.maximum(bell, 0))):
        top = Histogram.of(x).top
        rounds = [
            (
                seconds(lambda x=x: Histogram.of(x)),
                seconds(lambda x=x, top=top: np.histogram(np.abs(x), bins=BINS, range=(0, top))),
            )
            for _ in range(ROUNDS)
        ]
        ours, numpys = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"{name:<20} {ours / VALUES * 1e9:5.2f} ns a value, np.histogram {numpys / VALUES * 1e9:5.2f}: "
            f"{numpys / ours:.1f} times as fast"
        )
    histogram = Histogram.of(bell)
    merge = statistics.median(seconds(lambda: histogram.merge(histogram)) for _ in range(ROUNDS))
    print(f"{'merge':<20} {merge * 1e6:5.0f} us")
    for name, method in METHODS.items():
        took = statistics.median(seconds(lambda method=method: method(histogram)) for _ in range(ROUNDS))
        print(f"{name:<20} {took * 1e3:5.2f} ms a tensor")


if __name__ == "__main__":
    main()
