"""What ``bench`` measures besides: which sessions are loaded how, and what is asked of each."""

import io
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dlcv_deploy import application
from dlcv_deploy.application import Subject, besides, settings, variants
from dlcv_deploy.bench import _joined, bench
from dlcv_deploy.errors import SpecError
from dlcv_deploy.latency.measure import cores
from dlcv_deploy.latency.values import ALSO, ClientRow, Latency, LatencyReport, LoadRow, Ratio
from dlcv_deploy.reference import CHANNELS_LAST, COMPILED, TorchSession
from dlcv_deploy.types import Engine, Preprocess, TensorSpec

torch = pytest.importorskip("torch")
PRE = Preprocess(8, 8, "pad", (0.5,) * 3, (0.25,) * 3)
REPORT = LatencyReport("a machine", 2, ())


class Session:
    """Answers nothing; writes down what it is fed."""

    inputs = (TensorSpec("x", (3, 8, 8)),)

    def __init__(self, **said):
        self.settings, self.fed = said, []

    def run(self, feeds):
        self.fed.append(feeds["x"])
        return {}


@pytest.fixture
def subject(monkeypatch):
    """The original and two engines, one on a GPU that is absent; ``loads`` says how they were loaded."""
    loads = []

    @contextmanager
    def loaded(engines, precision):
        loads.append([(e.backend, e.threads, e.streams, torch.get_num_threads()) for e in engines])
        yield {
            f"{precision} on {e.backend}": Session(name=e.backend) if e.target == "CPU" else "no GPU" for e in engines
        }

    monkeypatch.setattr(application, "loaded", loaded)
    engines = tuple(Engine(name, target, "1", {}) for name, target in (("ort", "CPU"), ("gpu", "SM 8.9")))
    made = Subject(Session(), engines, "fp32", PRE)
    return SimpleNamespace(subject=made, loads=loads)


def test_sessions_share_the_cores_when_several_call(subject):
    before = torch.get_num_threads()
    for asked in ({}, {"threads": 3}, {"streams": 2}):
        with subject.subject.loaded(**asked) as sessions:
            assert list(sessions) == ["PyTorch fp32", "fp32 on ort", "fp32 on gpu"]
    assert subject.loads == [
        [(name, threads, streams, of_torch) for name in ("ort", "gpu")]
        for threads, streams, of_torch in ((0, 1, before), (3, 1, 3), (0, 2, max(1, cores() // 2)))
    ]
    assert torch.get_num_threads() == before


def test_threads_are_swept_on_cpus_alone(subject, monkeypatch):
    seen = []

    def threads(loaded, feed, counts, *, done):
        assert feed["x"].shape == (1, 3, 8, 8)
        for count in counts:
            with loaded(count) as sessions:
                seen.append((count, list(sessions)))
        return ("rows",)

    monkeypatch.setattr(application.sweep, "threads", threads)
    report = besides(REPORT, subject.subject, ("threads",))
    assert report == LatencyReport("a machine", 2, (), thread_sweep=("rows",))
    assert seen[0] == (1, ["PyTorch fp32", "fp32 on ort"])
    assert seen[-1][0] == cores()


@pytest.mark.parametrize("also", [("clients",), ("load",), ("load", "clients")])
def test_load_is_that_of_the_most_that_clients_were_served(subject, monkeypatch, also):
    """Here one client is served most by the original, two by the engine."""
    monkeypatch.setattr(application, "cores", lambda: 2)
    asked, best = [], {"PyTorch fp32": 1, "fp32 on ort": 2}

    def closed(name, call, clients):
        call()
        return ClientRow(name, clients, 1.0, 2.0, 100.0 if clients == best[name] else 90.0)

    def curve(name, call, capacity, workers, *, done):
        asked.append((name, capacity, workers, subject.loads[-1][0][2]))
        return (LoadRow(name, capacity, capacity, 1.0, 2.0, True),)

    monkeypatch.setattr(application.load, "closed", closed)
    monkeypatch.setattr(application.load, "curve", curve)
    report = besides(REPORT, subject.subject, also)
    assert [(row.clients, row.name) for row in report.clients] == [(n, name) for n in (1, 2, 4) for name in best]
    assert [load[0][2] for load in subject.loads[:3]] == [1, 2, 2]  # no more streams than cores
    expected = [("PyTorch fp32", 100.0, 1, 1), ("fp32 on ort", 100.0, 2, 2)] if "load" in also else []
    assert asked == expected
    assert [row.name for row in report.load] == [name for name, *_ in expected]


def test_parts_begin_at_a_files_bytes(subject):
    report = besides(REPORT, subject.subject, ("breakdown",))
    parts = ["decode", "resize and crop", "normalize", "engine", "sum"]
    assert [(p.name, p.part) for p in report.parts] == [(n, p) for n in ("PyTorch fp32", "fp32 on ort") for p in parts]
    assert all(p.p50_ms >= 0 for p in report.parts)
    fed = subject.subject.reference.fed
    assert {x.shape for x in fed} == {(1, 3, 8, 8)}
    assert {x.dtype for x in fed} == {np.dtype("float32")}


@pytest.mark.parametrize(("fit", "kind", "size"), [("pad", "PNG", (8, 8)), ("resize", "JPEG", (512, 512))])
def test_files_are_such_as_the_network_meets(fit, kind, size):
    from PIL import Image

    files = application._files(Preprocess(8, 8, fit, (0.5,) * 3, (0.25,) * 3))
    images = [Image.open(io.BytesIO(file)) for file in files]
    assert {(image.format, image.size) for image in images} == {(kind, size)}
    assert len(set(files)) == 10


def test_settings_are_of_those_that_run():
    assert settings({"a": Session(threads="2"), "b": "no GPU", "c": object()}) == {"a": {"threads": "2"}}


def test_variants_are_sessions_or_reasons(monkeypatch):
    def refuse(*args):
        raise SpecError("torch.compile: no compiler", fix="leave it out")

    monkeypatch.setattr(application, "CompiledSession", refuse)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
    with TorchSession(net, Session.inputs, (TensorSpec("logits", (5,)),)) as reference:
        x = {"x": np.ones((2, 3, 8, 8), np.float32)}
        expected = reference.run(x)["logits"]
        with variants(net, reference, (1,), turned=True, compiled=True) as found:
            assert list(found) == [CHANNELS_LAST, COMPILED]
            assert found[COMPILED] == "torch.compile: no compiler"
            np.testing.assert_allclose(found[CHANNELS_LAST].run(x)["logits"], expected, rtol=1e-5, atol=1e-6)
        with variants(net, reference, (1,), turned=False, compiled=False) as found:
            assert found == {}


def test_a_sweep_joins_the_report_by_batch_size():
    def part(*batches):
        rows, ratios = ((made("a", b) for b in batches) for made in (Latency, lambda n, b: Ratio(n, "b", b, 1, 1, 1)))
        return LatencyReport("m", 1, tuple(rows), tuple(ratios))

    joined = _joined(part(1, 10), part(2, 64))
    assert joined == part(1, 2, 10, 64)


def test_what_cannot_be_measured_is_refused_first():
    with pytest.raises(SpecError, match=r"'speed' cannot be measured\n  fix: name some of batches, compile, threads,"):
        bench(Path("none.dlcv"), also=("load", "speed"))
    assert len(ALSO) == 6
