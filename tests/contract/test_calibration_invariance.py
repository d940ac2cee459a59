"""On the runtimes that calibrate: what is measured is the same, bit for bit, whatever the order and the threads."""

import dataclasses as dc

import numpy as np
import pytest
from helpers import models
from onnx import load_model_from_string

from dlcv_deploy import backends
from dlcv_deploy.calibration.calibrate import Runtimes, Subject, calibrate, channel_amax, histograms
from dlcv_deploy.calibration.collect import observed
from dlcv_deploy.calibration.recipe import recipe
from dlcv_deploy.calibration.samples import contents, drawn
from dlcv_deploy.graph.qdq import quantizable
from dlcv_deploy.parity.crops import to_input
from dlcv_deploy.types import CompileOptions, Engine, ExportedModel, Preprocess, TensorSpec

PRE = Preprocess(16, 16, "resize", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
SAMPLES = drawn(7, 16)
ORDERS = ((0, 1, 2, 3, 4, 5, 6), (6, 5, 4, 3, 2, 1, 0), (4, 2, 6, 0, 5, 1, 3))


@dc.dataclass(frozen=True)
class Shuffled:
    order: tuple[int, ...]
    source: str = "seven images"
    labels: None = None
    skipped: tuple[str, ...] = ()
    random: bool = False

    def __len__(self):
        return len(self.order)

    def image(self, i):
        return SAMPLES.image(self.order[i])

    def name(self, i):
        return SAMPLES.name(self.order[i])

    def digest_of(self, i):
        return SAMPLES.digest_of(self.order[i])


def network():
    """A fully connected layer of some width, which runtimes compute otherwise for a batch than for one image."""
    return models.model(
        """g (float[N,3,16,16] image) => (float[N,10] logits) {
          [conv] c = Conv<pads=[1,1,1,1]>(image, w1)
          [relu1] r = Relu(c)
          [flat] f = Flatten(r)
          [fc1] h = Gemm<transB=1>(f, w2, b2)
          [relu2] s = Relu(h)
          [fc2] logits = Gemm<transB=1>(s, w3, b3)
        }""",
        w1=models.weights(8, 3, 3, 3),
        w2=models.weights(300, 2048, seed=1),
        b2=models.weights(300, seed=2),
        w3=models.weights(10, 300, seed=3),
        b3=models.weights(10, seed=4),
    )


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_neither_order_nor_threads_change_a_bit(need, name):
    need(name)
    onnx, backend = network(), backends.get(name)
    tensors = [*quantizable(load_model_from_string(onnx)), "logits"]
    assert {"image", "s", "logits"} <= set(tensors)
    engine = backend.compile(observed(onnx, tensors), CompileOptions())
    seen = set()
    for workers in (1, 2, 3):
        with backend.load(dc.replace(engine, streams=workers)) as session:
            for order in ORDERS:
                found = histograms(session, tensors, Shuffled(order), PRE, workers=workers)
                peaks = channel_amax(session, tensors, Shuffled(order), PRE, workers=workers)
                facts = [(h.counts.tobytes(), h.top, h.lowest, h.highest, h.zeros) for h in found.values()]
                seen.add((tuple(facts), tuple(p.tobytes() for p in peaks.values())))
                assert all(np.max(peaks[tensor]) == found[tensor].amax for tensor in tensors)
    assert len(seen) == 1


def loaded(onnx, *, streams=1):
    """A graph on ONNX Runtime, without a child process to prove it first."""
    backend = backends.get("onnxruntime")
    return backend.load(Engine(backend.name, "CPU", "", {backend.FILE: onnx}, streams=streams))


def table(order, workers, how):
    model = ExportedModel(
        "net", network(), (TensorSpec("image", (3, 16, 16)),), (TensorSpec("logits", (10,)),), weights_sha256="e" * 64
    )
    runtimes = Runtimes(loaded, loaded, loaded, {"onnxruntime": "any"})
    return calibrate(Subject(model, "f" * 64, PRE), Shuffled(order), how, runtimes, workers=workers)


@pytest.mark.parametrize(("quality", "method"), [("default", "mse")])
def test_neither_order_nor_workers_change_a_table(need, quality, method):
    need("onnxruntime")
    how = recipe(quality, method)
    texts = {table(order, workers, how).to_json() for order, workers in zip(ORDERS, (1, 2, 3), strict=True)}
    assert len(texts) == 1
    assert table(ORDERS[0][:6], 2, how).to_json() not in texts


def test_the_table_holds_what_the_images_give_and_where_it_is_from(need):
    need("onnxruntime")
    found = table(ORDERS[0], 2, recipe("fast", "max"))
    x = to_input(np.stack([SAMPLES.image(i) for i in range(7)]), PRE)
    seen = found.statistics["image"]
    assert found.amax["image"] == seen.largest == float(np.abs(x).max())
    assert (seen.zeros, seen.nonzero) == (int((x == 0).sum()), int((x != 0).sum()))
    assert found.statistics["s"].zeros > 0
    assert (found.model, found.weights_sha256, found.graph_sha256) == ("net", "e" * 64, "f" * 64)
    assert (found.method, found.images, found.random, found.preprocess) == ("max", 7, False, PRE)
    assert (found.samples, found.samples_sha256) == ("seven images", contents(SAMPLES))
