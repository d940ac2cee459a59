"""The HTML page: whole, escaped, small, alone, and of nothing that was not measured."""

import dataclasses as dc
import math
import re

import pytest
from helpers import reports
from helpers.pages import Page

from dlcv_deploy.latency.values import LatencyReport
from dlcv_deploy.parity.values import ClassCount, Drift, Flip, LayerError, Leg, Loss, ParityReport, Verdict
from dlcv_deploy.report.document import from_json, to_json
from dlcv_deploy.report.html import page, page_of
from dlcv_deploy.report.page.latency import slots_of
from dlcv_deploy.report.page.parity import FLIP_ROWS, FLIPS_SHOWN

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EVIL = """<script>alert("1")</script>'&--><img src=x onerror=alert(1)>"""


def legs(*found, **fields):
    return ParityReport("images", 100, 1, True, 90.0, 99.0, found, **fields)


@pytest.mark.parametrize("report", [reports.full(), reports.bare()], ids=["full", "bare"])
def test_a_page_is_well_formed_and_needs_nothing_else(report):
    text = page(report, classes=NAMES)
    found = Page(text)
    found.check_drawings()
    assert found.declared == ["doctype html"]
    assert text.count("<html") == text.count("<body") == text.count("<h1>") == 1
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<link|<iframe|<base|\bon\w+=", text)
    assert {re.split("[:,]", a["src"])[0] for a in found.all("img")} <= {"data"}
    assert {a["href"][0] for a in found.all("a")} == {"#"}
    policy = next(a["content"] for a in found.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")


def test_the_same_report_gives_the_same_page():
    assert page(reports.full(), classes=NAMES) == page(reports.full(), classes=NAMES)


def test_every_link_leads_to_a_section_and_every_section_has_one():
    found = Page(page(reports.full()))
    assert [a["href"][1:] for a in found.all("a")] == found.sections
    assert len(set(found.sections)) == len(found.sections)


def test_every_plot_has_a_title_a_description_and_a_table():
    text = page(reports.full(), classes=NAMES)
    for drawn in re.findall(r"<svg.*?</svg>", text):
        assert re.match(r'<svg [^>]*role="img"[^>]*><title>[^<]+</title><desc>[^<]+</desc>', drawn)
    for figure in re.findall(r"<figure.*?</figure>", text):
        assert "<details><summary>Table" in figure, figure[:200]
        assert "<table>" in figure


def test_the_first_screen_says_it_all():
    text = page(reports.full()).split("<main>")[0]
    found = Page(text[text.index("<body>") + 6 :])
    for said in (
        "resnet20, INT8",
        "margin 0.5: shown",
        "0.10 points of top-1 lost (95 % -0.05 to 0.25)",
        "12 of 10,000 images",
        "8.1x faster (7.96 to 8.25), batch 1 (not trustworthy)",
        "98.9 % in INT8",
        "Latency is NOT TRUSTWORTHY: the governor is powersave",
        "And 1 more reason: see Latency.",
        "– not run",
        "running needs an NVIDIA GPU",
        "2 images could not be read and were left out",
    ):
        assert said in found.text, said
    assert found.titles == ["The loss beside the margin"]


def test_what_must_not_be_overlooked_stands_before_the_cards():
    text = page(reports.bare())
    for alarm in ("RANDOM WEIGHTS", "RANDOM CALIBRATION", "NOT A NUMBER"):
        assert 0 < text.index(alarm) < text.index('class="cards"')
    assert "✗ not a number" in text


@pytest.mark.parametrize(
    ("outcome", "kind", "sign"), [("shown", "good", "✓"), ("not shown", "warn", "?"), ("shown worse", "bad", "✗")]
)
def test_a_verdict_is_a_word_and_a_sign_besides_a_colour(outcome, kind, sign):
    loss = Loss(1, 0.5, 0.25, 0.75, 3, 2, 0.5)
    leg = Leg("int8", 89.5, losses=(loss,), verdicts=reports.verdicts(outcome)[:1], flips=reports.flips(5))
    text = page_of("x", parity=(legs(leg),))
    assert f'<span class="badge {kind}">{sign} margin 0.5: {outcome}</span>' in text


def test_sections_are_there_where_their_figures_are():
    report = reports.full()
    every = Page(page(report)).sections
    assert every == [
        "parity", "layers", "consistency", "latency", "int8", "engines", "build", "environment", "commands",
    ]  # fmt: skip
    for field, empty, section in (
        ("drift", (), "layers"),
        ("consistency", (), "consistency"),
        ("commands", (), "commands"),
    ):
        assert Page(page(dc.replace(report, **{field: empty}))).sections == [s for s in every if s != section]
    without = dc.replace(report, parity=(), latency=None)
    assert Page(page(without)).text.count("Not measured.") == 2
    fp32 = dc.replace(
        report,
        precision="fp32",
        calibration=None,
        quantization=None,
        engines=tuple(dc.replace(engine, audit=None) for engine in report.engines),
    )
    assert "int8" not in Page(page(fp32)).sections


@pytest.mark.parametrize(
    ("field", "empty", "titles"),
    [
        ("ratios", (), {"Speed beside the original"}),
        ("cold", (), {"Cold start", "Memory of the process"}),
        ("thread_sweep", (), {"Threads"}),
        ("clients", (), {"Clients at once"}),
        ("load", (), {"p99 against arrival rate"}),
        ("parts", (), {"What an application waits for"}),
        ("rows", reports.latency().rows[:3], {
            "Latency at batch 10", "Latency against batch size", "Images a second against batch size",
        }),
    ],
)  # fmt: skip
def test_plots_of_latency_are_there_where_their_figures_are(field, empty, titles):
    latency = reports.latency()
    before = Page(page_of("x", latency=latency)).titles
    after = Page(page_of("x", latency=dc.replace(latency, **{field: empty}))).titles
    assert set(before) - set(after) == titles


def test_plots_of_parity_are_there_where_their_figures_are():
    labelled, bare = Page(page_of("x", parity=(reports.ten(),))), Page(page_of("x", parity=(reports.one(),)))
    assert {"Top-1 accuracy, step by step", "Losses with 95 % intervals"} <= set(labelled.titles)
    assert "Worst classes of int8 on openvino" in labelled.titles
    assert bare.titles == ["Images that changed class"]


def test_what_was_measured_alone_is_a_page_too():
    parity, latency = Page(page_of("a", parity=(reports.ten(),))), Page(page_of("b", latency=reports.latency()))
    assert parity.sections == ["parity"]
    assert latency.sections == ["latency"]
    assert len(parity.with_class("card")) == 4
    assert len(latency.with_class("card")) == 2
    assert Page(page_of("c", latency=LatencyReport("cpu", 2, ()))).titles == []


def test_text_of_users_is_escaped_everywhere():
    flip = Flip(0, EVIL, 1, 1, 2, 0.5, 0.25, reports.PIXEL)
    leg = Leg(
        EVIL, 89.0, flips=(flip,), classes=(ClassCount(1, 10, 9, 8, 1, 0),), losses=(Loss(1, 1, 0, 2, 1, 0, 1.0),)
    )
    odd = dc.replace(
        reports.full(),
        model=EVIL,
        parity=(legs(leg, Leg("other", not_run=EVIL)),),
        warnings=(EVIL,),
        commands=(EVIL,),
        drift=(Drift(EVIL, 1, (LayerError(EVIL, EVIL, EVIL, 10.0, 1.0),), EVIL),),
    )
    text = page(odd, classes=(EVIL,) * 3)
    found = Page(text)
    assert "<script" not in text
    assert "<img src=x" not in text
    assert all(not name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert EVIL in found.text


def test_names_of_files_that_are_no_utf8_are_escapes():
    odd = dc.replace(reports.full(), warnings=("b\udce9.png could not be read\x1b[31m",))
    text = page(odd)
    assert "b\\udce9.png could not be read" in text
    text.encode()


def test_a_layer_that_is_equal_says_so_after_json_too():
    layers = (LayerError("a", "a", "Conv", math.inf, 1.0), LayerError("b", "b", "Conv", 30.0, 0.999))
    report = dc.replace(reports.full(), drift=(Drift("int8 graph", 1, layers),))
    for found in (report, from_json(to_json(report))):
        assert '<td>Conv</td><td class="n">equal</td>' in page(found)


def test_classes_have_their_names_where_these_are_known():
    parity = reports.ten()
    named, numbered = page_of("x", parity=(parity,), classes=NAMES), page_of("x", parity=(parity,))
    assert "<b>airplane</b> → <b>automobile</b>" in named
    assert "<b>class 0</b> → <b>class 1</b>" in numbered
    assert "bird" in named
    assert "<b>class 0</b>" in page_of("x", parity=(parity,), classes=("", "b"))
    leg = Leg("int8", flips=(Flip(0, "a", -1, 1, -1, thumbnail=reports.PIXEL),))
    assert "<b>class 1</b> → <b>NaN</b>" in page_of("x", parity=(legs(leg),))


def large():
    """A thousand classes and five thousand flips, each with a picture of 4 KB, in two engines."""
    name, picture = "val/n{0:08}/ILSVRC2012_val_{0:08}.JPEG", "/9j/" + "A" * 4000
    flips = tuple(Flip(i, name.format(i), i % 1000, i % 1000, (i + 1) % 1000, 0.5, 0.5, picture) for i in range(5000))
    classes = tuple(ClassCount(i, 50, 40, 38, 4, 2) for i in range(1000))
    leg = Leg("int8 on openvino", 76.0, flips=flips, classes=classes, losses=(Loss(1, 0.1, 0, 0.2, 5, 4, 1.0),))
    layers = tuple(LayerError(f"node_{i}", f"layer{i}.conv", "Conv", 30.0, 0.99) for i in range(500))
    found = ParityReport("ImageNet", 50_000, 10, True, 76.1, 93.0, (leg, dc.replace(leg, name="int8 on onnxruntime")))
    return dc.replace(reports.full(), parity=(found,), drift=(Drift("int8 graph", 64, layers),))


def test_a_large_report_is_a_page_of_less_than_three_megabytes():
    text = page(large(), classes=[f"class with a name, number {i}" for i in range(1000)])
    assert len(text.encode()) < 2_500_000
    found = Page(text)
    assert len(found.with_class("flip")) <= 2 * FLIPS_SHOWN
    assert f"Pictured are {FLIPS_SHOWN} of 5,000; listed are the first {FLIP_ROWS} of 5,000" in found.text
    assert "Drawn are 12 of the 1,000 classes that changed." in found.text
    assert "The first 300 of 1,000; all are in report.json." in found.text


def test_thumbnails_say_what_they_are_and_are_not_more_than_a_page_may_hold():
    big = tuple(Flip(i, f"{i}", 0, 0, 1, thumbnail="/9j/" + "A" * 300_000) for i in range(6))
    text = page_of("x", parity=(legs(Leg("int8", flips=big)),))
    assert text.count("data:image/jpeg;base64,/9j/") == 3
    assert text.count("no picture") == 3
    assert f'src="data:image/png;base64,{reports.PIXEL}"' in page_of("x", parity=(reports.ten(),))


def test_figures_that_are_no_numbers_draw_nothing_and_break_nothing():
    nan, inf = math.nan, math.inf
    leg = Leg("int8", nan, nan, (Loss(1, nan, nan, nan, 0, 0, nan), Loss(5, 0.0, -inf, inf, 0, 0, 1.0)), agreement=nan)
    layers = tuple(LayerError(f"n{i}", f"m{i}", "Conv", db, nan) for i, db in enumerate((inf, nan, 30.0, -inf, inf)))
    latency = reports.latency()
    rows = tuple(dc.replace(row, shape=(nan, inf, 0.0), mean_ms=nan, images_per_s=nan) for row in latency.rows)
    ratios = (dc.replace(latency.ratios[0], ratio=nan, low=nan, high=inf),)
    odd = dc.replace(
        reports.full(),
        parity=(legs(leg), ParityReport("none", 0, 1, True, nan, nan, ())),
        drift=(Drift("g", 1, layers, "m1"), Drift("exact", 1, layers[:1]), Drift("empty", 0, ())),
        latency=dc.replace(latency, rows=rows, ratios=ratios),
    )
    found = Page(page(odd))
    found.check_drawings()
    assert "nan" not in found.text.lower().replace("nanoseconds", "").split()


def test_colours_tell_apart_what_is_in_one_plot():
    legs, rows = ("fp32 graph", "int8 graph", "a", "b"), ("PyTorch fp32", "a", "b", "compiled", "channels last")
    found = slots_of(legs, rows)
    assert found["PyTorch fp32"] == "s0"
    assert (found["a"], found["b"]) == ("s1", "s2")
    for names in (legs, rows):
        assert len({found[name] for name in names}) == len(names)


def test_of_many_batch_sizes_three_distributions_are_in_view():
    latency = reports.latency()
    rows = tuple(dc.replace(latency.rows[1], batch=batch) for batch in (1, 2, 4, 8, 16))
    text = page_of("x", latency=dc.replace(latency, rows=rows))
    drawn = [int(n) for n in re.findall(r"<title>Latency at batch (\d+)</title>", text)]
    assert drawn == [1, 2, 16, 4, 8]
    assert "<summary>Distributions at batch 4, 8</summary>" in text


def test_a_card_says_what_it_takes_to_prove_a_margin():
    loss = Loss(1, 0.1, -0.5, 0.7, 3, 2, 1.0)
    short = Verdict("margin 0.5", 1, 0.5, "not shown", True, 0.75, 1234)
    for verdict, said in (
        (short, "The smallest provable loss with so many is 0.75 points; to prove 0.50 takes 1,234."),
        (dc.replace(short, images_needed=0), "The smallest provable loss with so many is 0.75 points."),
        (dc.replace(short, outcome="shown"), "The smallest provable loss with so many is 0.75 points."),
        (dc.replace(short, outcome="shown worse"), "SHOWN TO LOSE MORE than 0.50 points on 100 images."),
    ):
        text = page_of("x", parity=(legs(Leg("int8", 89.9, losses=(loss,), verdicts=(verdict,))),))
        assert f"{said}</p>" in text
