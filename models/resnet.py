"""Residual networks of He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385).

Two families in one file: ImageNet's (section 4.1, table 1), with torchvision's state-dict keys, and CIFAR-10's (section
4.2), 6n+2 layers. Both come with the paper's shortcuts, A, B or C, and without any, as the paper's plain networks.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET_STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
Shortcut = Literal["A", "B", "C", "plain"]
"""Section 4.1, page 6: where the shape changes, zero channels (A) or a projection (B); projections everywhere (C)."""


def conv3x3(cin: int, cout: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution without bias, padded so that stride 1 keeps the size."""
    return nn.Conv2d(cin, cout, 3, stride, 1, bias=False)


class PadShortcut(nn.Module):
    """Option A: every second pixel, and zero channels added on both sides; no parameters (section 4.1, page 6)."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.stride, self.before, self.after = stride, (cout - cin) // 2, (cout - cin + 1) // 2

    def forward(self, x: Tensor) -> Tensor:  # (N, cin, H, W) -> (N, cout, H/stride, W/stride)
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class Plain(nn.Module):
    """No shortcut at all: what it adds to a block is nothing (the paper's plain networks)."""

    def forward(self, x: Tensor) -> None:
        return None


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (figure 5, left); the identity where ``downsample`` is None."""

    expansion = 1

    def __init__(self, cin: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(cin, width, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv3x3(width, width), nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:  # (N, cin, H, W) -> (N, width, H/stride, W/stride)
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(_joined(y, x, self.downsample))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut (figure 5, right).

    The stride is in the 3x3, as in torchvision, or with ``early`` in the first 1x1, as in the paper's Caffe networks.
    """

    expansion = 4

    def __init__(self, cin: int, width: int, stride: int, downsample: nn.Module | None, *, early: bool = False) -> None:
        super().__init__()
        first, second = (stride, 1) if early else (1, stride)
        self.conv1, self.bn1 = nn.Conv2d(cin, width, 1, first, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv3x3(width, width, second), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:  # (N, cin, H, W) -> (N, 4 * width, H/stride, W/stride)
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(_joined(y, x, self.downsample))


def _joined(y: Tensor, x: Tensor, downsample: nn.Module | None) -> Tensor:
    """A block's branch and its shortcut."""
    side = x if downsample is None else downsample(x)
    return y if side is None else y + side


def _shortcut(kind: Shortcut, cin: int, cout: int, stride: int) -> nn.Module | None:
    """What a block adds; None is the identity."""
    same = stride == 1 and cin == cout
    if kind == "plain":
        return Plain()
    if kind == "A" and not same:
        return PadShortcut(cin, cout, stride)
    if kind == "C" or not same:
        return nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))
    return None


def _stage(
    block: type[BasicBlock | Bottleneck], cin: int, width: int, blocks: int, stride: int, kind: Shortcut, *, early: bool
) -> nn.Sequential:
    """``blocks`` blocks of one width; the first one strides."""
    cout = width * block.expansion
    strides = (stride, *[1] * (blocks - 1))
    layers = []
    for each in strides:
        options = {"early": early} if block is Bottleneck else {}
        layers.append(block(cin, width, each, _shortcut(kind, cin, cout, each), **options))
        cin = cout
    return nn.Sequential(*layers)


def _initialize(net: nn.Module) -> None:
    """He initialization of the convolutions (arXiv:1502.01852, equation 10); PyTorch's own for the rest."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ImageNetResNet(nn.Module):
    """ResNet-18, 34, 50, 101 or 152 for 224x224 images (table 1); ``early`` strides as its Caffe networks do."""

    def __init__(
        self,
        depth: int,
        shortcut: Shortcut = "B",
        early: bool = False,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        blocks, block = IMAGENET_STAGES[depth], BasicBlock if depth < 50 else Bottleneck
        out = block.expansion
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.layer1 = _stage(block, 64, 64, blocks[0], 1, shortcut, early=early)
        self.layer2 = _stage(block, 64 * out, 128, blocks[1], 2, shortcut, early=early)
        self.layer3 = _stage(block, 128 * out, 256, blocks[2], 2, shortcut, early=early)
        self.layer4 = _stage(block, 256 * out, 512, blocks[3], 2, shortcut, early=early)
        self.fc = nn.Linear(512 * out, classes)
        _initialize(self)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:  # (N, 3, 224, 224)
        """Logits, features and the four stages' maps by name."""
        x = F.relu(self.bn1(self.conv1(x)))  # (N, 64, 112, 112)
        x = F.max_pool2d(x, 3, 2, 1)  # (N, 64, 56, 56)
        c2 = self.layer1(x)  # (N, 64e, 56, 56), e = 1 for basic blocks, 4 for bottlenecks
        c3 = self.layer2(c2)  # (N, 128e, 28, 28)
        c4 = self.layer3(c3)  # (N, 256e, 14, 14)
        c5 = self.layer4(c4)  # (N, 512e, 7, 7)
        features = torch.flatten(F.adaptive_avg_pool2d(c5, 1), 1)  # (N, 512e)
        logits = self.fc(features)  # (N, classes)
        return {"c2": c2, "c3": c3, "c4": c4, "c5": c5, "features": features, "logits": logits}

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x)["logits"]


class CifarResNet(nn.Module):
    """6n+2 layers for 32x32 images: n blocks at each of 16, 32 and 64 channels (section 4.2)."""

    def __init__(self, depth: int, shortcut: Shortcut = "A", classes: int = 10) -> None:
        super().__init__()
        n = (depth - 2) // 6
        self.conv1, self.bn1 = conv3x3(3, 16), nn.BatchNorm2d(16)
        self.layer1 = _stage(BasicBlock, 16, 16, n, 1, shortcut, early=False)
        self.layer2 = _stage(BasicBlock, 16, 32, n, 2, shortcut, early=False)
        self.layer3 = _stage(BasicBlock, 32, 64, n, 2, shortcut, early=False)
        self.linear = nn.Linear(64, classes)
        _initialize(self)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:  # (N, 3, 32, 32)
        """Logits and features by name."""
        x = F.relu(self.bn1(self.conv1(x)))  # (N, 16, 32, 32)
        x = self.layer1(x)  # (N, 16, 32, 32)
        x = self.layer2(x)  # (N, 32, 16, 16)
        x = self.layer3(x)  # (N, 64, 8, 8)
        features = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)  # (N, 64)
        return {"features": features, "logits": self.linear(features)}  # (N, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x)["logits"]
