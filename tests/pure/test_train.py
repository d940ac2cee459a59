"""The training recipe: what it reads, how its rate goes, and that a stopped run goes on as if nothing had happened."""

import itertools

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from dlcv_deploy.models.train import (  # noqa: E402
    RECIPES,
    Recipe,
    Run,
    augment,
    batch_of,
    colour_basis,
    colour_shift,
    loss_of,
    to_input,
    train,
)

MEAN, STD = torch.tensor([0.5, 0.25, 0.125]), torch.tensor([0.5, 0.25, 0.25])


def images(count):
    return torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.1), (31_999, 0.1), (32_000, 0.01), (47_999, 0.01), (48_000, 0.001), (63_999, 0.001)]
)
def test_the_papers_rate_is_divided_by_ten_at_32k_and_48k(step, rate):
    assert RECIPES["resnet"].rate(step) == rate
    assert (RECIPES["resnet"].steps, RECIPES["resnet"].weight_decay, RECIPES["resnet"].batch) == (64_000, 1e-4, 128)


def test_the_short_rate_warms_up_and_falls_to_zero():
    short = RECIPES["resnet-short"]
    assert short.rate(0) == pytest.approx(0.1 / 400)
    assert short.rate(9_500) == pytest.approx(0.1 * 18_500 / 28_000)
    rates = [short.rate(step) for step in range(400, short.steps)]
    assert all(a > b for a, b in itertools.pairwise(rates))
    assert rates[-1] < 1e-5


def test_augmented_images_are_crops_of_the_padded_ones_or_their_mirror_images():
    batch = images(24)
    padded = torch.zeros(24, 40, 40, 3, dtype=torch.uint8)
    padded[:, 4:36, 4:36] = batch
    out = augment(batch, torch.Generator().manual_seed(5))
    mirrored = 0
    for whole, crop in zip(padded, out, strict=True):
        windows = [whole[y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
        straight = any(torch.equal(w, crop) for w in windows)
        flipped = any(torch.equal(w.flip(1), crop) for w in windows)
        assert straight != flipped
        mirrored += flipped
    assert 4 <= mirrored <= 20


def test_an_epoch_reads_every_image_once_and_the_next_in_another_order():
    recipe = Recipe(8, 0.0, False, ((0, 0.1),), linear=False, batch=8)
    labels = torch.arange(32)
    first = [batch_of(images(32), labels, recipe, 1, step)[1] for step in range(4)]
    second = [batch_of(images(32), labels, recipe, 1, step)[1] for step in range(4, 8)]
    assert sorted(torch.cat(first).tolist()) == list(range(32)) == sorted(torch.cat(second).tolist())
    assert not torch.equal(torch.cat(first), torch.cat(second))
    again = batch_of(images(32), labels, recipe, 1, 2)
    assert torch.equal(again[0], batch_of(images(32), labels, recipe, 1, 2)[0])


def test_inputs_are_normalized():
    x = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    x[..., 0] = 255
    assert to_input(x, MEAN, STD)[0, :, 3, 7].tolist() == [1.0, -1.0, -0.5]


def test_the_rate_is_divided_where_the_accuracy_stays_and_the_fourth_time_is_the_end():
    recipe = Recipe(1000, 0.0, False, ((0, 0.01),), held_out=8, patience=2)
    run = Run()
    for top1, drops in [(50, 0), (60, 0), (60, 0), (59, 1), (61, 1), (60, 1), (60, 2), (0, 2), (0, 3), (0, 3), (0, 4)]:
        assert not run.over(recipe)
        run.see(top1, recipe.patience)
        assert run.drops == drops
    assert run.over(recipe)
    assert [recipe.rate(5, drops) for drops in range(4)] == pytest.approx([1e-2, 1e-3, 1e-4, 1e-5])


def test_colours_vary_along_the_principal_axes():
    """Each axis by its eigenvalue times a normal draw (AlexNet, section 4.1): the covariance says which."""
    pixels = torch.zeros(4, 32, 32, 3, dtype=torch.uint8)
    pixels[:2] = torch.tensor([255, 255, 0], dtype=torch.uint8)
    basis = colour_basis(pixels)
    torch.testing.assert_close(basis.norm(dim=0).max(), torch.tensor(0.5), atol=1e-3, rtol=0)  # 2 * 0.25, of (1, 1, 0)
    torch.manual_seed(0)
    shift = colour_shift(basis, 4000, 0.1)
    assert shift.shape == (4000, 1, 1, 3)
    assert shift[..., 2].abs().max() < 1e-6
    torch.testing.assert_close(shift[..., 0], shift[..., 1])
    assert shift[..., 0].std().item() == pytest.approx(0.1 * 0.5 / 2**0.5, rel=0.05)


def test_auxiliary_classifiers_count_three_tenths():
    target, sure = torch.tensor([0]), torch.tensor([[50.0, 0.0]])
    unsure = torch.zeros(1, 2)
    assert loss_of(unsure, target).item() == pytest.approx(0.6931, abs=1e-4)
    assert loss_of((sure, unsure, unsure), target).item() == pytest.approx(0.6 * 0.6931, abs=1e-4)


class Tiny(nn.Module):
    """Few weights, and dropout, whose draws must go on as well."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, 4), nn.Linear(256, 10)

    def forward(self, x):
        return self.fc(nn.functional.dropout(self.conv(x).flatten(1), 0.5, self.training))


def test_a_stopped_run_that_waits_for_plateaus_goes_on_as_if_nothing_had_happened(tmp_path):
    pixels, labels = images(80), torch.full((80,), 3)

    def run(name, *steps):
        for count in steps:
            recipe = Recipe(count, 1e-4, False, ((0, 0.01),), batch=16, held_out=16, patience=1, colour=0.1)
            torch.manual_seed(0)
            net = Tiny()
            train(net, pixels, labels, recipe, seed=1, mean=MEAN, std=STD, checkpoint=tmp_path / name, every=3)
        return net.state_dict(), torch.load(tmp_path / name, weights_only=True)["at"]

    (once, at), (twice, again) = run("a.checkpoint", 12), run("b.checkpoint", 6, 12)
    assert all(torch.equal(once[key], twice[key]) for key in once)
    assert at == again
    assert at["best"] > 0


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(tmp_path):
    from dlcv_deploy.models.resnet import CifarResNet

    pixels, labels = images(64), torch.arange(64) % 10
    whole = Recipe(6, 1e-4, True, ((0, 0.1), (6, 0.0)), linear=True, warmup=2, batch=16)

    def run(name, *recipes):
        for recipe in recipes:
            torch.manual_seed(0)
            net = CifarResNet(20)
            train(net, pixels, labels, recipe, seed=1, mean=MEAN, std=STD, checkpoint=tmp_path / name, every=2)
        return net.state_dict()

    half = Recipe(4, 1e-4, True, ((0, 0.1), (6, 0.0)), linear=True, warmup=2, batch=16)
    once, twice = run("a.checkpoint", whole), run("b.checkpoint", half, whole)
    assert all(torch.equal(once[key], twice[key]) for key in once)
    fresh = CifarResNet(20).state_dict()
    assert not torch.equal(once["conv1.weight"], fresh["conv1.weight"])
