"""The most probable classes of photographs: python classify.py BUNDLE IMAGE... [--crops 10] [--top 5] [--backend NAME].

Needs numpy, Pillow and the package of one backend.
"""

from __future__ import annotations

import argparse
import sys
import time

from dlcv_deploy.errors import DeployError
from dlcv_deploy.runtime import Engine


def main() -> None:
    """Load, answer, print."""
    parser = argparse.ArgumentParser(description="The most probable classes of photographs.")
    parser.add_argument("bundle", help="a folder NAME.dlcv, made by dlcv-deploy build")
    parser.add_argument("images", nargs="+", help="JPEG, PNG, BMP, WebP or PPM files")
    parser.add_argument("--crops", type=int, default=1, choices=(1, 10))
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--backend", help="by default the first of the bundle that runs here")
    asked = parser.parse_args()

    try:
        with Engine.load(asked.bundle, backend=asked.backend) as engine:
            start = time.perf_counter()
            answers = engine.classify(asked.images, top=asked.top, crops=asked.crops)
            took_ms = (time.perf_counter() - start) * 1e3
    except DeployError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(e.exit_code)

    for image, answer in zip(asked.images, answers, strict=True):
        print(image)
        for prediction in answer:
            print(f"  {prediction.probability:7.2%}  {prediction.label}")
    took = f"{took_ms / len(answers):.1f} ms an image, decoding included"
    print(f"{engine.model} {engine.precision} on {engine.backend}: {took}")


if __name__ == "__main__":
    main()
