"""What the kernels move through memory, what anything must move at least, and the time that takes: arithmetic alone.

The cutting of the work is that of ``csrc/lrn_plan.h``, and tests hold it to the C++. A byte counts each time that a
kernel asks for it, so what the caches give twice is counted twice: nothing here is less than what a GPU moves, but for
what a sector of 32 bytes holds beside what was asked for.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterable, Iterator, Sequence

import click

from .formats import FORMATS
from .interface import pooled

THREADS = 256
"""Of a block, at most."""
WARP = 32

_COMPILED = (1, 2, 3, 4)
WIDEST = 7
"""Half windows that have kernels of their own, and the half of the widest, whose kernel does all others."""
_LOADS = {
    "fp32 linear": (1, 4),
    "fp16 linear": (1, 4),
    "fp16 kHWC8": (8, 2),
    "int8 kCHW4": (4, 4),
    "int8 kCHW32": (8, 4),
}
"""Channels of one load and loads of one step, by format (``lrn_layout.h``)."""
_SECTOR_BYTES = 32


@dc.dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU by its data sheet: bandwidth of its memory, multiprocessors, and the clock that its TFLOPS go with."""

    name: str
    architecture: int
    bytes_per_s: float
    multiprocessors: int
    clock_hz: float


GPUS = (
    Gpu("H100", 90, 3.35e12, 132, 1.98e9),  # SXM5: 67 TFLOPS = 132 * 128 * 2 * clock
    Gpu("L4", 89, 300e9, 58, 2.04e9),  # 30.3 TFLOPS = 58 * 128 * 2 * clock
    Gpu("T4", 75, 320e9, 40, 1.59e9),  # 8.1 TFLOPS = 40 * 64 * 2 * clock
)


@dc.dataclass(frozen=True, slots=True)
class Pool:
    """The pooling behind the normalization; ``pads`` are top, left, bottom, right."""

    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (2, 2)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def pooled(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the answer."""
        return pooled((height, width), (*self.kernel, *self.strides, *self.pads))


@dc.dataclass(frozen=True, slots=True)
class Call:
    """DlcvLRN on a tensor, or with a ``pool`` DlcvLRNMaxPool; ``shape`` is (N, C, H, W), ``form`` a name of FORMATS."""

    form: str
    shape: tuple[int, int, int, int]
    size: int = 5
    pool: Pool | None = None

    @property
    def answers(self) -> tuple[int, int]:
        """Height and width of what it gives."""
        return self.pool.pooled(*self.shape[2:]) if self.pool else self.shape[2:]

    @property
    def least_bytes(self) -> int:
        """Each element read once, each answer written once."""
        n, c, h, w = self.shape
        tall, wide = self.answers
        return n * c * (h * w + tall * wide) * FORMATS[self.form].itemsize

    @property
    def separate_bytes(self) -> int:
        """The least for two layers, the normalized map written by the first and read by the second."""
        n, c, h, w = self.shape
        return self.least_bytes + (2 * n * c * h * w * FORMATS[self.form].itemsize if self.pool else 0)


@dc.dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel as it is compiled: for a format, a half window, and pixels a thread or a window of pooling.

    ``pool``: None for the kernel of DlcvLRN, 3 where the window of 3x3 is compiled in, 0 for any window.
    """

    form: str
    half: int
    pixels: int = 1
    pool: int | None = None

    @property
    def channels(self) -> int:
        """Of one load."""
        return _LOADS[self.form][0]

    @property
    def step(self) -> int:
        """Loads of one step, which are in flight together."""
        return _LOADS[self.form][1]

    @property
    def halo(self) -> int:
        """Loads on either side of what a thread answers for."""
        return _up(self.half, self.channels)

    @property
    def load_bytes(self) -> int:
        """Of one load."""
        return self.channels * self.pixels * FORMATS[self.form].itemsize

    @property
    def answers(self) -> int:
        """What a thread normalizes in one step."""
        return self.step * self.channels * self.pixels


@dc.dataclass(frozen=True, slots=True)
class Tile:
    """The answers that a block gives, and the pixels it reads for them."""

    out_height: int
    out_width: int
    in_height: int
    in_width: int


@dc.dataclass(frozen=True, slots=True)
class Work:
    """What a call comes to on a GPU: bytes read and written, and the steps that warps of 32 threads go through."""

    read_bytes: int
    written_bytes: int
    warp_steps: int

    @property
    def moved_bytes(self) -> int:
        """Both ways."""
        return self.read_bytes + self.written_bytes


def kernels() -> Iterator[Kernel]:
    """All that are compiled."""
    for form, (channels, _) in _LOADS.items():
        for half in (*_COMPILED, WIDEST):
            for pixels in (1, 4) if channels == 1 else (1,):
                yield Kernel(form, half, pixels)
            yield Kernel(form, half, pool=3)
        yield Kernel(form, WIDEST, pool=0)


def kernel_for(call: Call) -> Kernel:
    """The kernel that a call is launched with, its tensors being aligned."""
    half = call.size // 2 if call.size // 2 in _COMPILED else WIDEST
    if call.pool:
        return Kernel(call.form, half, pool=3) if call.pool.kernel == (3, 3) else Kernel(call.form, WIDEST, pool=0)
    four = _LOADS[call.form][0] == 1 and call.shape[2] * call.shape[3] % 4 == 0
    return Kernel(call.form, half, 4 if four else 1)


def chunk_of(pieces: int, step: int, halo: int, blocks: int, multiprocessors: int) -> int:
    """Loads of channels that one thread goes through; ``lrn_plan.h``."""
    least = _up(max(4 * halo, step), step) * step
    chunk = _up(pieces, step) * step
    while blocks * _up(pieces, chunk) < 4 * multiprocessors and chunk > least:
        chunk = max(_up(chunk // 2, step) * step, least)
    return chunk


def tile_of(height: int, width: int, pool: Pool, pixel_bytes: int) -> Tile:
    """The tile that costs the least in bytes and threads, of ``height`` by ``width`` answers; ``lrn_plan.h``."""
    tiles = []
    for w in range(1, width + 1):
        in_width = (w - 1) * pool.strides[1] + pool.kernel[1]
        for h in range(1, height + 1):
            in_height = (h - 1) * pool.strides[0] + pool.kernel[0]
            if in_width * in_height > THREADS:
                break
            reads, warps = in_height * (in_width + _SECTOR_BYTES / pixel_bytes), _up(in_height * in_width, WARP)
            cost = _up(width, w) * _up(height, h) * (reads + warps * WARP)
            tiles.append((cost, Tile(h, w, in_height, in_width)))
    return min(tiles, key=lambda each: each[0])[1]


def work(call: Call, multiprocessors: int) -> Work:
    """What a call moves on a GPU of so many multiprocessors."""
    n, c, h, w = call.shape
    tall, wide = call.answers
    kernel = kernel_for(call)
    vector = FORMATS[call.form].vector
    pieces = _up(c, vector) * vector // kernel.channels
    if call.pool:
        tile = tile_of(tall, wide, call.pool, kernel.load_bytes)
        rows = _inside(tall, tile.out_height, tile.in_height, call.pool.strides[0], call.pool.pads[0], h)
        columns = _inside(wide, tile.out_width, tile.in_width, call.pool.strides[1], call.pool.pads[1], w)
        blocks = n * _up(tall, tile.out_height) * _up(wide, tile.out_width)
        threads, warps = n * sum(rows) * sum(columns), blocks * _up(tile.in_height * tile.in_width, WARP)
    else:
        threads = n * h * w // kernel.pixels
        blocks, warps = _up(threads, THREADS), _up(threads, WARP)
    chunk = chunk_of(pieces, kernel.step, kernel.halo, blocks, multiprocessors)
    loads = sum(_loads(first, chunk, pieces, kernel) for first in range(0, pieces, chunk))
    written = n * tall * wide * pieces * kernel.channels * FORMATS[call.form].itemsize
    return Work(threads * loads * kernel.load_bytes, written, warps * _up(pieces, kernel.step))


def memory_us(call: Call, gpu: Gpu) -> float:
    """The time to move what a call moves, at the whole bandwidth."""
    return work(call, gpu.multiprocessors).moved_bytes / gpu.bytes_per_s * 1e6


def issue_us(call: Call, gpu: Gpu, instructions: float) -> float:
    """The time to issue a call's steps, of so many instructions each, a warp a clock on each of four schedulers."""
    warp_instructions = work(call, gpu.multiprocessors).warp_steps * instructions
    return warp_instructions / (gpu.multiprocessors * 4 * gpu.clock_hz) * 1e6


def _up(a: int, b: int) -> int:
    return -(-a // b)


def _loads(first: int, chunk: int, pieces: int, kernel: Kernel) -> int:
    """Those of one thread for the chunk that begins at ``first``; whole steps, and what is no channel is not loaded."""
    last = first + _up(min(chunk, pieces - first), kernel.step) * kernel.step
    return min(last + kernel.halo, pieces) - max(first - kernel.halo, 0)


def _inside(answers: int, out: int, read: int, stride: int, pad: int, side: int) -> Iterator[int]:
    """Of the rows (or columns) that each tile reads, those that the map has."""
    for first in range(0, answers, out):
        top = first * stride - pad
        yield max(min(top + read, side) - max(top, 0), 0)


LAYERS = {
    "AlexNet norm1 and pool1, 96x55x55": ((96, 55, 55), Pool()),
    "AlexNet norm2 and pool2, 256x27x27": ((256, 27, 27), Pool()),
    "GoogLeNet norm1, 64x56x56": ((64, 56, 56), None),
    "GoogLeNet norm2 and pool2, 192x56x56": ((192, 56, 56), Pool(pads=(0, 0, 1, 1))),  # ceil_mode
}
"""Every LRN of the papers' networks, all of window 5."""
BATCHES = (1, 64)


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows as a Markdown table; the first is the head, and all but the first column are numbers."""
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


def rows(shape: tuple[int, int, int], pool: Pool | None) -> Iterator[Sequence[str]]:
    """One layer's table: bytes per element of the input, and microseconds."""
    names = [gpu.name for gpu in GPUS]
    moved = [f"B/element, {name}" for name in names]
    yield ["format, batch", "least, two layers", "least", *moved, *(f"µs, {name}" for name in names)]
    for batch in BATCHES:
        for form in FORMATS:
            call = Call(form, (batch, *shape), pool=pool)
            per = 1 / (batch * shape[0] * shape[1] * shape[2])
            each = [work(call, gpu.multiprocessors).moved_bytes * per for gpu in GPUS]
            counts = call.separate_bytes * per, call.least_bytes * per, *each
            times = [f"{memory_us(call, gpu):.3g}" for gpu in GPUS]
            yield [f"{form}, {batch}", *(f"{count:.2f}" for count in counts), *times]


def markdown() -> str:
    """Every layer's table under its name."""
    return "\n\n".join(f"**{name}**\n\n{table(rows(shape, pool))}" for name, (shape, pool) in LAYERS.items())


if __name__ == "__main__":
    click.echo(markdown())
