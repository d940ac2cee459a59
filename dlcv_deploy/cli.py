"""The command line: one thin command a stage. stdout is the value, stderr is the talk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from . import __version__
from .cli_cpp import cpp
from .cli_options import (
    BUNDLE,
    FILE,
    architectures,
    as_json,
    cache_options,
    calib_options,
    model_options,
    outputs_option,
    say,
    show,
    switched,
    talking,
)
from .cli_plugin import plugin
from .cli_proof import bench, compare, validate
from .cli_report import report
from .cli_triton import triton
from .errors import DeployError

_NOT_REACHED = "FAILED: no mixture of INT8 and floating point keeps to --max-drop; the best that was found is written"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="dlcv-deploy")
def cli() -> None:
    """Trained image classifiers to INT8, FP16 and FP32 engines, with measured parity and latency."""


@cli.command()
@model_options
@outputs_option
@click.option("--fp32", "precision", flag_value="fp32", default="fp32", help="Single precision (the default).")
@click.option("--fp16", "precision", flag_value="fp16", help="Half precision, typed into the graph.")
@click.option("--int8", "precision", flag_value="int8", help="8-bit integers, calibrated, as explicit Q/DQ.")
@click.option("--calib", help="DIR, FILE.npz, TABLE.json, 'cifar10-train' or 'random'.")
@calib_options
@click.option("--data", help="Images to measure parity on: DIR, FILE.npz or 'cifar10'.")
@click.option("--truth", type=FILE, help="Labels of the images in DIR: labels.csv, val.txt, ImageNet's ground truth.")
@click.option("--target", "targets", multiple=True, default=("auto",), show_default=True, help="Backend; repeatable.")
@click.option("--sm", callback=architectures, metavar="LIST", help="GPU architectures for TensorRT-RTX, as 86,89,120.")
@click.option(
    "--lrn",
    type=click.Choice(["native", "plugin", "race"]),
    default="native",
    show_default=True,
    help="LRN of TensorRT's engines: its own, this project's CUDA plugin, or the faster of both on this GPU.",
)
@click.option("--allow-partial", is_flag=True, help="Take engines that run less in INT8 than was asked for.")
@click.option("--lrn-library", type=FILE, help="The plugin's library, in place of one that is built now.")
@click.option("-o", "--output", type=BUNDLE, help="The bundle to write.  [default: MODEL-PRECISION.dlcv]")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@as_json
def build(as_json: bool, **request: Any) -> None:  # noqa: ANN401
    """Take MODEL from PyTorch to engines in a bundle, with parity and latency measured.

    MODEL is a name that `dlcv-deploy models` lists, or what makes a network of your own: FILE.py:NAME (or
    package.module:NAME), a class or function without arguments. The file is run; weights are never unpickled.
    """
    from .build import build as run
    from .inspection import inconsistent
    from .progress import terminal
    from .report.document import to_json
    from .report.terminal import table
    from .spec import BuildSpec
    from .store import Store, cache_dir

    with talking():
        bundle, report = run(BuildSpec(**switched(request)), store=Store(cache_dir()), progress=terminal, say=say)
    click.echo(to_json(report) if as_json else table(report))
    say(f"bundle  {bundle.path}\nreport  {bundle.path / 'report.html'}")
    mixed = report.quantization.mixed if report.quantization else None
    failed = [_NOT_REACHED] if mixed and not mixed.reached else []
    failed += [f"FAILED: {what}; the bundle is written" for what in inconsistent(report.consistency)]
    if failed:
        fail("\n".join(failed), 1)


@cli.command()
@click.argument("bundle", type=BUNDLE)
@as_json
def inspect(bundle: Path, as_json: bool) -> None:
    """Check the files of BUNDLE and say what is in it."""
    import dataclasses as dc

    from .bundle import open_bundle
    from .describe import describe_bundle

    opened = open_bundle(bundle)
    show(dc.asdict(opened.manifest), describe_bundle(opened), as_json=as_json)


@cli.command()
@model_options
@outputs_option
@click.option("--fp16", is_flag=True, help="Type half precision into the graph.")
@click.option("-o", "--output", type=FILE, required=True, help="The ONNX file to write.")
@as_json
def export(as_json: bool, **request: Any) -> None:  # noqa: ANN401
    """Export MODEL, a name or FILE.py:NAME, to ONNX, checked against PyTorch."""
    from .build import export_file
    from .store import Store, cache_dir

    with talking():
        result = export_file(store=Store(cache_dir()), say=say, **request)
    show(result, str(result["file"]), as_json=as_json)


@cli.command()
@model_options
@outputs_option
@click.option("--calib", help="DIR, FILE.npz, 'cifar10-train' or 'random'.")
@calib_options
@cache_options
@click.option("-o", "--output", type=FILE, required=True, help="The table to write.")
@as_json
def calibrate(as_json: bool, **request: Any) -> None:  # noqa: ANN401
    """Observe the activations of MODEL, a name or FILE.py:NAME, on images and write the table of their ranges."""
    from .build import calibrate_file
    from .progress import terminal
    from .store import Store, cache_dir

    with talking():
        result = calibrate_file(store=Store(cache_dir()), progress=terminal, say=say, **switched(request))
    show(result, str(result["file"]), as_json=as_json)
    mixed = result.get("study", {}).get("mixed")
    if mixed and not mixed["reached"]:
        fail(_NOT_REACHED, 1)


@cli.command()
@as_json
def models(as_json: bool) -> None:
    """List the networks and their weights."""
    from .describe import describe_models, models_value

    value = models_value()
    show(value, describe_models(value), as_json=as_json)


@cli.command()
@click.argument("bundle", type=BUNDLE, required=False)
@click.option("--rebuild", "again", is_flag=True, help="Compile again what does not run here, where that mends it.")
@click.option("-o", "--output", type=BUNDLE, help="With --rebuild: the bundle to write.  [default: in its place]")
@as_json
def doctor(bundle: Path | None, again: bool, output: Path | None, as_json: bool) -> None:
    """Say what is installed, what can compile, what can run, and why not.

    With BUNDLE, say all that keeps its engines from running on this machine, and how to mend it. With --rebuild,
    compile again first what that mends.
    """
    from .describe import describe_doctor, describe_preflight, doctor_value, preflight_value

    if again and bundle is None:
        raise click.UsageError("--rebuild takes a BUNDLE")
    if output is not None and not again:
        raise click.UsageError("-o goes with --rebuild")
    if bundle is None:
        value = doctor_value()
        show(value, describe_doctor(value), as_json=as_json)
        return
    if again:
        done, told = _rebuilt(bundle, output)
        value = {**preflight_value(Path(done["path"])), "rebuilt": done}
        show(value, "\n".join([*told, describe_preflight(value)]), as_json=as_json)
    else:
        value = preflight_value(bundle)
        show(value, describe_preflight(value), as_json=as_json)
    if value["exit_code"]:
        sys.exit(value["exit_code"])


def _rebuilt(bundle: Path, output: Path | None) -> tuple[dict[str, Any], list[str]]:
    """Compile a bundle's engines again; returns what was done, for ``--json`` and in sentences."""
    import dataclasses as dc

    from .rebuild import rebuild
    from .store import Store, cache_dir

    with talking():
        done = rebuild(bundle, output=output, store=Store(cache_dir()), say=say)
    told = [one.words() for one in done.engines] or ["there is nothing that compiling again would mend"]
    return {**dc.asdict(done), "path": str(done.path)}, [*told, *done.left]


for _command in (validate, bench, compare, report, plugin, cpp, triton):
    cli.add_command(_command)


def main() -> None:
    """Run the command line; errors that a user can mend are one message and an exit code."""
    import errno

    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        fail("interrupted; nothing was left half done", 130)
    except click.ClickException as e:
        e.show()
        sys.exit(e.exit_code)
    except DeployError as e:
        log = getattr(e, "log", "")
        fail(f"{log}\nerror: {e}" if log else f"error: {e}", e.exit_code)
    except KeyboardInterrupt:
        fail("interrupted; nothing was left half done", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        fail(f"error: {e}\n  fix: free space, or write elsewhere (-o; DLCV_CACHE and TMPDIR move the rest)", 5)


def fail(message: str, code: int) -> None:
    """Say why, and exit."""
    click.echo(message, err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
