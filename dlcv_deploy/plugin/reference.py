"""What the plugin's two operators compute, in NumPy and float64: the judge of the kernels.

Krizhevsky, Sutskever, Hinton (2012), section 3.3, with alpha divided by the window as ONNX's ``LRN`` does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Doubles = npt.NDArray[np.float64]


def lrn(x: Array, size: int, alpha: float, beta: float, bias: float) -> Doubles:
    """Return x / (bias + alpha / size * sum of x^2 over ``size`` channels around)^beta.

    Args:
        x: (N, C, H, W) of any type.
        size: Odd; channels beyond the first and the last count as 0.
        alpha: Divided by ``size`` here.
        beta: Exponent.
        bias: The paper's k.
    """
    wide = x.astype(np.float64)
    half = size // 2
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        squares = np.pad(wide * wide, ((0, 0), (half, half), (0, 0), (0, 0)))
        total = np.add.reduce([squares[:, i : i + x.shape[1]] for i in range(size)])
        found: Doubles = wide / (bias + alpha / size * total) ** beta
    return found


def max_pool(x: Doubles, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int]) -> Doubles:
    """The greatest value in each window; NaN where the window holds one, as PyTorch has it; padding never counts.

    Args:
        x: (N, C, H, W).
        kernel: Height and width of the window.
        strides: Likewise.
        pads: Top, left, bottom, right, each smaller than the window.
    """
    top, left, bottom, right = pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(kernel), axis=(2, 3))
    found: Doubles = windows[:, :, :: strides[0], :: strides[1]].max(axis=(4, 5))
    return found


def quantize(y: Doubles, scale: float) -> npt.NDArray[np.int8]:
    """Steps of ``scale``, halves to the even one, held to -128 ... 127; NaN becomes -128, as in ONNX Runtime."""
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.rint(y / np.float64(np.float32(scale)))
    held = np.nan_to_num(steps, nan=-128, posinf=127, neginf=-128).clip(-128, 127)
    found: npt.NDArray[np.int8] = held.astype(np.int8)
    return found
