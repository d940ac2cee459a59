"""Makes a network by code of the user's own: what a name stands for in a Python file, or in an installed package."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ...digest import digest, sha256
from ...errors import ArtifactError, DeployError, SpecError
from ...spec import nearest
from . import where

SEED = 20
"""A factory that draws its weights draws the same ones each time."""
_INSTALLED = ("site-packages", "dist-packages")


def make(factory: str, seed: int = SEED) -> tuple[nn.Module, str]:
    """Call a factory: its network, in eval mode, in float32 on the CPU, and the digest of the code that made it.

    The digest is over the factory's file, the files beside it that it imports, and those of the network's classes,
    PyTorch's own apart. What the code sets for the whole process (``sys.path``, the working folder, random states,
    PyTorch's defaults) is set back.

    Args:
        factory: "/folder/net.py:name" or "package.module:name"; the name is callable without arguments.
        seed: Of Python's, NumPy's and PyTorch's random numbers.

    Raises:
        ArtifactError: There is no such file.
        SpecError: The code cannot be imported, raises, or makes something else; with the file and the line.
    """
    place, _, name = factory.rpartition(":")
    file = Path(place) if place.endswith(".py") else None
    shown = f"{file.name if file else place}:{name}"
    if file is not None and not file.is_file():
        raise ArtifactError(f"there is no file {file}", fix="name it as FILE.py:factory, from where you are")
    with _contained(file, seed) as known:
        with _importing(place):
            module = importlib.import_module(place) if file is None else _execute(file)
        call = _callable(module, name, shown)
        with theirs(f"{shown} raised", fix="mend the factory; it must work without arguments"):
            made = call()
        siblings = {} if file is None else _siblings(file.parent, known)
        net = _network(made, shown)
        return net, _code_sha256(net, module, siblings)


@contextlib.contextmanager
def theirs(what: str, *, fix: str) -> Iterator[None]:
    """Makes one clear error of whatever a user's code raises.

    Raises:
        SpecError: ``what``, the error, and the last places in the user's code that it passed through.
    """
    try:
        yield
    except DeployError:
        raise
    except (Exception, SystemExit) as e:  # any code may stand here, and raise anything
        places = "".join(f"\n  {place}" for place in where.lines(e, most=3))
        raise SpecError(f"{what} {where.described(e)}{places}", fix=fix) from e


@contextlib.contextmanager
def _contained(file: Path | None, seed: int) -> Iterator[frozenset[str]]:
    """Makes a file's folder importable and seeds what is random; in the end all is as it was before."""
    path, argv, cwd, known = list(sys.path), list(sys.argv), Path.cwd(), frozenset(sys.modules)
    states = random.getstate(), np.random.get_state()
    dtype, device, grad, threads = (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
    )
    try:
        if file is not None:
            sys.path.insert(0, str(file.parent))
            sys.argv[:] = [str(file)]  # a file that reads its arguments finds none, and not this tool's
        random.seed(seed)
        np.random.seed(seed)
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(seed)
            yield known
    finally:
        if file is not None:
            for name in _siblings(file.parent, known):
                del sys.modules[name]  # another network may have others of the same names
        sys.path[:], sys.argv[:] = path, argv
        os.chdir(cwd)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(None)
        torch.set_grad_enabled(grad)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _siblings(folder: Path, known: frozenset[str]) -> dict[str, Path]:
    """The modules from a folder that were imported since."""
    tops = {name.partition(".")[0] for name in known}
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or name.partition(".")[0] in tops or name.startswith(_PRIVATE):
            continue
        path = Path(file)
        if path.is_relative_to(folder) and not set(_INSTALLED) & set(path.relative_to(folder).parts):
            found[name] = path
    return found


_PRIVATE = "_dlcv_own_"


def _execute(file: Path) -> ModuleType:
    """A file as a module of a private name, from the bytes that are there now (no bytecode of an older file)."""
    name = f"{_PRIVATE}{sha256(str(file).encode())[:12]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and the like look their module up
    exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)
    return module


@contextlib.contextmanager
def _importing(name: str) -> Iterator[None]:
    """Says what is missing where an import fails."""
    with theirs(f"{name} cannot be imported:", fix="mend the file: python FILE.py must run without an error"):
        try:
            yield
        except ModuleNotFoundError as e:
            place = "".join(f"\n  {place}" for place in where.lines(e))
            if e.name and f"{name}.".startswith(f"{e.name}."):
                raise SpecError(
                    f"there is no package {name}", fix="install it, or name a file: path/to/FILE.py:factory"
                ) from e
            raise SpecError(
                f"{name} imports {e.name}, which is not installed here{place}",
                fix=f"install {e.name} beside dlcv-deploy ({sys.executable} -m pip install ...), or put it beside "
                "the file",
            ) from e


def _callable(module: ModuleType, name: str, shown: str) -> Callable[[], Any]:
    if not hasattr(module, name):
        here = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
        known = tuple(n for n in here if not n.startswith("_"))
        what = f"factory in {shown.rpartition(':')[0]} called"
        if not known:
            raise SpecError(f"no {what} {name!r}", fix="name a class, or a function without arguments, that is there")
        raise nearest(what, name, known)
    found = getattr(module, name)
    if isinstance(found, nn.Module) or not callable(found):
        what = "a network already" if isinstance(found, nn.Module) else f"{_kind(found)}, and cannot be called"
        raise SpecError(
            f"{shown} is {what}", fix="name a class, or a function without arguments that returns the network"
        )
    try:
        parameters = inspect.signature(found).parameters.values()
    except ValueError:  # some that are written in C tell nothing
        parameters = ()  # type: ignore[assignment]
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if needed:
        raise SpecError(
            f"{shown} needs the argument{'s' * (len(needed) > 1)} {', '.join(needed)}",
            fix=f"write a function without arguments in a file of yours that returns {name}({needed[0]}=..., ...)"
            if len(needed) > 1
            else f"write a function without arguments in a file of yours that returns {name}({needed[0]}=...)",
        )
    return found  # type: ignore[no-any-return]


def _network(made: object, shown: str) -> nn.Module:
    """What a factory returned, if it is a network that can be worked with."""
    if isinstance(made, torch.jit.ScriptModule):
        raise SpecError(f"{shown} returns TorchScript, which cannot be exported", fix="return the nn.Module itself")
    if not isinstance(made, nn.Module):
        hint = " (its network alone)" if isinstance(made, tuple | list) else ""
        raise SpecError(f"{shown} returns {_kind(made)}, and no torch.nn.Module", fix=f"return the nn.Module{hint}")
    made = getattr(made, "_orig_mod", made)  # what torch.compile wraps
    assert isinstance(made, nn.Module)
    tensors = [*made.named_parameters(), *made.named_buffers()]
    if empty := [name for name, tensor in tensors if is_lazy(tensor) or tensor.is_meta]:
        raise SpecError(
            f"{shown} returns a network whose {empty[0]} has no values yet (it is lazy, or on the meta device)",
            fix="make it on the CPU, and call a lazy network once on an example before returning it",
        )
    return made.to("cpu", torch.float32).eval()


def _kind(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {', '.join(type(v).__name__ for v in value[:4]) or 'nothing'}"
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _code_sha256(net: nn.Module, module: ModuleType, siblings: dict[str, Path]) -> str:
    files = {name: path for name, path in siblings.items() if path.suffix == ".py"}
    for name in {module.__name__, *(type(part).__module__ for part in net.modules())}:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and file.endswith(".py") and name.partition(".")[0] != "torch":
            files["factory" if name == module.__name__ else name] = Path(file)
    return digest(code={name: sha256(path.read_bytes()) for name, path in files.items()})
