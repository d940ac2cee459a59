"""What it costs alexnet-cifar10 to have int8 around its normalizations too, as the plugin for LRN takes it.

    python benchmarks/through_lrn.py [IMAGES]

CIFAR-10's test images, 10,000 unless told, one centre crop each, on ONNX Runtime or OpenVINO, with the bundled weights
and table. The int8 graphs are those that the plugin's lowering starts from: between Q/DQ pairs, LRN is in float32.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from dlcv_deploy.calibration import cifar10
from dlcv_deploy.calibration.table import bundled
from dlcv_deploy.graph.qdq import quantize
from dlcv_deploy.parity.crops import to_input
from dlcv_deploy.parity.statistics import paired_interval
from dlcv_deploy.proof import session_of
from dlcv_deploy.spec import BuildSpec
from dlcv_deploy.stages import Stages
from dlcv_deploy.store import Store
from dlcv_deploy.subject import Subject

BATCH = 50


def main(images: int) -> None:
    """Measure and print."""
    subject = Subject.load(BuildSpec("alexnet-cifar10"))
    with tempfile.TemporaryDirectory() as folder:
        model = subject.exported(Stages(Store(Path(folder)), lambda line: None))
    table = bundled(model.weights_sha256)
    if table is None:
        raise SystemExit("there is no bundled table for these weights")
    pixels, labels = cifar10.load("test")
    x, truth = to_input(pixels[:images], subject.preprocess), labels[:images]
    graphs = {
        "fp32": model.onnx,
        "int8": quantize(model, table.amax, table.corrections).model.onnx,
        "int8 through LRN": quantize(model, table.amax, table.corrections, through_lrn=True).model.onnx,
    }
    answers = {}
    for name, onnx in graphs.items():
        with session_of(onnx) as session:
            batches = [session.run({"input": x[i : i + BATCH]})["logits"] for i in range(0, len(x), BATCH)]
        answers[name] = np.concatenate(batches)
    for name, logits in answers.items():
        line = f"{name:<17} top-1 {100 * (logits.argmax(1) == truth).mean():6.2f} % of {len(x):,}"
        for other in list(answers)[: list(answers).index(name)]:
            line += f"; against {other}: {against(answers[other], logits, truth)}"
        print(line)


def against(one: np.ndarray, other: np.ndarray, truth: np.ndarray) -> str:
    """Images answered otherwise, what top-1 lost with its 95 % interval, the largest change of a logit."""
    before, after = one.argmax(1), other.argmax(1)
    lost = int(((before == truth) & (after != truth)).sum())
    gained = int(((before != truth) & (after == truth)).sum())
    low, high = paired_interval(lost, gained, len(truth))
    flips = int((before != after).sum())
    fall = f"{100 * (lost - gained) / len(truth):+.2f} points [{low:+.2f}, {high:+.2f}] lost"
    return f"{flips} flips, {fall}, logits within {np.abs(one - other).max():.2f}"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
