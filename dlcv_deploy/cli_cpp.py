"""``dlcv-deploy cpp``: the C++ library for applications."""

from __future__ import annotations

from pathlib import Path

import click

from .cli_options import as_json, say, show


@click.command()
@click.argument("prefix", type=click.Path(path_type=Path, file_okay=False))
@as_json
def cpp(prefix: Path, as_json: bool) -> None:
    """Build the C++ library and install it into PREFIX as a CMake package.

    It runs engines of OpenVINO (this Python's wheel, or OpenVINO_DIR) and of TensorRT or TensorRT-RTX (TENSORRT_ROOT),
    of those that are found. stdout is what the CMakeLists.txt of an application APP needs.
    """
    import dataclasses as dc

    from .install_cpp import install_cpp

    say("building the C++ library; that takes a minute")
    installed = install_cpp(prefix)
    for found in installed.found:
        say(f"with {found}")
    show(dc.asdict(installed), "\n".join(installed.lines()), as_json=as_json)
