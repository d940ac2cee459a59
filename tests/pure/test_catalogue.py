"""What the catalogue says, and that it says so without PyTorch."""

import dataclasses as dc
import re
import subprocess
import sys

import pytest

from dlcv_deploy.errors import MissingBackend, SpecError
from dlcv_deploy.models import catalogue
from dlcv_deploy.models.catalogue import CIFAR10, IMAGENET, NETWORKS, WEIGHT_SETS, labels, network

IMAGENET_NAMES = ["alexnet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
CIFAR_NAMES = ["resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet1202"]


def test_networks():
    assert list(NETWORKS) == IMAGENET_NAMES + CIFAR_NAMES
    for name, net in NETWORKS.items():
        assert net.name == name
        assert net.preprocess is (CIFAR10 if name in CIFAR_NAMES else IMAGENET)
        assert len(labels(net.labels)) == net.classes == (10 if name in CIFAR_NAMES else 1000)
        assert net.paper


def test_preprocessing():
    assert (CIFAR10.size, CIFAR10.canvas, CIFAR10.fit) == (32, 40, "pad")
    assert (CIFAR10.mean, CIFAR10.std) == ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    assert (IMAGENET.size, IMAGENET.canvas, IMAGENET.fit) == (224, 256, "resize")
    assert (IMAGENET.mean, IMAGENET.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert network("resnet20").input_shape == (3, 32, 32)


def test_networks_can_be_named_by_digest():
    from dlcv_deploy.digest import digest

    assert digest(network=network("resnet20")) != digest(network=network("resnet32"))
    assert len({*NETWORKS.values()}) == 12


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "resnet1202"])
def test_each_network_builds_with_its_classes(name):
    torch = pytest.importorskip("torch")
    net = network(name)
    with torch.device("meta"):
        assert catalogue.build(net)(torch.empty(2, *net.input_shape)).shape == (2, net.classes)


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet21", "resnet20"), ("ResNet-50", "resnet50"), ("alexnett", "alexnet"), ("resnt18", "resnet18")],
)
def test_unknown_network_offers_the_nearest(name, near):
    with pytest.raises(SpecError, match=f"no network '{name}'\n  fix: did you mean .*{near}"):
        network(name)


def test_unknown_network_like_none():
    with pytest.raises(SpecError, match="fix: one of alexnet, resnet18"):
        network("vgg")


def test_published_weights():
    """torchvision's names carry the first digits of the digest."""
    assert list(WEIGHT_SETS) == ["resnet20", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
    for name, weights in WEIGHT_SETS.items():
        assert weights.network == name
        assert name in NETWORKS
        assert weights.licence in ("Apache-2.0", "BSD-3-Clause")
        if not weights.bundled:
            assert weights.url == f"https://download.pytorch.org/models/{name}-{weights.sha256}.pth"
            assert re.fullmatch("[0-9a-f]{8}", weights.sha256)
            assert weights.url.endswith(f"/{weights.file}")
    prefixes = [w.sha256 for w in WEIGHT_SETS.values() if w.url]
    assert prefixes == ["f37072fd", "b627a593", "0676ba61", "63fe2227", "394f9c45"]
    assert [w.top1 for w in WEIGHT_SETS.values() if w.url] == [69.758, 73.314, 76.130, 77.374, 78.312]


def test_accuracy_in_words():
    assert WEIGHT_SETS["resnet50"].accuracy == (
        "top-1 76.13 %, top-5 92.862 % on the 50,000 ImageNet validation images, "
        "one 224x224 centre crop of a 256 resize, by torchvision"
    )
    assert dc.replace(WEIGHT_SETS["resnet50"], top1=None, top5=None).accuracy == ""


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
