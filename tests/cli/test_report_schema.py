"""What the command line writes as JSON is as the published schema says."""

import json
from pathlib import Path

import jsonschema
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

PUBLISHED = Path(__file__).parents[2] / "docs" / "report.schema.json"
SCHEMA = json.loads(PUBLISHED.read_text(encoding="utf-8"))


def check(value, part):
    jsonschema.Draft202012Validator({"$ref": f"#/$defs/{part}", "$defs": SCHEMA["$defs"]}).validate(value)


def test_a_build_writes_a_valid_report(built):
    path, printed, _ = built
    jsonschema.Draft202012Validator(SCHEMA).validate(printed)
    assert json.loads((path / "report.json").read_text(encoding="utf-8")) == printed
    check(printed["latency"], "LatencyReport")
    assert printed["commands"][0].startswith("dlcv-deploy build resnet20 --int8 --weights random --calib ")


def test_what_validate_prints_is_valid(built, run, photos):
    found = run("validate", built[0], "--data", photos, "--count", 4, "--crops", 1, "--json")
    check(found.value, "Validation")


def test_the_command_line_prints_the_schema(run):
    found = run("report", "--schema")
    assert (found.code, found.out) == (0, PUBLISHED.read_text(encoding="utf-8"))
