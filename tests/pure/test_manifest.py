"""What a manifest must be: the rules at the head of manifest.py, each with what breaks it."""

import dataclasses as dc
import json
import os

import pytest
from helpers.bundles import UNREAD
from hypothesis import given
from hypothesis import strategies as st

from dlcv_deploy.bundle import write
from dlcv_deploy.digest import sha256
from dlcv_deploy.manifest import DEEPEST, FIELDS, MANIFEST, MOST_BYTES, Manifest, read_manifest
from dlcv_deploy.messages import Message
from dlcv_deploy.types import Engine, PluginNeed

NEED = PluginNeed("lib.so", "0f" * 32, "10.14.1", (75, 86), ("DlcvLRN",))
ENGINES = (
    Engine("openvino", "CPU", "2026.4", {"model.xml": b"<net/>"}),
    Engine("tensorrt", "SM 8.6", "10.14", {"model.engine": b"e", "lib.so": b"l"}, plugin=NEED),
)


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "b.dlcv", UNREAD, ENGINES, {"model.onnx": b"graph"}, replace=False).path


def why(path, text):
    """What is said of a manifest of this text; empty where nothing is."""
    (path / MANIFEST).write_bytes(text if isinstance(text, bytes) else text.encode())
    found = read_manifest(path)
    if not isinstance(found, Message):
        return ""
    head = f"{path}/{MANIFEST} is damaged: "
    assert found.code == "manifest_damaged"
    assert found.what.startswith(head)
    return found.what[len(head) :]


def document(path):
    return json.loads((path / MANIFEST).read_text())


def test_a_bit_of_a_manifest_is_found_or_changes_nothing(path):
    """At every place: what is in front of the seal is covered by it, and the seal says nothing else."""
    data, good = (path / MANIFEST).read_bytes(), read_manifest(path)
    seal = data.rindex(b',\n  "seal"')
    for at in range(len(data)):
        worse = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
        told = why(path, worse)
        assert told == "it was altered after it was written" if at < seal else told or read_manifest(path) == good
    for cut in range(0, len(data) - 1, 7):
        assert why(path, data[:cut]) == NOT_JSON
    assert why(path, data[:-1]) == ""


def test_a_manifest_without_seal_is_read(path):
    unsealed = document(path)
    assert unsealed.pop("seal") == sha256((path / MANIFEST).read_bytes()[:-81])
    assert why(path, json.dumps({**unsealed, "model": "other"}, indent=2)) == ""
    assert why(path, json.dumps({**unsealed, "model": "other", "seal": "0" * 64})) == ""


NOT_JSON = "it is not a well-formed JSON object"


def test_what_was_written_is_read(path):
    read = read_manifest(path)
    assert isinstance(read, Manifest)
    assert dc.replace(read, engines={}, files={}) == UNREAD
    engine = read.engine("tensorrt", {"model.engine": b"e", "lib.so": b"l"})
    assert engine == ENGINES[1]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"3",
        b"\xff\xfe",
        b'{"model": "\xff"}',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e400}',
        b'{"a": ' + b"9" * 400 + b"}",
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": 01}',
        b'{"a": 1.}',
        b'{"a": +1}',
        b'{"a": "\n"}',
        b'{"a": "\\ud800"}',
        b'{"a\\udc00": 1}',
        b'{"a": "\\x"}',
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "c": 2, "b": 1}}',
        b'{"a": 1,}',
        b"{} {}",
        b"{} // words",
        b"{'a': 1}",
        b'{"a": ' + b"[" * DEEPEST + b"]" * DEEPEST + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'"' + b'\\"' * 100_000,
    ],
    ids=lambda text: repr(text[:16]),
)
def test_what_is_no_json(path, text):
    assert why(path, text) == NOT_JSON


def test_brackets_in_words_and_the_greatest_depth_are_no_harm(path):
    good = document(path)
    deep = {**good, "other": json.loads("[" * (DEEPEST - 1) + "]" * (DEEPEST - 1)), "words": '[[[{"\\' * 100}
    assert why(path, json.dumps(deep)) == ""
    assert why(path, json.dumps({**deep, "other": [deep["other"]]})) == NOT_JSON
    assert why(path, json.dumps({**good, "pair": "\U0001f600"})) == ""


def test_sixteen_mib_and_one_byte_more(path):
    text = json.dumps(document(path)).encode()
    assert why(path, text.ljust(MOST_BYTES)) == ""
    assert why(path, text.ljust(MOST_BYTES + 1)) == "it has more than 16 MiB"


def test_a_manifest_that_cannot_be_read(path, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    assert read_manifest(path).what == f"{path}/manifest.json is damaged: it cannot be read"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda p: p.symlink_to(p), lambda p: p.symlink_to("nowhere")])
def test_a_manifest_that_is_no_file_is_none(path, make):
    (path / MANIFEST).unlink()
    make(path / MANIFEST)
    assert read_manifest(path).code == "not_a_bundle"


@pytest.mark.parametrize("name", ["absent", "a\0b", "x" * 5000])
def test_a_bundle_that_is_not_there(tmp_path, name):
    assert read_manifest(tmp_path / name).code == "no_bundle"


def test_a_file_in_the_place_of_the_bundle(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert read_manifest(tmp_path / "file").code == "not_a_bundle"


@pytest.mark.parametrize(("schema", "code"), [(0, "schema"), (3, "schema"), (5, "schema"), (2**53, "schema")])
def test_another_schema(path, schema, code):
    (path / MANIFEST).write_text(json.dumps({"schema": schema}))
    assert read_manifest(path).code == f"manifest_{code}"


@pytest.mark.parametrize("schema", [-1, True, 4.0, "4", None, [4], 2**53 + 1, 10**30])
def test_a_schema_that_is_no_number_is_damage(path, schema):
    assert why(path, json.dumps({**document(path), "schema": schema})) == (
        "schema is missing, or is not what it must be"
    )


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_is_needed(path, field):
    left = document(path)
    del left[field]
    assert why(path, json.dumps(left)) == f"{field} is missing, or is not what it must be"


BAD = {
    "model": [None, 1, ["a"], "a\nb", "\x7f", "é" * 2049],
    "precision": [None, "int4", "INT8", ["int8"]],
    "trained": [None, 1, 0, "true"],
    "preprocess.size": [0, -1, 41, 16385, 32.0, True, "32"],
    "preprocess.canvas": [31, 16385, 40.0],
    "preprocess.fit": [None, "crop", {}],
    "preprocess.mean": [None, [0.5, 0.5], [0.5] * 4, ["0", 0, 0], [True, 0, 0]],
    "preprocess.std": [[0, 1, 1], [0.0, 1, 1], [-1, 1, 1], [1, 1, None]],
    "inputs": [None, [], {}, [{}], [None], ["x"]],
    "inputs.0.name": [None, "a\0b"],
    "inputs.0.shape": [None, [0], [-1, 3], [2**31], [3.0], [1] * 9, [2**16, 2**15], [10**30], "3"],
    "inputs.0.dtype": [None, 3],
    "outputs": [None, []],
    "classes": [0, -1, 2**31, True, 10.0, "10"],
    "engines": [None, [], {"": {}}, {"a/b": {}}, {"openvino": None}, {"openvino": {}}],
    "engines.openvino.target": [None, "\x1b[2J"],
    "engines.openvino.sm": [None, [0], [-1], [1000], ["86"], [86.0], [True], [86] * 65],
    "engines.openvino.later": [None, 0, "no"],
    "engines.openvino.version": [None, 2026.4, "1\t2"],
    "engines.openvino.notes": [None, "x", [1]],
    "engines.openvino.batch": [None, [1, 2], [0, 1, 2], [2, 1, 3], [1, 3, 2], [1, 1, 1, 1], [1, 2, 2**31], [1.0, 2, 3]],
    "engines.openvino.files": [None, [], {"": "a"}, {"..": "a"}, {"a\\b": "a"}, {"C:a": "a"}, {"a": ""}, {"a": 1}],
    "engines.tensorrt.plugin": [None, {}, "x", [1]],
    "engines.tensorrt.plugin.file": [None, "", "a/b", "/lib.so", "."],
    "engines.tensorrt.plugin.sha256": [None, "", "0F" * 32, "0" * 63, "0" * 65, "0" * 64 + "\n", "\u0663" * 64],
    "engines.tensorrt.plugin.architectures": [None, [], 86, [0]],
    "engines.tensorrt.plugin.ops": [None, "DlcvLRN", [1]],
    "bgr": [None, 0],
    "files": [None, [], {"": {"bytes": 1, "sha256": "0" * 64}}, {"a\x01": {"bytes": 1, "sha256": "0" * 64}}],
    "files.model\\.onnx": [None, {}, 5],
    "files.model\\.onnx.bytes": [-1, 5.0, True, "5", 2**53 + 1, 10**40],
    "files.model\\.onnx.sha256": [None, 5, "x" * 64],
    "factory": [None],
    "contract": [None, "x", {}, [1], ["a", None]],
}


def put(value, where, new):
    """A value with another one in a place, as 'inputs.0.shape'."""
    part, _, rest = where.replace("\\.", "\0").partition(".")
    key = int(part) if isinstance(value, list) else part.replace("\0", ".")
    inner = new if not rest else put(value[key], rest.replace("\0", "\\."), new)
    made = value.copy()
    made[key] = inner
    return made


@pytest.mark.parametrize(("where", "bad"), [(where, bad) for where, all_bad in BAD.items() for bad in all_bad], ids=str)
def test_what_a_field_must_not_be(path, where, bad):
    field = where.split(".")[0]
    told = f"{field} is missing, or is not what it must be"
    assert why(path, json.dumps(put(document(path), where, bad))) == told


GOOD = {
    "model": ["", "é" * 2048],
    "preprocess.mean": [[0, -0.0, 10**18]],
    "preprocess.std": [[1, 1e-300, 1e300]],
    "preprocess.size": [40, 1],
    "inputs.0.shape": [[], [2**31 - 1], [1] * 8],
    "classes": [2**31 - 1],
    "engines": [{}],
    "engines.openvino.sm": [[999, 1]],
    "engines.openvino.notes": [["\n" * 10_000]],
    "engines.openvino.batch": [[1, 1, 1], [1, 2, 2**31 - 1]],
    "files.model\\.onnx.bytes": [0, 2**53],
    "contract": [[], ["\0"]],
}


@pytest.mark.parametrize(("where", "good"), [(w, good) for w, all_good in GOOD.items() for good in all_good], ids=str)
def test_what_a_field_may_be(path, where, good):
    assert why(path, json.dumps(put(document(path), where, good))) == ""


def test_the_first_field_that_is_wrong_is_told(path):
    text = {name: None for name in reversed(FIELDS) if name != "schema"}
    assert why(path, json.dumps({"schema": 4, **text})).startswith("model is missing")
    assert why(path, json.dumps({**text, "schema": 4, "model": ""})).startswith("precision is missing")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(list(FIELDS)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(list(FIELDS)), inner, max_size=4),
    max_leaves=12,
)


@given(field=st.sampled_from(list(FIELDS)), value=JSON)
def test_no_value_of_a_field_is_a_traceback(tmp_path_factory, field, value):
    path = tmp_path_factory.getbasetemp() / "any.dlcv"
    if not path.exists():
        write(path, UNREAD, ENGINES, {"model.onnx": b"graph"}, replace=False)
        (path / "good.json").write_bytes((path / MANIFEST).read_bytes())
    good = json.loads((path / "good.json").read_text())
    (path / MANIFEST).write_text(json.dumps({**good, field: value}))
    found = read_manifest(path)
    assert isinstance(found, Manifest) or found.code in ("manifest_damaged", "manifest_schema")
