"""What a network answers: tried before anything else is done, so that what cannot be deployed is said at once."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import SpecError
from . import where
from .factory import theirs

_SIDES = (24, 28, 32, 40, 48, 56, 64, 96, 112, 128, 160, 192, 224, 227, 240, 256, 288, 299, 320, 331, 384, 448, 512)
_BATCHES = (2, 4, 8, 10, 16, 32, 64, 100, 128, 256)
_SAME = 1e-3
"""Two answers to one image may differ by this share of the largest logit: sums are rounded in another order."""


@torch.no_grad()
def classes_of(net: nn.Module, shape: tuple[int, int, int], name: str) -> int:
    """How many classes a network tells apart, from its answers to batches of one and of three.

    Args:
        net: In eval mode.
        shape: Channels, height and width of its input.
        name: What to call it in errors.

    Raises:
        SpecError: It does not take such an input, or takes one batch size alone; its answer is not one (N, classes)
            tensor, differs from call to call, or depends on the rest of the batch.
    """
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    try:
        one = net(x[:1])
    except (Exception, SystemExit) as e:  # the user's code
        size = "x".join(map(str, shape))
        raise _blamed(f"{name} does not take a {size} image", e, net, _what_fits(net, shape)) from e
    classes = _check_logits(one, name)
    try:
        three = net(x)
    except (Exception, SystemExit) as e:  # as above
        raise _blamed(f"{name} takes one image, but not three: its batch is fixed", e, net, _FREE_BATCH) from e
    if not isinstance(three, Tensor) or three.shape != (3, classes):
        raise SpecError(
            f"{name} has a fixed batch: to one image it answers with {_kind(one)}, to three with {_kind(three)}",
            fix=_FREE_BATCH,
        )
    _check_same(name, three, net(x), "answers differently each time", "F.dropout needs training=self.training")
    reason = "batch normalization must use its running statistics (track_running_stats=True)"
    _check_same(name, one, three[:1], "answers differently beside other images", reason)
    return classes


@torch.no_grad()
def outputs_of(net: nn.Module, shape: tuple[int, int, int], name: str) -> tuple[str, ...]:
    """The names of a network's outputs, logits first: those that its method ``outputs`` gives, where it has one.

    Raises:
        SpecError: The method fails, or gives something else than tensors by name, logits among them.
    """
    if not callable(getattr(type(net), "outputs", None)):
        return ("logits",)
    method: Callable[[Tensor], Any] = net.outputs  # type: ignore[assignment]
    fix = "outputs(x) returns a dict of float tensors by name, (N, ...) each, 'logits' among them"
    with theirs(f"{name}.outputs raised", fix=fix):
        found = method(torch.zeros(2, *shape))
    if not isinstance(found, Mapping) or "logits" not in found:
        raise SpecError(f"{name}.outputs returns {_kind(found)}", fix=fix)
    for key, value in found.items():
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.shape[:1] != (2,):
            raise SpecError(f"{name}.outputs gives {_kind(value)} as {key!r}", fix=fix)
    return ("logits", *(str(key) for key in found if key != "logits"))


_FREE_BATCH = "keep the batch axis free: x.flatten(1) or x.reshape(x.shape[0], -1), not a number"


def _blamed(what: str, error: BaseException, net: nn.Module, fix: str) -> SpecError:
    inside = where.module(error, net)
    place = "".join(f"\n  {line}" for line in where.lines(error))
    return SpecError(f"{what}: {where.described(error)}{f', in {inside}' if inside else ''}{place}", fix=fix)


def _check_logits(value: object, name: str) -> int:
    if not isinstance(value, Tensor):
        raise SpecError(
            f"{name} answers with {_kind(value)}, not with one tensor",
            fix="return a module whose forward gives the logits alone, such as one that takes the first of them",
        )
    if value.ndim == 2 and value.shape[0] == 1 and value.shape[1] > 1 and value.is_floating_point():
        return value.shape[1]
    if not value.is_floating_point():
        raise SpecError(f"{name} answers with {_kind(value)}, not with logits", fix="return the logits, before argmax")
    raise SpecError(
        f"{name} answers to one image with {_kind(value)}, not with (1, classes)",
        fix="return one logit for each class: this tool deploys classifiers of two classes or more",
    )


def _check_same(name: str, want: Tensor, got: object, how: str, fix: str) -> None:
    if not want.isfinite().all():
        return  # judged with the weights that are asked for, when the network is exported
    assert isinstance(got, Tensor)
    worst, top = (want - got).abs().max().item(), want.abs().max().item()
    if not worst <= _SAME * top:
        raise SpecError(f"{name} {how}: its logits differ by {worst:.2g}, of {top:.2g} at most", fix=fix)


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        number = "" if value.is_floating_point() else f" of {str(value.dtype).removeprefix('torch.')}"
        return f"a tensor{number} of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with {', '.join(map(str, list(value)[:6])) or 'nothing'}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} ({'; '.join(map(_kind, value[:4]))})"
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _what_fits(net: nn.Module, shape: tuple[int, int, int]) -> str:
    """What to do about an input that a network refuses: found by trying others, without computing them."""
    _, side, _ = shape
    for size in sorted(_SIDES, key=lambda other: abs(other - side)):
        if _fits(net, (1, 3, size, size)):
            return f"it takes 3x{size}x{size}: --input 3x{size}x{size}"
    if _fits(net, (1, 1, side, side)):
        return "it takes images of one channel, and this tool prepares RGB: make the first layer take three channels"
    for batch in _BATCHES:
        if _fits(net, (batch, *shape)):
            return f"it takes a batch of {batch} alone; {_FREE_BATCH}"
    return "give the --input that it was trained with, as 3xSxS, or mend its forward"


def _fits(net: nn.Module, shape: tuple[int, ...]) -> bool:
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        with _silent(), FakeTensorMode(allow_non_fake_inputs=True):
            return isinstance(net(torch.empty(shape)), Tensor)
    except (Exception, SystemExit):  # the user's code, again
        return False


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """PyTorch logs every refusal at length."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
