"""The plugin is compiled next door: what a compiler says comes back, a hang ends, and nothing stays behind."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from helpers.plugin import library_bytes
from helpers.tools import Bench

from dlcv_deploy.errors import ArtifactError, MissingBackend, SpecError, ToolError
from dlcv_deploy.plugin import build
from dlcv_deploy.plugin.library import FILE
from dlcv_deploy.stages import Stages
from dlcv_deploy.store import Store


@pytest.fixture
def bench(tmp_path, monkeypatch):
    room = tmp_path / "tmp"
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    yield Bench(tmp_path, monkeypatch).whole()
    assert list(room.iterdir()) == []  # whatever happened


def writes(bench, **changes):
    """A CMake that compiles nothing and copies a library that says what it should, but for ``changes``."""
    said = {"architectures": [75, 120], "source": build.source_sha256(), **changes}
    made = bench.folder / "made.so"
    made.write_bytes(library_bytes(**said))
    bench.cmake(build=f"/bin/cp '{made}' \"$2/{FILE}\"")
    return made.read_bytes()


def refusal(architectures=(75, 120), **limits):
    with pytest.raises(ToolError) as e:
        build.compile_library(architectures, **limits)
    return e.value


def test_the_library_is_what_cmake_made(bench):
    data = writes(bench)
    library = build.build_library((120, 75, 120))
    assert (library.data, library.architectures, library.tensorrt) == (data, (75, 120), "10.14.1")


def test_cmake_is_told_everything(bench):
    writes(bench)
    build.build_library((120, 75))
    assert bench.told == {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_CUDA_ARCHITECTURES": "75-real;120",
        "DLCV_SOURCE_SHA256": build.source_sha256(),
        "DLCV_WARNINGS_ARE_ERRORS": "OFF",
        "CMAKE_MAKE_PROGRAM": str(bench.bin / "ninja"),
        "CMAKE_CUDA_COMPILER": str(bench.bin / "nvcc"),
        "CMAKE_CUDA_HOST_COMPILER": str(bench.bin / "g++"),
        "CMAKE_CXX_COMPILER": str(bench.bin / "g++"),
        "DLCV_TENSORRT_INCLUDE": str(bench.folder / "usr/include"),
    }
    words = (bench.folder / "told").read_text().splitlines()
    assert words[:2] == ["-S", str(Path(build.__file__).parent / "csrc")]
    assert words[words.index("-G") + 1] == "Ninja"
    assert bench.env["LDFLAGS"] == "-s"
    assert "CUDAFLAGS" not in bench.env


def test_a_proof_takes_no_warning_and_asks_ptxas_for_registers(bench, monkeypatch):
    writes(bench)
    monkeypatch.setenv("CUDAFLAGS", "-O1")
    bench.cmake(build=f"echo some words; /bin/cp '{bench.folder}/made.so' \"$2/{FILE}\"")
    library, log = build.compile_library((75, 120), proving=True)
    assert bench.env["CUDAFLAGS"] == "-O1 -Xptxas=-v"
    assert bench.told["DLCV_WARNINGS_ARE_ERRORS"] == "ON"
    assert (library.architectures, log) == ((75, 120), "some words\n")


@pytest.mark.parametrize(
    ("printed", "what"),
    [
        (
            "[1/3]\\nFAILED: x.o\\nk.cu(12): error: identifier \\\"a\\\" is undefined\\nk.cu(13): error #20: no\\n",
            'k.cu(12): error: identifier "a" is undefined; k.cu(13): error #20: no',
        ),
        ("p.cpp:3:1: error: one\\np.cpp:4:1: error: two\\nx: error: three\\nx: error: four\\n",
         "p.cpp:3:1: error: one; p.cpp:4:1: error: two; x: error: three"),
        ("nvcc fatal   : Unsupported gpu architecture 'compute_37'\\n",
         "nvcc fatal   : Unsupported gpu architecture 'compute_37'"),
        ("p.cpp:(.text+0x1): undefined reference to 'f'\\nend\\n", "p.cpp:(.text+0x1): undefined reference to 'f'"),
        ("ninja: build stopped\\nKilled\\n", "Killed"),
        ("", "exit code 3, and nothing was printed"),
    ],
)  # fmt: skip
def test_what_the_compiler_says_comes_back(bench, printed, what):
    bench.cmake(build=f'printf "{printed}" >&2; exit 3')
    error = refusal()
    assert error.what == f"compiling the plugin failed: {what}"
    assert error.log.splitlines() == printed.replace('\\\\"', '"').replace('\\"', '"').split("\\n")[:-1]


def test_what_cmake_says_comes_back_in_one_line(bench):
    words = "The CXX compiler\\nCMake Error at CMakeLists.txt:3 (find_path):\\n  Could not find\\n\\n  THIS\\n\\nrest"
    bench.cmake(prepare=f'printf "{words}"; exit 1')
    assert refusal().what == (
        "compiling the plugin failed: CMake Error at CMakeLists.txt:3 (find_path): Could not find THIS"
    )


def test_a_long_log_keeps_its_end(bench):
    bench.cmake(build="i=0; while [ $i -lt 99 ]; do i=$((i+1)); echo line $i; done; exit 1")
    log = refusal().log.splitlines()
    assert (len(log), log[-1]) == (20, "line 99")


def test_no_library_is_an_error(bench):
    bench.cmake(build="echo all is well")
    error = refusal()
    assert (error.what, error.log) == ("compiling the plugin wrote no library", "all is well")


@pytest.mark.parametrize("changes", [{"architectures": [75]}, {"source": "00"}, {"tensorrt": "10.14.2"}])
def test_another_library_than_the_one_asked_for_is_an_error(bench, changes):
    writes(bench, **changes)
    assert refusal().what.startswith("the compiled library is not the one asked for: it says ")


def test_a_damaged_library_is_an_error(bench):
    bench.cmake(build=f'echo >"$2/{FILE}"')
    with pytest.raises(ArtifactError, match=r"^the compiled libdlcv_lrn\.so is not a shared library"):
        build.build_library((75,))


def test_bad_requests_start_nothing(bench):
    with pytest.raises(SpecError, match="does not compile for the architecture 37\n  fix: use some of 75,86,90,120"):
        build.build_library((37, 75))
    with pytest.raises(SpecError, match="no GPU architecture"):
        build.recipe(())
    (bench.bin / "nvcc").unlink()
    for call in (build.build_library, build.recipe):
        with pytest.raises(MissingBackend, match="no nvcc, the CUDA compiler"):
            call((75,))
    assert not (bench.folder / "told").exists()


def test_the_recipe_names_all_that_changes_the_library(bench, monkeypatch):
    recipe = build.recipe((120, 75))
    assert recipe == {
        "source": build.source_sha256(),
        "nvcc": "13.0.88",
        "cxx": "12.2.0",
        "headers": "10.14.1",
        "architectures": [75, 120],
        "machine": os.uname().machine,
        "flags": {},
    }
    json.dumps(recipe)
    assert build.recipe((75,)) != recipe
    monkeypatch.setenv("CXXFLAGS", "-O1")
    assert build.recipe((75, 120)) == {**recipe, "flags": {"CXXFLAGS": "-O1"}}


def test_the_source_is_named_by_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_SOURCE", tmp_path)
    (tmp_path / "a.cu").write_text("1")
    first = build.source_sha256()
    (tmp_path / "host").mkdir()
    (tmp_path / "host/shim.h").write_text("for tests")
    (tmp_path / ".clang-format").write_text("for editors")
    assert build.source_sha256() == first
    (tmp_path / "a.cu").rename(tmp_path / "b.cu")
    second = build.source_sha256()
    (tmp_path / "b.cu").write_text("2")
    assert len({first, second, build.source_sha256()}) == 3


def test_a_second_build_compiles_nothing(bench, tmp_path):
    data, said = writes(bench), []
    stages = Stages(Store(tmp_path / "store"), said.append)
    assert build.built_library(stages, (75, 120)).data == data
    bench.cmake(build="exit 1")
    path, library = build.place_library((120, 75), None, stages)
    assert (path.read_bytes(), path.name, library.data) == (data, FILE, data)
    assert said[0] == "compiling the LRN plugin for the GPU architectures 75, 120; that takes minutes, and is kept"
    assert [line.split()[-1] for line in said[1:]][1] == "reused"
    out = tmp_path / "out.so"
    assert build.place_library((75, 120), out, stages)[0] == out
    assert out.read_bytes() == data
    with pytest.raises(ToolError):  # other architectures are another library
        build.built_library(stages, (75,))


def gone(pid):
    """Whether a process ends, soon."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return True
        time.sleep(0.05)
    return False


def test_a_hang_ends_with_all_that_was_started(bench):
    pids = bench.folder / "pids"
    bench.cmake(build=f"/bin/sleep 60 & echo $! >'{pids}'; /bin/sleep 60")
    error = refusal(timeout_s=2.0)
    assert error.what == "compiling the plugin was still at work after 2 s and was stopped"
    assert gone(int(pids.read_text()))


def test_ctrl_c_leaves_no_process_and_no_file(bench):
    pids = bench.folder / "pids"
    bench.cmake(build=f"/bin/sleep 60 & echo $! >'{pids}.x'; /bin/mv '{pids}.x' '{pids}'; /bin/sleep 60")
    code = (
        "import sys, pathlib; from dlcv_deploy.plugin import build, toolchain\n"
        f"toolchain._usual_headers = lambda: (pathlib.Path({str(bench.folder / 'usr/include')!r}),)\n"
        "try: build.build_library((75,))\nexcept KeyboardInterrupt: sys.exit(130)"
    )
    env = {**os.environ, "TMPDIR": str(bench.folder / "tmp")}
    with subprocess.Popen([sys.executable, "-c", code], env=env) as child:
        for _ in range(600):
            if pids.exists():
                break
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=30) == 130
    assert gone(int(pids.read_text()))


def test_the_real_one_holds_what_was_asked_for(plugin_compiled):
    library, log = plugin_compiled
    assert (library.architectures, library.source_sha256) == ((75, 86), build.source_sha256())
    assert set(re.findall(r"for '(sm_\d+)'", log)) == {"sm_75", "sm_86"}


@pytest.mark.slow
def test_the_real_one_repeats_to_the_byte(need):
    need("nvcc", "gxx", "cmake", "tensorrt_headers")
    assert build.build_library((75,)).sha256 == build.build_library((75,)).sha256
