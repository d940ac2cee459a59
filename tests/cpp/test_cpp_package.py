"""The installed CMake package: found by applications in any folder, in C and C++, with nothing else to be named."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.tools import script

from dlcv_deploy import __version__, install_cpp
from dlcv_deploy.cli import cli
from dlcv_deploy.errors import MissingBackend, ToolError
from dlcv_deploy.install_cpp import Installed
from dlcv_deploy.plugin import toolchain

MAIN_CPP = """
#include <cstring>
#include <iostream>
#include "dlcv/dlcv.h"
#include "dlcv/engine.hpp"
#include "dlcv/preflight.hpp"
#include "dlcv/version.h"

extern "C" dlcv_status from_c(const char* bundle);

int main(int, char** arguments) {
  if (std::strcmp(dlcv_version(), DLCV_VERSION) != 0) return 2;
  for (const auto& found : dlcv::preflight(arguments[1], dlcv::Host::here())) std::cout << found.code << '\\n';
  try {
    dlcv::Engine::load(arguments[1]);
  } catch (const dlcv::Error& e) {
    std::cout << e.message() << '\\n';
    return from_c(arguments[1]) == DLCV_ARTIFACT ? 0 : 3;
  }
  return 4;
}
"""
MAIN_C = """
#include "dlcv/dlcv.h"
dlcv_status from_c(const char* bundle) {
  dlcv_engine* engine = NULL;
  dlcv_status status = dlcv_load(bundle, NULL, &engine);
  dlcv_free(engine);
  return status;
}
"""
PROJECT = """cmake_minimum_required(VERSION 3.20)
project(app LANGUAGES C CXX)
{find}
add_executable(APP main.cpp main.c)
{link}
target_compile_options(APP PRIVATE -Wall -Wextra -Wpedantic -Werror)
"""


def quiet(*command, **more):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, check=False, **more)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def project(folder, find, link):
    folder.mkdir()
    for name, text in (("main.cpp", MAIN_CPP), ("main.c", MAIN_C)):
        (folder / name).write_text(text)
    (folder / "CMakeLists.txt").write_text(PROJECT.format(find=find, link=link))
    return folder


def test_an_application_is_built_against_a_package_that_was_moved(tmp_path, cpp_build):
    build, moved = cpp_build(), tmp_path / "moved here"
    shutil.copytree(build.prefix, moved, symlinks=True)
    find, link = Installed(str(moved), ()).lines()
    source, made = project(tmp_path / "app", find, link), tmp_path / "made"
    bare = {name: value for name, value in os.environ.items() if name not in ("OpenVINO_DIR", "LD_LIBRARY_PATH")}
    quiet(build.cmake, "-S", source, "-B", made, "-G", "Ninja", env=bare)
    quiet(build.cmake, "--build", made)
    assert quiet(made / "APP", tmp_path / "none", env=bare).splitlines() == [
        "no_bundle",
        f"there is no bundle at {tmp_path / 'none'}",
    ]
    assert "moved here" in quiet("ldd", made / "APP", env=bare)


def test_nothing_is_seen_of_the_library_but_its_own(cpp_build):
    names = quiet("nm", "-DC", "--defined-only", cpp_build().library).splitlines()
    seen = [line.split(" ", 2)[2] for line in names]
    assert "dlcv_load" in seen
    assert any(name.startswith("dlcv::Engine::load(") for name in seen)
    assert [
        name for name in seen if not re.match(r"dlcv_|dlcv::|(typeinfo|typeinfo name|vtable) for dlcv::", name)
    ] == []


def test_the_package_says_its_version(cpp_build):
    prefix = cpp_build().prefix
    (version,) = prefix.rglob("dlcvConfigVersion.cmake")
    assert f'PACKAGE_VERSION "{__version__}"' in version.read_text()
    assert f'DLCV_VERSION "{__version__}"' in (prefix / "include/dlcv/version.h").read_text()
    assert sorted(p.name for p in (prefix / "include/dlcv").iterdir()) == [
        *("dlcv.h", "engine.hpp", "error.hpp", "image.hpp", "preflight.hpp", "version.h"),
    ]


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A machine whose CMake does as it is told in the shell."""
    folder = tmp_path / "bin"
    for name in ("OpenVINO_DIR", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(toolchain, "_beside_python", lambda: folder)
    script(folder / "g++", "echo 'g++ (Debian 12.2.0-14) 12.2.0'")
    script(folder / "ninja", "exit 1")

    def cmake(prepare, build="exit 1"):
        lines = f"-S) printf '%s\\n' \"$@\" >{tmp_path}/told; {prepare} ;;\n--build) {build} ;;"
        script(folder / "cmake", f"case $1 in\n--version) echo 'cmake version 3.25.1' ;;\n{lines}\nesac")

    return cmake


def run(*words):
    return CliRunner().invoke(cli, ["cpp", *map(str, words)])


FOUND = "echo '-- dlcv: with OpenVINO 2026.4.1, /ov/cmake'; echo '-- dlcv: without TensorRT'"


def test_the_command_says_what_an_application_needs(tmp_path, tools):
    tools(FOUND, "true")
    done = run(tmp_path / "p")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        f'find_package(dlcv REQUIRED PATHS "{tmp_path}/p")',
        "target_link_libraries(APP PRIVATE dlcv::dlcv)",
    ]
    assert "with OpenVINO 2026.4.1, /ov/cmake" in done.stderr
    assert f"-DCMAKE_INSTALL_PREFIX={tmp_path}/p" in (tmp_path / "told").read_text().splitlines()
    told = json.loads(run(tmp_path / "p", "--json").stdout)
    assert told == {"prefix": f"{tmp_path}/p", "found": ["OpenVINO 2026.4.1, /ov/cmake"]}


def test_openvino_of_the_wheel_gives_way_to_one_that_is_named(tmp_path, tools, monkeypatch):
    (tmp_path / "openvino" / "cmake").mkdir(parents=True)
    (tmp_path / "openvino" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(install_cpp.importlib.sys.modules, "openvino", raising=False)
    tools(FOUND, "true")
    assert run(tmp_path / "p").exit_code == 0
    assert f"-DOpenVINO_DIR={tmp_path}/openvino/cmake" in (tmp_path / "told").read_text()
    monkeypatch.setenv("OpenVINO_DIR", "/elsewhere")
    assert run(tmp_path / "p").exit_code == 0
    assert "OpenVINO_DIR" not in (tmp_path / "told").read_text()


@pytest.mark.parametrize(
    "said",
    [
        "CMake Error at FindPackage.cmake:230 (message):\n  Could NOT find JPEG (missing: JPEG_LIBRARY)",
        'CMake Error at CMakeLists.txt:50:\n  Could not find a package configuration file provided by\n  "JPEG"',
    ],
)
def test_a_library_that_is_missing_is_named(tmp_path, tools, said):
    tools(f"echo '{said}'; exit 1")
    with pytest.raises(MissingBackend, match=r"the C\+\+ library needs JPEG, and CMake does not find it") as e:
        install_cpp.install_cpp(tmp_path / "p")
    assert e.value.fix == "apt install nlohmann-json3-dev libssl-dev libjpeg-dev libpng-dev zlib1g-dev"


def test_without_any_runtime_nothing_is_built(tmp_path, tools):
    tools("echo '-- dlcv: without OpenVINO'; echo '-- dlcv: without TensorRT'")
    with pytest.raises(MissingBackend, match="neither OpenVINO nor TensorRT"):
        install_cpp.install_cpp(tmp_path / "p")


def test_what_the_compiler_says_is_told(tmp_path, tools):
    tools(FOUND, "echo \"engine.cpp:7:1: error: 'x' was not declared\"; exit 1")
    with pytest.raises(ToolError, match=r"building the C\+\+ library failed: engine.cpp:7:1: error: 'x' was not") as e:
        install_cpp.install_cpp(tmp_path / "p")
    assert "was not declared" in e.value.log
    tools("echo oops; exit 1")
    with pytest.raises(ToolError, match=r"building the C\+\+ library failed: oops"):
        install_cpp.install_cpp(Path(tmp_path / "p"))


@pytest.mark.slow
def test_the_command_builds_and_installs(tmp_path, need):
    need("gxx", "cmake", "cpp_libraries", "openvino")
    installed = install_cpp.install_cpp(tmp_path / "p")
    assert installed.found[0].startswith("OpenVINO ")
    assert (tmp_path / "p/lib/libdlcv.so").exists()
    assert (tmp_path / "p/lib/cmake/dlcv/dlcvConfig.cmake").exists()
