"""Checkpoints with the names that other libraries give a ResNet's and a GoogLeNet's weights."""

import json

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from dlcv_deploy.errors import ArtifactError  # noqa: E402
from dlcv_deploy.models.catalogue import network  # noqa: E402
from dlcv_deploy.models.importers.fitting import blank, fitting, shapes  # noqa: E402
from dlcv_deploy.models.importers.layouts import check_config, renamed  # noqa: E402
from dlcv_deploy.models.weights import load, weights_sha256  # noqa: E402


def state_of(name):
    """Weights that differ from key to key, as one number each, spread over their shape."""
    wanted = shapes(blank(network(name)).state_dict())
    return {key: torch.tensor(float(i)).expand(shape) for i, (key, shape) in enumerate(wanted.items())}


def hugging_face(key):
    """Our key as transformers' ResNetForImageClassification has it."""
    part, _, rest = key.partition(".")
    if part in ("conv1", "bn1"):
        return f"resnet.embedder.embedder.{'convolution' if part == 'conv1' else 'normalization'}.{rest}"
    if part == "fc":
        return f"classifier.1.{rest}"
    block, layer, rest = rest.split(".", 2)
    inside = f"resnet.encoder.stages.{int(part[-1]) - 1}.layers.{block}"
    if layer == "downsample":
        kind, rest = rest.split(".", 1)
        return f"{inside}.shortcut.{('convolution', 'normalization')[int(kind)]}.{rest}"
    kind = "convolution" if layer.startswith("conv") else "normalization"
    return f"{inside}.layer.{int(layer[-1]) - 1}.{kind}.{rest}"


LAYOUTS = {
    "torchvision": str,
    "Hugging Face": hugging_face,
    "Hugging Face, wrapped": lambda key: f"model.{hugging_face(key)}" if "fc" not in key else hugging_face(key),
    "OpenMMLab": lambda key: f"head.{key}" if key.startswith("fc") else f"backbone.{key}",
    "Lightning": lambda key: f"model.{key}",
    "a wrapper in a wrapper": lambda key: f"learner.net.{key}",
}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_key_finds_its_place(layout, name):
    wanted = shapes(blank(network(name)).state_dict())
    theirs = {LAYOUTS[layout](key): key for key in wanted}
    assert renamed(theirs, wanted) == theirs


def test_two_keys_never_become_one():
    """A block within a network has names that look like a whole network in a wrapper."""
    keys = ["conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv2.weight"]
    assert renamed(keys, ["conv1.weight", "conv2.weight"]) == {key: key for key in keys}


def test_hugging_faces_keys_one_by_one():
    """As transformers' modeling_resnet.py names its modules."""
    published = {
        "resnet.embedder.embedder.convolution.weight": "conv1.weight",
        "resnet.embedder.embedder.normalization.running_mean": "bn1.running_mean",
        "resnet.encoder.stages.0.layers.0.shortcut.convolution.weight": "layer1.0.downsample.0.weight",
        "resnet.encoder.stages.3.layers.0.shortcut.normalization.bias": "layer4.0.downsample.1.bias",
        "resnet.encoder.stages.2.layers.5.layer.0.convolution.weight": "layer3.5.conv1.weight",
        "resnet.encoder.stages.2.layers.5.layer.2.normalization.running_var": "layer3.5.bn3.running_var",
        "classifier.1.weight": "fc.weight",
    }
    assert renamed(published, published.values()) == published


@pytest.mark.parametrize("layout", ["Hugging Face", "Lightning"])
def test_a_file_in_another_layout(tmp_path, layout):
    state = {LAYOUTS[layout](key): value for key, value in state_of("resnet18").items()}
    path = tmp_path / "w.ckpt"
    torch.save({"state_dict": state, "epoch": 3}, path)
    found = load(network("resnet18"), str(path)).net.state_dict()
    for key, value in state_of("resnet18").items():
        assert torch.equal(found[key], value), key


def test_what_is_missing_and_unknown_within_a_wrapper(tmp_path):
    state = {f"model.{key}": value for key, value in state_of("resnet18").items()}
    del state["model.fc.bias"]
    path = tmp_path / "w.pth"
    torch.save({**state, "model.extra": torch.zeros(1), "loss.weight": torch.zeros(2)}, path)
    with pytest.raises(ArtifactError) as e:
        load(network("resnet18"), str(path))
    assert "\n  1 missing: fc.bias\n  2 unknown: extra, loss.weight\n" in str(e.value)


@pytest.mark.parametrize("aux", [True, False])
def test_auxiliary_classifiers_belong_to_training(tmp_path, aux):
    """torchvision publishes them, exporters and trained-on checkpoints lack them: the network is the same."""
    state = state_of("googlenet-torchvision")
    assert not any(key.startswith("aux") for key in state)
    more = {"aux1.fc2.weight": torch.zeros(7), "aux2.conv.bn.bias": torch.zeros(1)} if aux else {}
    torch.save({**state, **more}, tmp_path / "w.pth")
    found = load(network("googlenet-torchvision"), str(tmp_path / "w.pth"))
    assert set(shapes(found.net.state_dict())) == set(state)
    assert found.weights_sha256 == weights_sha256(state)
    with torch.inference_mode():
        assert found.net(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)


FORMS = {
    "resnet50d": ({"conv1.0.weight": (32, 3, 3, 3)}, "it has a stem of three convolutions (ResNet-C and -D, as timm's"),
    "seresnet50": ({"layer1.0.se.fc1.weight": (16, 256, 1, 1)}, "it has squeeze-and-excitation blocks"),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_that_are_others(tmp_path, form):
    more, expected = FORMS[form]
    state = {**state_of("resnet50"), **{key: torch.zeros(shape) for key, shape in more.items()}}
    if "conv1.0.weight" in more:
        del state["conv1.weight"]
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "w.safetensors")
    with pytest.raises(ArtifactError) as e:
        fitting(blank(network("resnet50")), tmp_path / "w.safetensors", "resnet50", (3, 224, 224))
    assert expected in str(e.value)


# --- config.json ---

EARLY = {"model_type": "resnet", "layer_type": "bottleneck", "downsample_in_bottleneck": True}
CONFIGS = [
    (EARLY, "resnet50", "has the stride in the first 1x1\n  fix: name resnet50-caffe"),
    ({**EARLY, "downsample_in_bottleneck": False}, "resnet50-caffe", "has the stride in the 3x3\n  fix: name resnet50"),
    ({"model_type": "resnet"}, "resnet101-caffe", "has the stride in the 3x3\n  fix: name resnet101"),
    ({**EARLY, "layer_type": "basic", "downsample_in_first_stage": True}, "resnet18", "strides in the first stage"),
    ({"model_type": "resnet", "hidden_act": "gelu"}, "resnet50", "or has another activation than ReLU"),
    (EARLY, "resnet50-caffe", ""),
    ({**EARLY, "layer_type": "basic"}, "resnet18", ""),
    (EARLY, "googlenet", ""),
    ({"model_type": "convnext", "hidden_act": "gelu"}, "resnet50", ""),
    ([], "resnet50", ""),
    (None, "resnet50", ""),
]


@pytest.mark.parametrize(("config", "name", "expected"), CONFIGS)
def test_the_configuration_beside_the_weights(tmp_path, config, name, expected):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    try:
        check_config(tmp_path / "model.safetensors", dict(network(name).arguments))
    except ArtifactError as e:
        found = str(e)
    else:
        found = ""
    assert bool(found) == bool(expected)
    assert expected in found


def test_the_configuration_is_looked_at(tmp_path):
    """Of weights that fit both forms."""
    torch.save(state_of("resnet50"), tmp_path / "w.pth")
    (tmp_path / "config.json").write_text(json.dumps(EARLY))
    with pytest.raises(ArtifactError, match="name resnet50-caffe"):
        load(network("resnet50"), str(tmp_path / "w.pth"))
