"""The commands of the LRN plugin."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .cli_options import FILE, architectures, as_json, say, show


@click.group()
def plugin() -> None:
    """Compile the LRN plugin for TensorRT, and prove it."""


@plugin.command()
@click.option(
    "--arch",
    "wanted",
    callback=architectures,
    metavar="LIST",
    default="75,80,86,89,90,100,120",
    show_default=True,
    help="GPU architectures.",
)
@click.option("-o", "--output", type=FILE, help="The library to write.  [default: in the cache]")
@as_json
def build(wanted: tuple[int, ...], output: Path | None, as_json: bool) -> None:
    """Compile the plugin's library and print where it is.

    That takes nvcc, a C++ compiler, CMake and TensorRT's headers (TENSORRT_ROOT, DLCV_TENSORRT_INCLUDE).
    """
    from .plugin.build import place_library
    from .stages import Stages
    from .store import Store

    path, library = place_library(wanted, output, Stages(Store(), say))
    value = {
        "file": str(path),
        "bytes": len(library.data),
        "sha256": library.sha256,
        "architectures": list(library.architectures),
        "tensorrt": library.tensorrt,
        "cuda": library.cuda,
    }
    show(value, str(path), as_json=as_json)


@plugin.command()
@click.argument("library", type=FILE, required=False)
@as_json
def check(library: Path | None, as_json: bool) -> None:
    """Run every proof of LIBRARY that this machine can run, and list those that it cannot.

    Without LIBRARY the one that is compiled here is proved. Exits with 1 where a proof failed.
    """
    import dataclasses as dc

    from .describe import columns
    from .plugin.check import FAILED, check_plugin
    from .plugin.library import library_file

    data = None if library is None else library_file(library)
    found = check_plugin(data, str(library), say=say)
    rows = [(finding.verdict, finding.name, finding.words) for finding in found]
    show([dc.asdict(finding) for finding in found], columns(rows), as_json=as_json)
    if any(finding.verdict == FAILED for finding in found):
        sys.exit(1)
