"""The PyTorch original as a session, beside which every engine is held."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from .errors import SpecError
from .types import TensorSpec

if TYPE_CHECKING:
    from torch import nn

    from .backends.base import Array


class TorchSession:
    """A module in eval mode, in fp32 on the CPU, called as users of the original call it."""

    def __init__(self, net: nn.Module, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        from .models.outputs import select

        self.inputs, self.outputs = inputs, outputs
        self._net: nn.Module | None = select(net, tuple(spec.name for spec in outputs)).eval()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Logits, and what else is asked for, by name for float32 inputs by name."""
        import torch

        if self._net is None:
            raise SpecError("this session is closed", fix="open another one")
        with torch.inference_mode():
            result = self._net(*(torch.from_numpy(feeds[spec.name]) for spec in self.inputs))
        values = result if isinstance(result, tuple) else (result,)
        return {spec.name: value.numpy() for spec, value in zip(self.outputs, values, strict=True)}

    def close(self) -> None:
        """Let the module go."""
        self._net = None

    def __enter__(self) -> TorchSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
