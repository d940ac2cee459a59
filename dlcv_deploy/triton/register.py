"""A library that has TensorRT take a plugin library, where a server opens libraries and asks nothing of them.

Triton's TensorRT backend calls ``dlopen`` on what ``plugins=`` names, and no more (``tensorrt.cc``). The LRN plugin's
library waits to be asked for its creators, as ``IPluginRegistry::loadLibrary`` does. So a second library, beside it,
makes that call when it is opened. It cannot be preloaded: TensorRT is not there yet when a preloaded one is opened.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from ..errors import MissingBackend, ToolError
from ..plugin.toolchain import find_cxx

FILE = "libdlcv_register.so"
_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")
_SOURCE = r"""
#include <dlfcn.h>

#include <cstdio>
#include <string>

namespace {

// Where a TensorRT keeps IPluginRegistry::loadLibrary in the table of its virtual functions, by the Itanium C++ ABI:
// NvInferRuntimeCommon.h of 10.14 has ten before it, that of 11.1, which lost what was deprecated, six.
struct Known {
  char const* library;
  int slot;
};
constexpr Known kKnown[] = {{"libnvinfer.so.10", 10}, {"libnvinfer.so.11", 6}, {"libtensorrt_rtx.so.1", 6}};

using Load = void* (*)(void* registry, char const* path);

bool told(Known const& known, char const* path) {
  void* library = dlopen(known.library, RTLD_LAZY | RTLD_NOLOAD);
  void* find = library ? dlsym(library, "getPluginRegistry") : nullptr;
  if (!find) return false;
  void* registry = reinterpret_cast<void* (*)()>(find)();
  void* load = (*static_cast<void***>(registry))[known.slot];
  if (!reinterpret_cast<Load>(load)(registry, path)) std::fprintf(stderr, "dlcv: TensorRT refused %s\n", path);
  return true;
}

__attribute__((constructor)) void load() {
  Dl_info own{};
  if (!dladdr(reinterpret_cast<void const*>(&told), &own)) return;
  std::string path = own.dli_fname;
  path.replace(path.rfind('/') + 1, std::string::npos, PLUGIN);
  for (Known const& known : kKnown) {
    if (told(known, path.c_str())) return;
  }
  std::fprintf(stderr, "dlcv: no TensorRT is loaded; name this library with plugins=, do not preload it\n");
}

}  // namespace
"""


def register_library(plugin: str) -> bytes:
    """The library, for a plugin's library of that name beside it.

    Raises:
        MissingBackend: There is no C++ compiler.
        ToolError: The compiler refused.
    """
    try:
        compiler = find_cxx()[0]
    except MissingBackend as e:
        what = f"Triton takes a plugin by a library that is compiled now: {e.what}"
        raise MissingBackend(what, fix=f"{e.fix}; or leave the plugin: --target onnxruntime") from e
    with tempfile.TemporaryDirectory(prefix="dlcv-deploy-") as room:
        made = Path(room) / FILE
        told = [f"-DPLUGIN={json.dumps(plugin)}", "-x", "c++", "-", "-o", str(made), "-ldl"]
        done = subprocess.run(
            [str(compiler), *_FLAGS, *told], input=_SOURCE, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ToolError("the library that registers the plugin does not compile", log=done.stderr[-4000:])
        return made.read_bytes()
