"""A CPU session may be called from several threads at once, and answers each as if it were alone."""

import dataclasses as dc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import models

from dlcv_deploy import backends
from dlcv_deploy.types import CompileOptions


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_threads_do_not_disturb_one_another(need, name):
    need(name)
    backend = backends.get(name)
    engine = backend.compile(models.net(), CompileOptions(streams=2))
    assert engine.streams == 2
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(60)]
    answers = {}
    for streams in (1, 2, 3):
        with backend.load(dc.replace(engine, streams=streams)) as session:
            answers[streams, "alone"] = [session.run(feed)["y"] for feed in feeds]
            with ThreadPoolExecutor(3) as pool:
                answers[streams, "together"] = [got["y"] for got in pool.map(session.run, feeds)]
    first = answers.pop((1, "alone"))
    assert len({y.tobytes() for y in first}) == 60
    for how, ys in answers.items():
        assert all(np.array_equal(a, b) for a, b in zip(first, ys, strict=True)), how
