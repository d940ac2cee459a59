"""The kernels' own source, run on the host thread by thread, against float64 and PyTorch."""

import dataclasses as dc
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlcv_deploy.plugin import cases, host, reference
from dlcv_deploy.plugin.cases import POOL, Case, complaint
from dlcv_deploy.plugin.formats import FORMATS, from_memory, to_memory

FLOATS = ("fp32 linear", "fp16 linear", "fp16 kHWC8")


@pytest.fixture(scope="module")
def kernels(need, tmp_path_factory):
    need("gxx")
    return host.HostKernels(host.compile_host(tmp_path_factory.mktemp("host") / "liblrn_host.so"))


@pytest.mark.parametrize("size", cases.SIZES)
def test_the_reference_is_pytorchs(need, size):
    need("torch")
    import torch

    x = np.random.default_rng(size).standard_normal((2, 17, 5, 6)) * 30
    x[0, :4, 0, 0] = np.inf, -np.inf, np.nan, 0
    theirs = torch.nn.functional.local_response_norm(torch.from_numpy(x), size, 1e-2, 0.75, 2.0)
    np.testing.assert_allclose(reference.lrn(x, size, 1e-2, 0.75, 2.0), theirs.numpy(), rtol=1e-12)
    pool = torch.nn.functional.max_pool2d(theirs, (3, 2), (2, 1), (1, 1))
    np.testing.assert_allclose(
        reference.max_pool(reference.lrn(x, size, 1e-2, 0.75, 2.0), (3, 2), (2, 1), (1, 1, 1, 1)), pool, rtol=1e-12
    )


def test_where_a_channel_lies_in_memory():
    x = np.arange(2 * 35 * 2 * 3).reshape(2, 35, 2, 3).astype(np.float64)
    n, c, h, w = 1, 33, 1, 2
    for form, place in {
        "fp32 linear": ((n * 35 + c) * 2 + h) * 3 + w,
        "fp16 kHWC8": ((n * 2 + h) * 3 + w) * 40 + c,
        "int8 kCHW4": (((n * 9 + c // 4) * 2 + h) * 3 + w) * 4 + c % 4,
        "int8 kCHW32": (((n * 2 + c // 32) * 2 + h) * 3 + w) * 32 + c % 32,
    }.items():
        memory = to_memory(x, dc.replace(FORMATS[form], dtype="float64"), -1)
        assert memory.reshape(-1)[place] == x[n, c, h, w]
        back, padding = from_memory(memory, FORMATS[form], 35)
        assert np.array_equal(back, x)
        assert np.all(padding == -1)


def test_float16_is_numpys(kernels):
    halves = np.arange(1 << 16, dtype=np.uint16)
    exact = halves.view(np.float16).astype(np.float32)
    finite = exact[np.isfinite(exact)]
    middles = (np.sort(finite)[1:].astype(np.float64) + np.sort(finite)[:-1]) / 2
    near = np.concatenate([np.float32(middles), np.nextafter(np.float32(middles), np.float32(np.inf))])
    floats = np.concatenate([near, np.float32([65519.99, 65520, 1e30, np.inf, -np.inf, 1e-45, 2**-25, 2**-14])])
    with np.errstate(over="ignore"):
        wanted = floats.astype(np.float16).view(np.uint16)
    wide, _ = kernels.halves(halves, np.zeros(halves.size, np.float32))
    _, narrow = kernels.halves(np.zeros(floats.size, np.uint16), floats)
    assert np.array_equal(wide, exact, equal_nan=True)
    assert np.array_equal(narrow, wanted)
    assert kernels.halves(np.zeros(1, np.uint16), np.float32([np.nan]))[1].view(np.float16) != 0


@pytest.mark.parametrize("form", FORMATS)
def test_every_window_with_every_number_of_channels(kernels, form):
    for seed, case in enumerate(cases.covering()):
        if case.form == form:
            x = case.drawn(seed)
            assert not complaint(case, x, case.run(kernels, x))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_everything_with_everything(kernels, form):
    for case in cases.crossed():
        if case.form == form:
            x = case.drawn()
            assert not complaint(case, x, case.run(kernels, x))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("pool", [None, POOL], ids=["lrn", "fused"])
def test_beta_is_any_number(kernels, form, pool):
    for beta, alpha, bias in itertools.product((0.75, 0.0, 0.5, 1.0, 2.5, -0.5), (1e-4, 5.0, 0.0), (1.0, 0.3)):
        case = Case(form, 5, (1, 40, 9, 8), pool, alpha, beta, bias, spread=3.0)
        x = case.drawn()
        assert not complaint(case, x, case.run(kernels, x))


@pytest.mark.parametrize("form", FLOATS)
@pytest.mark.parametrize("pool", [None, POOL], ids=["lrn", "fused"])
@pytest.mark.parametrize("size", [3, 5, 13])
def test_hard_values_as_pytorch_has_them(need, kernels, form, pool, size):
    """Infinity and NaN reach their window and no further; zeros, denormals and float16's greatest are numbers."""
    need("torch")
    import torch

    values = np.float32([np.inf, -np.inf, np.nan, 0.0, -0.0, 6e4, -6e4, 6e-8, 1e-7, 1.0, 255, 256, 65504])
    rng = np.random.default_rng(size)
    for bias, share in ((2.0, 0.02), (2.0, 0.5), (0.0, 0.02)):
        case = Case(form, size, (2, 41, 9, 11), pool, alpha=1e-4, bias=bias)
        x = case.drawn().astype(np.float32)
        chosen = rng.random(x.shape) < share
        x[chosen] = rng.choice(values, chosen.sum())
        x[1, :, 0, 0] = 0
        with np.errstate(over="ignore"):
            x = x.astype(case.format.dtype)
        answer = case.run(kernels, x)
        assert not complaint(case, x, answer)
        theirs = torch.nn.functional.local_response_norm(torch.from_numpy(x.astype(np.float32)), size, 1e-4, 0.75, bias)
        if pool:
            theirs = torch.nn.functional.max_pool2d(theirs, 3, 2)
        assert np.array_equal(np.isnan(answer[0]), np.isnan(theirs.numpy()))


@pytest.mark.parametrize("pool", [None, POOL], ids=["lrn", "fused"])
def test_float32_overflows_where_pytorchs_does(need, kernels, pool):
    need("torch")
    import torch

    case = Case("fp32 linear", 5, (1, 9, 5, 5), pool)
    x = np.full(case.shape, 1e-30, np.float32)
    x[0, 3], x[0, 8] = 3e38, 2e19
    theirs = torch.nn.functional.local_response_norm(torch.from_numpy(x), 5, 1e-2, 0.75, 2.0)
    theirs = torch.nn.functional.max_pool2d(theirs, 3, 2) if pool else theirs
    np.testing.assert_allclose(case.run(kernels, x)[0], theirs.numpy(), rtol=1e-6, atol=1e-44)


def test_int8_in_one_step_at_each_end(kernels):
    """A scale that is too small saturates, one that is too large gives 0."""
    for scales in ((1.0, 1e-6), (1e-6, 1.0), (1e-30, 1e30), (0.1, 0.1)):
        case = Case("int8 kCHW4", 3, (1, 6, 4, 5), None, scales=scales)
        x = case.drawn()
        assert not complaint(case, x, case.run(kernels, x))


@pytest.mark.parametrize("form", FORMATS)
def test_neither_the_order_of_threads_nor_the_device_changes_a_bit(kernels, form):
    """A barrier that is missing shows in one of the orders; how the work is cut shows nowhere."""
    for pool, shape in itertools.product((None, POOL, (5, 4, 2, 3, 2, 1, 2, 3)), ((2, 70, 33, 34), (1, 257, 6, 50))):
        case = Case(form, 5, shape, pool)
        x = case.drawn()
        first, _ = case.run(kernels, x)
        for order, processors in ((1, 108), (2, 108), (0, 0), (1, 1), (0, 7), (2, 5000)):
            again, padding = case.run(kernels, x, order=order, multiprocessors=processors)
            assert np.array_equal(first, again), (str(case), order, processors)
            assert not np.any(padding)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_shape_any_window_any_pool(kernels, data):
    form = data.draw(st.sampled_from(sorted(FORMATS)))
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 24), st.integers(1, 24)))
    size = data.draw(st.sampled_from(cases.SIZES))
    pool = None
    if data.draw(st.booleans()):
        kernel = data.draw(st.tuples(st.integers(1, 15), st.integers(1, 15)))
        strides = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
        pads = tuple(data.draw(st.integers(0, kernel[i % 2] - 1)) for i in range(4))
        pool = (*kernel, *strides, *pads)
    numbers = [data.draw(st.floats(low, high, width=32)) for low, high in ((0, 10), (-1, 3), (0.25, 8))]
    case = Case(form, size, shape, pool, *numbers, spread=data.draw(st.sampled_from([1e-3, 1.0, 200.0])))
    if cases.fits(case):
        x = case.drawn(data.draw(st.integers(0, 9)))
        assert not complaint(case, x, case.run(kernels, x, multiprocessors=data.draw(st.integers(0, 200))))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 4}, "size must be odd: an even window has no centre"),
        ({"size": 0}, "size must be 1 to 15"),
        ({"size": 17}, "size must be 1 to 15"),
        ({"bias": -0.1}, "bias must not be negative"),
        ({"bias": np.nan}, "bias must not be negative"),
        ({"alpha": np.inf}, "alpha, beta and bias must be finite"),
        ({"beta": np.nan}, "alpha, beta and bias must be finite"),
        ({"scales": (0.0, 0.1)}, "int8 needs input_scale and output_scale above 0"),
        ({"scales": (0.1, np.inf)}, "int8 needs input_scale and output_scale above 0"),
        ({"pool": (0, 3, 2, 2, 0, 0, 0, 0)}, "kernel_shape must be 1 to 15"),
        ({"pool": (3, 16, 2, 2, 0, 0, 0, 0)}, "kernel_shape must be 1 to 15"),
        ({"pool": (3, 3, 0, 2, 0, 0, 0, 0)}, "strides must be 1 or more"),
        ({"pool": (3, 3, 2, 2, 0, 0, 3, 0)}, "pads must be smaller than kernel_shape"),
        ({"pool": (3, 3, 2, 2, -1, 0, 0, 0)}, "pads must be smaller than kernel_shape"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(map(str, (*value.keys(), *value.values()))),
)
def test_attributes_that_are_refused(kernels, change, words):
    case = dc.replace(Case("int8 kCHW4", 5, (1, 8, 20, 20), POOL), **change)
    numbers = (case.alpha, case.beta, case.bias, *case.scales)
    assert kernels.problem(case.size, numbers, case.pool, int8=True) == words
    if "strides" not in words:
        assert case.run(kernels, case.drawn()) is None


@pytest.mark.parametrize(
    "shape", [(1, 0, 5, 5), (1, 3, 0, 5), (-1, 3, 5, 5), (1, 1 << 20, 55, 55), (1, 3, 1 << 16, 1 << 15), (1, 3, 2, 2)]
)
def test_shapes_that_are_refused(kernels, shape):
    """Nothing is read: the arrays are not there."""
    assert kernels.refuses(shape, POOL)


def test_an_empty_batch_is_no_error(kernels):
    assert not kernels.refuses((0, 3, 5, 5), POOL)
