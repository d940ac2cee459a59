"""AlexNet as its paper has it: Krizhevsky, Sutskever, Hinton (NIPS 2012), figure 2 and section 3.

The two towers on two GPUs are two groups in conv2, conv4 and conv5. Local response normalization follows the ReLU of
conv1 and conv2, and overlapping pooling follows that (section 3.5). The paper's 224x224 input does not divide into
its 55x55 map; a padding of 2 makes it so.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .lrn import LocalResponseNorm


class AlexNet(nn.Module):
    """Five convolutions and three dense layers: 60,965,224 parameters with 1000 classes.

    With ``caffe`` it is the one of Caffe's bvlc_alexnet: 227x227 images without padding, and the normalization with
    k = 1 and an alpha that multiplies a mean.
    """

    def __init__(self, classes: int = 1000, *, caffe: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, 4, 0 if caffe else 2)
        self.conv2 = nn.Conv2d(96, 256, 5, 1, 2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, 1, 1)
        self.conv4 = nn.Conv2d(384, 384, 3, 1, 1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, 1, 1, groups=2)
        self.fc6, self.fc7, self.fc8 = nn.Linear(9216, 4096), nn.Linear(4096, 4096), nn.Linear(4096, classes)
        k = 1.0 if caffe else 2.0  # section 3.3
        self.norm1 = LocalResponseNorm(5, 1e-4, 0.75, k, divide_by_size=caffe)
        self.norm2 = LocalResponseNorm(5, 1e-4, 0.75, k, divide_by_size=caffe)
        _initialize(self)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:  # (N, 3, 224, 224), or 227 x 227
        """Logits and features by name."""
        x = F.relu(self.conv1(x))  # (N, 96, 55, 55)
        x = F.max_pool2d(self.norm1(x), 3, 2)  # (N, 96, 27, 27)
        x = F.relu(self.conv2(x))  # (N, 256, 27, 27)
        x = F.max_pool2d(self.norm2(x), 3, 2)  # (N, 256, 13, 13)
        x = F.relu(self.conv3(x))  # (N, 384, 13, 13)
        x = F.relu(self.conv4(x))  # (N, 384, 13, 13)
        x = F.relu(self.conv5(x))  # (N, 256, 13, 13)
        x = F.max_pool2d(x, 3, 2)  # (N, 256, 6, 6)
        x = torch.flatten(x, 1)  # (N, 9216)
        x = F.dropout(F.relu(self.fc6(x)), 0.5, self.training)  # (N, 4096)
        features = F.dropout(F.relu(self.fc7(x)), 0.5, self.training)  # (N, 4096)
        return {"features": features, "logits": self.fc8(features)}  # (N, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x)["logits"]


class CifarAlexNet(nn.Module):
    """The same five convolutions and three dense layers for 32x32 images: half the widths, smaller filters.

    The normalization's alpha is 100 times the paper's, since inputs of unit variance are some 60 times smaller than
    the paper's pixels: with 1e-4 it would divide by a constant.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 48, 5, 1, 2)
        self.conv2 = nn.Conv2d(48, 128, 3, 1, 1, groups=2)
        self.conv3 = nn.Conv2d(128, 192, 3, 1, 1)
        self.conv4 = nn.Conv2d(192, 192, 3, 1, 1, groups=2)
        self.conv5 = nn.Conv2d(192, 128, 3, 1, 1, groups=2)
        self.fc6, self.fc7, self.fc8 = nn.Linear(1152, 512), nn.Linear(512, 512), nn.Linear(512, classes)
        self.norm1 = LocalResponseNorm(5, 1e-2, 0.75, 2.0, divide_by_size=False)
        self.norm2 = LocalResponseNorm(5, 1e-2, 0.75, 2.0, divide_by_size=False)
        _initialize(self, he=True)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:  # (N, 3, 32, 32)
        """Logits and features by name."""
        x = F.relu(self.conv1(x))  # (N, 48, 32, 32)
        x = F.max_pool2d(self.norm1(x), 3, 2)  # (N, 48, 15, 15)
        x = F.relu(self.conv2(x))  # (N, 128, 15, 15)
        x = F.max_pool2d(self.norm2(x), 3, 2)  # (N, 128, 7, 7)
        x = F.relu(self.conv3(x))  # (N, 192, 7, 7)
        x = F.relu(self.conv4(x))  # (N, 192, 7, 7)
        x = F.relu(self.conv5(x))  # (N, 128, 7, 7)
        x = F.max_pool2d(x, 3, 2)  # (N, 128, 3, 3)
        x = torch.flatten(x, 1)  # (N, 1152)
        x = F.dropout(F.relu(self.fc6(x)), 0.5, self.training)  # (N, 512)
        features = F.dropout(F.relu(self.fc7(x)), 0.5, self.training)  # (N, 512)
        return {"features": features, "logits": self.fc8(features)}  # (N, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x)["logits"]


class TorchvisionAlexNet(nn.Module):
    """The one-tower variant of "One weird trick" (arXiv:1404.5997) without normalization, with torchvision's keys."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),  # (N, 64, 27, 27)
            *(nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),  # (N, 192, 13, 13)
            *(nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU()),  # (N, 384, 13, 13)
            *(nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU()),  # (N, 256, 13, 13)
            *(nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2)),  # (N, 256, 6, 6)
        )
        self.classifier = nn.Sequential(
            *(nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU()),  # (N, 4096)
            *(nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()),  # (N, 4096)
            nn.Linear(4096, classes),  # (N, classes)
        )

    def outputs(self, x: Tensor) -> dict[str, Tensor]:  # (N, 3, 224, 224)
        """Logits and features by name."""
        x = torch.flatten(self.features(x), 1)  # (N, 9216)
        features = self.classifier[:6](x)  # (N, 4096)
        return {"features": features, "logits": self.classifier[6](features)}  # (N, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x)["logits"]


def _initialize(net: AlexNet | CifarAlexNet, *, he: bool = False) -> None:
    """N(0, 0.01); biases are 1 in conv2, conv4, conv5 and the hidden dense layers, 0 elsewhere (section 5).

    With ``he``, all but the last layer get He initialization (arXiv:1502.01852) and biases of 0: in the small network
    every fan-in is too small for 0.01, and with it the loss stays where it is.
    """
    ones = (net.conv2, net.conv4, net.conv5, net.fc6, net.fc7)
    for layer in (net.conv1, net.conv2, net.conv3, net.conv4, net.conv5, net.fc6, net.fc7, net.fc8):
        assert layer.bias is not None
        nn.init.constant_(layer.bias, float(layer in ones and not he))
        if he and layer is not net.fc8:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        else:
            nn.init.normal_(layer.weight, std=0.01)
