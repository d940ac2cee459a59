"""What a network weighs: its parameters and multiply-adds, counted while a tensor without content passes through.

``python -m dlcv_deploy.models.cost`` writes the README's table.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterator
from typing import Any

import click
import torch
from torch import Tensor, nn

from .catalogue import NETWORKS, WEIGHT_SETS, Network, build


@dc.dataclass(frozen=True, slots=True)
class Cost:
    """Of one image through a network in eval mode.

    ``parameters`` are those that take part: auxiliary classifiers do not. ``multiply_adds`` are those of convolutions
    and dense layers, as the papers count them ("FLOPs" in the ResNet paper's table 1). ``activations`` are the values
    that those layers give: the AlexNet paper's "neurons".
    """

    parameters: int
    multiply_adds: int
    activations: int


def cost(network: Network) -> Cost:
    """Counts for one 3-channel image of the network's size."""
    with torch.device("meta"):
        net = build(network).eval()
    return measure(net, network.input_shape)


def measure(net: nn.Module, input_shape: tuple[int, ...]) -> Cost:
    """Counts for a network on the meta device."""
    used: dict[int, int] = {}
    counted = [0, 0]

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ANN401
        used.update((id(p), p.numel()) for p in module.parameters(recurse=False))
        if isinstance(module, nn.Conv2d | nn.Linear):
            counted[0] += output.numel() * module.weight[0].numel()
            counted[1] += output.numel()

    handles = [module.register_forward_hook(hook) for module in net.modules()]
    net(torch.empty(1, *input_shape, device="meta"))
    for handle in handles:
        handle.remove()
    return Cost(sum(used.values()), *counted)


def rows() -> Iterator[tuple[str, ...]]:
    """The README's table: network, input, millions of parameters, millions of multiply-adds, weights on offer."""
    yield ("network", "input", "parameters, M", "multiply-adds, M", "weights on offer")
    for network in NETWORKS.values():
        each = cost(network)
        sets = ", ".join("bundled" if w.bundled else f"torchvision's {w.name}" for w in WEIGHT_SETS[network.name])
        side = network.preprocess.size
        numbers = f"{each.parameters / 1e6:.2f}", f"{each.multiply_adds / 1e6:,.0f}"
        yield (f"`{network.name}`", f"{side}x{side}", *numbers, sets or "your own")


def markdown() -> str:
    """The rows as a Markdown table."""
    head, *body = rows()
    rule = ("---", "---", "---:", "---:", "---")
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


if __name__ == "__main__":
    click.echo(markdown())
