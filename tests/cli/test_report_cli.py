"""``dlcv-deploy report``, and the pages of ``validate`` and ``bench``."""

import json
import shutil
import webbrowser

import pytest
from helpers import reports

from dlcv_deploy import cli_report
from dlcv_deploy.latency.values import LatencyReport
from dlcv_deploy.parity.values import ParityReport
from dlcv_deploy.report.document import to_json


@pytest.fixture
def loose(built, tmp_path):
    """A report.json by itself."""
    return shutil.copy(built[0] / "report.json", tmp_path / "r20.json")


def test_a_bundle_holds_its_page_and_the_command_prints_where(run, built):
    done = run("report", built[0])
    assert done.code == 0
    assert done.out == f"{built[0]}/report.html\n"
    text = (built[0] / "report.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "RANDOM WEIGHTS" in text
    assert "report.html" in json.loads((built[0] / "manifest.json").read_text())["files"]


def test_classes_have_the_names_that_lie_beside_a_report(run, tmp_path):
    (tmp_path / "report.json").write_text(to_json(reports.full()), encoding="utf-8")
    (tmp_path / "labels.txt").write_text("".join(f"name {i}\n" for i in range(10)), encoding="utf-8")
    assert run("report", tmp_path / "report.json").out == f"{tmp_path}/report.html\n"
    assert "<b>name 0</b> → <b>name 1</b>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_report_of_its_own_gets_a_page_beside_it(run, loose, tmp_path):
    done = run("report", loose)
    assert (done.code, done.out) == (0, f"{tmp_path}/r20.html\n")
    assert "RANDOM WEIGHTS" in (tmp_path / "r20.html").read_text(encoding="utf-8")


def test_a_page_is_written_where_it_was_asked_for(run, built, tmp_path):
    done = run("report", built[0], "-o", tmp_path / "page.html")
    assert done.out == f"{tmp_path}/page.html\n"
    assert (tmp_path / "page.html").read_bytes() == (built[0] / "report.html").read_bytes()


@pytest.mark.parametrize(("kind", "start"), [("md", "# resnet20, INT8"), ("json", "{"), ("text", "resnet20 INT8")])
def test_other_formats_are_printed_or_written(run, built, tmp_path, kind, start):
    printed = run("report", built[0], "--format", kind)
    assert printed.code == 0
    assert printed.out.startswith(start)
    written = run("report", built[0], "--format", kind, "-o", tmp_path / "out")
    assert written.out == f"{tmp_path}/out\n"
    assert (tmp_path / "out").read_text(encoding="utf-8") == printed.out
    if kind in ("md", "json"):
        assert printed.out == (built[0] / f"report.{kind}").read_text(encoding="utf-8")


def test_open_shows_the_page_where_there_is_a_display(run, built, monkeypatch):
    shown = []
    monkeypatch.setattr(webbrowser, "open", lambda url: shown.append(url) or True)
    monkeypatch.setenv("DISPLAY", ":0")
    done = run("report", built[0], "--open")
    assert (done.code, done.err) == (0, "")
    assert shown == [(built[0] / "report.html").absolute().as_uri()]


@pytest.mark.parametrize("display", ["", ":0"])
def test_open_says_where_the_page_is_where_nothing_can_show_it(run, built, monkeypatch, display):
    monkeypatch.setattr(cli_report.sys, "platform", "linux")
    monkeypatch.setattr(webbrowser, "open", lambda url: False if display else pytest.fail("opened"))
    for name in ("WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", display)
    done = run("report", built[0], "--open")
    assert done.code == 0
    assert f"open {built[0] / 'report.html'} where there is one" in done.err


def test_bad_requests_are_refused(run, built, bundle, tmp_path):
    assert run("report", tmp_path / "none.dlcv").code == 5
    (tmp_path / "x.json").write_text("{}")
    done = run("report", tmp_path / "x.json")
    assert done.code == 5
    assert "names no schema version" in done.err
    done = run("report", built[0], "-o", tmp_path / "no/such/page.html")
    assert done.code == 2
    assert "there is no folder" in done.err
    done = run("report", built[0], "--format", "md", "--open")
    assert done.code == 2
    assert "--open shows the HTML page" in done.err
    (bundle / "report.html").write_text("altered")
    done = run("report", bundle)
    assert done.code == 5
    assert "report.html has 7 bytes" in done.err


def test_a_bundle_without_a_page_gets_one_beside_it(run, bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["files"]["report.html"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    (bundle / "report.html").unlink()
    done = run("report", bundle)
    assert done.out == f"{bundle.with_suffix('.html')}\n"
    assert bundle.with_suffix(".html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_validate_and_bench_write_their_pages(run, built, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "dlcv_deploy.validate.validate", lambda *_, **__: ParityReport("x", 1, 1, False, None, None, ())
    )
    monkeypatch.setattr("dlcv_deploy.bench.bench", lambda *_, **__: LatencyReport("cpu", 2, ()))
    for words, said in ((("validate", "--data", "x"), "r20: parity"), (("bench",), "r20: latency")):
        done = run(words[0], built[0], *words[1:], "--html", tmp_path / "page.html")
        assert done.code == 0, done.err
        assert f"page    {tmp_path}/page.html" in done.err
        assert f"<h1>{said}</h1>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    done = run("bench", built[0], "--html", tmp_path / "no/page.html")
    assert done.code == 2
    assert "there is no folder" in done.err
