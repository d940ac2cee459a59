"""What a network computes, step by step from its input: the form in which a module and an ONNX graph are compared."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


@dc.dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One operation.

    Args:
        op: "input", "conv", "norm", "linear", "relu", "maxpool", "mean", "lrn", "concat", "add", "slice", "pad", or
            any other name, which compares with nothing.
        name: The module or the node, for people.
        inputs: The steps whose answers it takes, in their order.
        about: Its settings by name.
        tensors: What it has learned, by role ("weight", "bias", "mean", "var"): state-dict keys, or arrays.
        shape: That of its weight; empty where it has none.
        size: Height and width of the map it takes, where that is known.
        origin: A hash of all that leads to it, by operations and shapes of weights alone.
    """

    op: str
    name: str
    inputs: tuple[Step, ...] = ()
    about: Mapping[str, Any] = dc.field(default_factory=dict)
    tensors: Mapping[str, Any] = dc.field(default_factory=dict)
    shape: tuple[int, ...] = ()
    size: tuple[int, ...] = ()
    origin: int = dc.field(init=False)

    def __post_init__(self) -> None:
        before = tuple(step.origin for step in self.inputs)
        if self.op == "add":
            before = tuple(sorted(before))
        transparent = self.op == "norm" and len(before) == 1  # it may be folded into the convolution before it
        object.__setattr__(self, "origin", before[0] if transparent else hash((self.op, self.shape, before)))


def walk(last: Step) -> Iterator[Step]:
    """All steps that lead to one, itself included, each once and after its inputs."""
    seen: set[Step] = set()
    stack = [(last, False)]
    while stack:
        step, ready = stack.pop()
        if ready:
            yield step
        elif step not in seen:
            seen.add(step)
            stack.append((step, True))
            stack.extend((before, False) for before in reversed(step.inputs))


def trace(net: nn.Module, input_shape: tuple[int, ...]) -> Step:
    """The step that gives a network's answer.

    Args:
        net: In eval mode; on the meta device nothing is computed.
        input_shape: Of one image: channels, height, width.
    """
    recorder = _Recorder(net)
    device = next((tensor.device for tensor in net.state_dict().values()), None)
    image = torch.zeros(1, *input_shape, device=device)
    recorder.add(image, Step("input", "input"))
    with torch.no_grad(), recorder:
        answer = net(image)
    return recorder.steps[id(answer)]


_PASSED = {"view", "_unsafe_view", "alias", "detach", "clone", "dropout", "squeeze", "unsqueeze", "contiguous"}


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Turns each call of PyTorch's operators into a step."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.steps: dict[int, Step] = {}
        self._keys = {id(tensor): key for key, tensor in net.state_dict(keep_vars=True).items()}
        self._kept: list[Tensor] = []  # alive, so that no other tensor takes their id

    def add(self, tensor: Tensor, step: Step) -> None:
        self._kept.append(tensor)
        self.steps[id(tensor)] = step

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        answer = func(*args, **(kwargs or {}))
        first = answer[0] if isinstance(answer, tuple | list) else answer
        op = func.overloadpacket.__name__
        if op == "t" and id(args[0]) in self._keys:
            self._kept.append(first)
            self._keys[id(first)] = self._keys[id(args[0])]
        elif (step := self._step(op.removesuffix("_") if op != "_" else op, args)) is not None:
            self.add(first, step)
        return answer

    def _step(self, op: str, args: tuple[Any, ...]) -> Step | None:
        """The step of one call; None where it takes nothing that follows from the input."""
        flat = [each for arg in args for each in (arg if isinstance(arg, list | tuple) else (arg,))]
        inputs = tuple(self.steps[id(each)] for each in flat if isinstance(each, Tensor) and id(each) in self.steps)
        if not inputs:
            return None
        if op in _PASSED:
            return inputs[0]
        read = getattr(self, f"_{op}", None)
        name = f"{op} after {inputs[0].name}" if inputs[0].op in ("conv", "norm", "linear") else op
        return Step(op, name, inputs) if read is None else read(name, inputs, *args)

    def _layer(
        self, op: str, inputs: tuple[Step, ...], about: Mapping[str, Any], x: Tensor, weight: Tensor, **tensors: Tensor
    ) -> Step:
        keys = {role: self._keys[id(t)] for role, t in {"weight": weight, **tensors}.items() if t is not None}
        name = keys["weight"].removesuffix(".weight")
        return Step(op, name, inputs, about, keys, () if op == "norm" else tuple(weight.shape), tuple(x.shape[2:]))

    def _convolution(self, name: str, inputs: tuple[Step, ...], *args: Any) -> Step:  # noqa: ANN401
        x, weight, bias, strides, pads, dilations, _, _, groups = args
        about = {
            "strides": tuple(strides),
            "pads": (*pads, *pads),
            "dilations": tuple(dilations),
            "groups": groups,
            "kernel": tuple(weight.shape[2:]),
        }
        return self._layer("conv", inputs, about, x, weight, bias=bias)

    def _native_batch_norm(self, name: str, inputs: tuple[Step, ...], *args: Any) -> Step:  # noqa: ANN401
        x, weight, bias, mean, var, _, _, eps = args
        return self._layer("norm", inputs, {"eps": eps}, x, weight, bias=bias, mean=mean, var=var)

    def _addmm(self, name: str, inputs: tuple[Step, ...], bias: Tensor, x: Tensor, weight: Tensor) -> Step:
        layer = self._layer("linear", inputs, {}, x, weight, bias=bias)
        return dc.replace(layer, shape=layer.shape[::-1])

    def _mm(self, name: str, inputs: tuple[Step, ...], x: Tensor, weight: Tensor) -> Step:
        layer = self._layer("linear", inputs, {}, x, weight)
        return dc.replace(layer, shape=layer.shape[::-1])

    def _max_pool2d_with_indices(self, name: str, inputs: tuple[Step, ...], *args: Any) -> Step:  # noqa: ANN401
        left_out: tuple[Any, ...] = ((), (0, 0), (1, 1), False)
        x, kernel, strides, pads, dilations, ceil = (*args, *left_out[len(args) - 2 :])
        about = {
            "kernel": tuple(kernel),
            "strides": tuple(strides) or tuple(kernel),
            "pads": (*pads, *pads),
            "dilations": tuple(dilations),
            "ceil": bool(ceil),
        }
        return Step("maxpool", name.replace("max_pool2d_with_indices", "maxpool"), inputs, about, size=(*x.shape[2:],))

    def _mean(self, name: str, inputs: tuple[Step, ...], x: Tensor, axes: list[int], *args: bool) -> Step:
        whole = x.dim() == 4 and sorted(axis % 4 for axis in axes) == [2, 3]
        return Step("mean" if whole else "mean of some axes", name, inputs, size=tuple(x.shape[2:]))

    def _lrn(self, name: str, inputs: tuple[Step, ...], x: Tensor, *settings: float) -> Step:
        return Step("lrn", name, inputs, dict(zip(("size", "alpha", "beta", "bias"), settings, strict=True)))

    def _cat(self, name: str, inputs: tuple[Step, ...], tensors: list[Tensor], axis: int = 0) -> Step:
        return Step("concat", name, inputs, {"axis": axis % tensors[0].dim()})

    def _slice(self, name: str, inputs: tuple[Step, ...], x: Tensor, *args: int) -> Step:
        axis, start, end, step = (*args, *(0, 0, x.shape[0], 1)[len(args) :])
        about = {"axis": axis, "start": start, "step": step}
        return inputs[0] if start == 0 and end >= x.shape[axis] and step == 1 else Step("slice", name, inputs, about)

    def _constant_pad_nd(self, name: str, inputs: tuple[Step, ...], x: Tensor, pads: list[int], value: float) -> Step:
        pairs = [(pads[i], pads[i + 1]) for i in range(0, len(pads), 2)][::-1]
        pairs = [(0, 0)] * (x.dim() - len(pairs)) + pairs
        about = {"pads": (*(before for before, _ in pairs), *(after for _, after in pairs)), "value": float(value)}
        return Step("pad", name, inputs, about)
