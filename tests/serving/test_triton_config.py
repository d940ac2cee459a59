"""``config.pbtxt``, parsed as Triton's own protobuf has it."""

import dataclasses as dc

import pytest

pytest.importorskip("tritonclient.grpc")
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from dlcv_deploy.errors import SpecError
from dlcv_deploy.triton.config import Served, config
from dlcv_deploy.types import Dim, TensorSpec

INPUT, OUTPUTS = TensorSpec("x", (3, 8, 8)), (TensorSpec("y", (5,)), TensorSpec("map", (4, 2, 2), "float16"))
PLAN = Served("net", "tensorrt", "gpu", "int8", (INPUT,), OUTPUTS, Dim(1, 10, 64), 64, 2, 0, 250)
ONNX = dc.replace(PLAN, backend="onnxruntime", device="cpu", threads=3)
XML = dc.replace(PLAN, backend="openvino", device="cpu", max_batch=0, threads=3)


def parsed(model):
    return text_format.Parse(config(model, "a comment"), pb.ModelConfig())


def parameters(message):
    return {key: value.string_value for key, value in message.parameters.items()}


def warmed(message):
    return [(w.batch_size, *(tuple(v.dims) for v in w.inputs.values())) for w in message.model_warmup]


def test_a_plan():
    found = parsed(PLAN)
    assert (found.name, found.backend, found.platform) == ("net", "tensorrt", "tensorrt_plan")
    assert found.max_batch_size == 64
    (given,) = found.input
    assert (given.name, given.data_type, list(given.dims)) == ("x", pb.TYPE_FP32, [3, 8, 8])
    assert given.format == pb.ModelInput.FORMAT_NCHW
    assert [(o.name, o.data_type, list(o.dims), o.label_filename) for o in found.output] == [
        ("y", pb.TYPE_FP32, [5], "labels.txt"),
        ("map", pb.TYPE_FP16, [4, 2, 2], ""),
    ]
    assert found.version_policy.latest.num_versions == 1
    (group,) = found.instance_group
    assert (group.count, group.kind) == (2, pb.ModelInstanceGroup.KIND_GPU)
    assert list(found.dynamic_batching.preferred_batch_size) == [10, 64]
    assert found.dynamic_batching.max_queue_delay_microseconds == 250
    assert found.optimization.cuda.graphs
    assert warmed(found) == [(1, (3, 8, 8)), (10, (3, 8, 8))]
    assert all(v.zero_data and v.data_type == pb.TYPE_FP32 for w in found.model_warmup for v in w.inputs.values())
    assert parameters(found) == {}


def test_a_plan_with_a_plugin_records_no_graphs():
    assert not parsed(dc.replace(PLAN, plugin="lib.so")).HasField("optimization")


def test_onnx_on_a_cpu():
    found = parsed(ONNX)
    assert (found.backend, found.platform) == ("onnxruntime", "")
    assert found.instance_group[0].kind == pb.ModelInstanceGroup.KIND_CPU
    assert parameters(found) == {"intra_op_thread_count": "3"}
    assert not found.HasField("optimization")
    assert parameters(parsed(dc.replace(ONNX, threads=0))) == {}


@pytest.mark.parametrize(("precision", "level"), [("fp32", "FP32"), ("fp16", "FP16"), ("int8", "INT8")])
def test_onnx_on_a_gpu_is_for_tensorrt(precision, level):
    found = parsed(dc.replace(ONNX, device="gpu", precision=precision))
    (accelerator,) = found.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert dict(accelerator.parameters) == {
        "precision_mode": level,
        "trt_profile_min_shapes": "x:1x3x8x8",
        "trt_profile_opt_shapes": "x:10x3x8x8",
        "trt_profile_max_shapes": "x:64x3x8x8",
    }


def test_openvino_takes_what_comes():
    found = parsed(XML)
    assert found.max_batch_size == 0
    assert list(found.input[0].dims) == [-1, 3, 8, 8]
    assert found.input[0].format == pb.ModelInput.FORMAT_NONE  # the server refuses one of four axes
    assert list(found.output[1].dims) == [-1, 4, 2, 2]
    assert not found.HasField("dynamic_batching")
    assert parameters(found) == {"NUM_STREAMS": "2", "INFERENCE_NUM_THREADS": "6"}
    assert warmed(found) == [(1, (1, 3, 8, 8)), (1, (10, 3, 8, 8))]  # without batching, a request is of one


def test_openvino_that_forms_batches_pads_them():
    found = parsed(dc.replace(XML, max_batch=8, instances=1, threads=0))
    assert (found.max_batch_size, list(found.input[0].dims)) == (8, [3, 8, 8])
    assert list(found.dynamic_batching.preferred_batch_size) == [8]
    assert parameters(found) == {"NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY", "ENABLE_BATCH_PADDING": "YES"}
    assert warmed(found) == [(1, (3, 8, 8)), (8, (3, 8, 8))]


def test_one_at_a_time():
    for model in (PLAN, ONNX, XML):
        found = parsed(dc.replace(model, max_batch=1))
        assert found.max_batch_size == 1
        assert not found.HasField("dynamic_batching")
        assert "ENABLE_BATCH_PADDING" not in parameters(found)
        assert warmed(found) == [(1, (3, 8, 8))]


def test_bytes_are_channels_last():
    pixels = TensorSpec("pixels", (8, 8, 3), "uint8")
    found = parsed(dc.replace(PLAN, inputs=(pixels,)))
    assert (found.input[0].data_type, found.input[0].format) == (pb.TYPE_UINT8, pb.ModelInput.FORMAT_NHWC)


@pytest.mark.parametrize("name", ['a"b', "a\\b", "ein Bïld", "line\nline", "tab\t", "{}", "#"])
def test_any_name_survives(name):
    found = parsed(dc.replace(PLAN, inputs=(dc.replace(INPUT, name=name),)))
    assert found.input[0].name == name
    assert list(found.model_warmup[0].inputs) == [name]


def test_what_cannot_be_served():
    with pytest.raises(SpecError, match="a batch of 65 was asked for, and the engine takes 64"):
        dc.replace(PLAN, max_batch=65)
    with pytest.raises(SpecError, match="'x' is complex64, which Triton has no name for"):
        config(dc.replace(PLAN, inputs=(dc.replace(INPUT, dtype="complex64"),)), "")
    with pytest.raises(SpecError, match="one instance or more"):
        dc.replace(PLAN, instances=0)
