"""Local response normalization, with its convention in an argument, as one operator that exports as one node.

Krizhevsky, Sutskever, Hinton (2012), section 3.3: b = a / (k + alpha * sum of a^2 over n neighbouring channels)^beta,
with k = 2, n = 5, alpha = 1e-4, beta = 0.75. PyTorch, Caffe, cuda-convnet and ONNX's ``LRN`` take the mean of a^2 in
place of the sum, so that the paper's alpha is n times as large in their terms.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SpecError


@torch.library.custom_op(
    "dlcv::lrn", mutates_args=(), schema="(Tensor x, int size, float alpha, float beta, float bias) -> Tensor"
)
def lrn(x: Tensor, size: int, alpha: float, beta: float, bias: float) -> Tensor:
    """ONNX's ``LRN``: x / (bias + alpha / size * sum of x^2 over ``size`` channels)^beta, summed in fp32 or wider.

    Args:
        x: (N, C, ...) of a floating type; half types would overflow where the absolute value reaches 256.
        size: Odd; ONNX and PyTorch centre an even window differently.
        alpha: Divided by ``size`` here.
        beta: Exponent.
        bias: The paper's k.
    """
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return F.local_response_norm(wide, size, alpha, beta, bias).to(x.dtype)


@lrn.register_fake
def _(x: Tensor, size: int, alpha: float, beta: float, bias: float) -> Tensor:
    return torch.empty_like(x)


def _keep(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    ctx.save_for_backward(inputs[0])
    ctx.settings = inputs[1:]


def _backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    (x,) = ctx.saved_tensors
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = F.local_response_norm(x, *ctx.settings)
    return (*torch.autograd.grad(y, x, grad), None, None, None, None)


lrn.register_autograd(_backward, setup_context=_keep)


def banded_lrn(x: Tensor, size: int, alpha: float, beta: float, bias: float) -> Tensor:
    """What :func:`lrn` computes, for training: the sum over channels is a 1x1 convolution with a banded 0/1 matrix.

    Args:
        x: (N, C, H, W), best in channels-last memory; squares and sums are of its type (of float32 for float16, which
            they would overflow), the power is in float32 or wider.
    """
    dtype = x.dtype
    x = x.float() if dtype == torch.float16 else x
    channel = torch.arange(x.shape[1], device=x.device)
    band = ((channel[:, None] - channel).abs() <= size // 2).to(x.dtype)
    total = (x * x).permute(0, 2, 3, 1) @ band  # that convolution, as a product of matrices
    wide = torch.promote_types(x.dtype, torch.float32)
    root = torch.rsqrt(bias + alpha / size * total.permute(0, 3, 1, 2).to(wide))
    factor = root * torch.sqrt(root) if beta == 0.75 else root ** (2 * beta)
    return (x.to(wide) * factor).to(dtype)


class LocalResponseNorm(nn.Module):
    """Normalization across channels; ``divide_by_size`` says whether ``alpha`` multiplies a mean or the paper's sum."""

    def __init__(self, size: int, alpha: float, beta: float, k: float, *, divide_by_size: bool) -> None:
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise SpecError(f"a window of {size} channels has no centre", fix="use an odd size, such as the paper's 5")
        self.size, self.beta, self.k = size, beta, k
        self.alpha = alpha if divide_by_size else alpha * size

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> the same shape
        if self.training:
            return banded_lrn(x, self.size, self.alpha, self.beta, self.k)
        y: Tensor = torch.ops.dlcv.lrn(x, self.size, self.alpha, self.beta, self.k)
        return y

    def extra_repr(self) -> str:
        return f"size={self.size}, alpha={self.alpha:g} of the mean square, beta={self.beta:g}, k={self.k:g}"
