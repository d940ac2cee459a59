"""A report as JSON, both ways, and the schema that others read it by."""

import dataclasses as dc
import json
import math
import os
from pathlib import Path

import jsonschema
import pytest
from helpers.reports import bare, full, latency, ten

from dlcv_deploy.errors import ArtifactError
from dlcv_deploy.parity.values import Flip
from dlcv_deploy.report import schema
from dlcv_deploy.report.document import SCHEMA, Report, from_json, plain, to_json
from dlcv_deploy.types import StageTime

PUBLISHED = Path(__file__).parents[2] / "docs" / "report.schema.json"
VALIDATOR = jsonschema.Draft202012Validator(schema.json_schema())


def test_json_comes_back_equal():
    report = dc.replace(full(), parity=full().parity[:1], latency=None)
    assert from_json(to_json(report)) == report
    for each in (full(), bare()):
        assert to_json(from_json(to_json(each))) == to_json(each)


def test_json_is_stable_strict_and_starts_with_its_schema():
    text = to_json(full())
    assert text == to_json(full())
    value = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert list(value)[:2] == ["schema", "tool_version"]
    assert value["schema"] == SCHEMA == 2
    assert list(value)[1:] == [field.name for field in dc.fields(Report)]
    assert value["parity"][1]["legs"][0]["logit_sqnr_db"] is None  # infinity
    assert json.loads(to_json(bare()))["parity"][0]["legs"][0]["logit_max_abs"] is None  # NaN


def test_plain_is_what_json_knows():
    assert plain((1, math.inf, {"a": StageTime("s", math.nan, False)})) == [
        1,
        None,
        {"a": {"name": "s", "seconds": None, "reused": False}},
    ]


def test_a_null_number_reads_as_nan():
    report = from_json(to_json(dc.replace(full(), stages=(StageTime("s", math.inf, False),))))
    assert math.isnan(report.stages[0].seconds)


def edited(change):
    value = json.loads(to_json(full()))
    change(value)
    return json.dumps(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "names no schema"),
        ("{}", "names no schema"),
        (
            edited(lambda v: v.update(schema=1)),
            "(?s)schema version 1, and this dlcv-deploy reads 2.*read it with the dlcv-deploy that wrote it",
        ),
        (edited(lambda v: v.pop("model")), "report lacks model"),
        (edited(lambda v: [v.pop("model"), v.pop("weights")]), "report lacks model, weights"),
        (edited(lambda v: v["weights"].pop("licence")), "report.weights lacks licence"),
        (edited(lambda v: v["parity"][0]["legs"][1].pop("top1")), r"report.parity\[0\].legs\[1\] lacks top1"),
        (edited(lambda v: v.update(more=1)), "report holds unknown more"),
        (edited(lambda v: v.update(model=3)), "report.model of the report is 3"),
        (edited(lambda v: v.update(precision="int4")), 'report.precision of the report is "int4"'),
        (edited(lambda v: v.update(weights=[])), r"report.weights of the report is \[\]"),
        (edited(lambda v: v.update(stages={})), "report.stages of the report is {}"),
        (edited(lambda v: v["weights"].update(trained=1)), "report.weights.trained of the report is 1"),
        (edited(lambda v: v["calibration"].update(images=True)), "report.calibration.images of the report is true"),
        (edited(lambda v: v["stages"][0].update(seconds="1")), r'report.stages\[0\].seconds of the report is "1"'),
        (edited(lambda v: v["preprocess"].update(mean=[0, 0])), r"report.preprocess.mean of the report is \[0, 0\]"),
        (edited(lambda v: v["preprocess"].update(std=[0, 1, 1])), "report.preprocess of the report cannot be: mean"),
        (edited(lambda v: v["environment"]["packages"].update(torch=2)), "report.environment.packages.torch .* is 2"),
    ],
)
def test_another_or_damaged_report_is_refused(text, message):
    with pytest.raises(ArtifactError, match=message):
        from_json(text)


def test_names_that_are_no_utf_8_are_escaped():
    leg = dc.replace(ten().legs[1], flips=(Flip(0, "a\udcff.png", 0, 0, 1),))
    text = to_json(dc.replace(full(), parity=(dc.replace(ten(), legs=(leg,)),)))
    assert json.loads(text.encode())["parity"][0]["legs"][0]["flips"][0]["name"] == "a\\udcff.png"


def test_the_published_schema_is_that_of_the_code():
    if os.environ.get("DLCV_UPDATE_GOLDEN"):
        PUBLISHED.write_text(schema.to_json(), encoding="utf-8")
    assert schema.to_json() == PUBLISHED.read_text(encoding="utf-8"), "set DLCV_UPDATE_GOLDEN=1 to write it anew"


def test_the_schema_is_one_and_describes_its_fields():
    found = schema.json_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    flip = found["$defs"]["Flip"]["properties"]
    assert flip["label"] == {
        "type": "integer",
        "description": "`label` is -1 where none is known; `reference` or `candidate` is -1 where it answered NaN or"
        " infinity.",
    }
    assert flip["margin_before"] == {"type": ["number", "null"]}
    assert found["$defs"]["Leg"]["properties"]["step"] == {"anyOf": [{"$ref": "#/$defs/Step"}, {"type": "null"}]}
    assert found["$defs"]["Preprocess"]["properties"]["mean"]["minItems"] == 3
    assert "None" not in schema.to_json()


@pytest.mark.parametrize("report", [full(), bare()], ids=["full", "bare"])
def test_reports_are_valid(report):
    VALIDATOR.validate(json.loads(to_json(report)))


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(schema=1),
        lambda v: v.pop("model"),
        lambda v: v.update(more=1),
        lambda v: v.update(precision="int4"),
        lambda v: v.update(model=None),
        lambda v: v["parity"][0]["legs"][1].pop("top1"),
        lambda v: v["parity"][0]["legs"][1]["flips"][0].update(label=0.5),
        lambda v: v["parity"][0]["legs"][1]["verdicts"][0].update(outcome="perhaps"),
        lambda v: v["latency"]["rows"][0]["quantiles"][0].update(ms="1"),
        lambda v: v["latency"]["validity"]["facts"].update(load=1.5),
        lambda v: v["latency"]["settings"].update(x={"threads": 2}),
        lambda v: v["preprocess"].update(mean=[0, 0]),
        lambda v: v["preprocess"].update(mean=[0, 0, 0, 0]),
        lambda v: v["consistency"][0]["checks"][0].update(passed="yes"),
        lambda v: v["drift"][0]["layers"][0].pop("module"),
    ],
)
def test_what_is_no_report_is_not_valid(change):
    value = json.loads(to_json(full()))
    change(value)
    assert list(VALIDATOR.iter_errors(value))
    with pytest.raises(ArtifactError):
        from_json(json.dumps(value))


def part(name):
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schema.json_schema()["$defs"]})


def test_what_validate_and_bench_print_has_its_own_schema():
    part("LatencyReport").validate(plain(latency()))
    part("ParityReport").validate(plain(ten()))
    printed = {**plain(ten()), "verdict": {"outcome": "shown", "sentences": ["so"]}, "failures": []}
    part("Validation").validate(printed)
    printed["verdict"]["outcome"] = None
    part("Validation").validate(printed)
    for wrong in (plain(ten()), {**printed, "failures": [1]}, {**printed, "verdict": {"outcome": "shown"}}):
        assert list(part("Validation").iter_errors(wrong))
    assert list(part("ParityReport").iter_errors(printed))
    assert list(part("LatencyReport").iter_errors(plain(ten())))
