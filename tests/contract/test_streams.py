"""A CPU session may be called from several threads at once, and answers each as if it were alone."""

import dataclasses as dc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import models

from dlcv_deploy import backends
from dlcv_deploy.backends.base import Described
from dlcv_deploy.latency.measure import cores
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


THREADS = {"onnxruntime": "intra_op_num_threads", "openvino": "INFERENCE_NUM_THREADS"}


@pytest.mark.parametrize("name", THREADS)
def test_a_session_uses_as_many_threads_as_it_is_told_and_says_so(need, name):
    need(name)
    backend = backends.get(name)
    engine = backend.compile(models.net(), CompileOptions())
    x = {"x": models.images(3)}
    answers = []
    for threads in range(1, min(2, cores()) + 1):
        with backend.load(dc.replace(engine, threads=threads)) as session:
            assert isinstance(session, Described)
            assert session.settings[THREADS[name]] == str(threads)
            answers.append(session.run(x)["y"])
    np.testing.assert_allclose(answers[-1], answers[0], rtol=1e-6, atol=1e-6)


def test_settings_are_the_runtimes_own_words(need):
    need("openvino", "onnxruntime")
    said = {}
    for name in THREADS:
        backend = backends.get(name)
        with backend.load(backend.compile(models.net(), CompileOptions())) as session:
            said[name] = dict(session.settings)
    assert said["onnxruntime"] == {
        "intra_op_num_threads": "0",
        "inter_op_num_threads": "0",
        "execution_mode": "ORT_SEQUENTIAL",
        "graph_optimization_level": "ORT_ENABLE_ALL",
        "session.intra_op.allow_spinning": "1 (its default)",
        "providers": "CPUExecutionProvider",
    }
    openvino = said["openvino"]
    wanted = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}
    assert openvino.items() >= wanted.items()
    assert openvino.keys() >= {"INFERENCE_NUM_THREADS", "EXECUTION_MODE_HINT", "ENABLE_CPU_PINNING"}
    assert all("<" not in value and "." not in value for value in openvino.values())  # words, no Python objects
