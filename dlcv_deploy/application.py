"""What latency becomes in an application: threads, clients, load, and all that comes before the engine."""

from __future__ import annotations

import dataclasses as dc
import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from .backends.base import Described
from .errors import SpecError
from .latency import load, sweep
from .latency.breakdown import breakdown
from .latency.measure import cores
from .latency.values import ClientRow, LatencyReport, LoadRow, Part, ThreadRow
from .progress import Progress, silent
from .proof import loaded, pixels_of
from .reference import CHANNELS_LAST, COMPILED, CompiledSession, TorchSession, torch_threads
from .report.document import REFERENCE
from .types import Engine, Precision, Preprocess

if TYPE_CHECKING:
    from torch import nn

    from .backends.base import Array, Session

_IMAGES = 10
_QUALITY = {"quality": 90}
_PHOTOGRAPH = 512
"""The side, in pixels, of what is drawn in the place of a photograph; ImageNet's are 500 x 375 in the middle."""


@dc.dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: engines of a bundle, beside the original, on images that are made ready alike."""

    reference: TorchSession
    engines: tuple[Engine, ...]
    precision: Precision
    preprocess: Preprocess

    @contextmanager
    def loaded(self, *, threads: int = 0, streams: int = 1) -> Iterator[Mapping[str, Session | str]]:
        """The original and the engines, loaded anew for so many threads, or so many callers at once."""
        engines = [dc.replace(engine, threads=threads, streams=streams) for engine in self.engines]
        share = threads or (max(1, cores() // streams) if streams > 1 else 0)
        with torch_threads(share) if share else nullcontext(), loaded(engines, self.precision) as sessions:
            yield {REFERENCE: self.reference, **sessions}

    def feed(self) -> Mapping[str, Array]:
        """One image."""
        from .calibration.samples import drawn

        pixels = pixels_of(drawn(1, self.preprocess.size), self.preprocess, 1)
        return {self.reference.inputs[0].name: pixels}


@contextmanager
def variants(
    net: nn.Module, reference: TorchSession, batches: Sequence[int], *, turned: bool, compiled: bool
) -> Iterator[dict[str, Session | str]]:
    """PyTorch's other ways to run the original, as sessions; or why there is none.

    Args:
        net: The original.
        reference: Its session.
        batches: What ``torch.compile`` is to compile for.
        turned: Whether channels are to lie last in memory, in a copy.
        compiled: Whether to compile; that takes a minute or more.
    """
    specs = reference.inputs, reference.outputs
    with ExitStack() as stack:
        found: dict[str, Session | str] = {}
        if turned:
            found[CHANNELS_LAST] = stack.enter_context(TorchSession(net, *specs, channels_last=True))
        if compiled:
            try:
                found[COMPILED] = stack.enter_context(CompiledSession(net, *specs, batches))
            except SpecError as e:
                found[COMPILED] = e.what
        yield found


def settings(sessions: Mapping[str, Session | str]) -> dict[str, Mapping[str, str]]:
    """What each session's runtime was told, or says of itself."""
    return {name: dict(session.settings) for name, session in sessions.items() if isinstance(session, Described)}


def besides(
    report: LatencyReport, subject: Subject, also: Collection[str], progress: Progress = silent
) -> LatencyReport:
    """A report with what else was asked for: "threads", "clients", "load", "breakdown"; "load" needs "clients"."""
    if "threads" in also:
        report = dc.replace(report, thread_sweep=_threads(subject, progress))
    if "clients" in also or "load" in also:
        report = dc.replace(report, clients=_clients(subject, progress))
    if "load" in also:
        report = dc.replace(report, load=_load(subject, report.clients, progress))
    if "breakdown" in also:
        report = dc.replace(report, parts=_parts(subject))
    return report


def _threads(subject: Subject, progress: Progress) -> tuple[ThreadRow, ...]:
    """Engines on CPUs alone; a GPU's have no threads to choose."""
    cpu = dc.replace(subject, engines=tuple(engine for engine in subject.engines if engine.target == "CPU"))
    counts = sweep.doublings(cores())

    def anew(threads: int) -> AbstractContextManager[Mapping[str, Session | str]]:
        return cpu.loaded(threads=threads)

    with progress("threads", len(counts)) as advance:
        return sweep.threads(anew, subject.feed(), counts, done=advance)


def _clients(subject: Subject, progress: Progress) -> tuple[ClientRow, ...]:
    """As many clients as cores, and twice as many; sessions are loaded for them, with a stream a core at the most."""
    rows: list[ClientRow] = []
    feed, counts = subject.feed(), sweep.doublings(2 * cores())
    with progress("clients", len(counts)) as advance:
        for count in counts:
            with subject.loaded(streams=min(count, cores())) as sessions:
                rows += [load.closed(name, call, count) for name, call in _calls(sessions, feed).items()]
            advance(1)
    return tuple(rows)


def _load(subject: Subject, clients: Sequence[ClientRow], progress: Progress) -> tuple[LoadRow, ...]:
    """Each session with as many workers as it had clients where it served most."""
    rows: list[LoadRow] = []
    feed = subject.feed()
    names = tuple(dict.fromkeys(row.name for row in clients))
    with progress("load", len(names) * len(load.SHARES)) as advance:
        for name in names:
            best = max((row for row in clients if row.name == name), key=lambda row: row.images_per_s)
            with subject.loaded(streams=min(best.clients, cores())) as sessions:
                call = _calls(sessions, feed)[name]
                rows += load.curve(name, call, best.images_per_s, best.clients, done=advance)
    return tuple(rows)


def _parts(subject: Subject) -> tuple[Part, ...]:
    """From the bytes of drawn images: JPEG files of a photograph's size, PNG where the network takes them unscaled."""
    from .calibration.images import decode
    from .parity.crops import canvas, crops, to_input

    pre = subject.preprocess
    steps: dict[str, Callable[[Any], Any]] = {
        "decode": lambda file: decode(io.BytesIO(file), "drawn"),
        "resize and crop": lambda image: crops(canvas(image, pre), pre, 1),
        "normalize": lambda pixels: to_input(pixels, pre),
    }
    with subject.loaded() as sessions:
        return breakdown(sessions, _files(pre), steps)


def _files(pre: Preprocess) -> list[bytes]:
    from PIL import Image

    from .calibration.samples import drawn

    unscaled = pre.fit == "pad"
    samples = drawn(_IMAGES, pre.size if unscaled else _PHOTOGRAPH)
    files = []
    for i in range(_IMAGES):
        file = io.BytesIO()
        Image.fromarray(samples.image(i)).save(file, "PNG" if unscaled else "JPEG", **({} if unscaled else _QUALITY))
        files.append(file.getvalue())
    return files


def _calls(sessions: Mapping[str, Session | str], feed: Mapping[str, Array]) -> dict[str, Callable[[], object]]:
    return {name: partial(session.run, feed) for name, session in sessions.items() if not isinstance(session, str)}
