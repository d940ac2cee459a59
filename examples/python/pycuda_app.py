"""Photographs, answered together with their mirror images, in an application that has its data on the GPU.

    pip install 'dlcv-deploy[rtx]' pycuda
    python pycuda_app.py BUNDLE IMAGE...

The application's kernels (pycuda) and the engine share memory and a stream: the engine reads the batch where the first
kernel wrote it, and the second kernel reads the answer where the engine left it. Runs only on a machine with an NVIDIA
GPU, and with nvcc, which pycuda compiles kernels with.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

import numpy as np

from dlcv_deploy.errors import DeployError
from dlcv_deploy.host import here
from dlcv_deploy.runtime import Engine, Prediction

KERNELS = """
// y[i] is x[i] with the columns of its row turned round.
__global__ void mirror(const float *x, float *y, int width, int count)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        y[i] = x[i - i % width + (width - 1 - i % width)];
}

// The mean of two rows' softmax: block i has image i, whose mirror image is as many rows further as there are blocks.
__global__ void answer(const float *logits, float *mean, int classes)
{
    float *to = mean + blockIdx.x * classes;
    for (int side = 0; side < 2; ++side) {
        const float *from = logits + (blockIdx.x + side * gridDim.x) * classes;
        float top = from[0], sum = 0;
        for (int c = 1; c < classes; ++c)
            top = fmaxf(top, from[c]);
        for (int c = 0; c < classes; ++c)
            sum += expf(from[c] - top);
        for (int c = 0; c < classes; ++c)
            to[c] = (side ? to[c] : 0) + expf(from[c] - top) / sum / 2;
    }
}
"""
BLOCK = 256


def classify(engine: Engine, images: list[str], top: int = 5) -> list[list[Prediction]]:
    """The most probable classes of images and their mirror images; an image is copied to the GPU, its answer back."""
    import pycuda.autoprimaryctx  # noqa: F401 - the context that the engine uses; autoinit would make another
    import pycuda.driver as cuda
    from pycuda import gpuarray
    from pycuda.compiler import SourceModule

    kernels = SourceModule(KERNELS)
    mirror, answer = kernels.get_function("mirror"), kernels.get_function("answer")
    stream = cuda.Stream()

    rows = np.concatenate([engine.preprocess(image) for image in images])
    count, classes = len(rows), len(engine.labels)
    batch = gpuarray.empty((2 * count, *rows.shape[1:]), np.float32)
    mean = gpuarray.empty((count, classes), np.float32)

    batch[:count].set_async(rows, stream=stream)
    sizes: dict[str, Any] = {"block": (BLOCK, 1, 1), "grid": (-(-rows.size // BLOCK), 1)}
    mirror(batch[:count], batch[count:], np.int32(rows.shape[-1]), np.int32(rows.size), stream=stream, **sizes)
    logits = engine.run(batch, stream=stream)[engine.outputs[0].name]  # returns before the GPU has begun
    answer(logits, mean, np.int32(classes), block=(1, 1, 1), grid=(count, 1), stream=stream)
    probabilities = mean.get_async(stream=stream)
    stream.synchronize()  # the only time that anybody waits

    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [
        [Prediction(int(i), engine.labels[i], float(row[i])) for i in order]
        for row, order in zip(probabilities, best, strict=True)
    ]


def stop(why: str, code: int) -> NoReturn:
    """Say why there is no answer, and end."""
    print(why, file=sys.stderr)
    sys.exit(code)


def main() -> None:
    """Load, answer, print."""
    parser = argparse.ArgumentParser(description="Photographs and their mirror images, on the GPU.")
    parser.add_argument("bundle", help="a folder NAME.dlcv with an engine of TensorRT or TensorRT for RTX")
    parser.add_argument("images", nargs="+", help="JPEG, PNG, BMP, WebP or PPM files")
    asked = parser.parse_args()
    if reason := here().no_gpu:
        stop(f"This example runs only on a machine with an NVIDIA GPU: {reason}.", 3)
    try:
        import pycuda  # noqa: F401
    except ImportError:
        stop("This example needs pycuda: pip install pycuda", 3)

    try:
        with Engine.load(asked.bundle) as engine:  # an engine for a GPU comes first
            answers = classify(engine, asked.images)
    except DeployError as e:
        stop(f"error: {e}", e.exit_code)
    for image, answer in zip(asked.images, answers, strict=True):
        print(image)
        for prediction in answer:
            print(f"  {prediction.probability:7.2%}  {prediction.label}")


if __name__ == "__main__":
    main()
