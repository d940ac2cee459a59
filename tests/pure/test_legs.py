"""What is held against the original, in which order, and what its answers are kept under."""

import contextlib

import pytest

from dlcv_deploy import proof
from dlcv_deploy.types import Ability, Engine


class Backend:
    def __init__(self, name, no_run=""):
        self.name, self.no_run = name, no_run

    def ability(self):
        return Ability("1", "", self.no_run)

    def compile(self, onnx, options):
        return engine(self.name, onnx)

    def load(self, made):
        return contextlib.nullcontext(f"session of {made.files['file'].decode()}, {made.backend}")


def engine(backend, data):
    return Engine(backend, "CPU", "1", {"file": data})


GRAPHS = {"fp32 graph": b"float", "int8 graph": b"eight"}
ORT, OPENVINO, ABSENT = engine("onnxruntime", b"eight"), engine("openvino", b"own"), engine("tensorrt", b"plan")
FIRST, SECOND = "fp32 graph on onnxruntime", "int8 graph on onnxruntime"


@pytest.fixture
def legs(monkeypatch):
    there = [Backend("onnxruntime"), Backend("openvino"), Backend("tensorrt", "no GPU")]

    def found(engines, graphs=GRAPHS, precision="int8", absent=""):
        there[0].no_run = absent
        monkeypatch.setattr(proof.backends, "get", {b.name: b for b in there}.__getitem__)
        with proof.legs(engines, graphs, precision) as candidates:
            return candidates

    return found


def steps(candidates):
    return [(name, c.previous) for name, c in candidates.items()]


def test_graphs_follow_one_another_and_engines_the_last_graph(legs):
    found = legs([OPENVINO, ABSENT])
    assert steps(found) == [(FIRST, ""), (SECOND, FIRST), ("int8 on openvino", SECOND), ("int8 on tensorrt", SECOND)]
    assert [c.session for c in found.values()] == [
        f"session of float, {ORT.backend}",
        f"session of eight, {ORT.backend}",
        "session of own, openvino",
        "no GPU",
    ]


def test_an_engine_that_is_the_graph_stands_for_it(legs):
    assert steps(legs([OPENVINO, ORT])) == [
        (FIRST, ""),
        ("int8 on openvino", "int8 on onnxruntime"),
        ("int8 on onnxruntime", FIRST),
    ]
    assert steps(legs([ORT, OPENVINO], {"fp32 graph": b"eight"}, "fp32")) == [
        ("fp32 on onnxruntime", ""),
        ("fp32 on openvino", "fp32 on onnxruntime"),
    ]


def test_what_is_not_to_be_had_says_why(legs):
    found = legs([OPENVINO], {**GRAPHS, "fp32 graph": "no exporter"})
    assert [c.session for c in found.values()][:2] == ["no exporter", "session of eight, onnxruntime"]
    assert [c.session for c in legs([OPENVINO], absent="not installed").values()][:2] == ["not installed"] * 2


def test_answers_are_kept_by_what_they_depend_on(legs, monkeypatch):
    one, other = legs([OPENVINO]), legs([engine("openvino", b"another")])
    assert one[FIRST] == other[FIRST]
    assert one["int8 on openvino"].identity != other["int8 on openvino"].identity
    assert len({c.identity for c in (*one.values(), *other.values())}) == 4
    monkeypatch.setattr(proof, "measured_on", lambda: ["another machine"])
    assert not {c.identity for c in legs([OPENVINO]).values()} & {c.identity for c in one.values()}
