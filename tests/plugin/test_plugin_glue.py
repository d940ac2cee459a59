"""The plugin's side of TensorRT's interface, played through without TensorRT: fields, clones, formats, shapes."""

import subprocess
from pathlib import Path

import pytest

from dlcv_deploy.plugin.library import FILE
from dlcv_deploy.plugin.toolchain import find_toolchain

SOURCE = Path(__file__).with_name("glue.cpp")
LRN = "size=i5 alpha=f5e-4 beta=f0.75 bias=f2"
POOL = "kernel_shape=i3,3 strides=i2,2 pads=i0,0,1,1"
SCALES = "input_scale=f0.5 output_scale=f0.25"
NUMBERS = "size=5 alpha=0.0005 beta=0.75 bias=2"
FLOATS, INT8 = "0:0 1:0 1:2", "2:3 2:5"
"""DataType and TensorFormat by number: kFLOAT 0, kHALF 1, kINT8 2; kLINEAR 0, kHWC8 2, kCHW4 3, kCHW32 5."""


@pytest.fixture(scope="module")
def glue(plugin_library, tmp_path_factory):
    """Runs the driver; returns what it printed, by the first word of each line."""
    folder = tmp_path_factory.mktemp("glue")
    (folder / FILE).write_bytes(plugin_library.data)
    tools = find_toolchain()
    headers = ["-isystem", str(tools.headers.folder)]  # nvcc knows where CUDA's own are
    command = [str(tools.nvcc.path), "-std=c++17", "-cudart", "none", *headers, str(SOURCE), "-o", str(folder / "glue")]
    subprocess.run(command, check=True)

    def run(op, fields):
        done = subprocess.run(
            [str(folder / "glue"), str(folder / FILE), op, fields], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        found = {}
        for line in done.stdout.splitlines():
            word, _, rest = line.partition(" ")
            found.setdefault(word, []).append(rest)
        return found

    return run


@pytest.mark.parametrize(
    ("op", "given", "back"),
    [
        ("DlcvLRN", LRN, f"{NUMBERS} input_scale=0 output_scale=0"),
        ("DlcvLRN", f"{LRN} {SCALES}", f"{NUMBERS} input_scale=0.5 output_scale=0.25"),
        (
            "DlcvLRNMaxPool",
            f"{POOL} {LRN} plugin_version=i1",
            f"{NUMBERS} input_scale=0 output_scale=0 kernel_shape=3,3 strides=2,2 pads=0,0,1,1",
        ),
    ],
)
def test_fields_come_back_from_a_clone_a_context_and_serialization(glue, op, given, back):
    said = glue(op, given)
    assert said["created"] == ["1"]
    assert said["fields"] == [f"{who} {back}" for who in ("plugin", "clone", "attached", "again")]


def test_one_type_in_and_out(glue):
    assert glue("DlcvLRN", LRN)["types"] == ["1 -1"]


def test_formats(glue):
    assert glue("DlcvLRN", LRN)["formats"] == [FLOATS]
    assert glue("DlcvLRN", f"{LRN} {SCALES}")["formats"] == [f"{FLOATS} {INT8}"]
    assert glue("DlcvLRNMaxPool", f"{LRN} {POOL} {SCALES}")["formats"] == [f"{FLOATS} {INT8}"]


def test_shapes(glue):
    said = glue("DlcvLRN", LRN)
    assert said["shape"] == ["0 2 96 55 55", "0 2 96 56 13", "-1"]
    assert said["changes"] == ["0 -1 -1"]
    pooled = glue("DlcvLRNMaxPool", f"{LRN} {POOL}")
    assert pooled["shape"] == ["0 2 96 27 27", "0 2 96 28 6", "-1"]
    assert pooled["changes"] == ["-1 0 -1"]
    assert "DlcvLRN: it takes batch, channels, height and width, not 3 dimensions" in said["log"]
    assert "DlcvLRN: its answer is 55x55, and it was given room for 27x27" in said["log"]
    assert "DlcvLRN: it was given types or formats that it does not support" in said["log"]


@pytest.mark.parametrize(
    ("op", "fields", "words"),
    [
        ("DlcvLRN", "alpha=f1", "attribute 'size' is missing"),
        ("DlcvLRN", "size=i4", "size must be odd: an even window has no centre"),
        ("DlcvLRN", "size=i17", "size must be 1 to 15"),
        ("DlcvLRN", f"{LRN} k=f2", "there is no attribute 'k'"),
        ("DlcvLRN", f"{LRN} {POOL}", "there is no attribute 'kernel_shape'"),
        ("DlcvLRN", "size=f5", "attribute 'size' must be 1 32-bit integers"),
        ("DlcvLRN", "size=i5 bias=f-1", "bias must not be negative"),
        ("DlcvLRN", f"{LRN} input_scale=f0.5", "int8 needs input_scale and output_scale above 0"),
        ("DlcvLRN", f"{LRN} input_scale=f-0.5 output_scale=f1", "int8 needs input_scale and output_scale above 0"),
        ("DlcvLRNMaxPool", f"{LRN} kernel_shape=i3", "attribute 'kernel_shape' must be 2 32-bit integers"),
        ("DlcvLRNMaxPool", f"{LRN} {POOL.replace('3,3', '16,3')}", "kernel_shape must be 1 to 15"),
        ("DlcvLRNMaxPool", f"{LRN} {POOL.replace('2,2', '0,2')}", "strides must be 1 or more"),
        ("DlcvLRNMaxPool", f"{LRN} {POOL.replace('1,1', '3,1')}", "pads must be smaller than kernel_shape"),
        ("DlcvLRNMaxPool", LRN, "attribute 'kernel_shape' is missing"),
    ],
)
def test_attributes_that_are_refused_in_words(glue, op, fields, words):
    said = glue(op, fields)
    assert said["created"] == ["0"]
    assert said["log"] == [f"{op}: {words}"]
