"""The C++ library, built once for all tests of its kind, and the programs that test it."""

import contextlib
import dataclasses as dc
import fcntl
import importlib.util
import subprocess
from pathlib import Path

import pytest

import dlcv_deploy
from dlcv_deploy.digest import digest
from dlcv_deploy.plugin import toolchain

PACKAGE = Path(dlcv_deploy.__file__).parent
PROGRAMS = Path(__file__).parent
KINDS = ("plain", "address", "thread")
_TIMEOUT_S = 600


@dc.dataclass(frozen=True)
class CppBuild:
    """Where a build lies: ``prefix`` is installed, ``folder`` is CMake's build folder."""

    kind: str
    prefix: Path
    folder: Path
    cmake: Path

    @property
    def library(self):
        return self.folder / "libdlcv.so"

    @property
    def cmake_options(self):
        """What a CMake project needs to find the package and compile with the same tools."""
        cxx, _ = toolchain.find_cxx()
        return ["-G", "Ninja", f"-DCMAKE_PREFIX_PATH={self.prefix}", f"-DCMAKE_CXX_COMPILER={cxx}"]

    def program(self, name):
        """A program of this folder, ``NAME.cpp``, compiled where that is not done yet."""
        with _locked(self.folder):
            _call(self.cmake, "--build", self.folder, "--target", name, "--parallel", "2")
        return self.folder / name


@contextlib.contextmanager
def _locked(folder):
    with open(folder.with_suffix(".lock"), "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _call(*command):
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]


def _sources():
    """All that is compiled, but for the test programs, which CMake itself watches."""
    files = [PACKAGE / "messages.json", PACKAGE / "__init__.py", *sorted((PACKAGE / "cpp").rglob("*"))]
    return digest(**{str(path.relative_to(PACKAGE)): path.read_bytes() for path in files if path.is_file()})


def _folder_of(package):
    spec = importlib.util.find_spec(package)
    return Path(next(iter(spec.submodule_search_locations))) if spec else None


def _options(kind):
    """What CMake is told: OpenVINO of this Python, and without a sanitizer TensorRT-RTX of it too."""
    told = {"CMAKE_CXX_COMPILER": toolchain.find_cxx()[0], "DLCV_WARNINGS_ARE_ERRORS": "ON", "DLCV_PROGRAMS": PROGRAMS}
    if kind != "plain":
        told |= {"DLCV_SANITIZE": kind, "DLCV_TENSORRT": "OFF"}
    if openvino := _folder_of("openvino"):
        told["OpenVINO_DIR"] = openvino / "cmake"
    rtx, headers = _folder_of("tensorrt_rtx_libs"), _folder_of("kernel_lens")
    if kind == "plain" and rtx and headers:
        told["DLCV_TENSORRT_LIBRARY"] = rtx / "libtensorrt_rtx.so.1"
        told["DLCV_TENSORRT_INCLUDE"] = toolchain.find_headers().folder
    return {name: str(value) for name, value in told.items()}


@pytest.fixture(scope="session")
def cpp_build(request, need):
    """``cpp_build(kind)``: the library, plain or with the sanitizer address or thread; kept until sources change."""
    need("gxx", "cmake", "cpp_libraries")
    done = {}

    def build(kind="plain"):
        if kind not in done:
            done[kind] = _built(kind, Path(request.config.cache.mkdir("cpp")))
        return done[kind]

    return build


def _built(kind, kept):
    assert kind in KINDS
    options, cmake = _options(kind), toolchain.find_cmake()
    versions = {name: _version(name) for name in ("openvino", "tensorrt_rtx_cu13_libs")}
    tools = digest(options=options, cxx=toolchain.find_cxx()[1], cmake=str(cmake), **versions)
    folder = kept / f"{kind}-{tools[:12]}"
    build = CppBuild(kind, folder / "prefix", folder / "build", cmake)
    folder.mkdir(parents=True, exist_ok=True)
    stamp, sources = folder / "sources", _sources()
    with _locked(build.folder):
        if not stamp.is_file() or stamp.read_text() != sources:
            told = [f"-D{name}={value}" for name, value in options.items()]
            place = [f"-DCMAKE_INSTALL_PREFIX={build.prefix}", f"-DCMAKE_MAKE_PROGRAM={toolchain.find_maker()}"]
            _call(cmake, "-S", PACKAGE / "cpp", "-B", build.folder, "-G", "Ninja", *place, *told)
            _call(cmake, "--build", build.folder, "--target", "install", "--parallel", "2")
            stamp.write_text(sources)
    return build


def _version(distribution):
    from importlib import metadata

    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(distribution)
    return ""
