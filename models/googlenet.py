"""GoogLeNet: Szegedy et al., "Going Deeper with Convolutions" (arXiv:1409.4842), table 1, with torchvision's keys.

Three networks of the same nine Inception modules: the paper's, with biases, 5x5 convolutions and two local response
normalizations; torchvision's, with batch normalization and 3x3 convolutions where the paper has 5x5; and a small one
like torchvision's for 32x32 images, where every width is half as great. The auxiliary classifiers (section 5)
belong to training: in eval mode nothing of them is computed or exported.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .lrn import LocalResponseNorm

# table 1: (#1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj)
WIDTHS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class ConvRelu(nn.Module):
    """A convolution with a bias, or one with batch normalization in its place, and a ReLU."""

    def __init__(self, cin: int, cout: int, size: int, stride: int = 1, *, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, size, stride, size // 2, bias=not norm)
        self.bn = nn.BatchNorm2d(cout, eps=0.001) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # (N, cin, H, W) -> (N, cout, H/stride, W/stride)
        return F.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    """Convolutions of three sizes and a pooling, side by side, concatenated (figure 2b)."""

    def __init__(self, cin: int, widths: tuple[int, ...], *, norm: bool, large: int) -> None:
        super().__init__()
        n1, reduce3, n3, reduce5, n5, pool = widths
        self.branch1 = ConvRelu(cin, n1, 1, norm=norm)
        self.branch2 = nn.Sequential(ConvRelu(cin, reduce3, 1, norm=norm), ConvRelu(reduce3, n3, 3, norm=norm))
        self.branch3 = nn.Sequential(ConvRelu(cin, reduce5, 1, norm=norm), ConvRelu(reduce5, n5, large, norm=norm))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), ConvRelu(cin, pool, 1, norm=norm))

    def forward(self, x: Tensor) -> Tensor:  # (N, cin, H, W) -> (N, n1 + n3 + n5 + pool, H, W)
        return torch.cat((self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)), 1)


class Auxiliary(nn.Module):
    """A classifier on a map in the middle, whose loss is added in training (section 5)."""

    def __init__(self, cin: int, classes: int, *, norm: bool) -> None:
        super().__init__()
        self.conv = ConvRelu(cin, 128, 1, norm=norm)
        self.fc1, self.fc2 = nn.Linear(2048, 1024), nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:  # (N, cin, 14, 14)
        x = self.conv(F.adaptive_avg_pool2d(x, 4))  # (N, 128, 4, 4)
        x = F.dropout(F.relu(self.fc1(torch.flatten(x, 1))), 0.7, self.training)  # (N, 1024)
        logits: Tensor = self.fc2(x)  # (N, classes)
        return logits


class GoogLeNet(nn.Module):
    """22 layers for 224x224 images.

    Without ``norm`` it is the paper's, with ``norm`` it is torchvision's. In training mode the answer is a tuple of
    the logits and those of the two auxiliary classifiers, after modules 4a and 4d.
    """

    training_only = ("aux1", "aux2")

    def __init__(self, classes: int = 1000, *, norm: bool = False) -> None:
        super().__init__()
        self.conv1 = ConvRelu(3, 64, 7, 2, norm=norm)
        self.norm1 = nn.Identity() if norm else LocalResponseNorm(5, 1e-4, 0.75, 1.0, divide_by_size=True)
        self.conv2, self.conv3 = ConvRelu(64, 64, 1, norm=norm), ConvRelu(64, 192, 3, norm=norm)
        self.norm2 = nn.Identity() if norm else LocalResponseNorm(5, 1e-4, 0.75, 1.0, divide_by_size=True)
        large = 3 if norm else 5
        cin = 192
        for name, widths in WIDTHS.items():
            self.add_module(f"inception{name}", Inception(cin, widths, norm=norm, large=large))
            cin = widths[0] + widths[2] + widths[4] + widths[5]
        self.aux1, self.aux2 = Auxiliary(512, classes, norm=norm), Auxiliary(528, classes, norm=norm)
        self._last_pool = 2 if norm else 3  # torchvision's is smaller than the paper's
        self.dropout = nn.Dropout(0.2 if norm else 0.4)
        self.fc = nn.Linear(1024, classes)
        _initialize(self)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:  # (N, 3, 224, 224)
        """Logits and features by name, and in training the logits of the auxiliary classifiers."""
        x = F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True)  # (N, 64, 56, 56)
        x = self.norm2(self.conv3(self.conv2(self.norm1(x))))  # (N, 192, 56, 56)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)  # (N, 192, 28, 28)
        x = _through(self, x, "3a", "3b")  # (N, 480, 28, 28)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)  # (N, 480, 14, 14)
        a = _through(self, x, "4a")  # (N, 512, 14, 14)
        d = _through(self, a, "4b", "4c", "4d")  # (N, 528, 14, 14)
        x = F.max_pool2d(_through(self, d, "4e"), self._last_pool, 2, ceil_mode=True)  # (N, 832, 7, 7)
        x = _through(self, x, "5a", "5b")  # (N, 1024, 7, 7)
        features = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)  # (N, 1024)
        found = {"features": features, "logits": self.fc(self.dropout(features))}  # (N, classes)
        return {**found, "aux1": self.aux1(a), "aux2": self.aux2(d)} if self.training else found

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        y = self.outputs(x)
        return (y["logits"], y["aux1"], y["aux2"]) if self.training else y["logits"]


class CifarGoogLeNet(nn.Module):
    """The nine modules as torchvision has them, with batch normalization, at half the widths, for 32x32 images.

    A 3x3 convolution and one pooling make a 16x16 map for modules 3a and 3b, where the paper's stem makes 28x28.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = ConvRelu(3, 32, 3, norm=True)
        self.conv2, self.conv3 = ConvRelu(32, 32, 1, norm=True), ConvRelu(32, 96, 3, norm=True)
        cin = 96
        for name, full in WIDTHS.items():
            widths = tuple(width // 2 for width in full)
            self.add_module(f"inception{name}", Inception(cin, widths, norm=True, large=3))
            cin = widths[0] + widths[2] + widths[4] + widths[5]
        self.fc = nn.Linear(512, classes)
        _initialize(self)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:  # (N, 3, 32, 32)
        """Logits and features by name."""
        x = F.max_pool2d(self.conv1(x), 3, 2, 1)  # (N, 32, 16, 16)
        x = self.conv3(self.conv2(x))  # (N, 96, 16, 16)
        x = _through(self, x, "3a", "3b")  # (N, 240, 16, 16)
        x = F.max_pool2d(x, 3, 2, 1)  # (N, 240, 8, 8)
        x = _through(self, x, "4a", "4b", "4c", "4d", "4e")  # (N, 416, 8, 8)
        x = F.max_pool2d(x, 3, 2, 1)  # (N, 416, 4, 4)
        x = _through(self, x, "5a", "5b")  # (N, 512, 4, 4)
        features = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)  # (N, 512)
        return {"features": features, "logits": self.fc(features)}  # (N, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x)["logits"]


def _through(net: nn.Module, x: Tensor, *names: str) -> Tensor:
    """One Inception module after another."""
    for name in names:
        x = getattr(net, f"inception{name}")(x)
    return x


def _initialize(net: nn.Module) -> None:
    """He initialization of the convolutions (arXiv:1502.01852, equation 10); PyTorch's own for the rest."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
