"""What the commands share: arguments and options, their readers, and the two streams."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import click

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
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise click.BadParameter(f"{value!r} is not a list of architectures; write it as 86,89,120", ctx, param)
    return tuple(int(part) for part in parts)


def sizes(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """Batch sizes, each once, as 1,10."""
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isascii() and part.isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"{value!r} is not a list of sizes; write it as 1,10", ctx, param)
    return tuple(dict.fromkeys(map(int, parts)))


def options(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several click options as one decorator."""

    def apply(function: Any) -> Any:  # noqa: ANN401
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


_SWITCHES = {
    "pixels": "Quantize the image in its own 256 levels.",
    "equalize": "Scale channels so that each uses the range of its tensor.",
    "bias": "Correct the mean of every layer's output.",
    "norm": "Correct the spread of every layer's output too.",
    "rounding": "Round weights by what a layer gives, not each by itself.",
    "sums": "Take one operand of residual sums in INT8.",
}


def switched(request: dict[str, Any]) -> dict[str, Any]:
    """A request with its switches, as far as they were set, in one entry."""
    switches = {name: request.pop(name) for name in _SWITCHES}
    return {**request, "switches": {name: on for name, on in switches.items() if on is not None}}


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
    click.option(
        "--quality",
        type=click.Choice(["fast", "default", "best"]),
        help="How to calibrate: Ranges alone (fast), with corrections, or with all of them (best).  [default: default]",
    ),
    click.option("--method", help="How ranges follow: max, percentile[:P], entropy or mse.  [default: the quality's]"),
    click.option("--tournament", is_flag=True, help="Try methods and corrections on held-out images; keep the best."),
    click.option("--robustness", type=click.IntRange(2), metavar="K", help="Calibrate on K random subsets."),
    click.option(
        "--max-drop", type=click.FloatRange(0), help="Leave layers in float until top-1 drops no more points."
    ),
    *(click.option(f"--{name}/--no-{name}", default=None, help=text) for name, text in _SWITCHES.items()),
    click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read, and count them."),
)
cache_options = options(
    click.option("--from-trt-cache", type=FILE, help="Take the scales of a calibration cache of TensorRT up to 10."),
    click.option(
        "--trt-names", type=FILE, metavar="FILE.json", help="What names in the cache mean: an object of name to tensor."
    ),
    click.option("--to-trt-cache", type=FILE, help="Write the ranges as a cache for TensorRT up to 10 too."),
    click.option("--to-modelopt", type=FILE, help="Write them for ModelOpt's --calibration_cache_path too."),
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
