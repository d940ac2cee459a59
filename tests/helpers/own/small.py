"""A network that the catalogue has never seen; it prints, and sets what a factory had better leave alone."""

import os
import sys

import torch
from blocks import Bottleneck, Fire, Inverted
from torch import nn

print("imported", sys.argv[1:])  # noqa: T201


class Small(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.fire, self.pool = Fire(16, 8, 16), nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inverted, self.bottleneck = Inverted(32, 64), Bottleneck(32, 16, 4)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, classes)

    def outputs(self, x):
        x = self.pool(self.fire(torch.relu(self.stem(x))))
        features = self.norm(self.bottleneck(self.inverted(x)).mean((2, 3)))
        return {"features": features, "logits": self.head(nn.functional.gelu(features))}

    def forward(self, x):
        return self.outputs(x)["logits"]


def factory():
    torch.set_default_dtype(torch.float64)
    sys.path.append("/nowhere")
    os.chdir("/")
    print("made")  # noqa: T201
    return Small()
