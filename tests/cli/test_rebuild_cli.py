"""``doctor BUNDLE --rebuild``, on a real bundle."""

import dataclasses as dc
import json

import pytest

from dlcv_deploy.bundle import open_bundle, write
from dlcv_deploy.report import document
from dlcv_deploy.report.renewed import NOT_MEASURED


@pytest.fixture
def aged(bundle, need):
    """A bundle whose engine was compiled by a version that is yet to come."""
    need("onnxruntime")
    opened = open_bundle(bundle)
    engine = dc.replace(opened.engine("onnxruntime"), version="99.0")
    files = {name: opened.read(name) for name in opened.manifest.files}
    write(bundle, opened.manifest, (engine,), files, replace=True)
    return bundle


def test_an_engine_is_compiled_again_and_runs(run, aged):
    assert run("doctor", aged).code == 3
    done = run("doctor", aged, "--rebuild")
    assert done.code == 0
    said, runs = done.out.splitlines()
    assert said.startswith("onnxruntime was compiled again, by version ")
    assert " in place of 99.0, for CPU: the engine for onnxruntime was compiled by ONNX Runtime 99.0, and " in said
    assert "; on the golden images it is " in said
    assert runs == "runs here by onnxruntime"
    assert "compile onnxruntime" in done.err
    assert run("doctor", aged).out == "runs here by onnxruntime\n"
    assert run("inspect", aged).code == 0
    report = document.from_json((aged / "report.json").read_text())
    assert [leg.not_run for leg in report.parity[0].legs if leg.name == "int8 on onnxruntime"] == [NOT_MEASURED]
    assert report.engines[0].audit is not None
    assert report.warnings[-1].startswith("onnxruntime was compiled again")


def test_elsewhere_and_as_json(run, aged, tmp_path):
    before = (aged / "manifest.json").read_bytes()
    done = run("doctor", aged, "--rebuild", "-o", tmp_path / "new.dlcv", "--json")
    assert done.code == 0
    told = done.value["rebuilt"]
    assert told["path"] == str(tmp_path / "new.dlcv")
    assert [(one["backend"], one["before"]) for one in told["engines"]] == [("onnxruntime", "99.0")]
    assert told["left"] == []
    assert done.value["bundle"] == told["path"]
    assert done.value["runs"] == ["onnxruntime"]
    assert (aged / "manifest.json").read_bytes() == before
    again = run("doctor", aged, "--rebuild", "-o", tmp_path / "new.dlcv")
    assert again.code == 5
    assert "new.dlcv exists\n  fix: name another with -o, or remove it" in again.err


def test_nothing_to_mend(run, bundle, need):
    need("onnxruntime")
    before = (bundle / "manifest.json").read_bytes()
    done = run("doctor", bundle, "--rebuild")
    assert (done.code, done.out) == (
        0,
        "there is nothing that compiling again would mend\nruns here by onnxruntime\n",
    )
    assert (bundle / "manifest.json").read_bytes() == before
    assert json.loads(run("doctor", bundle, "--rebuild", "--json").out)["rebuilt"]["engines"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rebuild"], "--rebuild takes a BUNDLE"),
        (["b.dlcv", "-o", "c.dlcv"], "-o goes with --rebuild"),
        (["-o", "c.dlcv"], "-o goes with --rebuild"),
    ],
)
def test_options_that_do_not_go_together(run, words, message):
    done = run("doctor", *words)
    assert done.code == 2
    assert message in done.err
