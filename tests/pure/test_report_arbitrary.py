"""Reports of any values that their types allow: every page can be written, and JSON keeps what it can."""

import json
import re

import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dlcv_deploy.latency.values import LatencyReport
from dlcv_deploy.parity.values import ParityReport
from dlcv_deploy.report.document import Report, from_json, plain, read, to_json
from dlcv_deploy.report.html import page as html
from dlcv_deploy.report.markdown import markdown
from dlcv_deploy.report.schema import json_schema
from dlcv_deploy.report.terminal import latency_table, parity_table, table
from dlcv_deploy.types import Preprocess

PREPROCESS = st.just(Preprocess(32, 40, "pad", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))
"""The one value that checks itself."""
SCHEMA = jsonschema.Draft202012Validator(json_schema())

st.register_type_strategy(Preprocess, PREPROCESS)
few = settings(
    max_examples=10,
    deadline=None,
    phases=[Phase.generate],  # such large values take minutes to shrink
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)


def part(name):
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": json_schema()["$defs"]})


@few
@given(st.from_type(Report))
def test_any_report_is_written_and_read(report):
    text = to_json(report)
    SCHEMA.validate(json.loads(text))
    assert to_json(from_json(text)) == text
    for page in (markdown(report), table(report), markdown(from_json(text))):
        page.encode()
        assert not [word for word in ("None", "nan", "inf") if re.search(rf"\b{word}\b", page) and word not in text]
    assert "\x1b" not in table(report)
    html(report).encode()


@few
@given(st.from_type(ParityReport))
def test_any_parity_is_written(report):
    part("ParityReport").validate(plain(report))
    assert parity_table(read(ParityReport, plain(report), "parity"))
    assert parity_table(report)


@few
@given(st.from_type(LatencyReport))
def test_any_latency_is_written(report):
    part("LatencyReport").validate(plain(report))
    assert latency_table(read(LatencyReport, plain(report), "latency"))
    assert latency_table(report)


@pytest.mark.parametrize("name", ["ParityReport", "LatencyReport", "Validation"])
def test_parts_of_the_schema_stand_alone(name):
    with pytest.raises(jsonschema.ValidationError):
        part(name).validate({})
