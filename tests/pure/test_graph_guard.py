"""The Clip that keeps OpenVINO from moving a quantization through a Concat, and that changes no value."""

import numpy as np
import pytest
from helpers import models

onnx = pytest.importorskip("onnx")

from dlcv_deploy.graph.guard import guard_concat  # noqa: E402


def guarded(data):
    return guard_concat(onnx.load_model_from_string(data))


@pytest.mark.parametrize("after", ["", "Relu"])
def test_a_clip_stands_before_the_quantization_of_a_concat(after):
    new = guarded(models.concat_int8(after))
    onnx.checker.check_model(new, full_check=True)
    (clip,) = (node for node in new.graph.node if node.op_type == "Clip")
    (reader,) = (node for node in new.graph.node if clip.output[0] in node.input)
    assert (clip.input[0], reader.name) == ("k", "kq")


def test_a_clip_stands_on_each_branch_that_has_a_pair_too():
    new = guarded(models.concat_int8(pairs=True))
    onnx.checker.check_model(new, full_check=True)
    (join,) = (node for node in new.graph.node if node.op_type == "Concat")
    given = {node.output[0]: node for node in new.graph.node}
    assert [(given[t].op_type, given[t].input[0]) for t in join.input] == [("Clip", "cf"), ("Clip", "df")]
    assert [given[t].op_type for t in given["k8"].input[:1]] == ["Clip"]


@pytest.mark.parametrize(("after", "pairs"), [("", False), ("Relu", False), ("", True)])
def test_it_changes_no_value(after, pairs):
    """Far beyond the range too, where the lowest level is -128 and not -127."""
    data = models.concat_int8(after, pairs=pairs)
    for scale in (1, 50):
        x = {"x": scale * models.images(4)}
        got, want = (models.reference(m, x)["y"] for m in (guarded(data).SerializeToString(), data))
        np.testing.assert_array_equal(got, want)
        assert after or scale == 1 or want.min() == np.float32(-128) * np.float32(2 / 127)


@pytest.mark.parametrize("zero", [np.uint8(0), np.uint8(128), np.int8(-128)])
def test_what_is_not_symmetric_int8_stays_as_it_is(zero):
    """OpenVINO computes such a Concat right, and wrong where a Clip is before it."""
    model = onnx.load_model_from_string(models.concat_int8())
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(zero), "other"))
    for node in model.graph.node:
        if node.name in ("kq", "kdq"):
            node.input[2] = "other"
    assert guard_concat(model).graph == model.graph


def test_other_graphs_stay_as_they_are():
    for data in (models.net(), models.net_int8()):
        assert guarded(data).graph == onnx.load_model_from_string(data).graph
