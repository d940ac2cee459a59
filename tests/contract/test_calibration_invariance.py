"""On the runtimes that calibrate: what is measured is the same, bit for bit, whatever the order and the threads."""

import dataclasses as dc

import numpy as np
import pytest
from helpers import models
from onnx import load_model_from_string

from dlcv_deploy import backends
from dlcv_deploy.calibration.calibrate import channel_amax, histograms
from dlcv_deploy.calibration.collect import observed
from dlcv_deploy.calibration.samples import drawn
from dlcv_deploy.graph.qdq import quantizable
from dlcv_deploy.types import CompileOptions, Preprocess

PRE = Preprocess(16, 16, "resize", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
SAMPLES = drawn(7, 16)
ORDERS = ((0, 1, 2, 3, 4, 5, 6), (6, 5, 4, 3, 2, 1, 0), (4, 2, 6, 0, 5, 1, 3))


@dc.dataclass(frozen=True)
class Shuffled:
    order: tuple[int, ...]
    source: str = "shuffled"

    def __len__(self):
        return len(self.order)

    def image(self, i):
        return SAMPLES.image(self.order[i])

    def name(self, i):
        return SAMPLES.name(self.order[i])


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
