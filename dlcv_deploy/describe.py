"""What is here, in values for machines and words for people: networks, a bundle's content, this machine's abilities."""

from __future__ import annotations

import dataclasses as dc
import platform
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from . import __version__, backends
from .bundle import Bundle
from .store import cache_dir


def models_value() -> list[dict[str, Any]]:
    """The catalogue: each network with the sets of weights on offer for it, the one taken by default first."""
    from .models.catalogue import NETWORKS, WEIGHT_SETS

    found = []
    for network in NETWORKS.values():
        entry = dc.asdict(network)
        del entry["code_sha256"]
        entry["arguments"] = dict(network.arguments)
        entry["weights"] = [{**dc.asdict(each), "bundled": each.bundled} for each in WEIGHT_SETS[network.name]]
        found.append(entry)
    return found


def describe_models(networks: Sequence[dict[str, Any]]) -> str:
    """The catalogue as a table: a line for each set of weights, and one for the networks of a paper that have none."""
    rows = [("model", "input", "classes", "weights", "top-1 %", "licence")]
    without: dict[str, list[str]] = {}
    for network in networks:
        side = network["preprocess"]["size"]
        what = (network["name"], f"{side}x{side}", str(network["classes"]))
        for weights in network["weights"]:
            top1 = "-" if weights["top1"] is None else f"{weights['top1']:.2f}"
            where = "bundled" if weights["bundled"] else weights["url"].split("/")[2]
            rows.append((*what, f"{weights['name']}, {where}", top1, weights["licence"]))
            what = ("", "", "")
        if not network["weights"]:
            without.setdefault(f"{what[1]}, {what[2]} classes", []).append(network["name"])
    said = [f"{inputs}: {', '.join(names)}" for inputs, names in without.items()]
    head = "Without weights of their own (give --weights FILE, or random):"
    yours = "A network of your own: dlcv-deploy build FILE.py:NAME --input 3xSxS, NAME being what makes it there."
    return "\n".join([columns(rows), "", head, *(_wrapped(line) for line in said), "", yours])


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def describe_bundle(bundle: Bundle) -> str:
    """What a bundle holds; its files have been checked already."""
    from collections import Counter

    from onnx import load_model_from_string

    m = bundle.manifest
    ops = Counter(node.op_type for node in load_model_from_string(bundle.read("model.onnx")).graph.node)
    pre, catalogue = m.preprocess, "the factory's own" if m.factory else "catalogue"
    rows = [
        ("model", f"{m.model}, {m.precision}, {m.classes} classes"),
        *([("code", f"{m.factory}, SHA-256 {m.code_sha256[:12]}")] if m.factory else []),
        ("weights", f"{m.weights or catalogue}, SHA-256 {m.weights_sha256[:12]}{'' if m.trained else ', UNTRAINED'}"),
        ("input", ", ".join(f"{t.name}: N x {' x '.join(map(str, t.shape))} {t.dtype}" for t in m.inputs)),
        ("output", ", ".join(f"{t.name}: N x {' x '.join(map(str, t.shape))} {t.dtype}" for t in m.outputs)),
        ("images", f"RGB / 255, {pre.fit} to {pre.canvas}, crop {pre.size}, mean {pre.mean}, std {pre.std}"),
        ("graph", ", ".join(f"{count} {op}" for op, count in ops.most_common())),
    ]
    for name, engine in m.engines.items():
        rows.append(
            ("engine", f"{name} {engine['version']} for {engine['target']}: {', '.join(engine['files'].values())}")
        )
        if plugin := engine.get("plugin"):
            sm = ", ".join(f"{each / 10:.1f}" for each in plugin["architectures"])
            made = f"for SM {sm}, built against TensorRT {plugin['tensorrt']}, SHA-256 {plugin['sha256'][:12]}"
            rows.append(("plugin", f"{name} needs {plugin['file']} ({', '.join(plugin['ops'])}), {made}"))
    rows += [
        ("file", f"{name}, {entry['bytes']:,} bytes, SHA-256 {entry['sha256'][:12]}") for name, entry in m.files.items()
    ]
    rows.append(("made by", f"dlcv-deploy {m.tool_version}; every file above is as it was written"))
    return columns(rows)


def doctor_value() -> dict[str, Any]:
    """What is installed, and what each backend can do here."""
    from .report.document import environment

    packages = ("numpy", "onnx", "torch", "onnxscript", "onnxruntime", "onnxruntime-gpu", "openvino")
    found = environment((*packages, "tensorrt", "tensorrt-rtx", "cuda-python", "pycuda"))
    abilities = {name: dc.asdict(backends.get(name).ability()) for name in backends.names()}
    return {
        "dlcv_deploy": __version__,
        "python": found.python,
        "os": found.os,
        "machine": platform.machine(),
        "cache": str(cache_dir()),
        "packages": dict(found.packages),
        "can_export": "torch" in found.packages and "onnxscript" in found.packages,
        "no_plugin": _no_plugin(),
        "backends": abilities,
    }


def _no_plugin() -> str:
    """Why the LRN plugin cannot be compiled here; empty where it can."""
    from .errors import MissingBackend
    from .plugin.toolchain import find_toolchain

    try:
        find_toolchain()
    except MissingBackend as e:
        return f"{e.what}; {e.fix}"
    return ""


def describe_doctor(value: dict[str, Any]) -> str:
    """What ``doctor_value`` found, as a table with a reason for every no."""
    export = "yes" if value["can_export"] else "no: pip install 'dlcv-deploy[torch]'"
    head = [
        ("dlcv-deploy", value["dlcv_deploy"]),
        ("python", f"{value['python']} on {value['os']}"),
        ("cache", value["cache"]),
        ("packages", ", ".join(f"{name} {version}" for name, version in value["packages"].items())),
        ("can export", export),
        ("plugin", "can be compiled" if not value["no_plugin"] else "cannot be compiled: see below"),
    ]
    rows = [("backend", "version", "compiles", "runs")]
    reasons = [value["no_plugin"]] if value["no_plugin"] else []
    for name, ability in value["backends"].items():
        no = {"compile": ability["no_compile"], "run": ability["no_run"]}
        rows.append((name, ability["version"] or "-", *("no" if reason else "yes" for reason in no.values())))
        if no["compile"] == no["run"] != "":
            reasons.append(f"{name} neither compiles nor runs here: {no['run']}")
        else:
            reasons += [f"{name} does not {what} here: {reason}" for what, reason in no.items() if reason]
    return "\n".join([columns(head), "", columns(rows), *([""] if reasons else []), *reasons])


def preflight_value(path: Path) -> dict[str, Any]:
    """What stands between a bundle and this machine, and which of its engines run here, the one taken first in front.

    ``exit_code`` is 0 where an engine runs, 3 where none does, 5 where the bundle's files are not as they were written.
    """
    from . import host, preflight

    here = host.here()
    checked = preflight.check(path, here, keep=False)
    held = [name for name in preflight.ORDER if checked.manifest and name in checked.manifest.engines]
    damaged = any(not finding.backend for finding in checked.findings)
    against = {finding.backend for finding in checked.findings}
    runs = [] if damaged else [name for name in held if name not in against]
    return {
        "bundle": str(path),
        "host": dc.asdict(here),
        "findings": [dc.asdict(finding) for finding in checked.findings],
        "runs": runs,
        "exit_code": 5 if damaged else 0 if runs else 3,
    }


def describe_preflight(value: dict[str, Any]) -> str:
    """What ``preflight_value`` found, a sentence and its fix each, and what runs."""
    told = [f"{finding['what']}\n  fix: {finding['fix']}" for finding in value["findings"]]
    runs = value["runs"]
    also = f"; {', '.join(runs[1:])} would run too" if runs[1:] else ""
    return "\n".join([*told, f"runs here by {runs[0]}{also}" if runs else "no engine of it runs here"])


def columns(rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells as aligned text, the last column free."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )
