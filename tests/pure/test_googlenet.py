"""GoogLeNet against its paper's table 1 and torchvision's keys."""

import pytest

torch = pytest.importorskip("torch")

from dlcv_deploy.models.googlenet import CifarGoogLeNet, GoogLeNet  # noqa: E402

# table 1, in thousands (1024) of weights; those of 4c, 4d, 5a and 5b are not quite what its own widths give
TABLE = {
    "conv2": 112,
    "3a": 159,
    "3b": 380,
    "4a": 364,
    "4b": 437,
    "4c": 463,
    "4d": 580,
    "4e": 840,
    "5a": 1072,
    "5b": 1388,
}
SIZES = {"3a": 256, "3b": 480, "4a": 512, "4b": 512, "4c": 512, "4d": 528, "4e": 832, "5a": 832, "5b": 1024}


@pytest.fixture(scope="module")
def paper():
    with torch.device("meta"):
        return GoogLeNet().eval()


def weights(*modules):
    return sum(p.numel() for module in modules for p in module.parameters() if p.dim() > 1)


def test_weights_of_each_row_of_table_1(paper):
    found = {"conv2": weights(paper.conv2, paper.conv3)}
    found |= {name: weights(getattr(paper, f"inception{name}")) for name in SIZES}
    assert {name: round(count / 1024) for name, count in found.items()} == pytest.approx(TABLE, rel=0.08)
    exact = {name: count for name, count in found.items() if name not in ("4c", "4d", "5a", "5b")}
    assert {name: count / 1024 for name, count in exact.items()} == pytest.approx(
        {name: TABLE[name] for name in exact}, rel=0.01
    )
    assert weights(paper.fc) == 1000 * 1024
    assert 1024 * sum(TABLE.values()) + 1000 * 1024 == pytest.approx(sum(found.values()) + weights(paper.fc), rel=0.01)


def test_maps(paper):
    seen = {}
    for name in SIZES:
        module = getattr(paper, f"inception{name}")
        module.register_forward_hook(lambda m, x, y, name=name: seen.__setitem__(name, tuple(y.shape[1:])))
    found = paper.outputs(torch.empty(1, 3, 224, 224, device="meta"))
    assert {name: shape[0] for name, shape in seen.items()} == SIZES
    assert {name: shape[1] for name, shape in seen.items()} == {
        name: {"3": 28, "4": 14, "5": 7}[name[0]] for name in SIZES
    }
    assert {name: tuple(y.shape) for name, y in found.items()} == {"features": (1, 1024), "logits": (1, 1000)}


def test_local_response_normalization_twice_in_caffes_terms(paper):
    for norm in (paper.norm1, paper.norm2):
        assert (norm.size, norm.alpha, norm.beta, norm.k) == (5, 1e-4, 0.75, 1.0)


def test_torchvisions_keys_and_count():
    """13,004,888 parameters with the auxiliary classifiers, 6,624,904 without (torchvision's documentation)."""
    with torch.device("meta"):
        net = GoogLeNet(norm=True)
    state = net.state_dict()
    for key, shape in {
        "conv1.conv.weight": (64, 3, 7, 7),
        "conv3.bn.running_var": (192,),
        "inception3a.branch1.conv.weight": (64, 192, 1, 1),
        "inception3a.branch2.1.conv.weight": (128, 96, 3, 3),
        "inception3a.branch3.1.conv.weight": (32, 16, 3, 3),
        "inception5b.branch4.1.bn.bias": (128,),
        "aux1.conv.conv.weight": (128, 512, 1, 1),
        "aux2.fc1.weight": (1024, 2048),
        "aux2.fc2.bias": (1000,),
        "fc.weight": (1000, 1024),
    }.items():
        assert tuple(state[key].shape) == shape, key
    assert net.conv1.bn.eps == 0.001
    assert not any(key.endswith("conv.bias") for key in state)
    every = sum(p.numel() for p in net.parameters())
    auxiliary = sum(p.numel() for aux in (net.aux1, net.aux2) for p in aux.parameters())
    assert (every, every - auxiliary) == (13_004_888, 6_624_904)


def test_auxiliary_classifiers_answer_in_training_only():
    with torch.device("meta"):
        net, x = GoogLeNet(), torch.empty(2, 3, 224, 224)
        assert [tuple(y.shape) for y in net(x)] == [(2, 1000)] * 3
        assert tuple(net.eval()(x).shape) == (2, 1000)


def test_the_last_pooling_is_the_papers_or_torchvisions():
    """3x3 in table 1, 2x2 in torchvision; both give 7x7, of other values."""
    torch.manual_seed(0)
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        net = GoogLeNet(norm=True).eval()
        answer = net(x)
        net._last_pool = 3
        assert not torch.equal(net(x), answer)


def test_the_small_form():
    torch.manual_seed(0)
    net = CifarGoogLeNet().eval()
    state = net.state_dict()
    assert 4 * sum(v.numel() for v in state.values()) < 6_000_000
    assert sum(p.numel() for p in net.parameters()) == 1_407_258
    found = net.outputs(torch.randn(2, 3, 32, 32))
    assert (found["features"].shape, found["logits"].shape) == ((2, 512), (2, 10))
    assert torch.equal(net.fc(found["features"]), found["logits"])
