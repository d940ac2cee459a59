"""Runs images through a graph, one at a time on each core, and folds what its tensors hold into values that merge.

An image always runs alone: what a runtime computes for it may otherwise depend, in the last bits, on the batch it is
in (OpenVINO's fully connected layers do). Its tensors then hold the same values whatever the order and the number of
threads, and folds do not depend on the order either: nor does the result, by a bit.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import SpecError, ToolError
from ..latency.measure import cores
from ..parity.crops import canvas, crops, to_input
from ..progress import Progress, silent
from ..types import Preprocess
from .samples import Samples

if TYPE_CHECKING:
    from ..backends.base import Session

Array = npt.NDArray[np.generic]
_MOST_WORKERS = 8


class Fold(Protocol):
    """What one tensor's values come to; no order of adding and merging changes it by a bit. Of one thread at a time."""

    def add(self, x: Array) -> None:
        """Take in the tensor's values for one image, batch axis first.

        Raises:
            ToolError: A value is NaN or infinite.
        """
        ...

    def merge(self: F, other: F) -> None:
        """Take in what another one has taken in."""
        ...


F = TypeVar("F", bound=Fold)


def workers_here() -> int:
    """How many images are run at once where nothing else is asked for: one on each core, at most 8."""
    return min(cores(), _MOST_WORKERS)


def collect(
    session: Session,
    tensors: Sequence[str],
    samples: Samples,
    preprocess: Preprocess,
    fold: Callable[[], F],
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> dict[str, F]:
    """What ``fold`` makes of each tensor, over all images, one centre crop each.

    Each worker reads an image, runs it and takes its tensors in, so that reading overlaps with running. It holds one
    image, what the session gives for it (let go tensor by tensor) and a fold for each tensor.

    Args:
        session: Runs ``observed(graph, tensors)``, in several threads at once where there are several workers; best
            made for as many streams.
        tensors: Names of the tensors to watch; the network's input may be among them.
        samples: The images.
        preprocess: How they become inputs.
        fold: Makes an empty one.
        workers: Threads; by default ``workers_here()``.
        progress: Told of each image.

    Raises:
        SpecError: No images, no workers, or an image that does not fit the network; names the image.
        ToolError: The session gives no tensor of a name, or a value is NaN or infinite; names the tensor and the image.
        ArtifactError: An image cannot be read.

    Of several images at fault, the first one is named. Nothing is read after it, or after Ctrl-C.
    """
    workers = workers_here() if workers is None else workers
    if workers < 1:
        raise SpecError(f"cannot calibrate with {workers} workers", fix="give 1 or more")
    if not len(samples):
        raise SpecError("no images to calibrate on", fix="give at least one image")
    (source,) = session.inputs
    there = {spec.name for spec in (source, *session.outputs)}
    if missing := [name for name in tensors if name not in there]:
        raise ToolError(f"the session gives no tensor {missing[0]!r}", fix="run the graph that observed() made")

    _give_back_memory()
    todo, failed = deque(range(len(samples))), dict[int, BaseException]()
    finished = SimpleQueue[bool]()  # an image, or a worker for good

    def work() -> dict[str, F]:
        folds = {name: fold() for name in tensors}
        try:
            while (i := _next(todo)) is not None:
                try:
                    x = _input(samples, i, preprocess)
                    _take_in(folds, {source.name: x, **session.run({source.name: x})}, samples.name(i))
                except BaseException as e:
                    todo.clear()
                    failed[i] = e
                    return folds
                finished.put(True)
        finally:
            finished.put(False)
        return folds

    with progress("calibrate", len(samples), "images") as advance, ThreadPoolExecutor(workers) as pool:
        try:
            running = [pool.submit(work) for _ in range(min(workers, len(samples)))]
            at_work = len(running)
            while at_work:
                if finished.get():
                    advance(1)
                else:
                    at_work -= 1
        finally:
            todo.clear()
    if failed:  # images are taken in order: whatever comes before one that failed has been looked at
        raise failed[min(failed)]
    first, *others = (future.result() for future in running)
    for other in others:
        for name, part in other.items():
            first[name].merge(part)
    return first


def observed(onnx: bytes, tensors: Sequence[str]) -> bytes:
    """The graph with inner tensors as outputs too, so that any session gives them.

    Tensors that are inputs or outputs of the graph already are left as they are.

    Args:
        onnx: A serialized ModelProto.
        tensors: Names of its tensors.

    Raises:
        SpecError: The graph has no tensor of a name, or its type is not known.
    """
    from onnx import ModelProto, helper, load_model_from_string

    from ..graph.index import types

    model = load_model_from_string(onnx)
    known = types(model)
    there = {value.name for value in (*model.graph.input, *model.graph.output)}
    added = ModelProto()
    for name in tensors:
        if name in there:
            continue
        kind, shape = known.get(name, (0, None))
        if shape is None:
            raise SpecError(f"the graph has no tensor {name!r} whose shape is known", fix="export the model again")
        added.graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    del model
    return onnx + bytes(added.SerializeToString())  # a message after another adds to its lists; no weight is copied


def _give_back_memory() -> None:
    """Return freed memory to the system: glibc keeps what parsing and loading a graph has left, twice its weights."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _next(todo: deque[int]) -> int | None:
    try:
        return todo.popleft()
    except IndexError:
        return None


def _input(samples: Samples, i: int, preprocess: Preprocess) -> npt.NDArray[np.float32]:
    try:
        return to_input(crops(canvas(samples.image(i), preprocess), preprocess, 1), preprocess)
    except SpecError as e:
        raise SpecError(f"{samples.name(i)}: {e.what}", fix=e.fix) from e


def _take_in(folds: Mapping[str, Fold], values: dict[str, Array], image: str) -> None:
    name = ""
    try:
        for name, fold in folds.items():
            fold.add(values.pop(name))
    except ToolError as e:
        raise ToolError(
            f"tensor {name!r}, image {image}: {e.what}",
            fix="look for NaN in the weights, or for a preprocessing that the network was not trained with",
        ) from e
