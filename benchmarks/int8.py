"""This tool's INT8 beside ONNX Runtime's and NNCF's: accuracy, time and memory, side by side in one run.

    python benchmarks/int8.py [--networks resnet20 ...] [--tools nncf-accurate ...] [--images 512] [--output FOLDER]

Each network is exported once. All calibrate on the same training images, one process each, one after the other; the
INT8 models then answer for CIFAR-10's test images on OpenVINO and are held against the fp32 graph there. ResNet-50 has
random weights and no accuracy: it is there for time and memory, with 64 images and with --images. NNCF comes with
pip install 'dlcv-deploy[bench]'; what is not installed, fails, or takes too much is a row that says so.

FOLDER/int8.json has each row as soon as it is made, and another run goes on where this one stopped; rows of other
versions are made again. FOLDER/int8.md is the page.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import shlex
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from peers import child
from peers.case import NETWORKS, Case
from peers.quantizers import QUANTIZERS, Quantizer
from peers.rows import Row, Rows, page
from peers.score import score

from dlcv_deploy.atomic import write_whole
from dlcv_deploy.latency.measure import cores, machine

FEW = 64
"""Images of ResNet-50's first run, whose memory the second's is held against."""
QUICK = {"images": 16, "tests": 200}


def main(arguments: list[str]) -> None:
    """Run what is not there yet, and write the page."""
    asked = _parse(arguments)
    asked.output.mkdir(parents=True, exist_ok=True)
    rows = Rows(asked.output / "int8.json")
    if asked.again:
        tools = {(QUANTIZERS[name].tool, QUANTIZERS[name].setting) for name in asked.tools}
        rows.forget(lambda row: row["network"] in asked.networks and (row["tool"], row["setting"]) in tools)
    command = shlex.join(["python", "benchmarks/int8.py", *arguments])
    earlier = [other for other in rows.about["commands"] if other != command]
    rows.about = {"commands": [*earlier, command], **_machine()}
    for network in asked.networks:
        counts = sorted({min(FEW, asked.images), asked.images}) if NETWORKS[network].photographs else [asked.images]
        for images in counts:
            _network(rows, network, images, asked)
    write_whole(asked.output / "int8.md", page(rows.all, rows.about).encode())
    print(asked.output / "int8.md")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--tools", nargs="+", default=list(QUANTIZERS), metavar="NAME", help=", ".join(QUANTIZERS))
    parser.add_argument("--images", type=int, default=512, help="to calibrate on; 512")
    parser.add_argument("--tests", type=int, default=10_000, help="test images; all 10,000")
    parser.add_argument("--output", type=Path, default=Path("build"), metavar="FOLDER", help="build")
    parser.add_argument("--memory-gb", type=float, default=12, help="above which a process is stopped; 12")
    parser.add_argument("--timeout", type=float, default=3600, help="of one process, in seconds; 3600")
    parser.add_argument("--again", action="store_true", help="make the rows of these networks and tools again")
    parser.add_argument("--quick", action="store_true", help="resnet20 on few images: whether everything works")
    asked = parser.parse_args(arguments)
    asked.tools = [name for name in QUANTIZERS if any(f"{name}-".startswith(f"{word}-") for word in asked.tools)]
    if not asked.tools:
        parser.error(f"--tools takes {', '.join(QUANTIZERS)}, or what stands before a dash for all of those")
    if asked.quick:
        vars(asked).update(QUICK, networks=["resnet20"])
    if asked.images < 1 or asked.tests < 1:
        parser.error("--images and --tests are 1 or more")
    return asked


def _machine() -> dict[str, Any]:
    from importlib import metadata

    packages = ("dlcv-deploy", "numpy", "onnx", "onnxruntime", "nncf", "openvino", "torch")
    found = {name: list(metadata.distributions(name=name)) for name in packages}
    return {
        "machine": f"{machine()}, {cores()} cores",
        "system": f"Python {platform.python_version()}, {platform.platform()}",
        "versions": {name: each[0].version for name, each in found.items() if each},
    }


def _network(rows: Rows, network: str, images: int, asked: argparse.Namespace) -> None:
    """All rows of one network that are not there yet."""
    tests = 0 if NETWORKS[network].photographs else asked.tests
    chosen = [QUANTIZERS[name] for name in asked.tools if not (tests and QUANTIZERS[name].bare)]
    todo = [q for q in chosen if not rows.done(_key(network, q, images, tests), q.versions())]
    if missing := NETWORKS[network].missing():
        print(f"{network}: skipped, {missing}")
        return
    if not todo:
        return
    limits = {"most_bytes": int(asked.memory_gb * 1e9), "timeout_s": asked.timeout}
    with tempfile.TemporaryDirectory(prefix="dlcv-deploy-") as folder:
        request = {"network": network, "images": images, "tests": tests, "folder": folder}
        made = child.run("prepare", request, **limits)
        if made.error:
            raise SystemExit(f"{network} could not be exported: {made.error}")
        if tests:
            made = _answer(Path(folder, "fp32.onnx"), folder, "fp32", limits)
            if made.error:
                raise SystemExit(f"{network} did not answer in fp32: {made.error}")
        for quantizer in todo:
            row = {**_key(network, quantizer, images, tests), **_row(quantizer, Path(folder), tests, limits)}
            rows.put(row)
            print(f"{network:<18} {quantizer.name:<28} {row['error'] or _words(row)}", flush=True)


def _key(network: str, quantizer: Quantizer, images: int, tests: int) -> Row:
    return {
        "network": network,
        "tool": quantizer.tool,
        "setting": quantizer.setting,
        "images": images,
        "tests": tests,
    }


def _row(quantizer: Quantizer, folder: Path, tests: int, limits: dict[str, Any]) -> Row:
    """What one quantizer made of a case, and at what cost; an error is a row too."""
    row: Row = {
        "symmetric": quantizer.symmetric,
        "versions": quantizer.versions(),
        "error": "",
        "at": datetime.datetime.now().isoformat(" ", "seconds"),
    }
    if quantizer.package not in row["versions"]:
        return {**row, "error": f"{quantizer.package} is not installed", "absent": True}
    with tempfile.TemporaryDirectory(prefix=f"{quantizer.name}-", dir=folder) as out:
        request = {"quantizer": quantizer.name, "case": str(folder), "out": out}
        done = child.run("quantize", request, **limits)
        row["process_seconds"] = done.seconds
        row["own_peak_bytes"] = done.value.get("peak_bytes", 0)
        row["peak_bytes"] = max(done.peak_bytes, row["own_peak_bytes"])
        if done.error:
            return {**row, "error": done.error}
        row.update({name: done.value[name] for name in ("seconds", "cpu_seconds", "size_bytes")})
        if not tests:
            return row
        told = _answer(Path(done.value["model"]), str(folder), "int8", limits)
        if told.error:
            return {**row, "error": f"OpenVINO: {told.error}"}
    labels = Case.open(folder).test.labels
    row.update(told.value)
    return {**row, **score(*(np.load(folder / f"{name}.npy") for name in ("fp32", "int8")), labels)}


def _answer(model: Path, case: str, name: str, limits: dict[str, Any]) -> child.Outcome:
    request = {"model": str(model), "case": case, "out": str(Path(case, f"{name}.npy"))}
    return child.run("answer", request, **limits)


def _words(row: Row) -> str:
    cost = f"{row['seconds']:.1f} s, {row['peak_bytes'] / 1e6:,.0f} MB"
    return f"{row['flips']} flips, {row['loss']:+.2f} points lost, {cost}" if row["tests"] else cost


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no child is left at work
    main(sys.argv[1:])
