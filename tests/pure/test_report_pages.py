"""The whole report on a terminal and in Markdown: goldens, widths, and nothing that could break a page."""

import dataclasses as dc
import itertools
import os
from pathlib import Path

import pytest
from helpers.reports import bare, flips, full, latency, ten

from dlcv_deploy.parity.values import Flip, Leg
from dlcv_deploy.report import latency as times
from dlcv_deploy.report import parity, terminal
from dlcv_deploy.report.markdown import markdown
from dlcv_deploy.report.terminal import WIDTH, latency_table, parity_table, table

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = {"full": full, "bare": bare}
PAGES = {"md": markdown, "txt": lambda report: table(report) + "\n"}
GOLDENS = {f"report-{case}.{page}": (CASES[case], PAGES[page]) for case in CASES for page in PAGES} | {
    "validate.txt": (ten, lambda measured: parity_table(measured) + "\n"),
    "bench.txt": (latency, lambda measured: latency_table(measured) + "\n"),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name):
    value, page = GOLDENS[name]
    file, found = GOLDEN / name, page(value())
    if os.environ.get("DLCV_UPDATE_GOLDEN"):
        file.write_text(found, encoding="utf-8")
    assert found == file.read_text(encoding="utf-8"), "set DLCV_UPDATE_GOLDEN=1 to accept, and review the diff"


@pytest.mark.parametrize("page", PAGES.values())
def test_what_was_not_measured_is_said_and_not_invented(page):
    text = page(dc.replace(full(), parity=(), latency=None, peak_memory_bytes=None))
    assert text.count("- (not measured)") == 3
    assert "nan" not in page(bare())
    assert "None" not in page(bare())
    assert "the images carry no labels" in page(bare())


def with_flips(*found):
    leg = dc.replace(ten().legs[2], flips=found)
    return dc.replace(full(), parity=(dc.replace(ten(), legs=(leg,)),))


def test_names_cannot_break_the_page():
    nasty = "a|b\n# c `d` <e> *f* [g](h)"
    text = markdown(with_flips(Flip(0, nasty, 0, 0, 1)))
    assert r"| 0 | a\|b # c \`d\` \<e> \*f\* \[g](h) | 0 | 0 | 1 | right to wrong | - | - |" in text


def test_names_cannot_command_the_terminal():
    text = table(dc.replace(full(), model="[bold]\x1b[31m:smile:", warnings=("a\nb\rc\x07",)))
    assert text.startswith("[bold]?[31m:smile: INT8")
    assert "a b c?" in text


def test_every_table_row_has_as_many_cells_as_its_head():
    for report in (full(), bare()):
        counts = [
            len(line.replace("\\|", "").split("|")) if line.startswith("|") else 0
            for line in markdown(report).splitlines()
        ]
        assert all(a == b for a, b in itertools.pairwise(counts) if a and b)
        assert 0 < max(counts) <= 2 + len(times.LATENCY_HEAD)


def test_the_terminal_page_keeps_to_its_width():
    long = dc.replace(
        ten(),
        source="a folder with a very long name " * 5,
        legs=(
            dc.replace(ten().legs[2], name="x" * 80, flips=flips(12) * 1000, logit_max_abs=1e-10, logit_sqnr_db=-123.4),
            Leg("y", not_run="because " * 40),
        ),
    )
    rows = tuple(dc.replace(row, name=row.name * 5) for row in latency().rows)
    report = dc.replace(full(), parity=(long,), model="m" * 300, warnings=("w " * 200,))
    for text in (table(report), parity_table(long), latency_table(dc.replace(latency(), rows=rows))):
        lines = text.splitlines()
        assert max(map(len, lines)) <= WIDTH == 100
        assert not [line for line in lines if line != line.rstrip()]
        assert "\x1b" not in text


def test_no_figure_is_cut_where_a_name_is_long():
    found = dc.replace(ten(), legs=(dc.replace(ten().legs[2], name="x" * 80),))
    text = parity_table(found)
    for name, cell in zip(parity.PARITY_HEAD[1:], parity.parity_rows(found)[1][1:], strict=True):
        assert name == "max diff" or cell in text
    assert "\u2026" not in text


def test_a_typical_build_fits_one_screen():
    typical = dc.replace(
        full(), parity=(ten(),), quantization=None, warnings=(), engines=full().engines[:1], consistency=()
    )
    assert len(table(typical).splitlines()) <= 40


def test_columns_line_up():
    head, *rows = parity_table(ten()).splitlines()[2:6]
    for column, name in ((1, "top-1 %"), (5, "flips")):
        for i, row in enumerate(rows):
            assert row[: head.index(name) + len(name)].endswith(parity.parity_rows(ten())[i][column])


class Tty:
    """Standard output of a terminal."""

    def isatty(self):
        return True


def on_terminal(monkeypatch, columns, **environment):
    monkeypatch.setattr(terminal.sys, "stdout", Tty())
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": str(columns), **environment}.items():
        monkeypatch.setenv(name, value)


def test_colours_are_for_terminals_that_want_them(monkeypatch):
    piped = table(bare())
    on_terminal(monkeypatch, 100)
    assert "\x1b[1;31m!! RANDOM WEIGHTS" in table(bare())
    on_terminal(monkeypatch, 100, NO_COLOR="1")
    assert "31m" not in table(bare())
    on_terminal(monkeypatch, 100, TERM="dumb")
    assert table(bare()) == piped


@pytest.mark.parametrize(("columns", "width"), [(140, 140), (90, 90), (40, 80)])
def test_the_terminal_is_used_as_wide_as_it_is(monkeypatch, columns, width):
    on_terminal(monkeypatch, columns, TERM="dumb")
    assert width - 20 < max(map(len, table(full()).splitlines())) <= width
