"""The plugin on a GPU: its kernels against float64, and engines that call them. No GPU has run this yet.

Each test is there twice. ``[gpu]`` is the proof: it calls the library itself with memory of the device, and is skipped
where no GPU is. ``[host]`` runs everywhere, on a few of the cases: memory and streams are make-believe
(helpers/host_gpu.py) and the kernels are those compiled for the host, so that it proves the test and not the GPU.

The library is compiled for the GPU that is here; DLCV_LRN_LIBRARY names another file, such as the one to be shipped.
"""

import dataclasses as dc
import importlib
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import host_gpu, lrn_engine, lrn_sanitized

from dlcv_deploy.backends import _cuda
from dlcv_deploy.errors import ToolError
from dlcv_deploy.plugin import cases, network
from dlcv_deploy.plugin.build import build_library
from dlcv_deploy.plugin.cases import POOL, Case, complaint
from dlcv_deploy.plugin.device import DeviceKernels
from dlcv_deploy.plugin.formats import FORMATS
from dlcv_deploy.plugin.gpu import Gpu
from dlcv_deploy.plugin.interface import Operator, load
from dlcv_deploy.types import CompileOptions, Dim

SLACK = 2.0
"""rsqrtf errs by 2 ulp, sqrt.approx by 1, powf by 4 (CUDA C++ Programming Guide, mathematical functions; PTX ISA)."""
HERE = Path(__file__).resolve()
BOTH = ["host", pytest.param("gpu", marks=pytest.mark.gpu)]
FLOATS = ("fp32 linear", "fp16 linear", "fp16 kHWC8")
FORMS = pytest.mark.parametrize("form", FORMATS)
POOLS = pytest.mark.parametrize("pool", [None, POOL], ids=["lrn", "fused"])
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
CUDA = Path(os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda")


@pytest.fixture(scope="session")
def gpu_library(need, tmp_path_factory):
    """The file of the library under proof."""
    if given := os.environ.get("DLCV_LRN_LIBRARY"):
        return Path(given)
    need("nvcc", "gxx", "cmake", "tensorrt_headers")
    path = tmp_path_factory.mktemp("plugin") / "libdlcv_lrn.so"
    path.write_bytes(build_library((_cuda.capability(),)).data)
    return path


@pytest.fixture(scope="module", params=BOTH)
def kernels(request):
    if request.param == "host":
        made = host_gpu.HostGpu(request.getfixturevalue("host_library"))
        return DeviceKernels(made.library, made)
    return DeviceKernels(load(request.getfixturevalue("gpu_library")), gpu())


def gpu():
    if reason := _cuda.no_binding():
        pytest.skip(f"needs gpu: {reason}")
    return Gpu()


def some(kernels, cases, step):
    """All of them on a GPU, few on the host."""
    return itertools.islice(cases, None, None, 1 if isinstance(kernels.device, Gpu) else step)


def wrong(kernels, case, x=None, seed=0):
    """What is wrong with the answer for this input, or a drawn one."""
    x = case.drawn(seed) if x is None else x
    return complaint(case, x, case.run(kernels, x), SLACK)


@FORMS
def test_every_window_with_every_number_of_channels(kernels, form):
    chosen = [(seed, case) for seed, case in enumerate(cases.covering()) if case.form == form]
    for seed, case in some(kernels, chosen, 9):
        assert not wrong(kernels, case, seed=seed)


@pytest.mark.slow
@FORMS
def test_everything_with_everything(kernels, form):
    for case in some(kernels, (case for case in cases.crossed() if case.form == form), 97):
        assert not wrong(kernels, case)


@FORMS
@POOLS
def test_any_beta(kernels, form, pool):
    for beta, alpha, bias in itertools.product((0.75, 0.0, 0.5, 1.0, 2.5, -0.5), (1e-4, 5.0, 0.0), (1.0, 0.3)):
        case = Case(form, 5, (1, 40, 9, 8), pool, alpha, beta, bias, spread=3.0)
        assert not wrong(kernels, case)


@pytest.mark.parametrize("form", FLOATS)
@POOLS
@pytest.mark.parametrize("size", [3, 5, 13])
def test_hard_values(kernels, form, pool, size):
    """Infinities, NaN, both zeros, float16's greatest and denormals: float64 says what comes of each."""
    values = np.float32([np.inf, -np.inf, np.nan, 0.0, -0.0, 6e4, -6e4, 6e-8, 1e-7, 1.0, 255, 256, 65504])
    rng = np.random.default_rng(size)
    for bias, share in ((2.0, 0.02), (2.0, 0.5), (0.0, 0.02)):
        case = Case(form, size, (2, 41, 9, 12), pool, alpha=1e-4, bias=bias)
        x = case.drawn().astype(np.float32)
        chosen = rng.random(x.shape) < share
        x[chosen] = rng.choice(values, chosen.sum())
        x[1, :, 0, 0] = 0
        with np.errstate(over="ignore"):
            x = x.astype(case.format.dtype)
        assert not wrong(kernels, case, x)


@pytest.mark.parametrize("side", [5, 8], ids=["one pixel", "four pixels"])
def test_where_float32_overflows_the_answer_is_zero(kernels, side):
    """float64 would go on; the squares of 3e38 and 2e19 are infinite in float32."""
    case = Case("fp32 linear", 5, (1, 9, side, side))
    x = np.full(case.shape, 1e-30, np.float32)
    x[0, 3], x[0, 8] = 3e38, 2e19
    y, _ = case.run(kernels, x)
    assert np.all(y[0, 1:] == 0)
    np.testing.assert_allclose(y[0, 0], 1e-30 * 2.0**-0.75, rtol=1e-6)


def test_float32_denormals_are_not_flushed(kernels):
    case = Case("fp32 linear", 3, (1, 4, 3, 4), bias=1.0)
    x = np.full(case.shape, 1e-42, np.float32)
    y, _ = case.run(kernels, x)
    assert np.array_equal(y, x)


def test_int8_saturates_and_vanishes(kernels):
    for scales in ((1.0, 1e-6), (1e-6, 1.0), (1e-30, 1e30), (0.1, 0.1)):
        case = Case("int8 kCHW4", 3, (1, 6, 4, 5), None, scales=scales)
        assert not wrong(kernels, case)


@FORMS
@POOLS
def test_how_the_work_is_cut_changes_no_bit(kernels, form, pool):
    for shape in ((2, 70, 33, 34), (1, 257, 6, 50)):
        case = Case(form, 5, shape, pool)
        x = case.drawn()
        first, _ = case.run(kernels, x)
        for multiprocessors in (0, 1, 7, 108, 5000):
            assert np.array_equal(first, case.run(kernels, x, multiprocessors=multiprocessors)[0])


@FORMS
@POOLS
def test_any_legal_address(kernels, form, pool):
    """An element, or what one load takes, beyond where four pixels would be aligned: the same bits, none elsewhere."""
    step = 1 if "linear" in form else 16 // FORMATS[form].itemsize
    for shape in ((2, 17, 8, 8), (1, 33, 13, 12)):
        case = Case(form, 5, shape, pool)
        x = case.drawn()
        first, _ = case.run(kernels, x)
        for offset in (1, 2, 3):
            assert np.array_equal(first, case.run(kernels, x, offset=offset * step)[0])


@FORMS
@POOLS
def test_again_and_again_the_same_bits(kernels, form, pool):
    case = Case(form, 5, (2, 96, 27, 27), pool)
    x, (stream,) = case.drawn(), kernels.device.streams(1)
    with placed(kernels, case, x) as one:
        answers = []
        for _ in range(20 if isinstance(kernels.device, Gpu) else 3):
            one.send(stream)
            one.launch(stream)
            answers.append(one.fetch(stream)[0])
    assert not complaint(case, x, (answers[0], answers[0][:, :0]), SLACK)
    assert all(np.array_equal(answers[0], answer) for answer in answers)


@POOLS
def test_streams_at_once_give_what_one_gives(kernels, pool):
    """Every format on a stream of its own, each launched many times before anything is waited for."""
    streams = kernels.device.streams(2 * len(FORMATS))
    cases = [Case(form, size, (2, 96, 27, 27), pool) for form, size in itertools.product(FORMATS, (5, 9))]
    xs = [case.drawn(seed) for seed, case in enumerate(cases)]
    alone = [case.run(kernels, x)[0] for case, x in zip(cases, xs, strict=True)]
    together = [placed(kernels, case, x) for case, x in zip(cases, xs, strict=True)]
    for one, stream in zip(together, streams, strict=True):
        one.send(stream)
    for _ in range(50 if isinstance(kernels.device, Gpu) else 2):
        for one, stream in zip(together, streams, strict=True):
            assert one.launch(stream) == 0
    answers = [one.fetch(stream)[0] for one, stream in zip(together, streams, strict=True)]
    for one in together:
        one.close()
    assert all(np.array_equal(a, b) for a, b in zip(alone, answers, strict=True))


def placed(kernels, case, x):
    return kernels.place(x, case.format, Operator(**case.attributes, scales=case.scales, pool=case.pool))


def test_what_is_refused_is_said_and_does_not_stick(kernels):
    case = Case("int8 kCHW4", 5, (1, 8, 20, 20), POOL)
    x = case.drawn()
    pads = {"pool": (3, 3, 2, 2, 0, 0, 3, 0)}
    for change in ({"size": 4}, {"size": 17}, {"bias": -1.0}, {"scales": (0.0, 0.1)}, pads):
        assert dc.replace(case, **change).run(kernels, x) is None
        assert not wrong(kernels, case, x)


def test_what_is_wrong_is_said_in_words(kernels):
    numbers = (np.float32([1e-4, 0.75, 1, 0, 0])).ctypes.data_as(kernels.library.dlcv_problem.argtypes[1])
    assert kernels.library.dlcv_problem(4, numbers, None, 0) == b"size must be odd: an even window has no centre"
    assert kernels.library.dlcv_problem(5, numbers, None, 0) is None


@pytest.mark.gpu
def test_a_library_for_other_gpus_says_so(need, tmp_path):
    """209 is cudaErrorNoKernelImageForDevice."""
    need("nvcc", "gxx", "cmake", "tensorrt_headers")
    if _cuda.capability() >= 120:
        pytest.skip("needs a GPU below SM 12.0: PTX runs on those above it")
    path = tmp_path / "libdlcv_lrn.so"
    path.write_bytes(build_library((120,)).data)
    case = Case("fp32 linear", 5, (1, 8, 4, 4))
    with pytest.raises(ToolError, match="CUDA error 209"):
        case.run(DeviceKernels(load(path), gpu()), case.drawn())


def sanitizer():
    """compute-sanitizer's path; None where it is not installed."""
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=str(CUDA / "bin"))


def sanitized(tool, library, *words, executable=None):
    """The driver under a tool of compute-sanitizer: its exit code, and all that was printed."""
    command = [executable or sanitizer(), "--tool", tool, "--error-exitcode", "86"]
    command += ["--padding", "1024"] if tool == "memcheck" else []
    driver = [sys.executable, lrn_sanitized.__file__, str(library), *words]
    env = {**os.environ, "PYTHONPATH": f"{HERE.parents[1]}{os.pathsep}{HERE.parents[2]}"}
    done = subprocess.run([*command, *driver], env=env, capture_output=True, text=True, check=False, timeout=1800)
    return done.returncode, done.stdout + done.stderr


def clean(code, text):
    return code == 0 and ("ERROR SUMMARY: 0 errors" in text or "RACECHECK SUMMARY: 0 hazards displayed" in text)


@pytest.mark.gpu
@pytest.mark.parametrize("tool", SANITIZERS)
def test_compute_sanitizer_finds_nothing(tool, gpu_library):
    needs_sanitizer()
    code, text = sanitized(tool, gpu_library)
    assert clean(code, text), text[-4000:]


@pytest.mark.gpu
def test_compute_sanitizer_would_find_something(gpu_library):
    needs_sanitizer()
    code, text = sanitized("memcheck", gpu_library, "--past-the-end")
    assert code != 0
    assert "Invalid __global__ read" in text, text[-4000:]


def needs_sanitizer():
    gpu()
    if sanitizer() is None:
        pytest.skip(f"compute-sanitizer is neither on PATH nor in {CUDA}/bin; it comes with the CUDA toolkit")


@pytest.fixture(
    params=[
        "helpers.host_trt",
        *(pytest.param(f"dlcv_deploy.backends.{n}", marks=pytest.mark.gpu) for n in ("tensorrt_rtx", "tensorrt")),
    ]
)
def trt(request, need):
    """A backend, and options to compile for this GPU with the plugin."""
    backend, sm, library = importlib.import_module(request.param), (), "host_library"
    if backend.name != "host_trt":
        need(backend.name)
        if reason := backend.ability().no_run:
            pytest.skip(f"needs gpu: {reason}")
        sm, library = (_cuda.capability(),) if backend.name == "tensorrt_rtx" else (), "gpu_library"
    plugin = request.getfixturevalue(library).read_bytes()
    return backend, CompileOptions(batch=Dim(1, 2, 4), sm=sm, plugin=plugin)


def feeds(batch, seed=5):
    (x,) = network.feeds().values()
    return {"x": np.random.default_rng(seed).normal(0, 1, (batch, *x.shape[1:])).astype(np.float32)}


@pytest.mark.parametrize("dtype", network.DTYPES)
def test_an_engine_answers_as_the_reference_and_so_does_its_copy_next_door(trt, dtype):
    backend, options = trt
    engine = backend.compile(network.network(dtype), options)
    assert engine.plugin is not None
    with backend.load(engine) as session:
        for batch in (1, 3, 4, 1):
            answers = session.run(feeds(batch))
            assert not network.differs(answers, dtype)
    again = lrn_engine.reloaded(backend, engine, feeds(3))
    assert not network.differs(again, dtype)
    with backend.load(engine) as session:
        assert all(np.array_equal(again[name], y) for name, y in session.run(feeds(3)).items())


def test_two_engines_at_once(trt):
    """One goes on when the other is closed, and neither changes the other's answers."""
    backend, options = trt
    made = {dtype: backend.compile(network.network(dtype), options) for dtype in ("float32", "int8")}
    with backend.load(made["float32"]) as first:
        alone = first.run(feeds(2))
        with backend.load(made["int8"]) as second:
            for seed in range(3):
                assert not network.differs(second.run(feeds(2, seed)), "int8")
                assert all(np.array_equal(alone[name], y) for name, y in first.run(feeds(2)).items())
        assert all(np.array_equal(alone[name], y) for name, y in first.run(feeds(2)).items())
