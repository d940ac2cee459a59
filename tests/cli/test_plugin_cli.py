"""`dlcv-deploy plugin build` and `plugin check`, as a shell sees them."""

import json
from pathlib import Path

import pytest
from helpers.plugin import library_bytes
from helpers.tools import Bench

from dlcv_deploy.digest import sha256
from dlcv_deploy.errors import MissingBackend
from dlcv_deploy.plugin import build, check
from dlcv_deploy.plugin.cases import Case
from dlcv_deploy.plugin.library import FILE, read_library


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A machine whose CMake compiles nothing and copies a library for SM 7.5 and 12.0."""
    monkeypatch.setenv("DLCV_CACHE", str(tmp_path / "cache"))
    bench = Bench(tmp_path, monkeypatch).whole()
    (tmp_path / "made.so").write_bytes(library_bytes(architectures=[75, 120], source=build.source_sha256()))
    bench.cmake(build=f"/bin/cp '{tmp_path}/made.so' \"$2/{FILE}\"")
    return bench


def test_build_prints_where_the_library_is(bench, run):
    done = run("plugin", "build", "--arch", "12.0,sm_75")
    assert done.code == 0, done.err
    (path,) = done.out.split()
    assert path.startswith(str(bench.folder / "cache"))
    assert path.endswith(f"/{FILE}")
    made = (bench.folder / "made.so").read_bytes()
    assert Path(path).read_bytes() == made
    assert "reused" not in done.err
    bench.cmake(build="exit 1")
    again = run("plugin", "build", "--arch", "75,120", "--json")
    assert "reused" in again.err
    assert again.value == {
        "file": path,
        "bytes": len(made),
        "sha256": sha256(made),
        "architectures": [75, 120],
        "tensorrt": "10.14.1",
        "cuda": "13.0",
    }


def test_build_writes_the_file_that_is_named(bench, run):
    out = bench.folder / "lrn.so"
    done = run("plugin", "build", "--arch", "75,120", "-o", out)
    assert (done.code, done.out) == (0, f"{out}\n")
    assert out.read_bytes() == (bench.folder / "made.so").read_bytes()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--arch", "37"], 2, "error: nvcc 13.0.88 does not compile for the architecture 37\n  fix: use some of 75,86"),
        (["--arch", "75,x"], 2, "'75,x' is not a list of architectures; write it as 86,89,120"),
        (["--arch", "²"], 2, "'²' is not a list of architectures"),
        (["--arch", ""], 2, "error: no GPU architecture was asked for\n  fix: give some, as --arch 86,89"),
        ([], 2, "does not compile for the architecture 80, 89, 100"),
        (["-o", "{folder}/none/x.so"], 5, "error: cannot write {folder}/none/x.so: No such file or directory\n"
         "  fix: its folder does not exist: make it first, or write elsewhere"),
        (["-o", "{folder}/made.so/x.so"], 5, "error: cannot write {folder}/made.so/x.so: Not a directory"),
        (["-o", "{folder}"], 2, "is a directory"),
        (["x"], 2, "unexpected extra argument"),
    ],
)  # fmt: skip
def test_build_refuses(bench, run, words, code, message):
    if words[:1] == ["-o"]:
        words = ["--arch", "75,120", *words]
    done = run("plugin", "build", *(word.format(folder=bench.folder) for word in words))
    assert (done.code, done.out) == (code, "")
    assert message.format(folder=bench.folder) in done.err
    assert not (bench.folder / "none").exists()


def test_build_says_what_is_missing(bench, run):
    (bench.bin / "nvcc").unlink()
    done = run("plugin", "build")
    assert done.code == 3
    assert "error: the plugin cannot be compiled here: no nvcc, the CUDA compiler\n  fix: pip install" in done.err


def test_build_shows_the_compilers_words(bench, run):
    bench.cmake(build="echo 'k.cu(1): error: no'; exit 1")
    done = run("plugin", "build", "--arch", "75")
    assert done.code == 4
    assert "error: compiling the plugin failed: k.cu(1): error: no\n" in done.err


@pytest.fixture
def no_compiler(monkeypatch):
    def none(*_, **__):
        raise MissingBackend("no compiler")

    monkeypatch.setattr(check, "compile_library", none)
    monkeypatch.setattr(check, "compile_host", none)


def test_check_lists_what_was_not_run(no_compiler, run):
    done = run("plugin", "check")
    assert done.code == 0  # nothing failed; nothing passed either
    lines = done.out.splitlines()
    assert len(lines) == len(check.CHECKS)
    assert all(line.startswith("not run") for line in lines)
    assert "passed" not in done.out


def test_check_exits_with_1_where_a_proof_failed(no_compiler, run, tmp_path):
    path = tmp_path / "x.so"
    path.write_bytes(b"")
    done = run("plugin", "check", path, "--json")
    assert done.code == 1
    found = {each["name"]: each for each in done.value}
    assert found["the library says what it is"] == {
        "name": "the library says what it is",
        "verdict": "failed",
        "words": f"{path} is empty",
    }
    json.dumps(done.value)


def test_check_passes_a_good_library(plugin_compiled, monkeypatch, run, tmp_path, need):
    need("tensorrt_rtx")
    path = tmp_path / FILE
    path.write_bytes(plugin_compiled[0].data)
    monkeypatch.setattr(check, "compile_library", lambda *_, **__: plugin_compiled)
    monkeypatch.setattr(check, "covering", lambda: [Case("fp32 linear", 5, (1, 9, 4, 4))])  # the kernels' tests run all
    done = run("plugin", "check", path)
    assert done.code == 0, done.out
    assert done.out.count("passed ") >= 5
    assert "no kernel spills registers" in done.err
    assert read_library(path.read_bytes(), FILE) == plugin_compiled[0]


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [("none.so", 5, "none.so cannot be read: No such file or directory"), (".", 2, "is a directory")],
)
def test_check_refuses(run, tmp_path, name, code, message):
    done = run("plugin", "check", tmp_path / name)
    assert (done.code, done.out) == (code, "")
    assert message in done.err


def test_doctor_says_whether_the_plugin_can_be_compiled(bench, run):
    done = run("doctor")
    assert "plugin" in done.out
    assert "can be compiled" in done.out
    assert run("doctor", "--json").value["no_plugin"] == ""
    (bench.bin / "nvcc").unlink()
    assert "the plugin cannot be compiled here: no nvcc, the CUDA compiler; pip install" in run("doctor").out
    assert run("doctor", "--json").value["no_plugin"].startswith("the plugin cannot be compiled here: no nvcc")
