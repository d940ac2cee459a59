"""What INT8 changed, from the logits of both on the same images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dlcv_deploy.parity.compare import flipped, hits, predictions
from dlcv_deploy.parity.statistics import paired_interval, percent

Logits = npt.NDArray[np.floating[Any]]


def score(fp32: Logits, int8: Logits, labels: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Top-1 of both, its fall with the paired 95 % interval, flips, and mean KL(fp32 || int8) of the softmax in nats.

    Args:
        fp32: (N, K).
        int8: (N, K).
        labels: (N,).
    """
    images = len(labels)
    before, after = hits(fp32, labels, 1), hits(int8, labels, 1)
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    return {
        "top1_fp32": percent(int(before.sum()), images),
        "top1": percent(int(after.sum()), images),
        "loss": percent(lost - gained, images),
        "interval": list(paired_interval(lost, gained, images)),
        "flips": int(flipped(predictions(fp32), predictions(int8)).sum()),
        "kl": divergence(fp32, int8),
    }


def divergence(one: Logits, other: Logits) -> float:
    """The mean Kullback-Leibler divergence of the softmax of ``one`` from that of ``other``, in nats; twice (N, K)."""
    p, q = _log_softmax(one), _log_softmax(other)
    return float((np.exp(p) * (p - q)).sum(1).mean())


def _log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    shifted = np.asarray(logits, np.float64) - np.max(logits, 1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))
