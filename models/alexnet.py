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
    """Five convolutions and three dense layers: 60,965,224 parameters with 1000 classes."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, 4, 2)
        self.conv2 = nn.Conv2d(96, 256, 5, 1, 2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, 1, 1)
        self.conv4 = nn.Conv2d(384, 384, 3, 1, 1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, 1, 1, groups=2)
        self.fc6, self.fc7, self.fc8 = nn.Linear(9216, 4096), nn.Linear(4096, 4096), nn.Linear(4096, classes)
        self.norm1 = LocalResponseNorm(5, 1e-4, 0.75, 2.0, divide_by_size=False)  # section 3.3
        self.norm2 = LocalResponseNorm(5, 1e-4, 0.75, 2.0, divide_by_size=False)
        self._initialize()

    def _initialize(self) -> None:
        """N(0, 0.01); biases are 1 in conv2, conv4, conv5 and the hidden dense layers, 0 elsewhere (section 5)."""
        ones = (self.conv2, self.conv4, self.conv5, self.fc6, self.fc7)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5, self.fc6, self.fc7, self.fc8):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, float(layer in ones))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, 224, 224)
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
        x = F.dropout(F.relu(self.fc7(x)), 0.5, self.training)  # (N, 4096)
        logits: Tensor = self.fc8(x)  # (N, classes)
        return logits
