"""Finds what compiles the plugin: nvcc, g++, CMake, a build tool, and TensorRT's headers."""

from __future__ import annotations

import dataclasses as dc
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from ..errors import MissingBackend, SpecError

T = TypeVar("T")

_ASK_TIMEOUT_S = 60
_OLDEST = {"nvcc": (11, 8), "cmake": (3, 20)}  # the first with sm_90; what CMakeLists.txt asks for
_FIXES = {
    "nvcc": "pip install 'dlcv-deploy[plugin]', or install NVIDIA's CUDA toolkit and set CUDA_HOME to its folder",
    "g++": "apt install g++, or set CXX to a C++ compiler",
    "cmake": "pip install 'dlcv-deploy[plugin]', or apt install cmake",
    "ninja": "pip install 'dlcv-deploy[plugin]', or apt install ninja-build",
    "headers": "unpack NVIDIA's TensorRT SDK and set TENSORRT_ROOT to its folder, or set DLCV_TENSORRT_INCLUDE to a "
    "folder with NvInfer.h, as the include folder of github.com/NVIDIA/TensorRT",
}


@dc.dataclass(frozen=True, slots=True)
class Nvcc:
    """The CUDA compiler; ``home`` is the folder of PyPI's wheels that it came with, None for a toolkit."""

    path: Path
    version: str
    architectures: tuple[int, ...]
    home: Path | None = None


@dc.dataclass(frozen=True, slots=True)
class Headers:
    """TensorRT's headers, with the version that they state, "10.14.1"."""

    folder: Path
    version: str


@dc.dataclass(frozen=True, slots=True)
class Toolchain:
    """All that it takes to compile the plugin."""

    nvcc: Nvcc
    cxx: Path
    cxx_version: str
    cmake: Path
    maker: Path
    headers: Headers

    def definitions(self) -> dict[str, str]:
        """What CMake is told of it."""
        told = {
            "CMAKE_MAKE_PROGRAM": str(self.maker),
            "CMAKE_CUDA_COMPILER": str(self.nvcc.path),
            "CMAKE_CUDA_HOST_COMPILER": str(self.cxx),
            "CMAKE_CXX_COMPILER": str(self.cxx),
            "DLCV_TENSORRT_INCLUDE": str(self.headers.folder),
        }
        if self.nvcc.home:  # the wheels have no libcudart.so, which FindCUDAToolkit insists on
            told["CUDAToolkit_ROOT"] = str(self.nvcc.home)
            told["CUDA_CUDART"] = str(self.nvcc.home / "lib/libcudart_static.a")
        return told

    @property
    def generator(self) -> str:
        """CMake's word for the build tool."""
        return "Ninja" if "ninja" in self.maker.name else "Unix Makefiles"

    def environment(self) -> dict[str, str]:
        """Environment variables on top of this process's own."""
        env = {"LDFLAGS": _appended("LDFLAGS", "-s")}  # nvcc puts process numbers into symbols: without, bytes repeat
        if self.nvcc.home:  # its nvcc.profile looks in lib64
            env["NVCC_APPEND_FLAGS"] = _appended("NVCC_APPEND_FLAGS", f'-L"{self.nvcc.home / "lib"}"')
        return env


def _appended(variable: str, flag: str) -> str:
    return f"{os.environ.get(variable, '')} {flag}".strip()


def find_toolchain() -> Toolchain:
    """All of it, or one error that names everything that is missing.

    Raises:
        MissingBackend: something is missing, too old, or does not run.
    """
    missing: list[MissingBackend] = []

    def found(find: Callable[[], T]) -> T | None:
        try:
            return find()
        except MissingBackend as e:
            missing.append(e)
            return None

    nvcc, cxx, cmake = found(find_nvcc), found(find_cxx), found(find_cmake)
    maker, headers = found(find_maker), found(find_headers)
    if nvcc is None or cxx is None or cmake is None or maker is None or headers is None:
        fixes = list(dict.fromkeys(each.fix for each in missing))
        raise MissingBackend(
            f"the plugin cannot be compiled here: {'; '.join(each.what for each in missing)}", fix="; ".join(fixes)
        )
    return Toolchain(nvcc, cxx[0], cxx[1], cmake, maker, headers)


def check_architectures(nvcc: Nvcc, architectures: tuple[int, ...]) -> None:
    """Refuse architectures that this nvcc does not know.

    Raises:
        SpecError: naming those that it knows.
    """
    if not architectures:
        raise SpecError("no GPU architecture was asked for", fix="give some, as --arch 86,89")
    if unknown := [one for one in architectures if one not in nvcc.architectures]:
        raise SpecError(
            f"nvcc {nvcc.version} does not compile for the architecture {', '.join(map(str, unknown))}",
            fix=f"use some of {','.join(map(str, nvcc.architectures))}",
        )


def find_nvcc() -> Nvcc:
    """The first nvcc that runs: CUDA_HOME's, CUDA_PATH's, PATH's, /usr/local/cuda's, the wheels'.

    Raises:
        MissingBackend: there is none.
    """
    why = "no nvcc, the CUDA compiler"
    for path, home in cuda_programs("nvcc"):
        try:
            version = _version("nvcc", path, r"release [\d.]+, V(\d+\.\d+\.\d+)")
        except MissingBackend as e:
            why = e.what
            continue
        known = sorted({int(n) for n in re.findall(r"compute_(\d+)\s", _ask(path, "--list-gpu-arch") + "\n")})
        if known:
            return Nvcc(path, version, tuple(known), home)
        why = f"{path} does not say which architectures it knows"
    raise MissingBackend(why, fix=_FIXES["nvcc"])


def cuda_programs(name: str) -> Iterator[tuple[Path, Path | None]]:
    """Where a program of CUDA lies, the best place first, and its folder where that is a wheel's."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if folder := os.environ.get(variable):
            yield from ((path, None) for path in _executable(Path(folder) / "bin" / name))
    if on_path := shutil.which(name):
        yield Path(on_path), None
    yield from ((path, None) for path in _executable(_usual_cuda() / "bin" / name))
    for folder in _site_folders():
        for home in sorted(Path(folder).glob("cu[0-9]*"), reverse=True):
            yield from ((path, home) for path in _executable(home / "bin" / name))


def _usual_cuda() -> Path:
    return Path("/usr/local/cuda")


def _site_folders() -> list[str]:
    """Where CUDA's wheels unpack."""
    spec = importlib.util.find_spec("nvidia")
    return [] if spec is None else list(spec.submodule_search_locations or ())


def find_cxx() -> tuple[Path, str]:
    """The C++ compiler, CXX's or g++, and its version.

    Raises:
        MissingBackend: there is none.
    """
    asked = os.environ.get("CXX", "")
    path = shutil.which(asked or "g++")
    if path is None:
        what = f"CXX names {asked!r}, which is no program on PATH" if asked else "no g++, the C++ compiler"
        raise MissingBackend(what, fix=_FIXES["g++"])
    return Path(path), _version("g++", Path(path), r"(\d+\.\d+(?:\.\d+)?)")


def find_cmake() -> Path:
    """CMake: PATH's, else the one beside this Python; the first that is new enough.

    Raises:
        MissingBackend: there is none.
    """
    why = "no cmake"
    for path in _programs("cmake"):
        try:
            _version("cmake", path, r"cmake version (\d+\.\d+(?:\.\d+)?)")
        except MissingBackend as e:
            why = e.what
            continue
        return path
    raise MissingBackend(why, fix=_FIXES["cmake"])


def find_maker() -> Path:
    """Ninja, else make.

    Raises:
        MissingBackend: there is neither.
    """
    for path in (*_programs("ninja"), *_programs("ninja-build"), *_programs("make")):
        return path
    raise MissingBackend("neither ninja nor make", fix=_FIXES["ninja"])


def _programs(name: str) -> Iterator[Path]:
    """A program on PATH, and the one that pip put beside Python, whose folder need not be on PATH."""
    if on_path := shutil.which(name):
        yield Path(on_path)
    yield from _executable(_beside_python() / name)


def _beside_python() -> Path:
    return Path(sys.executable).parent


def _executable(path: Path) -> Iterator[Path]:
    if path.is_file() and os.access(path, os.X_OK):
        yield path


def find_headers() -> Headers:
    """TensorRT's headers: DLCV_TENSORRT_INCLUDE's, TENSORRT_ROOT's, the system's.

    Raises:
        MissingBackend: there are none, or none where a variable points.
    """
    for variable, inside in (("DLCV_TENSORRT_INCLUDE", "."), ("TENSORRT_ROOT", "include")):
        if value := os.environ.get(variable):
            folder = Path(value).expanduser().absolute() / inside
            if found := _headers(folder):
                return found
            raise MissingBackend(
                f"{variable} is {value}, but {folder} holds no TensorRT headers", fix=_FIXES["headers"]
            )
    for folder in _usual_headers():
        if found := _headers(folder):
            return found
    raise MissingBackend("no TensorRT headers (NvInfer.h)", fix=_FIXES["headers"])


def _usual_headers() -> tuple[Path, ...]:
    here = f"/usr/include/{platform.machine()}-linux-gnu"
    return Path(here), Path("/usr/include"), Path("/usr/local/tensorrt/include")


def _headers(folder: Path) -> Headers | None:
    """None where they are not there, or do not say their version."""
    try:
        text = (folder / "NvInferVersion.h").read_text(errors="replace")
    except OSError:
        return None
    macros = dict(re.findall(r"^\s*#\s*define\s+(\w+)\s+(\w+)", text, re.M))
    numbers = [_number(macros, f"NV_TENSORRT_{part}") for part in ("MAJOR", "MINOR", "PATCH")]
    if "" in numbers or not (folder / "NvInfer.h").is_file():
        return None
    return Headers(folder, ".".join(numbers))


def _number(macros: Mapping[str, str], name: str) -> str:
    """A macro's number, through the macros that it stands for; empty where that leads to none."""
    for _ in range(len(macros)):
        name = macros.get(name, name)
    return name if name.isdecimal() else ""


def _version(tool: str, path: Path, pattern: str) -> str:
    """What a tool says of its version.

    Raises:
        MissingBackend: it does not run, says nothing of the kind, or is too old.
    """
    said = _ask(path, "--version")
    match = re.search(pattern, said)
    if match is None:
        raise MissingBackend(f"{path} does not run: {_first_line(said)}", fix=_FIXES[tool])
    oldest = _OLDEST.get(tool, ())
    if tuple(map(int, match[1].split("."))) < oldest:
        wanted = ".".join(map(str, oldest))
        raise MissingBackend(f"{path} is {tool} {match[1]}, older than {wanted}", fix=_FIXES[tool])
    return match[1]


def _ask(path: Path, option: str) -> str:
    """What a program prints, on either stream; the system's words where it does not run."""
    try:
        done = subprocess.run(
            [path, option],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_ASK_TIMEOUT_S,
            check=False,
        )
    except OSError as e:
        return e.strerror or str(e)
    except subprocess.TimeoutExpired:
        return f"it was silent for {_ASK_TIMEOUT_S} s"
    return done.stdout.decode(errors="replace")


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "it printed nothing")
