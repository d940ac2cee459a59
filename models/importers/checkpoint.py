"""Reading the tensors of checkpoints; nothing is ever unpickled."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251  only to catch what torch.load(weights_only=True) raises

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ...errors import ArtifactError, SpecError

SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt")
_INDICES = (torch.int64, torch.int32, torch.bool)
"""Of tables and masks that some networks keep among their weights."""
_NESTS = ("state_dict", "model", "model_state_dict", "net")
_PREFIXES = ("module.", "_orig_mod.")  # DataParallel's, torch.compile's
OTHER_WAYS = "give --weights FILE (.pth, .safetensors, .onnx) or --weights random"
_TENSORS_ALONE = "save the tensors alone: torch.save(net.state_dict(), FILE)"


def check_file(path: Path) -> None:
    """Refuse what cannot be a file of weights.

    Raises:
        SpecError: A kind of file that is not known.
        ArtifactError: No file, or an empty one.
    """
    if path.is_dir():
        raise ArtifactError(f"{path} is a folder", fix="name the file of weights in it")
    if not path.is_file():
        raise ArtifactError(f"there is no file {path}", fix=OTHER_WAYS)
    if path.suffix.lower() not in (*SUFFIXES, ".onnx"):
        raise SpecError(f"{path} is no kind of file that is known", fix=f"use {', '.join(SUFFIXES)}, .onnx")
    if path.stat().st_size == 0:
        raise ArtifactError(f"{path} is empty", fix="copy or download it again")


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without the prefixes that wrappers add.

    Raises:
        SpecError: A kind of file that is not known.
        ArtifactError: No file, an empty or damaged one, or one that holds something else.
    """
    check_file(path)
    read = _read_safetensors if path.suffix.lower() == ".safetensors" else _read_torch
    return _tensors(path, read(path))


def _read_safetensors(path: Path) -> object:
    try:
        return safetensors.torch.load(path.read_bytes())
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as e:
        raise ArtifactError(
            f"{path} is damaged, or is not a safetensors file: {e}", fix="copy or download it again"
        ) from e
    except OSError as e:
        raise ArtifactError(f"cannot read {path}: {e.strerror}", fix="look at its permissions") from e


def _read_torch(path: Path) -> object:
    refusals = (UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # guesses at what a damaged file may be
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as e:
        raise ArtifactError(f"cannot read {path}: {e.strerror}", fix="look at its permissions") from e
    except (*refusals, AssertionError, ArithmeticError, struct.error) as e:  # all seen on damaged files
        if code := re.search(r"GLOBAL (\S+)", str(e)):
            raise ArtifactError(
                f"{path} holds {code[1]}, a Python object, and not tensors alone; objects are code and never loaded",
                fix=_TENSORS_ALONE,
            ) from e
        raise ArtifactError(
            f"{path} is damaged, or is not a checkpoint of PyTorch", fix="copy or download it again"
        ) from e


def _tensors(path: Path, value: object) -> dict[str, Tensor]:
    """The state dict within what a file holds, checked."""
    if isinstance(value, Mapping):
        value = next((value[nest] for nest in _NESTS if isinstance(value.get(nest), Mapping)), value)
    if not isinstance(value, Mapping) or not value:
        raise ArtifactError(f"{path} holds no state dict, but {_kind(value)}", fix=_TENSORS_ALONE)
    state: dict[str, Tensor] = {}
    for name, tensor in value.items():
        key = str(name)
        while prefix := next((p for p in _PREFIXES if key.startswith(p)), ""):
            key = key.removeprefix(prefix)
        if not isinstance(tensor, Tensor):
            raise ArtifactError(f"{path}: {key!r} is not a tensor, but {_kind(tensor)}", fix=_TENSORS_ALONE)
        known = tensor.is_floating_point() or tensor.dtype in _INDICES
        usable = tensor.layout == torch.strided and tensor.device.type == "cpu" and known
        if not usable and not is_count(key):
            what = f"{tensor.dtype} on {tensor.device}, {tensor.layout}"
            raise ArtifactError(f"{path}: {key!r} is not plain numbers, but {what}", fix=_TENSORS_ALONE)
        if key in state:
            raise ArtifactError(f"{path} holds {key!r} twice, with and without a wrapper's prefix", fix=_TENSORS_ALONE)
        state[key] = tensor
    return state


def _kind(value: object) -> str:
    article = "an empty" if isinstance(value, Mapping) and not value else "a"
    return f"{article} {type(value).__name__}"


def is_count(key: str) -> bool:
    """Whether a key names one of batch normalization's counters, which change no answer."""
    return key.endswith("num_batches_tracked")
