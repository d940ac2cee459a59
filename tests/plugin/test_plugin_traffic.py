"""The traffic model against the kernels themselves, run on the host with every access to memory counted."""

import ctypes
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcv_deploy.plugin import traffic
from dlcv_deploy.plugin.formats import FORMATS, to_memory
from dlcv_deploy.plugin.host import compile_host
from dlcv_deploy.plugin.traffic import GPUS, LAYERS, Call, Kernel, Pool, chunk_of, kernel_for, kernels, tile_of, work

ROOT = Path(__file__).parents[2]
COUNTING = [
    *("-O0", "-fsanitize=kernel-address", f"-I{ROOT / 'dlcv_deploy/plugin/csrc'}"),
    *("--param=asan-instrumentation-with-call-threshold=0", "--param=asan-stack=0", "--param=asan-globals=0"),
]
POOL = Pool()


@pytest.fixture(scope="module")
def counted(need, tmp_path_factory):
    """The kernels on the host, counting; g++ alone has the flags for it."""
    need("gxx")
    output = tmp_path_factory.mktemp("counted") / "libcounted.so"
    return ctypes.CDLL(str(compile_host(output, COUNTING, ROOT / "tests/helpers/lrn_counted.cpp")))


def moved(library, call, multiprocessors):
    """Bytes that the kernels read of x and write to y."""
    n, c, _, _ = call.shape
    form, pool = FORMATS[call.form], call.pool
    x = to_memory(np.ones(call.shape, form.dtype), form)
    y = to_memory(np.ones((n, c, *call.answers), form.dtype), form)
    spots = [array.ctypes.data_as(ctypes.c_void_p) for array in (x, y)]
    library.counted_watch(spots[0], ctypes.c_long(x.nbytes), spots[1], ctypes.c_long(y.nbytes))
    numbers = (ctypes.c_float * 5)(1e-4, 0.75, 1, 1, 1)
    window = (ctypes.c_int * 8)(*pool.kernel, *pool.strides, *pool.pads) if pool else None
    shape = (ctypes.c_int * 4)(*call.shape)
    assert library.dlcv_lrn(*spots, form.number, shape, call.size, numbers, window, multiprocessors, None) == 0
    found = (ctypes.c_long * 4)()
    library.counted_bytes(found)
    assert found[1] == found[2] == 0
    return found[0], found[3]


SHAPES = [(1, 96, 14, 14), (1, 96, 13, 13), (2, 64, 9, 9), (1, 5, 7, 4), (1, 257, 6, 5)]
POOLS = [
    None,
    POOL,
    Pool(pads=(0, 0, 1, 1)),
    Pool(pads=(1, 1, 1, 1), strides=(1, 2)),
    Pool((2, 5), (1, 3), (1, 4, 0, 2)),
    Pool((3, 3), (3, 3), (2, 2, 0, 0)),  # does not reach the last row
]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_the_kernels_move_what_the_model_says(counted, form, pool):
    for shape, (size, multiprocessors) in itertools.product(SHAPES, [(1, 132), (5, 1), (5, 132), (9, 40)]):
        call = Call(form, shape, size, pool)
        if min(call.answers) < 1:
            continue
        expected = work(call, multiprocessors)
        assert moved(counted, call, multiprocessors) == (expected.read_bytes, expected.written_bytes), (call, expected)


@given(
    st.integers(1, 3000),
    st.sampled_from([2, 4]),
    st.integers(1, 7),
    st.integers(1, 10**6),
    st.sampled_from([0, 40, 132]),
)
def test_chunks_are_those_of_the_launch(counted, pieces, step, halo, blocks, multiprocessors):
    found = counted.planned_chunk(pieces, step, halo, ctypes.c_long(blocks), multiprocessors)
    assert chunk_of(pieces, step, halo, blocks, multiprocessors) == found
    assert found % step == 0


SIDE, SMALL = st.integers(1, 120), st.integers(1, 15)


@given(
    SIDE, SIDE, st.tuples(SMALL, SMALL), st.tuples(st.integers(1, 4), st.integers(1, 4)), st.sampled_from([2, 4, 16])
)
def test_tiles_are_those_of_the_launch(counted, height, width, kernel, strides, pixel_bytes):
    found = (ctypes.c_int * 4)()
    counted.planned_tile(height, width, (ctypes.c_int * 4)(*kernel, *strides), pixel_bytes, found)
    tile = tile_of(height, width, Pool(kernel, strides), pixel_bytes)
    assert (tile.out_height, tile.out_width, tile.in_height, tile.in_width) == tuple(found)


def test_by_hand():
    """96 channels of 14x14 in float32: four pixels a thread, 49 threads, one block; chunks of 8 for any large GPU."""
    call = Call("fp32 linear", (1, 96, 14, 14))
    assert kernel_for(call) == Kernel("fp32 linear", 2, 4)
    assert chunk_of(96, 4, 2, 1, 132) == 8
    found = work(call, 132)
    assert found.read_bytes == 49 * 16 * (96 + 11 * 4)  # twelve chunks, each border read twice more on either side
    assert found.written_bytes == 96 * 196 * 4
    assert found.warp_steps == 2 * 24
    assert call.least_bytes == call.separate_bytes == 2 * 96 * 196 * 4


def test_least_bytes_of_the_fused_and_of_two():
    call = Call("fp16 linear", (2, 96, 55, 55), pool=POOL)
    assert call.answers == (27, 27)
    assert call.least_bytes == 2 * 96 * (55 * 55 + 27 * 27) * 2
    assert call.separate_bytes - call.least_bytes == 2 * (2 * 96 * 55 * 55 * 2)
    assert Call("int8 kCHW4", (1, 192, 56, 56), pool=LAYERS["GoogLeNet norm2 and pool2, 192x56x56"][1]).answers == (
        28,
        28,
    )


def test_which_kernel_is_launched():
    assert kernel_for(Call("fp32 linear", (1, 9, 5, 5), 3)) == Kernel("fp32 linear", 1)
    assert kernel_for(Call("fp16 linear", (1, 9, 5, 4), 9)) == Kernel("fp16 linear", 4, 4)
    assert kernel_for(Call("fp16 kHWC8", (1, 9, 5, 4), 9)) == Kernel("fp16 kHWC8", 4)
    assert kernel_for(Call("int8 kCHW4", (1, 9, 5, 4), 11)) == Kernel("int8 kCHW4", 7)
    assert kernel_for(Call("int8 kCHW4", (1, 9, 5, 4), 1)) == Kernel("int8 kCHW4", 7)
    assert kernel_for(Call("int8 kCHW4", (1, 9, 5, 4), 5, POOL)) == Kernel("int8 kCHW4", 2, pool=3)
    assert kernel_for(Call("int8 kCHW4", (1, 9, 5, 4), 5, Pool((3, 2)))) == Kernel("int8 kCHW4", 7, pool=0)
    assert len(set(kernels())) == len(list(kernels())) == 65


def test_never_less_than_the_least():
    for (shape, pool), form, gpu, batch in itertools.product(LAYERS.values(), FORMATS, GPUS, (1, 64)):
        call = Call(form, (batch, *shape), pool=pool)
        assert call.least_bytes <= work(call, gpu.multiprocessors).moved_bytes
        if pool:
            assert work(call, gpu.multiprocessors).moved_bytes < call.separate_bytes


@pytest.mark.parametrize(("name", "lanes", "tflops"), [("H100", 128, 67), ("L4", 128, 30.3), ("T4", 64, 8.1)])
def test_clocks_are_those_of_the_data_sheets(name, lanes, tflops):
    """Two operations a lane and clock; the bandwidths are the data sheets' own."""
    gpu = next(gpu for gpu in GPUS if gpu.name == name)
    assert gpu.multiprocessors * lanes * 2 * gpu.clock_hz / 1e12 == pytest.approx(tflops, rel=0.01)


def test_times():
    gpu, call = GPUS[1], Call("fp32 linear", (64, 96, 55, 55), pool=POOL)
    found = work(call, 58)
    assert traffic.memory_us(call, gpu) == pytest.approx(found.moved_bytes / 300e3)
    assert traffic.issue_us(call, gpu, 100) == pytest.approx(found.warp_steps * 100 / (58 * 4 * 2.04e3))


def test_the_document_has_the_tables():
    document = (ROOT / "docs/lrn-plugin.md").read_text(encoding="utf-8")
    assert traffic.markdown() in document
    assert traffic.markdown().count("\n|") == 4 * (1 + 10) + 4
