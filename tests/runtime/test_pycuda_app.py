"""The example with pycuda: its kernels compile and compute, and without a GPU it says so."""

import ctypes
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dlcv_deploy.backends import _cuda
from dlcv_deploy.plugin import toolchain

EXAMPLE = Path(__file__).parents[2] / "examples/python/pycuda_app.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("pycuda_app", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_it_says_so():
    if not _cuda.no_gpu():
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, EXAMPLE, "x.dlcv", "x.png"], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("This example runs only on a machine with an NVIDIA GPU: ")
    assert done.stdout == ""


def test_its_kernels_compile(example, need, tmp_path):
    need("nvcc")
    (tmp_path / "kernels.cu").write_text(f'extern "C" {{{example.KERNELS}}}')
    command = [toolchain.find_nvcc().path, "-ptx", "-Werror", "all-warnings", "kernels.cu", "-o", "kernels.ptx"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ptx = (tmp_path / "kernels.ptx").read_text()
    assert ".entry mirror(" in ptx
    assert ".entry answer(" in ptx


HOST = """#include <math.h>
#define __global__
static struct { int x; } blockIdx, blockDim, threadIdx, gridDim;
extern "C" {
KERNELS
void turn(const float *x, float *y, int width, int count, int blocks, int threads)
{
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) mirror(x, y, width, count);
}
void mean(const float *logits, float *to, int classes, int images)
{
    gridDim.x = images;
    for (blockIdx.x = 0; blockIdx.x < images; ++blockIdx.x) answer(logits, to, classes);
}
}
"""


def test_its_kernels_compute_what_they_say(example, need, tmp_path):
    need("gxx")
    (tmp_path / "kernels.cpp").write_text(HOST.replace("KERNELS", example.KERNELS))
    subprocess.run(
        [toolchain.find_cxx()[0], "-shared", "-fPIC", "-Wall", "-Werror", "kernels.cpp", "-o", "kernels.so"],
        cwd=tmp_path,
        check=True,
    )
    library, point = ctypes.CDLL(str(tmp_path / "kernels.so")), ctypes.c_void_p
    x = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32)
    y = np.full(x.size + 1, 7, np.float32)
    library.turn(point(x.ctypes.data), point(y.ctypes.data), 5, x.size, -(-x.size // 32), 32)
    np.testing.assert_array_equal(y[:-1].reshape(x.shape), x[..., ::-1])
    assert y[-1] == 7
    logits = np.random.default_rng(1).normal(0, 30, (6, 10)).astype(np.float32)
    found = np.full((3, 10), np.nan, np.float32)
    library.mean(point(logits.ctypes.data), point(found.ctypes.data), 10, 3)
    powers = np.exp(logits.astype(float) - logits.max(1, keepdims=True))
    softmax = powers / powers.sum(1, keepdims=True)
    np.testing.assert_allclose(found, (softmax[:3] + softmax[3:]) / 2, rtol=1e-5, atol=1e-7)
