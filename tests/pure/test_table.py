"""Tables read back as they were written, and are refused where they do not belong."""

import dataclasses as dc
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcv_deploy.calibration import table as tables
from dlcv_deploy.calibration.table import CalibrationTable, Statistics, bundled, check_belongs
from dlcv_deploy.digest import digest
from dlcv_deploy.errors import ArtifactError, SpecError
from dlcv_deploy.types import Corrections, Preprocess

PRE = Preprocess(32, 40, "pad", (0.4914, 0.4822, 0.4465), (0.2, 0.2, 0.2))
TABLE = CalibrationTable(
    model="resnet20",
    weights_sha256="a" * 64,
    graph_sha256="b" * 64,
    preprocess=PRE,
    method="mse",
    samples="2 drawn images (not photographs)",
    samples_sha256="c" * 64,
    images=2,
    random=False,
    amax={"relu": 6.25, "input": 2.0, "dead": 0.0},
    corrections=Corrections(
        ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        {"relu": (1.0, 0.5)},
        bias={"conv_1": (0.25, -1e-5)},
        rounding={"conv_1": "eJxjZAAAAAMAAg=="},
        float_sums=True,
        float_nodes=("conv_9",),
    ),
    statistics={"relu": Statistics(7.5, 3, 4)},
    versions={"onnxruntime": "1.31.1"},
)
NETWORK = {
    "model": "resnet20",
    "weights_sha256": "a" * 64,
    "graph_sha256": "b" * 64,
    "preprocess": PRE,
    "tensors": ["input", "relu", "dead"],
}


def test_the_text_is_one_tensor_a_line_in_order_of_names():
    assert TABLE.to_json() == (
        "{\n"
        '"schema": 2,\n'
        '"model": "resnet20",\n'
        f'"weights_sha256": "{"a" * 64}",\n'
        f'"graph_sha256": "{"b" * 64}",\n'
        '"method": "mse",\n'
        '"samples": "2 drawn images (not photographs)",\n'
        f'"samples_sha256": "{"c" * 64}",\n'
        '"images": 2,\n'
        '"random": false,\n'
        '"versions": {"onnxruntime": "1.31.1"},\n'
        '"preprocess": {"size": 32, "canvas": 40, "fit": "pad", '
        '"mean": [0.4914, 0.4822, 0.4465], "std": [0.2, 0.2, 0.2]},\n'
        '"amax": {\n  "dead": 0.0,\n  "input": 2.0,\n  "relu": 6.25\n},\n'
        '"statistics": {\n  "relu": [7.5, 3, 4, false]\n},\n'
        '"corrections": {\n'
        '"pixels": [[0.5, 0.5, 0.5], [0.25, 0.25, 0.25]],\n'
        '"float_sums": true,\n'
        '"float_nodes": ["conv_9"],\n'
        '"equalization": {\n  "relu": [1.0, 0.5]\n},\n'
        '"gain": {},\n'
        '"bias": {\n  "conv_1": [0.25, -1e-05]\n},\n'
        '"rounding": {\n  "conv_1": "eJxjZAAAAAMAAg=="\n}\n'
        "}\n"
        "}\n"
    )


@given(
    amax=st.dictionaries(st.text(min_size=1), st.floats(0, allow_infinity=False), min_size=1),
    words=st.text(),
    images=st.integers(0, 10**9),
    mean=st.tuples(*[st.floats(-1, 1)] * 3),
    std=st.tuples(*[st.floats(1e-6, 10)] * 3),
    random=st.booleans(),
)
def test_a_table_reads_back_as_it_was(amax, words, images, mean, std, random):
    pre = Preprocess(224, 256, "resize", mean, std)
    table = dc.replace(TABLE, amax=amax, samples=words, images=images, preprocess=pre, random=random)
    again = CalibrationTable.from_json(table.to_json())
    assert again == table
    assert list(again.amax) == sorted(amax)
    assert again.to_json() == table.to_json()


def test_a_table_can_be_named_by_its_content():
    assert digest(table=TABLE) == digest(table=CalibrationTable.from_json(TABLE.to_json().encode()))


def changed(**fields):
    document = {**json.loads(TABLE.to_json()), **fields}
    return json.dumps({name: value for name, value in document.items() if value is not ...})


def corrected(**fields):
    return changed(corrections={**json.loads(TABLE.to_json())["corrections"], **fields})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        (TABLE.to_json()[:-20], "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "no JSON object"),
        (changed(schema=1), "its schema is 1, and this version reads 2"),
        (changed(schema=...), "its schema is None"),
        (changed(method=...), "method is missing"),
        (changed(images="2"), "images is '2'"),
        (changed(images=True), "images is True"),
        (changed(images=-1), "measured on -1 images"),
        (changed(random=0), "random is 0"),
        (changed(extra=1), "extra is unknown"),
        (changed(amax=[1.0]), "amax is"),
        (changed(amax={}), "a table of 0 tensors"),
        (changed(amax={"relu": -1.0}), "tensor 'relu' cannot be -1.0"),
        (changed(amax={"relu": math.nan}), "relu is nan"),
        (changed(amax={"relu": math.inf}), "relu is inf"),
        (changed(amax={"relu": True}), "relu is True"),
        (changed(amax={"relu": "1"}), "relu is '1'"),
        (TABLE.to_json().replace('"input"', '"relu"'), "a name stands in it twice"),
        (changed(preprocess={"size": 32}), "preprocess.canvas is missing"),
        (changed(preprocess={**dc.asdict(PRE), "fit": "crop"}), "preprocess.fit is 'crop'"),
        (changed(preprocess={**dc.asdict(PRE), "mean": [0.5]}), "preprocess.mean has 1 numbers"),
        (changed(preprocess={**dc.asdict(PRE), "std": [1, 1, 0]}), "do not normalize"),
        (changed(preprocess={**dc.asdict(PRE), "size": 64}), "does not fit"),
        (changed(statistics={"relu": [1.0, 2, 3]}), "statistics.relu is"),
        (changed(statistics={"relu": [1.0, -2, 3, False]}), "statistics.relu is"),
        (changed(corrections={}), "corrections.equalization is missing"),
        (corrected(pixels=[1, 2]), "corrections.pixels has no numbers"),
        (corrected(pixels=3), "corrections.pixels is 3"),
        (corrected(bias={"conv_1": [0.5, "1"]}), "corrections.bias.conv_1 is '1'"),
        (corrected(gain={"conv_1": 1}), "corrections.gain.conv_1 is 1"),
        (corrected(rounding={"conv_1": 7}), "corrections.rounding.conv_1 is 7"),
        (corrected(float_nodes=[1]), "corrections.float_nodes is [1]"),
        (corrected(better=True), "corrections.better is unknown"),
    ],
)
def test_damaged_tables_are_refused(text, words):
    with pytest.raises(ArtifactError, match="my table cannot be read") as e:
        CalibrationTable.from_json(text, name="my table")
    assert words in str(e.value)
    assert "calibrate again" in e.value.fix


@given(st.integers(0, len(TABLE.to_json()) - 3))
def test_a_table_cut_off_anywhere_is_refused(length):
    with pytest.raises(ArtifactError):
        CalibrationTable.from_json(TABLE.to_json()[:length])


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_no_table_holds_an_impossible_range(value):
    with pytest.raises(SpecError, match="'relu' cannot be"):
        dc.replace(TABLE, amax={"relu": value})


def test_a_table_belongs_to_its_network():
    check_belongs(TABLE, **NETWORK)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"model": "resnet32"}, "it is of resnet20, not resnet32"),
        ({"weights_sha256": "d" * 64}, f"its weights are {'a' * 12}, not {'d' * 12}"),
        ({"graph_sha256": "d" * 64}, f"its graph is {'b' * 12}, not {'d' * 12}"),
        ({"preprocess": dc.replace(PRE, mean=(0.5, 0.5, 0.5))}, "its images had mean (0.4914, 0.4822, 0.4465), not"),
        ({"preprocess": dc.replace(PRE, fit="resize")}, "its images had fit pad, not resize"),
        ({"tensors": ["input", "relu", "dead", "u", "v", "w", "x"]}, "no range for u, v, w and 1 more"),
        ({"tensors": ["input", "relu"]}, "ranges for dead, which this graph does not quantize"),
    ],
)
def test_a_table_of_something_else_is_refused(other, words):
    with pytest.raises(ArtifactError, match="does not belong") as e:
        check_belongs(TABLE, **{**NETWORK, **other})
    assert words in str(e.value)
    assert str(e.value).count(";") == 0  # only what differs is named
    assert "calibrate again" in e.value.fix


def test_everything_that_differs_is_named():
    with pytest.raises(ArtifactError, match=r"of resnet20.*weights.*graph"):
        check_belongs(TABLE, **{**NETWORK, "model": "m", "weights_sha256": "d" * 64, "graph_sha256": "d" * 64})


def test_bundled_tables_are_found_by_their_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "files", lambda package: tmp_path)
    assert bundled("a" * 64) is None
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "notes.txt").write_text("not a table")
    (folder / "a.json").write_text(dc.replace(TABLE, weights_sha256="e" * 64).to_json())
    (folder / "b.json").write_text(TABLE.to_json())
    assert bundled("a" * 64) == TABLE
    assert bundled("f" * 64) is None
    (folder / "a.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"the bundled table a\.json cannot be read"):
        bundled("a" * 64)


def test_the_tables_that_come_with_the_package_are_sound():
    assert bundled("0" * 64) is None
