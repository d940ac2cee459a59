"""The names that other libraries give a network's weights, as ours, which are torchvision's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ...errors import ArtifactError

Rename = Callable[[str], str]


def _hugging_face(key: str) -> str:
    """The names of Hugging Face's ResNet (transformers, modeling_resnet.py)."""
    key = re.sub(r"^(.*\.)?embedder\.embedder\.", "stem.", key)
    key = re.sub(r"^classifier\.1\.", "fc.", key)
    key = re.sub(r"^stem\.convolution\.", "conv1.", re.sub(r"^stem\.normalization\.", "bn1.", key))
    if not (found := re.fullmatch(r"(?:.*\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.(.+)", key)):
        return key
    block, rest = f"layer{int(found[1]) + 1}.{found[2]}", found[3]
    rest = rest.replace("shortcut.convolution.", "downsample.0.").replace("shortcut.normalization.", "downsample.1.")
    if inner := re.fullmatch(r"layer\.(\d)\.(convolution|normalization)\.(\w+)", rest):
        rest = f"{'conv' if inner[2] == 'convolution' else 'bn'}{int(inner[1]) + 1}.{inner[3]}"
    return f"{block}.{rest}"


def _mmpretrain(key: str) -> str:
    """The names of OpenMMLab's ResNet: a backbone and a head."""
    return re.sub(r"^(backbone|head)\.", "", key)


def _wrapped(prefix: str) -> Rename:
    return lambda key: key.removeprefix(prefix)


def renamed(keys: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """A file's keys, each with the name that a network has for it, under the layout that gives most of the names.

    The layouts are torchvision's (which is timm's too), Hugging Face's, OpenMMLab's, and torchvision's within any
    wrapper, such as the ``model.`` of a Lightning module.

    Args:
        keys: The file's.
        wanted: The network's, in its order.
    """
    keys, wanted = list(keys), list(wanted)
    first = wanted[0]
    prefixes = [key.removesuffix(first) for key in keys if key.endswith(f".{first}")]
    layouts: list[Rename] = [str, _hugging_face, _mmpretrain, *map(_wrapped, prefixes)]
    tried = [{key: layout(key) for key in keys} for layout in layouts]
    apart = [names for names in tried if len(set(names.values())) == len(keys)]
    return max(apart, key=lambda names: len(set(wanted).intersection(names.values())))


_OTHER_FORMS = {
    r"^conv1\.0\.weight": "it has a stem of three convolutions (ResNet-C and -D, as timm's resnet50d)",
    r"\.se\.(fc|conv)": "it has squeeze-and-excitation blocks",
    r"(^|\.)(blocks|patch_embed)\.": "it is a transformer, or of a block family that is not in the catalogue",
}


def other_form(keys: Iterable[str]) -> str:
    """What the names of a file's keys say of the network that they belong to, where they are not those of ours."""
    keys = list(keys)
    return next((what for form, what in _OTHER_FORMS.items() if any(re.search(form, key) for key in keys)), "")


def check_config(path: Path, arguments: Mapping[str, object]) -> None:
    """Hold a ``config.json`` that Hugging Face puts beside weights against a ResNet: keys do not say where it strides.

    Args:
        path: The weights.
        arguments: Of the network's factory.

    Raises:
        ArtifactError: The configuration is that of another form.
    """
    try:
        config = json.loads((path.parent / "config.json").read_bytes())
    except (OSError, ValueError):
        return
    if not isinstance(config, dict) or config.get("model_type") != "resnet" or "depth" not in arguments:
        return
    early = bool(config.get("downsample_in_bottleneck", False))
    if config.get("layer_type", "bottleneck") == "bottleneck" and early != bool(arguments.get("early", False)):
        name = f"resnet{arguments.get('depth', '')}{'-caffe' if early else ''}"
        where = "first 1x1" if early else "3x3"
        raise ArtifactError(f"{path.parent / 'config.json'} has the stride in the {where}", fix=f"name {name}")
    if config.get("downsample_in_first_stage", False) or config.get("hidden_act", "relu") != "relu":
        raise ArtifactError(
            f"{path.parent / 'config.json'} strides in the first stage, or has another activation than ReLU",
            fix="bring the network as FILE.py:FACTORY",
        )
