"""Train a CIFAR-10 network: ``python -m dlcv_deploy.models.train resnet20 --out FILE.safetensors``.

A run is a function of its recipe and seed: the order of the images, crops and flips of a step come from generators
seeded with both, so a run that was stopped goes on from its checkpoint as if nothing had happened (on the same machine
and with the same threads, to the bit). Test images are looked at once, at the end; nothing is selected by them.
"""

from __future__ import annotations

import dataclasses as dc
import os
import time
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from ..calibration import cifar10
from ..progress import terminal
from . import catalogue


@dc.dataclass(frozen=True, slots=True)
class Recipe:
    """SGD with momentum 0.9, how its learning rate goes, and how images are varied.

    ``rates`` are (step, learning rate) in the order of the steps: kept until the next one, or, where ``linear``, going
    to the next one in a straight line, after a warm-up from 0. With ``patience`` there is one rate: it is divided by
    10 when so many epochs have passed without fewer errors on the last ``held_out`` training images, which are then
    not trained on, and the run ends where that would happen for the fourth time, or after ``steps``. ``colour`` is the
    standard deviation of the paper's colour augmentation (AlexNet, section 4.1); 0 is none.
    """

    steps: int
    weight_decay: float
    nesterov: bool
    rates: tuple[tuple[int, float], ...]
    linear: bool = False
    warmup: int = 0
    batch: int = 128
    held_out: int = 0
    patience: int = 0
    colour: float = 0.0

    def rate(self, step: int, drops: int = 0) -> float:
        """Learning rate of one step, counted from 0, after so many divisions by 10."""
        at, rates = zip(*self.rates, strict=True)
        if not self.linear:
            return float(rates[int(np.searchsorted(at, step, side="right")) - 1]) / float(10**drops)
        peak = self.rates[0][1]
        return float(min(peak * (step + 1) / max(self.warmup, 1), np.interp(step, at, rates)))


DROPS = 3
"""How often a rate that waits for a plateau is divided by 10 (AlexNet, section 5)."""

RECIPES = {
    # section 4.2 of the ResNet paper (arXiv:1512.03385)
    "resnet": Recipe(64_000, 1e-4, False, ((0, 0.1), (32_000, 0.01), (48_000, 0.001))),
    # three eighths of the steps, for about an hour on 2 cores: a rate that falls all the way, a stronger weight decay
    "resnet-short": Recipe(
        24_000, 5e-4, True, ((0, 0.1), (9_500, 0.1 * 18_500 / 28_000), (24_000, 0.0)), linear=True, warmup=400
    ),
    # section 5 of the AlexNet paper: about 90 epochs at most, three divisions of the rate
    "alexnet": Recipe(31_500, 5e-4, False, ((0, 0.01),), held_out=5000, patience=5, colour=0.1),
    # 28 epochs, with a rate that falls all the way
    "alexnet-short": Recipe(11_000, 5e-4, True, ((0, 0.05), (11_000, 0.0)), linear=True, warmup=400, colour=0.1),
    # batch normalization stands a higher rate than the GoogLeNet paper's, and so needs few epochs
    "googlenet": Recipe(4_200, 5e-4, True, ((0, 0.1), (4_200, 0.0)), linear=True, warmup=400),
}


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pad by 4 black pixels, crop 32x32 at random, mirror half of them: (N, 32, 32, 3) uint8 -> the same shape."""
    n = len(images)
    padded = F.pad(images, (0, 0, 4, 4, 4, 4))
    top, left = torch.randint(0, 9, (2, n), generator=generator)
    mirror = torch.rand(n, generator=generator) < 0.5
    rows = top[:, None] + torch.arange(32)
    columns = left[:, None] + torch.where(mirror[:, None], torch.arange(31, -1, -1), torch.arange(32))
    return padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


def batch_of(images: Tensor, labels: Tensor, recipe: Recipe, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """The augmented uint8 images and the labels of one step; every epoch is a permutation cut into whole batches."""
    per_epoch = len(images) // recipe.batch
    epoch, index = divmod(step, per_epoch)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
    chosen = order[index * recipe.batch : (index + 1) * recipe.batch]
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) * 2 + 1)
    return augment(images[chosen], generator), labels[chosen]


def to_input(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(N, 32, 32, 3) uint8 -> normalized (N, 3, 32, 32) float in channels-last memory."""
    return ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def colour_basis(images: Tensor) -> Tensor:
    """Columns are the eigenvectors of the covariance of all RGB values in [0, 1], each times its eigenvalue: (3, 3)."""
    pixels = images.reshape(-1, 3).double() / 255
    values, vectors = torch.linalg.eigh(torch.cov(pixels.T))
    basis: Tensor = (vectors * values).float()
    return basis


def colour_shift(basis: Tensor, count: int, std: float) -> Tensor:
    """What the AlexNet paper adds to every pixel of an image (section 4.1): (count, 1, 1, 3) in units of [0, 1]."""
    return (torch.randn(count, 3) * std @ basis.T)[:, None, None, :]


def save_whole(value: object, path: Path) -> None:
    """Write a checkpoint so that a kill leaves the old one or the new one."""
    torch.save(value, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


@dc.dataclass(slots=True)
class Run:
    """How far a run has come; ``since`` counts the epochs since the best accuracy on the images held out."""

    step: int = 0
    drops: int = 0
    best: float = 0.0
    since: int = 0

    def see(self, top1: float, patience: int) -> None:
        """Take note of an epoch's accuracy, and divide the rate where it has not risen for ``patience`` epochs."""
        self.best, self.since = (top1, 0) if top1 > self.best else (self.best, self.since + 1)
        if self.since == patience:
            self.drops, self.since = self.drops + 1, 0

    def over(self, recipe: Recipe) -> bool:
        """Whether nothing is left to do."""
        return self.step >= recipe.steps or self.drops > DROPS


def train(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    mean: Tensor,
    std: Tensor,
    checkpoint: Path,
    every: int = 500,
    compiled: bool = False,
) -> None:
    """Train ``net`` in place, in bfloat16 autocast, going on from ``checkpoint`` where that exists.

    Args:
        images: (N, 32, 32, 3) uint8.
        labels: (N,) int64.
        mean: (3,) in [0, 1], as is ``std``.
    """
    net.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        net.parameters(),
        lr=recipe.rate(0),
        momentum=0.9,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        foreach=True,
    )
    cut = len(images) - recipe.held_out
    images, held = images[:cut], (images[cut:], labels[cut:])
    basis, run = colour_basis(images), Run()
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        run = Run(**state["at"])
    forward = torch.compile(net) if compiled else net
    clock, losses = time.monotonic(), []
    while not run.over(recipe):
        pixels, target = batch_of(images, labels, recipe, seed, run.step)
        x = to_input(pixels, mean, std)
        torch.manual_seed((seed * 1_000_003 + run.step) * 2 + 2)  # the colours', and then dropout's
        if recipe.colour:
            x = x + (colour_shift(basis, len(x), recipe.colour) / std).permute(0, 3, 1, 2)
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(run.step, run.drops)
        with torch.autocast("cpu", torch.bfloat16):
            logits = forward(x)
        loss = loss_of(logits, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
        run.step += 1
        if recipe.patience and run.step % (len(images) // recipe.batch) == 0:
            top1 = accuracy(net, *held, mean, std)
            net.train()
            run.see(top1, recipe.patience)
            click.echo(f"step {run.step}  top-1 held out {top1:.2f} %, best {run.best:.2f} %, drops {run.drops}")
        if run.step % every == 0 or run.over(recipe):
            rate = len(losses) * recipe.batch / (time.monotonic() - clock)
            click.echo(f"step {run.step}/{recipe.steps}  loss {np.mean(losses):.4f}  {rate:.0f} images/s")
            state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "at": dc.asdict(run)}
            save_whole(state, checkpoint)
            clock, losses = time.monotonic(), []


def loss_of(logits: Tensor | tuple[Tensor, ...], target: Tensor) -> Tensor:
    """Cross-entropy; that of auxiliary classifiers counts 0.3 (GoogLeNet, section 5)."""
    if isinstance(logits, Tensor):
        return F.cross_entropy(logits.float(), target)
    main, *others = (F.cross_entropy(each.float(), target) for each in logits)
    return main + 0.3 * sum(others)


@torch.inference_mode()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor, mean: Tensor, std: Tensor) -> float:
    """Top-1 on uint8 images, one crop, in fp32; percent."""
    net.eval()
    hits = 0
    for i in range(0, len(images), 500):
        hits += int((net(to_input(images[i : i + 500], mean, std)).argmax(1) == labels[i : i + 500]).sum())
    return 100 * hits / len(images)


@click.command()
@click.argument("model")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The .safetensors to write."
)
@click.option("--recipe", "recipe_name", type=click.Choice(list(RECIPES)), help="[default: that of MODEL's family]")
@click.option("--seed", default=1, show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="torch.compile the network (needs a C++ compiler).")
def main(model: str, out: Path, recipe_name: str | None, seed: int, compiled: bool) -> None:
    """Train MODEL on CIFAR-10's training images, and report its accuracy on the test images."""
    network = catalogue.network(model)
    if network.labels != "cifar10":
        raise click.UsageError(f"{model} is not a CIFAR-10 network")
    torch.manual_seed(seed)
    net = catalogue.build(network)
    mean, std = torch.tensor(network.preprocess.mean), torch.tensor(network.preprocess.std)
    images, labels = map(torch.from_numpy, cifar10.load("train", terminal))
    checkpoint = out.with_suffix(".checkpoint")
    recipe = RECIPES[recipe_name or network.factory.partition(":")[0]]
    train(net, images, labels, recipe, seed=seed, mean=mean, std=std, checkpoint=checkpoint, compiled=compiled)
    images, labels = map(torch.from_numpy, cifar10.load("test", terminal))
    click.echo(f"top-1 on the test images: {accuracy(net, images, labels, mean, std):.2f} %")
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, out)


if __name__ == "__main__":
    main()
