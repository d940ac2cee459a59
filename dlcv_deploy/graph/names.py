"""Names that follow from a network's structure alone, and a digest of that structure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

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
)

from .. import __version__
from ..digest import digest
from ..errors import SpecError
from .index import FLOATS, drop, index, initializer, is_op, opset, order, schema, taps, tensor_names, unused
from .modules import forget, keep

_ROLES = {
    "Conv": ("input", "weight", "bias"),
    "Gemm": ("input", "weight", "bias"),
    "MatMul": ("weight", "weight"),
}
"""What the initializers of these are called; those of other operators are called as in the ONNX standard."""


def name(model: ModelProto, *, inputs: Sequence[str] = ("input",), outputs: Sequence[str] = ("logits",)) -> ModelProto:
    """The same network with names that depend on its structure alone: equal networks become equal bytes.

    What is kept besides is the PyTorch module that a node stems from (``modules``): bytes are equal where those are.

    Nodes are put in the order of ``index.order`` and counted by operator: node ``conv_3``, its output ``conv_3_out``,
    its initializers ``conv_3_weight`` and ``conv_3_bias``. Symbols of free axes become ``batch``, ``axis_2`` ... in
    order of appearance. Attributes at their default, value_info, documentation and other metadata go, and so do nodes
    and initializers that no output depends on. An integer constant that several nodes read is written for each of them.

    An output after the first that nodes read as well, or that was returned before, is repeated by an Identity, which
    takes the output's name; the tensor itself keeps its generated one. So the names of all that the first output
    depends on, and with them the ranges in a calibration table, are the same whichever other outputs there are.

    Raises:
        SpecError: A graph that no pass understands, or with another number of inputs or outputs; a given name that
            is also a generated one; an output that no node computes.
    """
    at = index(model.graph)
    fed = [i for i in model.graph.input if i.name not in at.initializers]
    returned = list(model.graph.output)
    _check_count("input", [i.name for i in fed], inputs)
    _check_count("output", [o.name for o in returned], outputs)
    if set(inputs) & set(outputs):
        raise SpecError(
            f"{min(set(inputs) & set(outputs))!r} names an input and an output", fix="give each its own name"
        )
    for value in returned:
        if value.name not in at.producer:
            raise SpecError(f"output {value.name!r} is not computed by a node", fix="return what the network computes")

    graph = _tapped(model.graph)
    nodes, returned = order(graph), list(graph.output)
    names = dict(zip((i.name for i in fed), inputs, strict=True))
    names |= dict(zip((o.name for o in returned), outputs, strict=True))
    versions = {o.domain: o.version for o in model.opset_import} | {"": opset(model)}
    opsets = [helper.make_opsetid(d, versions.get(d, 1)) for d in sorted({_domain(node) for node in nodes})]
    new = ModelProto(
        ir_version=helper.find_min_ir_version_for(opsets, ignore_unknown=True),
        opset_import=opsets,
        producer_name="dlcv-deploy",
        producer_version=__version__,
    )
    new.graph.name = "network"
    symbols: dict[str, str] = {}
    new.graph.input.extend(_value(i, names[i.name], symbols) for i in fed)
    new.graph.output.extend(_value(o, names[o.name], symbols) for o in returned)
    writer = _Writer(new.graph, names, at.initializers, {o.domain: o.version for o in opsets})
    for node in nodes:
        writer.write(node)
    return new


def signature(model: ModelProto) -> str:
    """SHA-256 of a network's structure, for what holds whatever its weights are, such as a calibration table.

    Operators, attributes, connections, types and shapes count, and the values of integer constants (shapes, axes,
    paddings). Names, of modules too, and the values of floating-point initializers, do not; nor does an output after
    the first that is computed on the way to another one: it adds nothing that a table could know.
    """
    hollow = ModelProto(opset_import=model.opset_import, graph=_tapped(model.graph))
    repeated = taps(hollow.graph)
    read = {t for node in order(hollow.graph) if not repeated.intersection(node.output) for t in node.input}
    read |= {o.name for o in hollow.graph.output}
    spare = {n.output[0] for n in hollow.graph.node if repeated.intersection(n.output) and n.input[0] in read}
    drop(hollow.graph.output, lambda o: o.name in spare)
    for old in model.graph.initializer:
        if old.data_type in FLOATS:
            hollow.graph.initializer.add(name=old.name, data_type=old.data_type, dims=old.dims, raw_data=b"")
        else:
            hollow.graph.initializer.append(old)
    constants = {i.name for i in model.graph.initializer}
    hollow.graph.input.extend(i for i in model.graph.input if i.name not in constants)
    inputs = [f"input_{n}" for n in range(1, len(hollow.graph.input) + 1)]
    outputs = [f"output_{n}" for n in range(1, len(hollow.graph.output) + 1)]
    plain = name(hollow, inputs=inputs, outputs=outputs)
    forget(plain)
    plain.ClearField("producer_version")
    return digest(graph=plain.SerializeToString(deterministic=True))


def _tapped(graph: GraphProto) -> GraphProto:
    """Nodes and outputs of a graph, an Identity before each output after the first that is read or returned before."""
    read, names = {t for node in order(graph) for t in node.input}, tensor_names(graph)
    new = GraphProto(node=graph.node, output=graph.output)
    for before, value in zip(graph.output, new.output[1:], strict=False):
        read.add(before.name)
        if value.name in read:
            node = new.node.add(op_type="Identity", input=[value.name])
            value.name = unused(f"{value.name}_returned", names)
            names.add(value.name)
            node.output.append(value.name)
    return new


class _Writer:
    """Appends nodes, and the initializers they read, to a graph under their new names."""

    def __init__(
        self,
        graph: GraphProto,
        names: dict[str, str],
        values: Mapping[str, TensorProto],
        versions: Mapping[str, int],
    ) -> None:
        self._graph, self._names, self._values, self._versions = graph, names, values, versions
        self._count: Counter[str] = Counter()
        self._taken = set(names.values())

    def write(self, node: NodeProto) -> None:
        """Name a node and its outputs; what it reads has been named before."""
        op = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", node.op_type).lower()
        self._count[op] += 1
        new = self._graph.node.add(op_type=node.op_type, domain=_domain(node), name=f"{op}_{self._count[op]}")
        new.attribute.extend(_attributes(node, self._versions[new.domain]))
        keep(node, new)
        for position, tensor in enumerate(node.input):
            new.input.append(self._names.get(tensor) or self._initializer(node, position, new.name) if tensor else "")
        for position, tensor in enumerate(node.output):
            if tensor and tensor not in self._names:
                self._names[tensor] = self._own(f"{new.name}_out" + (f"_{position + 1}" if position else ""))
            new.output.append(self._names[tensor] if tensor else "")

    def _initializer(self, node: NodeProto, position: int, reader: str) -> str:
        old = self._values[node.input[position]]
        new = self._own(f"{reader}_{_role(node, position, self._versions[_domain(node)])}")
        added = self._graph.initializer.add(name=new, data_type=old.data_type, dims=old.dims)
        if old.HasField("raw_data"):
            added.raw_data = old.raw_data
        else:
            added.CopyFrom(initializer(new, numpy_helper.to_array(old)))
        if old.data_type in FLOATS:
            self._names[old.name] = new
        return new

    def _own(self, generated: str) -> str:
        if generated in self._taken:
            raise SpecError(f"{generated!r} is the name of another tensor", fix="give inputs and outputs other names")
        self._taken.add(generated)
        return generated


def _domain(node: NodeProto) -> str:
    return "" if is_op(node, node.op_type) else node.domain


def _check_count(what: str, have: Sequence[str], names: Sequence[str]) -> None:
    if len(have) != len(names) or len(set(names)) != len(names):
        raise SpecError(
            f"the graph has the {what}s {', '.join(have) or '(none)'}; they cannot be called {', '.join(names)}",
            fix=f"give one name for each {what}, each once",
        )


def _role(node: NodeProto, position: int, version: int) -> str:
    known = _ROLES.get(node.op_type)
    if known:
        return known[position]
    standard = schema(node, version)
    if standard is None or position >= len(standard.inputs) - _is_variadic(standard):
        return f"input_{position + 1}"
    return standard.inputs[position].name.lower()


def _is_variadic(standard: defs.OpSchema) -> bool:
    return bool(standard.inputs) and standard.inputs[-1].option == defs.OpSchema.FormalParameterOption.Variadic


def _attributes(node: NodeProto, version: int) -> list[AttributeProto]:
    known = schema(node, version)
    defaults = {} if known is None else {n: a.default_value for n, a in known.attributes.items()}
    result = []
    for old in sorted(node.attribute, key=lambda a: a.name):
        default = defaults.get(old.name)
        value = helper.get_attribute_value(old)
        if default is not None and default.type == old.type and helper.get_attribute_value(default) == value:
            continue
        new = AttributeProto()
        new.CopyFrom(old)
        new.ClearField("doc_string")
        if new.type == AttributeProto.TENSOR:
            new.t.CopyFrom(initializer("", numpy_helper.to_array(old.t)))
        result.append(new)
    return result


def _value(old: ValueInfoProto, new_name: str, symbols: dict[str, str]) -> ValueInfoProto:
    axes: list[int | str | None] = []
    for at, axis in enumerate(old.type.tensor_type.shape.dim):
        if axis.HasField("dim_param"):
            first = "batch" if not symbols and at == 0 else f"axis_{len(symbols) + 1}"
            axes.append(symbols.setdefault(axis.dim_param, first))
        else:
            axes.append(axis.dim_value if axis.HasField("dim_value") else None)
    return helper.make_tensor_value_info(new_name, old.type.tensor_type.elem_type, axes)
