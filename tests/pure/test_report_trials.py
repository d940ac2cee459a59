"""What the pages say of tournaments, sensitivity and mixtures."""

import dataclasses as dc
import math

import pytest
from helpers.trials import study

from dlcv_deploy.report import trials
from dlcv_deploy.report.terminal import WIDTH, trials_table
from dlcv_deploy.study import Mixed, Point, QuantizationStudy, Robustness, Score, Tournament


def bad(**fields):
    return Score("bad", 8, 8, math.nan, math.nan, math.nan, **{"non_finite": 8, **fields})


def test_the_candidate_that_was_kept_is_marked_and_the_reason_said():
    rows = trials.tournament_rows(study().tournament)
    assert [row[0] for row in rows] == ["max", "mse (kept)", "mse, bias corrected", "percentile", "entropy"]
    assert rows[1] == ("mse (kept)", "28.02", "0.35", "0.00112", "2", "92.19", "0.00")
    assert rows[4] == ("entropy", "failed: nothing in resnet20 can be computed in int8: its input input was 0")
    assert trials.tournament_note(study().tournament).startswith(
        "Kept: mse. The closest to the fp32 graph is mse, bias corrected, which costs more and leads by no more than"
    )
    clear = dc.replace(study().tournament, winner="mse, bias corrected")
    assert trials.tournament_note(clear) == "Kept: mse, bias corrected, the closest to the fp32 graph."


def test_answers_that_are_no_numbers_are_said_to_be_none():
    tournament = Tournament((bad(),), "x", "x")
    assert trials.tournament_rows(tournament) == (("bad", "NaN or infinity on 8 of 8 images"),)
    point = Point(1.0, (), (), bad())
    found = Mixed(0.1, "top-1", False, point, (point,))
    assert trials.curve_rows(found) == (("nothing", "NaN or infinity on 8 of 8 images"),)
    assert trials.mixed_line(found) == (
        "NOT REACHED: no mixture keeps to 0.1 points. The best, 100.00 % of the multiply-adds in INT8, cannot be"
        " measured (NaN or infinity on 8 of 8 images)."
    )


def test_robustness_in_a_sentence():
    assert trials.robustness_line(study().robustness) == (
        "Calibrated on 3 random draws of 192 images: 1 to 4 of 128 held-out images flipped (median 2), divergence"
        " 0.00104 nats with a standard deviation of 0.000396. Ranges that differ most: conv_3_out 22.2 %, input 0.0 %."
        " 1 further draw could not be calibrated on."
    )
    assert "divergence - nats" in trials.robustness_line(Robustness(4, (bad(),), ()))


def test_ten_layers_are_shown_by_module_and_node():
    layers = study().sensitivity
    rows = trials.layer_rows(layers)
    assert len(rows) == 10
    assert rows[0] == ("layer1.1.conv1 (conv_1)", "41.00", "0.00112", "2", "2,359,296")
    assert trials.layer_note(layers).endswith("the most damaging first, the first 10 of 11.")
    assert trials.layer_note(layers[:10]).endswith("the most damaging first.")
    assert trials.layer_rows(layers[10:]) == (("fc (gemm_1)", "failed: nothing in resnet20 can be computed in int8"),)
    assert trials.layer_rows([dc.replace(layers[0], module="conv_1")])[0][0] == "conv_1"


def test_the_curve_leaves_out_what_another_mixture_beats():
    mixed = study().mixed
    assert trials.curve_head(mixed) == ("in floating point", "INT8 %", "drop", "flips", "SQNR dB", "divergence", "ms")
    assert trials.curve_rows(mixed) == (
        ("nothing", "100.00", "0.78", "4", "26.31", "0.00139", "0.412"),
        ("kept: conv1, fc", "95.80", "0.00", "2", "28.02", "0.00112", "0.431"),
        ("layer1.0.conv1, layer1.1.conv1, layer1.2.conv1 and 7 more", "50.00", "-0.78", "1", "28.13", "0.00061", "-"),
        ("conv1", "0.00", "0.00", "0", "equal", "0", "1.250"),
    )
    beaten = dc.replace(mixed, chosen=mixed.curve[2])
    assert [row[1] for row in trials.curve_rows(beaten)] == ["100.00", "95.80", "93.00", "50.00", "0.00"]


@pytest.mark.parametrize("most", [3, 4, 8, 16])
def test_a_long_curve_is_thinned_but_its_ends_and_the_chosen_one_stay(most):
    points = tuple(Point(1 - i / 50, (), (), Score("", 8, 0, 0.1, 10.0 + i), float(i)) for i in range(51))
    rows = trials.curve_rows(Mixed(0.1, "flips", True, points[7], points), most)
    shares = [row[1] for row in rows]
    assert len(rows) <= most + 1
    assert {"100.00", "86.00", "0.00"} <= set(shares)
    assert len(set(shares)) == len(shares)
    assert [row[0] for row in rows].count("kept: nothing") == 1


def test_what_was_reached_is_said_beside_what_was_asked():
    mixed = study().mixed
    assert trials.mixed_line(mixed) == (
        "95.80 % of the multiply-adds in INT8, 2 layers in floating point: loses 0.00 points of top-1 on 128 held-out"
        " images (95 % -2.90 to 2.90); asked was at most 0.1 points."
    )
    assert trials.mixed_line(dc.replace(mixed, reached=False)).startswith(
        "NOT REACHED: no mixture keeps to 0.1 points."
    )
    assert "kept" not in str(trials.curve_rows(dc.replace(mixed, reached=False)))
    unlabelled = dc.replace(mixed, measure="flips")
    assert trials.mixed_line(unlabelled) == (
        "95.80 % of the multiply-adds in INT8, 2 layers in floating point: flips 2 of 128 held-out images (1.56 %);"
        " asked was at most 0.1 % flipped, for there are no labels."
    )
    assert trials.curve_head(unlabelled)[2] == "flipped %"
    assert trials.curve_rows(unlabelled)[0][2] == "3.12"


def test_no_column_for_times_that_were_not_taken():
    mixed = study().mixed
    untimed = tuple(dc.replace(point, latency_ms=None) for point in mixed.curve)
    found = dc.replace(mixed, curve=untimed, chosen=untimed[1])
    assert trials.curve_head(found)[-1] == "divergence"
    assert all(len(row) == 6 for row in trials.curve_rows(found))


def test_only_what_was_tried_is_shown():
    text = trials_table(QuantizationStudy("8 images", robustness=study().robustness))
    assert text.count("\n") == 5
    assert "candidate" not in text
    assert max(map(len, trials_table(study()).splitlines())) <= WIDTH
