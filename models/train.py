"""Train a bundled network on CIFAR-10: ``python -m dlcv_deploy.models.train resnet20 --data DIR --out FILE.safetensors``.

A run is a function of its recipe and seed alone: the order of the images, crops and flips of step s come from a
generator seeded with (seed, s), so a run that was killed goes on from its checkpoint as if nothing had happened.
Test images are looked at once, at the end.
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


@dc.dataclass(frozen=True, slots=True)
class Recipe:
    """How to train: SGD with momentum 0.9; ``schedule`` is "step" (divided by 10 at 1/2 and 3/4) or "linear" (to 0)."""

    steps: int
    schedule: str
    weight_decay: float
    nesterov: bool
    batch: int = 128
    lr: float = 0.1

    def lr_at(self, step: int) -> float:
        """Learning rate of one step; 400 steps of linear warm-up where the schedule is "linear"."""
        done = step / self.steps
        if self.schedule == "step":
            return self.lr * (1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01)
        return self.lr * min((step + 1) / 400, 1 - done)


RECIPES = {
    # section 4.2 of the ResNet paper: 64,000 steps, weight decay 1e-4
    "paper": Recipe(64_000, "step", 1e-4, nesterov=False),
    # the same in fewer than half the steps: the rate falls steadily, with a stronger weight decay
    "short": Recipe(28_000, "linear", 5e-4, nesterov=True),
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


def save_whole(value: object, path: Path) -> None:
    """Write a checkpoint so that a kill leaves the old one or the new one."""
    torch.save(value, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


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
        lr=recipe.lr,
        momentum=0.9,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        foreach=True,
    )
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    forward = torch.compile(net) if compiled else net
    clock, losses = time.monotonic(), []
    for step in range(start, recipe.steps):
        pixels, target = batch_of(images, labels, recipe, seed, step)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr_at(step)
        with torch.autocast("cpu", torch.bfloat16):
            logits = forward(to_input(pixels, mean, std))
        loss = F.cross_entropy(logits.float(), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % every == 0 or step + 1 == recipe.steps:
            rate = len(losses) * recipe.batch / (time.monotonic() - clock)
            click.echo(f"step {step + 1}/{recipe.steps}  loss {np.mean(losses):.4f}  {rate:.0f} images/s")
            save_whole(
                {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}, checkpoint
            )
            clock, losses = time.monotonic(), []


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
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--recipe", "recipe_name", type=click.Choice(list(RECIPES)), default="paper", show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="torch.compile the network (needs a C++ compiler).")
def main(model: str, data: Path, out: Path, recipe_name: str, seed: int, compiled: bool) -> None:
    """Train MODEL on DATA/train.npz, report the accuracy on DATA/test.npz, and write the weights to OUT."""
    import sys
    sys.path.insert(0, str(Path(__file__).parent))
    from resnet import CifarResNet
    torch.manual_seed(seed)
    net = CifarResNet(20)
    with np.load(data / "train.npz") as file:
        images, labels = torch.from_numpy(file["images"]), torch.from_numpy(file["labels"])
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    train(net, images, labels, RECIPES[recipe_name], seed=seed, mean=mean, std=std,
          checkpoint=out.with_suffix(".checkpoint"), compiled=compiled)
    with np.load(data / "test.npz") as file:
        images, labels = torch.from_numpy(file["images"]), torch.from_numpy(file["labels"])
    click.echo(f"top-1 on the test images: {accuracy(net, images, labels, mean, std):.2f} %")
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, out)


if __name__ == "__main__":
    main()
