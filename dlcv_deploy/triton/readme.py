"""The page beside the models of a repository: how to serve them, what clients send, and what has to match."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..parity import contract
from ..types import Preprocess

TITLE = "# Models for Triton, by dlcv-deploy"
IMAGE = "nvcr.io/nvidia/tritonserver:26.08-py3"
"""The newest that NVIDIA's table of versions had when this was written."""


def steps(pre: Preprocess, *, uint8: bool, ten_crop: bool) -> tuple[str, ...]:
    """The exact steps from an image file to what a client sends, in words."""
    decode, *shaped, numbers, first = contract.steps(pre)
    if ten_crop:  # the last cut, to the crop, is the graph's
        side = pre.canvas
        pad = f"put black pixels around it, to {side} x {side}: round(({side} - {pre.size}) / 2) left and above"
        shaped = [*shaped, pad] if pre.fit == "pad" else shaped[:-1]
    else:
        side = pre.size
    if uint8:
        return (decode, *shaped, f"send the bytes as they are, channels last: N x {side} x {side} x 3")
    return (decode, *shaped, numbers, first.replace(f"x {pre.size} x {pre.size}", f"x {side} x {side}"))


def page(repository: Path, models: Mapping[str, Mapping[str, Any]]) -> str:
    """The page for models by name, each as its ``contract.json`` has it."""
    parts = [TITLE, _start(repository, models), _health(models), _versions(models)]
    parts += [_model(name, models[name]) for name in sorted(models)]
    return "\n\n".join(parts) + "\n"


def client(name: str, model: Mapping[str, Any]) -> str:
    """A client's program for a model: it prints the five best classes of each image file that it is given."""
    pre = Preprocess(**{**model["preprocess"], **{k: tuple(model["preprocess"][k]) for k in ("mean", "std")}})
    (given,), answer = model["signature"]["inputs"], model["signature"]["outputs"][0]
    kind = given["type"].removeprefix("TYPE_")
    normalized = [] if model["uint8"] else ["    pixels = pixels.transpose(2, 0, 1) * SCALE + BIAS"]
    constants = [] if model["uint8"] else [f"MEAN, STD = np.array({pre.mean}), np.array({pre.std})", *_NORMALIZATION]
    lines = [
        "import sys",
        "",
        "import numpy as np",
        "import tritonclient.grpc as triton",
        "from PIL import Image",
        "",
        *constants,
        "",
        "",
        "def prepared(path):",
        '    image = Image.open(path).convert("RGB")',
        *(_padded(pre, model["ten_crop"]) if pre.fit == "pad" else _resized(pre, model["ten_crop"])),
        *normalized,
        "    return np.ascontiguousarray(pixels)[None]",
        "",
        "",
        'if __name__ == "__main__":',
        '    client = triton.InferenceServerClient("localhost:8001")',
        "    for path in sys.argv[1:]:",
        "        batch = prepared(path)",
        f"        given = triton.InferInput({json.dumps(given['name'])}, list(batch.shape), {json.dumps(kind)})",
        "        given.set_data_from_numpy(batch)",
        f"        asked = triton.InferRequestedOutput({json.dumps(answer['name'])}, class_count=5)",
        f"        answer = client.infer({json.dumps(name)}, [given], outputs=[asked])",
        f"        for line in answer.as_numpy({json.dumps(answer['name'])}).ravel():",
        '            score, index, label = line.decode().split(":", 2)',
        "            print(path, score, index, label)",
    ]
    return "\n".join(lines).replace("\n\n\n\n", "\n\n\n")


_NORMALIZATION = (
    "SCALE = (1 / (255 * STD)).astype(np.float32)[:, None, None]",
    "BIAS = (-MEAN / STD).astype(np.float32)[:, None, None]",
)


def _resized(pre: Preprocess, ten_crop: bool) -> list[str]:
    side, margin = pre.canvas, round((pre.canvas - pre.size) / 2)
    lines = [
        "    width, height = image.size",
        f"    if min(width, height) != {side}:",
        f"        longer = int({side} * max(width, height) / min(width, height))",
        f"        size = ({side}, longer) if width <= height else (longer, {side})",
        "        image = image.resize(size, Image.Resampling.BILINEAR)",
        f"    x, y = round((image.width - {side}) / 2), round((image.height - {side}) / 2)",
        f"    pixels = np.asarray(image)[y : y + {side}, x : x + {side}]",
    ]
    end = margin + pre.size
    return lines if ten_crop else [*lines, f"    pixels = pixels[{margin}:{end}, {margin}:{end}]"]


def _padded(pre: Preprocess, ten_crop: bool) -> list[str]:
    before = round((pre.canvas - pre.size) / 2)
    after = pre.canvas - pre.size - before
    lines = [f"    assert image.size == ({pre.size}, {pre.size}), image.size", "    pixels = np.asarray(image)"]
    if not ten_crop:
        return lines
    return [*lines, f"    pixels = np.pad(pixels, (({before}, {after}), ({before}, {after}), (0, 0)))"]


def _start(repository: Path, models: Mapping[str, Mapping[str, Any]]) -> str:
    gpu = any(model["device"] == "gpu" for model in models.values())
    libraries = [
        f"/models/{name}/{version}/{model['plugin']}"
        for name, model in sorted(models.items())
        for version in sorted(model["versions"], key=int)[-1:]
        if model["plugin"]
    ]
    words = ["docker", "run", "--rm", *(["--gpus", "all"] if gpu else [])]
    words += ["-p", "8000:8000", "-p", "8001:8001", "-p", "8002:8002", "-v", f"{repository.resolve()}:/models:ro"]
    words += [IMAGE, "tritonserver", "--model-repository=/models"]
    if libraries:
        words.append(f"--backend-config=tensorrt,plugins={libraries[0]}")
    plugin = f"\n\n{_PLUGIN}" if libraries else ""
    return f"""## Start

```sh
{shlex.join(words)}
```

With `--model-control-mode=explicit` and `--load-model=NAME` only what is named is loaded. `--model-control-mode=poll`
may look at a folder while it is being put in its place, and NVIDIA advises against it for production.{plugin}"""


_PLUGIN = """Engines with the LRN plugin need what `plugins=` names: the server only opens a library, and this one then
has TensorRT take the plugin's library beside it. One serves all such models. `LD_PRELOAD` is too early for that:
TensorRT is not loaded yet."""


def _health(models: Mapping[str, Mapping[str, Any]]) -> str:
    name = min(models)
    return f"""## Is it up?

```sh
curl -sf localhost:8000/v2/health/ready && echo ready
curl -s localhost:8000/v2/models/{name}
curl -s localhost:8000/v2/models/{name}/config
curl -s localhost:8002/metrics | grep nv_inference
```"""


def _versions(models: Mapping[str, Mapping[str, Any]]) -> str:
    """What has to match between an engine and the server, for the backends that are used."""
    used = {model["signature"]["backend"] for model in models.values()}
    told = {
        "tensorrt": "- **TensorRT**: a plan runs on the TensorRT that built it and on the GPU architecture that it was "
        "built for. `docker run --rm IMAGE sh -c 'dpkg -l | grep libnvinfer'` prints an image's version; "
        "https://docs.nvidia.com/deeplearning/frameworks/support-matrix/index.html lists all of them. Build the bundle "
        "with that version, or serve the ONNX graph (`--target onnxruntime`), which every release compiles for itself.",
        "openvino": "- **OpenVINO**: the representation was written by the version given below. Later ones read it; "
        "of an earlier one in the server, nothing is promised: where it refuses, serve the ONNX graph.",
        "onnxruntime": "- **ONNX Runtime**: release 26.08 has 1.28, 25.12 has 1.23.2, 24.12 has 1.20.1; all read "
        "these graphs (opset 18 or 19). On a GPU (`--gpu`) the graph goes to TensorRT inside ONNX Runtime, which "
        "compiles it when the model is loaded, for minutes.",
    }
    return "## What has to match\n\n" + "\n".join(told[name] for name in told if name in used)


def _model(name: str, model: Mapping[str, Any]) -> str:
    signature = model["signature"]
    rows = [
        f"| {side} | `{t['name']}` | {t['type']} | {_shape(t['dims'], signature)} |" for side, t in _sides(signature)
    ]
    versions = [_version(number, model["versions"][number]) for number in sorted(model["versions"], key=int)]
    what = _WHAT[model["uint8"], model["ten_crop"]]
    numbered = [f"{i}. {step}" for i, step in enumerate(model["steps"], 1)]
    golden = "`golden-*.png` are images, `golden-inputs.npy` is exactly what to send for them" + (
        "." if model["ten_crop"] else ", `golden-logits.npy` what the PyTorch original answers."
    )
    parts = [
        f"## {name}",
        "\n".join(["| | tensor | type | shape |", "|---|---|---|---|", *rows]),
        "\n".join(versions + [f"- {note}" for note in model["notes"]]),
        f"{what}\n\n" + "\n".join(numbered) + f"\n\n{golden}",
        f"```python\n{client(name, model)}\n```",
    ]
    return "\n\n".join(parts)


_WHAT = {
    (False, False): "The server takes the network's own input; preprocessing is the client's:",
    (True, False): "The server takes plain pixels, and normalizes them; the client's part is:",
    (False, True): "The server takes canvases, and cuts, runs and averages ten crops of each; the client's part is:",
    (True, True): "The server takes plain pixels of canvases, and cuts, runs and averages ten crops of each; the "
    "client's part is:",
}


def _sides(signature: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [("input", t) for t in signature["inputs"]] + [("output", t) for t in signature["outputs"]]


def _shape(dims: list[int], signature: Mapping[str, Any]) -> str:
    sizes = dims if not signature["max_batch_size"] else [-1, *dims]
    most = f", N up to {signature['max_batch_size']}" if signature["max_batch_size"] else ""
    return " x ".join("N" if size == -1 else str(size) for size in sizes) + most


def _version(number: str, version: Mapping[str, Any]) -> str:
    engine, check = version["engine"], version["check"]
    made = f" {engine['version']}" if engine["version"] else ""
    line = f"- version {number}: {version['model']}, {version['precision']}, {engine['backend']}{made} for "
    line += f"{engine['target']}, from {version['bundle']}"
    if check is None:
        return line
    if check["not_run"]:
        return f"{line}; the preprocessing in its graph was **not checked**: {check['not_run']}"
    same = "the same bits as" if check["same_bits"] else f"within {check['greatest_difference']:.1g} of"
    return f"{line}; checked on {check['images']} images: {same} the engine with preprocessing in Python"
