"""Builds the C++ library with what this machine has, and installs it as a CMake package."""

from __future__ import annotations

import dataclasses as dc
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .atomic import check_place
from .errors import MissingBackend, ToolError
from .isolate import isolated
from .plugin.build import run_step
from .plugin.toolchain import find_cmake, find_cxx, find_maker

SOURCE = Path(__file__).parent / "cpp"

_WHAT = "building the C++ library"
_FIX = "the log says more; tests ran with g++ 12, CMake 3.25 and OpenVINO 2026.4"
_TIMEOUT_S = 1800.0
_PACKAGES = {
    "nlohmann_json": "nlohmann-json3-dev",
    "OpenSSL": "libssl-dev",
    "JPEG": "libjpeg-dev",
    "PNG": "libpng-dev",
    "ZLIB": "zlib1g-dev",
}
"""What brings each library of CMakeLists.txt on Debian and Ubuntu."""
_NOT_FOUND = re.compile(rf"could not find.*?\b({'|'.join(_PACKAGES)})\b", re.IGNORECASE | re.DOTALL)
_WITH = re.compile(r"^-- dlcv: with (.+)$", re.MULTILINE)


@dc.dataclass(frozen=True, slots=True)
class Installed:
    """Where the package is; ``found`` are the runtimes that it was built with, in words."""

    prefix: str
    found: tuple[str, ...]

    def lines(self) -> tuple[str, str]:
        """What an application's CMakeLists.txt needs; APP is its target."""
        return f'find_package(dlcv REQUIRED PATHS "{self.prefix}")', "target_link_libraries(APP PRIVATE dlcv::dlcv)"


def install_cpp(prefix: Path, *, timeout_s: float = _TIMEOUT_S) -> Installed:
    """Build the library and install it: ``lib``, ``include`` and ``lib/cmake/dlcv`` in a folder.

    OpenVINO is the one of OpenVINO_DIR (the folder of OpenVINOConfig.cmake), else of this Python's wheel; TensorRT or
    TensorRT-RTX is the SDK in TENSORRT_ROOT, or the folder and file in DLCV_TENSORRT_INCLUDE and DLCV_TENSORRT_LIBRARY.

    Args:
        prefix: The folder, made where it is not there.
        timeout_s: Wall-clock limit, in seconds.

    Raises:
        ArtifactError: the folder can never be written.
        MissingBackend: a C++ compiler, CMake, a library or every runtime is missing.
        ToolError: CMake or the compiler refused, or took too long.
    """
    place = prefix.expanduser().absolute()
    check_place(place, parents=True)
    cxx, _ = find_cxx()
    cmake, maker = find_cmake(), find_maker()
    told = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_CXX_COMPILER": cxx,
        "CMAKE_MAKE_PROGRAM": maker,
        "CMAKE_INSTALL_PREFIX": place,
        "CMAKE_INSTALL_LIBDIR": "lib",
        **dict(_openvino()),
    }
    generator = "Ninja" if "ninja" in maker.name else "Unix Makefiles"
    with tempfile.TemporaryDirectory(prefix="dlcv-cpp-") as folder:
        words = [f"-D{name}={value}" for name, value in told.items()]
        request = {
            "prepare": [str(cmake), "-S", str(SOURCE), "-B", folder, "-G", generator, *words],
            "build": [str(cmake), "--build", folder, "--target", "install", "--parallel", str(os.cpu_count() or 1)],
        }
        answer = isolated(
            f"{__name__}:install_in", request, {}, what=_WHAT, timeout_s=timeout_s, env={"TMPDIR": folder}
        )
    return Installed(str(place), tuple(answer.value["found"]))


def install_in(request: Mapping[str, Any], files: Mapping[str, bytes]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """In the child process: prepare, build and install; returns what was found."""
    try:
        log = run_step(request["prepare"], what=_WHAT, fix=_FIX)
    except ToolError as e:
        if missing := _missing(e.log):
            raise missing from e
        raise
    found = _WITH.findall(log)
    if not found:
        raise MissingBackend(
            "there is neither OpenVINO nor TensorRT to build the C++ library with",
            fix="pip install 'dlcv-deploy[openvino]', or set OpenVINO_DIR or TENSORRT_ROOT to an SDK",
        )
    run_step(request["build"], what=_WHAT, fix=_FIX)
    return {"found": found}, {}


def _openvino() -> Iterator[tuple[str, str]]:
    """Where CMake finds the wheel's OpenVINO, unless another one is named."""
    if os.environ.get("OpenVINO_DIR"):  # noqa: SIM112 - CMake's own spelling
        return
    spec = importlib.util.find_spec("openvino")
    for folder in spec.submodule_search_locations or () if spec else ():
        if (config := Path(folder) / "cmake").is_dir():
            yield "OpenVINO_DIR", str(config)


def _missing(log: str) -> MissingBackend | None:
    """What CMake says that it did not find."""
    found = _NOT_FOUND.search(log)
    if found is None:
        return None
    every = " ".join(_PACKAGES.values())
    return MissingBackend(f"the C++ library needs {found[1]}, and CMake does not find it", fix=f"apt install {every}")
