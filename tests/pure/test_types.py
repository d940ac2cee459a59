import dataclasses as dc

import pytest

from dlcv_deploy.errors import ArtifactError, DeployError, MissingBackend, SpecError, ToolError
from dlcv_deploy.spec import BuildSpec, nearest
from dlcv_deploy.types import Ability, Dim, Preprocess

PRE = Preprocess(32, 40, "pad", (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


@pytest.mark.parametrize("bounds", [(0, 1, 2), (2, 1, 3), (1, 4, 3)])
def test_a_dimension_is_ordered(bounds):
    with pytest.raises(SpecError, match="lo:opt:hi"):
        Dim(*bounds)


def test_a_crop_fits_its_canvas():
    with pytest.raises(SpecError, match="41 pixels does not fit a canvas of 40"):
        dc.replace(PRE, size=41)


@pytest.mark.parametrize("std", [(0.2, 0.0, 0.2), (0.2, -1.0, 0.2), (0.2, float("nan"), 0.2), (0.2, float("inf"), 1.0)])
def test_std_divides(std):
    with pytest.raises(SpecError, match="do not normalize"):
        dc.replace(PRE, std=std)


def test_exit_codes():
    codes = {e: e("what").exit_code for e in (SpecError, MissingBackend, ToolError, ArtifactError)}
    assert list(codes.values()) == [2, 3, 4, 5]
    assert all(issubclass(e, DeployError) for e in codes)


def test_an_error_shows_its_fix():
    assert str(SpecError("it is wrong", fix="do this")) == "it is wrong\n  fix: do this"
    assert ToolError("x", log="tail").log == "tail"


def test_ability_is_the_absence_of_a_reason():
    ability = Ability("1.0", "", "no GPU")
    assert ability.can_compile
    assert not ability.can_run


def test_calibration_images_are_for_int8():
    with pytest.raises(SpecError, match="add --int8"):
        BuildSpec("resnet20", "fp16", calib="images")


def test_architectures_need_a_target_that_has_them():
    with pytest.raises(SpecError, match="--target tensorrt_rtx"):
        BuildSpec("resnet20", sm=(89,), targets=("openvino",))
    assert BuildSpec("resnet20", sm=(89,), targets=("openvino", "tensorrt_rtx")).sm == (89,)


def test_a_build_needs_an_image():
    with pytest.raises(SpecError, match="--calib-count 1 or more"):
        BuildSpec("resnet20", "int8", calib_count=0)


def test_mean_and_std_take_the_place_of_the_catalogues():
    changed = BuildSpec("resnet20", mean=(0.1, 0.2, 0.3)).preprocess(PRE)
    assert changed == dc.replace(PRE, mean=(0.1, 0.2, 0.3))


def test_the_default_name_says_model_and_precision():
    assert BuildSpec("resnet20", "int8").path().name == "resnet20-int8.dlcv"


def test_a_misspelt_name_is_met_with_the_nearest():
    assert "did you mean resnet50?" in str(nearest("model", "resnet5", ("resnet50", "alexnet")))
    assert "one of alexnet" in str(nearest("model", "zzz", ("alexnet",)))
