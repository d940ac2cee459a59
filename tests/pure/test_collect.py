"""Calibration streams: every value is counted once, in any order, by any number of threads, in bounded memory."""

import os
import signal
import threading
import time
import tracemalloc

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx.reference import ReferenceEvaluator

from dlcv_deploy.calibration.calibrate import channel_amax, histograms
from dlcv_deploy.calibration.collect import observed, workers_here
from dlcv_deploy.calibration.histogram import Histogram
from dlcv_deploy.calibration.samples import drawn
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

    inputs = (TensorSpec("image", (3, 8, 8)),)

    def __init__(self, data):
        self._run, self.batches = ReferenceEvaluator(data), []
        self.outputs = [TensorSpec(output.name, ()) for output in onnx.load_model_from_string(data).graph.output]

    def run(self, feeds):
        self.batches.append(len(feeds["image"]))
        return dict(zip([spec.name for spec in self.outputs], self._run.run(None, feeds), strict=True))


class Told:
    """A session that answers with what a function makes of the input."""

    inputs = (TensorSpec("image", (3, 8, 8)),)

    def __init__(self, answer, *names):
        self.answer, self.outputs = answer, [TensorSpec(name, ()) for name in names]

    def run(self, feeds):
        return self.answer(feeds["image"])


class Levels:
    """Images of one level each, by number."""

    source, labels, skipped, random = "levels", None, (), False

    def __init__(self, *levels, side=12):
        self.levels, self.side, self.read = levels, side, []

    def __len__(self):
        return len(self.levels)

    def image(self, i):
        self.read.append(i)
        return np.full((self.side, self.side, 3), self.levels[i], np.uint8)

    def name(self, i):
        return f"level[{i}]"


def inputs(samples):
    return to_input(np.concatenate([crops(canvas(samples.image(i), PRE), PRE, 1) for i in range(len(samples))]), PRE)


def assert_same(a, b):
    assert (a.top, a.lowest, a.highest, a.zeros) == (b.top, b.lowest, b.highest, b.zeros)
    assert np.array_equal(a.counts, b.counts)


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


def test_weights_are_not_looked_at_and_stay_as_they_are():
    """What is added stands behind the graph; float weights, the bulk of it, are the same bytes in the same place."""
    proto = onnx.parser.parse_model(GRAPH)
    data = proto.SerializeToString()
    assert observed(data, ["doubled"]).startswith(data)
    assert observed(data, ["image", "logits"]) == data


@pytest.mark.parametrize("workers", [1, 2, 3, 20])
def test_every_value_of_every_image_is_counted_once(workers):
    samples = drawn(9, 16, seed=1)
    session = Told(lambda x: {"y": np.maximum(x, 0), "unused": x}, "y", "unused")
    seen = []
    found = histograms(
        session,
        ["y", "image"],
        samples,
        PRE,
        workers=workers,
        progress=lambda what, total, unit: Spy(seen, what, total, unit),
    )
    x = inputs(samples)
    assert list(found) == ["y", "image"]
    assert_same(found["image"], Histogram.of(x))
    assert_same(found["y"], Histogram.of(np.maximum(x, 0)))
    assert seen == [("calibrate", 9, "images"), *[1] * 9]


class Spy:
    """Progress that is written down."""

    def __init__(self, seen, *what):
        self.seen = seen
        seen.append(what)

    def __enter__(self):
        return self.seen.append

    def __exit__(self, *error):
        return None


def test_images_run_one_at_a_time_on_several_threads():
    session = Reference(observed(model().onnx, ["rectified"]))
    threads = set()

    def progress(what, total, unit):
        return Spy([], what)

    class Noted(Reference):
        def run(self, feeds):
            threads.add(threading.get_ident())
            time.sleep(0.01)
            return super().run(feeds)

    session = Noted(observed(model().onnx, ["rectified"]))
    histograms(session, ["rectified"], drawn(8, 12), PRE, workers=2, progress=progress)
    assert session.batches == [1] * 8
    assert len(threads) == 2
    assert threading.get_ident() not in threads


def test_a_worker_each_core_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr("dlcv_deploy.calibration.collect.cores", lambda: 3)
    assert workers_here() == 3
    monkeypatch.setattr("dlcv_deploy.calibration.collect.cores", lambda: 64)
    assert workers_here() == 8


def test_the_largest_magnitude_of_each_channel_is_exact():
    samples = drawn(5, 16, seed=2)
    session = Told(lambda x: {"y": -3 * x, "flat": x.reshape(1, -1), "dead": np.full((1, 2, 3, 3), -0.0)}, *NAMES)
    x = inputs(samples)
    for workers in (1, 3):
        found = channel_amax(session, ["image", *NAMES], samples, PRE, workers=workers)
        assert list(found) == ["image", *NAMES]
        assert np.array_equal(found["image"], np.abs(x).max((0, 2, 3)))
        assert np.array_equal(found["y"], np.abs(-3 * x).max((0, 2, 3)))
        assert np.array_equal(found["flat"], np.abs(x.reshape(5, -1)).max(0))
        assert found["dead"].tobytes() == np.zeros(2, np.float32).tobytes()
        assert {peaks.dtype for peaks in found.values()} == {np.dtype(np.float32)}


NAMES = ("y", "flat", "dead")


# what is wrong is named


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("measure", [histograms, channel_amax])
def test_nan_is_blamed_on_its_tensor_and_its_image(bad, measure):
    def answer(x):
        return {"fine": x, "broken": np.where(x > 1, bad, x)}

    samples = Levels(0, 10, 255, 20)
    with pytest.raises(ToolError, match=r"tensor 'broken', image level\[2\]: a value is NaN or infinite") as e:
        measure(Told(answer, "fine", "broken"), ["fine", "broken"], samples, PRE)
    assert "weights" in e.value.fix


def test_of_several_images_at_fault_the_first_is_named_and_no_further_one_is_read():
    """The second of them fails while the first one is still at work."""

    def answer(x):
        slow, quick = x.max() > 2, x.max() > 1
        time.sleep(0.2 if slow else 0.02)
        return {"y": np.full_like(x, np.nan if slow or quick else 1)}

    samples = Levels(*[0] * 4, 255, 200, *[0] * 50)
    for _ in range(3):
        samples.read.clear()
        with pytest.raises(ToolError, match=r"image level\[4\]"):
            histograms(Told(answer, "y"), ["y"], samples, PRE, workers=2)
        assert len(samples.read) <= 7
    samples = Levels(*[0] * 4, 200, *[0] * 50)  # the other worker stops, too
    with pytest.raises(ToolError, match=r"image level\[4\]"):
        histograms(Told(answer, "y"), ["y"], samples, PRE, workers=2)
    assert len(samples.read) <= 8


def test_an_image_that_does_not_fit_is_named():
    pad = Preprocess(8, 12, "pad", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    session = Told(lambda x: {"y": x}, "y")
    with pytest.raises(SpecError, match=r"level\[0\]: an image is 9 x 9 pixels, and this network takes 8 x 8") as e:
        histograms(session, ["y"], Levels(1, 2, side=9), pad)
    assert "8 x 8" in e.value.fix
    assert histograms(session, ["y"], Levels(1, side=8), pad)["y"].nonzero


def test_a_tensor_that_is_not_given_is_named_before_any_image_is_read():
    samples = Levels(1)
    with pytest.raises(ToolError, match="gives no tensor 'z'"):
        histograms(Told(lambda x: {"y": x}, "y"), ["image", "y", "z"], samples, PRE)
    assert samples.read == []


def test_no_images_and_no_workers_are_refused():
    session = Told(lambda x: {"y": x}, "y")
    with pytest.raises(SpecError, match="no images"):
        histograms(session, ["y"], Levels(), PRE)
    with pytest.raises(SpecError, match="with 0 workers"):
        histograms(session, ["y"], Levels(1), PRE, workers=0)


def test_ctrl_c_stops_the_workers_at_once():
    def answer(x):
        if len(samples.read) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        return {"y": x}

    samples, before = Levels(*[1] * 500), threading.active_count()
    held = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            histograms(Told(answer, "y"), ["y"], samples, PRE, workers=2)
    finally:
        signal.signal(signal.SIGINT, held)
    assert len(samples.read) < 30
    assert threading.active_count() == before


def peak_bytes(images):
    """Peak of what collecting allocates, over images with eight tensors of 1 MiB each."""
    x = np.random.default_rng(0).standard_normal((1, 1, 512, 512)).astype(np.float32)
    names = [f"t{i}" for i in range(8)]
    session = Told(lambda image: {name: x * image[0, 0, 0, 0] + i for i, name in enumerate(names)}, *names)
    samples = Levels(*range(images))
    tracemalloc.start()
    histograms(session, names, samples, PRE, workers=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_images():
    few, many = peak_bytes(3), peak_bytes(60)
    assert many < few * 1.05
    assert many < 11 << 20  # the eight tensors, 64 KiB a histogram, and what counting takes


def test_one_image_is_enough():
    found = histograms(Told(lambda x: {"y": x}, "y"), ["y"], Levels(200), PRE)["y"]
    assert found.nonzero == 3 * 8 * 8
    assert not found.constant
