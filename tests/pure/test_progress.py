"""A bar on a terminal says how fast it goes, where that is of interest; elsewhere there is none."""

import io
import re

import pytest

from dlcv_deploy.progress import silent, terminal


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("unit", ["images", ""])
def test_a_rate_is_shown_for_units_that_have_a_name(monkeypatch, unit):
    now = iter([100.0])
    stderr = Terminal()
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setattr("dlcv_deploy.progress.monotonic", lambda: next(now, 104.0))
    with terminal("calibrate", 8, unit) as advance:
        for _ in range(4):
            advance(2)
    text = stderr.getvalue()
    assert "calibrate" in text
    assert "100%" in text
    assert re.findall(r"([\d.]+) images/s", text)[-1:] == (["2"] if unit else [])


def test_nothing_is_shown_elsewhere(monkeypatch):
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    for progress in (terminal, silent):
        with progress("calibrate", 2, "images") as advance:
            advance(2)
    assert stderr.getvalue() == ""
