"""The command line: one thin command a stage. stdout is the value, stderr is the talk."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import click

from . import __version__
from .errors import DeployError

FILE = click.Path(path_type=Path, dir_okay=False)
BUNDLE = click.Path(path_type=Path, file_okay=False)


def triple(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """Three numbers, as R,G,B."""
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise click.BadParameter(f"{value!r} is not three numbers; write it as .485,.456,.406", ctx, param)
    return numbers


def shape(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Channels, height and width, as 3x224x224."""
    if value is None:
        return None
    parts = value.lower().replace("×", "x").split("x")
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"{value!r} is not channels, height and width; write it as 3x224x224", ctx, param)
    return tuple(int(part) for part in parts)


def names(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Names, as logits,features."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def architectures(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """GPU architectures, as 86,89,120 (sm_89 and 8.9 are understood too)."""
    parts = [part.strip().removeprefix("sm_").replace(".", "") for part in value.split(",")] if value else []
    if not all(part.isdigit() for part in parts):
        raise click.BadParameter(f"{value!r} is not a list of architectures; write it as 86,89,120", ctx, param)
    return tuple(int(part) for part in parts)


def options(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several click options as one decorator."""

    def apply(function: Any) -> Any:  # noqa: ANN401
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


as_json = click.option("--json", "as_json", is_flag=True, help="Print the value as JSON.")
model_options = options(
    click.argument("model"),
    click.option(
        "--weights",
        help="FILE (.pth, .safetensors, .onnx), a set's name, or 'random'; else the catalogue's, or the factory's.",
    ),
    click.option("--bgr", is_flag=True, help="The weights of FILE take BGR, as Caffe's do: turn them to take RGB."),
    click.option(
        "--input", "input_shape", callback=shape, metavar="3xSxS", help="Input of a network of your own, as 3x227x227."
    ),
    click.option("--mean", callback=triple, metavar="R,G,B", help="RGB mean in [0, 1], in place of the catalogue's."),
    click.option(
        "--std", callback=triple, metavar="R,G,B", help="RGB standard deviation in [0, 1], in place of the catalogue's."
    ),
    click.option(
        "--canvas",
        type=click.IntRange(1),
        metavar="N",
        help="Scale the shorter side of images to N pixels before cropping.",
    ),
    click.option("--labels", type=FILE, help="Class names, one a line, in the order of the network's logits."),
)
outputs_option = click.option(
    "--outputs",
    callback=names,
    default="logits",
    show_default=True,
    help="Tensors to answer with: logits,features,c2,c3,c4,c5; those of a method outputs(x) of your own network.",
)
calib_options = options(
    click.option("--calib-count", default=128, show_default=True, help="Images to calibrate on."),
    click.option("--method", help="max, percentile[:P], entropy or mse.", default="mse", show_default=True),
    click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read, and count them."),
)
moved = options(
    click.option("--weights", help="The PyTorch weights, where they have moved since the build."),
    click.option("--model", help="FILE.py:factory, where the code of a network of your own has moved."),
)
only = click.option("--target", "targets", multiple=True, help="Only these engines; repeatable.  [default: all]")


def say(line: str) -> None:
    """Talk on stderr."""
    click.echo(line, err=True)


def talking() -> contextlib.redirect_stdout[TextIO]:
    """What a network's own code prints is talk, and not the value."""
    return contextlib.redirect_stdout(sys.stderr)


def show(value: object, text: str, *, as_json: bool) -> None:
    """Print a value on stdout: as JSON for machines, as text for people."""
    import json

    click.echo(json.dumps(value, indent=2) if as_json else text)


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
@click.option("--target", "targets", multiple=True, default=("auto",), show_default=True, help="Backend; repeatable.")
@click.option("--sm", callback=architectures, metavar="LIST", help="GPU architectures for TensorRT-RTX, as 86,89,120.")
@click.option("-o", "--output", type=BUNDLE, help="The bundle to write.  [default: MODEL-PRECISION.dlcv]")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@as_json
def build(as_json: bool, **request: Any) -> None:  # noqa: ANN401
    """Take MODEL from PyTorch to engines in a bundle, with parity and latency measured.

    MODEL is a name that `dlcv-deploy models` lists, or what makes a network of your own: FILE.py:NAME (or
    package.module:NAME), a class or function without arguments. The file is run; weights are never unpickled.
    """
    from .build import build as run
    from .progress import terminal
    from .report.document import to_json
    from .report.terminal import table
    from .spec import BuildSpec
    from .store import Store, cache_dir

    with talking():
        bundle, report = run(BuildSpec(**request), store=Store(cache_dir()), progress=terminal, say=say)
    click.echo(to_json(report) if as_json else table(report))
    say(f"bundle  {bundle.path}\nreport  {bundle.path / 'report.md'}")


@cli.command()
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
    from .proof import validate as run
    from .report.document import plain
    from .report.terminal import parity_table

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


@cli.command()
@click.argument("bundle", type=BUNDLE)
@moved
@only
@as_json
def bench(bundle: Path, as_json: bool, **request: Any) -> None:  # noqa: ANN401
    """Time the engines of BUNDLE beside the PyTorch original, in one run."""
    from .progress import terminal
    from .proof import bench as run
    from .report.document import plain
    from .report.terminal import latency_table

    with talking():
        report = run(bundle, progress=terminal, **request)
    show(plain(report), latency_table(report), as_json=as_json)


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
@click.option("--calib", required=True, help="DIR, FILE.npz, 'cifar10-train' or 'random'.")
@calib_options
@click.option("-o", "--output", type=FILE, required=True, help="The table to write.")
@as_json
def calibrate(as_json: bool, **request: Any) -> None:  # noqa: ANN401
    """Observe the activations of MODEL, a name or FILE.py:NAME, on images and write the table of their ranges."""
    from .build import calibrate_file
    from .progress import terminal
    from .store import Store, cache_dir

    with talking():
        result = calibrate_file(store=Store(cache_dir()), progress=terminal, say=say, **request)
    show(result, str(result["file"]), as_json=as_json)


@cli.command()
@as_json
def models(as_json: bool) -> None:
    """List the networks and their weights."""
    from .describe import describe_models, models_value

    value = models_value()
    show(value, describe_models(value), as_json=as_json)


@cli.command()
@as_json
def doctor(as_json: bool) -> None:
    """Say what is installed, what can compile, what can run, and why not."""
    from .describe import describe_doctor, doctor_value

    value = doctor_value()
    show(value, describe_doctor(value), as_json=as_json)


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
