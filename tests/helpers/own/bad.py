"""Factories that make nothing, or what cannot be deployed."""

import torch
from torch import nn

SIZE = 3
network = nn.Linear(3, 4)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)

    def features(self, x):
        return self.conv(x).mean((2, 3))

    def forward(self, x):
        return self.fc(self.features(x))


class Needs(Base):
    def __init__(self, width, depth=2, *, classes):
        super().__init__()


def raises():
    return helper("x")


def helper(width):
    return nn.Linear(8, width)


def leaves():
    raise SystemExit("usage: train.py --epochs N")


def state():
    return Base().state_dict()


def pair():
    return Base(), "transform"


def script():
    return torch.jit.script(nn.Linear(3, 4))


class Lazy(Base):
    def __init__(self):
        super().__init__()
        self.fc = nn.LazyLinear(5)


class Tuple(Base):
    def forward(self, x):
        return super().forward(x), x


class Dict(Base):
    def forward(self, x):
        return {"out": super().forward(x), "aux": x}


class Map(Base):
    def forward(self, x):
        return self.conv(x)


class Index(Base):
    def forward(self, x):
        return super().forward(x).argmax(1, keepdim=True)


class Score(Base):
    def forward(self, x):
        return super().forward(x)[:, :1]


class ViewOne(Base):
    def forward(self, x):
        return self.fc(self.features(x).view(1, 8))


class FlatOne(Base):
    def forward(self, x):
        return self.conv(x).reshape(1, -1)[:, :5]


class ViewFour(Base):
    def forward(self, x):
        return self.fc(self.features(x).view(4, 8))


class Sized(Base):
    def __init__(self):
        super().__init__()
        self.big = nn.Linear(8 * 48 * 48, 5)

    def forward(self, x):
        return self.big(self.conv(x).flatten(1))


class Grey(Base):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)


class Dropout(Base):
    def forward(self, x):
        return self.fc(nn.functional.dropout(self.features(x)))


class Batch(Base):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class Broken(Base):
    def forward(self, x):
        return super().forward(x) / 0


class Gate(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class Branches(Base):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Identity(), Gate())

    def forward(self, x):
        return super().forward(self.body(x))

    def outputs(self, x):
        return {"logits": self(x), "features": x.mean((2, 3))}


class Inner(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


class Bessel(Base):
    def __init__(self):
        super().__init__()
        self.inner = Inner()

    def forward(self, x):
        return self.inner(super().forward(x))

    def outputs(self, x):
        return {"logits": self(x), "features": x.mean((2, 3))}


class Number(Base):
    def forward(self, x):
        return super().forward(x) * int(x.shape[0]) / len(x) if x.shape[0] != 2 else super().forward(x)


class NumPy(Base):
    def forward(self, x):
        return self.fc(torch.from_numpy(self.features(x).numpy()))


class Listed(Base):
    def outputs(self, x):
        return [x]


class Headless(Base):
    def outputs(self, x):
        return {"features": x}


class Summed(Base):
    def outputs(self, x):
        return {"logits": self(x), "features": x.sum()}


def drawn():
    net = Base()
    torch.manual_seed(3)
    net.fc = nn.Linear(8, 5)
    return net


def fixed():
    torch.manual_seed(3)
    return Base()
