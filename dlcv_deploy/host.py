"""What this machine has that an engine needs: processor, memory, runtimes and their versions, an NVIDIA GPU."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Mapping


@dc.dataclass(frozen=True, slots=True)
class HostGpu:
    """The GPU that engines would run on. ``sm`` is 89 for SM 8.9; ``cuda`` what its driver serves, 13000 for 13.0."""

    name: str
    sm: int
    memory_bytes: int
    cuda: int


@dc.dataclass(frozen=True, slots=True)
class Host:
    """One machine, as a pre-flight check sees it; the same value in C++, and the same JSON.

    ``machine`` is the processor as ``uname -m`` names it, ``memory_bytes`` what is available of its memory, 0 where
    that is not known. ``runtimes`` gives the version of each backend's runtime that is installed. Without a GPU,
    ``no_gpu`` says why.
    """

    machine: str
    memory_bytes: int
    runtimes: Mapping[str, str]
    gpu: HostGpu | None = None
    no_gpu: str = ""
