"""Blocks of other families than the catalogue's."""

import torch
from torch import nn


class Fire(nn.Module):
    """SqueezeNet's: a 1x1 squeeze, then 1x1 and 3x3 side by side."""

    def __init__(self, cin, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(cin, squeeze, 1)
        self.one, self.three = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x):
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.one(x)), torch.relu(self.three(x))], 1)


def conv(cin, cout, size, **how):
    return [nn.Conv2d(cin, cout, size, padding=size // 2, bias=False, **how), nn.BatchNorm2d(cout)]


class Inverted(nn.Module):
    """MobileNet's: up, depthwise, squeeze and excitation, down, and a residual sum."""

    def __init__(self, width, wide):
        super().__init__()
        self.deep = nn.Sequential(*conv(width, wide, 1), nn.Hardswish(), *conv(wide, wide, 3, groups=wide), nn.ReLU6())
        self.excite = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, 8, 1), nn.ReLU(), nn.Conv2d(8, wide, 1))
        self.down = nn.Sequential(*conv(wide, width, 1))

    def forward(self, x):
        y = self.deep(x)
        return x + self.down(y * torch.sigmoid(self.excite(y)))


class Bottleneck(nn.Module):
    """ResNeXt's: narrow, grouped, wide, and a residual sum."""

    def __init__(self, width, narrow, groups):
        super().__init__()
        self.main = nn.Sequential(
            *conv(width, narrow, 1), nn.ReLU(), *conv(narrow, narrow, 3, groups=groups), nn.ReLU(),
            *conv(narrow, width, 1),
        )  # fmt: skip

    def forward(self, x):
        return torch.relu(x + self.main(x))
