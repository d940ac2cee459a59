"""TensorRT's calibration caches: read, written, and matched with a network's tensors."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, parser

from dlcv_deploy.adopt import CacheFiles
from dlcv_deploy.calibration.caches import (
    TrtCache,
    from_cache,
    read_names,
    read_trt_cache,
    write_modelopt,
    write_trt_cache,
)
from dlcv_deploy.calibration.table import CalibrationTable
from dlcv_deploy.errors import ArtifactError, SpecError
from dlcv_deploy.spec import BuildSpec
from dlcv_deploy.types import Corrections, Preprocess

HEAD = "TRT-8601-EntropyCalibration2"
PRE = Preprocess(32, 40, "pad", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
NET = """
    <ir_version: 8, opset_import: ["": 18]>
    network (float[n,1,4,4] input) => (float[n,2] logits) <float[1,1,1,1] k = {2}, float[16,2] w>
    {
        [conv_1] conv_1_out = Conv (input, k)
        [relu_1] relu_1_out = Relu (conv_1_out)
        [conv_2] conv_2_out = Conv (relu_1_out, k)
        [flatten_1] flatten_1_out = Flatten (conv_2_out)
        [gemm_1] logits = Gemm (flatten_1_out, w)
    }
"""
NEEDED = ("input", "relu_1_out", "flatten_1_out")


def net() -> ModelProto:
    return parser.parse_model(NET.replace("[16,2] w", "[16,2] w = {" + ",".join(["1"] * 32) + "}"))


def table(amax: dict[str, float], corrections: Corrections | None = None) -> CalibrationTable:
    about = {"model": "m", "weights_sha256": "a", "graph_sha256": "b", "preprocess": PRE, "method": "max"}
    on = {"samples": "2 images", "samples_sha256": "c", "images": 2, "random": False}
    return CalibrationTable(**about, **on, amax=amax, corrections=corrections or Corrections())


def test_a_cache_as_tensorrt_writes_it():
    names = [
        "images",
        "(Unnamed Layer* 0) [Convolution]_output",
        "onnx::Conv_123",
        "a: b",
        "x y",
        "/relu_1/Relu_output_0",
    ]
    digits = ["3c010204", "3f9839e4", "42FE0000", "1", "0", "00800000"]
    text = "\n".join([HEAD, *(f"{name}: {hexa}" for name, hexa in zip(names, digits, strict=True))]) + "\n"
    cache = read_trt_cache(text.encode())
    assert cache.version == HEAD
    assert list(cache.scales) == names
    assert list(cache.scales.values()) == [
        float(np.float32(1 / 127)),
        1.1892666816711426,
        127.0,
        2.0**-149,
        0.0,
        2.0**-126,
    ]
    assert read_trt_cache(text.replace("\n", "\r\n") + "\r\n \n") == cache


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cal is no calibration cache of TensorRT: its first line is ''"),
        (b"\xff\xfe\x00", "cal is no calibration cache: it is not text"),
        (b"1\ndata: 3c010a14\n", "its first line is '1', and not as TRT-8601-EntropyCalibration2"),
        (f" {HEAD}\na: 1\n", "its first line is ' TRT"),
        (f"{HEAD}\n", "cal has no scales"),
        (f"{HEAD}\na: 3c010a14\nb 3c010a14\n", "cal, line 3 is damaged: 'b 3c010a14'"),
        (f"{HEAD}\na: 3c010a140\n", "line 2 is damaged: 'a: 3c010a140'"),
        (f"{HEAD}\na: 3c01g\n", "line 2 is damaged"),
        (f"{HEAD}\na: \n", "line 2 is damaged"),
        (f"{HEAD}\n: 3c010a14\n", "line 2 is damaged"),
        (f"{HEAD}\na:3c010a14\n", "line 2 is damaged"),
        (f"{HEAD}\n\na: 7f800000\n", "cal, line 3: the scale of 'a' is inf"),
        (f"{HEAD}\na: 7fc00000\n", "the scale of 'a' is nan"),
        (f"{HEAD}\na: bc010a14\n", "the scale of 'a' is -0.0078"),
        (f"{HEAD}\na: 80000000\n", "the scale of 'a' is -0.0"),
        (f"{HEAD}\na: 1\nb: 1\na: 2\n", "cal, line 4: 'a' stands in it twice"),
    ],
)
def test_damaged_caches_are_refused(data, words):
    with pytest.raises(ArtifactError) as caught:
        read_trt_cache(data, "cal")
    assert words in str(caught.value)
    assert "\n  fix: " in str(caught.value)


def test_a_cache_is_written_in_eight_digits_of_the_scale():
    written = write_trt_cache(table({"input": 127.0, "relu_1_out": 1.0, "tiny": 1e-43, "dead": 0.0}))
    assert written.splitlines() == [
        HEAD,
        "dead: 00000000",
        "input: 3f800000",
        "relu_1_out: 3c010204",
        "tiny: 00000001",
    ]


def test_modelopt_gets_what_its_reader_takes():
    """As ``import_scales_from_calib_cache`` of ModelOpt 0.47 reads it, in other words."""
    amax = {"input": 2.64, "relu_1_out": 1.0, "dead": 0.0, "gone": 1e-44}
    lines = write_modelopt(table(amax)).splitlines()[1:]
    scales = {}
    for line in lines:
        tensor, digits = line.split(": ")
        (scales[f"{tensor}_scale"],) = struct.unpack("!f", bytes.fromhex(digits))
    assert scales == {"input_scale": float(np.float32(2.64 / 127)), "relu_1_out_scale": float(np.float32(1 / 127))}


@pytest.mark.parametrize("write", [write_trt_cache, write_modelopt])
def test_ranges_of_an_equalized_network_are_not_written_for_another(write):
    bent = table({"input": 1.0}, Corrections(equalization={"relu_1_out": (1.0, 2.0)}))
    with pytest.raises(SpecError, match=r"after equalization(.|\n)*--quality fast"):
        write(bent)


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), min_size=1).filter(str.strip),
        st.floats(0, 2.0**120, width=32),
        min_size=1,
    )
)
def test_what_is_written_reads_back_and_quantizes_alike(amax):
    cache = read_trt_cache(write_trt_cache(table(amax)))
    assert cache.scales == {name: float(np.float32(value / 127)) for name, value in amax.items()}
    again = table({name: scale * 127 for name, scale in cache.scales.items()})
    assert read_trt_cache(write_trt_cache(again)) == cache


def test_tensors_are_matched_by_their_own_names_and_by_those_given():
    cache = TrtCache(HEAD, {"images": 0.5, "relu_1_out": 0.25, "conv_2_out": 2.0, "output": 3.0, "9": 1.0})
    found = from_cache(cache, net(), NEEDED)
    assert found.amax == {"relu_1_out": 31.75, "flatten_1_out": 254.0}, "a Flatten holds what it reads"
    assert found.unmatched == ("images", "output", "9")
    assert found.missing == ("input",)
    assert found.matched == 2
    found = from_cache(cache, net(), NEEDED, {"images": "input", "9": "flatten_1_out"})
    assert found.amax == {"input": 63.5, "relu_1_out": 31.75, "flatten_1_out": 127.0}
    assert (found.unmatched, found.missing, found.matched) == (("output",), (), 4)


def test_a_given_name_counts_more_than_the_tensors_own():
    cache = TrtCache(HEAD, {"input": 0.5, "relu_1_out": 0.25, "logits": 1.0})
    found = from_cache(cache, net(), NEEDED, {"relu_1_out": "input"})
    assert found.amax == {"input": 31.75}
    assert (found.unmatched, found.missing) == (("input",), ("relu_1_out", "flatten_1_out"))


def test_a_scoped_name_gives_way_to_the_tensors_own():
    model = net()
    model.graph.node[1].metadata_props.add(key="dlcv_deploy.module", value="act")
    cache = TrtCache(HEAD, {"/act/Relu_output_0": 1.0, "relu_1_out": 0.25})
    found = from_cache(cache, model, NEEDED)
    assert found.amax == {"relu_1_out": 31.75}
    assert found.unmatched == ("/act/Relu_output_0",)
    assert from_cache(TrtCache(HEAD, {"/act/Relu_output_0": 1.0}), model, NEEDED).amax == {"relu_1_out": 127.0}


def test_what_changes_values_hands_no_range_on():
    cache = TrtCache(HEAD, {"input": 1.0, "conv_1_out": 1.0})
    assert from_cache(cache, net(), NEEDED).missing == ("relu_1_out", "flatten_1_out")


def test_zero_is_a_range():
    assert from_cache(TrtCache(HEAD, {"input": 0.0}), net(), NEEDED).amax == {"input": 0.0}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"image": "input"}, "'image' is not in the cache\n  fix: its names are images, "),
        (
            {"images": "inputs"},
            "'inputs', which 'images' is to mean, is no tensor of the network\n  fix: those that need",
        ),
        ({"images": "input", "9": "input"}, "two names in the cache are to mean 'input'"),
        ({"images": "k"}, "'k', which 'images' is to mean, is no tensor"),
    ],
)
def test_names_that_fit_neither_the_cache_nor_the_network_are_refused(names, words):
    with pytest.raises(ArtifactError) as caught:
        from_cache(TrtCache(HEAD, {"images": 1.0, "9": 1.0}), net(), NEEDED, names)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "it does not give each name a tensor"),
        ('{"a": 1}', "it does not give each name a tensor"),
        ('{"a": "b", "a": "c"}', "a name stands in it twice"),
        ("{", "names.json cannot be read"),
        (b"\xff", "names.json cannot be read"),
        ("[" * 100_000, "names.json cannot be read"),
    ],
)
def test_damaged_names_are_refused(text, words):
    with pytest.raises(ArtifactError) as caught:
        read_names(text, "names.json")
    assert words in str(caught.value)
    assert "fix: write it as" in str(caught.value)


def test_names_are_an_object_of_strings():
    assert read_names(b'{"a: b": "input"}') == {"a: b": "input"}


@pytest.mark.parametrize("asked", [{"to_trt": Path("t")}, {"to_modelopt": Path("m")}])
def test_no_cache_of_an_equalized_network_is_begun(asked):
    files = CacheFiles(**asked)
    with pytest.raises(SpecError, match="after equalization"):
        files.check(BuildSpec("resnet20", "int8", calib="photos"))
    files.check(BuildSpec("resnet20", "int8", calib="photos", quality="fast"))
