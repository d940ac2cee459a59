"""Presets, and what changes them."""

import pytest

from dlcv_deploy.calibration.recipe import PRESETS, SWITCHES, Recipe, recipe
from dlcv_deploy.errors import SpecError
from dlcv_deploy.spec import BuildSpec


def test_presets_by_name():
    assert recipe() == PRESETS["default"]
    assert [recipe(name) for name in ("fast", "default", "best")] == list(PRESETS.values())
    assert not recipe("fast").corrects
    assert recipe("default").corrects
    assert recipe("best").corrects


def test_a_method_and_switches_change_a_preset():
    assert recipe("fast", "max") == Recipe("max")
    assert recipe("fast", None, {"norm": True, "pixels": False}) == Recipe(norm=True, pixels=False)
    assert recipe("default", "percentile:99.9", {"bias": False}) == Recipe("percentile:99.9", equalize=True)
    assert recipe("best", None, dict.fromkeys(SWITCHES, True)) == Recipe("mse", *[True] * len(SWITCHES))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("good",), "no quality 'good'\n  fix: one of fast, default, best"),
        (("fast", "least"), "no calibration method 'least'\n  fix: one of mse, max"),
        (("fast", "percentile:101"), "no percentile '101'"),
        (("fast", None, {"speed": True}), "no correction 'speed'\n  fix: one of pixels, equalize, bias"),
    ],
)
def test_what_there_is_not(words, said):
    with pytest.raises(SpecError, match=said):
        recipe(*words)


def test_a_wrong_method_is_refused_where_a_recipe_is_made_by_hand():
    with pytest.raises(SpecError, match="no calibration method 'least'"):
        Recipe("least")


def test_what_was_said_of_calibrating_reads_as_on_the_command_line():
    assert BuildSpec("resnet20", "int8").calibration_words() == ""
    spec = BuildSpec("resnet20", "int8", quality="best", method="max", switches={"bias": False, "sums": True})
    assert spec.calibration_words() == "--quality best, --method max, --no-bias, --sums"
    spec = BuildSpec("resnet20", "int8", tournament=True, robustness=3, max_drop=0.0)
    assert spec.calibration_words() == "--tournament, --robustness 3, --max-drop 0"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"quality": "best"}, "--quality best is for INT8, and this build is fp32\n  fix: add --int8"),
        ({"switches": {"bias": False}}, "--no-bias is for INT8"),
        ({"tournament": True}, "--tournament is for INT8"),
        ({"precision": "int8", "max_drop": float("nan")}, "cannot lose at most nan points\n  fix: --max-drop 0.1"),
        ({"precision": "int8", "max_drop": float("inf")}, "cannot lose at most inf points"),
        ({"precision": "int8", "max_drop": -1.0}, "cannot lose at most -1.0 points"),
        ({"precision": "int8", "robustness": 1}, "1 subset shows no spread"),
    ],
)
def test_requests_that_make_no_sense(fields, said):
    with pytest.raises(SpecError, match=said):
        BuildSpec("resnet20", **fields)
