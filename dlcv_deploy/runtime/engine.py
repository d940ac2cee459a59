"""An engine of a bundle, ready to answer."""

from __future__ import annotations

import dataclasses as dc
import io
import itertools
import os
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from .. import backends
from ..backends.base import Array, Session
from ..backends.session import describe
from ..errors import ArtifactError, DeployError, SpecError, ToolError
from ..host import here
from ..manifest import Manifest
from ..messages import message
from ..parity.compare import Scores, finite_rows, softmax
from ..parity.crops import COUNTS, Input, Pixels, canvas, fill
from ..preflight import Checked, check, error_of
from ..types import Dim, TensorSpec
from .images import ImageLike, Picture, is_one, pixels_of
from .on_device import host_array, is_on_device, run_on_device

if TYPE_CHECKING:
    from ..types import Engine as Compiled


@dc.dataclass(frozen=True, slots=True)
class Prediction:
    """One class of an image's answer; ``probability`` is its softmax, the mean over the crops where there are ten."""

    index: int
    label: str
    probability: float


class Engine:
    """An engine of a bundle, loaded. Calls may come from several threads, ``close`` among them."""

    def __init__(self, manifest: Manifest, labels: tuple[str, ...], compiled: Compiled, session: Session) -> None:
        self.model: str = manifest.model
        self.precision: str = manifest.precision
        self.backend: str = compiled.backend
        self.labels = labels
        self.inputs: tuple[TensorSpec, ...] = manifest.inputs
        self.outputs: tuple[TensorSpec, ...] = manifest.outputs
        self.batch: Dim = compiled.batch
        self._pre = manifest.preprocess
        self._session = session
        self._lock = threading.RLock()  # a signal's handler may close the engine in the middle of a call
        self._calls, self._closed = 0, False
        self._free = weakref.finalize(self, session.close)
        self._free.atexit = False  # the process's end frees it; a call may still run then

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        backend: str | None = None,
        device: int = 0,
        threads: int = 0,
        streams: int = 1,
        cuda_graphs: bool = True,
    ) -> Engine:
        """Check a bundle and this machine, then load an engine.

        Args:
            path: The bundle's folder.
            backend: Which of its engines; by default the first that runs here, a GPU's before a CPU's.
            device: Which GPU.
            threads: How many threads a call may use of a CPU; 0 for the runtime's own choice.
            streams: How many threads will call at once, on a CPU: each call gets its share of the cores.
            cuda_graphs: On a GPU, record the work once, then replay it.

        Raises:
            ArtifactError: No bundle, or a damaged, altered or incomplete one.
            MissingBackend: None of its engines runs here, or the one that is named does not.
            SpecError: The bundle holds no such engine, or an argument is wrong.
        """
        for name, value, least in (("device", device, 0), ("threads", threads, 0), ("streams", streams, 1)):
            if value < least:
                raise SpecError(f"{name} is {value}", fix=f"give {least} or more")
        bundle = check(Path(path), here(device), backend)
        if bundle.manifest is None or not bundle.backend:
            raise _refusal(path, bundle)
        lines = io.StringIO(bundle.labels.decode(errors="replace"), newline=None)
        manifest, labels = bundle.manifest, tuple(line.removesuffix("\n") for line in lines)
        if len(manifest.inputs) > 1:
            raise SpecError(
                f"the network takes {len(manifest.inputs)} inputs, {_listed(manifest.inputs)}, and no single image",
                fix="run the engine's files in the bundle with the tool that they are for",
            )
        compiled = manifest.engine(bundle.backend, bundle.files)
        compiled = dc.replace(compiled, device=device, threads=threads, streams=streams, cuda_graphs=cuda_graphs)
        session = backends.get(compiled.backend).load(compiled)
        if why := _disagreement(manifest, labels, session):
            session.close()
            damaged = message("manifest_damaged", path=path, why=why)
            raise ArtifactError(damaged.what, fix=damaged.fix)
        return cls(manifest, labels, compiled, session)

    @overload
    def classify(  # type: ignore[overload-overlap]  # a path is a sequence of strings, too
        self, images: Picture, *, top: int = 5, crops: int = 1
    ) -> tuple[Prediction, ...]: ...

    @overload
    def classify(self, images: Pixels, *, top: int = 5, crops: int = 1) -> Any: ...  # noqa: ANN401 - by its shape

    @overload
    def classify(
        self, images: Iterable[ImageLike], *, top: int = 5, crops: int = 1
    ) -> list[tuple[Prediction, ...]]: ...

    def classify(
        self, images: ImageLike | Iterable[ImageLike], *, top: int = 5, crops: int = 1
    ) -> tuple[Prediction, ...] | list[tuple[Prediction, ...]]:
        """The most probable classes, the best first; of equals, the class with the lower index.

        Args:
            images: One image, or any number of them: paths, bytes of files, open files, RGB arrays (H, W, 3) of uint8,
                Pillow images, or one array (N, H, W, 3). As many as fill a batch are in memory at a time.
            top: How many classes, at the most.
            crops: 1 for the centre; 10 for the ten of Krizhevsky et al. (2012), whose probabilities are averaged.

        Returns:
            A tuple for one image; a list of them for several.

        Raises:
            ArtifactError: A file cannot be read as an image; names it.
            SpecError: Something is no image, ``top`` or ``crops`` is wrong, or the engine is closed.
            ToolError: The engine failed, or its answer is not finite.
        """
        _check_top(top)
        _check_crops(crops)
        if is_one(images):
            return self._answers([images], top, crops, 0)[0]
        several = iter(cast(Iterable[ImageLike], images))
        found: list[tuple[Prediction, ...]] = []
        while chunk := list(itertools.islice(several, max(1, self.batch.hi // crops))):
            found += self._answers(chunk, top, crops, len(found))
        return found

    def preprocess(self, image: ImageLike, *, crops: int = 1) -> Input:
        """An image as the network's inputs.

        Args:
            image: As for ``classify``.
            crops: 1 or 10.

        Returns:
            (crops, 3, S, S), float32.

        Raises:
            ArtifactError: A file cannot be read as an image; names it.
            SpecError: It is no image, or cannot be cut into so many crops.
        """
        _check_crops(crops)
        return self._inputs([image], crops, 0)

    def predictions(self, logits: Scores, *, top: int = 5, crops: int = 1) -> list[tuple[Prediction, ...]]:
        """What ``classify`` makes of logits: for an application that calls ``preprocess`` and ``run`` itself.

        Args:
            logits: (images * crops, classes), the crops of an image beside each other.
            top: How many classes, at the most.
            crops: 1 or 10.

        Raises:
            SpecError: Another shape; ``top`` or ``crops`` is wrong.
            ToolError: They are not finite.
        """
        _check_top(top)
        _check_crops(crops)
        if logits.ndim != 2 or logits.shape[1] != len(self.labels) or len(logits) % crops:
            raise SpecError(
                f"logits have shape {logits.shape}", fix=f"give (images * {crops}, {len(self.labels)}), as run() does"
            )
        return self._ranked(logits, top, crops, 0)

    @overload
    def run(self, batch: Array) -> dict[str, Array]: ...

    @overload
    def run(self, batch: object, *, stream: object = None) -> dict[str, Any]: ...

    def run(self, batch: Any, *, stream: object = None) -> dict[str, Any]:
        """The network's outputs by name, for any number of inputs.

        Args:
            batch: (N, 3, S, S), float32. What exceeds the engine's largest batch is run in pieces; what is less than
                its smallest is filled up, with rows whose outputs are cut off. A NumPy array; or one of another
                library, by DLPack or the CUDA Array Interface, which is not copied: one on a GPU needs an engine there,
                and its outputs are ``DeviceArray`` in the GPU's memory.
            stream: For an array on a GPU: see ``on_device.run_on_device``.

        Raises:
            SpecError: Another type or shape, or the engine is closed.
            ToolError: The engine failed.
        """
        with self._lock:
            if self._closed:
                raise SpecError("the engine is closed", fix="load it again")
            self._calls += 1
        try:
            if not isinstance(batch, np.ndarray):
                spec = self.inputs[0]
                if is_on_device(batch, spec):
                    return dict(run_on_device(self._session, batch, stream))
                batch = host_array(batch, spec)
            return self._run(batch)
        finally:
            with self._lock:
                self._calls -= 1
                if self._closed and not self._calls:
                    self._free()

    def close(self) -> None:
        """Free what the engine holds, with the last of the calls that still run; later calls are refused."""
        with self._lock:
            self._closed = True
            if not self._calls:
                self._free()

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"Engine({self.model}, {self.precision}, {self.backend}, {len(self.labels)} classes{state})"

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, batch: Array) -> dict[str, Array]:
        source, lo, hi = self.inputs[0].name, self.batch.lo, self.batch.hi
        if batch.ndim == 0 or lo <= len(batch) <= hi:
            return self._session.run({source: batch})  # which says what is wrong
        pieces = []
        for start in range(0, max(1, len(batch)), hi):
            piece = batch[start : start + hi]
            rows, short = len(piece), lo - len(piece)
            if short > 0:
                piece = np.concatenate([piece, np.zeros((short, *piece.shape[1:]), piece.dtype)])
            pieces.append({name: array[:rows] for name, array in self._session.run({source: piece}).items()})
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def _inputs(self, images: list[Any], crops: int, first: int) -> Input:
        """Inputs of images, crops beside each other; ``first`` is the number of the first image."""
        size = self._pre.size
        out = np.empty((len(images) * crops, 3, size, size), np.float32)
        for i, image in enumerate(images):
            square = canvas(pixels_of(image, f"number {first + i}"), self._pre)
            fill(out[i * crops : (i + 1) * crops], square, self._pre, crops)
        return out

    def _answers(self, images: list[Any], top: int, crops: int, first: int) -> list[tuple[Prediction, ...]]:
        logits = self.run(self._inputs(images, crops, first))[self.outputs[0].name]
        return self._ranked(cast(Scores, logits), top, crops, first)

    def _ranked(self, logits: Scores, top: int, crops: int, first: int) -> list[tuple[Prediction, ...]]:
        logits = logits.reshape(len(logits) // crops, crops, -1)
        if not finite_rows(logits).all():
            bad = first + int(np.argmin(finite_rows(logits)))
            raise ToolError(
                f"the engine's answer to image number {bad} is not finite", fix="dlcv-deploy validate BUNDLE"
            )
        probabilities = softmax(logits).mean(1)
        scores = probabilities if crops > 1 else logits[:, 0]  # logits rank alike, and do not underflow to ties
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        return [
            tuple(Prediction(int(i), self.labels[i], float(row[i])) for i in order)
            for row, order in zip(probabilities, best, strict=True)
        ]


def _check_top(top: int) -> None:
    if top < 1:
        raise SpecError(f"the best {top} classes are none", fix="give top=1 or more")


def _check_crops(crops: int) -> None:
    if crops not in COUNTS:
        raise SpecError(f"cannot cut {crops} crops of an image", fix="give crops=1 for the centre, or crops=10")


def _refusal(path: str | os.PathLike[str], bundle: Checked) -> DeployError:
    """Why nothing of a bundle runs here: the first that was found."""
    if bundle.findings:
        return error_of(bundle.findings[0])
    return ArtifactError(f"{path} holds no engine", fix="build it again with dlcv-deploy build --force")


def _disagreement(manifest: Manifest, labels: tuple[str, ...], session: Session) -> str:
    """Why a manifest is not of this engine, which no digest tells; empty where it is."""
    for side in ("inputs", "outputs"):
        told, found = (_listed(getattr(of, side)) for of in (manifest, session))
        if told != found:
            return f"it has the {side} {told}, and the engine {found}"
    size, logits = manifest.preprocess.size, manifest.outputs[0]
    if manifest.inputs[0].shape != (3, size, size):
        return f"it cuts images of {size} x {size}, and the network takes {describe(manifest.inputs[0])}"
    if logits.shape != (len(labels),):
        return f"there are {len(labels)} labels, and the network answers with {describe(logits)}"
    return ""


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    """In the order of their names; each runtime has its own."""
    return ", ".join(sorted(map(describe, specs)))
