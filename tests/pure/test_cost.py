"""What networks weigh, against their papers' figures."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from dlcv_deploy.models.catalogue import NETWORKS, network  # noqa: E402
from dlcv_deploy.models.cost import cost, markdown, measure  # noqa: E402

README = Path(__file__).parents[2] / "README.md"


def truncated(value, digits):
    return int(value * 10**digits) / 10**digits


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("resnet18", 1.8),
        ("resnet34", 3.6),
        ("plain-34", 3.6),
        ("resnet50-caffe", 3.8),
        ("resnet101-caffe", 7.5),  # 7.57; the table says 7.6
        ("resnet152-caffe", 11.2),  # 11.28; the table says 11.3
    ],
)
def test_multiply_adds_of_the_resnet_papers_table_1(name, giga):
    assert truncated(cost(network(name)).multiply_adds / 1e9, 1) == giga


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7), (1202, 19.4)]
)
def test_parameters_of_the_resnet_papers_table_6(depth, millions):
    assert cost(network(f"resnet{depth}")).parameters / 1e6 == pytest.approx(millions, abs=0.03)


def test_alexnets_60_million_parameters_and_650000_neurons():
    found = cost(network("alexnet"))
    assert found.parameters == 60_965_224
    assert found.activations == 659_272


def test_googlenets_weights_are_table_1s_sum_and_auxiliary_classifiers_do_not_count():
    """6,797.5 thousand (1024) are the rows of table 1 together; its operations sum to 1,502 million."""
    found = cost(network("googlenet"))
    assert found.parameters / 1024**2 == pytest.approx(6.8, abs=0.15)
    assert found.parameters == 6_998_552
    assert found.multiply_adds / 1e9 == pytest.approx(1.5, abs=0.1)
    assert cost(network("googlenet-torchvision")).parameters == 6_624_904


def test_counts_by_hand():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, groups=1), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.Linear(8 * 9, 5)
    )
    net.unused = torch.nn.Identity()
    found = measure(net.eval().to("meta"), (3, 7, 7))
    assert found.parameters == 8 * 27 + 8 + 16 + 72 * 5 + 5
    assert found.multiply_adds == 9 * 8 * 27 + 72 * 5
    assert found.activations == 72 + 5


def test_the_readme_has_the_table():
    table = markdown()
    assert len(table.splitlines()) == len(NETWORKS) + 2
    assert table in README.read_text(encoding="utf-8")
