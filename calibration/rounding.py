"""Rounding weights by what a layer gives, not each by itself.

The error of a layer's output is (w - q)^T H (w - q) for a row w of weights, q its steps and H the covariance of what
the layer reads. Weights are rounded one after another, and what rounding one costs is made up for by those still to
come, along the inverse of H: the aim of AdaRound (Nagel et al., arXiv:2004.10568) in closed form. Source: Frantar,
Ashkboos, Hoefler, Alistarh, "GPTQ" (arXiv:2210.17323), section 3.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from ..graph.index import attribute, is_op
from ..graph.layer import Layer, Steps

Doubles = npt.NDArray[np.float64]
_ROWS = 1 << 14
"""Places of a convolution's input that its moments are taken from, at most, evenly spread over images and positions."""
_DAMP = 0.01
"""Share of the mean of H's diagonal that is added to it."""
_BLOCK = 128
_TOP = 127


def moments(node: NodeProto, read: npt.NDArray[np.float32], layer: Layer) -> list[Doubles]:
    """The covariance of what a layer's rows of weights are multiplied with, (values, values), for each of its groups.

    It is about the mean, since the mean's part is what the bias corrects.

    Args:
        node: A Conv, Gemm or MatMul.
        read: What it reads in INT8, (images, channels, ...).
        layer: Its weight.
    """
    groups = attribute(node, "group", 1) if is_op(node, "Conv") else 1
    found = []
    for part in np.split(read, groups, axis=1):
        places = _places(node, part, layer) if is_op(node, "Conv") else part.reshape(-1, layer.rows.shape[1])
        centred = places - places.mean(0)
        found.append((centred.T @ centred).astype(np.float64) / len(centred))
    return found


def round_by_output(layer: Layer, node: NodeProto, covariances: list[Doubles]) -> Steps:
    """The rows of a layer in int8 steps that keep the layer's output closest.

    Args:
        layer: Its weight, with the scales to round to.
        node: Its node.
        covariances: From ``moments``.
    """
    count = len(covariances)
    rows = np.split(layer.rows.astype(np.float64) / layer.scale[:, None].astype(np.float64), count)
    return np.concatenate([_compensated(w, h) for w, h in zip(rows, covariances, strict=True)])


def _places(node: NodeProto, x: npt.NDArray[np.float32], layer: Layer) -> npt.NDArray[np.float32]:
    """What a convolution multiplies its filters with, a row for each place: (places, channels * kernel)."""
    kernel = layer.shape[2:]
    n = len(kernel)
    pads = attribute(node, "pads", [0] * 2 * n)
    strides, dilations = attribute(node, "strides", [1] * n), attribute(node, "dilations", [1] * n)
    padded = np.pad(x, ((0, 0), (0, 0), *zip(pads[:n], pads[n:], strict=True)))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, n + 2)))
    every = tuple(slice(None, None, step) for step in (1, 1, *strides, *dilations))
    windows = np.moveaxis(windows[every], 1, n + 1)  # (images, places, channels, kernel)
    places = windows.shape[: n + 1]
    total = math.prod(places)
    chosen = np.unique(np.linspace(0, total - 1, min(total, _ROWS)).astype(np.int64))
    return np.asarray(windows[np.unravel_index(chosen, places)]).reshape(len(chosen), -1)


def _compensated(w: Doubles, covariance: Doubles) -> Steps:
    """Rows in steps, rounded column by column in the order of how much a column varies, the rest compensating."""
    h = covariance.copy()
    diagonal = np.diagonal(h).copy()
    still = diagonal == 0  # a value that never varies costs nothing, and compensates nothing
    h[still, still] = 1.0
    h[np.diag_indices_from(h)] += _DAMP * diagonal.mean()
    order = np.argsort(-np.diagonal(h), kind="stable")
    upper = np.linalg.cholesky(np.linalg.inv(h[np.ix_(order, order)])).T
    left, steps = w[:, order].copy(), np.empty(w.shape, np.float64)
    for start in range(0, left.shape[1], _BLOCK):
        stop = min(start + _BLOCK, left.shape[1])
        errors = np.empty((len(left), stop - start))
        for i in range(start, stop):
            steps[:, i] = np.clip(np.rint(left[:, i]), -_TOP, _TOP)
            errors[:, i - start] = (left[:, i] - steps[:, i]) / upper[i, i]
            left[:, i + 1 : stop] -= np.outer(errors[:, i - start], upper[i, i + 1 : stop])
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    result = np.empty(w.shape, np.int8)
    result[:, order] = steps.astype(np.int8)
    return result
