"""Residual networks of He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385).

Two families in one file: ImageNet's (section 4.1, table 1), with torchvision's state-dict keys and its placing of the
stride in the 3x3 convolution, and CIFAR-10's (section 4.2), 6n+2 layers with parameter-free shortcuts (option A).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET_STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
CIFAR_DEPTHS = (20, 32, 44, 56, 110, 1202)


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


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (figure 5, left)."""

    expansion = 1

    def __init__(self, cin: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(cin, width, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv3x3(width, width), nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:  # (N, cin, H, W) -> (N, width, H/stride, W/stride)
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut (figure 5, right); the stride is in the 3x3, as in torchvision."""

    expansion = 4

    def __init__(self, cin: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(cin, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv3x3(width, width, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:  # (N, cin, H, W) -> (N, 4 * width, H/stride, W/stride)
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def _project(cin: int, cout: int, stride: int) -> nn.Module:
    """Option B: a 1x1 convolution and batch normalization."""
    return nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))


def _stage(
    block: type[BasicBlock | Bottleneck],
    cin: int,
    width: int,
    blocks: int,
    stride: int,
    shortcut: type[PadShortcut] | None = None,
) -> nn.Sequential:
    """``blocks`` blocks of one width; the first one strides, and adapts the shortcut where the shape changes."""
    cout = width * block.expansion
    adapt = (shortcut or _project)(cin, cout, stride) if stride != 1 or cin != cout else None
    first = block(cin, width, stride, adapt)
    return nn.Sequential(first, *(block(cout, width, 1, None) for _ in range(blocks - 1)))


def _initialize(net: nn.Module) -> None:
    """He initialization of the convolutions (arXiv:1502.01852, equation 10); PyTorch's own for the rest."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ImageNetResNet(nn.Module):
    """ResNet-18, 34, 50, 101 or 152 for 224x224 images (table 1)."""

    def __init__(self, depth: int, classes: int = 1000) -> None:
        super().__init__()
        blocks, block = IMAGENET_STAGES[depth], BasicBlock if depth < 50 else Bottleneck
        out = block.expansion
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.layer1 = _stage(block, 64, 64, blocks[0], 1)
        self.layer2 = _stage(block, 64 * out, 128, blocks[1], 2)
        self.layer3 = _stage(block, 128 * out, 256, blocks[2], 2)
        self.layer4 = _stage(block, 256 * out, 512, blocks[3], 2)
        self.fc = nn.Linear(512 * out, classes)
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, 224, 224)
        x = F.relu(self.bn1(self.conv1(x)))  # (N, 64, 112, 112)
        x = F.max_pool2d(x, 3, 2, 1)  # (N, 64, 56, 56)
        x = self.layer1(x)  # (N, 64e, 56, 56), e = 1 for basic blocks, 4 for bottlenecks
        x = self.layer2(x)  # (N, 128e, 28, 28)
        x = self.layer3(x)  # (N, 256e, 14, 14)
        x = self.layer4(x)  # (N, 512e, 7, 7)
        x = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)  # (N, 512e)
        logits: Tensor = self.fc(x)  # (N, classes)
        return logits


class CifarResNet(nn.Module):
    """6n+2 layers for 32x32 images: n blocks at each of 16, 32 and 64 channels (section 4.2)."""

    def __init__(self, depth: int, classes: int = 10) -> None:
        super().__init__()
        n = (depth - 2) // 6
        self.conv1, self.bn1 = conv3x3(3, 16), nn.BatchNorm2d(16)
        self.layer1 = _stage(BasicBlock, 16, 16, n, 1)
        self.layer2 = _stage(BasicBlock, 16, 32, n, 2, PadShortcut)
        self.layer3 = _stage(BasicBlock, 32, 64, n, 2, PadShortcut)
        self.linear = nn.Linear(64, classes)
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, 32, 32)
        x = F.relu(self.bn1(self.conv1(x)))  # (N, 16, 32, 32)
        x = self.layer1(x)  # (N, 16, 32, 32)
        x = self.layer2(x)  # (N, 32, 16, 16)
        x = self.layer3(x)  # (N, 64, 8, 8)
        x = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)  # (N, 64)
        logits: Tensor = self.linear(x)  # (N, classes)
        return logits
