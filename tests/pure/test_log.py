import logging

import pytest

from dlcv_deploy.log import NativeLog


def test_severities_are_sorted_and_repeats_dropped(caplog):
    log = NativeLog("it")
    with caplog.at_level(logging.DEBUG, "dlcv_deploy.it"):
        for severity in ("VERBOSE", "INFO", "WARNING", "ERROR", "INTERNAL_ERROR", "WARNING", "NEW"):
            log.record(severity, f" {severity.lower()}\n")
    assert log.warnings == ["warning"]
    assert log.errors == ["error", "internal_error", "new"]
    assert log.take_errors() == "error\ninternal_error\nnew"
    assert log.take_errors() == ""
    assert [r.levelno for r in caplog.records] == [logging.DEBUG] + [logging.INFO] * 6


def test_nothing_is_printed(capfd):
    NativeLog("it").record("ERROR", "loud")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["100 %", "%s %d", "{}"])
def test_percent_signs_are_text(caplog, text):
    with caplog.at_level(logging.DEBUG):
        NativeLog("it").record("INFO", text)
    assert caplog.records[0].getMessage() == text
