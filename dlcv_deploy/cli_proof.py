"""``dlcv-deploy validate`` and ``bench``: what bundles answer, and how fast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .cli_options import BUNDLE, FILE, as_json, moved, only, say, show, sizes, talking
from .cli_report import html_option, write_page
from .latency.values import ALSO

NOT_SHOWN = 6
"""The exit code where images are too few to tell."""
_OUTCOMES = {
    "shown": "every engine loses less than",
    "not shown": "that every engine loses less than",
    "shown worse": "an engine answers NaN or infinity, or loses more than",
}


@click.command()
@click.argument("bundle", type=BUNDLE)
@click.option("--data", help="DIR, FILE.npz or 'cifar10' (its 10,000 test images).")
@click.option("--truth", type=FILE, help="Labels of the images in DIR: labels.csv, val.txt, ImageNet's ground truth.")
@click.option(
    "--pixels",
    type=FILE,
    metavar="FILE.npy",
    help="Hold your own pipeline's tensors, float32 N x 3 x S x S, against the preprocessing of BUNDLE: for its golden"
    " images, or one centre crop of each image of --data. Exits with 1 where they are not the same.",
)
@click.option("--list", "listed", is_flag=True, help="Print the images that --pixels takes, in their order.")
@click.option("--crops", type=click.Choice(["1", "10"]), default="10", show_default=True, help="Crops an image.")
@click.option(
    "--average",
    type=click.Choice(["softmax", "logits"]),
    default="softmax",
    show_default=True,
    help="What is averaged over the crops.",
)
@click.option("--count", type=click.IntRange(1), help="A seeded choice of this many images.  [default: all]")
@click.option(
    "--margin",
    type=click.FloatRange(0, 100, min_open=True),
    metavar="POINTS",
    help="Exit with 0 only where the images show (95 %) that every engine loses fewer points of top-1; with 1 where"
    " they show that one loses more, with 6 where they show neither.  [default: 0.5, without an exit code]",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0),
    metavar="POINTS",
    help="Exit with 1 where an engine lost more points of top-1 on these images.",
)
@moved
@only
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read, and count them.")
@html_option
@as_json
def validate(
    bundle: Path,
    crops: str,
    margin: float | None,
    max_drop: float | None,
    html: Path | None,
    as_json: bool,
    pixels: Path | None,
    listed: bool,
    **request: Any,  # noqa: ANN401
) -> None:
    """Hold the engines of BUNDLE against the PyTorch original, on the same pixels."""
    if listed or pixels is not None:
        if margin is not None or max_drop is not None or html is not None:
            raise click.UsageError("'--pixels' and '--list' go without '--margin', '--max-drop' and '--html'.")
        if listed:
            _list(bundle, as_json=as_json, **request)
        elif pixels is not None:
            _pixels(bundle, pixels, as_json=as_json, **request)
        return
    if request["data"] is None:
        raise click.UsageError("Missing option '--data', the images to answer; or '--pixels', a tensor to check.")
    from .parity.gate import failures, judge, sentences
    from .progress import terminal
    from .report.document import plain
    from .report.terminal import parity_table
    from .store import Store, cache_dir
    from .validate import validate as run

    with talking():
        asked = {**request, "crops": int(crops), "gated": margin is not None or max_drop is not None}
        asked |= {} if margin is None else {"margin": margin}
        report = run(bundle, store=Store(cache_dir()), progress=terminal, say=say, **asked)
    write_page(html, bundle, "parity", parity=report)
    found = failures(report, max_drop)
    outcome = None if margin is None else judge(report)
    said = [f"FAILED: {failure}" for failure in found]
    if max_drop is not None and not found:
        said += [f"passed: no engine loses more than {max_drop:g} points of top-1 on these images"]
    if outcome is not None:
        said += [f"{outcome}: {_OUTCOMES[outcome]} {margin:g} points of top-1 (95 %)"]
    verdict = {"outcome": outcome, "sentences": sentences(report)}
    show(
        {**plain(report), "verdict": verdict, "failures": found},
        "\n".join([parity_table(report), *said]),
        as_json=as_json,
    )
    if code := 1 if found or outcome == "shown worse" else NOT_SHOWN if outcome == "not shown" else 0:
        sys.exit(code)


def _pixels(bundle: Path, pixels: Path, *, as_json: bool, average: str, **request: Any) -> None:  # noqa: ANN401
    """Hold a tensor against the preprocessing contract."""
    from .pixels import compare_pixels
    from .progress import terminal
    from .report.document import plain
    from .report.pixels import pixels_text

    with talking():
        report = compare_pixels(bundle, pixels=pixels, progress=terminal, **request)
    show({**plain(report), "passed": report.passed}, pixels_text(report), as_json=as_json)
    if not report.passed:
        sys.exit(1)


def _list(
    bundle: Path, *, as_json: bool, data: str | None, count: int | None, skip_bad: bool, **unused: object
) -> None:
    """Print the names of images."""
    from .pixels import names

    found = names(bundle, data, count, skip_bad=skip_bad)
    show(found, "\n".join(found), as_json=as_json)


@click.command()
@click.argument("bundle", type=BUNDLE)
@click.option(
    "--batch", "batches", callback=sizes, default="1,10", show_default=True, metavar="N,...", help="Batch sizes."
)
@click.option(
    "--time",
    "limit_s",
    type=click.FloatRange(0, 86400),
    metavar="SECONDS",
    help="Measure no longer than this at a batch size, ten calls apart.  [default: 10; 1 with --quick]",
)
@click.option(
    "--within",
    "within_percent",
    type=click.FloatRange(0, 100, min_open=True),
    metavar="PERCENT",
    help="Measure until every median is known this well (half of its 95 % interval).  [default: 1; 5 with --quick]",
)
@click.option("--quick", is_flag=True, help="A few calls, as a build makes them, and no cold starts.")
@click.option("--also", type=click.Choice(ALSO), multiple=True, help="Measure this besides; repeatable.")
@click.option("--full", is_flag=True, help="Measure all of that besides: minutes.")
@moved
@only
@html_option
@as_json
def bench(
    bundle: Path,
    also: tuple[str, ...],
    full: bool,
    html: Path | None,
    as_json: bool,
    **request: Any,  # noqa: ANN401
) -> None:
    """Time the engines of BUNDLE beside the PyTorch original, in one run."""
    from .bench import bench as run
    from .progress import terminal
    from .report.document import plain
    from .report.terminal import latency_table

    with talking():
        report = run(bundle, also=ALSO if full else also, progress=terminal, **request)
    write_page(html, bundle, "latency", latency=report)
    show(plain(report), latency_table(report), as_json=as_json)


_RATIO = click.FloatRange(0, min_open=True)


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--max-drop", type=click.FloatRange(0), metavar="POINTS", help="Points of top-1 that B may be below A.")
@click.option("--max-latency-ratio", type=_RATIO, metavar="R", help="B's median over A's.")
@click.option("--max-size-ratio", type=_RATIO, metavar="R", help="The size of B's engine over A's.")
@only
@as_json
def compare(a: Path, b: Path, targets: tuple[str, ...], as_json: bool, **limits: float | None) -> None:
    """Hold B, the new bundle or report.json, against A, the old one: accuracy, latency, size.

    Exits with 1 where B does not keep to a limit that is given, where what the limit needs was not measured, or where B
    answers NaN or infinity. Latency compares as a share of PyTorch's in the same run where both reports have that, so
    that what slowed a whole run does not count; else in milliseconds, on one machine only.
    """
    from .compare import compare as run
    from .compare import failures
    from .report.document import plain
    from .report.terminal import comparison_table

    comparison = run(a, b, targets=targets)
    found = failures(comparison, **limits)
    said = [f"FAILED: {failure}" for failure in found]
    if not found and any(limit is not None for limit in limits.values()):
        said = ["passed: B keeps to all limits"]
    show({**plain(comparison), "failures": found}, "\n".join([comparison_table(comparison), *said]), as_json=as_json)
    if found:
        sys.exit(1)
