"""The fake backend has the faults that it is given, and otherwise answers as the graph does."""

import numpy as np
import pytest
from helpers import fake, models

from dlcv_deploy import backends
from dlcv_deploy.errors import ArtifactError, MissingBackend, ToolError
from dlcv_deploy.types import CompileOptions

OPTIONS = CompileOptions(timeout_s=60)
X = {"x": models.images(3)}


def test_without_faults_it_answers_as_the_graph_does(monkeypatch):
    made = fake.install(monkeypatch)
    assert backends.get("fake") is made
    assert backends.names()[0] == "fake"
    assert backends.get("openvino").name == "openvino"
    engine = made.compile(models.net(), OPTIONS)
    with made.load(engine) as session:
        got = session.run(X)["y"]
    np.testing.assert_allclose(got, models.reference(models.net(), X)["y"], rtol=1e-5, atol=1e-5)
    assert (made.compiled, made.loaded, made.ran, made.closed) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("crash", r"Fake crashed \(SIGSEGV\): fake: internal error in layer conv1"),
        ("killed", "SIGKILL: out of memory"),
        ("hang", "still at work after 2 s"),
        ("refuse", r"node 'conv1' \(Conv\)"),
        ("nothing", "ended without a result"),
    ],
)
def test_compiling_fails_as_told(monkeypatch, fault, words):
    made = fake.install(monkeypatch, compile=fault)
    with pytest.raises(ToolError, match=words):
        made.compile(models.net(), CompileOptions(timeout_s=2 if fault == "hang" else 60))
    assert made.compiled == 0


def test_loading_and_running_fail_as_told(monkeypatch):
    engine = fake.Fake().compile(models.net(), OPTIONS)
    truth = fake.Fake().load(engine).run(X)["y"]
    with pytest.raises(ArtifactError, match="its checksum is wrong"):
        fake.Fake(load="damaged").load(engine)
    with pytest.raises(MissingBackend, match="cannot run here: no card"):
        fake.Fake(no_run="no card").load(engine)
    with pytest.raises(MissingBackend, match="cannot compile here: no compiler"):
        fake.Fake(no_compile="no compiler").compile(b"", OPTIONS)
    with pytest.raises(ToolError, match="refused to run"):
        fake.Fake(run="refuse").load(engine).run(X)
    assert np.isnan(fake.Fake(run="nan").load(engine).run(X)["y"]).all()
    flipped = fake.Fake(run="flip").load(engine).run(X)["y"]
    np.testing.assert_array_equal(flipped.argmax(1), (truth.argmax(1) + 1) % 5)
    assert np.abs(fake.Fake(run="noise").load(engine).run(X)["y"] - truth).max() > 0.5
