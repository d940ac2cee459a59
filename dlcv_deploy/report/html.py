"""The report as one HTML page that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib import resources

from ..latency.values import LatencyReport
from ..parity.values import Consistency, Drift, ParityReport
from .document import Report
from .page.cards import card, cards_for, cards_of
from .page.int8 import int8_part
from .page.latency import latency_part, slots_of, trust
from .page.markup import Child, Html, bullets, el, join, note, section
from .page.origin import build_part, commands_part, engines_part, environment_part, subtitle
from .page.parity import consistency_part, drift_part, parity_part
from .summary import banners, not_numbers

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_TITLES = {
    "parity": "Parity with the original",
    "layers": "Drift from fp32, layer by layer",
    "consistency": "Engines beside themselves",
    "latency": "Latency",
    "int8": "INT8",
    "engines": "Engines",
    "build": "Build",
    "environment": "Environment",
    "commands": "Commands that repeat it",
}


def page(report: Report, *, classes: Sequence[str] = ()) -> str:
    """A build's report as a page; ``classes`` are the names of the network's, in the order of its logits."""
    slots = _slots(report.parity, report.latency)
    unmeasured = note("Not measured.")
    return _page(
        f"{report.model}, {report.precision.upper()}",
        (
            el("p", subtitle(report), class_="subtitle"),
            *map(_alarm, banners(report)),
            trust(report.latency, most=1) if report.latency else "",
            _warnings(report.warnings),
            el("div", *(card(found, slots) for found in cards_of(report)), class_="cards"),
        ),
        {
            "parity": parity_part(report.parity, slots, classes) or unmeasured,
            "layers": drift_part(report.drift),
            "consistency": consistency_part(report.consistency),
            "latency": latency_part(report.latency, slots) if report.latency else unmeasured,
            "int8": int8_part(report),
            "engines": engines_part(report),
            "build": build_part(report),
            "environment": environment_part(report.environment, report.tool_version),
            "commands": commands_part(report.commands),
        },
        f"dlcv-deploy {report.tool_version}, {report.created}",
    )


def page_of(
    title: str,
    *,
    parity: Sequence[ParityReport] = (),
    latency: LatencyReport | None = None,
    drift: Sequence[Drift] = (),
    consistency: Sequence[Consistency] = (),
    commands: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> str:
    """What was measured after a build, as a page like the build's own."""
    slots = _slots(parity, latency)
    return _page(
        title,
        (
            *(_alarm(line) for each in parity for line in not_numbers(each)),
            trust(latency, most=1) if latency else "",
            el("div", *(card(found, slots) for found in cards_for(parity, latency)), class_="cards"),
        ),
        {
            "parity": parity_part(parity, slots, classes),
            "layers": drift_part(drift),
            "consistency": consistency_part(consistency),
            "latency": latency_part(latency, slots) if latency else Html(""),
            "commands": commands_part(commands),
        },
        "",
    )


def _slots(parity: Sequence[ParityReport], latency: LatencyReport | None) -> dict[str, str]:
    """A colour for everything that was measured."""
    legs = [leg.name for report in parity for leg in report.legs if not leg.not_run]
    return slots_of(legs, [row.name for row in latency.rows if not row.not_run] if latency else [])


def _alarm(text: str) -> Html:
    return el("p", f"⚠ {text}", class_="banner bad")


def _warnings(lines: Sequence[str]) -> Html:
    return el("div", bullets(f"Warning: {line}" for line in lines), class_="banner warn") if lines else Html("")


def _page(title: str, top: Sequence[Child], parts: Mapping[str, Html], made: str) -> str:
    """The whole document: a first screen, links to the parts that are there, and the parts."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{title} - dlcv-deploy"),
        el("style", _style()),
    )
    links = (el("a", _TITLES[name], href=f"#{name}") for name, part in parts.items() if part)
    sections = join(section(name, _TITLES[name], part) for name, part in parts.items())
    header = el("header", el("h1", title), *top, el("nav", *links, aria_label="contents"))
    body = el("body", header, el("main", sections), el("footer", made) if made else "")
    return "<!doctype html>\n" + el("html", head, body, lang="en") + "\n"


@functools.cache
def _style() -> Html:
    return Html((resources.files(__package__) / "page" / "page.css").read_text(encoding="utf-8"))
