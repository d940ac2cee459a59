"""An engine that does not agree with itself ends a build with exit code 1, its bundle written."""

import dataclasses as dc
from types import SimpleNamespace

import pytest
from helpers import reports

from dlcv_deploy import build


@pytest.mark.parametrize("sound", [True, False])
def test_a_failed_check_is_loud(run, monkeypatch, tmp_path, sound):
    report = dc.replace(reports.full(), quantization=None, consistency=reports.consistency(sound))
    monkeypatch.setattr(build, "build", lambda spec, **more: (SimpleNamespace(path=tmp_path), report))
    done = run("build", "resnet20", "--int8", "--json")
    failed = "FAILED: int8 on openvino does not agree with itself (permuted rows): 3 of 64 rows differ by up to 0.5"
    assert done.code == (0 if sound else 1)
    assert (f"{failed}; the bundle is written\n" in done.err) is not sound
    assert done.value["consistency"][0]["engine"] == "int8 on openvino"
