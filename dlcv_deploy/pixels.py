"""A pipeline of the user's own held against a bundle's preprocessing contract, and what it costs in accuracy."""

from __future__ import annotations

import dataclasses as dc
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .bundle import Bundle, open_bundle
from .errors import ArtifactError, ToolError
from .parity import compare, contract, statistics
from .parity.contract import Cost, Distance, Input, PixelsReport
from .parity.feed import labels_of, rows_at_once
from .parity.mistakes import NHWC, explain
from .progress import Progress, silent
from .proof import loaded, original
from .report.document import REFERENCE
from .types import Preprocess

if TYPE_CHECKING:
    from .backends.base import Session
    from .calibration.samples import Samples

_LOOKED_AT = 4
"""Images by which mistakes are told."""


def golden(reference: Session, pre: Preprocess) -> dict[str, bytes]:
    """The golden files of a bundle: drawn images of awkward sizes, their inputs, and the original's logits.

    Args:
        reference: The PyTorch original.
        pre: The network's preprocessing.
    """
    from .calibration.samples import drawn

    images = []
    for i, (height, width) in enumerate(contract.golden_sizes(pre)):
        image = drawn(1, max(height, width), seed=i + 1).image(0)[:height, :width]
        images.append(np.ascontiguousarray(image))
    inputs = contract.inputs_of(images, pre)
    return contract.golden_files(images, inputs, _logits(REFERENCE, reference, inputs).astype(np.float32))


def compare_pixels(
    path: Path,
    *,
    pixels: Path,
    data: str | None = None,
    count: int | None = None,
    truth: Path | None = None,
    weights: str | None = None,
    model: str | None = None,
    targets: tuple[str, ...] = (),
    skip_bad: bool = False,
    progress: Progress = silent,
) -> PixelsReport:
    """How far a pipeline's tensors are from the contract's for the same images, and why.

    With ``data`` the PyTorch original and every engine answer both, and what that costs is told.

    Args:
        path: The bundle.
        pixels: An .npy of float32 (N, 3, S, S): one centre crop of each image, in the order that ``names`` gives.
        data: The images; by default the bundle's golden ones.
        count: As for ``open_samples``, as are ``truth`` and ``skip_bad``.
        weights: As for ``proof.original``, as is ``model``.
        targets: The engines that answer; by default all of the bundle's.
        progress: Told of each image.

    Raises:
        ArtifactError: The file cannot be read, or is not of such tensors for so many images; an image cannot be read.
        SpecError: The labels are not of the network's classes.
    """
    bundle = open_bundle(path)
    pre, samples = bundle.manifest.preprocess, _images(bundle, data, count, truth, skip_bad, progress)
    labels_of(samples, bundle.manifest.classes)  # refused before the work
    found, mistakes = _tensors(pixels, len(samples), pre)
    if data is None:
        whole, costs = _measured(pixels, samples, found, pre, {}, progress)
    else:
        engines = [bundle.engine(name) for name in targets or bundle.manifest.engines]
        with (
            original(bundle, weights, model, progress) as reference,
            loaded(engines, bundle.manifest.precision) as sessions,
        ):
            run: dict[str, Session | str] = {REFERENCE: reference, **sessions}
            whole, costs = _measured(pixels, samples, found, pre, run, progress)
    left = whole if mistakes else None
    if not whole.within:
        few = range(min(_LOOKED_AT, len(samples)))
        if why := explain([samples.image(i) for i in few], _finite(pixels, found, 0, len(few)), pre):
            mistakes, left = (*mistakes, *why.mistakes), why.left
    source = f"{pixels.name}, beside {samples.source}"
    return PixelsReport(source, len(samples), whole, mistakes, left, costs)


def names(path: Path, data: str | None = None, count: int | None = None, *, skip_bad: bool = False) -> list[str]:
    """The images whose tensors ``compare_pixels`` takes, in their order; golden ones as paths in the bundle."""
    samples = _images(open_bundle(path), data, count, None, skip_bad, silent)
    return [samples.name(i) for i in range(len(samples))]


@dc.dataclass(frozen=True, slots=True)
class _Golden:
    """The golden images of a bundle, as samples."""

    bundle: Bundle
    names: tuple[str, ...]
    labels: None = None
    rotated: int = 0
    random: bool = False
    skipped: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        return f"the {len(self.names)} golden images of {self.bundle.path.name}"

    def __len__(self) -> int:
        return len(self.names)

    def image(self, i: int) -> npt.NDArray[np.uint8]:
        from .calibration.images import decode

        return decode(self.bundle.path / self.names[i], self.names[i])

    def name(self, i: int) -> str:
        return self.names[i]

    def turned(self, i: int) -> bool:
        return False

    def digest_of(self, i: int) -> str:
        return str(self.bundle.manifest.files[self.names[i]]["sha256"])

    def sha256(self) -> str:
        return "".join(map(self.digest_of, range(len(self))))


def _images(
    bundle: Bundle, data: str | None, count: int | None, truth: Path | None, skip_bad: bool, progress: Progress
) -> Samples:
    from .calibration.samples import open_samples

    if data is None:
        return _Golden(bundle, contract.golden_images(bundle.manifest.files))
    classes = bundle.classes()
    return open_samples(data, count=count, skip_bad=skip_bad, classes=classes, truth=truth, progress=progress)


def _tensors(path: Path, count: int, pre: Preprocess) -> tuple[Input, tuple[str, ...]]:
    """What a file holds as (N, 3, S, S), read as it is needed, and what is wrong with its layout."""
    channels_first, channels_last = (count, 3, pre.size, pre.size), (count, pre.size, pre.size, 3)
    fix = f"np.save(FILE, x) with x float32 of shape {channels_first}"
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else "it is no whole .npy file of numbers"
        raise ArtifactError(f"{path.name} cannot be read: {why}", fix=fix) from e
    if not isinstance(found, np.ndarray):
        found.close()
        raise ArtifactError(f"{path.name} is an .npz, and not one array", fix=fix)
    if found.dtype != np.float32:
        raise ArtifactError(f"{path.name} holds {found.dtype}, and a network's input is float32", fix=fix)
    if found.shape[1:] in (channels_first[1:], channels_last[1:]) and len(found) != count:
        raise ArtifactError(
            f"{path.name} holds tensors for {len(found)} images, and there are {count}",
            fix="--list prints the images, in their order",
        )
    if found.shape == channels_last:
        return found.transpose(0, 3, 1, 2), (NHWC,)
    if found.shape != channels_first:
        raise ArtifactError(f"{path.name} is of shape {found.shape}, and the contract's is {channels_first}", fix=fix)
    return found, ()


def _finite(path: Path, found: Input, start: int, count: int) -> Input:
    """Some of the tensors, in memory.

    Raises:
        ArtifactError: One of them holds NaN or infinity; names it.
    """
    part: Input = np.array(found[start : start + count], order="C")
    wrong = np.flatnonzero(~compare.finite_rows(part))
    if len(wrong):
        raise ArtifactError(
            f"{path.name} holds NaN or infinity, first for image {start + int(wrong[0])}",
            fix="look at what the pipeline divides by; --list prints the images, counted from 0",
        )
    return part


def _measured(
    path: Path,
    samples: Samples,
    found: Input,
    pre: Preprocess,
    sessions: Mapping[str, Session | str],
    progress: Progress,
) -> tuple[Distance, tuple[Cost, ...]]:
    """How far the tensors are from the contract's, and what each session answers to both."""
    step = rows_at_once(pre)
    answers: dict[str, list[tuple[compare.Scores, compare.Scores]]] = {name: [] for name in sessions}
    parts: list[Distance] = []
    with progress("pixels", len(samples)) as advance:
        for start in range(0, len(samples), step):
            images = [samples.image(i) for i in range(start, min(start + step, len(samples)))]
            ours, theirs = contract.inputs_of(images, pre), _finite(path, found, start, len(images))
            parts.append(contract.distance(ours, theirs, pre))
            for name, session in sessions.items():
                if not isinstance(session, str):
                    answers[name].append((_logits(name, session, ours), _logits(name, session, theirs)))
            advance(len(images))
    costs = (
        Cost(name, not_run=session) if isinstance(session, str) else _cost(name, answers[name], samples.labels)
        for name, session in sessions.items()
    )
    return functools.reduce(Distance.merge, parts), tuple(costs)


def _cost(name: str, answers: Sequence[tuple[compare.Scores, compare.Scores]], labels: compare.Classes | None) -> Cost:
    before, after = (np.concatenate(side) for side in zip(*answers, strict=True))
    flips = int(compare.flipped(compare.predictions(before), compare.predictions(after)).sum())
    if labels is None:
        return Cost(name, flips=flips)
    right, still = compare.hits(before, labels, 1), compare.hits(after, labels, 1)
    loss = statistics.loss(1, int((right & ~still).sum()), int((still & ~right).sum()), len(labels))
    on_contract, on_pixels = (statistics.percent(int(hits.sum()), len(labels)) for hits in (right, still))
    return Cost(name, on_contract, on_pixels, loss, flips)


def _logits(name: str, session: Session, x: Input) -> compare.Scores:
    """The first output, (N, classes)."""
    out = session.run({session.inputs[0].name: x})[session.outputs[0].name]
    if out.ndim != 2 or len(out) != len(x):
        raise ToolError(f"{name}: the logits have shape {out.shape} for a batch of {len(x)}")
    return np.array(out)
