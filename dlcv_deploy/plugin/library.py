"""The plugin's library as a file: what it says of itself, and whom it serves. Read as bytes and never loaded here."""

from __future__ import annotations

import dataclasses as dc
import json
from collections.abc import Sequence
from pathlib import Path

from .. import digest
from ..errors import ArtifactError

FILE = "libdlcv_lrn.so"
OPS = ("DlcvLRN", "DlcvLRNMaxPool")

_MARK = b"DLCV_PLUGIN_INFO"
_SCHEMA = 1
_AGAIN = "build it again: dlcv-deploy plugin build"
_MACHINES = {62: "x86_64", 183: "aarch64"}  # e_machine, System V ABI
_TEGRA = (72, 87, 88, 101, 110)  # run machine code of their own architecture only (CUDA C++ Programming Guide, 3.1.2)


@dc.dataclass(frozen=True, slots=True)
class Library:
    """A library that was read whole.

    ``tensorrt`` is the version of the headers that it was compiled against, "10.14.1"; ``architectures`` are the GPU
    architectures that it holds machine code for, ascending, with PTX of the highest for those above; ``cuda`` is the
    compiler's version, "13.0"; ``source_sha256`` names the source.
    """

    data: bytes = dc.field(repr=False)
    tensorrt: str
    architectures: tuple[int, ...]
    cuda: str
    source_sha256: str

    @property
    def sha256(self) -> str:
        """Of the file."""
        return digest.sha256(self.data)

    @property
    def machine(self) -> str:
        """The processor that it is for, as ``platform.machine`` names it."""
        return machine_of(self.data)


def library_file(path: Path) -> bytes:
    """The content of a library's file.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        return path.expanduser().read_bytes()
    except OSError as e:
        fix = "dlcv-deploy plugin build -o FILE makes one"
        raise ArtifactError(f"the plugin's library {path} cannot be read: {e.strerror}", fix=fix) from e


def read_library(data: bytes, name: str) -> Library:
    """Read what a library says of itself.

    Args:
        data: The file's content.
        name: What errors call it.

    Raises:
        ArtifactError: it is no library, is cut off, is no plugin of this project, or says of itself what cannot be.
    """
    if not data:
        raise ArtifactError(f"{name} is empty", fix=_AGAIN)
    if data[:4] != b"\x7fELF":
        raise ArtifactError(f"{name} is not a shared library for Linux", fix=f"name the file {FILE} that was built")
    if data[4:6] != b"\x02\x01" or len(data) < _end(data):  # 64 bits, little end first
        raise ArtifactError(f"{name} is damaged: it is cut off, or is no library for 64-bit processors", fix=_AGAIN)
    found = {_told(data, at) for at in _places(data)}
    if not found:
        raise ArtifactError(
            f"{name} is not the LRN plugin: no {_MARK.decode()} stands in it",
            fix=f"name the {FILE} that `dlcv-deploy plugin build` wrote",
        )
    library = _library(data, found.pop()) if len(found) == 1 else None
    if library is None:
        raise ArtifactError(f"{name} is damaged: what it says of itself cannot be read", fix=_AGAIN)
    return library


def check_serves(library: Library, *, major: int | None, sm: Sequence[int]) -> None:
    """Refuse a library that was built for another TensorRT or for other GPUs.

    Args:
        library: The library.
        major: TensorRT's major version; None where any will do, as TensorRT-RTX's, which takes both 10 and 11.
        sm: The GPU architectures that it must serve, as (86, 89).

    Raises:
        ArtifactError: it does not serve them.
    """
    held = ", ".join(map(str, library.architectures))
    if missing := [one for one in sm if not serves(library.architectures, one)]:
        wanted = ",".join(map(str, sorted({*library.architectures, *missing})))
        raise ArtifactError(
            f"the plugin's library was built for the GPU architectures {held} and not for "
            f"{', '.join(map(str, missing))}",
            fix=f"build it for them: dlcv-deploy plugin build --arch {wanted}",
        )
    if major is not None and library.tensorrt.partition(".")[0] != str(major):
        raise ArtifactError(
            f"the plugin's library was built against TensorRT {library.tensorrt}, and this is TensorRT {major}",
            fix=f"build it with the headers of TensorRT {major}: set TENSORRT_ROOT or DLCV_TENSORRT_INCLUDE",
        )


def serves(held: Sequence[int], sm: int) -> bool:
    """Whether machine code of the same generation runs there, or the PTX of the highest architecture does."""
    if sm in held or sm > max(held):
        return True
    return sm not in _TEGRA and any(one // 10 == sm // 10 and one < sm and one not in _TEGRA for one in held)


def machine_of(data: bytes) -> str:
    """The processor that an ELF file is for, as ``platform.machine`` names it."""
    number = int.from_bytes(data[18:20], "little")
    return _MACHINES.get(number, f"processor {number}")


def _end(data: bytes) -> int:
    """Where a 64-bit ELF file ends at the least: behind its table of sections."""
    start, size, count = (int.from_bytes(data[a:b], "little") for a, b in ((40, 48), (58, 60), (60, 62)))
    return max(64, start + size * count)


def _places(data: bytes) -> list[int]:
    """Where what a library says of itself begins."""
    places, mark = [], _MARK + b"{"
    at = data.find(mark)
    while at >= 0:
        places.append(at + len(_MARK))
        at = data.find(mark, at + 1)
    return places


def _told(data: bytes, at: int) -> bytes:
    return data[at : data.find(b"\0", at)]


def _library(data: bytes, told: bytes) -> Library | None:
    """None where it is not what this version of the project writes."""
    try:
        value = json.loads(told)
        tensorrt, cuda, source = (value[key] for key in ("tensorrt", "cuda", "source"))
        schema, architectures = value["schema"], value["architectures"]
    except (ValueError, KeyError, TypeError):
        return None
    plain = isinstance(architectures, list) and architectures and all(type(one) is int for one in architectures)
    texts = all(isinstance(text, str) and text for text in (tensorrt, cuda, source))
    if schema != _SCHEMA or not plain or not texts:
        return None
    return Library(data, tensorrt, tuple(sorted(set(architectures))), cuda, source)
