"""Scales, ticks and plots, where data is sound and where it is not."""

import math

import pytest
from helpers.pages import Page
from hypothesis import given
from hypothesis import strategies as st

from dlcv_deploy.report.page.axes import Scale, scale, thinned, tick_text
from dlcv_deploy.report.page.markup import Html, bullets, el, facts, figure, join, more, table
from dlcv_deploy.report.page.plots import Bar, Interval, Row, Rule, Series, Spread, line_chart, row_chart, slot

ANY = st.floats(allow_nan=True, allow_infinity=True, width=32)


def test_a_scale_is_linear_or_logarithmic():
    assert [Scale(0, 10, 100, 200)(v) for v in (0, 5, 10)] == [100, 150, 200]
    assert [Scale(1, 100, 0, 10, log=True)(v) for v in (1, 10, 100)] == pytest.approx([0, 5, 10])
    assert Scale(0, 10, 200, 100)(2.5) == 175


def test_a_scale_keeps_what_is_beyond_it_at_its_ends():
    linear = Scale(0, 10, 100, 200)
    assert [linear(v) for v in (-5, 15, math.inf, -math.inf, math.nan)] == [100, 200, 200, 100, 100]


@pytest.mark.parametrize(
    ("lo", "hi", "ticks"),
    [
        (0, 10, (0, 2, 4, 6, 8, 10)),
        (0, 1, (0, 0.2, 0.4, 0.6, 0.8, 1)),
        (-0.06, 0.5, (0, 0.2, 0.4)),
        (91.1, 91.3, (91.1, 91.15, 91.2, 91.25, 91.3)),
        (0, 12_345, (0, 5000, 10_000)),
    ],
)
def test_ticks_are_round(lo, hi, ticks):
    assert Scale(lo, hi, 0, 1).ticks() == pytest.approx(ticks)


def test_ticks_of_counts_are_whole():
    assert Scale(0, 1.04, 0, 1).ticks(whole=True) == (0, 1)
    assert Scale(0, 60, 0, 1).ticks(whole=True) == Scale(0, 60, 0, 1).ticks()


@pytest.mark.parametrize(
    ("lo", "hi", "ticks"),
    [(0.5, 20, (0.5, 1, 2, 5, 10, 20)), (1, 1e6, (1, 10, 100, 1e3, 1e4, 1e5, 1e6)), (1, 3, (1, 1.5, 2, 2.5, 3))],
)
def test_ticks_of_a_logarithmic_scale_are_round_too(lo, hi, ticks):
    assert Scale(lo, hi, 0, 1, log=True).ticks() == pytest.approx(ticks)


@given(st.lists(ANY), st.booleans(), st.booleans())
def test_any_values_have_a_scale(values, log, zero):
    found = scale(values, 10, 350, log=log, zero=zero)
    assert found.lo < found.hi
    assert all(10 <= found(v) <= 350 for v in [*values, 0.0])
    assert len(found.ticks()) < 20
    assert all(math.isfinite(tick) for tick in found.ticks())
    if zero and not found.log:
        assert found.lo <= 0 <= found.hi


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (0.5, "0.5"), (-0.06, "-0.06"), (1000, "1,000"), (20, "20"), (2.5e7, "2.5e+07"), (0.0001, "0.0001")],
)
def test_a_tick_is_as_short_as_can_be(value, said):
    assert tick_text(value) == said


def test_values_are_thinned_evenly_and_the_last_stays():
    assert thinned([1, 2, 4, 8, 16, 32], 3) == [2, 8, 32]
    assert thinned([1, 2], 3) == [1, 2]


def test_text_is_escaped_and_markup_is_not():
    assert el("p", "<&>", el("b", '"'), title='<"') == '<p title="&lt;&quot;">&lt;&amp;&gt;<b>&quot;</b></p>'
    assert el("td", "", None, class_="n", colspan=None, hidden=True) == '<td class="n" hidden></td>'
    assert el("img", alt="") == '<img alt="">'
    assert isinstance(join(["a", el("b")]), Html)


def test_what_holds_nothing_is_nothing():
    assert table(("a",), [], label="x") == bullets([]) == facts([("a", "")]) == more("x", "") == ""
    assert figure("x", Html(""), el("p", "y")) == ""
    assert row_chart("x", [], "y") == line_chart("x", [], "y", "z") == ""
    assert line_chart("x", [Series("a", ((math.nan, 1.0), (0.0, math.inf)), "s1")], "y", "z") == ""


def test_a_row_that_is_a_name_and_a_reason_runs_over_the_rest():
    found = table(("a", "b", "c", "d"), [("x", "why")], label="t")
    assert '<td colspan="3">why</td>' in found


@given(st.lists(st.tuples(ANY, ANY, ANY), max_size=5), st.booleans(), st.booleans())
def test_rows_are_drawn_within_their_canvas_whatever_they_hold(values, log, zero):
    rows = [
        Row("name", "said", (Bar(a, b, "s1"), Interval(a, b, c, slot(i)), Spread((a, b, c), (a,), "s2")))
        for i, (a, b, c) in enumerate(values)
    ]
    text = row_chart("t", rows, "axis", log=log, zero=zero, rules=[Rule(math.nan), Rule(0.5, "half")])
    if text:
        Page(text).check_drawings()
        assert "nan" not in text
        assert "inf" not in text


@given(st.lists(st.tuples(ANY, ANY), max_size=6), st.booleans(), st.booleans())
def test_lines_are_drawn_within_their_canvas_whatever_they_hold(points, log_x, log_y):
    series = [
        Series("a", tuple(points), "s1", notes=((len(points) - 1, "the last"),)),
        Series("b", ((1.0, 2.0),), "s5"),
    ]
    text = line_chart("t", series, "x", "y", log_x=log_x, log_y=log_y, rules=[Rule(1.0, "one")])
    Page(text).check_drawings()


def test_a_bar_spans_its_figures():
    text = row_chart(
        "t", [Row("a", "", (Bar(0, 10, "s1"),)), Row("b", "", (Bar(5, 10, "s1"), Bar(3, 3, "s1")))], "x", zero=True
    )
    bars = Page(text).all("rect")
    (x, wide), (half_x, half) = ((float(a["x"]), float(a["width"])) for a in bars)
    assert x == 10
    assert half == pytest.approx(wide / 2, abs=0.1)
    assert half_x == pytest.approx(x + wide / 2, abs=0.1)


def test_an_open_end_is_an_arrow_and_not_a_cap():
    closed = row_chart("t", [Row("a", "", (Interval(0, 1, 2, "s1"),))], "x")
    opened = row_chart("t", [Row("a", "", (Interval(0, 1, math.inf, "s1"),))], "x")
    assert closed.count("v8") == 2
    assert opened.count("v8") == 1


def test_a_long_name_gives_way_to_the_figure_and_is_kept_as_a_title():
    text = row_chart("t", [Row("m" * 100, "12.34 (95 % 1 to 2)", (Bar(0, 1, "s1"),))], "x")
    assert "m" * 100 in Page(text).text
    assert "m" * 20 + "..." in Page(text).text.replace("m" * 100, "") or "..." in Page(text).text


def test_slots_of_more_candidates_than_colours_come_again_but_never_the_originals():
    assert [slot(i) for i in (0, 1, 6, 7, 12, 13)] == ["s0", "s1", "s6", "s1", "s6", "s1"]


def test_a_note_stays_with_its_point_where_others_are_left_out():
    points = ((1.0, math.nan), (2.0, 20.0), (3.0, 30.0))
    text = line_chart("t", [Series("a", points, "s1", notes=((2, "here"), (0, "gone")))], "x", "y")
    assert "here" in text
    assert "gone" not in text
