"""Random weights that behave: the same bits on every machine, and answers that depend on the image at any depth."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .resnet import BasicBlock, Bottleneck, Plain

_STEPS = 1 << 20
_GAIN = 1 / (0.5 - 0.5 / math.pi)
"""Input variance over output variance of a ReLU on N(0, 1)."""


@torch.no_grad()
def randomize(net: nn.Module, seed: int) -> None:
    """Fill every parameter and statistic of a network from a seed.

    Filters and rows are uniform and sum to zero, so that they answer to what differs within their input, not to its
    mean, which would drown it after a few layers; their variance makes up for what a ReLU takes away. The last batch
    normalization of each of B residual branches is scaled by 1 / sqrt(B), so that the sum of all branches neither
    vanishes nor explodes. Normalizations get statistics and affine parts near, not at, the identity, so that folding
    them is put to the test. All draws are integers, scaled once, so that no rounding depends on the machine.

    Of modules that are not known, vectors called ``weight`` are taken for a normalization's, other vectors for biases,
    and what has more axes for filters; buffers other than batch normalization's stay as they are.
    """
    draw = _Draw(seed)
    blocks = [module for module in net.modules() if isinstance(module, BasicBlock | Bottleneck)]
    blocks = [block for block in blocks if not isinstance(block.downsample, Plain)]
    branch_ends = {block.bn3 if isinstance(block, Bottleneck) else block.bn2 for block in blocks}
    for module in net.modules():
        scale = 1 / math.sqrt(len(blocks)) if module in branch_ends else 1.0
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() > 1:
                parameter.copy_(draw.filters(parameter.shape))
            elif name == "weight":
                parameter.copy_((1 + draw(parameter.shape, 0.1)) * scale)
            else:
                parameter.copy_(draw(parameter.shape, 0.1 if isinstance(module, nn.BatchNorm2d) else 0.05))
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            assert module.running_var is not None
            assert module.num_batches_tracked is not None
            module.running_mean.copy_(draw(module.running_mean.shape, 0.1))
            module.running_var.copy_(1 + draw(module.running_var.shape, 0.2))
            module.num_batches_tracked.zero_()


class _Draw:
    """Draws from one seeded generator."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def _integers(self, shape: torch.Size) -> Tensor:
        return torch.randint(-_STEPS, _STEPS + 1, shape, generator=self._generator, dtype=torch.int32)

    def __call__(self, shape: torch.Size, bound: float) -> Tensor:
        """Uniform within +-bound."""
        return self._integers(shape).float() * (bound / _STEPS)

    def filters(self, shape: torch.Size) -> Tensor:
        """Uniform, each ``[i]`` summing to zero (within one step a weight), with variance ``_GAIN`` / fan-in."""
        steps = self._integers(shape).flatten(1)
        steps -= steps.sum(1, keepdim=True).div(steps.shape[1], rounding_mode="floor").int()
        return steps.float().mul_(math.sqrt(3 * _GAIN / steps.shape[1]) / _STEPS).view(shape)
