"""AlexNet against its paper's own numbers, and local response normalization against its formula."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dlcv_deploy.errors import SpecError  # noqa: E402
from dlcv_deploy.models.alexnet import AlexNet, CifarAlexNet, TorchvisionAlexNet  # noqa: E402
from dlcv_deploy.models.lrn import LocalResponseNorm, banded_lrn, lrn  # noqa: E402

# section 3.5: kernels, their size and the channels each sees, one tower's share where there are two
CONVOLUTIONS = {
    "conv1": (96, 11, 3),
    "conv2": (256, 5, 48),
    "conv3": (384, 3, 256),
    "conv4": (384, 3, 192),
    "conv5": (256, 3, 192),
}
DENSE = {"fc6": (4096, 6 * 6 * 256), "fc7": (4096, 4096), "fc8": (1000, 4096)}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return AlexNet().eval()


@pytest.fixture(scope="module")
def maps(net):
    """What each named module takes and gives for one image."""
    seen, hooks = {}, []
    for name, module in net.named_children():
        hooks.append(module.register_forward_hook(lambda m, x, y, name=name: seen.__setitem__(name, (x[0], y))))
    with torch.inference_mode():
        seen["logits"] = net(torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1)))
    for hook in hooks:
        hook.remove()
    return seen


def test_parameters_of_each_layer(net):
    counted = {name: sum(p.numel() for p in module.parameters()) for name, module in net.named_children()}
    by_hand = {name: n * k * k * c + n for name, (n, k, c) in CONVOLUTIONS.items()}
    by_hand |= {name: n * c + n for name, (n, c) in DENSE.items()}
    assert counted == {**by_hand, "norm1": 0, "norm2": 0}
    assert sum(counted.values()) == 60_965_224  # "60 million parameters"


def test_neurons(maps):
    """Figure 2's caption. Its 253,440 for conv1 is no multiple of 96 squares; 55x55 maps of 96 are 290,400."""
    neurons = {name: maps[name][1].numel() for name in (*CONVOLUTIONS, *DENSE)}
    assert neurons["conv1"] == 55 * 55 * 96
    assert [neurons[name] for name in list(neurons)[1:]] == [186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]
    assert sum(neurons.values()) == 659_272  # "650,000 neurons"


def test_shapes_and_order(maps):
    assert maps["conv1"][1].shape == (1, 96, 55, 55)
    assert torch.equal(maps["norm1"][0], maps["conv1"][1].relu())  # normalization follows the ReLU
    pooled = torch.nn.functional.max_pool2d(maps["norm1"][1], 3, 2)  # and pooling, overlapping, follows that
    assert pooled.shape == (1, 96, 27, 27)
    assert torch.equal(maps["conv2"][0], pooled)
    assert torch.equal(maps["norm2"][0], maps["conv2"][1].relu())
    assert torch.equal(maps["conv3"][0], torch.nn.functional.max_pool2d(maps["norm2"][1], 3, 2))
    assert torch.equal(maps["conv4"][0], maps["conv3"][1].relu())
    assert torch.equal(maps["conv5"][0], maps["conv4"][1].relu())
    pooled = torch.nn.functional.max_pool2d(maps["conv5"][1].relu(), 3, 2)
    assert torch.equal(maps["fc6"][0], pooled.flatten(1))
    assert torch.equal(maps["fc8"][0], maps["fc7"][1].relu())
    assert torch.equal(maps["logits"], maps["fc8"][1])


@pytest.mark.parametrize("name", ["conv2", "conv4", "conv5"])
def test_towers_meet_only_in_conv3_and_the_dense_layers(net, name):
    layer = getattr(net, name)
    x = torch.randn(1, layer.in_channels, 5, 5)
    other = x.clone()
    other[:, layer.in_channels // 2 :] = 0
    half = layer.out_channels // 2
    with torch.inference_mode():
        assert torch.equal(layer(x)[:, :half], layer(other)[:, :half])
        assert not torch.equal(layer(x)[:, half:], layer(other)[:, half:])
    assert net.conv3.groups == 1


def test_initialization(net):
    """Section 5: N(0, 0.01); biases 1 in conv2, conv4, conv5 and the hidden dense layers, 0 elsewhere."""
    biases = {name: getattr(net, name).bias.unique().tolist() for name in (*CONVOLUTIONS, *DENSE)}
    ones = {"conv2", "conv4", "conv5", "fc6", "fc7"}
    assert biases == {name: [float(name in ones)] for name in biases}
    assert net.fc7.weight.std().item() == pytest.approx(0.01, rel=0.01)


def test_dropout_only_in_training(net):
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        still = net(x)
        assert torch.equal(net(x), still)
        try:
            assert not torch.equal(net.train()(x), still)
        finally:
            net.eval()


def test_other_classes():
    with torch.device("meta"):
        assert AlexNet(classes=7)(torch.empty(2, 3, 224, 224)).shape == (2, 7)


def test_caffes_form():
    """bvlc_alexnet: 227x227 without padding gives the same maps, and k is 1, with a mean in place of the sum."""
    with torch.device("meta"):
        net = AlexNet(caffe=True).eval()
        assert net.conv1(torch.empty(1, 3, 227, 227)).shape == (1, 96, 55, 55)
        assert net(torch.empty(1, 3, 227, 227)).shape == (1, 1000)
    assert (net.norm1.size, net.norm1.alpha, net.norm1.beta, net.norm1.k) == (5, 1e-4, 0.75, 1.0)


def test_torchvisions_form():
    """61,100,840 parameters under torchvision's keys (its documentation says so), 4096 features after a ReLU."""
    torch.manual_seed(0)
    net = TorchvisionAlexNet(classes=3).eval()
    convolutions = [f"features.{i}" for i in (0, 3, 6, 8, 10)]
    dense = [f"classifier.{i}" for i in (1, 4, 6)]
    assert list(net.state_dict()) == [f"{k}.{what}" for k in convolutions + dense for what in ("weight", "bias")]
    assert sum(p.numel() for p in net.parameters()) == 61_100_840 - 997 * 4097
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        found = net.outputs(x)
        assert found["features"].shape == (1, 4096)
        assert found["features"].min() == 0
        assert torch.equal(net.classifier[6](found["features"]), net(x))
        assert torch.equal(net.classifier(net.features(x).flatten(1)), net(x))


def test_the_small_form():
    torch.manual_seed(0)
    net = CifarAlexNet().eval()
    layers = (net.conv1, net.conv2, net.conv3, net.conv4, net.conv5)
    assert [(c.out_channels, c.kernel_size[0], c.groups) for c in layers] == [
        (48, 5, 1), (128, 3, 2), (192, 3, 1), (192, 3, 2), (128, 3, 2),
    ]  # fmt: skip
    assert sum(p.numel() for p in net.parameters()) == 1_387_722
    assert 4 * 1_387_722 < 6_000_000
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        found = net.outputs(x)
        assert (found["features"].shape, found["logits"].shape) == ((2, 512), (2, 10))
        assert torch.equal(net(x), found["logits"])
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            trained = net.train()(x)
    assert not torch.equal(trained.float(), found["logits"])  # dropout


def formula(x, size, alpha, beta, k, *, divide_by_size):
    """Section 3.3 in float64, channel by channel."""
    x, y = x.astype(np.float64), np.empty(x.shape)
    channels = x.shape[1]
    for i in range(channels):
        near = x[:, max(0, i - size // 2) : min(channels, i + size // 2 + 1)]
        total = (near**2).sum(1) / (size if divide_by_size else 1)
        y[:, i] = x[:, i] / (k + alpha * total) ** beta
    return y


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("divide_by_size", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 5, 96])
@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_lrn_is_its_formula(training, divide_by_size, channels, size):
    """One operator in eval mode, a product with a banded matrix in training: the same numbers."""
    x = np.random.default_rng(0).normal(0, 100, (2, channels, 3, 4))
    norm = LocalResponseNorm(size, 1e-4, 0.75, 2.0, divide_by_size=divide_by_size).train(training)
    expected = formula(x, size, 1e-4, 0.75, 2.0, divide_by_size=divide_by_size)
    np.testing.assert_allclose(norm(torch.from_numpy(x)).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(norm(torch.from_numpy(x).float()).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_the_papers_convention_is_five_times_the_others(net):
    assert (net.norm1.size, net.norm1.alpha, net.norm1.beta, net.norm1.k) == (5, 5e-4, 0.75, 2.0)
    assert net.norm1.alpha == net.norm2.alpha
    assert LocalResponseNorm(5, 1e-4, 0.75, 1.0, divide_by_size=True).alpha == 1e-4
    x = torch.full((1, 5, 1, 1), 10.0)
    assert net.norm1(x)[0, 2].item() == pytest.approx(10 / (2 + 1e-4 * 500) ** 0.75)


@pytest.mark.parametrize("size", [0, 2, 4, -1])
def test_lrn_without_a_centre(size):
    with pytest.raises(SpecError, match="has no centre\n  fix: use an odd size"):
        LocalResponseNorm(size, 1e-4, 0.75, 2.0, divide_by_size=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lrn_sums_half_types_wide(dtype):
    x = torch.full((1, 5, 1, 1), 1000.0, dtype=dtype)  # the square of 256 overflows float16
    expected = formula(x.double().numpy(), 5, 5e-4, 0.75, 2.0, divide_by_size=True)
    for function in (lrn, banded_lrn):
        y = function(x, 5, 5e-4, 0.75, 2.0)
        assert y.dtype == dtype
        np.testing.assert_allclose(y.double().numpy(), expected, rtol=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_both_forms_of_lrn_have_the_same_gradient(beta):
    x = torch.randn(2, 7, 3, 2, dtype=torch.float64, requires_grad=True)
    grads = [torch.autograd.grad(f(x, 5, 2.0, beta, 2.0).square().sum(), x)[0] for f in (lrn, banded_lrn)]
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_lrn_is_a_sound_operator():
    x = torch.randn(2, 7, 2, 2, dtype=torch.float64, requires_grad=True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(lrn, (x, 5, 0.5, 0.75, 2.0), test_utils=checks)
    assert torch.autograd.gradcheck(lambda x: lrn(x, 5, 2.0, 0.75, 2.0), x)


def test_lrn_exports_as_one_operator_in_onnx_terms(net):
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(net, (torch.zeros(2, 3, 224, 224),), dynamic_shapes=({0: batch},))
    nodes = [node for node in program.graph.nodes if node.target is torch.ops.dlcv.lrn.default]
    assert [node.args[1:] for node in nodes] == [(5, 5e-4, 0.75, 2.0)] * 2
