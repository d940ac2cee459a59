"""CIFAR-10 as arrays: from an .npz, or out of the official archive, whose pickles are read as data and never run."""

from __future__ import annotations

import dataclasses as dc
import os
import pickletools
import tarfile
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArtifactError
from ..progress import Progress, silent
from ..store import cache_dir, download
from .npz import Labels, Pixels, read_npz

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE = "cifar-10-python.tar.gz"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
"""Of the archive with the MD5 c58f30108f718f92721af3b95e74349a, which is the one its page gives."""
BATCHES = {"test": ("test_batch",), "train": tuple(f"data_batch_{i}" for i in range(1, 6))}
_LARGEST_BATCH_BYTES = 1 << 26


def load(split: str, progress: Progress = silent) -> tuple[Pixels, Labels]:
    """Images (N, 32, 32, 3), RGB, and labels (N,) of the "test" or the "train" images.

    Taken from DLCV_DATA/cifar10/SPLIT.npz, else from the archive in the cache, else from its address.

    Raises:
        ArtifactError: It is in none of the three places, or damaged.
    """
    if data := os.environ.get("DLCV_DATA"):
        path = Path(data).expanduser() / "cifar10" / f"{split}.npz"
        if path.is_file():
            pixels, labels = read_npz(path)
            if labels is None or pixels.shape[1:] != (32, 32, 3):
                raise ArtifactError(f"{path.name} in DLCV_DATA is not CIFAR-10", fix="give 32x32 images with labels")
            return pixels, labels
    try:
        archive = download(URL, ARCHIVE, SHA256, progress)
    except ArtifactError as e:
        raise ArtifactError(
            f"CIFAR-10 is not here: {e.what}",
            fix=f"set DLCV_DATA to a folder with cifar10/{split}.npz, or put {ARCHIVE} into {cache_dir()}/downloads, "
            "or run again where the network reaches its address",
        ) from e
    return read_archive(archive, split)


def read_archive(archive: Path, split: str) -> tuple[Pixels, Labels]:
    """Images and labels of a split, from the archive of Python batches.

    Raises:
        ArtifactError: It is not such an archive, or holds a pickle of anything but names, numbers and bytes.

    Source: www.cs.toronto.edu/~kriz/cifar.html, "Dataset layout, Python": rows of 3,072 bytes, the red channel first,
    each channel row by row.
    """
    found: dict[str, tuple[Pixels, list[int]]] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                if name not in BATCHES[split] or not member.isfile():
                    continue
                if member.size > _LARGEST_BATCH_BYTES:
                    raise ValueError(f"{name} is of {member.size} bytes")
                file = tar.extractfile(member)
                found[name] = _batch(file.read() if file else b"")
                if len(found) == len(BATCHES[split]):
                    break
        if missing := [name for name in BATCHES[split] if name not in found]:
            raise ValueError(f"it holds no {missing[0]}")
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError) as e:
        raise ArtifactError(f"{archive.name} cannot be read: {e}", fix="remove it, and it is fetched again") from e
    batches = [found[name] for name in BATCHES[split]]
    planes = np.concatenate([data for data, _ in batches]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([np.array(numbers, np.int64) for _, numbers in batches])
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


def _batch(data: bytes) -> tuple[Pixels, list[int]]:
    """Pixels (N, 3072) and labels of one batch file."""
    batch = plain(data)
    if not isinstance(batch, dict):
        raise ValueError("a batch is no dictionary")
    named = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    pixels, labels = named.get("data"), named.get("labels")
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != 3072:
        raise ValueError("a batch holds no 'data' of rows of 3,072 bytes")
    if not isinstance(labels, list) or len(labels) != len(pixels) or not all(map(_is_class, labels)):
        raise ValueError("a batch holds no 'labels' from 0 to 9 for its rows")
    return pixels, labels


def _is_class(value: object) -> bool:
    return type(value) is int and 0 <= value <= 9


@dc.dataclass(slots=True)
class _Made:
    """What a pickle has a constructor make: one of the few that are known, and its array once that is filled in."""

    kind: str
    array: Pixels | None = None


_KNOWN = {
    "numpy.core.multiarray _reconstruct": "reconstruct",
    "numpy._core.multiarray _reconstruct": "reconstruct",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
}
_MARK = object()


def plain(data: bytes) -> Any:  # noqa: ANN401
    """What a pickle says, where that is dictionaries, lists, tuples, numbers, text, bytes and arrays of bytes.

    Nothing is imported and nothing is called: opcodes and the four constructors that NumPy's arrays of bytes need are
    read from a closed list, by ``pickletools.genops``, which only splits the text into opcodes.

    Raises:
        ValueError: Anything else is in it, or it is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an invalid escape in a text is damage too
            return _interpret(data)
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError, Warning) as e:
        raise ValueError(f"a damaged pickle ({type(e).__name__})") from e


def _interpret(data: bytes) -> Any:  # noqa: ANN401
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(data):
        match opcode.name:
            case "PROTO" if argument == 2:
                pass
            case "MARK":
                stack.append(_MARK)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "BININT" | "BININT1" | "BININT2" | "BINUNICODE":
                stack.append(argument)
            case "SHORT_BINSTRING" | "BINSTRING":
                stack.append(argument.encode("latin-1"))
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[opcode.name]())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(_pop(stack, int(opcode.name[-1]))))
            case "TUPLE":
                stack.append(tuple(_pop_to_mark(stack)))
            case "APPEND" | "APPENDS":
                items = _pop(stack, 1) if opcode.name == "APPEND" else _pop_to_mark(stack)
                _as(list, stack[-1]).extend(items)
            case "SETITEM" | "SETITEMS":
                items = _pop(stack, 2) if opcode.name == "SETITEM" else _pop_to_mark(stack)
                if len(items) % 2:
                    raise ValueError("a damaged pickle (a name without a value)")
                _as(dict, stack[-1]).update(zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL" if argument in _KNOWN:
                stack.append(_Made(_KNOWN[argument]))
            case "REDUCE":
                made, arguments = _pop(stack, 2)
                stack.append(_reduce(_as(_Made, made), _as(tuple, arguments)))
            case "BUILD":
                (state,) = _pop(stack, 1)
                _build(_as(_Made, stack[-1]), _as(tuple, state))
            case "STOP":
                (value,) = _pop(stack, 1)
                return _finished(value)
            case _:
                raise ValueError(f"a pickle with {opcode.name} {argument!r:.60} in it, which is not read here")
    raise ValueError("a pickle that does not end")


def _pop(stack: list[Any], count: int) -> list[Any]:
    items = stack[-count:]
    if len(items) < count or any(item is _MARK for item in items):
        raise ValueError("a damaged pickle (stack)")
    del stack[-count:]
    return items


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    start = max((i for i, item in enumerate(stack) if item is _MARK), default=-1)
    if start < 0:
        raise ValueError("a damaged pickle (no mark)")
    items = stack[start + 1 :]
    del stack[start:]
    return items


def _as(kind: type, value: Any) -> Any:  # noqa: ANN401
    if type(value) is not kind:
        raise ValueError(f"a damaged pickle ({type(value).__name__} for {kind.__name__})")
    return value


def _reduce(made: _Made, arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401
    match made.kind, arguments:
        case "reconstruct", (_Made(kind="ndarray"), (0,), b"b"):
            return _Made("array")
        case "dtype", ("u1" | b"u1", False, True):
            return _Made("bytes")
        case "encode", (str() as text, "latin1" | "latin-1"):
            return text.encode("latin-1")
    raise ValueError(f"a pickle that makes a {made.kind} of {arguments!r:.60}, which is not read here")


def _build(made: _Made, state: tuple[Any, ...]) -> None:
    match made.kind, state:
        case "bytes", (3, "|" | b"|", None, None, None, -1, -1, 0):
            return
        case "array", (1, (int(), int()) as shape, _Made(kind="bytes"), False, bytes() as raw) if min(shape) >= 0:
            made.array = np.frombuffer(raw, np.uint8).reshape(shape)
            return
    raise ValueError(f"a pickle that fills a {made.kind} in with {state!r:.60}, which is not read here")


def _finished(value: Any) -> Any:  # noqa: ANN401
    """A value with its arrays in place of what made them, one level down, where a batch has them."""
    if type(value) is dict:
        return {key: item.array if isinstance(item, _Made) else item for key, item in value.items()}
    return value
