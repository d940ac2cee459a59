"""``dlcv-deploy triton``: models for Triton Inference Server, from bundles."""

from __future__ import annotations

from pathlib import Path

import click

from .cli_options import BUNDLE, as_json, say, show


@click.command()
@click.argument("bundles", type=BUNDLE, nargs=-1, required=True, metavar="BUNDLE...")
@click.argument("repository", type=BUNDLE, metavar="REPO")
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="Serve this engine: tensorrt, openvino or onnxruntime; repeatable.  [default: the first of them in BUNDLE]",
)
@click.option(
    "--input",
    "form",
    type=click.Choice(["float32", "uint8"]),
    default="float32",
    show_default=True,
    help="What clients send: the network's normalized input, or plain pixels, N x S x S x 3.",
)
@click.option("--ten-crop", is_flag=True, help="Take whole canvases; cut, run and average ten crops of each.")
@click.option("--gpu", is_flag=True, help="Serve the ONNX graph on a GPU, by TensorRT inside ONNX Runtime.")
@click.option("--instances", type=click.IntRange(1), default=1, show_default=True, help="That run at a time.")
@click.option("--threads", type=click.IntRange(0), default=0, help="Of a CPU, for each instance.  [default: all]")
@click.option(
    "--max-batch",
    type=click.IntRange(1),
    metavar="N",
    help="Rows that the server may put together.  [default: the engine's; none for OpenVINO, which would pad them]",
)
@click.option(
    "--queue-delay",
    "queue_delay_us",
    type=click.IntRange(0),
    default=500,
    show_default=True,
    metavar="US",
    help="How long a request may wait for others, in microseconds.",
)
@click.option("--name", help="The model's name.  [default: that of BUNDLE]")
@click.option("--version", type=click.IntRange(1), help="Add this version to a model that is there.")
@click.option("--force", is_flag=True, help="Replace a model, or with --version that version, that is there.")
@as_json
def triton(
    bundles: tuple[Path, ...],
    repository: Path,
    form: str,
    name: str | None,
    version: int | None,
    force: bool,
    as_json: bool,
    **how: object,
) -> None:
    """Write engines of each BUNDLE into REPO, a model repository of NVIDIA's Triton Inference Server.

    What is put into a graph is compiled again here, and held against the engine that is in BUNDLE.
    """
    from .describe import columns
    from .store import Store, cache_dir
    from .triton.repository import README, serve
    from .triton.serve import Wanted

    wanted = Wanted(uint8=form == "uint8", **how)  # type: ignore[arg-type]
    value = serve(
        bundles, repository, wanted, name=name, version=version, force=force, store=Store(cache_dir()), say=say
    )
    rows = [
        (model["model"], model["signature"]["backend"], f"version {', '.join(model['versions'])}")
        for model in value["models"]
    ]
    show(value, columns(rows), as_json=as_json)
    say(f"repository  {repository}\nhow to serve it  {repository / README}")
