"""The first screen: a card for each engine with its verdict, its loss drawn, and its figures."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Mapping, Sequence

from ...latency.values import LatencyReport
from ...parity.values import Leg, ParityReport, Verdict
from ..document import REFERENCE, Report, engine_name
from ..engines import engine_size
from ..latency import ratio_words, speed
from ..parity import chief_verdict, loss_interval, verdict_words
from ..summary import evidence
from ..words import milliseconds, number, plural
from .int8 import share_words
from .markup import Child, Html, el, facts
from .plots import Interval, Row, Rule, row_chart

_BADGES = {"shown": "good", "not shown": "warn", "shown worse": "bad"}
_SIGNS = {"good": "✓", "warn": "?", "bad": "✗", "even": "–"}


@dc.dataclass(frozen=True, slots=True)
class Card:
    """What is known of one engine at a glance; what is not known is ``None`` or empty."""

    name: str
    title: str
    parity: ParityReport | None = None
    leg: Leg | None = None
    latency: LatencyReport | None = None
    size: str = ""
    share: str = ""


def cards_of(report: Report) -> tuple[Card, ...]:
    """A card for each engine of a report."""
    found = []
    for engine in report.engines:
        name = engine_name(report.precision, engine.backend)
        parity, leg = evidence(report, engine) or (None, None)
        title = f"{report.precision.upper()} on {engine.backend}"
        share = share_words(report, engine.backend)
        found.append(Card(name, title, parity, leg, report.latency, engine_size(engine), share))
    return tuple(found)


def cards_for(parity: Sequence[ParityReport], latency: LatencyReport | None) -> tuple[Card, ...]:
    """A card for each leg and each session, where there is no build to name the engines."""
    legs = [(report, leg) for report in parity for leg in reversed(report.legs)]
    first = {leg.name: (report, leg) for report, leg in reversed(legs)}
    rows = latency.rows if latency else ()
    cards = [Card(name, name, *first[name], latency) for name in dict.fromkeys(leg.name for _, leg in legs)]
    timed = dict.fromkeys(row.name for row in rows if row.name not in first and row.name != REFERENCE)
    return (*cards, *(Card(name, name, latency=latency) for name in timed))


def card(found: Card, slots: Mapping[str, str]) -> Html:
    """A card: verdict, loss with interval and margin, and figures."""
    kind, words = _badge(found)
    parity, leg = found.parity, found.leg
    parts: list[Child] = [
        el("div", el("h3", found.title), el("span", f"{_SIGNS[kind]} {words}", class_=f"badge {kind}"), class_="top")
    ]
    reason = (leg.not_run if leg else "") or _not_timed(found)
    if reason:
        parts.append(el("p", f"Not run: {reason}"))
    loss = leg.loss(1) if leg else None
    if parity and leg and loss:
        verdict = chief_verdict(parity, leg)
        margin = verdict.margin if verdict else parity.margin
        parts.append(
            el("p", el("b", number(loss.drop), class_="big"), f" points of top-1 lost (95 % {loss_interval(loss)})")
        )
        row = Row(
            found.title, loss_interval(loss), (Interval(loss.low, loss.drop, loss.high, slots.get(found.name, "s1")),)
        )
        rules = [Rule(0.0, "0"), Rule(margin, f"margin {margin:g}")]
        parts.append(row_chart("The loss beside the margin", [row], "points of top-1 lost", rules=rules, compact=True))
        if verdict:
            parts.append(el("p", _proof(verdict, parity.images), class_="dim"))
    parts.append(facts(_figures(found)))
    return el("article", *parts, class_=f"card {kind}")


def _proof(verdict: Verdict, images: int) -> str:
    """What so many images prove, the least that they could, and what it takes to prove the margin."""
    said = verdict_words(verdict)
    shown = f"{said[0].upper()}{said[1:]} on {plural(images, 'image')}."
    if verdict.outcome == "shown worse":
        return shown
    needed = f"to prove {number(verdict.margin)} takes {verdict.images_needed:,}" if verdict.images_needed else ""
    provable = f"The smallest provable loss with so many is {number(verdict.provable)} points"
    return f"{shown} {provable}{'; ' + needed if needed and verdict.outcome == 'not shown' else ''}."


def _badge(found: Card) -> tuple[str, str]:
    """What a card says first, and how good that is."""
    leg, parity = found.leg, found.parity
    if leg is None or parity is None:
        return ("even", "not run") if _not_timed(found) else ("even", "parity not measured")
    if leg.not_run:
        return "even", "not run"
    if leg.non_finite or parity.non_finite or any(output.non_finite for output in leg.outputs):
        return "bad", "not a number"
    if not parity.labelled:
        return "even", "no labels"
    verdict = chief_verdict(parity, leg)
    if verdict is None:
        return "even", "measured"
    return _BADGES[verdict.outcome], f"{verdict.rule}: {verdict.outcome}"


def _not_timed(found: Card) -> str:
    rows = [row for row in found.latency.rows if row.name == found.name] if found.latency else []
    return rows[0].not_run if rows and all(row.not_run for row in rows) and found.leg is None else ""


def _figures(found: Card) -> list[tuple[str, Child]]:
    leg, parity = found.leg, found.parity
    pairs: list[tuple[str, Child]] = []
    if leg and parity and not leg.not_run:
        if leg.top1 is not None:
            pairs.append(("top-1", f"{number(leg.top1)} %, original {number(parity.top1)} %"))
        elif leg.agreement is not None:
            pairs.append(("agreement", f"{number(leg.agreement)} %"))
        pairs.append(("flips", f"{len(leg.flips):,} of {plural(parity.images, 'image')}"))
    pairs += _speeds(found)
    return [*pairs, ("size", found.size), ("multiply-adds", found.share)]


def _speeds(found: Card) -> list[tuple[str, Child]]:
    latency = found.latency
    rows = [row for row in latency.rows if row.name == found.name and row.p50_ms is not None] if latency else []
    if latency is None or not rows:
        return []
    row = min(rows, key=lambda row: row.batch)
    doubt = "" if latency.validity.trustworthy else " (not trustworthy)"
    ratio = next((r for r in latency.ratios if (r.name, r.against, r.batch) == (row.name, REFERENCE, row.batch)), None)
    words = ratio_words(ratio) if ratio else speed(latency, row)
    at = f"batch {row.batch}"
    best = max((row.images_per_s or 0.0 for row in rows), default=0.0)
    return [
        ("speed", f"{words}, {at}{doubt}" if words else ""),
        ("p50", f"{milliseconds(row.p50_ms)} ms, {at}{'' if words else doubt}"),
        ("most", f"{number(best, 0)} images/s" if best else ""),
    ]
