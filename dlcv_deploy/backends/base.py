"""What a backend is: it says what it can do here, compiles an ONNX graph, and loads what it compiled."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..types import Ability, CompileOptions, Engine, TensorSpec

Array = npt.NDArray[np.generic]


class Session(Protocol):
    """A loaded engine. Arrays it returns are owned by the caller; after ``close`` it refuses to run (SpecError)."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for inputs by name, each with the batch axis first.

        Raises:
            SpecError: a missing or unknown input, a wrong dtype or shape, or a batch outside the profile.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Session: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dc.dataclass(frozen=True, slots=True)
class Timing:
    """One call on the device's clock: copy in, compute, copy out; ``enqueue_ms`` is the host's share of computing."""

    h2d_ms: float
    compute_ms: float
    d2h_ms: float
    enqueue_ms: float


@runtime_checkable
class Described(Protocol):
    """A session that says how it runs: what its runtime was told, or says of itself, in the runtime's own words."""

    @property
    def settings(self) -> Mapping[str, str]: ...


@runtime_checkable
class DeviceTimed(Protocol):
    """A session on a device that has a clock of its own."""

    def run_timed(self, feeds: Mapping[str, Array]) -> Timing:
        """Run once and say how long each part took; the outputs are dropped."""
        ...


class Audited(Protocol):
    """A backend that knows in which type an engine computes each product of its graph."""

    EVIDENCE: str
    """Where it knows that from, in words that follow "by"."""

    def runs_in(self, engine: Engine, onnx: bytes) -> Mapping[str, str]:
        """NumPy's name of the type in which each Conv, Gemm and MatMul is computed, by node name.

        A node that is not found in the engine is left out: nothing is claimed of it.

        Args:
            engine: As ``compile`` gave it.
            onnx: The graph that it was compiled from.

        Raises:
            ToolError: the engine's runtime refused it.
        """
        ...


class Backend(Protocol):
    """One module of this package, reached through ``backends.get(name)``."""

    name: str

    def ability(self) -> Ability:
        """What can be done on this machine; cheap, and never raises."""
        ...

    def compile(self, onnx: bytes, options: CompileOptions) -> Engine:
        """Compile a graph, in a child process.

        Raises:
            MissingBackend: the package, or the device it needs, is absent.
            ToolError: the compiler refused, crashed, hung or returned nothing; names the node where it can.
        """
        ...

    def load(self, engine: Engine) -> Session:
        """Make an engine ready to run in this process.

        Raises:
            MissingBackend: it cannot run here.
            ArtifactError: the engine is damaged, or belongs to another version.
        """
        ...
