"""Calibration streams: every value is counted once, and memory does not grow with the images."""

import tracemalloc

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx.reference import ReferenceEvaluator

from dlcv_deploy.calibration.calibrate import calibrate
from dlcv_deploy.calibration.collect import collect, observed
from dlcv_deploy.calibration.histogram import Histogram
from dlcv_deploy.calibration.samples import drawn, noise
from dlcv_deploy.errors import SpecError, ToolError
from dlcv_deploy.parity.crops import canvas, crops, to_input
from dlcv_deploy.types import ExportedModel, Preprocess, TensorSpec

PRE = Preprocess(8, 12, "resize", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
GRAPH = """
<ir_version: 8, opset_import: ["": 17]>
net (float[n, 3, 8, 8] image) => (float[n, 3] logits)
<float two = {2.0}>
{
    doubled = Mul (image, two)
    rectified = Relu (doubled)
    pooled = GlobalAveragePool (rectified)
    logits = Flatten (pooled)
}
"""


def model():
    data = onnx.parser.parse_model(GRAPH).SerializeToString()
    return ExportedModel(
        "net", data, (TensorSpec("image", (3, 8, 8)),), (TensorSpec("logits", (3,)),), weights_sha256="e" * 64
    )


class Reference:
    """onnx's own evaluator as a session."""

    def __init__(self, data):
        self._run, self.batches = ReferenceEvaluator(data), []
        self.names = [output.name for output in onnx.load_model_from_string(data).graph.output]

    def run(self, feeds):
        self.batches.append(len(feeds["image"]))
        return dict(zip(self.names, self._run.run(None, feeds), strict=True))


def test_inner_tensors_become_outputs_with_their_shapes():
    data = observed(model().onnx, ["image", "doubled", "rectified", "logits"])
    onnx.checker.check_model(data, full_check=True)
    outputs = onnx.load_model_from_string(data).graph.output
    assert [output.name for output in outputs] == ["logits", "doubled", "rectified"]
    for output in outputs[1:]:
        dims = output.type.tensor_type.shape.dim
        assert (dims[0].dim_param, [d.dim_value for d in dims[1:]]) == ("n", [3, 8, 8])


def test_observing_changes_no_value():
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    got = Reference(observed(model().onnx, ["doubled", "rectified"])).run({"image": x})
    assert np.array_equal(got["doubled"], 2 * x)
    assert np.array_equal(got["rectified"], np.maximum(2 * x, 0))
    assert np.array_equal(got["logits"], Reference(model().onnx).run({"image": x})["logits"])


def test_an_unknown_tensor_is_named():
    with pytest.raises(SpecError, match="no tensor 'relu_9'"):
        observed(model().onnx, ["doubled", "relu_9"])


def test_every_value_of_every_batch_is_counted_once():
    rng = np.random.default_rng(1)
    batches = [rng.standard_normal((n, 3, 4, 4)).astype(np.float32) * n for n in (4, 1, 3)]
    seen = []
    found = collect(
        lambda x: {"x": x, "y": np.maximum(x, 0), "unused": x},
        iter(batches),
        ["y", "x"],
        total=8,
        progress=lambda what, total: Spy(seen, what, total),
    )
    values = np.concatenate(batches)
    assert list(found) == ["y", "x"]
    for name, expected in (("x", Histogram.of(values)), ("y", Histogram.of(np.maximum(values, 0)))):
        assert (found[name].top, found[name].amax, found[name].zeros) == (expected.top, expected.amax, expected.zeros)
        assert np.array_equal(found[name].counts, expected.counts)
    assert seen == [("calibrate", 8), 4, 1, 3]


class Spy:
    """Progress that is written down."""

    def __init__(self, seen, what, total):
        self.seen = seen
        seen.append((what, total))

    def __enter__(self):
        return self.seen.append

    def __exit__(self, *error):
        return None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_blamed_on_its_tensor(bad):
    def run(x):
        return {"fine": x, "broken": np.where(x > 0, bad, x)}

    with pytest.raises(ToolError, match="tensor 'broken': a value is NaN or infinite") as e:
        collect(run, [np.ones((1, 3, 2, 2), np.float32)], ["fine", "broken"], total=1)
    assert "weights" in e.value.fix


def test_a_tensor_that_is_not_given_is_named():
    with pytest.raises(ToolError, match="gives no tensor 'y'"):
        collect(lambda x: {"x": x}, [np.ones((1, 3, 2, 2), np.float32)], ["x", "y"], total=1)


def test_no_images_are_refused():
    with pytest.raises(SpecError, match="no images"):
        collect(lambda x: {"x": x}, [], ["x"], total=0)


def peak_bytes(batches):
    """Peak of what collecting allocates, over a stream of batches of 1 MiB with eight tensors of 1 MiB each."""
    x = np.random.default_rng(0).standard_normal((4, 1, 256, 256)).astype(np.float32)
    names = [f"t{i}" for i in range(8)]
    tracemalloc.start()
    stream = (x * i for i in range(batches))
    collect(lambda batch: {name: batch + i for i, name in enumerate(names)}, stream, names, total=batches * 4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_images():
    few, many = peak_bytes(3), peak_bytes(40)
    assert many < few + (1 << 18)
    assert many < 12 << 20  # one batch, the next one, its eight tensors, 64 KiB a histogram


def calibrated(samples, **options):
    tensors = ["image", "doubled", "rectified"]
    session = Reference(observed(model().onnx, tensors))
    return calibrate(model(), "f" * 64, tensors, session, samples, PRE, **options), session


def test_the_table_holds_what_the_images_give_and_where_it_is_from():
    samples = drawn(7, 20, seed=3)
    table, session = calibrated(samples, method="max", batch_images=3)
    x = to_input(np.concatenate([crops(canvas(samples.image(i), PRE), PRE, 1) for i in range(7)]), PRE)
    assert dict(table.amax) == {
        "doubled": float(np.abs(2 * x).max()),
        "image": float(np.abs(x).max()),
        "rectified": float((2 * x).max()),
    }
    assert session.batches == [3, 3, 1]
    assert (table.model, table.weights_sha256, table.graph_sha256) == ("net", "e" * 64, "f" * 64)
    assert (table.method, table.images, table.random, table.preprocess) == ("max", 7, False, PRE)
    assert (table.samples, table.samples_sha256) == ("7 drawn images (not photographs)", samples.sha256())


@pytest.mark.parametrize("method", ["mse", "entropy", "percentile:99"])
def test_batches_do_not_change_a_table(method):
    tables = [calibrated(drawn(6, 16), method=method, batch_images=n)[0] for n in (1, 4, None)]
    assert tables[0] == tables[1] == tables[2]


def test_random_images_are_marked():
    table, _ = calibrated(noise(2, 12))
    assert table.random
    assert table.samples == "2 images of random noise"


def test_a_wrong_method_is_refused_before_any_image_is_read():
    with pytest.raises(SpecError, match="no calibration method 'median'"):
        calibrated(None, method="median")


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(SpecError, match="batches of 0"):
        calibrated(drawn(1, 12), batch_images=0)
