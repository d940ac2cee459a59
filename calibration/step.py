"""Single nodes of a network, run on many images at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from ..graph.index import index, initializer, types
from ..types import BATCH

if TYPE_CHECKING:
    from ..backends.base import Session

Floats = npt.NDArray[np.float32]
Load = Callable[[bytes], "Session"]
_CHUNK_VALUES = 1 << 22
"""Values of the largest tensor that are computed at a time, about, so that a runtime's own memory stays small."""


class Steps:
    """Runs the nodes of a network one by one; ``last`` says after which node a tensor is no longer read.

    What passes between them are float32 tensors with a row for each image. Whatever else nodes make (shapes, sequences,
    several rows for an image) is made again for each node that reads it, from the tensors that it follows from.

    Args:
        model: An fp32 network with a dynamic batch.
        load: Makes a session of a serialized graph.
    """

    def __init__(self, model: ModelProto, load: Load) -> None:
        self._model, self._load = model, load
        self._known, self._at = types(model), index(model.graph)
        self._of_one = types(model, batch=1)
        self._place = {t: at for at, node in enumerate(model.graph.node) for t in node.output if t}
        self.last = {t: at for at, node in enumerate(model.graph.node) if self.gives(node) for t in self.reads(node)}
        largest = max((self._size(t) for t in self._known), default=1)
        self._chunk = max(1, min(BATCH.hi, _CHUNK_VALUES // max(1, largest)))

    def gives(self, node: NodeProto) -> tuple[str, ...]:
        """The outputs of a node that pass on to others; none of a node that is run with its readers."""
        return tuple(t for t in node.output if self._passes(t))

    def reads(self, node: NodeProto) -> tuple[str, ...]:
        """What has to be there to run a node, each tensor once."""
        return tuple(dict.fromkeys(t for part in self._with(node) for t in part.input if self._passes(t)))

    def opened(self, node: NodeProto, constants: Mapping[int, npt.NDArray[np.generic]] | None = None) -> Step:
        """A node ready to run, with ``constants`` by position in place of its own initializers."""
        given = {node.input[position]: values for position, values in (constants or {}).items()}
        nodes, names, outputs = self._with(node), self.reads(node), self.gives(node)
        graph = helper.make_graph(nodes, "step", [*map(self._value, names)], [*map(self._value, outputs)])
        for tensor in dict.fromkeys(t for part in nodes for t in part.input):
            if tensor in given:
                graph.initializer.append(initializer(tensor, given[tensor]))
            elif tensor in self._at.initializers:
                graph.initializer.append(self._at.initializers[tensor])
        alone = helper.make_model(graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version)
        return Step(self._load(alone.SerializeToString()), names, outputs, self._chunk)

    def bytes_per_image(self) -> int:
        """The most that the tensors of one image take together while the nodes run one by one."""
        live: dict[str, int] = {t.name: self._size(t.name) for t in self._model.graph.input}
        most = sum(live.values())
        for at, node in enumerate(self._model.graph.node):
            live.update((t, self._size(t)) for t in self.gives(node))
            most = max(most, sum(live.values()))
            for tensor in self.reads(node):
                if self.last.get(tensor) == at:
                    live.pop(tensor, None)
        return 4 * most

    def _with(self, node: NodeProto) -> list[NodeProto]:
        """A node after those that make what does not pass."""
        found: dict[int, NodeProto] = {}
        todo = [node]
        while todo:
            one = todo.pop()
            place = self._place[next(t for t in one.output if t)]
            if place not in found:
                found[place] = one
                todo += [self._at.producer[t] for t in one.input if t in self._place and not self._passes(t)]
        return [found[place] for place in sorted(found)]

    def _passes(self, tensor: str) -> bool:
        element, shape = self._known.get(tensor, (0, None))
        if tensor in self._at.initializers or element != TensorProto.FLOAT or not shape:
            return False
        of_one = self._of_one[tensor][1]
        several = of_one and isinstance(of_one[0], int) and of_one[0] != 1
        return not several and not isinstance(shape[0], int) and all(isinstance(n, int) for n in shape[1:])

    def _size(self, tensor: str) -> int:
        shape = self._known[tensor][1] if self._passes(tensor) else None
        return math.prod(n for n in shape[1:] if isinstance(n, int)) if shape else 0

    def _value(self, tensor: str) -> ValueInfoProto:
        element, shape = self._known[tensor]
        return helper.make_tensor_value_info(tensor, element, shape)


class Step:
    """One node in a session of its own, for as many images as there are."""

    def __init__(self, session: Session, names: tuple[str, ...], outputs: tuple[str, ...], chunk: int) -> None:
        self._session, self._names, self._outputs, self._chunk = session, names, outputs, chunk

    def run(self, values: Mapping[str, Floats], images: int) -> dict[str, Floats]:
        """What the node gives for what it reads, by name, each with the images as the first axis."""
        result: dict[str, Floats] = {}
        for start in range(0, images, self._chunk):
            rows = slice(start, start + self._chunk)
            given = self._session.run({name: values[name][rows] for name in self._names})
            for name in self._outputs:
                if name not in result:
                    result[name] = np.empty((images, *given[name].shape[1:]), np.float32)
                result[name][rows] = given[name]
        return result

    def __enter__(self) -> Step:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()
