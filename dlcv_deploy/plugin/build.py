"""Compiles the plugin's library, in a temporary folder and a session of its own."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic import write_whole
from ..digest import digest
from ..errors import ToolError
from ..isolate import isolated
from ..stages import Stages
from .library import FILE, Library, read_library
from .toolchain import Toolchain, check_architectures, find_toolchain

DEFAULT_ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

_SOURCE = Path(__file__).parent / "csrc"
_TIMEOUT_S = 1800.0
_WHAT = "compiling the plugin"
_TRIED = "the log says more; tests ran with CUDA 13.0, g++ 12 and TensorRT's headers 10.14"
_FLAGS = ("CXXFLAGS", "CUDAFLAGS", "LDFLAGS", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")
_ERROR = re.compile(r"^CMake Error|\berror\b.*:|: error|\bundefined reference\b|^nvcc fatal|^ptxas fatal", re.I)
_FIRST_LINES, _TAIL_LINES = 3, 20


def source_sha256() -> str:
    """Names the plugin's source: every file that is compiled, or says how."""
    files = sorted(path for path in _SOURCE.iterdir() if path.is_file() and not path.name.startswith("."))
    return digest(**{path.name: path.read_bytes() for path in files})


def recipe(architectures: Sequence[int]) -> dict[str, Any]:
    """All that can change the library's bytes, as the store's key needs it.

    Raises:
        MissingBackend, SpecError: as :func:`build_library`.
    """
    tools = find_toolchain()
    return _recipe(tools, _checked(tools, architectures))


def built_library(stages: Stages, architectures: Sequence[int] = DEFAULT_ARCHITECTURES) -> Library:
    """The library from the store, compiled where it is not there.

    Raises:
        MissingBackend, SpecError, ToolError: as :func:`build_library`.
    """
    return _kept(stages, architectures, recipe(architectures))


def place_library(architectures: Sequence[int], output: Path | None, stages: Stages) -> tuple[Path, Library]:
    """The library from the store, compiled where it is not there; returns where it lies, too.

    Args:
        architectures: As for :func:`build_library`.
        output: A file to write; None leaves it in the store.
        stages: The store's.

    Raises:
        ArtifactError: it cannot be written there.
        MissingBackend, SpecError, ToolError: as :func:`build_library`.
    """
    inputs = recipe(architectures)
    library = _kept(stages, architectures, inputs)
    if output is None:
        return stages.path("plugin", FILE, **inputs), library
    write_whole(output, library.data)
    return output, library


def _kept(stages: Stages, architectures: Sequence[int], inputs: Mapping[str, Any]) -> Library:
    def make() -> dict[str, bytes]:
        wanted = ", ".join(map(str, inputs["architectures"]))
        stages.say(f"compiling the LRN plugin for the GPU architectures {wanted}; that takes minutes, and is kept")
        return {FILE: build_library(architectures).data}

    files = stages.run("plugin", make, **inputs)
    return read_library(files[FILE], FILE)


def build_library(architectures: Sequence[int] = DEFAULT_ARCHITECTURES) -> Library:
    """Compile the library.

    Args:
        architectures: The GPUs to hold machine code for; PTX of the highest serves those above it.

    Raises:
        MissingBackend: nvcc, a C++ compiler, CMake or TensorRT's headers are missing.
        SpecError: nvcc does not know an architecture.
        ToolError: CMake or a compiler refused, or took too long.
    """
    return compile_library(architectures)[0]


def compile_library(
    architectures: Sequence[int], *, proving: bool = False, timeout_s: float = _TIMEOUT_S
) -> tuple[Library, str]:
    """As :func:`build_library`, with a limit in seconds; also returns what was printed.

    ``proving`` makes every warning an error and ptxas say what each kernel uses. Users' compilers may be newer than
    those that this was tried with, and warn of more.
    """
    tools = find_toolchain()
    wanted = _checked(tools, architectures)
    source, env = source_sha256(), tools.environment()
    if proving:
        env["CUDAFLAGS"] = f"{os.environ.get('CUDAFLAGS', '')} -Xptxas=-v".strip()
    with tempfile.TemporaryDirectory(prefix="dlcv-plugin-") as folder:
        env["TMPDIR"] = folder  # nvcc's own files, which it leaves behind where it is killed
        request = {"steps": _steps(tools, wanted, source, folder, proving=proving), "result": f"{folder}/{FILE}"}
        answer = isolated(f"{__name__}:compile_in", request, {}, what=_WHAT, timeout_s=timeout_s, env=env)
    library = read_library(answer.files[FILE], f"the compiled {FILE}")
    said = (library.architectures, library.tensorrt, library.source_sha256)
    if said != (wanted, tools.headers.version, source):
        raise ToolError(f"the compiled library is not the one asked for: it says {said}", fix="report this as a bug")
    return library, str(answer.value["log"])


def _checked(tools: Toolchain, architectures: Sequence[int]) -> tuple[int, ...]:
    wanted = tuple(sorted(set(architectures)))
    check_architectures(tools.nvcc, wanted)
    return wanted


def _recipe(tools: Toolchain, architectures: Sequence[int]) -> dict[str, Any]:
    return {
        "source": source_sha256(),
        "nvcc": tools.nvcc.version,
        "cxx": tools.cxx_version,
        "headers": tools.headers.version,
        "architectures": list(architectures),
        "machine": platform.machine(),
        "flags": {name: os.environ[name] for name in _FLAGS if os.environ.get(name)},
    }


def _steps(
    tools: Toolchain, architectures: Sequence[int], source: str, folder: str, *, proving: bool
) -> list[list[str]]:
    """The command lines: prepare, then compile."""
    definitions = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_CUDA_ARCHITECTURES": ";".join([*(f"{n}-real" for n in architectures[:-1]), str(architectures[-1])]),
        "DLCV_SOURCE_SHA256": source,
        "DLCV_WARNINGS_ARE_ERRORS": "ON" if proving else "OFF",
        **tools.definitions(),
    }
    cmake = str(tools.cmake)
    told = [f"-D{name}={value}" for name, value in definitions.items()]
    prepare = [cmake, "-S", str(_SOURCE), "-B", folder, "-G", tools.generator, *told]
    return [prepare, [cmake, "--build", folder, "--parallel", str(os.cpu_count() or 1)]]


def compile_in(request: Mapping[str, Any], files: Mapping[str, bytes]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """In the child process: run ``steps`` and return the file ``result``."""
    log = ""
    for step in request["steps"]:
        log = run_step(step, what=_WHAT, fix=_TRIED)
    try:
        data = Path(request["result"]).read_bytes()
    except OSError as e:
        raise ToolError(f"{_WHAT} wrote no library", fix="the log says more", log=_tail(log)) from e
    return {"log": log}, {FILE: data}


def run_step(command: Sequence[str], *, what: str, fix: str) -> str:
    """Run one command of a build; returns what it printed.

    Raises:
        ToolError: it failed, with the first lines that say why; ``what`` is the subject of the sentence.
    """
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    log = done.stdout.decode(errors="replace")
    if done.returncode:
        raise ToolError(f"{what} failed: {_reason(log, done.returncode)}", fix=fix, log=_tail(log))
    return log


def _reason(log: str, code: int) -> str:
    """The first lines that say why a step failed."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    first = next((i for i, line in enumerate(lines) if _ERROR.search(line)), None)
    if first is None:
        said = lines[-1:] or [f"exit code {code}, and nothing was printed"]
    elif lines[first].startswith("CMake Error"):  # its words stand on the lines below it
        said = [" ".join(lines[first : first + _FIRST_LINES])]
    else:
        said = [line for line in lines if _ERROR.search(line)][:_FIRST_LINES]
    return "; ".join(said)


def _tail(log: str) -> str:
    return "\n".join(log.rstrip().splitlines()[-_TAIL_LINES:])
