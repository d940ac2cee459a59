"""The TensorRT side of the C++ library: on stand-ins for TensorRT and CUDA (``no_gpu``), and against the real one."""

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

import dlcv_deploy
from dlcv_deploy.backends import _cuda, tensorrt_rtx
from dlcv_deploy.plugin import toolchain
from dlcv_deploy.types import CompileOptions, Dim

HERE = Path(__file__).parent / "no_gpu"
CPP = Path(dlcv_deploy.__file__).parent / "cpp"
SESSION = ("tensorrt.cpp", "tensorrt_log.cpp", "tensorrt_plugin.cpp", "cuda.cpp", "native_error.cpp")
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
ALWAYS = {  # how often a call fails in a load and three runs, so that an error comes of it
    "cudaGetDevice": 4,
    "cudaSetDevice": 4,
    "cudaMalloc": 4,
    "cudaMallocHost": 2,
    "cudaMemcpyAsync": 6,
    "cudaStreamCreateWithFlags": 1,
    "cudaStreamSynchronize": 3,
    "createInferRuntime": 1,
    "deserializeCudaEngine": 1,
    "createExecutionContext": 1,
    "setTensorAddress": 2,
    "setInputShape": 1,
    "getTensorShape": 1,
}
CAPTURING = dict.fromkeys(("cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiateWithFlags"), 0)
OURS = {"cudaGraphLaunch": 2, "enqueueV3": 1, "createRuntimeConfig": 0, "setCudaGraphStrategy": 0}
RTXS = {"cudaGraphLaunch": 0, "enqueueV3": 3, "createRuntimeConfig": 1, "setCudaGraphStrategy": 1}


def compiled(folder, name, sources, *options):
    cxx, _ = toolchain.find_cxx()
    program = folder / name
    flags = ("-std=c++17", "-g", "-Wall", "-Wextra", "-Werror", f"-I{CPP / 'include'}", f"-I{CPP / 'src'}")
    command = [cxx, *flags, *sources, *options, "-o", program, "-pthread"]
    done = subprocess.run(
        [str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return program


@pytest.fixture(scope="module")
def trial(need, tmp_path_factory):
    """``trial(rtx, library)``: what the trial prints where that version of the library is loaded."""
    need("gxx")
    folder, done = tmp_path_factory.mktemp("trial"), {}

    def run(rtx, library, headers_of_rtx):
        key = (rtx, headers_of_rtx)
        if key not in done:
            told = ["-DDLCV_WITH_TENSORRT_RTX" if rtx else "-DDLCV_WITH_TENSORRT", f"-isystem{HERE}"]
            told += ["-DFAKE_RTX"] if headers_of_rtx else []
            sources = [HERE / "trial.cpp", *(CPP / "src" / name for name in SESSION)]
            done[key] = compiled(folder, f"trial{len(done)}", sources, *told, *(() if rtx else SANITIZED))
        env = {**os.environ, "FAKE_LIBRARY": str(library)}
        ran = subprocess.run(
            [done[key]], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env, timeout=100, check=False
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        return ran.stdout

    return run


@pytest.mark.parametrize(("rtx", "library", "launches", "own"), [(False, 101401, 6, OURS), (True, 10702, 0, RTXS)])
def test_answers_graphs_threads_and_every_call_that_fails(trial, rtx, library, launches, own):
    said = trial(rtx, library, rtx)
    assert "wrong:" not in said
    assert said.startswith(f"{launches} launches\n")
    assert said.endswith("\n0 wrong, 0 alive\n")
    counts = dict(line.removesuffix(" errors").rsplit(": ", 1) for line in said.splitlines() if line.endswith("errors"))
    assert {name: int(count) for name, count in counts.items()} == {**ALWAYS, **CAPTURING, **own}
    tool = "TensorRT for RTX" if rtx else "TensorRT"
    assert f"enqueueV3: 4 {tool} refused to run: enqueueV3 was told to fail\n" in said
    assert "cudaMalloc: 4 cudaMalloc: cudaErrorUnknown: told to fail\n  fix: free GPU memory, or use a smaller" in said
    backend = "tensorrt_rtx" if rtx else "tensorrt"
    assert f": 5 the {backend} engine cannot be read: deserializeCudaEngine was told to fail (compiled for SM" in said
    assert "an empty library: 5 the plugin's library brought no Lrn (version 1)\n" in said


@pytest.mark.parametrize(("library", "version"), [(101300, "TensorRT 10.13.0"), (110100, "TensorRT 11.1.0")])
def test_other_headers_than_the_librarys_are_refused_before_a_call_goes_astray(trial, library, version):
    assert trial(False, library, False) == (
        f"3 this library was compiled with the headers of TensorRT 10.14.1, and runs with {version}\n"
        "  fix: compile it with the headers of TensorRT's own SDK: TENSORRT_ROOT\n"
    )


def test_what_tensorrt_rtx_says_without_a_gpu(need, tmp_path):
    need("gxx", "tensorrt_headers", "tensorrt_rtx")
    from helpers import models

    if not _cuda.no_gpu():
        pytest.skip("there is a GPU")
    engine = tensorrt_rtx.compile(models.net(), CompileOptions(batch=Dim(1, 2, 8)))
    plan = tmp_path / "plan"
    plan.write_bytes(engine.files[tensorrt_rtx.FILE])
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    library = Path(next(iter(spec.submodule_search_locations))) / "libtensorrt_rtx.so.1"
    headers = [f"-isystem{toolchain.find_headers().folder}", f"-isystem{HERE}"]  # CUDA's types are enough
    sources = [HERE / "refused.cpp", CPP / "src" / "tensorrt_log.cpp", CPP / "src" / "native_error.cpp"]
    link = [library, f"-Wl,-rpath,{library.parent}"]
    program = compiled(tmp_path, "refused", sources, "-DDLCV_WITH_TENSORRT_RTX", *headers, *link)
    done = subprocess.run(
        [program, plan], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.startswith("refused\n")
    assert "cudaError 35: CUDA driver version is insufficient" in done.stdout
    assert done.stderr == ""
