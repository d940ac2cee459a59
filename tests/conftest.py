"""What a test needs, and what no test may do.

``DLCV_REQUIRE=openvino,cifar10`` turns every skip whose reason names one of these into a failure, whichever way the
test skipped: ``need``, the ``gpu`` marker, ``pytest.importorskip`` or ``skipif``.
"""

import importlib.util
import ipaddress
import os
import re
import signal
import socket
from pathlib import Path

import pytest
from hypothesis import settings

from dlcv_deploy import backends
from dlcv_deploy.backends import _cuda
from dlcv_deploy.digest import digest
from dlcv_deploy.errors import MissingBackend
from dlcv_deploy.plugin import sass, toolchain
from dlcv_deploy.plugin.library import FILE, read_library
from dlcv_deploy.store import Store

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, by children too, where tests run in the background

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

TESTS = Path(__file__).parent
DATA = Path(os.environ.get("DLCV_DATA") or Path(__file__).parents[2] / "shared" / "data")
REQUIRED = tuple(filter(None, os.environ.get("DLCV_REQUIRE", "").replace(" ", "").split(",")))


PLUGIN_ARCHITECTURES = (75, 86)  # few, to be quick; PTX of the last serves all above it


def _headers_of_a_wheel():
    """Let tests compile the plugin where no TensorRT SDK is: kernel-lens ships its headers."""
    spec = importlib.util.find_spec("kernel_lens")
    if spec and spec.origin and not {"DLCV_TENSORRT_INCLUDE", "TENSORRT_ROOT"} & set(os.environ):
        os.environ["DLCV_TENSORRT_INCLUDE"] = str(Path(spec.origin).parent / "include" / "tensorrt")


_headers_of_a_wheel()


def _package(name):
    return lambda: "" if importlib.util.find_spec(name) else "not installed"


def _backend(name):
    return lambda: backends.get(name).ability().no_compile


def _data(name):
    return lambda: "" if (DATA / name).is_dir() else f"{DATA / name} is no folder; set DLCV_DATA"


def _tool(find):
    def missing():
        try:
            find()
        except MissingBackend as e:
            return e.what
        return ""

    return missing


def _cpp_libraries():
    folders = [Path("/usr/include"), *Path("/usr/include").glob("*-linux-gnu")]
    wanted = ("nlohmann/json.hpp", "jpeglib.h", "png.h", "openssl/evp.h")
    lacking = [name for name in wanted if not any((folder / name).is_file() for folder in folders)]
    return f"no header {', '.join(lacking)}" if lacking else ""


def _chromium():
    from helpers.chromium import find_chromium

    return "" if find_chromium() else "not installed"


CAPABILITIES = {
    **{name: _backend(name) for name in backends.names()},
    **{name: _package(name) for name in ("torch", "mypy", "fastapi", "tritonclient")},
    **{name: _data(name) for name in ("cifar10", "imagenet224", "checkpoints")},
    "gpu": _cuda.no_gpu,
    "nvcc": _tool(toolchain.find_nvcc),
    "chromium": _chromium,
    "gxx": _tool(toolchain.find_cxx),
    "cmake": _tool(toolchain.find_cmake),
    "cpp_libraries": _cpp_libraries,
    "cuobjdump": _tool(sass.find_disassembler),
    "tensorrt_headers": _tool(toolchain.find_headers),
}


def pytest_collection_modifyitems(items):
    """Files go to a process whole (``--dist loadgroup`` of pytest-xdist), as do folders that build what they share."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        item.add_marker(pytest.mark.xdist_group(folder if folder in ("cli", "cpp", "plugin") else item.path.name))


def pytest_configure(config):
    if unknown := set(REQUIRED) - set(CAPABILITIES):
        raise pytest.UsageError(f"DLCV_REQUIRE: no capability {unknown.pop()!r}; there are {', '.join(CAPABILITIES)}")


def required(reason):
    """The capability in DLCV_REQUIRE that the reason of a skip names."""
    return next((n for n in REQUIRED if re.search(rf"\b(needs|no|could not import) '?{n}\b", reason)), None)


def _refuse_skip(report):
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if report.skipped and not hasattr(report, "wasxfail") and (name := required(reason)):
        report.outcome, report.longrepr = "failed", f"DLCV_REQUIRE names {name}: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return _refuse_skip((yield))


def _need(*names):
    for name in names:
        if reason := CAPABILITIES[name]():
            pytest.skip(f"needs {name}: {reason}")


@pytest.fixture(scope="session")
def need():
    """Skip unless these capabilities are here: ``need("openvino", "torch")``."""
    return _need


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        _need("gpu")


@pytest.fixture(scope="session")
def cifar10_dir():
    """The folder with CIFAR-10's train.npz and test.npz."""
    _need("cifar10")
    return DATA / "cifar10"


@pytest.fixture(scope="session")
def imagenet224_dir():
    """The folder with 150 labelled photographs."""
    _need("imagenet224")
    return DATA / "imagenet224"


@pytest.fixture(scope="session")
def plugin_compiled(request):
    """The plugin's library from the real source, and what ptxas said; kept until source or compilers change."""
    _need("nvcc", "gxx", "cmake", "tensorrt_headers")
    from dlcv_deploy.plugin.build import compile_library, recipe

    kept, key = Store(Path(request.config.cache.mkdir("plugin"))), digest(log=1, **recipe(PLUGIN_ARCHITECTURES))
    files = kept.get("plugin", key)
    if files is None:
        library, log = compile_library(PLUGIN_ARCHITECTURES, proving=True)
        files = {FILE: library.data, "log": log.encode()}
        kept.put("plugin", key, files)
    return read_library(files[FILE], FILE), files["log"].decode()


@pytest.fixture(scope="session")
def plugin_library(plugin_compiled):
    """The plugin's library, for SM 7.5, 8.6 and 8.9, and as PTX for all above."""
    return plugin_compiled[0]


@pytest.fixture(autouse=True, scope="session")
def _no_network():
    """Nothing but this machine is reached from a test."""

    def is_here(host):
        if not host or host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def guarded(call, host_of):
        def guard(*args, **kwargs):
            host = host_of(*args)
            if not is_here(host.decode() if isinstance(host, bytes) else host):
                raise RuntimeError(f"a test tried to reach {host!r}; tests use this machine only")
            return call(*args, **kwargs)

        return guard

    def peer(sock, address, *_):
        return None if sock.family == getattr(socket, "AF_UNIX", None) else address[0]

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name), peer))
        patch.setattr(socket, "getaddrinfo", guarded(socket.getaddrinfo, lambda host, *_: host))
        yield
