"""Failures provoked in the tools that are installed here: each still says what the table of causes knows it by."""

import sys

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from dlcv_deploy import backends
from dlcv_deploy.backends.blame import cause
from dlcv_deploy.errors import ArtifactError, ToolError
from dlcv_deploy.types import CompileOptions, Dim, Engine

SHAPE = ("N", 3, 8, 8)


def net(op="Relu", opset=17, ir=8, domain="", dtype=TensorProto.FLOAT, shape=SHAPE, inputs=("x",), **held):
    """One node, from x to y; ``held`` are its other inputs."""
    node = helper.make_node(op, [*inputs, *held], ["y"], name="node1", domain=domain)
    values = [helper.make_tensor_value_info(name, dtype, list(shape)) for name in ("x", "y")]
    values[1].type.tensor_type.ClearField("shape")
    graph = helper.make_graph(
        [node], "g", values[:1], values[1:], [numpy_helper.from_array(a, name) for name, a in held.items()]
    )
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def split(model):
    """The same model with its last weights in a file that is not there."""
    tensor = model.graph.initializer[-1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    place = tensor.external_data.add()
    place.key, place.value = "location", "weights.bin"
    return model


def content(model):
    return model.SerializeToString() if hasattr(model, "graph") else model


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


FIXED = net(shape=(2, 3, 8, 8))
CONV = {"w": zeros(3, 3, 1, 1)}
RESHAPE = net("Reshape", shape=("N", "M"), s=np.array([7, 7], np.int64))
HUGE = net("Expand", shape=(1, 3, 8, 8), s=np.array([1 << 40, 3, 8, 8], np.int64))
DOUBLED = net()
DOUBLED.graph.node.append(DOUBLED.graph.node[0])


@pytest.fixture
def ort(need):
    need("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4

    def session(model, **feeds):
        made = onnxruntime.InferenceSession(content(model), options, providers=["CPUExecutionProvider"])
        return made.run(None, feeds) if feeds else made

    return session


@pytest.mark.parametrize(
    ("code", "model", "feeds"),
    [
        ("ort_damaged", b"junk" * 20, {}),
        ("ort_damaged", b"", {}),
        ("ort_no_file", "/nowhere/model.onnx", {}),
        ("ort_ir", net(ir=99), {}),
        ("ort_opset", net(opset=99), {}),
        ("ort_operator", net("Foo"), {}),
        ("ort_operator", net("Foo", domain="my.dom"), {}),
        ("ort_kernel", net(dtype=TensorProto.BFLOAT16), {}),
        ("ort_types", net("Conv", w=zeros(3, 3, 1, 1, dtype=np.int8)), {}),
        ("ort_graph", DOUBLED, {}),
        ("ort_graph", net("Add", inputs=("x", "w")), {}),
        ("ort_weights_missing", split(net("Conv", **CONV)), {}),
        ("ort_shape", FIXED, {"x": zeros(4, 3, 8, 8)}),
        ("ort_rank", FIXED, {"x": zeros(4, 3, 8)}),
        ("ort_dtype", FIXED, {"x": zeros(2, 3, 8, 8, dtype=np.float64)}),
        ("ort_input_missing", FIXED, {"z": zeros(2, 3, 8, 8)}),
        ("ort_reshape", RESHAPE, {"x": zeros(3, 5)}),
        ("ort_memory", HUGE, {"x": zeros(1, 3, 8, 8)}),
    ],
)
def test_onnx_runtime(ort, code, model, feeds):
    with pytest.raises(Exception) as e:  # noqa: PT011 - its classes share no name; the words are what is tested
        ort(model, **feeds)
    assert cause("onnxruntime", str(e.value)).code == code


@pytest.fixture(scope="module")
def core(need):
    need("openvino")
    from dlcv_deploy.backends.openvino import _core

    return _core()


@pytest.fixture(scope="module")
def written(need, core):
    need("openvino")
    engine = backends.get("openvino").compile(net("Conv", **CONV).SerializeToString(), CompileOptions())
    return engine.files["model.xml"], engine.files["model.bin"]


@pytest.mark.parametrize(
    ("code", "model"),
    [
        ("ov_format", b""),
        ("ov_format", b"junk" * 20),
        ("ov_no_file", "/nowhere/model.xml"),
        ("ov_operator", net("Foo").SerializeToString()),
        ("ov_conversion", net("Conv", w=zeros(3, 5, 1, 1)).SerializeToString()),
        ("ov_weights_missing", split(net("Conv", **CONV)).SerializeToString()),
    ],
)
def test_openvino_reading(core, code, model):
    with pytest.raises(RuntimeError) as e:
        core.read_model(model)
    assert cause("openvino", str(e.value)).code == code


@pytest.mark.parametrize(
    ("code", "alter"),
    [
        ("ov_weights", lambda xml, data: (xml, data[:4])),
        ("ov_weights", lambda xml, data: (xml, b"")),
        ("ov_xml", lambda xml, data: (xml[:600], data)),
        ("ov_xml", lambda xml, data: (xml.replace(b'"Convolution"', b'"Konvolution"'), data)),
        ("ov_version", lambda xml, data: (xml.replace(b'version="opset1"', b'version="opset99"'), data)),
        ("ov_format", lambda xml, data: (xml.replace(b'version="11"', b'version="99"'), data)),
    ],
)
def test_openvino_reading_its_own(core, written, code, alter):
    with pytest.raises(RuntimeError) as e:
        core.read_model(*alter(*written))
    assert cause("openvino", str(e.value)).code == code


@pytest.mark.parametrize(
    ("code", "call"),
    [
        ("ov_device", lambda core, model: core.compile_model(model, "FOO")),
        ("ov_property", lambda core, model: core.compile_model(model, "CPU", {"FOO": "1"})),
        ("ov_blob", lambda core, model: core.import_model(b"junk" * 100, "CPU")),
        ("ov_shape", lambda core, model: core.compile_model(model, "CPU")(zeros(4, 3, 8, 8))),
        ("ov_dtype", lambda core, model: tensor(core.compile_model(model, "CPU"), zeros(2, 3, 8, 8, dtype=np.float64))),
    ],
)
def test_openvino_at_work(core, code, call):
    with pytest.raises(RuntimeError) as e:
        call(core, core.read_model(FIXED.SerializeToString()))
    assert cause("openvino", str(e.value)).code == code


def tensor(compiled, array):
    compiled.create_infer_request().set_input_tensor(0, sys.modules["openvino"].Tensor(array))


def test_openvino_without_opencl(core):
    if "GPU" in core.available_devices:
        pytest.skip("OpenCL is here")
    with pytest.raises(RuntimeError) as e:
        core.compile_model(core.read_model(FIXED.SerializeToString()), "GPU")
    assert cause("openvino", str(e.value)).code in ("lib_opencl", "ov_device")


def test_a_session_of_openvino_says_why_a_run_failed(need):
    need("openvino")
    backend = backends.get("openvino")
    onnx = net("Reshape", shape=("N", 5), s=np.array([-1, 7], np.int64)).SerializeToString()
    session = backend.load(backend.compile(onnx, CompileOptions()))
    with pytest.raises(ToolError, match="its batch was written into it as a number") as e:
        session.run({"x": zeros(3, 5)})
    assert e.value.fix == "export the network with a dynamic batch"
    assert "conflicts with the reshape pattern" in e.value.log


# --- TensorRT for RTX


@pytest.fixture
def rtx(need):
    need("tensorrt_rtx")
    return backends.get("tensorrt_rtx")


@pytest.mark.parametrize(
    ("code", "model"),
    [
        ("trt_onnx_damaged", b"junk" * 20),
        ("trt_operator", net("Foo")),
        ("trt_unsupported", net("NonZero")),
        ("trt_types", net("Add", w=zeros(3, 8, 8, dtype=np.float16))),
        ("trt_weights_missing", split(net("Conv", **CONV))),
    ],
)
def test_tensorrt_for_rtx_building(rtx, code, model):
    with pytest.raises(ToolError) as e:
        rtx.compile(content(model), CompileOptions(batch=Dim(1, 2, 4)))
    assert cause("tensorrt_rtx", f"{e.value.what}\n{e.value.log}").code == code


def provoked(work):
    """What TensorRT for RTX logs as errors of some work."""
    trt = pytest.importorskip("tensorrt_rtx")
    from dlcv_deploy.log import NativeLog, tensorrt_logger

    log = NativeLog("tensorrt_rtx")
    logger = tensorrt_logger(trt, log)
    work(trt, logger)
    return log.take_errors()


@pytest.fixture(scope="module")
def plan(need):
    need("tensorrt_rtx")
    return backends.get("tensorrt_rtx").compile(net().SerializeToString(), CompileOptions()).files["model.rtx.engine"]


@pytest.mark.parametrize(
    ("code", "alter"),
    [
        ("trt_no_engine", lambda plan: b"junk" * 1000),
        ("trt_damaged", lambda plan: plan[:5000]),
        ("trt_damaged", lambda plan: b""),
        ("cuda_driver", lambda plan: plan),
    ],
)
def test_tensorrt_for_rtx_loading(rtx, plan, code, alter):
    if code == "cuda_driver" and not rtx.ability().no_run:
        pytest.skip("it runs here")
    said = provoked(lambda trt, logger: trt.Runtime(logger).deserialize_cuda_engine(alter(plan)))
    assert cause("tensorrt_rtx", said).code == code


def unprofiled(trt, logger):
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(net().SerializeToString())
    builder.build_serialized_network(network, builder.create_builder_config())


def without_output(trt, logger):
    builder = trt.Builder(logger)
    builder.build_serialized_network(builder.create_network(0), builder.create_builder_config())


def without_library(trt, logger):
    builder = trt.Builder(logger)  # the registry's errors go to the last logger
    trt.get_plugin_registry().load_library("/nowhere/libfoo.so")
    del builder


@pytest.mark.parametrize(
    ("code", "work"),
    [("trt_no_profile", unprofiled), ("trt_no_output", without_output), ("plugin_library", without_library)],
)
def test_tensorrt_for_rtx_asked_in_vain(rtx, code, work):
    assert cause("tensorrt_rtx", provoked(work)).code == code


def test_tensorrt_for_rtx_has_no_flags_and_no_calibrators(rtx):
    trt = pytest.importorskip("tensorrt_rtx")
    with pytest.raises(AttributeError) as e:
        _ = trt.BuilderFlag.FP16
    assert cause("tensorrt_rtx", str(e.value)).code == "trt_flag"
    with pytest.raises(AttributeError) as e:
        _ = trt.IInt8EntropyCalibrator2
    assert cause("tensorrt_rtx", str(e.value)).code == "trt_calibrator"


# --- any tool


def test_a_damaged_engine_is_told_in_plain_words(need):
    need("onnxruntime")
    with pytest.raises(ArtifactError, match=r"cannot be read: the ONNX file is damaged, or no ONNX file \(") as e:
        backends.get("onnxruntime").load(Engine("onnxruntime", "CPU", "1", {"model.onnx": b"junk" * 20}))
    assert e.value.fix.startswith("copy the bundle again")
