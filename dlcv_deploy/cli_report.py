"""``dlcv-deploy report``: a report as a page, Markdown, JSON or text; the page of ``validate`` and ``bench``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .cli_options import say

if TYPE_CHECKING:
    from .latency.values import LatencyReport
    from .parity.values import ParityReport
    from .report.document import Report


def _writable(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """A file in a folder that is there: asked before the work, not after it."""
    if value is not None and not value.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {value.absolute().parent}; make it first", ctx, param)
    return value


def _schema(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Print the JSON Schema and end."""
    if value:
        from .report.schema import to_json

        click.echo(to_json(), nl=False)
        ctx.exit()


_OUTPUT = click.Path(path_type=Path, dir_okay=False, writable=True)
html_option = click.option(
    "--html", type=_OUTPUT, callback=_writable, metavar="FILE", help="Write the result as one HTML page too."
)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["html", "md", "json", "text"]),
    default="html",
    show_default=True,
    help="A page that needs nothing else, Markdown, JSON, or text for a terminal.",
)
@click.option("-o", "--output", type=_OUTPUT, callback=_writable, help="The file to write.")
@click.option("--open", "shown", is_flag=True, help="Show the page in the browser.")
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_schema,
    help="Print the JSON Schema of report.json, and of what validate and bench print as JSON.",
)
def report(bundle: Path, kind: str, output: Path | None, shown: bool) -> None:
    """Write the report of BUNDLE, or of a report.json, and print the path.

    Without -o the page is the one in the bundle, or NAME.html beside a report of its own; the others are printed.
    """
    if shown and kind != "html":
        raise click.UsageError("--open shows the HTML page: leave --format out")
    if kind == "html" and output is None and (held := _held(bundle)):
        output = held
    elif kind == "html" or output is not None:
        output = output or bundle.with_suffix(".html")
        _write(output, _rendered(bundle, kind))
    else:
        click.echo(_rendered(bundle, kind), nl=False)
        return
    click.echo(output)
    if shown:
        _show(output)


def write_page(
    file: Path | None,
    bundle: Path,
    what: str,
    *,
    parity: ParityReport | None = None,
    latency: LatencyReport | None = None,
) -> None:
    """Write what was measured of a bundle as a page, where a file was named for it."""
    if file is None:
        return
    from .report.html import page_of

    found = () if parity is None else (parity,)
    _write(file, page_of(f"{bundle.resolve().stem}: {what}", parity=found, latency=latency, classes=_classes(bundle)))
    say(f"page    {file}")


def _held(path: Path) -> Path | None:
    """The page in a bundle, unaltered; bundles of earlier versions hold none."""
    from .bundle import open_bundle

    return path / "report.html" if path.is_dir() and "report.html" in open_bundle(path).manifest.files else None


def _rendered(path: Path, kind: str) -> str:
    from .compare import read_report
    from .report.document import to_json
    from .report.html import page
    from .report.markdown import markdown
    from .report.terminal import table

    found: Report = read_report(path)
    if kind == "html":
        return page(found, classes=_classes(path))
    if kind == "md":
        return markdown(found)
    return to_json(found) if kind == "json" else table(found).rstrip("\n") + "\n"


def _classes(path: Path) -> tuple[str, ...]:
    """The names of the classes: those of the bundle, or of the bundle that a report.json lies in."""
    labels = (path if path.is_dir() else path.parent) / "labels.txt"
    return tuple(labels.read_text(encoding="utf-8").splitlines()) if labels.is_file() else ()


def _write(file: Path, text: str) -> None:
    from .atomic import write_whole

    write_whole(file, text.encode())


def _show(file: Path) -> None:
    """Open a page in the browser, or say that it cannot be done here."""
    import webbrowser

    seen = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")))
    if not seen or not webbrowser.open(file.absolute().as_uri()):
        say(f"this machine has no display or no browser; open {file.absolute()} where there is one")
