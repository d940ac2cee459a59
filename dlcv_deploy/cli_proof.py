"""``dlcv-deploy validate`` and ``bench``: what bundles answer, and how fast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .cli_options import BUNDLE, as_json, moved, only, show, talking


@click.command()
@click.argument("bundle", type=BUNDLE)
@click.option("--data", required=True, help="DIR, FILE.npz or 'cifar10' (its 10,000 test images).")
@click.option("--crops", type=click.Choice(["1", "10"]), default="10", show_default=True, help="Crops an image.")
@click.option("--count", type=click.IntRange(1), help="A seeded choice of this many images.  [default: all]")
@click.option("--max-drop", type=click.FloatRange(0), help="Exit with 1 where an engine loses more top-1 points.")
@moved
@only
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read, and count them.")
@as_json
def validate(bundle: Path, crops: str, max_drop: float | None, as_json: bool, **request: Any) -> None:  # noqa: ANN401
    """Hold the engines of BUNDLE against the PyTorch original, on the same pixels."""
    from .parity.gate import failures
    from .progress import terminal
    from .report.document import plain
    from .report.terminal import parity_table
    from .validate import validate as run

    with talking():
        report = run(bundle, crops=int(crops), gated=max_drop is not None, progress=terminal, **request)
    found = failures(report, max_drop)
    verdict = [f"FAILED: {failure}" for failure in found]
    if max_drop is not None and not found:
        verdict = [f"passed: no engine loses more than {max_drop:g} points of top-1"]
    text = "\n".join([parity_table(report), *verdict])
    show({**plain(report), "failures": found}, text, as_json=as_json)
    if found:
        sys.exit(1)


@click.command()
@click.argument("bundle", type=BUNDLE)
@moved
@only
@as_json
def bench(bundle: Path, as_json: bool, **request: Any) -> None:  # noqa: ANN401
    """Time the engines of BUNDLE beside the PyTorch original, in one run."""
    from .bench import bench as run
    from .progress import terminal
    from .report.document import plain
    from .report.terminal import latency_table

    with talking():
        report = run(bundle, progress=terminal, **request)
    show(plain(report), latency_table(report), as_json=as_json)
