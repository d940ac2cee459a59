"""The race between TensorRT's own LRN and the plugin: on make-believe engines, whose answers and times are told."""

import contextlib
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper, load_model_from_string, numpy_helper

from dlcv_deploy import backends, race
from dlcv_deploy.backends.session import CheckedSession
from dlcv_deploy.errors import ToolError
from dlcv_deploy.latency.measure import Effort
from dlcv_deploy.latency.values import Latency, Quantile
from dlcv_deploy.plugin import reference
from dlcv_deploy.report.document import Lrn
from dlcv_deploy.spec import BuildSpec
from dlcv_deploy.stages import Stages
from dlcv_deploy.store import Store
from dlcv_deploy.types import (
    Ability,
    CompileOptions,
    Corrections,
    Dim,
    Engine,
    ExportedModel,
    Preprocess,
    TensorSpec,
)

PRE = Preprocess(8, 8, "resize", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
PLUGIN = "lrn+pool"


def row(name, batch, p50_ms):
    return Latency(name, batch, 50, p50_ms, (Quantile(50, p50_ms, p50_ms, p50_ms),), 1.0)


# --- which is faster


@pytest.mark.parametrize(
    ("native", "plugin", "choice"),
    [
        ((2.0, 8.0), (1.0, 7.0), "plugin"),
        ((1.0, 7.0), (2.0, 8.0), "native"),
        ((1.0, 8.0), (1.0, 8.0), "native"),
        ((1.0, 10.0), (1.5, 6.0), "plugin"),  # 1.5 x 0.6 = 0.9: batch sizes count alike, milliseconds do not
        ((1.0, 10.0), (0.6, 18.0), "native"),  # 0.6 x 1.8 = 1.08
    ],
)
def test_the_faster_one_over_both_batch_sizes(native, plugin, choice):
    rows = [row(n, b, t) for n, times in (("native", native), ("plugin", plugin)) for b, t in zip((1, 10), times)]  # noqa: B905
    assert race.faster(rows) == choice


def test_what_one_of_both_could_not_run_does_not_count():
    refused = Latency("plugin", 10, not_run="a batch of 10")
    assert race.faster([row("native", 1, 2.0), row("plugin", 1, 1.0), row("native", 10, 1.0), refused]) == "plugin"
    assert (
        race.faster([row("native", 1, 2.0), Latency("plugin", 1, not_run="x"), row("native", 10, 1.0), refused])
        == "native"
    )
    assert race.faster([]) == "native"


# --- whether they answer alike


def session(answer):
    spec = TensorSpec("x", (3, 8, 8))
    return CheckedSession((spec,), (TensorSpec("y", (4,)),), Dim(1, 1, 10), lambda arrays: [answer(arrays[0])])


def logits(x):
    return np.stack([x[:, 0].sum((1, 2)), x[:, 1].max((1, 2)), x[:, 2].mean((1, 2)), x[:, 0, 0, 0]], axis=1)


def alike(plugin, judge=logits, tolerance=1e-2):
    pixels = np.random.default_rng(0).normal(0, 1, (10, 3, 8, 8)).astype("float32")
    race.check_alike("tensorrt", session(plugin), session(judge), pixels, tolerance)


def test_rounding_is_no_difference():
    alike(logits)
    alike(lambda x: (1 + 0.009) * logits(x))


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        (lambda x: 1.02 * logits(x), "'y' differs by 2 % at batch 1, and 1 % is what"),
        (lambda x: logits(x) if len(x) == 1 else logits(x)[::-1], "at batch 10"),
        (lambda x: np.full_like(logits(x), np.nan), "'y' differs by inf %"),
        (lambda x: np.zeros_like(logits(x)), "'y' differs by 100 %"),
    ],
    ids=["scaled", "batch", "nan", "zero"],
)
def test_a_plugin_that_answers_otherwise_is_refused(plugin, said):
    with pytest.raises(ToolError, match=r"the LRN plugin on tensorrt does not answer like TensorRT's own") as e:
        alike(plugin)
    assert said in e.value.what
    assert "--lrn native" in e.value.fix


def test_infinities_and_zeros_are_alike_where_both_have_them():
    def overflown(x):
        return np.where(np.arange(4) == 2, np.inf, logits(x)).astype("float32")

    alike(overflown, overflown)
    alike(lambda x: 0 * logits(x), lambda x: 0 * logits(x))
    with pytest.raises(ToolError, match="differs by inf %"):
        alike(logits, lambda x: 0 * logits(x))
    with pytest.raises(ToolError, match="differs by inf %"):
        alike(logits, overflown)


def test_both_variants_are_timed_in_turn_at_both_batch_sizes(monkeypatch):
    clock, calls = itertools.count(), []

    def told(name):
        def answer(x):
            calls.append((name, len(x)))
            return logits(x)

        return session(answer)

    def quick(*args, effort, **more):
        assert effort == Effort(limit_s=5.0)
        return latency(*args, effort=Effort(limit_s=0, rounds=2), now=lambda: float(next(clock)), **more)

    latency = race.latency
    monkeypatch.setattr(race, "latency", quick)
    rows = race.times(told("native"), told("plugin"), np.zeros((10, 3, 8, 8), "float32"))
    assert [(r.name, r.batch) for r in rows] == [(n, b) for b in (1, 10) for n in ("native", "plugin")]
    assert {batch for _, batch in calls} == {1, 10}


# --- whether the kernels are right


class Kernels:
    """A backend whose kernels of the plugin give the reference's answers ``off`` times."""

    def __init__(self, off):
        self.off = off

    def compile(self, onnx, options):
        assert (options.plugin, options.timing_cache) == (b"library", "")
        return onnx

    def load(self, onnx):
        model = load_model_from_string(onnx)
        int8 = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
        rng, found = np.random.default_rng(0), {}
        for i, pool in ((1, True), (2, False)):
            x = np.abs(rng.normal(0, 1, (1, 8, 12, 12))).astype("float32")
            y = reference.lrn(reference.quantize(x, 0.05) * np.float64(0.05) if int8 else x, 5, 5e-4, 0.75, 2.0)
            y = reference.max_pool(y, (3, 3), (2, 2), (0, 0, 1, 1)) if pool else y
            y = reference.quantize(y, 0.03) * 0.03 if int8 else y
            found |= {f"conv{i}": x, f"lrn{i}": (y * self.off).astype("float32")}
        return SimpleNamespace(run=lambda feeds: found)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_kernels_are_held_against_float64_before_the_race(monkeypatch, precision):
    def check(off):
        kernels = Kernels(off)
        backend = SimpleNamespace(compile=kernels.compile, load=lambda onnx: contextlib.nullcontext(kernels.load(onnx)))
        monkeypatch.setattr(backends, "get", {"tensorrt": backend}.__getitem__)
        options = CompileOptions(plugin=b"library", timing_cache="timings")
        race.check_computes("tensorrt", precision, options)

    check(1.0)
    with pytest.raises(ToolError, match=r"the LRN plugin on tensorrt is wrong: DlcvLRNMaxPool in .* is off by") as e:
        check(1.2)
    assert "--lrn native" in e.value.fix


# --- the whole


def exported():
    """x (N, 3, 8, 8) -> Conv -> LRN -> MaxPool -> Conv -> y (N, 4, 1, 1)"""
    rng = np.random.default_rng(0)
    w1, w2 = (rng.normal(0, 0.3, shape).astype("float32") for shape in ((4, 3, 3, 3), (4, 4, 3, 3)))
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], "conv1"),
        helper.make_node("LRN", ["c"], ["l"], "lrn", size=5, alpha=0.01, bias=2.0),
        helper.make_node("MaxPool", ["l"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "w2"], ["y"], "conv2"),
    ]
    x, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", *s]) for n, s in (("x", (3, 8, 8)), ("y", (4, 1, 1)))
    )
    held = [numpy_helper.from_array(w, n) for n, w in (("w1", w1), ("w2", w2))]
    graph = helper.make_graph(nodes, "g", [x], [y], held)
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)]).SerializeToString()
    return ExportedModel("net", onnx, (TensorSpec("x", (3, 8, 8)),), (TensorSpec("y", (4, 1, 1)),), "ab" * 32)


class FakeBackend:
    """Its engines hold their graph; ``wrong`` is what the plugin adds to answers, ``slow`` its time over native's."""

    def __init__(self, name, slow, wrong=0.0):
        self.name, self.slow, self.wrong, self.compiled = name, slow, wrong, []

    def ability(self):
        return Ability("10.13", "", "")

    def compile(self, onnx, options):
        ops = [node.op_type for node in load_model_from_string(onnx).graph.node]
        assert bool(options.plugin) == any(op.startswith("Dlcv") for op in ops)
        self.compiled.append((ops, options))
        return Engine(self.name, "SM 8.9", "10.13", {"e": onnx, "of": self.name.encode()}, (), options.batch)

    def load(self, engine):
        plugin = b"Dlcv" in engine.files["e"]
        made = session(lambda x: logits(x) + (self.wrong if plugin else 0))
        made.p50 = self.slow if plugin else 1.0
        return made


@pytest.fixture
def run(monkeypatch, tmp_path):
    """``raced`` with make-believe backends; times are told and not taken."""

    def go(*made, precision="fp32", table=None):
        monkeypatch.setattr(backends, "get", {backend.name: backend for backend in made}.__getitem__)

        def times(native, plugin, pixels, progress):
            assert pixels.shape == (10, 3, 8, 8)
            return tuple(row(n, b, s.p50 * b) for b in (1, 10) for n, s in (("native", native), ("plugin", plugin)))

        def check_computes(name, precision, options):
            assert options.plugin == b"library"
            proved.append((name, precision))

        monkeypatch.setattr(race, "times", times)
        monkeypatch.setattr(race, "check_computes", check_computes)
        spec = BuildSpec("net", precision, lrn="race", targets=tuple(backend.name for backend in made))
        options = {backend.name: CompileOptions() for backend in made}
        stages = Stages(Store(tmp_path), lambda line: None)
        found = race.raced(spec, exported(), table, options, b"library", stages, pre=PRE, progress=None)
        return found, [stage.name for stage in stages.times]

    proved = go.proved = []
    return go


def ops(onnx):
    return [node.op_type for node in load_model_from_string(onnx).graph.node]


def test_each_target_keeps_its_faster_one_and_both_times(run):
    fast, slow, cpu = FakeBackend("tensorrt", 0.5), FakeBackend("tensorrt_rtx", 1.5), FakeBackend("openvino", 9.0)
    found, stages = run(fast, cpu, slow)
    assert [engine.backend for engine in found.engines] == ["tensorrt", "openvino", "tensorrt_rtx"]
    assert [ops(engine.files["e"]) for engine in found.engines] == [
        ["Conv", "DlcvLRNMaxPool", "Conv"],
        ["Conv", "LRN", "MaxPool", "Conv"],
        ["Conv", "LRN", "MaxPool", "Conv"],
    ]
    assert found.lrn == {
        "tensorrt": Lrn(
            "plugin",
            (PLUGIN,),
            (),
            tuple(row(n, b, t * b) for b in (1, 10) for n, t in (("native", 1.0), ("plugin", 0.5))),
        ),
        "tensorrt_rtx": Lrn(
            "native", race=tuple(row(n, b, t * b) for b in (1, 10) for n, t in (("native", 1.0), ("plugin", 1.5)))
        ),
    }
    assert found.lowered.model.onnx == exported().onnx
    assert stages == [
        "lower",
        *("compile tensorrt native", "compile tensorrt plugin", "race tensorrt"),
        *("compile tensorrt_rtx native", "compile tensorrt_rtx plugin", "race tensorrt_rtx"),
        "compile openvino",
    ]
    assert [options.plugin for _, options in fast.compiled] == [b"", b"library"]
    assert run.proved == [("tensorrt", "fp32"), ("tensorrt_rtx", "fp32")]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_wrong_plugin_never_wins_however_fast(run, precision):
    with pytest.raises(ToolError, match="the LRN plugin on tensorrt does not answer like TensorRT's own LRN"):
        run(FakeBackend("tensorrt", 0.01, wrong=5.0), precision=precision)


TABLE = SimpleNamespace(amax={"x": 4.0, "c": 5.0, "l": 3.0, "p": 3.0, "y": 4.0}, corrections=Corrections())


@pytest.mark.parametrize(("slow", "choice"), [(0.5, "plugin"), (1.5, "native")])
def test_in_int8_each_runs_on_the_graph_that_suits_it_and_the_winners_is_the_bundles(run, slow, choice):
    backend = FakeBackend("tensorrt", slow)
    found, stages = run(backend, FakeBackend("openvino", 1), precision="int8", table=TABLE)
    native, judge, plugin = (ops for ops, _ in backend.compiled)
    at = native.index("LRN")
    assert native[at - 2 : at] == ["Conv", "Cast"]  # no pair before it, and float32 for LRN
    at = judge.index("LRN")
    assert judge[at - 2 : at] == ["QuantizeLinear", "DequantizeLinear"]
    at = plugin.index("DlcvLRNMaxPool")
    assert (plugin[at - 1], plugin[at + 1]) == ("QuantizeLinear", "DequantizeLinear")
    kept = judge if choice == "plugin" else native
    portable = ops(found.lowered.model.onnx)
    assert portable == ops(found.engines[1].files["e"]) == [op for op in kept if op != "Cast"]
    assert found.graphs["openvino"] == found.lowered.model.onnx
    assert found.graphs["tensorrt"] == found.engines[0].files["e"]
    note = "what is not in INT8 is in FP16"
    wide = "" if choice == "plugin" else ", but for LRN lrn in FP32"
    assert (found.engines[0].notes, found.engines[1].notes) == ((note + wide,), ())
    assert found.lowered.model.precision == "int8"
    assert found.lrn["tensorrt"].choice == choice
    assert ("DlcvLRNMaxPool" in ops(found.engines[0].files["e"])) == (choice == "plugin")
    assert [stage for stage in stages if stage.startswith("compile tensorrt")] == [
        f"compile tensorrt {what}" for what in ("native", "judge", "plugin")
    ]


def test_in_int8_the_judge_has_the_plugins_graph(run, monkeypatch):
    """What the native engine answers on its own graph, without the pairs, is no judgement of the plugin."""
    backend = FakeBackend("tensorrt", 0.5)
    load, natives = backend.load, []

    def other(engine):
        graph = ops(engine.files["e"])
        if "LRN" not in graph or graph[graph.index("LRN") - 1] != "Cast":
            return load(engine)
        natives.append(session(lambda x: 3 * logits(x)))
        natives[-1].p50 = 1.0
        return natives[-1]

    monkeypatch.setattr(backend, "load", other)
    found, _ = run(backend, precision="int8", table=TABLE)
    assert found.lrn["tensorrt"].choice == "plugin"
    assert len(natives) == 1


def test_a_race_is_not_run_again(run):
    backend = FakeBackend("tensorrt", 0.5)
    first, _ = run(backend)
    backend.load = None
    assert run(backend)[0] == first
    assert len(backend.compiled) == 2


def test_tolerances_follow_precision():
    assert list(race.ALIKE) == ["fp32", "fp16", "int8"]
    assert all(math.isfinite(v) and 0 < v <= 0.1 for v in race.ALIKE.values())
