"""The LRN plugin on this machine's GPU: its kernels beside a copy, and engines with it beside TensorRT's own LRN.

    python benchmarks/lrn_on_gpu.py [--library libdlcv_lrn.so] [--output lrn_on_gpu.json] [--kernels-only]

Writes one JSON and prints its tables. No GPU has run this yet; without one it says so and ends.

Kernels: each operator in each format on AlexNet's and GoogLeNet's maps. Every launch is timed by two events around it,
behind a write of ``flush_bytes`` that leaves nothing of its tensors in the L2 cache and gives the host time to put the
launch on the stream. The copy of as many bytes takes turns with it. ``bytes`` are those of both tensors, each once, and
``share`` is their rate over that of a large copy within the same run, which counts as read and written.

Engines: AlexNet and GoogLeNet with random weights, for time does not depend on them, and the small ones for CIFAR-10,
trained. Both variants take turns; in INT8 each has the graph that suits it. The wall clock runs from the host's arrays
to the host's arrays, and ``compute`` is the GPU's own time, without the copies. Answers are compared before a time is
taken; where they differ there is none.
"""

from __future__ import annotations

import argparse
import dataclasses as dc
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlcv_deploy.atomic import write_whole
from dlcv_deploy.backends import _cuda
from dlcv_deploy.errors import DeployError
from dlcv_deploy.latency.statistics import percentile
from dlcv_deploy.plugin import reference
from dlcv_deploy.plugin.build import build_library
from dlcv_deploy.plugin.device import DeviceKernels, Placed
from dlcv_deploy.plugin.formats import FORMATS, Array, Format
from dlcv_deploy.plugin.gpu import Device, Gpu
from dlcv_deploy.plugin.interface import Operator, load
from dlcv_deploy.plugin.library import FILE, OPS, Library, read_library

SCHEMA = 1
FLUSH_BYTES = 256 << 20
MAPS = {
    "AlexNet norm1": (96, 55, 55),
    "AlexNet norm2": (256, 27, 27),
    "GoogLeNet norm1": (64, 56, 56),
    "GoogLeNet norm2": (192, 56, 56),
}
LRN = {"size": 5, "alpha": 1e-3, "beta": 0.75, "bias": 2.0}
SCALES = (1.0, 0.6)
BATCHES = (1, 8, 64)
_TOLERANCES = {"float32": 4e-6, "float16": 2.0**-10}


@dc.dataclass(frozen=True)
class KernelRow:
    """One operator on one map; what is wrong with its answers, or how long it takes beside a copy of as many bytes."""

    op: str
    format: str
    map: str
    shape: tuple[int, ...]
    bytes: int
    wrong: str = ""
    median_us: float | None = None
    p90_us: float | None = None
    least_us: float | None = None
    copy_median_us: float | None = None
    gb_per_s: float | None = None
    share: float | None = None


class Stopwatch:
    """Times work on a stream by events, the L2 cache flushed before each."""

    def __init__(self, device: Device, *, runs: int, warmup: int, flush_bytes: int) -> None:
        self.device, self.runs, self.warmup, self.flush_bytes = device, runs, warmup, flush_bytes
        (self.stream,) = device.streams(1)
        self._start, self._end = device.cuda.event(), device.cuda.event()
        self._scratch = [device.cuda.malloc(flush_bytes) for _ in range(3)]

    def us(self, works: Mapping[str, Callable[[], object]]) -> dict[str, tuple[float, ...]]:
        """Microseconds of each run of each work, which take turns."""
        cuda = self.device.cuda
        found: dict[str, list[float]] = {name: [] for name in works}
        for i in range(self.warmup + self.runs):
            for name, work in works.items():
                self.device.fill(int(self._scratch[0]), i % 256, self.flush_bytes, self.stream)
                cuda.record(self._start, self.stream)
                work()
                cuda.record(self._end, self.stream)
                cuda.wait(self.stream)
                found[name].append(1e3 * cuda.elapsed_ms(self._start, self._end))
        return {name: tuple(values[self.warmup :]) for name, values in found.items()}

    def copy(self, size_bytes: int) -> Callable[[], None]:
        """A copy of so many bytes, at most ``flush_bytes``, within the device."""
        to, source = map(int, self._scratch[1:])
        return lambda: self.device.copy(to, source, size_bytes, self.stream)

    def copy_us(self) -> tuple[float, ...]:
        """Of the large copy."""
        return self.us({"copy": self.copy(self.flush_bytes)})["copy"]

    def close(self) -> None:
        """Give the memory back."""
        for memory in self._scratch:
            self.device.cuda.free(memory)


def pool_of(height: int, width: int) -> tuple[int, ...]:
    """3x3 by steps of 2, with the padding behind that ``ceil_mode`` comes to."""
    return (3, 3, 2, 2, 0, 0, (height - 3) % 2, (width - 3) % 2)


def wrong(answer: Array, x: Array, form: Format, operator: Operator) -> str:
    """What is wrong with the answer for two images in turn, against float64; empty where nothing is."""
    if any(not np.array_equal(answer[i], answer[i % 2]) for i in range(2, len(answer))):
        return "equal images have other answers"
    int8 = form.dtype == "int8"
    wide = x[:2].astype(np.float64) * (np.float64(np.float32(operator.scales[0])) if int8 else 1)
    expected = reference.lrn(wide, operator.size, operator.alpha, operator.beta, operator.bias)
    if operator.pool:
        expected = reference.max_pool(expected, operator.pool[:2], operator.pool[2:4], operator.pool[4:])
    found = answer[:2].astype(np.float64)
    if int8:  # half a step, and what float32 lost before
        steps = np.clip(expected / np.float64(np.float32(operator.scales[1])), -128, 127)
        off, allowed = np.abs(found - steps), 0.5 + 1e-5 * np.abs(steps)
    else:
        off, allowed = np.abs(found - expected), _TOLERANCES[form.dtype] * np.abs(expected) + 1e-7
    return "" if (off <= allowed).all() else f"off by {np.nanmax(off):.3g}"


def kernel_rows(
    kernels: DeviceKernels, watch: Stopwatch, maps: Mapping[str, Sequence[int]], batches: Sequence[int]
) -> Iterator[KernelRow]:
    """Every operator in every format on every map at every batch size, without the share."""
    draw = np.random.default_rng(0)
    for where, (channels, height, width) in maps.items():
        for name, form in FORMATS.items():
            two = draw.normal(0, 20, (2, channels, height, width))
            two = (np.clip(np.rint(two), -128, 127) if form.dtype == "int8" else two).astype(form.dtype)
            for batch in batches:
                x = two[np.arange(batch) % 2]
                for op in OPS:
                    pool = pool_of(height, width) if op == OPS[1] else None
                    operator = Operator(**LRN, scales=SCALES, pool=pool)
                    with kernels.place(x, form, operator) as placed:
                        row = KernelRow(op, name, where, x.shape, placed.bytes)
                        yield _timed(row, placed, watch, x, form, operator)


def _timed(row: KernelRow, placed: Placed, watch: Stopwatch, x: Array, form: Format, operator: Operator) -> KernelRow:
    placed.send(watch.stream)
    if placed.launch(watch.stream):
        watch.device.cuda.wait(watch.stream)
        return dc.replace(row, wrong="the launch is refused")
    if said := wrong(placed.fetch(watch.stream)[0], x, form, operator):
        return dc.replace(row, wrong=said)
    found = watch.us({"kernel": lambda: placed.launch(watch.stream), "copy": watch.copy(row.bytes // 2)})
    kernel, median = found["kernel"], statistics.median(found["kernel"])
    return dc.replace(
        row,
        median_us=median,
        p90_us=percentile(kernel, 90),
        least_us=min(kernel),
        copy_median_us=statistics.median(found["copy"]),
        gb_per_s=row.bytes / median / 1e3,
    )


def measured(
    kernels: DeviceKernels,
    watch: Stopwatch,
    *,
    maps: Mapping[str, Sequence[int]],
    batches: Sequence[int],
) -> dict[str, Any]:
    """The kernels' part of the document; the copy is timed before and after them."""
    before = watch.copy_us()
    rows = list(kernel_rows(kernels, watch, maps, batches))
    after = watch.copy_us()
    rate = 2 * watch.flush_bytes / statistics.median(before + after) / 1e3
    return {
        "method": {"runs": watch.runs, "warmup": watch.warmup, "flush_bytes": watch.flush_bytes},
        "copy": {
            "bytes": watch.flush_bytes,
            "gb_per_s": rate,
            "median_us_before": statistics.median(before),
            "median_us_after": statistics.median(after),
        },
        "kernels": [
            dc.asdict(row if row.gb_per_s is None else dc.replace(row, share=row.gb_per_s / rate)) for row in rows
        ],
    }


def tables(document: Mapping[str, Any]) -> str:
    """The document in Markdown."""
    rate = document["copy"]["gb_per_s"]
    lines = [
        f"{document['gpu'].get('name')}: a copy moves {rate:.0f} GB/s (read and written)",
        "",
        "| op | format | map | batch | us, median | p90 | GB/s | of the copy | a copy of as many bytes, us |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in document["kernels"]:
        about = f"| {row['op']} | {row['format']} | {row['map']} | {row['shape'][0]} |"
        if row["wrong"]:
            lines.append(f"{about} wrong: {row['wrong']} | | | | |")
            continue
        spent = f"{row['median_us']:.1f} | {row['p90_us']:.1f} | {row['gb_per_s']:.0f} | {100 * row['share']:.0f} %"
        lines.append(f"{about} {spent} | {row['copy_median_us']:.1f} |")
    lines += [
        "",
        "| network | precision | engine | batch | LRN | p50, ms | p90 | compute p50 | p90 |",
        "|---|---|---|--:|---|--:|--:|--:|--:|",
    ]
    for row in document["engines"]:
        about = f"| {row['network']} | {row['precision']} | {row['target']} | {row['batch']} | {row['lrn']} |"
        figures = (row[name] for name in ("p50_ms", "p90_ms", "compute_p50_ms", "compute_p90_ms"))
        lines.append(f"{about} {' | '.join(f'{figure:.3f}' for figure in figures)} |")
    return "\n".join([*lines, "", *(f"not run: {each['what']}: {each['why']}" for each in document["not_run"])])


def library_at(path: Path | None) -> Library:
    """The library in a file, or one compiled for this GPU."""
    return build_library((_cuda.capability(),)) if path is None else read_library(path.read_bytes(), str(path))


def main(words: Sequence[str] | None = None) -> None:
    """Measure, write the JSON and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, help=f"the plugin's {FILE}; compiled for this GPU if none is named")
    parser.add_argument("--output", type=Path, default=Path("lrn_on_gpu.json"))
    parser.add_argument("--runs", type=int, default=200, help="timed launches of each kernel, and calls of each engine")
    parser.add_argument("--kernels-only", action="store_true", help="no engines, so that PyTorch is not needed")
    asked = parser.parse_args(words)
    if reason := _cuda.no_gpu() or _cuda.no_binding():
        sys.exit(f"lrn_on_gpu times an NVIDIA GPU, and there is none to time here: {reason}")
    try:
        library = library_at(asked.library)
        device = Gpu()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / FILE
            path.write_bytes(library.data)
            kernels = DeviceKernels(load(path), device)
        document = documented(kernels, library, runs=asked.runs, flush_bytes=max(FLUSH_BYTES, 4 * device.l2_bytes))
        if not asked.kernels_only:
            from lrn_engines import engines

            document |= engines(library.data, runs=asked.runs)
        write_whole(asked.output, json.dumps(document, indent=1).encode())
    except DeployError as e:
        sys.exit(f"lrn_on_gpu: {e.what}" + (f" ({e.fix})" if e.fix else ""))
    print(tables(document))


def documented(kernels: DeviceKernels, library: Library, *, runs: int, flush_bytes: int) -> dict[str, Any]:
    """The document without engines."""
    watch = Stopwatch(kernels.device, runs=runs, warmup=max(1, runs // 10), flush_bytes=flush_bytes)
    found = {
        "schema": SCHEMA,
        "gpu": kernels.device.about(),
        "library": {
            "sha256": library.sha256,
            "architectures": library.architectures,
            "cuda": library.cuda,
            "source_sha256": library.source_sha256,
        },
        **measured(kernels, watch, maps=MAPS, batches=BATCHES),
        "gpu_after": kernels.device.about(),
        "engines": [],
        "not_run": [],
    }
    watch.close()
    return found


if __name__ == "__main__":
    main()
