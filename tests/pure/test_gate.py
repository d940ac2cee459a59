"""What stands against a parity report, what it shows, and the sentences that say so."""

import math

import pytest

from dlcv_deploy.errors import SpecError
from dlcv_deploy.parity.gate import failures, judge, passes, sentences
from dlcv_deploy.parity.statistics import loss
from dlcv_deploy.parity.values import Leg, Loss, OutputError, ParityReport

IMAGES = 10_000


def leg(name="x", lost=0, gained=0, **fields):
    return Leg(name, 91.0, 99.0, (loss(1, lost, gained, IMAGES),), **fields)


def report_of(*legs, labelled=True, margin=0.5, images=IMAGES, **fields):
    return ParityReport("some images", images, 10, labelled, 92.0, 99.0, legs, margin=margin, **fields)


SHOWN, NOT_SHOWN, WORSE = leg("a", 36, 24), leg("b", 60, 20), leg("c", 200, 60)
ABSENT = Leg("gpu", not_run="no GPU")
BROKEN = OutputError("features", math.nan, math.nan, math.nan, math.nan, non_finite=2)


def test_a_limit_is_held_against_the_measured_drop():
    at, above, better = leg("at", 40, 20), leg("above", 50, 20), leg("better", 0, 40)
    assert passes(report_of(at), 0.2)
    assert passes(report_of(better), 0)
    assert failures(report_of(at, above), 0.2) == (
        "above loses 0.30 points of top-1 accuracy, and at most 0.2 may be lost",
    )
    assert passes(report_of(at, above))


@pytest.mark.parametrize("losses", [(), (Loss(1, math.nan, 0, 0, 0, 0, 1),), (loss(5, 0, 0, IMAGES),)])
def test_an_unknown_drop_does_not_pass(losses):
    assert not passes(report_of(Leg("x", losses=losses)), 100)


def test_what_was_not_run_has_not_passed():
    assert failures(report_of(leg(), ABSENT), 1) == ("gpu was not run, so it has not passed: no GPU",)
    assert passes(report_of(leg(), ABSENT), 1, not_run_fails=False)
    assert failures(report_of(ABSENT), 1, not_run_fails=False) == (
        "nothing was run beside the original, so nothing has passed",
    )
    assert passes(report_of(ABSENT))


def test_a_limit_needs_labels_and_sense():
    with pytest.raises(SpecError, match=r"--max-drop .*some images\) carry no labels\n.*leave --max-drop out"):
        passes(report_of(leg(), labelled=False), 1)
    with pytest.raises(SpecError, match=r"--margin .*\n.*leave --margin out"):
        judge(report_of(leg(), labelled=False))
    for limit in (math.nan, math.inf, -1):
        with pytest.raises(SpecError, match="is no limit"):
            passes(report_of(leg()), limit)


@pytest.mark.parametrize(
    ("legs", "outcome"),
    [
        ((SHOWN,), "shown"),
        ((NOT_SHOWN,), "not shown"),
        ((WORSE,), "shown worse"),
        ((SHOWN, NOT_SHOWN), "not shown"),
        ((NOT_SHOWN, WORSE, SHOWN), "shown worse"),
        ((), "not shown"),
        ((ABSENT,), "not shown"),
        ((SHOWN, ABSENT), "not shown"),
        ((ABSENT, WORSE), "shown worse"),
        ((leg(non_finite=1),), "shown worse"),
        ((leg(outputs=(BROKEN,)),), "shown worse"),
        ((SHOWN, Leg("x", losses=(loss(5, 0, 0, IMAGES),))), "not shown"),
        ((Leg("x", losses=(Loss(1, math.nan, math.nan, math.nan, 0, 0, math.nan),)),), "not shown"),
    ],
)
def test_the_least_that_is_shown_of_any_leg_counts(legs, outcome):
    assert judge(report_of(*legs)) == outcome


def test_a_reference_that_is_not_finite_shows_nothing_good():
    assert judge(report_of(SHOWN, non_finite=1)) == "shown worse"


def test_the_margin_is_the_reports():
    assert [judge(report_of(SHOWN, margin=m)) for m in (0.1, 0.28, 0.2799, 100)] == [
        "not shown",
        "shown",
        "not shown",
        "shown",
    ]


def test_sentences():
    power = (
        "With 10,000 images the smallest provable loss is 0.32 points, of a candidate that loses as many as it gains;"
        " to prove it with a chance of 80 %, 0.5 takes 8,356, 0.92 (MLPerf 99 %) takes 2,590, 0.092 (MLPerf 99.9 %)"
        " takes 241,305"
    )
    assert sentences(report_of(SHOWN, NOT_SHOWN, WORSE, ABSENT, leg("gains", 0, 40), leg("nan", non_finite=3))) == (
        "a: shown: loses at most 0.28 points of top-1 (95 %), margin 0.5",
        "b: not shown: may lose 0.59 points of top-1 (95 %), margin 0.5; there are images enough for an equal"
        " candidate, and this one lost 0.40 on them",
        "c: shown worse: loses at least 1.09 points of top-1 (95 %), margin 0.5",
        "gpu: not shown: not run: no GPU",
        "gains: shown: gains at least 0.29 points of top-1 (95 %), margin 0.5",
        "nan: shown worse: NaN or infinity on 3 of 10,000 images, which no margin allows",
        power,
    )


def test_what_is_not_shown_says_what_it_would_take():
    said, _ = sentences(report_of(SHOWN, margin=0.1))
    assert said == (
        "a: not shown: may lose 0.28 points of top-1 (95 %), margin 0.1; 10,000 images with 0.6 % turned right or"
        " wrong can show 0.16 at best; showing 0.1 takes 47,972"
    )


def test_one_image_and_none_with_labels():
    one = ParityReport("one", 1, 1, True, 0.0, 0.0, (Leg("x", 0.0, 0.0, (loss(1, 0, 0, 1),)),))
    assert sentences(one) == (
        "x: not shown: may lose 79.35 points of top-1 (95 %), margin 0.5; 1 image with 0 % turned right or wrong can"
        " show 79.35 at best; showing 0.5 takes 765",
        "With 1 image the smallest provable loss is 79.35 points, of a candidate that loses as many as it gains; to"
        " prove it with a chance of 80 %, 0.5 takes 765",
    )
    assert sentences(report_of(leg(), labelled=False)) == ()
