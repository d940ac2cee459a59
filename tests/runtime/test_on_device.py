"""Engines on arrays of a GPU that is not there: no copies, streams in order, memory given back, every refusal."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers.host_cuda import LEGACY, ROW, ByDlpack, ByInterface, HostCuda, answers, session_of
from hypothesis import given
from hypothesis import strategies as st

from dlcv_deploy.backends import _cuda
from dlcv_deploy.errors import MissingBackend, SpecError, ToolError
from dlcv_deploy.runtime import DeviceArray, Engine
from dlcv_deploy.runtime.on_device import handle, host_array, is_on_device, run_on_device
from dlcv_deploy.types import Dim, TensorSpec

SPEC = TensorSpec("input", ROW)


@pytest.fixture
def gpu():
    return HostCuda()


def rows_of(count, seed=0):
    return np.random.default_rng(seed).integers(-9, 9, (count, *ROW)).astype(np.float32)


def run(session, array, stream=None):
    return run_on_device(session, array, stream)["logits"]


def test_an_array_is_read_where_it_lies_and_the_answer_stays_there(gpu):
    x = rows_of(3)
    with session_of(gpu) as session:
        array = run(session, ByInterface(gpu.array(x), x.shape))
        np.testing.assert_array_equal(gpu.seen(array.address, (3, 5)), answers(x))
        assert (array.shape, array.dtype, array.device, array.nbytes, len(array)) == ((3, 5), np.float32, 0, 60, 3)
        assert repr(array) == "DeviceArray(shape=(3, 5), dtype=float32, GPU 0)"
        np.testing.assert_array_equal(array.numpy(), answers(x))
        assert array.__cuda_array_interface__ == {
            "version": 3,
            "shape": (3, 5),
            "typestr": "<f4",
            "data": (array.address, False),
            "strides": None,
            "stream": None,
        }
        assert not [said for said in gpu.said if said[0] == "copy"]


def test_nothing_is_copied_where_rows_fit(gpu, monkeypatch):
    x, copied = rows_of(4), []
    monkeypatch.setattr(gpu, "copy", lambda *args: copied.append(args))
    with session_of(gpu) as session:
        run(session, ByInterface(gpu.array(x), x.shape))
        assert copied == []


@given(st.integers(1, 14), st.integers(1, 3), st.integers(0, 3), st.booleans())
def test_any_number_of_rows_at_any_address(rows, lo, more, shifted):
    gpu, x = HostCuda(), rows_of(rows)
    with session_of(gpu, batch=Dim(lo, lo, lo + more)) as session:
        address = gpu.array(np.concatenate([np.full((1, *ROW), np.nan, np.float32), x])) + 48  # a row is 48 bytes
        array = run(session, ByInterface(address if shifted else gpu.array(x), x.shape))
        np.testing.assert_array_equal(array.numpy(), answers(x))


def test_the_host_and_the_gpu_take_turns(gpu):
    x = rows_of(3)
    with session_of(gpu) as session:
        for i in range(6):
            y = x + i
            if i % 3:
                np.testing.assert_array_equal(run(session, ByInterface(gpu.array(y), y.shape)).numpy(), answers(y))
            else:
                np.testing.assert_array_equal(session.run({"input": y})["logits"], answers(y))


def test_the_same_place_twice_is_captured_and_another_is_not(gpu):
    x = rows_of(3)
    with session_of(gpu) as session:
        places, memory = gpu.array(x), {}

        def go(to):
            with gpu.current():
                event = memory.setdefault("event", gpu.event())
            session.run_device(3, {"input": places}, {"logits": to}, after=(), done=event, then=None)
            said, gpu.said[:] = [s[0] for s in gpu.said if s[0] in ("captured", "launch", "drop")], []
            np.testing.assert_array_equal(gpu.seen(to, (3, 5)), answers(x))
            return said

        a, b = (gpu.array(np.zeros((3, 5), np.float32)) for _ in range(2))
        assert [go(a), go(a), go(a)] == [[], ["captured", "launch"], ["launch"]]
        assert [go(b), go(b)] == [["drop"], ["captured", "launch"]]


# --- streams


def test_a_callers_stream_goes_on_without_the_host(gpu):
    """Its work so far comes first, and its later work after; nobody waits here."""
    x, mine = rows_of(4), gpu.stream()
    with session_of(gpu) as session:
        address, copied = gpu.array(np.zeros_like(x)), gpu.array(np.zeros((4, 5), np.float32))
        gpu.written_late(address, x, mine)
        gpu.said.clear()
        array = run(session, ByInterface(address, x.shape), mine)
        assert [s for s in gpu.said if s[0] == "wait"] == []
        assert gpu.seen(array.address, (1,)) != answers(x)[0, 0]  # it has not run
        gpu._put(mine, 1, lambda: gpu._memory[address].fill(0xFF))  # the caller's next input, over this one
        gpu.copy(copied, array.address, 80, mine)
        gpu.wait(mine)
        np.testing.assert_array_equal(gpu.seen(copied, (4, 5)), answers(x))
        assert array.stream == array.__cuda_array_interface__["stream"] == mine


def test_the_stream_that_an_array_names_is_the_callers(gpu):
    x, mine = rows_of(2), gpu.stream()
    with session_of(gpu) as session:
        address = gpu.array(np.zeros_like(x))
        gpu.written_late(address, x, mine)
        array = run(session, ByInterface(address, x.shape, stream=mine))
        assert array.stream == mine
        np.testing.assert_array_equal(array.numpy(), answers(x))
        other = gpu.stream()
        gpu.written_late(address, x + 1, mine)
        both = run(session, ByInterface(address, x.shape, stream=mine), other)
        assert both.stream == other
        np.testing.assert_array_equal(both.numpy(), answers(x + 1))


def test_a_library_orders_its_work_by_dlpack(gpu):
    """Its array is not even written yet when it is passed."""
    x, own = rows_of(3), gpu.stream()
    with session_of(gpu) as session:
        array = ByDlpack(gpu, x, own)
        got = run(session, array)
        assert array.asked == [(session.stream, (1, 1))]
        np.testing.assert_array_equal(gpu.seen(got.address, (3, 5)), answers(x))  # it was waited for
        again = run(session, ByDlpack(gpu, x + 1, own), own)
        np.testing.assert_array_equal(again.numpy(), answers(x + 1))


def test_an_answer_feeds_another_engine(gpu):
    """By DLPack, though it is not complete: the other's stream waits."""
    x, mine = rows_of(4), gpu.stream()
    with session_of(gpu) as first, session_of(gpu) as second:
        y = run(first, ByInterface(gpu.array(x), x.shape), mine)
        again = SimpleNamespace(
            __dlpack__=lambda **how: _reshaped(y, (1, *ROW), **how), __dlpack_device__=y.__dlpack_device__
        )
        np.testing.assert_array_equal(run(second, again).numpy(), answers(answers(x).reshape(-1)[:12].reshape(1, *ROW)))


def _reshaped(array, shape, **how):
    return DeviceArray(array._memory, array.address, shape, "float32", array.stream).__dlpack__(**how)


@pytest.mark.parametrize(
    ("stream", "number"),
    [
        (7, 7),
        (0, LEGACY),
        (SimpleNamespace(cuda_stream=0), LEGACY),  # torch's default
        (SimpleNamespace(cuda_stream=99), 99),
        (SimpleNamespace(ptr=98), 98),
        (SimpleNamespace(handle=97), 97),
        (SimpleNamespace(handle=SimpleNamespace(value=None)), LEGACY),  # Numba's default
        (SimpleNamespace(handle=SimpleNamespace(value=96)), 96),
        (SimpleNamespace(__cuda_stream__=lambda: (0, 95), handle=1), 95),
    ],
)
def test_streams_of_all_libraries(stream, number):
    assert handle(stream) == number


@pytest.mark.parametrize("stream", [-1, "x", object(), True, 1.5])
def test_what_is_no_stream_is_refused(stream):
    with pytest.raises(SpecError, match="is no CUDA stream\n  fix: pass a stream of torch"):
        handle(stream)


# --- memory


def test_memory_goes_with_its_last_user_and_after_the_engine(gpu):
    x = rows_of(3)
    address = gpu.array(x)
    session = session_of(gpu)
    kept, events = gpu.left, gpu.events
    array = run(session, ByInterface(address, x.shape))
    capsule = array.__dlpack__(stream=LEGACY)
    assert (gpu.left, gpu.events) == (kept + 1, events + 1)
    session.close()
    assert (gpu.left, gpu.events) == (2, 1)  # x and the answer
    np.testing.assert_array_equal(array.numpy(), answers(x))
    del array
    assert (gpu.left, gpu.events) == (2, 1)
    del capsule
    assert (gpu.left, gpu.events, gpu.depth) == (1, 0, 0)


def test_a_closed_session_takes_nothing(gpu):
    x, session = rows_of(3), session_of(gpu)
    session.close()
    for array in (ByInterface(gpu.array(x), x.shape), ByDlpack(gpu, x, LEGACY)):
        with pytest.raises(SpecError, match="the session is closed"):
            run(session, array)
    assert gpu.left == 2


def test_a_failing_engine_leaves_nothing_at_work(gpu):
    x, mine = rows_of(3), gpu.stream()
    session = session_of(gpu, "execute")
    for stream in (None, mine):
        with pytest.raises(ToolError, match="tensorrt refused to run"):
            run(session, ByInterface(gpu.array(x), x.shape), stream)
        assert gpu._queues[session.stream] == []
    session.close()
    assert (gpu.left, gpu.events, gpu.depth) == (2, 0, 0)


def test_an_engine_takes_and_gives_all_kinds_of_arrays(gpu):
    torch, x = pytest.importorskip("torch"), rows_of(7)
    session = session_of(gpu)
    told = SimpleNamespace(
        model="net", precision="fp32", inputs=session.inputs, outputs=session.outputs, preprocess=None
    )
    compiled = SimpleNamespace(backend="tensorrt", batch=session.batch)
    with Engine(told, (), compiled, session) as engine:
        stream = gpu.stream()
        there = engine.run(ByInterface(gpu.array(x), x.shape), stream=stream)["logits"]
        assert (type(there), there.stream) == (DeviceArray, stream)
        for here in (x, torch.from_numpy(x)):
            np.testing.assert_array_equal(engine.run(here)["logits"], answers(x))
    np.testing.assert_array_equal(there.numpy(), answers(x))
    with pytest.raises(SpecError, match="the engine is closed"):
        engine.run(ByInterface(gpu.array(x), x.shape))


# --- refusals


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (ByInterface(256, (3, *ROW), "<f8"), "is float64, not float32\n  fix: convert it on the GPU: 'input' float32"),
        (ByInterface(256, (3, *ROW), ">f4"), "is >f4, not float32"),
        (ByInterface(256, (3, 3, 2)), r"has shape \(3, 3, 2\)\n  fix: feed 'input' float32 \(N, 3, 2, 2\)"),
        (ByInterface(256, ROW), "has shape"),
        (ByInterface(256, ()), "has shape"),
        (ByInterface(0, (0, *ROW)), "is a batch of 0"),
        (
            ByInterface(256, (3, *ROW), strides=(48, 4, 24, 12)),
            r"row by row in memory\n  fix: x\.contiguous\(\) in torch",
        ),
        (ByInterface(256, (3, *ROW), stream=0), "names as its stream 0, which is none"),
        (ByInterface(256, (3, *ROW), mask=1), "has a mask"),
        (ByInterface(512, (3, *ROW)), "belongs to another CUDA context\n  fix: import pycuda.autoprimaryctx"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(gpu, array, words):
    gpu.strangers[512] = "belongs to another CUDA context", "import pycuda.autoprimaryctx"
    with session_of(gpu) as session, pytest.raises(SpecError, match=words):
        run(session, array)


@pytest.mark.parametrize("strides", [(48, 16, 8, 4), None, (7, 16, 8, 4)])
def test_an_axis_of_one_may_have_any_stride(gpu, strides):
    x = rows_of(1)
    with session_of(gpu) as session:
        got = run(session, ByInterface(gpu.array(x), x.shape, strides=strides))
        np.testing.assert_array_equal(got.numpy(), answers(x))


def test_an_array_of_another_gpu_is_refused_before_its_library_is_asked(gpu):
    array = ByDlpack(gpu, rows_of(3), LEGACY, device=(2, 1))
    with session_of(gpu) as session:
        with pytest.raises(SpecError, match="lies on GPU 1, and the engine on GPU 0\n  fix: copy it, or load with dev"):
            run(session, array)
        array.device = (2, 0)
        np.testing.assert_array_equal(run(session, array).numpy(), answers(array.values))
    assert len(array.asked) == 1


def test_a_library_that_does_not_share_says_why(gpu):
    def refuse(**how):
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")

    array = SimpleNamespace(__dlpack__=refuse, __dlpack_device__=lambda: (2, 0))
    with session_of(gpu) as session, pytest.raises(SpecError, match="is not shared: Can't export tensors that require"):
        run(session, array)


def test_an_old_library_knows_no_versions(gpu):
    x = rows_of(2)
    new = ByDlpack(gpu, x, LEGACY)
    old = SimpleNamespace(__dlpack__=lambda *, stream: new.__dlpack__(stream=stream), __dlpack_device__=lambda: (2, 0))
    with session_of(gpu) as session:
        np.testing.assert_array_equal(run(session, old).numpy(), answers(x))
    assert new.asked[0][1] is None


def test_engines_elsewhere_refuse_arrays_on_a_gpu(gpu):
    session = SimpleNamespace(inputs=(SPEC,))
    with pytest.raises(
        SpecError, match=r"is on a GPU, and the engine is not\n  fix: copy it to the host, by \.cpu\(\)"
    ):
        run(session, ByInterface(256, (1, *ROW)))


def test_pycuda_alone_cannot_share(gpu, monkeypatch):
    with session_of(gpu) as session, monkeypatch.context() as patch:
        patch.setattr(session, "_cuda", object.__new__(_cuda.PyCuda))
        with pytest.raises(MissingBackend, match="taken through cuda-python\n  fix: pip install cuda-python"):
            run(session, ByInterface(256, (1, *ROW)))


# --- on the host


def test_arrays_of_the_host_are_told_apart_and_not_copied():
    torch = pytest.importorskip("torch")
    tensor = torch.arange(12, dtype=torch.float32).reshape(1, *ROW)
    assert not is_on_device(tensor, SPEC)
    array = host_array(tensor, SPEC)
    assert array.ctypes.data == tensor.data_ptr()
    assert is_on_device(ByInterface(256, ROW), SPEC)
    for kind, there in ((1, False), (2, True), (3, False), (13, True)):
        assert is_on_device(SimpleNamespace(__dlpack_device__=lambda kind=kind: (kind, 0)), SPEC) == there
    with pytest.raises(SpecError, match=r"is not shared: .*requires? grad.*\n  fix: in torch, pass x\.detach\(\)"):
        host_array(tensor.requires_grad_(), SPEC)
    with pytest.raises(SpecError, match="is not shared: Unknown device type meta"):
        is_on_device(torch.zeros(1, device="meta"), SPEC)
    with pytest.raises(SpecError, match="input 'input' is a list"):
        host_array([1], SPEC)
