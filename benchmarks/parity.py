"""Images a second of a parity run's engine leg, beside a plain PyTorch loop and beside the engine alone.

    python benchmarks/parity.py resnet50-int8.dlcv FOLDER [--target openvino] [--rounds 5] [--loop 8] [--output FILE]

Ten crops an image, whose softmax is averaged. (a) is the loop one writes: read an image, cut it, ask the network. (b)
is this tool's leg: the images are read, cut, answered by the engine and counted. (c) is the engine on tensors that are
ready, in the same batches. All in every round, forth and back; what counts are the ratios within a round. The
loop takes the first few images of the folder, since it is slow; images come from the file cache in all three.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dlcv_deploy import backends
from dlcv_deploy.atomic import write_whole
from dlcv_deploy.backends.base import Session
from dlcv_deploy.bundle import open_bundle
from dlcv_deploy.calibration.samples import Samples, open_samples
from dlcv_deploy.parity.crops import canvas, crops, to_input
from dlcv_deploy.parity.evaluate import evaluate
from dlcv_deploy.parity.feed import Feed
from dlcv_deploy.proof import measured_on, original
from dlcv_deploy.reference import TorchSession
from dlcv_deploy.sources import first
from dlcv_deploy.types import Preprocess

CROPS = 10
READY = 16
"""Batches of ready tensors, which are used again and again."""
WAYS = {"a": "plain PyTorch loop", "b": "engine's leg", "c": "engine on ready tensors"}


def loop(reference: TorchSession, samples: Samples, pre: Preprocess) -> None:
    """What anyone would write."""
    import torch

    (source,), (logits, *_) = reference.inputs, reference.outputs
    for i in range(len(samples)):
        x = to_input(crops(canvas(samples.image(i), pre), pre, CROPS), pre)
        torch.from_numpy(reference.run({source.name: x})[logits.name]).softmax(1).mean(0).argmax()


def ready(session: Session, batches: list[np.ndarray], count: int) -> None:
    """As many batches as the leg takes, of images that are read and cut already."""
    for i in range(count):
        session.run({session.inputs[0].name: batches[i % len(batches)]})


def measured(ways: dict[str, tuple[int, Callable[[], object]]], rounds: int) -> dict[str, list[float]]:
    """Images a second of each way in each round; its parts are timed forth and back."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _, run in ways.values():
        run()
    for number in range(rounds):
        spent = dict.fromkeys(ways, 0.0)
        for name in (*ways, *reversed(ways)):
            start = time.perf_counter()
            ways[name][1]()
            spent[name] += time.perf_counter() - start
        for name, total in spent.items():
            seconds[name].append(2 * ways[name][0] / total)
        said = ", ".join(f"{name} {rates[-1]:.1f}" for name, rates in seconds.items())
        print(f"round {number + 1}: {said} images/s", file=sys.stderr)
    return seconds


def main(arguments: list[str]) -> None:
    """Measure, print the ratios, write the figures."""
    asked = _parse(arguments)
    bundle = open_bundle(asked.bundle)
    pre, target = bundle.manifest.preprocess, asked.target or next(iter(bundle.manifest.engines))
    samples = open_samples(asked.data, count=asked.count)
    few = first(samples, asked.loop)
    feed = Feed.of(samples, pre, CROPS, None, None)
    whole = [images for images in feed.batches(range(len(samples))) if len(images) == feed.images]
    batches = [feed.inputs(images) for images in whole[:READY]]
    with (
        original(bundle, asked.weights) as reference,
        backends.get(target).load(bundle.engine(target)) as session,
    ):
        rates = measured(
            {
                "a": (len(few), lambda: loop(reference, few, pre)),
                "b": (len(samples), lambda: evaluate(session, {}, samples, pre, crops=CROPS, further=False)),
                "c": (len(whole) * feed.images, lambda: ready(session, batches, len(whole))),
            },
            asked.rounds,
        )
    ratios = {
        f"{one}/{other}": [x / y for x, y in zip(rates[one], rates[other], strict=True)] for one, other in ("ba", "bc")
    }
    for name, words in WAYS.items():
        print(f"{name}  {words:<24} {statistics.median(rates[name]):8.2f} images/s")
    for name, found in ratios.items():
        print(f"{name}  {statistics.median(found):.3f}  ({min(found):.3f} to {max(found):.3f} in {len(found)} rounds)")
    if asked.output is not None:
        value = {
            "bundle": asked.bundle.name,
            "target": target,
            "samples": samples.source,
            "images_per_s": rates,
            "ratios": ratios,
            "machine": measured_on(),
        }
        write_whole(asked.output, (json.dumps(value, indent=2) + "\n").encode())


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", help="a folder of images, an .npz, or cifar10")
    parser.add_argument("--target", help="the engine; the bundle's first by default")
    parser.add_argument("--weights", help="the original's, where they have moved")
    parser.add_argument("--count", type=int, help="a choice of so many images; all by default")
    parser.add_argument("--loop", type=int, default=8, help="images of the plain loop")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="a JSON file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
