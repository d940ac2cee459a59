"""What the plots of the page draw, read back from their axes."""

import dataclasses as dc
import html
import re

import pytest
from helpers import reports

from dlcv_deploy.report.html import page, page_of


class Drawing:
    """A plot by its title; ``at`` turns a place across into a figure, by two ticks of a linear axis."""

    def __init__(self, text, title):
        self.svg = next(
            svg for svg in re.findall(r"<svg.*?</svg>", text) if f"<title>{html.escape(title)}</title>" in svg
        )
        ticks = re.findall(r'<text x="([\d.]+)" y="[\d.]+" class="tick(?: mid| end)?">([\d.,-]+)</text>', self.svg)
        rows = re.findall(r'<line x1="([\d.]+)" x2="\1" y1="[\d.]+" y2="[\d.]+" class="grid">', self.svg)
        self.ticks = [(float(x), float(said.replace(",", ""))) for x, said in ticks if x in rows]

    def at(self, place):
        (a, low), (b, high) = self.ticks[0], self.ticks[-1]
        return low + (float(place) - a) / (b - a) * (high - low)

    def bars(self, slot):
        found = re.findall(
            rf'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="1\d" class="{slot} bar">', self.svg
        )
        return [(self.at(x), self.at(float(x) + float(width))) for x, _, width in found]

    def whiskers(self):
        return [tuple(map(self.at, ends)) for ends in re.findall(r'd="M([\d.]+) [\d.]+H([\d.]+)M', self.svg)]

    def dots(self, slot="s1"):
        return [self.at(x) for x in re.findall(rf'<circle cx="([\d.]+)"[^>]*class="{slot}">', self.svg)]

    def said(self):
        return re.findall(r"<text[^>]*>([^<]+)</text>", self.svg)


def spans(*pairs):
    return [pytest.approx(pair, abs=0.01 * max(1, *map(abs, pair))) for pair in pairs]


def test_the_waterfall_goes_from_step_to_step():
    drawn = Drawing(page_of("x", parity=(reports.ten(),)), "Top-1 accuracy, step by step")
    assert drawn.bars("bad") == [pytest.approx((91.21, 91.3), abs=1e-3), pytest.approx((91.2, 91.21), abs=1e-3)]
    assert drawn.bars("good") == []
    assert {"91.21 %, -0.09", "91.20 %, -0.01", "91.30 %"} <= set(drawn.said())


def test_a_gain_is_drawn_as_one():
    parity = reports.ten()
    better = dc.replace(parity.legs[2], top1=91.5)
    drawn = Drawing(
        page_of("x", parity=(dc.replace(parity, legs=(*parity.legs[:2], better)),)), "Top-1 accuracy, step by step"
    )
    assert drawn.bars("good") == [pytest.approx((91.21, 91.5), abs=3e-3)]
    assert "91.50 %, +0.29" in drawn.said()


def test_losses_are_drawn_with_their_intervals():
    drawn = Drawing(page_of("x", parity=(reports.ten(),)), "Losses with 95 % intervals")
    assert drawn.whiskers()[2] == pytest.approx((-0.06, 0.24), abs=2e-3)
    assert drawn.whiskers()[4] == pytest.approx((-0.05, 0.25), abs=2e-3)
    assert "margin 0.5" in drawn.said()
    places = {round(drawn.at(x), 2) for x in re.findall(r'<line x1="([\d.]+)"[^>]*class="rule">', drawn.svg)}
    assert places == {0.5}


def test_classes_lose_to_the_right_and_gain_to_the_left():
    drawn = Drawing(page_of("x", parity=(reports.ten(),)), "Worst classes of int8 on openvino")
    assert drawn.bars("bad") == spans((0, 6), (0, 1))
    assert drawn.bars("good") == spans((-2, 0))
    assert [said for said in drawn.said() if said.startswith("class")] == ["class 2", "class 3", "class 6"]


def test_flips_are_bars():
    drawn = Drawing(page_of("x", parity=(reports.ten(),)), "Images that changed class")
    assert sorted(end for slot in ("s1", "s2", "s3", "s4") for _, end in drawn.bars(slot)) == pytest.approx(
        [12, 60], abs=0.5
    )


def test_parts_of_a_start_follow_each_other():
    drawn = Drawing(page_of("x", latency=reports.latency()), "Cold start")
    first = [drawn.bars(slot)[0] for slot in ("p1", "p2", "p3")]
    assert first == [pytest.approx(pair, abs=8) for pair in ((0, 1520), (1520, 1532.5), (1532.5, 1562.75))]
    assert drawn.said()[:3] == ["import", "load", "first call"]


def test_parts_of_an_answer_follow_each_other():
    drawn = Drawing(page_of("x", latency=reports.latency()), "What an application waits for")
    found = [drawn.bars(slot)[0] for slot in ("p1", "p2", "p3")]
    assert found == spans((0, 0.5), (0.5, 0.75), (0.75, 2.25))
    assert "2.250 ms in all" in drawn.said()


def test_a_part_that_one_session_lacks_keeps_the_others_colours():
    latency = reports.latency()
    more = (*latency.parts, dc.replace(latency.parts[2], name="other"))
    drawn = Drawing(page_of("x", latency=dc.replace(latency, parts=more)), "What an application waits for")
    assert [len(drawn.bars(slot)) for slot in ("p1", "p2", "p3")] == [1, 1, 2]


def test_times_far_apart_have_a_logarithmic_axis_that_says_so():
    latency = reports.latency()
    assert (
        "ms a call, logarithmic; ticks at p50 and p99"
        in Drawing(page_of("x", latency=latency), "Latency at batch 1").said()
    )
    near = dc.replace(latency, rows=latency.rows[:1])
    assert "ms a call; ticks at p50 and p99" in Drawing(page_of("x", latency=near), "Latency at batch 1").said()


def test_where_a_session_falls_behind_the_plot_says_so():
    drawn = Drawing(page_of("x", latency=reports.latency()), "p99 against arrival rate")
    assert drawn.said().count("falls behind") == 1
    assert drawn.dots()[1:] == [pytest.approx(500, abs=8), *[pytest.approx(2500, abs=8)] * 2]
    kept = dc.replace(reports.latency(), load=reports.latency().load[:1])
    assert "falls behind" not in Drawing(page_of("x", latency=kept), "p99 against arrival rate").said()


def test_mixtures_are_drawn_over_their_share():
    drawn = Drawing(page(reports.full()), "Loss by share in INT8")
    assert drawn.dots()[1:] == [pytest.approx(share, abs=0.3) for share in (100, 95.8, 93, 50, 0)]
    assert drawn.said().count("kept") == 2
    assert "at most 0.1" in drawn.said()


def test_the_layer_out_of_line_is_named_on_the_plot():
    drawn = Drawing(page(reports.full()), "SQNR by layer")
    assert "layer1.4.conv1 (out of line)" in drawn.said()
    assert len(drawn.dots()) == 11 + 2  # one in the legend, and the marked one again


def test_speed_is_drawn_with_its_interval():
    latency = reports.latency()
    near = dc.replace(latency, ratios=(dc.replace(latency.ratios[0], ratio=1.5, low=1.25, high=2.0),))
    drawn = Drawing(page_of("x", latency=near), "Speed beside the original")
    assert drawn.whiskers() == [pytest.approx((1.25, 2.0), abs=5e-3)]
    assert drawn.dots() == [pytest.approx(1.5, abs=5e-3)]
