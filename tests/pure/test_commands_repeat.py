"""The commands in a report: the command line reads them back as the build that wrote them."""

import dataclasses as dc
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcv_deploy.cli import cli
from dlcv_deploy.cli_options import switched
from dlcv_deploy.commands import commands
from dlcv_deploy.spec import BuildSpec

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: not text.startswith("-")
)
SHARES = st.tuples(*[st.floats(0.001, 1)] * 3)
INT8 = st.builds(
    BuildSpec,
    st.just("resnet20"),
    precision=st.just("int8"),
    weights=st.none() | WORDS,
    bgr=st.booleans(),
    mean=st.none() | SHARES,
    std=st.none() | SHARES,
    canvas=st.none() | st.integers(1, 999),
    labels=st.none() | st.just(Path("my labels.txt")),
    calib=st.none() | WORDS,
    calib_count=st.integers(1, 999),
    quality=st.sampled_from([None, "fast", "best"]),
    method=st.none() | st.just("percentile:99.9"),
    switches=st.dictionaries(st.sampled_from(["pixels", "equalize", "sums"]), st.booleans()),
    tournament=st.booleans(),
    robustness=st.none() | st.integers(2, 9),
    max_drop=st.none() | st.floats(0, 9),
    data=WORDS,
    truth=st.none() | st.just(Path("val.txt")),
    outputs=st.sampled_from([("logits",), ("logits", "features")]),
    targets=st.sampled_from([("auto",), ("openvino", "tensorrt_rtx")]),
    allow_partial=st.booleans(),
    output=st.none() | st.just(Path("out/a b.dlcv")),
    force=st.booleans(),
    skip_bad=st.booleans(),
)
OTHERS = [
    BuildSpec("resnet50", "fp16", targets=("tensorrt_rtx",), sm=(86, 120), lrn="plugin", lrn_library=Path("lib.so")),
    BuildSpec("my net.py:Net", input_shape=(3, 227, 227)),
]


def parsed(line):
    """What a command line asks of a command, by parameter."""
    program, name, *arguments = shlex.split(line)
    assert program == "dlcv-deploy"
    with cli.commands[name].make_context(name, arguments) as context:
        return context.params


def read_back(line):
    params = parsed(line)
    del params["as_json"]
    return BuildSpec(**switched(params))


@given(INT8)
def test_the_build_is_read_back(spec):
    lines = commands(spec)
    assert read_back(lines[0]) == dc.replace(spec, force=False)
    assert [parsed(line)["data"] for line in lines[1:3]] == [spec.data] * 2
    assert [parsed(line)["crops"] for line in lines[1:3]] == ["1", "10"]
    assert parsed(lines[3])["bundle"] == spec.path()


@pytest.mark.parametrize("spec", OTHERS, ids=lambda spec: spec.model)
def test_other_builds_are_read_back(spec):
    lines = commands(spec)
    assert read_back(lines[0]) == spec
    assert len(lines) == 2  # no images were named, so none are there to validate on


def test_the_commands_are_short():
    assert commands(BuildSpec("resnet20", "int8", data="my photos", truth=Path("val.txt"), skip_bad=True)) == (
        "dlcv-deploy build resnet20 --int8 --data 'my photos' --truth val.txt --skip-bad",
        "dlcv-deploy validate resnet20-int8.dlcv --data 'my photos' --truth val.txt --crops 1 --skip-bad",
        "dlcv-deploy validate resnet20-int8.dlcv --data 'my photos' --truth val.txt --crops 10 --skip-bad",
        "dlcv-deploy bench resnet20-int8.dlcv --quick",
    )


def test_every_option_of_a_build_has_its_field():
    options = {param.name for param in cli.commands["build"].params} - {"as_json"}
    switches = {
        name for name in options if f"--no-{name}" in str([p.secondary_opts for p in cli.commands["build"].params])
    }
    assert options - switches == {field.name for field in dc.fields(BuildSpec)} - {"switches"}
