"""How an engine is asked of TensorRT, on a make-believe module that takes notes; every native no is an error."""

import pytest
from helpers.trt import FakeTensorRT

from dlcv_deploy.backends import _cuda, optional, tensorrt
from dlcv_deploy.errors import MissingBackend, SpecError, ToolError
from dlcv_deploy.isolate import Answer
from dlcv_deploy.types import CompileOptions, Dim

OPTIONS = CompileOptions(batch=Dim(1, 4, 16), workspace_bytes=1 << 20)


@pytest.fixture
def compile_(monkeypatch):
    """Compile with a make-believe TensorRT on a make-believe SM 8.9, in this process."""

    def go(trt, options=OPTIONS, onnx=b"graph"):
        def here(entry, request, files, *, what, timeout_s):
            assert entry == "dlcv_deploy.backends.tensorrt:build"
            return Answer(*tensorrt.build(dict(request), files))

        monkeypatch.setattr(tensorrt, "isolated", here)
        monkeypatch.setattr(optional, "version_of", lambda *_: trt.__version__)
        monkeypatch.setattr(optional, "module", lambda name, extra: trt)
        monkeypatch.setattr(_cuda, "no_gpu", lambda: "")
        monkeypatch.setattr(_cuda, "capability", lambda: 89)
        return tensorrt.compile(onnx, options)

    return go


def test_what_is_asked_for(compile_):
    trt = FakeTensorRT()
    engine = compile_(trt)
    assert (engine.backend, engine.target, engine.version) == ("tensorrt", "SM 8.9", "10.13.0.35")
    assert (dict(engine.files), engine.notes, engine.batch) == (
        {"model.engine": b"engine"},
        ("a warning",),
        Dim(1, 4, 16),
    )
    said = {name: args for name, *args in trt.said}
    assert said.pop("profile")
    assert said == {
        "flags": [2],
        "parse": [b"graph"],
        "memory": ["workspace", 1 << 20],
        "clear": ["tf32"],
        "shape": ["x", [1, 3, 8, 8], [4, 3, 8, 8], [16, 3, 8, 8]],
    }


def test_tensorrt_11_has_no_flag_to_ask_for(compile_):
    trt = FakeTensorRT()
    trt.__version__, trt.NetworkDefinitionCreationFlag = "11.4.0", None
    compile_(trt)
    assert ("flags", 0) in trt.said


def test_a_fixed_batch_needs_no_profile(compile_):
    trt = FakeTensorRT(shape=(4, 3, 8, 8))
    with pytest.raises(SpecError, match="tensor 'x' has a fixed batch of 4; 1 to 16 was asked for"):
        compile_(trt)
    compile_(trt, CompileOptions(batch=Dim(4, 4, 4)))
    assert not [name for name, *_ in trt.said if name in ("profile", "shape")]


def test_the_timing_cache_goes_in_and_comes_back(compile_, tmp_path):
    path = tmp_path / "timing.cache"
    options = CompileOptions(timing_cache=str(path))
    trt = FakeTensorRT()
    assert compile_(trt, options).files == {"model.engine": b"engine", "timing.cache": b"new times"}
    path.write_bytes(b"old times")
    compile_(trt, options)
    assert [args for name, *args in trt.said if name == "cache in"] == [[b""], [b"old times"]]
    assert [args for name, *args in trt.said if name == "cache set"][1] == [("cache", b"old times"), False]
    assert path.read_bytes() == b"old times"  # whoever asked writes it


def test_a_timing_cache_that_cannot_be_read_is_refused(compile_, tmp_path):
    with pytest.raises(SpecError, match=r"the timing cache .* cannot be read: Is a directory"):
        compile_(FakeTensorRT(), CompileOptions(timing_cache=str(tmp_path)))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("builder", "TensorRT gave no builder"),
        ("network", "TensorRT gave no network: it returned None"),
        ("config", "TensorRT gave no builder configuration"),
        ("profile", "TensorRT gave no optimization profile"),
        ("added", "TensorRT refused the batch sizes 1:10:64"),
        ("plan", "TensorRT refused the graph: no tactic for conv1"),
        ("cache", "TensorRT cannot read the timing cache"),
        ("cache set", "TensorRT refused the timing cache\n  fix: delete it"),
        ("cache back", "TensorRT gave no timing cache back"),
        (
            "parse",
            r"TensorRT refused node 'odd' \(Frob\), the graph: INVALID_NODE: no such; in a\.cpp; INVALID_GRAPH: cut",
        ),
    ],
)
def test_every_native_no_is_an_error(compile_, fault, message, tmp_path):
    with pytest.raises(ToolError, match=message) as e:
        compile_(FakeTensorRT(fault), CompileOptions(timing_cache=str(tmp_path / "cache")))
    assert ("CUDA initialization" in e.value.log) == (fault == "builder")


def test_a_network_without_outputs_or_with_strange_types_is_refused(compile_):
    with pytest.raises(ToolError, match="the graph: it has no outputs"):
        compile_(FakeTensorRT(outputs=0))
    with pytest.raises(SpecError, match="tensor 'x' is FP8, which NumPy has not"):
        compile_(FakeTensorRT(dtype="FP8"))


def test_it_compiles_for_its_own_gpu_only(compile_):
    with pytest.raises(SpecError, match=r"the GPU it runs on, SM 89, and not for SM 86, 89\n.*tensorrt_rtx"):
        compile_(FakeTensorRT(), CompileOptions(sm=(86, 89)))
    assert compile_(FakeTensorRT(), CompileOptions(sm=(89,))).target == "SM 8.9"


def test_an_old_tensorrt_is_refused(compile_):
    trt = FakeTensorRT()
    trt.__version__ = "8.6.1"
    with pytest.raises(MissingBackend, match=r"TensorRT 8\.6\.1 is too old\n  fix: pip install 'dlcv-deploy\[gpu\]'"):
        compile_(trt)


def test_what_is_missing_is_told(monkeypatch):
    def broken(name, extra):
        raise MissingBackend("tensorrt cannot be imported: libnvinfer.so.11", fix="x")

    def unnamed():
        raise ToolError("the driver does not name its GPU")

    monkeypatch.setattr(optional, "version_of", lambda module, *_: "11.4" if module == "tensorrt" else "")
    monkeypatch.setattr(optional, "module", broken)
    monkeypatch.setattr(_cuda, "no_gpu", lambda: "no driver")
    ability = tensorrt.ability()
    assert (ability.version, ability.no_compile, ability.no_run) == (
        "11.4",
        "TensorRT compiles on the GPU: no driver",
        "no driver",
    )
    monkeypatch.setattr(_cuda, "no_gpu", lambda: "")
    assert tensorrt.ability().no_compile == "tensorrt cannot be imported: libnvinfer.so.11"
    monkeypatch.setattr(optional, "module", lambda name, extra: None)
    monkeypatch.setattr(_cuda, "capability", unnamed)
    assert tensorrt.ability().no_compile == "the driver does not name its GPU"
    monkeypatch.setattr(_cuda, "capability", lambda: 89)
    ability = tensorrt.ability()
    assert ability.can_compile
    assert ability.device == "SM 8.9"
    assert ability.no_run.startswith("neither cuda-python nor pycuda is installed")
