"""What all sessions share: tensors described alike, feeds checked in one place, and silence once closed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, runtime_checkable

import numpy as np

from ..errors import ArtifactError, SpecError
from ..types import Dim, Engine, TensorSpec
from .base import Array
from .blame import explained

if TYPE_CHECKING:
    from ._cuda import SharedCuda

Infer = Callable[[list[Array]], list[Array]]


class CheckedSession:
    """A session around one native call, which takes and returns arrays in the order of ``inputs`` and ``outputs``."""

    def __init__(
        self,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        batch: Dim,
        infer: Infer,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.inputs, self.outputs, self.batch = inputs, outputs, batch
        self._infer, self._settings = infer, dict(settings or {})

    @property
    def settings(self) -> Mapping[str, str]:
        """See ``Described``."""
        return self._settings

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        arrays = ordered(feeds, self.inputs, self.batch)
        return {spec.name: array for spec, array in zip(self.outputs, self._infer(arrays), strict=True)}

    def close(self) -> None:
        self._infer = _refuse

    def __enter__(self) -> CheckedSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@runtime_checkable
class OnDevice(Protocol):
    """A session that runs on a GPU's memory without copies."""

    @property
    def shared(self) -> SharedCuda:
        """Its GPU. MissingBackend where other libraries cannot share it."""
        ...

    @property
    def stream(self) -> int:
        """The stream that it works on."""
        ...

    def run_device(
        self,
        rows: int,
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
        *,
        after: Iterable[int],
        done: Any,  # noqa: ANN401 - see Cuda
        then: int | None,
    ) -> None:
        """Put the work on ``rows`` rows on its stream; it is complete when ``done`` happens.

        Args:
            rows: From 1 on. What exceeds the largest batch is done in pieces.
            inputs: Where each input lies, row by row.
            outputs: Where each output goes.
            after: Streams whose work so far comes first.
            done: An event of its GPU.
            then: A stream whose later work waits for this; None to return only when it is done.

        Raises:
            SpecError: The session is closed.
            ToolError: The runtime or CUDA failed. Nothing uses the memory any more.
        """
        ...


def _refuse(arrays: list[Array]) -> NoReturn:
    raise SpecError("the session is closed", fix="load the engine again")


def ordered(feeds: Mapping[str, Array], inputs: tuple[TensorSpec, ...], batch: Dim) -> list[Array]:
    """Feeds in the order of ``inputs``, each contiguous; nothing is converted.

    Raises:
        SpecError: A missing or unknown input, a wrong dtype or shape, or a batch that differs or is outside ``batch``.
    """
    wanted = ", ".join(map(describe, inputs))
    if unknown := [name for name in feeds if name not in {spec.name for spec in inputs}]:
        raise SpecError(f"there is no input {unknown[0]!r}", fix=f"feed {wanted}")
    arrays = []
    for spec in inputs:
        if spec.name not in feeds:
            raise SpecError(f"input {spec.name!r} is missing", fix=f"feed {wanted}")
        array = feeds[spec.name]
        if not isinstance(array, np.ndarray):
            raise SpecError(f"input {spec.name!r} is a {type(array).__name__}", fix=f"feed a NumPy array: {wanted}")
        if array.dtype != np.dtype(spec.dtype):
            raise SpecError(
                f"input {spec.name!r} is {array.dtype}, not {spec.dtype}", fix=f"use .astype({spec.dtype!r})"
            )
        if array.shape[1:] != spec.shape or array.ndim != len(spec.shape) + 1:
            raise SpecError(f"input {spec.name!r} has shape {array.shape}", fix=f"feed {wanted}")
        if not batch.lo <= len(array) <= batch.hi:
            raise SpecError(
                f"input {spec.name!r} is a batch of {len(array)}; the engine takes {batch.lo} to {batch.hi}",
                fix="split the batch, or compile with other bounds",
            )
        arrays.append(np.ascontiguousarray(array))
    if len({len(array) for array in arrays}) > 1:
        sizes = ", ".join(f"{spec.name}: {len(array)}" for spec, array in zip(inputs, arrays, strict=True))
        raise SpecError(f"the inputs differ in batch ({sizes})", fix="feed as many rows to each")
    return arrays


def describe(spec: TensorSpec) -> str:
    """A tensor in words: ``'x' float32 (N, 3, 32, 32)``."""
    return f"{spec.name!r} {spec.dtype} ({', '.join(['N', *map(str, spec.shape)])})"


def spec_of(name: str, shape: Sequence[int | None] | None, dtype: str, batch: Dim) -> TensorSpec:
    """A tensor of a compiled graph.

    Args:
        name: Its name.
        shape: With the batch axis first; None for a free axis, or for a tensor whose rank is not known.
        dtype: NumPy's name for it.
        batch: The sizes that the batch axis must be able to take.

    Raises:
        SpecError: No batch axis, a batch fixed at another size, or another axis that is free.
    """
    if not shape:
        raise SpecError(f"tensor {name!r} has no batch axis", fix="export the network with the batch as first axis")
    if shape[0] is not None and not batch.lo == shape[0] == batch.hi:
        raise SpecError(
            f"tensor {name!r} has a fixed batch of {shape[0]}; {batch.lo} to {batch.hi} was asked for",
            fix="export the network with a dynamic batch",
        )
    rest = tuple(size for size in shape[1:] if size is not None)
    if len(rest) != len(shape) - 1:
        raise SpecError(f"tensor {name!r} has free axes besides its batch", fix="export it with fixed sizes")
    return TensorSpec(name, rest, dtype)


def file_of(engine: Engine, name: str, *, may_be_empty: bool = False) -> bytes:
    """Content of one of an engine's files.

    Raises:
        ArtifactError: It is absent, or empty where that cannot be.
    """
    if name not in engine.files or not (engine.files[name] or may_be_empty):
        state = "is empty" if name in engine.files else "is missing"
        raise ArtifactError(f"the {engine.backend} engine's file {name} {state}", fix="build it again")
    return engine.files[name]


def damaged(engine: Engine, why: str, log: str = "") -> ArtifactError:
    """The error for an engine that its own runtime does not take; ``log`` is all that it said, where that is more."""
    told = explained(engine.backend, why, log, fix="build it again")
    return ArtifactError(f"the {engine.backend} engine cannot be read: {told.what}", fix=told.fix)
