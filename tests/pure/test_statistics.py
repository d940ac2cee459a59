"""What images prove, against values worked out by hand, published ones, exact sums, and laws that must hold."""

import dataclasses as dc
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcv_deploy.errors import SpecError
from dlcv_deploy.parity.statistics import (
    Z80,
    Z95,
    images_needed,
    loss,
    mcnemar,
    outcome,
    paired_interval,
    percent,
    provable,
    verdicts,
)


def test_percent_is_rounded_once():
    assert percent(20, 10_000) == 0.2
    assert percent(9_125, 10_000) == 91.25


@pytest.mark.parametrize("images", [1, 2, 10, 10_000, 50_000])
def test_the_interval_without_discordant_images(images):
    # with no discordant pair Tango's equation is n d / sqrt(n d (1 - d)) = z: d = z^2 / (n + z^2)
    low, high = paired_interval(0, 0, images)
    assert high == pytest.approx(100 * Z95**2 / (images + Z95**2), rel=1e-12)
    assert low == pytest.approx(-high, rel=1e-12)


@pytest.mark.parametrize("images", [1, 2, 10, 1000])
def test_the_interval_where_all_are_lost(images):
    # all lost: n (1 - d) / sqrt(n (1 - d) (1 + d)) = z: d = (n - z^2) / (n + z^2)
    low, high = paired_interval(images, 0, images)
    assert high == 100
    assert low == pytest.approx(100 * (images - Z95**2) / (images + Z95**2), rel=1e-9)


@pytest.mark.parametrize(
    ("lost", "gained", "images", "low", "high"),
    [
        (6, 16, 161, -12.40, -0.54),  # Cavo et al. 2012, as R's contingencytables has it
        (1, 7, 21, -51.72, -2.60),  # Bentur et al. 2009, in Fagerland, Lydersen, Laake 2014: -0.517 to -0.026
    ],
)
def test_the_interval_against_published_ones(lost, gained, images, low, high):
    assert paired_interval(lost, gained, images) == (pytest.approx(low, abs=0.005), pytest.approx(high, abs=0.005))


COUNTS = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 20_000)).filter(any)


@given(COUNTS)
def test_the_interval_leaves_zero_out_where_mcnemars_test_rejects(counts):
    lost, gained, agreed = counts
    low, high = paired_interval(lost, gained, lost + gained + agreed)
    seen = 100 * (lost - gained) / (lost + gained + agreed)
    assert -100 <= low < high <= 100
    assert low <= seen <= high
    statistic = (lost - gained) / math.sqrt(lost + gained) if lost + gained else 0.0
    assert (low > 0) == (statistic > Z95)
    assert (high < 0) == (statistic < -Z95)


@given(COUNTS)
def test_the_interval_turns_round_with_the_sides(counts):
    lost, gained, agreed = counts
    low, high = paired_interval(lost, gained, lost + gained + agreed)
    other = paired_interval(gained, lost, lost + gained + agreed)
    assert (-other[1], -other[0]) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))


@given(COUNTS)
def test_the_limits_solve_tangos_equation(counts):
    lost, gained, agreed = counts
    n = lost + gained + agreed
    for limit, z in zip(paired_interval(lost, gained, n), (Z95, -Z95), strict=True):
        d = limit / 100
        if abs(d) == 1:
            continue
        b = -lost - gained + (2 * n - lost + gained) * d
        q = (math.sqrt(max(0.0, b * b + 8 * n * gained * d * (1 - d))) - b) / (4 * n)
        assert (lost - gained - n * d) / math.sqrt(n * (2 * q + d * (1 - d))) == pytest.approx(z, rel=1e-6)


def test_a_usual_case_is_near_walds():
    low, high = paired_interval(80, 60, 10_000)
    wald = 1.96 * math.sqrt(140 - 20**2 / 10_000) / 100
    assert (low, high) == (pytest.approx(0.2 - wald, abs=0.01), pytest.approx(0.2 + wald, abs=0.01))


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (0, 5, 2 / 2**5),
        (0, 6, 2 / 2**6),
        (1, 7, 2 * (1 + 8) / 2**8),
        (2, 8, 2 * (1 + 10 + 45) / 2**10),
        (5, 5, 1.0),
        (6, 16, 0.05247879),  # Cavo et al. 2012, as R's contingencytables has it: 0.052479
        (1000, 0, 2 / 2**1000),
        (100_000, 0, 0.0),
        (7_000_000, 7_000_000, 1.0),
    ],
)
def test_mcnemars_test(lost, gained, p):
    assert mcnemar(lost, gained) == mcnemar(gained, lost) == pytest.approx(p, rel=1e-5)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemars_test_is_the_sum_of_the_binomials_tails(lost, gained):
    throws = lost + gained
    likelihood = [math.comb(throws, i) for i in range(throws + 1)]
    as_far = sum(c for i, c in enumerate(likelihood) if abs(2 * i - throws) >= abs(lost - gained))
    assert mcnemar(lost, gained) == float(Fraction(as_far, 2**throws))


@pytest.mark.parametrize(("lost", "gained"), [(5100, 4900), (5001, 5000), (4000, 6000), (9_990, 10)])
def test_the_sum_of_logarithms_carries_on_where_that_of_integers_ends(lost, gained, monkeypatch):
    exact = mcnemar(lost, gained)
    monkeypatch.setattr("dlcv_deploy.parity.statistics._EXACT", 0)
    assert mcnemar(lost, gained) == pytest.approx(exact, rel=1e-7)


def test_mcnemars_test_of_millions_is_near_the_normal_one():
    z = (10_000 - 1) / math.sqrt(9_990_000)  # with the correction for continuity
    assert mcnemar(5_000_000, 4_990_000) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)


def test_a_loss_holds_what_was_counted():
    found = loss(5, 36, 24, 10_000)
    assert dc.astuple(found) == (5, 0.12, *paired_interval(36, 24, 10_000), 36, 24, mcnemar(36, 24))


@pytest.mark.parametrize(("lost", "gained", "images"), [(0, 0, 0), (-1, 0, 5), (0, -1, 5), (3, 3, 5)])
def test_counts_that_cannot_be(lost, gained, images):
    with pytest.raises(SpecError, match="cannot be among"):
        loss(1, lost, gained, images)


def test_three_outcomes_at_top_1():
    assert [v.outcome for v in verdicts(92.0, loss(1, 36, 24, 10_000), 10_000, 0.5)] == ["shown", "shown", "not shown"]
    rules = verdicts(92.0, loss(1, 200, 60, 10_000), 10_000, 0.5)
    assert [(v.rule, v.outcome, v.met) for v in rules] == [
        ("margin 0.5", "shown worse", False),
        ("MLPerf 99 %", "shown worse", False),
        ("MLPerf 99.9 %", "shown worse", False),
    ]
    assert [v.margin for v in rules] == pytest.approx([0.5, 0.92, 0.092])


def test_top_5_has_the_margin_only():
    (verdict,) = verdicts(99.0, loss(5, 3, 2, 10_000), 10_000, 0.25)
    assert (verdict.rule, verdict.k, verdict.margin, verdict.outcome) == ("margin 0.25", 5, 0.25, "shown")


def test_an_interval_that_ends_on_the_margin_shows_nothing():
    found = loss(1, 30, 10, 1000)
    assert outcome(found, found.high) == outcome(found, found.low) == "not shown"
    assert outcome(found, math.nextafter(found.high, 100)) == "shown"
    assert outcome(found, math.nextafter(found.low, 0)) == "shown worse"


@pytest.mark.parametrize(
    ("right", "lost", "met"),
    [
        (9_200, 92, (True, True, False)),  # 91.08 is 99 % of 92.00, and no less
        (9_200, 93, (False, False, False)),
        (9_000, 9, (True, True, True)),
        (9_000, 10, (True, True, False)),
        (0, 0, (True, True, True)),
    ],
)
def test_mlperfs_rule_is_on_the_figures_and_exact(right, lost, met):
    margin = 0.92
    found = verdicts(percent(right, 10_000), loss(1, lost, 0, 10_000), 10_000, margin)
    assert tuple(verdict.met for verdict in found) == met


@given(st.integers(1, 10**7), st.data())
def test_mlperfs_rule_has_no_rounding(images, data):
    right = data.draw(st.integers(0, images))
    lost = data.draw(st.integers(0, right))
    _, *found = verdicts(percent(right, images), loss(1, lost, 0, images), images, 0.5)
    assert [v.met for v in found] == [100 * (right - lost) >= 99 * right, 1000 * (right - lost) >= 999 * right]


def test_a_reference_that_is_never_right_has_nothing_to_lose():
    _, *rules = verdicts(0.0, loss(1, 0, 0, 100), 100, 0.5)
    assert [(v.margin, v.outcome, v.images_needed) for v in rules] == [(0.0, "not shown", 0)] * 2


@pytest.mark.parametrize("margin", [0, -1, 100.01, math.nan, math.inf])
def test_margins_that_cannot_be_shown(margin):
    with pytest.raises(SpecError, match="cannot be shown"):
        verdicts(92.0, loss(1, 1, 1, 100), 100, margin)


@given(st.integers(0, 10_000), st.integers(0, 10**7))
def test_what_is_provable_is_where_the_interval_of_an_equal_candidate_ends(half, agreed):
    images = 2 * half + agreed or 1
    assert provable(2 * half, images) == pytest.approx(paired_interval(half, half, images)[1], rel=1e-6)


@pytest.mark.parametrize(
    ("margin", "changed", "images", "needed"),
    [
        (0.1, 60, 10_000, 47_972),  # (1.96 sqrt(0.00616) + 0.84 sqrt(0.006))^2 / 0.001^2
        (0.5, 0, 10_000, 765),  # z^2 (1 - d) / d = 764.5
        (0.5, 0, 1, 765),
        (100, 0, 1, 1),
        (100, 1, 1, 1),
        (0, 60, 10_000, 0),
    ],
)
def test_images_needed_by_hand(margin, changed, images, needed):
    assert images_needed(margin, changed, images) == needed


@given(st.integers(0, 400), st.integers(1, 100_000), st.floats(0.01, 20))
def test_images_needed_suffice_an_equal_candidate_with_room_for_chance(changed, agreed, margin):
    share = changed / (changed + agreed)
    needed = images_needed(margin, changed, changed + agreed)
    again = share * needed
    end = 100 * Z95 * math.sqrt(again + Z95**2) / (needed + Z95**2)
    assert end < margin
    if again == 0:
        fewer = needed - 1
        assert 100 * Z95**2 / (fewer + Z95**2) >= margin * (1 - 1e-9)
    assert images_needed(margin / 2, changed, changed + agreed) > needed or needed == 1


def test_images_needed_give_the_chance_they_promise():
    # an equal candidate that changes 2 % of the answers: the discordant images are a binomial, those lost half of them
    share, margin = 0.02, 0.8
    needed = images_needed(margin, 20, 1000)
    shown = 0.0
    spread = math.sqrt(needed * share * (1 - share))
    for changed in range(max(0, int(needed * share - 6 * spread)), int(needed * share + 6 * spread)):
        weight = math.exp(
            math.lgamma(needed + 1)
            - math.lgamma(changed + 1)
            - math.lgamma(needed - changed + 1)
            + changed * math.log(share)
            + (needed - changed) * math.log1p(-share)
        )
        most = max((i for i in range(changed + 1) if paired_interval(i, changed - i, needed)[1] < margin), default=-1)
        shown += weight * sum(math.comb(changed, i) for i in range(most + 1)) / 2**changed
    assert shown == pytest.approx(0.8, abs=0.03)
    assert math.erf(Z80 / math.sqrt(2)) == pytest.approx(0.6)
