"""The audit of what runs in INT8: shares, what counts as a broken promise, and in what words a build is refused."""

import dataclasses as dc

import pytest
from helpers import models
from onnx import load_model_from_string

from dlcv_deploy import audit as module
from dlcv_deploy import backends
from dlcv_deploy.audit import audited, check, judge, keeps_word
from dlcv_deploy.engines import Compiled, Lowered, between, said_of
from dlcv_deploy.errors import SpecError, ToolError
from dlcv_deploy.graph.macs import Product
from dlcv_deploy.report.document import from_json, to_json
from dlcv_deploy.report.int8 import LAYERS_SHOWN, audit_lines, audit_note, audit_rows, layer_rows
from dlcv_deploy.report.markdown import markdown
from dlcv_deploy.report.terminal import WIDTH, table
from dlcv_deploy.spec import BuildSpec
from dlcv_deploy.stages import Stages
from dlcv_deploy.store import Store
from dlcv_deploy.types import Ability, Engine, ExportedModel, LeftAlone, NotInt8, PrecisionAudit


def product(name, count, *, stated=True):
    tensors = ("x_q", f"{name}_q") if stated else ("", "")
    return Product(name, f"layer.{name}", "Conv", count, "float32", *tensors)


FOUR = (product("a", 100), product("b", 800), product("c", 60), product("d", 40, stated=False))


def judged(runs_in, *, reasons=None, floats=()):
    return judge("cpu", FOUR, runs_in, reasons or {}, floats, "its word")


def test_what_runs_in_int8_and_what_does_not():
    found = judged({"a": "float32", "b": "int8", "c": "int8"}, reasons={"d": "its weight is computed at run time"})
    assert found == PrecisionAudit(
        "cpu",
        0.86,
        1.0,
        1000,
        (
            NotInt8("a", "layer.a", "Conv", 100, "float32", "the graph has it in INT8, and cpu dequantizes it"),
            NotInt8("d", "layer.d", "Conv", 40, "unknown", "its weight is computed at run time"),
        ),
        "its word",
    )
    assert judged(dict.fromkeys("abcd", "int8")).not_int8 == ()
    assert judged({}).int8_share == 0
    assert judged(dict.fromkeys("abc", "int8")).not_int8[0].reason == "the graph does not have it in INT8"


def test_what_was_to_stay_in_floating_point_is_no_broken_promise():
    found = judged({"a": "int8", "b": "float16", "c": "int8", "d": "int8"}, floats=("b", "add_3"))
    assert (found.int8_share, found.asked_share) == (pytest.approx(0.2), pytest.approx(0.2))
    assert [(each.node, each.asked, each.reason) for each in found.not_int8] == [
        ("b", True, "it was to stay in floating point")
    ]
    assert keeps_word(found)
    assert not keeps_word(judged({"a": "int8", "c": "int8"}, floats=("b",)))  # 40 of 200


def test_more_in_int8_than_was_asked_for_makes_up_for_nothing():
    found = judged({"b": "int8", "c": "int8", "d": "int8"}, floats=("b",))
    assert (found.int8_share, found.asked_share) == (pytest.approx(0.9), pytest.approx(0.2))
    assert not keeps_word(found)


@pytest.mark.parametrize(("missing", "kept"), [("d", True), ("c", False), ("", True)])
def test_a_twentieth_may_be_missing(missing, kept):
    assert keeps_word(judged({name: "int8" for name in "abcd" if name != missing})) is kept
    edge = judge("cpu", (product("a", 95), product("b", 5)), {"a": "int8"}, {}, (), "")
    assert keeps_word(edge)


def test_a_network_without_products_keeps_its_word():
    assert keeps_word(judge("cpu", (), {}, {}, (), ""))


def test_a_refusal_names_the_layers_the_heaviest_first():
    check([None, judged(dict.fromkeys("abcd", "int8"))], allow_partial=False)
    broken = judged({"a": "float32", "b": "int8"})
    check([broken], allow_partial=True)
    with pytest.raises(ToolError) as e:
        check([broken], allow_partial=False)
    assert e.value.what == (
        "cpu runs 80.0 % of the multiply-adds in INT8, by its word; not in INT8: layer.a (Conv, 10.0 %, float32), "
        "layer.c (Conv, 6.0 %, unknown), layer.d (Conv, 4.0 %, unknown)"
    )
    assert e.value.fix == (
        "leave cpu out (--target openvino runs such graphs in INT8 on CPUs), or --allow-partial to take what runs as "
        "it is, and have it reported"
    )


def test_a_refusal_of_a_mixture_counts_what_was_asked_for_and_is_short():
    many = tuple(product(f"p{i}", 10) for i in range(10))
    found = judge("openvino", many, {}, {}, ("p0",), "its word")
    with pytest.raises(ToolError) as e:
        check([found], allow_partial=False)
    assert "openvino runs 0.0 % of 90.0 % asked of the multiply-adds in INT8" in e.value.what
    assert e.value.what.endswith("p5 (Conv, 10.0 %, unknown) and 4 more")
    assert "p0" not in e.value.what
    assert e.value.fix.startswith("leave openvino out, or --allow-partial")


class Backend:
    EVIDENCE = "counting"
    asked = 0

    def ability(self):
        return Ability("1", "", "")

    def runs_in(self, engine, onnx):
        self.asked += 1
        return {"conv1": "int8", "conv2": "int8"}


ENGINE = Engine("cpu", "CPU", "1", {"e": b"engine"})


def test_an_audit_is_kept_and_made_anew_where_anything_changed(monkeypatch, tmp_path):
    backend = Backend()
    monkeypatch.setattr(backends, "get", lambda name: backend)
    stages = Stages(Store(tmp_path), lambda line: None)
    left = (LeftAlone("fc", "Gemm", "its weight is float32"),)

    def go(engine=ENGINE, left_alone=left, floats=()):
        return audited(engine, models.net_int8(), left_alone, floats, stages)

    first = go()
    assert [(each.node, each.runs_in, each.reason) for each in first.not_int8] == [
        ("fc", "unknown", "its weight is float32")
    ]
    assert first.total_multiply_adds == 8 * 64 * 27 + 8 * 9 * 72 + 40
    assert (go(), backend.asked) == (first, 1)
    assert go(floats=("fc",)).not_int8[0].asked
    go(left_alone=())
    go(dc.replace(ENGINE, files={"e": b"other"}))
    assert backend.asked == 4
    monkeypatch.setattr(module, "measured_on", lambda: ["another processor"])
    go()
    assert backend.asked == 5
    assert stages.times[0].name == "audit cpu"


def test_a_backend_that_cannot_tell_is_not_audited(monkeypatch, tmp_path):
    monkeypatch.setattr(backends, "get", lambda name: object())
    assert audited(ENGINE, b"", (), (), Stages(Store(tmp_path), lambda line: None)) is None


def test_to_allow_less_is_for_int8():
    with pytest.raises(SpecError, match=r"--allow-partial is for INT8, and this build is fp16\n  fix: add --int8"):
        BuildSpec("resnet20", "fp16", allow_partial=True)


def int8_graph():
    proto = load_model_from_string(models.net_int8())
    proto.opset_import[0].version = 18
    return Lowered(ExportedModel("net", proto.SerializeToString(), (), (), "", "int8"), ("conv1", "conv2"))


def test_tensorrt_reads_an_int8_graph_with_fp16_in_between(tmp_path):
    stages = Stages(Store(tmp_path), lambda line: None)
    lowered = int8_graph()
    for _ in ("tensorrt", "tensorrt_rtx"):
        read = between(lowered, stages)
        assert {i.data_type for i in load_model_from_string(read.model.onnx).graph.initializer if i.name == "w3"} == {
            10
        }
    assert [(time.name, time.reused) for time in stages.times] == [("half", False), ("half", True)]
    fp16 = Lowered(dc.replace(lowered.model, precision="fp16"))
    assert between(fp16, stages) is fp16


def test_an_engine_says_in_what_the_rest_is_computed(tmp_path):
    lowered = int8_graph()
    read = dc.replace(lowered, model=dc.replace(lowered.model, onnx=b"half"), left_alone=())
    assert said_of(ENGINE, lowered, lowered).notes == ()
    assert said_of(ENGINE, read, lowered).notes == ("what is not in INT8 is in FP16",)
    left = tuple(LeftAlone(f"lrn_{i}", "LRN", "range") for i in (1, 2))
    both = dc.replace(read, left_alone=left)
    assert said_of(ENGINE, both, lowered).notes == (
        "what is not in INT8 is in FP16, but for LRN lrn_1, LRN lrn_2 in FP32",
    )
    plugged = said_of(dc.replace(ENGINE, notes=("first",)), both, lowered, ("lrn_1+max_pool_1",))
    assert plugged.notes == ("first", "what is not in INT8 is in FP16, but for LRN lrn_2 in FP32")
    assert Compiled(lowered, ()).graphs == {}


def report(*audits):
    from helpers.reports import full

    engines = tuple(dc.replace(full().engines[0], backend=a.engine if a else "mute", audit=a) for a in audits)
    return dc.replace(full(), engines=engines)


MIXED = judged({"a": "int8", "c": "int8", "d": "int8"}, floats=("b",))
WHOLE = judge(
    "gpu", (Product("conv_1", "conv_1", "Conv", 2_500_000, "float16", "q", "w"),), {"conv_1": "int8"}, {}, (), "fiat"
)


def test_both_pages_say_what_really_runs_in_int8():
    found = report(MIXED, WHOLE, None)
    assert audit_rows(found) == (
        ("cpu", "20.00", "20.00", "0.0"),
        ("gpu", "100.00", "100.00", "2.5"),
        ("mute", "-", "-", "-"),
    )
    assert layer_rows(found) == (
        ("cpu", "layer.b (b)", "Conv", "80.00", "unknown", "it was to stay in floating point"),
    )
    assert audit_note(found) == (
        "Of the multiply-adds of convolutions and matrix products, for one image. cpu: by its word; gpu: by fiat."
    )
    page = markdown(found)
    assert "## What really runs in INT8" in page
    assert "| gpu | 100.00 | 100.00 | 2.5 |" in page
    assert "| cpu | layer.b (b) | Conv | 80.00 | unknown | it was to stay in floating point |" in page
    lines = table(found)
    assert "20.0 % of 0.0 M multiply-adds in INT8 (20.0 % were asked for), by its word" in " ".join(lines.split())
    assert "not in INT8: layer.b (unknown, 80.0 %)" in lines
    assert "100.0 % of 2.5 M multiply-adds in INT8, by fiat" in lines
    assert max(map(len, lines.splitlines())) <= WIDTH
    assert from_json(to_json(found)).engines == found.engines
    assert "Every layer runs in INT8." in markdown(report(WHOLE))


def test_a_report_without_audits_says_nothing_of_them():
    assert audit_rows(report(None)) == ()
    assert "really runs" not in markdown(report(None))
    assert audit_lines(report(None).engines[0]) == ()


def test_long_lists_of_layers_are_cut_and_counted():
    many = judge("cpu", tuple(product(f"p{i}", 1) for i in range(LAYERS_SHOWN + 3)), {}, {}, (), "its word")
    found = report(many)
    assert len(layer_rows(found)) == LAYERS_SHOWN
    assert audit_note(found).endswith("cpu: by its word. 3 more layers of cpu are in `report.json`.")
    assert audit_lines(found.engines[0])[1].endswith("layer.p2 (unknown, 4.3 %) and 20 more")
