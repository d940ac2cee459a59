"""Single nodes of a network, run on many images at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper

from ..errors import SpecError
from ..graph.index import index, initializer, types
from ..types import BATCH

if TYPE_CHECKING:
    from ..backends.base import Session

Floats = npt.NDArray[np.float32]
Load = Callable[[bytes], "Session"]
_CHUNK_VALUES = 1 << 22
"""Values that a node takes or gives at a time, about, so that a runtime's own memory stays small."""


class Steps:
    """Runs the nodes of a network one by one; ``last`` says after which node a tensor is no longer read.

    Args:
        model: An fp32 network with a dynamic batch.
        load: Makes a session of a serialized graph.
    """

    def __init__(self, model: ModelProto, load: Load) -> None:
        self._model, self._load = model, load
        self._known, self._at = types(model), index(model.graph)
        self.last = {t: at for at, node in enumerate(model.graph.node) for t in node.input}

    def varying(self, node: NodeProto) -> tuple[str, ...]:
        """The inputs of a node that are no initializers, each once."""
        return tuple(dict.fromkeys(t for t in node.input if t and t not in self._at.initializers))

    def opened(self, node: NodeProto, constants: Mapping[int, npt.NDArray[np.generic]] | None = None) -> Step:
        """A node ready to run, with ``constants`` by position in place of its own initializers.

        Raises:
            SpecError: The type or shape of a tensor is not known.
        """
        names = self.varying(node)
        graph = helper.make_graph(
            [node], "step", [self._value(t) for t in names], [self._value(t) for t in node.output if t]
        )
        given = {node.input[position]: values for position, values in (constants or {}).items()}
        for tensor in dict.fromkeys(node.input):
            if tensor in given:
                graph.initializer.append(initializer(tensor, given[tensor]))
            elif tensor in self._at.initializers:
                graph.initializer.append(self._at.initializers[tensor])
        alone = helper.make_model(graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version)
        return Step(self._load(alone.SerializeToString()), names, node.output[0])

    def bytes_per_image(self) -> int:
        """The most that the tensors of one image take together while the nodes run one by one."""
        live: dict[str, int] = {t.name: self._size(t.name) for t in self._model.graph.input}
        most = sum(live.values())
        for at, node in enumerate(self._model.graph.node):
            live.update((t, self._size(t)) for t in node.output if t)
            most = max(most, sum(live.values()))
            for tensor in set(node.input):
                if self.last[tensor] == at:
                    live.pop(tensor, None)
        return 4 * most

    def _size(self, tensor: str) -> int:
        element, shape = self._known.get(tensor, (0, None))
        if element != TensorProto.FLOAT or not shape or not all(isinstance(n, int) for n in shape[1:]):
            return 0
        return int(np.prod([n for n in shape[1:] if isinstance(n, int)]))

    def _value(self, tensor: str) -> object:
        element, shape = self._known.get(tensor, (0, None))
        if shape is None:
            raise SpecError(f"the shape of tensor {tensor!r} is not known", fix="export the model again")
        return helper.make_tensor_value_info(tensor, element, shape)


class Step:
    """One node in a session of its own, for as many images as there are."""

    def __init__(self, session: Session, names: tuple[str, ...], output: str) -> None:
        self._session, self._names, self._output = session, names, output

    def run(self, values: Mapping[str, Floats]) -> Floats:
        """The node's first output for its varying inputs, by name, each with the images as the first axis."""
        feeds = [values[name] for name in self._names]
        images = len(feeds[0])
        each = max(feed[0].size for feed in feeds)
        chunk = max(1, min(BATCH.hi, _CHUNK_VALUES // max(1, each)))
        result: Floats | None = None
        for start in range(0, images, chunk):
            part = {name: feed[start : start + chunk] for name, feed in zip(self._names, feeds, strict=True)}
            given = self._session.run(part)[self._output]
            if result is None:
                result = np.empty((images, *given.shape[1:]), np.float32)
            result[start : start + chunk] = given
        assert result is not None
        return result

    def __enter__(self) -> Step:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()
