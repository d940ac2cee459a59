"""The residual networks against their paper's counts and torchvision's state-dict layout."""

import pytest

torch = pytest.importorskip("torch")

from dlcv_deploy.models.resnet import BasicBlock, CifarResNet, ImageNetResNet, PadShortcut, Plain  # noqa: E402


def on_meta(factory, *args):
    with torch.device("meta"):
        return factory(*args)


def parameters(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("depth", "millions", "exact"),
    [
        (20, "0.27", 269_722),
        (32, "0.46", 464_154),
        (44, "0.66", 658_586),
        (56, "0.85", 853_018),
        (110, "1.7", 1_727_962),
        (1202, "19.4", 19_421_274),
    ],
)
def test_cifar_parameters(depth, millions, exact):
    """Table 6; ``exact`` by hand: 3x3 convolutions, two numbers a channel of batch normalization, 64 x 10 + 10."""
    n = (depth - 2) // 6
    conv = 9 * (3 * 16 + 2 * n * 16**2 + 16 * 32 + (2 * n - 1) * 32**2 + 32 * 64 + (2 * n - 1) * 64**2)
    norm = 2 * (16 + 2 * n * (16 + 32 + 64))
    assert conv + norm + 650 == exact
    net = on_meta(CifarResNet, depth)
    assert parameters(net) == exact
    assert abs(exact / 1e6 - float(millions)) < 0.5 * 10 ** -len(millions.partition(".")[2]) + 0.005  # 0.269 is "0.27"
    layers = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == depth


@pytest.mark.parametrize(
    ("depth", "exact", "keys"),
    [
        (18, 11_689_512, 122),
        (34, 21_797_672, 218),
        (50, 25_557_032, 320),
        (101, 44_549_160, 626),
        (152, 60_192_808, 932),
    ],
)
def test_imagenet_parameters_and_keys(depth, exact, keys):
    net = on_meta(ImageNetResNet, depth)
    assert parameters(net) == exact
    state = net.state_dict()
    assert len(state) == keys
    assert list(state)[:2] == ["conv1.weight", "bn1.weight"]
    assert list(state)[-2:] == ["fc.weight", "fc.bias"]
    layers = [m for n, m in net.named_modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear) and "down" not in n]
    assert len(layers) == depth


def test_torchvision_layout():
    shapes = {key: tuple(value.shape) for key, value in on_meta(ImageNetResNet, 50).state_dict().items()}
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer1.0.downsample.1.running_var"] == (256,)
    assert shapes["layer2.0.conv2.weight"] == (128, 128, 3, 3)
    assert shapes["layer3.5.bn3.num_batches_tracked"] == ()
    assert shapes["layer4.2.conv3.weight"] == (2048, 512, 1, 1)
    assert shapes["fc.weight"] == (1000, 2048)
    assert not any("downsample" in key for key in shapes if ".0." not in key)
    basic = on_meta(ImageNetResNet, 18).state_dict()
    assert not any(key.startswith("layer1.0.downsample") for key in basic)
    assert tuple(basic["layer2.0.downsample.0.weight"].shape) == (128, 64, 1, 1)


def test_the_stride_is_in_the_3x3():
    net = on_meta(ImageNetResNet, 50)
    first = net.layer2[0]
    assert (first.conv1.stride, first.conv2.stride, first.conv3.stride) == ((1, 1), (2, 2), (1, 1))


def test_the_papers_caffe_form_strides_in_the_first_1x1():
    net = on_meta(ImageNetResNet, 50, "B", True)
    for stage, stride in ((net.layer1, 1), (net.layer2, 2), (net.layer3, 2), (net.layer4, 2)):
        strides = [[conv.stride[0] for conv in (block.conv1, block.conv2, block.conv3)] for block in stage]
        assert strides == [[stride, 1, 1], *[[1, 1, 1]] * (len(stage) - 1)]
        assert stage[0].downsample[0].stride == (stride, stride)
    assert {k: v.shape for k, v in net.state_dict().items()} == {
        k: v.shape for k, v in on_meta(ImageNetResNet, 50).state_dict().items()
    }


def test_shortcuts_a_b_and_c():
    """Zeros where the shape changes, a projection there, or projections everywhere (section 4.1)."""
    kinds = {}
    for kind in "ABC":
        blocks = [block for n in range(1, 5) for block in getattr(on_meta(ImageNetResNet, 34, kind), f"layer{n}")]
        kinds[kind] = [type(block.downsample).__name__ for block in blocks]
    changes = [i in (3, 7, 13) for i in range(16)]
    assert kinds["A"] == ["PadShortcut" if change else "NoneType" for change in changes]
    assert kinds["B"] == ["Sequential" if change else "NoneType" for change in changes]
    assert kinds["C"] == ["Sequential"] * 16
    grows = [parameters(on_meta(ImageNetResNet, 34, kind)) for kind in ("plain", "A", "B", "C")]
    assert grows[0] == grows[1] < grows[2] < grows[3]


@pytest.mark.parametrize(("factory", "depth"), [(CifarResNet, 20), (ImageNetResNet, 18)])
def test_plain_networks_have_no_shortcut(factory, depth):
    """With the last normalization of one block at 0, nothing passes it."""
    torch.manual_seed(0)
    net = factory(depth, "plain").eval()
    block = net.layer2[-1]
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.randn(1, block.conv1.in_channels, 4, 4)
    with torch.inference_mode():
        assert block(x).abs().max() == 0
    assert all(isinstance(b.downsample, Plain) for stage in (net.layer1, net.layer2, net.layer3) for b in stage)


def test_outputs_of_a_backbone():
    net = on_meta(ImageNetResNet, 50).eval()
    shapes = {name: tuple(y.shape[1:]) for name, y in net.outputs(torch.empty(1, 3, 224, 224, device="meta")).items()}
    assert shapes == {
        "c2": (256, 56, 56), "c3": (512, 28, 28), "c4": (1024, 14, 14), "c5": (2048, 7, 7),
        "features": (2048,), "logits": (1000,),
    }  # fmt: skip


@pytest.mark.parametrize(("factory", "depth", "size"), [(CifarResNet, 20, 32), (ImageNetResNet, 50, 224)])
def test_maps(factory, depth, size):
    net = on_meta(factory, depth)
    shapes = {}
    for name, module in net.named_children():
        module.register_forward_hook(lambda m, x, y, name=name: shapes.__setitem__(name, tuple(y.shape[1:])))
    out = net(torch.empty(3, 3, size, size, device="meta"))
    if factory is CifarResNet:
        expected = {"conv1": (16, 32, 32), "layer1": (16, 32, 32), "layer2": (32, 16, 16), "layer3": (64, 8, 8)}
    else:
        expected = {
            "conv1": (64, 112, 112),
            "layer1": (256, 56, 56),
            "layer2": (512, 28, 28),
            "layer3": (1024, 14, 14),
            "layer4": (2048, 7, 7),
        }
    assert {name: shapes[name] for name in expected} == expected
    assert out.shape == (3, 10 if factory is CifarResNet else 1000)


def test_option_a_takes_every_second_pixel_between_zeros():
    x = torch.arange(2 * 4 * 4, dtype=torch.float32).reshape(1, 2, 4, 4)
    y = PadShortcut(2, 5, 2)(x)
    assert y.shape == (1, 5, 2, 2)
    assert torch.equal(y[0, 1:3], x[0, :, ::2, ::2])
    assert y[0, [0, 3, 4]].abs().max() == 0
    assert not list(PadShortcut(2, 5, 2).parameters())


def test_a_block_adds_its_shortcut_before_the_relu():
    block = BasicBlock(3, 3, 1, None).eval()
    torch.nn.init.zeros_(block.conv2.weight)
    torch.nn.init.constant_(block.bn2.bias, -0.5)
    x = torch.linspace(-1, 1, 27).reshape(1, 3, 3, 3)
    assert torch.equal(block(x), torch.relu(x - 0.5))
