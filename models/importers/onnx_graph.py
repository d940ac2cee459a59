"""An ONNX file as the steps that lead to each of its outputs, with the weights from its initializers."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
from onnx import external_data_helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ...errors import ArtifactError
from .steps import Step

_FLOATS = "save it with float32 weights"
_PASSED = {"Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Cast"}
_FOLDED = {"Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Cast", "Flatten", "Constant", "Neg"}
"""What exporters put between an initializer and the layer that takes it."""
_WEIGHTS = {"Conv": (1, 2), "Gemm": (1, 2), "BatchNormalization": (1, 2, 3, 4)}
_QUANTIZED = (
    "DequantizeLinear",
    "QLinearConv",
    "ConvInteger",
    "QLinearMatMul",
    "MatMulInteger",
    "DynamicQuantizeLinear",
)
_SHOWN = 10


def read_graph(path: Path) -> tuple[Step, ...]:
    """The last step of each output of a file, its softmax left out.

    Raises:
        ArtifactError: Damaged, quantized, without its weights, or with a part missing that it keeps in another file.
    """
    return _Graph(path, _load(path)).outputs()


def _load(path: Path) -> onnx.ModelProto:
    """A model with the tensors that it keeps in other files."""
    try:
        model = onnx.load_model(path, load_external_data=False)
    except DecodeError as e:
        raise ArtifactError(f"{path} is damaged, or is no ONNX file", fix="copy or download it again") from e
    except OSError as e:
        raise ArtifactError(f"cannot read {path}: {e.strerror}", fix="look at its permissions") from e
    names = [text for n in model.graph.node for text in (*n.input, *n.output, n.name, n.op_type, n.domain)]
    if not names or not all(isinstance(text, str) for text in (*names, *(t.name for t in model.graph.initializer))):
        raise ArtifactError(f"{path} is damaged, or holds an empty graph", fix="copy or download it again")
    outside = [t for t in model.graph.initializer if external_data_helper.uses_external_data(t)]
    files = sorted({external_data_helper.ExternalDataInfo(t).location for t in outside})
    if absent := [name for name in files if not (path.parent / name).is_file()]:
        raise ArtifactError(
            f"{path} keeps its weights in {', '.join(absent[:_SHOWN])}, which is not beside it",
            fix=f"put it into {path.parent.absolute()}",
        )
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (ValueError, OSError, onnx.checker.ValidationError) as e:
        raise ArtifactError(f"cannot read what {path} keeps in {', '.join(files)}: {e}", fix="copy them again") from e
    return model


class _Graph:
    """The nodes of a graph by what they give; steps are made on demand, each once."""

    def __init__(self, path: Path, model: onnx.ModelProto) -> None:
        self.path, self.graph = path, model.graph
        self._opsets = list(model.opset_import)
        self._makers = {output: node for node in model.graph.node for output in node.output if output}
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._constants: dict[str, np.ndarray[Any, Any] | None] = {}
        self._steps: dict[str, Step] = {}

    def outputs(self) -> tuple[Step, ...]:
        """The step of each output, after a check that all weights are there."""
        for node in self.graph.node:
            if node.op_type in _QUANTIZED:
                raise ArtifactError(f"{self.path} is quantized ({node.op_type} {_name(node)})", fix=_FLOATS)
        if missing := self._missing():
            more = f", and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            raise ArtifactError(
                f"{self.path} lacks the initializers {', '.join(missing[:_SHOWN])}{more}",
                fix="it holds a graph without its weights; save it with them",
            )
        found = []
        for output in self.graph.output:
            step = self.step(output.name)
            while step.op in ("Softmax", "LogSoftmax"):
                step = step.inputs[0]
            found.append(step)
        return tuple(found)

    def _missing(self) -> list[str]:
        """Weights of layers that nothing gives."""
        needed = [n.input[i] for n in self.graph.node for i in _WEIGHTS.get(n.op_type, ()) if i < len(n.input)]
        known = self._initializers.keys() | self._makers.keys() | {""}
        return list(dict.fromkeys(name for name in needed if name not in known))

    def step(self, name: str) -> Step:
        """The step that gives a tensor; those before it are made first, without recursion."""
        stack = [name]
        while stack:
            tensor = stack[-1]
            node = self._makers.get(tensor)
            needed = [] if node is None else self._flowing(node)
            waiting = [each for each in needed if each not in self._steps]
            if len(stack) > len(self._makers) + 2:
                raise ArtifactError(f"{self.path} has a graph that runs in a circle", fix="export it again")
            if tensor not in self._steps and waiting:
                stack.extend(waiting[:1])
                continue
            stack.pop()
            if tensor not in self._steps:
                self._steps[tensor] = Step("input", tensor) if node is None else self._made(node, needed)
        return self._steps[name]

    def _flowing(self, node: onnx.NodeProto) -> list[str]:
        """The inputs of a node that are not constants; of one that only reshapes, the first."""
        if node.op_type in _PASSED or node.op_type in _WEIGHTS:
            return [node.input[0]] if node.input else []
        return [name for name in node.input if name and self.constant(name) is None]

    def constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """The value of a tensor that does not depend on the input."""
        if name not in self._constants:
            self._constants[name] = self._evaluated(name)
        return self._constants[name]

    def _evaluated(self, name: str) -> np.ndarray[Any, Any] | None:
        if name in self._initializers:
            try:
                return numpy_helper.to_array(self._initializers[name])
            except (ValueError, TypeError, KeyError) as e:
                raise ArtifactError(f"{self.path}: the initializer {name} is damaged: {e}", fix="copy it again") from e
        node = self._makers.get(name)
        if node is None or node.op_type not in _FOLDED or node.domain not in ("", "ai.onnx"):
            return None
        values = {each: self.constant(each) for each in node.input if each}
        if any(value is None for value in values.values()):
            return None
        inputs = [onnx.helper.make_empty_tensor_value_info(each) for each in values]
        graph = onnx.helper.make_graph([node], "constant", inputs, [onnx.helper.make_empty_tensor_value_info(name)])
        model = onnx.helper.make_model(graph, opset_imports=self._opsets)
        try:
            answers: Any = ReferenceEvaluator(model).run([name], values)
        except (LookupError, TypeError, ValueError, RuntimeError) as e:
            what = f"{name}, which {node.op_type} makes from constants, cannot be computed"
            raise ArtifactError(f"{self.path}: {what}: {e}", fix="copy or export it again") from e
        return np.asarray(answers[0])

    def _weight(self, node: onnx.NodeProto, index: int) -> np.ndarray[Any, Any] | None:
        """A constant input of a node; None where it has none."""
        if index >= len(node.input) or not node.input[index]:
            return None
        name = node.input[index]
        value = self.constant(name)
        if value is None:
            by = f"is computed by {self._makers[name].op_type}" if name in self._makers else "is an input of the graph"
            raise ArtifactError(f"{self.path}: {name}, which {_name(node)} takes for a constant, {by}", fix=_FLOATS)
        return value

    def _given(self, node: onnx.NodeProto, index: int) -> np.ndarray[Any, Any]:
        """A constant input that a node must have."""
        value = self._weight(node, index)
        if value is None:
            raise LookupError(f"it has no input {index}")
        return value

    def _made(self, node: onnx.NodeProto, flowing: list[str]) -> Step:
        inputs = tuple(self._steps[name] for name in flowing)
        if not inputs or node.domain not in ("", "ai.onnx"):
            return Step(node.op_type, _name(node), inputs)
        if node.op_type in _PASSED:
            return inputs[0]
        read = getattr(self, f"_{node.op_type.lower()}", None)
        try:
            step: Step | None = None if read is None else read(node, inputs, _attributes(node))
        except (AttributeError, LookupError, TypeError, ValueError) as e:
            what = f"the node {_name(node)} ({node.op_type}) is not as the standard has it"
            raise ArtifactError(f"{self.path}: {what}: {e}", fix="copy or export it again") from e
        return step or Step(node.op_type, _name(node), inputs)

    def _conv(self, node: onnx.NodeProto, inputs: tuple[Step, ...], about: dict[str, Any]) -> Step:
        weight = self._given(node, 1)
        axes = weight.ndim - 2
        settings = {**_window(about, weight.shape[2:]), "groups": about.get("group", 1)}
        tensors = {"weight": weight, "bias": self._weight(node, 2)}
        return Step("conv" if axes == 2 else f"Conv{axes}d", _name(node), inputs, settings, tensors, weight.shape)

    def _batchnormalization(self, node: onnx.NodeProto, inputs: tuple[Step, ...], about: dict[str, Any]) -> Step:
        tensors = {role: self._given(node, i) for i, role in enumerate(("weight", "bias", "mean", "var"), 1)}
        eps = float(np.float64(str(np.float32(about.get("epsilon", 1e-5)))))
        return Step("norm", _name(node), inputs, {"eps": eps}, tensors)

    def _gemm(self, node: onnx.NodeProto, inputs: tuple[Step, ...], about: dict[str, Any]) -> Step | None:
        weight, bias = self._given(node, 1), self._weight(node, 2)
        if about.get("transA", 0) or about.get("alpha", 1.0) != 1.0 or about.get("beta", 1.0) != 1.0:
            return None
        return _linear(node, inputs, weight if about.get("transB", 0) else weight.T, bias)

    def _matmul(self, node: onnx.NodeProto, inputs: tuple[Step, ...], about: dict[str, Any]) -> Step | None:
        weight = self.constant(node.input[1])
        return None if weight is None or weight.ndim != 2 else _linear(node, inputs, weight.T, None)

    def _add(self, node: onnx.NodeProto, inputs: tuple[Step, ...], about: dict[str, Any]) -> Step | None:
        if len(inputs) == 2:
            return Step("add", _name(node), inputs)
        return self._scaled(node, inputs[0], about, multiply=False) if len(node.input) == 2 else None

    _sum = _add

    def _mul(self, node: onnx.NodeProto, inputs: tuple[Step, ...], about: dict[str, Any]) -> Step | None:
        return self._scaled(node, inputs[0], about, multiply=True) if len(inputs) == 1 else None

    def _scaled(self, node: onnx.NodeProto, before: Step, about: dict[str, Any], *, multiply: bool) -> Step | None:
        """A bias, or a scale, of each channel apart from the layer before it (Caffe's Scale): put into that layer."""
        value = next((v for v in map(self.constant, node.input) if v is not None), None)
        if before.op not in ("conv", "norm", "linear") or value is None or value.dtype.kind != "f":
            return None
        weight = before.tensors["weight"]
        across = value.shape[-1:] if before.op == "linear" or about.get("axis") == 1 else value.shape[-3:-2]
        if (value.size, *across) != (len(weight), len(weight)):
            return None
        whole, bias = value.reshape(-1), before.tensors["bias"]
        bias = np.zeros_like(whole) if bias is None else bias
        if not multiply:
            return dc.replace(before, tensors={**before.tensors, "bias": bias + whole})
        scaled = {"weight": weight * whole.reshape(-1, *[1] * (weight.ndim - 1)), "bias": bias * whole}
        return dc.replace(before, tensors={**before.tensors, **scaled})

    def _relu(self, node: onnx.NodeProto, inputs: tuple[Step, ...], about: dict[str, Any]) -> Step:
        return Step("relu", _name(node), inputs)

    def _maxpool(self, node: onnx.NodeProto, inputs: tuple[Step, ...], about: dict[str, Any]) -> Step:
        settings = {**_window(about, about["kernel_shape"]), "ceil": bool(about.get("ceil_mode", 0))}
        return Step("maxpool", _name(node), inputs, settings)

    def _globalaveragepool(self, node: onnx.NodeProto, inputs: tuple[Step, ...], about: dict[str, Any]) -> Step:
        return Step("mean", _name(node), inputs)

    def _averagepool(self, node: onnx.NodeProto, inputs: tuple[Step, ...], about: dict[str, Any]) -> Step:
        settings = _window(about, about["kernel_shape"])
        return Step("mean", _name(node), inputs, {key: settings[key] for key in ("kernel", "pads")})

    def _reducemean(self, node: onnx.NodeProto, inputs: tuple[Step, ...], about: dict[str, Any]) -> Step | None:
        axes = self._weight(node, 1) if "axes" not in about else np.asarray(about["axes"])
        return Step("mean", _name(node), inputs) if axes is not None and {int(a) % 4 for a in axes} == {2, 3} else None

    def _lrn(self, node: onnx.NodeProto, inputs: tuple[Step, ...], about: dict[str, Any]) -> Step:
        defaults = {"size": 0, "alpha": 1e-4, "beta": 0.75, "bias": 1.0}
        return Step("lrn", _name(node), inputs, {key: about.get(key, value) for key, value in defaults.items()})

    def _concat(self, node: onnx.NodeProto, inputs: tuple[Step, ...], about: dict[str, Any]) -> Step | None:
        if len(inputs) != len(node.input):
            return None
        return Step("concat", _name(node), inputs, {"axis": about.get("axis", 1) % 4})

    def _slice(self, node: onnx.NodeProto, inputs: tuple[Step, ...], about: dict[str, Any]) -> Step | None:
        starts, ends, axes, steps = (self._weight(node, i) for i in range(1, 5))
        if len(inputs) != 1 or starts is None or ends is None or axes is None or steps is None:
            return None
        step = inputs[0]
        for start, end, axis, stride in sorted(
            zip(starts, ends, axes, steps, strict=True), key=lambda row: int(row[2])
        ):
            if end < 1 << 31:
                return None
            settings = {"axis": int(axis) % 4, "start": int(start), "step": int(stride)}
            step = Step("slice", _name(node), (step,), settings)
        return step

    def _pad(self, node: onnx.NodeProto, inputs: tuple[Step, ...], about: dict[str, Any]) -> Step | None:
        pads, value = (
            (self._weight(node, 1), self._weight(node, 2)) if len(node.input) > 1 else (about.get("pads"), None)
        )
        if len(inputs) != 1 or pads is None or about.get("mode", b"constant") != b"constant" or len(node.input) > 3:
            return None
        filled = float(value) if value is not None else float(about.get("value", 0.0))
        return Step("pad", _name(node), inputs, {"pads": tuple(int(each) for each in pads), "value": filled})


def _linear(
    node: onnx.NodeProto, inputs: tuple[Step, ...], weight: np.ndarray[Any, Any], bias: np.ndarray[Any, Any] | None
) -> Step | None:
    """A dense layer; its weight as PyTorch keeps it, (outputs, inputs)."""
    if len(inputs) != 1 or (bias is not None and bias.size not in (1, weight.shape[0])):
        return None
    whole = None if bias is None else np.broadcast_to(bias.reshape(-1), weight.shape[:1])
    return Step("linear", _name(node), inputs, {}, {"weight": weight, "bias": whole}, weight.shape)


def _window(about: dict[str, Any], kernel: Sequence[int]) -> dict[str, Any]:
    """How a window moves, by the names that PyTorch's steps have; the standard's defaults where nothing is said.

    Raises:
        ValueError: Not one number for each axis, or one that moves no window.
    """
    axes = len(kernel)
    window = {
        "kernel": tuple(kernel),
        "strides": tuple(about.get("strides", [1] * axes)),
        "pads": tuple(about.get("pads", [0] * 2 * axes)),
        "dilations": tuple(about.get("dilations", [1] * axes)),
    }
    for key, numbers in window.items():
        count, least = (2 * axes, 0) if key == "pads" else (axes, 1)
        if len(numbers) != count or not all(isinstance(n, int) and n >= least for n in numbers):
            raise ValueError(f"{key} {list(numbers)} for a window over {axes} axes")
    return {**window, "auto_pad": about.get("auto_pad", b"NOTSET").decode()}


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def _name(node: onnx.NodeProto) -> str:
    return str(node.name or (node.output[0] if node.output else node.op_type))
