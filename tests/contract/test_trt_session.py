"""The session of both TensorRTs on a make-believe GPU, whose memory is the host's: order, sizes, errors, release."""

import ctypes
import dataclasses as dc
import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from dlcv_deploy.backends import _cuda, _cuda_python, _trt_session
from dlcv_deploy.backends.base import Timing
from dlcv_deploy.errors import ArtifactError, MissingBackend, SpecError, ToolError
from dlcv_deploy.types import Ability, Dim, Engine, TensorSpec

cudart = pytest.importorskip("cuda.bindings.runtime")

ENGINE = Engine("tensorrt", "SM 8.9", "10.13", {"model.engine": b"plan"}, (), Dim(1, 2, 4))


class Memory:
    """Blocks by address; ``left`` are those not yet freed."""

    def __init__(self):
        self.left, self.calls, self.refuse = {}, [], None

    def take(self, size):
        block = ctypes.create_string_buffer(size)
        self.left[ctypes.addressof(block)] = block
        return ctypes.addressof(block)


class FakeRuntime:
    """cuda.bindings.runtime, with the calls that need a device played on the host; errors and names are its own."""

    def __init__(self, memory):
        self.memory, self.count, self.clock = memory, itertools.count(1), itertools.count()
        for name in ("cudaMalloc", "cudaMallocHost"):
            setattr(self, name, self.call(name, memory.take))
        for name in ("cudaFree", "cudaFreeHost"):
            setattr(self, name, self.call(name, lambda address: memory.left.pop(int(address)) and None))
        for name in ("cudaStreamCreate", "cudaEventCreate"):
            setattr(self, name, self.call(name, lambda name=name: memory.left.setdefault(k := next(self.count), k)))
        for name in ("cudaStreamDestroy", "cudaEventDestroy"):
            setattr(self, name, self.call(name, lambda handle: memory.left.pop(handle) and None))
        self.cudaMemcpyAsync = self.call("cudaMemcpyAsync", self.copy)
        self.times = {}
        self.cudaEventRecord = self.call("cudaEventRecord", lambda e, s: self.times.update({e: next(self.clock) ** 2}))
        self.cudaEventElapsedTime = self.call("elapsed", lambda a, b: float(self.times[b] - self.times[a]))
        self.cudaStreamSynchronize = self.call("wait", lambda stream: None)
        self.cudaGetDeviceCount = self.call("count", lambda: 1)
        self.recording, self.graphs = None, {}
        self.cudaStreamBeginCapture = self.call("begin", self.begin)
        self.cudaStreamEndCapture = self.call("end", self.end)
        self.cudaGraphInstantiate = self.call("instantiate", lambda graph, flags: self.keep(self.graphs[graph]))
        self.cudaGraphLaunch = self.call(
            "launch", lambda graph, stream: [work() for work in self.graphs[graph]] and None
        )
        for name in ("cudaGraphDestroy", "cudaGraphExecDestroy"):
            setattr(self, name, self.call(name, lambda graph: memory.left.pop(graph) and None))
        self.cudaGetLastError = self.call("last", lambda: None)

    def begin(self, stream, mode):
        assert mode == cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.recording = []

    def end(self, stream):
        recorded, self.recording = self.recording, None
        return self.keep(recorded)

    def keep(self, graph):
        number = next(self.count)
        self.memory.left[number] = number
        self.graphs[number] = graph
        return number

    def __getattr__(self, name):
        return getattr(cudart, name)

    def call(self, name, work):
        def run(*args):
            self.memory.calls.append(name)
            if self.memory.refuse and self.memory.refuse[0] == name:
                self.recording = None
                return (self.memory.refuse[1], None)
            value = work(*args)
            return (cudart.cudaError_t.cudaSuccess,) + (() if value is None else (value,))

        return run

    def copy(self, to, source, size, kind, stream):
        assert kind in (cudart.cudaMemcpyKind.cudaMemcpyHostToDevice, cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost)
        ctypes.memmove(int(to), int(source), size)


class FakeContexts:
    """cuda.bindings.driver, as far as it is used; ``stack`` are the thread's contexts."""

    def __init__(self):
        self.stack = ["the application's"]
        self.cuDeviceGet = lambda index: (0, f"GPU {index}")
        self.cuDevicePrimaryCtxRetain = lambda device: (0, f"primary of {device}")
        self.cuCtxPushCurrent = lambda context: (self.stack.append(context) or 0,)
        self.cuCtxPopCurrent = lambda: (0, self.stack.pop())


def cuda_python(memory):
    return _cuda_python.CudaPython(FakeRuntime(memory), FakeContexts())


def fake_pycuda(memory):
    """pycuda.driver, as far as it is used."""

    class Allocation(int):
        def free(self):
            memory.left.pop(int(self))

    class Handle:
        handle = 99

        def __init__(self):
            self.time = None

        def record(self, stream):
            self.time = next(clock) ** 2

        def time_till(self, other):
            return other.time - self.time

        def synchronize(self):
            memory.calls.append("wait")

    def pagelocked_empty(size, dtype):
        address = memory.take(size)
        owner = SimpleNamespace(free=lambda: memory.left.pop(address))
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        return SimpleArray(array, owner)

    clock = itertools.count()
    stack = []
    context = SimpleNamespace(push=lambda: stack.append(1), pop=stack.pop, detach=lambda: memory.calls.append("detach"))
    driver = ModuleType("pycuda.driver")
    driver.stack = stack
    driver.init = lambda: None
    driver.Device = lambda i: SimpleNamespace(retain_primary_context=lambda: context)
    driver.Device.count = lambda: 1
    driver.mem_alloc = lambda size: Allocation(memory.take(size))
    driver.pagelocked_empty = pagelocked_empty
    driver.Stream = driver.Event = Handle

    def htod(memory_, host, stream):
        ctypes.memmove(int(memory_), host.ctypes.data, host.nbytes)

    def dtoh(host, memory_, stream):
        ctypes.memmove(host.ctypes.data, int(memory_), host.nbytes)

    driver.memcpy_htod_async, driver.memcpy_dtoh_async = htod, dtoh
    return driver


class SimpleArray(np.ndarray):
    """An array whose ``base`` is what pycuda's is: the allocation."""

    def __new__(cls, array, owner):
        made = array.view(cls)
        made.owner = owner
        return made

    def __array_finalize__(self, source):
        self.owner = getattr(source, "owner", None)

    @property
    def base(self):
        return self.owner


class FakeTensorRT:
    """A module whose one engine computes y = 2x + 1 and keeps a count, at given addresses."""

    def __init__(self, runtime=None, **faults):
        self.faults, self.TensorIOMode = faults, SimpleNamespace(INPUT="in", OUTPUT="out")
        self.runtime = runtime
        self.ILogger = type("ILogger", (), {"__init__": lambda self: None})
        self.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda plan: self.engine(logger, plan))

    def engine(self, logger, plan):
        if "plan" in self.faults:
            logger.log(SimpleNamespace(name="ERROR"), "serialization assertion failed")
            return None
        assert plan == b"plan"
        shapes = {"x": (-1, 3), "y": (-1, 3)}
        return SimpleNamespace(
            num_io_tensors=2,
            get_tensor_name=lambda i: "xy"[i],
            get_tensor_mode=lambda name: "in" if name == "x" else "out",
            get_tensor_shape=lambda name: shapes[name],
            get_tensor_dtype=lambda name: SimpleNamespace(name=self.faults.get("dtype", "FLOAT")),
            get_tensor_profile_shape=lambda name, profile: [(1, 3), (2, 3), (4, 3)],
            create_execution_context=lambda: (
                None if "context" in self.faults else FakeContext(self.faults, self.runtime)
            ),
        )


class FakeContext:
    def __init__(self, faults, runtime):
        self.faults, self.runtime, self.address, self.shape = faults, runtime, {}, None

    def set_tensor_address(self, name, address):
        assert isinstance(address, int)
        self.address[name] = address
        return "address" not in self.faults

    def set_input_shape(self, name, shape):
        self.shape = tuple(shape)
        return "shape" not in self.faults

    def get_tensor_shape(self, name):
        return (self.shape[0], -1 if "output" in self.faults else self.shape[1])

    def execute_async_v3(self, stream):
        assert isinstance(stream, int)
        size = int(np.prod(self.shape))
        x, y = (np.ctypeslib.as_array((ctypes.c_float * size).from_address(self.address[n])) for n in "xy")

        def work():
            y[:] = 2 * x + 1
            return True

        if self.runtime is not None and self.runtime.recording is not None:
            self.runtime.recording.append(work)
            return "capture" not in self.faults
        work()
        return "execute" not in self.faults


@pytest.fixture(autouse=True)
def _gpu(monkeypatch):
    monkeypatch.setattr(_trt_session, "capability", lambda device: 89)


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture(params=["cuda-python", "pycuda"])
def cuda(request, memory):
    if request.param == "pycuda":
        return _cuda.PyCuda(fake_pycuda(memory))
    return cuda_python(memory)


def session_of(cuda, engine=ENGINE, **faults):
    trt = FakeTensorRT(getattr(cuda, "_rt", None), **faults)
    return _trt_session.DeviceSession(trt, engine, "model.engine", "10.13", cuda)


def x_of(batch):
    return {"x": np.arange(batch * 3, dtype="float32").reshape(batch, 3)}


def test_it_computes_and_gives_all_memory_back(cuda, memory):
    with session_of(cuda) as session:
        assert session.inputs == (TensorSpec("x", (3,), "float32"),)
        assert session.outputs == (TensorSpec("y", (3,), "float32"),)
        assert session.batch == Dim(1, 2, 4)
        sizes = sorted(len(block) for block in memory.left.values() if hasattr(block, "raw"))
        assert sizes == [4 * 3 * 4] * 4  # host and device, for two tensors, for the largest batch
        kept = session.run(x_of(4))["y"]
        for batch in (1, 2, 4, 3):
            np.testing.assert_array_equal(session.run(x_of(batch))["y"], 2 * x_of(batch)["x"] + 1)
        np.testing.assert_array_equal(kept, 2 * x_of(4)["x"] + 1)
    assert memory.left == {}
    np.testing.assert_array_equal(kept, 2 * x_of(4)["x"] + 1)
    for call in (session.run, session.run_timed):
        with pytest.raises(SpecError, match="the session is closed"):
            call(x_of(1))
    session.close()


def test_timing_is_told_apart(cuda):
    timing = session_of(cuda).run_timed(x_of(2))  # the make-believe clock ticks 0, 1, 4, 9
    assert timing == Timing(1.0, 3.0, 5.0, timing.enqueue_ms)
    assert 0 <= timing.enqueue_ms < 1000


# --- CUDA graphs


def asked_of(memory, session, batch):
    """What a call asks of CUDA to have the engine run; its answer is checked."""
    before = len(memory.calls)
    np.testing.assert_array_equal(session.run(x_of(batch))["y"], 2 * x_of(batch)["x"] + 1)
    return [name for name in memory.calls[before:] if name not in ("cudaMemcpyAsync", "wait")]


CAPTURE = ["begin", "end", "instantiate", "cudaGraphDestroy"]


def test_the_second_call_of_a_batch_size_is_captured_and_later_ones_replay_it(memory):
    with session_of(cuda_python(memory)) as session:
        assert asked_of(memory, session, 2) == []
        assert asked_of(memory, session, 2) == [*CAPTURE, "launch"]
        assert asked_of(memory, session, 2) == ["launch"]
        session.run_timed(x_of(2))
        assert memory.calls.count("launch") == 3
        assert asked_of(memory, session, 3) == ["cudaGraphExecDestroy"]  # other shapes, another graph
        assert asked_of(memory, session, 2) == []
        assert asked_of(memory, session, 2) == [*CAPTURE, "launch"]
        assert session.settings["CUDA graphs"] == "on"
    assert memory.left == {}


def test_graphs_can_be_left_out(memory):
    with session_of(cuda_python(memory), dc.replace(ENGINE, cuda_graphs=False)) as session:
        assert [asked_of(memory, session, 2) for _ in range(3)] == [[], [], []]
        assert session.settings == {
            "CUDA graphs": "off",
            "CUDA streams": "1",
            "host memory": "pinned",
            "CUDA through": "cuda-python",
        }


@pytest.mark.parametrize(
    ("call", "asked", "reason"),
    [
        ("begin", ["begin"], "cudaStreamBeginCapture: cudaErrorStreamCaptureUnsupported"),
        ("end", ["begin", "end", "last"], "cudaStreamEndCapture: cudaErrorStreamCaptureUnsupported"),
        ("instantiate", CAPTURE, "cudaGraphInstantiate: cudaErrorStreamCaptureUnsupported"),
        ("engine", ["begin", "end", "last", "cudaGraphDestroy"], "tensorrt refused to run"),
    ],
)
def test_what_cannot_be_captured_is_enqueued_as_before(memory, call, asked, reason):
    faults = {"capture": True} if call == "engine" else {}
    memory.refuse = (call, cudart.cudaError_t.cudaErrorStreamCaptureUnsupported)
    with session_of(cuda_python(memory), **faults) as session:
        assert asked_of(memory, session, 2) == []
        assert asked_of(memory, session, 2) == asked
        assert asked_of(memory, session, 2) == asked_of(memory, session, 3) == []  # it is not tried again
        assert session.settings["CUDA graphs"].startswith(f"none: {reason}")
    assert memory.left == {}


def test_pycuda_has_no_graphs_and_says_so(memory):
    with session_of(_cuda.PyCuda(fake_pycuda(memory))) as session:
        for _ in range(3):
            asked_of(memory, session, 2)
        assert session.settings["CUDA graphs"] == "none: pycuda has no CUDA graphs"
        assert session.settings["CUDA through"] == "pycuda"


def test_a_runtime_with_graphs_of_its_own_is_left_to_them(memory):
    cuda, made = cuda_python(memory), []

    def context(plan):
        made.append(plan)
        return plan.create_execution_context()

    with _trt_session.DeviceSession(
        FakeTensorRT(cuda._rt), ENGINE, "model.engine", "10.13", cuda, context=context
    ) as session:
        assert [asked_of(memory, session, 2) for _ in range(3)] == [[], [], []]
        assert session.settings["CUDA graphs"] == "on, the runtime's own"
    assert len(made) == 1


@pytest.mark.parametrize(("graphs", "strategy"), [(True, "WHOLE_GRAPH_CAPTURE"), (False, "DISABLED")])
def test_tensorrt_for_rtx_is_asked_for_its_own(monkeypatch, need, graphs, strategy):
    need("tensorrt_rtx")
    import tensorrt_rtx as trt

    from dlcv_deploy.backends import tensorrt_rtx

    asked = {}
    monkeypatch.setattr(_trt_session, "DeviceSession", lambda *args, context: asked.update(context=context))
    monkeypatch.setattr(tensorrt_rtx, "ability", lambda: Ability("1", "", ""))
    monkeypatch.setattr(_cuda, "device", lambda index: None)
    tensorrt_rtx.load(dc.replace(ENGINE, cuda_graphs=graphs))
    how = SimpleNamespace()
    plan = SimpleNamespace(create_runtime_config=lambda: how, create_execution_context=lambda config: config)
    assert asked["context"](plan) is how
    assert how.cuda_graph_strategy == getattr(trt.CudaGraphStrategy, strategy)
    assert hasattr(trt.IRuntimeConfig, "cuda_graph_strategy")
    assert hasattr(trt.ICudaEngine, "create_runtime_config")


def test_calls_from_several_threads_wait_in_turn(memory):
    with session_of(cuda_python(memory)) as session, ThreadPoolExecutor(4) as pool:
        feeds = [{"x": np.full((1 + i % 4, 3), i, "float32")} for i in range(200)]
        for i, got in enumerate(pool.map(session.run, feeds)):
            np.testing.assert_array_equal(got["y"], np.full((1 + i % 4, 3), 2 * i + 1))


def test_feeds_are_checked_by_the_profile(cuda):
    session = session_of(cuda)
    for call in (session.run, session.run_timed):
        with pytest.raises(SpecError, match="a batch of 5; the engine takes 1 to 4"):
            call(x_of(5))


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("plan", ArtifactError, r"cannot be read: serialization assertion failed \(compiled for SM 8\.9, and this GPU"),
        ("context", ToolError, "tensorrt gave no execution context: it returned None"),
        ("address", ToolError, "tensorrt refused the address of 'x'"),
        ("shape", ToolError, r"tensorrt refused the shape \(2, 3\)"),
        ("output", ToolError, r"tensorrt refused a batch of 2: output 'y' would be \[2, None\]"),
        ("execute", ToolError, "tensorrt refused to run"),
    ],
)
def test_every_native_no_is_an_error(cuda, memory, fault, error, message):
    def go():
        with session_of(cuda, **{fault: True}) as session:
            session.run(x_of(2))

    with pytest.raises(error, match=message):
        go()
    assert memory.left == {}


def test_a_dtype_that_numpy_has_not_is_refused(cuda):
    with pytest.raises(SpecError, match="tensor 'x' is BF16, which NumPy has not"):
        session_of(cuda, dtype="BF16")


def test_another_versions_engine_is_refused(cuda):
    engine = Engine("tensorrt", "SM 8.9", "10.8", {"model.engine": b"plan"})
    with pytest.raises(ArtifactError, match=r"compiled by version 10\.8, and 10\.13 is installed\n  fix: build it"):
        session_of(cuda, engine)
    with pytest.raises(ArtifactError, match=r"file model\.engine is empty"):
        session_of(cuda, Engine("tensorrt", "", "10.13", {"model.engine": b""}))


@pytest.mark.parametrize(
    ("call", "code", "error", "message"),
    [
        (
            "cudaMalloc",
            "cudaErrorMemoryAllocation",
            ToolError,
            r"cudaMalloc of 48 bytes: cudaErrorMemoryAllocation: out",
        ),
        (
            "cudaMemcpyAsync",
            "cudaErrorIllegalAddress",
            ToolError,
            "cudaMemcpyAsync: cudaErrorIllegalAddress: an illegal",
        ),
        ("count", "cudaErrorInsufficientDriver", MissingBackend, "cudaErrorInsufficientDriver: CUDA driver version is"),
    ],
)
def test_cuda_errors_are_named(memory, call, code, error, message):
    memory.refuse = (call, getattr(cudart.cudaError_t, code))

    def go():
        session_of(cuda_python(memory)).run(x_of(2))

    with pytest.raises(error, match=message):
        go()


# --- whether there is a GPU


class FakeDriver:
    def __init__(self, init=0, capability=(8, 9)):
        self.init, self.capability = init, dict(zip((75, 76), capability, strict=True))

    def cuInit(self, flags):
        return self.init

    def cuDeviceGet(self, device, index):
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = self.capability[attribute]
        return 0


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (FakeDriver(), ""),
        (FakeDriver(100), "the NVIDIA driver sees no GPU (CUDA_VISIBLE_DEVICES?)"),
        (FakeDriver(803), "the NVIDIA driver does not start (cuInit gave CUDA error 803)"),
    ],
)
def test_the_driver_is_asked(monkeypatch, driver, reason):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    assert _cuda.no_gpu() == reason
    assert _cuda.capability() == 89


def test_no_driver_is_a_reason(monkeypatch):
    def absent(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert _cuda.no_gpu().startswith("no NVIDIA driver (")
    with pytest.raises(MissingBackend, match="no NVIDIA driver"):
        _cuda.device()


def test_cuda_python_comes_first_and_pycuda_next(monkeypatch, memory):
    monkeypatch.setattr(_cuda, "no_gpu", lambda: "")
    modules = {
        "cuda.bindings.runtime": FakeRuntime(memory),
        "cuda.bindings.driver": FakeContexts(),
        "pycuda.driver": fake_pycuda(memory),
    }
    monkeypatch.setattr(_cuda.optional, "module", lambda name, extra: modules[name])
    installed = {"cuda.bindings.runtime", "pycuda"}
    monkeypatch.setattr(_cuda.optional, "version_of", lambda module, *_: "1" if module in installed else "")
    assert isinstance(_cuda.device(), _cuda_python.CudaPython)
    installed.remove("cuda.bindings.runtime")
    assert isinstance(_cuda.device(), _cuda.PyCuda)
    installed.remove("pycuda")
    with pytest.raises(MissingBackend, match=r"neither cuda-python nor pycuda is installed; pip install 'dlcv-deploy"):
        _cuda.device()


def test_nothing_acts_on_import():
    import subprocess

    code = (
        "import ctypes, sys; ctypes.CDLL = None\n"
        "from dlcv_deploy.backends import _cuda, _trt, _trt_session, tensorrt, tensorrt_rtx\n"
        "print([m for m in ('cuda', 'pycuda', 'tensorrt', 'tensorrt_rtx') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
