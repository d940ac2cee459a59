"""What the catalogue says, and that it says so without PyTorch."""

import dataclasses as dc
import re
import subprocess
import sys

import pytest

from dlcv_deploy.errors import MissingBackend, SpecError
from dlcv_deploy.models import catalogue
from dlcv_deploy.models.catalogue import CIFAR10, IMAGENET, NETWORKS, WEIGHT_SETS, labels, network

NAMES = """alexnet alexnet-caffe alexnet-torchvision alexnet-cifar10 googlenet googlenet-torchvision googlenet-cifar10
resnet18 resnet34 resnet50 resnet101 resnet152 resnet50-caffe resnet101-caffe resnet152-caffe
resnet18-a resnet18-c resnet34-a resnet34-c plain-18 plain-34
resnet20 resnet32 resnet44 resnet56 resnet110 resnet1202 plain-20 plain-32 plain-44 plain-56 plain-110"""
NAMES = NAMES.split()
CIFAR_NAMES = [*NAMES[NAMES.index("resnet20") :], "alexnet-cifar10", "googlenet-cifar10"]


def test_networks():
    assert list(NETWORKS) == NAMES
    for name, net in NETWORKS.items():
        assert net.name == name
        assert (net.preprocess == CIFAR10) == (name in CIFAR_NAMES)
        assert len(labels(net.labels)) == net.classes == (10 if name in CIFAR_NAMES else 1000)
        assert net.paper
        assert net.outputs[:2] == ("logits", "features")


def test_caffes_networks_take_pixels_less_their_mean():
    for name in ("alexnet-caffe", "googlenet", "resnet50-caffe"):
        pre = network(name).preprocess
        assert (pre.mean, pre.std) == ((123 / 255, 117 / 255, 104 / 255), (1 / 255,) * 3)
    assert network("alexnet-caffe").input_shape == (3, 227, 227)


def test_preprocessing():
    assert (CIFAR10.size, CIFAR10.canvas, CIFAR10.fit) == (32, 40, "pad")
    assert (CIFAR10.mean, CIFAR10.std) == ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    assert (IMAGENET.size, IMAGENET.canvas, IMAGENET.fit) == (224, 256, "resize")
    assert (IMAGENET.mean, IMAGENET.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert network("resnet20").input_shape == (3, 32, 32)


def test_networks_can_be_named_by_digest():
    from dlcv_deploy.digest import digest

    assert digest(network=network("resnet20")) != digest(network=network("resnet32"))
    assert len({*NETWORKS.values()}) == len(NETWORKS)


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "resnet1202"])
def test_each_network_builds_with_its_classes_and_outputs(name):
    torch = pytest.importorskip("torch")
    net = network(name)
    with torch.device("meta"):
        built, x = catalogue.build(net).eval(), torch.empty(2, *net.input_shape)
        assert built(x).shape == (2, net.classes)
        found = built.outputs(x)
    assert {*found} == {*net.outputs}
    assert all(len(y) == 2 for y in found.values())


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet21", "resnet20"), ("ResNet-50", "resnet50"), ("alexnett", "alexnet"), ("resnt18", "resnet18")],
)
def test_unknown_network_offers_the_nearest(name, near):
    with pytest.raises(SpecError, match=f"no network '{name}'\n  fix: did you mean .*{near}"):
        network(name)


def test_unknown_network_like_none():
    with pytest.raises(SpecError, match="fix: one of alexnet, alexnet-caffe"):
        network("vgg")


PUBLISHED = """
alexnet-torchvision alexnet-owt-7be5be79 56.522
googlenet-torchvision googlenet-1378be20 69.778
resnet18 resnet18-f37072fd 69.758
resnet34 resnet34-b627a593 73.314
resnet50 resnet50-0676ba61 76.13
resnet50 resnet50-11ad3fa6 80.858
resnet101 resnet101-63fe2227 77.374
resnet101 resnet101-cd907fc2 81.886
resnet152 resnet152-394f9c45 78.312
resnet152 resnet152-f82ba261 82.284
"""


def test_published_weights():
    """torchvision's names carry the first digits of the digest; its second sets are for a resize to 232."""
    found = [w for sets in WEIGHT_SETS.values() for w in sets if not w.bundled]
    assert [f"{w.network} {w.file.removesuffix('.pth')} {w.top1:g}" for w in found] == PUBLISHED.split("\n")[1:-1]
    for weights in found:
        assert weights.url == f"https://download.pytorch.org/models/{weights.file}"
        assert re.fullmatch("[0-9a-f]{8}", weights.sha256)
        assert weights.file.endswith(f"-{weights.sha256}.pth")
        assert weights.licence == "BSD-3-Clause"
        assert weights.preprocess.canvas == (232 if weights.name == "IMAGENET1K_V2" else 256)


def test_weights_of_one_network_have_names_of_their_own():
    assert list(WEIGHT_SETS) == list(NETWORKS)
    for name, sets in WEIGHT_SETS.items():
        assert len({w.name for w in sets}) == len(sets)
        assert {w.network for w in sets} <= {name}
    assert [w.name for w in WEIGHT_SETS["resnet50"]] == ["IMAGENET1K_V1", "IMAGENET1K_V2"]


def test_googlenet_of_torchvision_was_trained_with_another_normalization():
    """Its transform_input turns ImageNet's mean and deviation into 0.5 and 0.5."""
    (weights,) = WEIGHT_SETS["googlenet-torchvision"]
    assert (weights.preprocess.mean, weights.preprocess.std) == ((0.5,) * 3, (0.5,) * 3)


def test_accuracy_in_words():
    second = WEIGHT_SETS["resnet50"][1]
    assert second.accuracy == (
        "top-1 80.858 %, top-5 95.434 % on the 50,000 ImageNet validation images, "
        "one 224x224 centre crop of a 232 resize, by torchvision"
    )
    assert dc.replace(second, top1=None, top5=None).accuracy == ""


def test_labels():
    assert " ".join(labels("cifar10")) == "airplane automobile bird cat deer dog frog horse ship truck"
    names = labels("imagenet")
    assert len(names) == len(set(names)) == 1000
    chosen = {0: "tench", 1: "goldfish", 207: "golden retriever", 281: "tabby", 724: "pirate", 999: "toilet tissue"}
    assert {i: names[i] for i in chosen} == chosen
    assert all(name == name.strip() and name for name in names)


def test_unknown_labels():
    with pytest.raises(SpecError, match=r"no list of labels 'cifar100'\n  fix: did you mean cifar10\?"):
        labels("cifar100")
    with pytest.raises(SpecError, match="no list of labels"):
        labels("../../README")


def test_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingBackend, match=r"pip install 'dlcv-deploy\[torch\]'"):
        catalogue.build(network("resnet20"))


def test_loading_weights_without_torch():
    code = "import sys; sys.modules['torch'] = None; import dlcv_deploy.models.weights"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MissingBackend: networks need PyTorch, which cannot be imported" in run.stderr


def test_the_catalogue_is_light():
    code = (
        "import sys, dlcv_deploy.models.catalogue as c; c.labels('imagenet'); c.network('resnet50');"
        "print({'torch', 'numpy', 'onnx', 'PIL', 'safetensors'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
