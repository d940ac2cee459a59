"""What an application gets from an engine: answers to images, and to batches."""

import contextlib
import dataclasses as dc
import io
import json

import numpy as np
import pytest
from helpers import bundles, models
from PIL import Image

from dlcv_deploy import backends
from dlcv_deploy.errors import ArtifactError, DeployError, MissingBackend, SpecError
from dlcv_deploy.parity.crops import canvas, crops, to_input
from dlcv_deploy.runtime import Engine, Prediction
from dlcv_deploy.types import Dim, TensorSpec

PRE, RNG = bundles.PREPROCESS, np.random.default_rng(5)
SOME = [RNG.integers(0, 256, (height, width, 3), np.uint8) for height, width in ((10, 10), (13, 21), (40, 11))]


@pytest.fixture(scope="module")
def engine(cpu_bundle):
    with Engine.load(cpu_bundle) as loaded:
        yield loaded


def probabilities(image, count):
    """The mean softmax over an image's crops, by the reference implementation of the ONNX standard."""
    logits = models.reference(models.net(), {"x": to_input(crops(canvas(image, PRE), PRE, count), PRE)})["y"]
    e = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return (e / e.sum(1, keepdims=True)).mean(0)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_what_an_engine_says_of_itself(engine, cpu_bundle):
    assert (engine.model, engine.precision, engine.labels) == ("net", "fp32", bundles.LABELS)
    assert engine.backend == cpu_bundle.stem
    assert engine.inputs == (TensorSpec("x", (3, 8, 8)),)
    assert engine.outputs == (TensorSpec("y", (5,)),)
    assert engine.batch == bundles.BATCH


@pytest.mark.parametrize("count", [1, 10])
def test_answers_are_the_mean_softmax_of_the_crops(engine, count):
    for image, found in zip(SOME, engine.classify(SOME, crops=count), strict=True):
        expected = probabilities(image, count)
        assert [p.index for p in found] == list(np.argsort(-expected))
        assert [p.label for p in found] == [bundles.LABELS[p.index] for p in found]
        np.testing.assert_allclose([p.probability for p in found], np.sort(expected)[::-1], atol=1e-6)
        assert sum(p.probability for p in found) == pytest.approx(1, abs=1e-12)


def test_every_kind_of_image_is_the_same_image(engine, tmp_path):
    image = SOME[1]
    path = tmp_path / "a photograph.png"
    path.write_bytes(png(image))
    content = path.read_bytes()
    kinds = [path, str(path), content, bytearray(content), memoryview(content), io.BytesIO(content), image]
    kinds += [Image.fromarray(image), Image.open(path), image[::-1][::-1]]
    answers = engine.classify(kinds)
    assert answers == [answers[0]] * len(kinds)
    assert [engine.classify(kind) for kind in (path, content, image, Image.fromarray(image))] == answers[:4]
    assert all(isinstance(p, Prediction) for p in answers[0])
    with path.open("rb") as file:
        assert engine.classify(file) == answers[0]
        assert not file.closed


def test_several_images_are_a_list_array_or_stream(engine):
    square = np.stack([SOME[0]] * 3 + [SOME[0][::-1]] * 20)
    one_by_one = [engine.classify(image) for image in square]
    for several in (square, list(square), iter(square), tuple(square)):
        for found, expected in zip(engine.classify(several), one_by_one, strict=True):
            assert [p.index for p in found] == [p.index for p in expected]
            np.testing.assert_allclose([p.probability for p in found], [p.probability for p in expected], atol=1e-6)
    assert engine.classify([]) == engine.classify(square[:0]) == []
    assert engine.classify([SOME[0]]) == [one_by_one[0]]


def test_top(engine):
    assert len(engine.classify(SOME[0], top=2)) == 2
    assert engine.classify(SOME[0], top=99) == engine.classify(SOME[0], top=5)
    for top in (0, -1):
        with pytest.raises(SpecError, match=rf"the best {top} classes.*\n.*top=1"):
            engine.classify(SOME[0], top=top)


@pytest.mark.parametrize("count", [0, 2, -1])
def test_other_numbers_of_crops_are_refused(engine, count):
    for call in (engine.classify, engine.preprocess):
        with pytest.raises(SpecError, match=rf"cannot cut {count} crops.*\n.*crops=1 .*crops=10"):
            call(SOME[0], crops=count)
    with pytest.raises(SpecError, match="cannot cut"):
        engine.classify([], crops=count)


@pytest.mark.parametrize("count", [1, 10])
def test_preprocessing_is_the_contract(engine, count):
    found = engine.preprocess(SOME[2], crops=count)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, to_input(crops(canvas(SOME[2], PRE), PRE, count), PRE))
    by_hand = engine.run(found)["y"]
    np.testing.assert_allclose(by_hand, models.reference(models.net(), {"x": found})["y"], atol=1e-5)


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 8, 9, 16, 21])
def test_a_batch_of_any_size(engine, rows):
    x = models.images(max(rows, 1))[:rows]
    found = engine.run(x)
    assert found.keys() == {"y"}
    assert found["y"].shape == (rows, 5)
    assert found["y"].dtype == np.float32
    if rows:
        np.testing.assert_allclose(found["y"], models.reference(models.net(), {"x": x})["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 8])
def test_a_batch_below_the_smallest_is_filled_up(compiled, tmp_path, rows):
    path = bundles.bundle(tmp_path / "b.dlcv", compiled("openvino"), batch=Dim(3, 3, 4))
    x = models.images(rows)
    with Engine.load(path) as engine:
        found = engine.run(x)["y"]
    assert found.shape == (rows, 5)
    np.testing.assert_allclose(found, models.reference(models.net(), {"x": x})["y"], rtol=1e-4, atol=1e-5)


def test_outputs_belong_to_the_caller(engine):
    x = models.images(2)
    first = engine.run(x)["y"]
    kept = first.copy()
    engine.run(x + 1)
    np.testing.assert_array_equal(first, kept)
    first[:] = 0  # and may be written
    np.testing.assert_array_equal(engine.run(x)["y"], kept)


@pytest.mark.parametrize("rows", [2, 20])
def test_inputs_in_any_layout(engine, rows):
    x = models.images(rows)
    expected = engine.run(x)["y"]
    turned = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    frozen = x.copy()
    frozen.flags.writeable = False
    for same in (turned, np.repeat(x, 2, 0)[::2], frozen):
        np.testing.assert_array_equal(engine.run(same)["y"], expected)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (np.zeros((2, 3, 8, 8)), r"is float64, not float32\n.*astype"),
        (np.zeros((20, 3, 8, 8), np.uint8), "is uint8, not float32"),
        (np.zeros((3, 8, 8), np.float32), r"shape \(3, 8, 8\)"),
        (np.zeros((20, 8, 8), np.float32), r"has shape \(8, 8, 8\)"),
        (np.float32(1), "is a float32"),
        (np.zeros((), np.float32), r"has shape \(\)"),
        (np.zeros((1, 3, 9, 8), np.float32), r"\(1, 3, 9, 8\)"),
        ([1.0], "is a list"),
        (None, "is a NoneType"),
    ],
)
def test_batches_of_another_kind_are_refused(engine, batch, words):
    with pytest.raises(SpecError, match=words):
        engine.run(batch)


# --- which engine


def test_the_first_that_runs_here_is_taken(both):
    with Engine.load(both) as engine:
        assert engine.backend == "openvino"
    with Engine.load(str(both), backend="onnxruntime") as engine:
        assert engine.backend == "onnxruntime"


def test_an_engine_for_a_gpu_is_passed_over_without_one(compiled, tmp_path, monkeypatch):
    gpu = dc.replace(compiled("openvino"), backend="tensorrt_rtx", target="SM 8.0 and later")
    path = bundles.bundle(tmp_path / "b.dlcv", gpu, compiled("onnxruntime"))
    if backends.get("tensorrt_rtx").ability().no_run:
        with Engine.load(path) as engine:
            assert engine.backend == "onnxruntime"
        with pytest.raises(MissingBackend, match="tensorrt_rtx"):
            Engine.load(path, backend="tensorrt_rtx")


@pytest.mark.parametrize("name", ["tensorrt", "nonsense"])
def test_an_engine_that_the_bundle_lacks(both, name):
    with pytest.raises(SpecError, match=rf"(?s)no engine for .?{name}.*it holds openvino, onnxruntime"):
        Engine.load(both, backend=name)


def test_threads_and_streams_reach_the_backend(both):
    for name, setting, count in (
        ("openvino", "INFERENCE_NUM_THREADS", "1"),
        ("onnxruntime", "intra_op_num_threads", "1"),
    ):
        with Engine.load(both, backend=name, threads=1) as engine:
            assert engine._session.settings[setting] == count
    with Engine.load(both, backend="openvino", streams=2) as engine:
        assert engine._session.settings["NUM_STREAMS"] == "2"


@pytest.mark.parametrize("wrong", [{"threads": -1}, {"streams": 0}, {"device": -1}])
def test_arguments_that_mean_nothing(both, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(SpecError, match=f"{name} is {value}"):
        Engine.load(both, **wrong)


# --- bundles


def test_no_bundle(tmp_path):
    with pytest.raises(ArtifactError, match=r"there is no bundle at .*nowhere"):
        Engine.load(tmp_path / "nowhere.dlcv")
    with pytest.raises(ArtifactError, match=r"is no bundle"):
        Engine.load(tmp_path)


@pytest.mark.parametrize("file", ["openvino/model.bin", "openvino/model.xml", "labels.txt"])
def test_an_altered_file(compiled, tmp_path, file):
    path = bundles.bundle(tmp_path / "b.dlcv", compiled("openvino"))
    data = bytearray((path / file).read_bytes())
    data[len(data) // 2] ^= 1
    (path / file).write_bytes(data)
    with pytest.raises(ArtifactError, match=rf"{file} was altered"):
        Engine.load(path)


OTHERS = {
    "another size": ({"preprocess": dc.replace(PRE, size=9)}, r"cuts images of 9 x 9.*'x' float32 \(N, 3, 8, 8\)"),
    "another input": ({"inputs": (TensorSpec("x", (3, 9, 8)),)}, r"inputs 'x' float32 \(N, 3, 9, 8\), and the engine"),
    "another output": ({"outputs": (TensorSpec("z", (5,)),)}, "outputs 'z' float32"),
    "fewer labels": ({"labels": ("ant", "bee")}, r"2 labels.*'y' float32 \(N, 5\)"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_manifest_of_another_engine(compiled, tmp_path, other):
    """No digest tells that: the manifest is what has them."""
    changes, words = OTHERS[other]
    path = bundles.bundle(tmp_path / "b.dlcv", compiled("openvino"), **changes)
    with pytest.raises(ArtifactError, match=rf"manifest\.json is damaged: .*{words}"):
        Engine.load(path)


def test_a_network_of_several_inputs(compiled, tmp_path):
    two = (TensorSpec("a", (6,)), TensorSpec("b", (4,)))
    outputs = (TensorSpec("y", (4,)), TensorSpec("z", (4,)))
    engine = compiled("onnxruntime", models.two_inputs())
    path = bundles.bundle(tmp_path / "b.dlcv", engine, inputs=two, outputs=outputs)
    with pytest.raises(SpecError, match=r"takes 2 inputs, 'a' float32 \(N, 6\), 'b' float32 \(N, 4\)"):
        Engine.load(path)


def test_outputs_besides_the_logits(compiled, tmp_path):
    outputs = (TensorSpec("y", (5,)), TensorSpec("map", (8, 8, 8)), TensorSpec("features", (8,)))
    path = bundles.bundle(tmp_path / "b.dlcv", compiled("openvino", models.returning()), outputs=outputs)
    x = models.images(19)
    with Engine.load(path) as engine:
        found = engine.run(x)
        assert engine.classify(SOME[0])[0].index == int(np.argmax(probabilities(SOME[0], 1)))
    assert {name: array.shape for name, array in found.items()} == {
        "y": (19, 5),
        "map": (19, 8, 8, 8),
        "features": (19, 8),
    }
    for name, expected in models.reference(models.returning(), {"x": x}).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5)


def test_every_failure_is_of_the_five(tmp_path, compiled):
    """Any field of the manifest may be anything."""
    path = bundles.bundle(tmp_path / "b.dlcv", compiled("openvino"))
    document = json.loads((path / "manifest.json").read_text())
    for field in document:
        for value in (None, -1, "x", [], {}, [[1]], {"openvino": {}}, 10**30):
            (path / "manifest.json").write_text(json.dumps({**document, field: value}))
            with contextlib.ExitStack() as stack:
                stack.enter_context(contextlib.suppress(DeployError))
                stack.enter_context(Engine.load(path)).classify(SOME[0])


def test_an_application_may_take_the_steps_itself(both):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 12, 10, 3), dtype=np.uint8)
    with Engine.load(both) as engine:
        rows = np.concatenate([engine.preprocess(image, crops=10) for image in images])
        logits = engine.run(rows)[engine.outputs[0].name]
        assert engine.predictions(logits, top=2, crops=10) == engine.classify(images, top=2, crops=10)
        with pytest.raises(SpecError, match=r"shape \(29, 5\)"):
            engine.predictions(logits[:29], crops=10)
        with pytest.raises(SpecError, match="none"):
            engine.predictions(logits, top=0)


def test_an_engine_says_what_it_is(both):
    with Engine.load(both, backend="onnxruntime") as engine:
        assert repr(engine) == "Engine(net, fp32, onnxruntime, 5 classes)"
    assert repr(engine).endswith("5 classes, closed)")
