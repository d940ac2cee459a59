"""Reading an ONNX graph: who makes a tensor, who reads it, what is constant, what type and shape it has."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    defs,
    helper,
    numpy_helper,
    shape_inference,
)

from ..errors import SpecError

T = TypeVar("T")
Array = npt.NDArray[np.generic]
Shape = tuple[int | str | None, ...]

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_STANDARD = ("", "ai.onnx")


@dc.dataclass(frozen=True, slots=True)
class Index:
    """Nodes and initializers by tensor name; a snapshot, valid until the graph is changed.

    ``consumers`` lists a node once for each input that reads the tensor. ``outputs`` are the graph's.
    """

    producer: Mapping[str, NodeProto]
    consumers: Mapping[str, tuple[NodeProto, ...]]
    initializers: Mapping[str, TensorProto]
    outputs: frozenset[str]

    def array(self, name: str) -> Array:
        """The values of an initializer."""
        return numpy_helper.to_array(self.initializers[name])

    def only_reader(self, tensor: str) -> NodeProto | None:
        """The one node that reads a tensor through one input, where the graph does not return it as well."""
        readers = self.consumers.get(tensor, ())
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None


def taps(graph: GraphProto) -> frozenset[str]:
    """The outputs after the first that repeat an inner tensor: an Identity makes them, and no node reads them."""
    read = {tensor for node in graph.node for tensor in node.input}
    further = {o.name for o in graph.output[1:]} - read
    return frozenset(n.output[0] for n in graph.node if is_op(n, "Identity") and n.output[0] in further)


def index(graph: GraphProto, *, without: frozenset[str] = frozenset()) -> Index:
    """Look a graph over, as if it did not return the outputs ``without`` (``taps``, or a part of them).

    Raises:
        SpecError: control flow, sparse initializers or values kept outside the file, which no pass understands.
    """
    producer: dict[str, NodeProto] = {}
    consumers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        if without.intersection(node.output):
            continue
        if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
            raise SpecError(
                f"node {node.name!r} ({node.op_type}) holds a graph of its own",
                fix="export a network without control flow",
            )
        producer.update((tensor, node) for tensor in node.output if tensor)
        for tensor in node.input:
            if tensor:
                consumers.setdefault(tensor, []).append(node)
    outside = [i.name for i in graph.initializer if i.data_location == TensorProto.EXTERNAL]
    outside += [i.values.name for i in graph.sparse_initializer]
    if outside:
        raise SpecError(
            f"initializer {outside[0]!r} is sparse, or its values lie in another file",
            fix="save the model as one file with dense initializers",
        )
    return Index(
        producer,
        {tensor: tuple(nodes) for tensor, nodes in consumers.items()},
        {i.name: i for i in graph.initializer},
        frozenset(o.name for o in graph.output) - without,
    )


def types(model: ModelProto, *, batch: int | None = None) -> dict[str, tuple[int, Shape | None]]:
    """Element type and shape of every tensor that shape inference can tell; an axis is a length, a symbol or None.

    With ``batch``, they are those for inputs with a first axis of that length. The values of float initializers are
    left out of the inference, which does not need them and would copy them.
    """
    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = light.graph
    graph.name = "shapes"
    graph.node.extend(model.graph.node)
    graph.value_info.extend(model.graph.value_info)
    graph.output.extend(model.graph.output)
    seen = {i.name for i in model.graph.initializer}
    graph.input.extend(i for i in model.graph.input if i.name not in seen)
    for tensor in model.graph.initializer:
        if tensor.data_type in FLOATS:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            graph.initializer.append(tensor)
    for value in model.graph.input if batch is not None else ():
        graph.input[[i.name for i in graph.input].index(value.name)].type.tensor_type.shape.dim[0].dim_value = batch
    inferred = shape_inference.infer_shapes(light, data_prop=True).graph
    known = {v.name: _type(v) for v in (*inferred.input, *inferred.value_info, *inferred.output)}
    known.update((i.name, (i.data_type, tuple(i.dims))) for i in graph.initializer)
    return known


def _type(value: ValueInfoProto) -> tuple[int, Shape | None]:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return tensor.elem_type, None
    axes = (d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim)
    return tensor.elem_type, tuple(axes)


def order(graph: GraphProto) -> list[NodeProto]:
    """The nodes that the outputs depend on, each after those it reads: depth first from the outputs.

    The order follows from the connections alone, not from the order or the names in the file.
    """
    producer = {tensor: at for at, node in enumerate(graph.node) for tensor in node.output if tensor}
    done: set[int] = set()
    result: list[NodeProto] = []
    stack = [(producer[o.name], False) for o in reversed(graph.output) if o.name in producer]
    while stack:
        at, inputs_done = stack.pop()
        if at in done:
            continue
        node = graph.node[at]
        if inputs_done:
            done.add(at)
            result.append(node)
            continue
        stack.append((at, True))
        stack.extend((producer[t], False) for t in reversed(node.input) if t in producer and producer[t] not in done)
    return result


def check_finite(graph: GraphProto) -> None:
    """Refuse weights that are not numbers.

    Raises:
        SpecError: NaN or infinity in a floating-point initializer, which is named.
    """
    for tensor in graph.initializer:
        bad = 0 if tensor.data_type not in FLOATS else int((~np.isfinite(numpy_helper.to_array(tensor))).sum())
        if bad:
            raise SpecError(
                f"initializer {tensor.name!r} holds {bad} values that are NaN or infinite",
                fix="the weights are damaged; export from weights that are finite numbers",
            )


def is_op(node: NodeProto, *op_types: str) -> bool:
    """Whether a node is one of these standard operators."""
    return node.op_type in op_types and node.domain in _STANDARD


def attribute(node: NodeProto, name: str, default: T) -> T:
    """An attribute's value, of the type of ``default``, which is returned where the node does not have it."""
    found: T | None = next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)
    return default if found is None else found


def opset(model: ModelProto) -> int:
    """The version of the standard operator set that a model asks for."""
    return next((o.version for o in model.opset_import if o.domain in _STANDARD), 1)


def schema(node: NodeProto, version: int) -> defs.OpSchema | None:
    """What the ONNX standard says of a node's operator; None for operators that are not its own."""
    if node.domain not in _STANDARD or not defs.has(node.op_type, ""):
        return None
    return defs.get_schema(node.op_type, version, "")


def initializer(name: str, values: Array) -> TensorProto:
    """An initializer in the one spelling that every pass writes."""
    return numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)


def unused(wanted: str, taken: AbstractSet[str]) -> str:
    """``wanted``, or it with the first number from 2 on that makes it a name not yet taken."""
    name, n = wanted, 2
    while name in taken:
        name, n = f"{wanted}_{n}", n + 1
    return name


def tensor_names(graph: GraphProto) -> set[str]:
    """Every tensor name in use."""
    names = {i.name for i in (*graph.input, *graph.initializer, *graph.output)}
    return names.union(*(node.input for node in graph.node), *(node.output for node in graph.node))


class _Repeated(Protocol[T]):
    def __len__(self) -> int: ...
    def __getitem__(self, at: int, /) -> T: ...
    def __delitem__(self, at: int | slice, /) -> None: ...
    def extend(self, items: Iterable[T], /) -> None: ...


def drop(field: _Repeated[T], unwanted: Callable[[T], bool]) -> None:
    """Delete from a repeated field of a message, without copying what stays."""
    for at in reversed(range(len(field))):
        if unwanted(field[at]):
            del field[at]


def replace(field: _Repeated[T], items: Iterable[T]) -> None:
    """Make ``items``, some of which it may hold, all that a repeated field of a message holds."""
    new = list(items)
    del field[:]
    field.extend(new)


def copied(model: ModelProto) -> ModelProto:
    """A copy that may be changed."""
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy
