"""The library that has TensorRT take the LRN plugin when a server opens it, on TensorRT for RTX's own registry."""

import subprocess
import sys

import pytest

from dlcv_deploy.errors import MissingBackend
from dlcv_deploy.plugin.library import FILE as PLUGIN
from dlcv_deploy.triton import register

OPENED = """
import ctypes, sys
if len(sys.argv) > 2:
    import tensorrt_rtx as trt
ctypes.CDLL(sys.argv[1])
if len(sys.argv) > 2:
    print(sorted(c.name for c in trt.get_plugin_registry().all_creators if c.name.startswith("Dlcv")))
"""


@pytest.fixture(scope="module")
def library(need, tmp_path_factory):
    """The library, in a folder of its own."""
    need("gxx")
    path = tmp_path_factory.mktemp("register") / register.FILE
    path.write_bytes(register.register_library(PLUGIN))
    return path


def opened(library, *more):
    return subprocess.run([sys.executable, "-c", OPENED, library, *more], capture_output=True, text=True, check=True)


def test_opening_it_registers_the_plugin_beside_it(need, library, plugin_library):
    need("tensorrt_rtx")
    (library.parent / PLUGIN).write_bytes(plugin_library.data)
    done = opened(library, "with tensorrt")
    assert "['DlcvLRN', 'DlcvLRNMaxPool']" in done.stdout
    assert "dlcv:" not in done.stderr


def test_what_is_wrong_is_said(need, library):
    need("tensorrt_rtx")
    assert opened(library).stderr == (
        "dlcv: no TensorRT is loaded; name this library with plugins=, do not preload it\n"
    )
    (library.parent / PLUGIN).write_bytes(b"no library")
    assert f"dlcv: TensorRT refused {library.parent / PLUGIN}\n" in opened(library, "with tensorrt").stderr


def test_without_a_compiler(monkeypatch):
    def none():
        raise MissingBackend("there is no g++", fix="apt install g++")

    monkeypatch.setattr(register, "find_cxx", none)
    with pytest.raises(MissingBackend) as error:
        register.register_library(PLUGIN)
    assert error.value.what == "Triton takes a plugin by a library that is compiled now: there is no g++"
    assert error.value.fix == "apt install g++; or leave the plugin: --target onnxruntime"
