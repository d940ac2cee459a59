"""Which tensors a network answers with."""

from __future__ import annotations

from torch import Tensor, nn


class Selected(nn.Module):
    """A network that answers with a tuple of named tensors, which its ``outputs`` method gives."""

    def __init__(self, net: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.net, self.names = net, names

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:  # (N, C, H, W)
        found = self.net.outputs(x)  # type: ignore[operator]
        return tuple(found[name] for name in self.names)


def select(net: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """The network itself where the logits are all that is asked for, else one that gives a tuple of what is."""
    return net if names == ("logits",) else Selected(net, names)
