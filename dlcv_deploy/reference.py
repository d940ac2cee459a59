"""The PyTorch original as a session, beside which every engine is held, and how PyTorch itself runs it faster."""

from __future__ import annotations

import copy
import functools
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import SpecError
from .report.document import REFERENCE
from .types import TensorSpec

if TYPE_CHECKING:
    from torch import nn

    from .backends.base import Array

CHANNELS_LAST = f"{REFERENCE}, channels last"
COMPILED = f"{REFERENCE}, torch.compile"
"""What the variants of the original are called in reports."""


class TorchSession:
    """A module in eval mode, in fp32 on the CPU, called as users of the original call it.

    With ``channels_last``, weights and images lie in memory with their channels together, which PyTorch advises for
    convolutions; turning the images is part of a call. The module is copied for it.
    """

    def __init__(
        self,
        net: nn.Module,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        channels_last: bool = False,
    ) -> None:
        import torch

        from .models.outputs import select

        self.inputs, self.outputs = inputs, outputs
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._how = "eager"
        chosen = select(net, tuple(spec.name for spec in outputs)).eval()
        if channels_last:
            chosen = copy.deepcopy(chosen).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._net: Callable[..., Any] | None = chosen

    @property
    def settings(self) -> Mapping[str, str]:
        """See ``Described``."""
        import torch

        return {
            "version": torch.__version__,
            "execution": self._how,
            "memory_format": str(self._layout).removeprefix("torch."),
            "num_threads": str(torch.get_num_threads()),
            "mkldnn": str(torch.backends.mkldnn.is_available()),  # type: ignore[no-untyped-call]
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
        }

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Logits, and what else is asked for, by name for float32 inputs by name."""
        import torch

        if self._net is None:
            raise SpecError("this session is closed", fix="open another one")
        arrays = (torch.from_numpy(feeds[spec.name]) for spec in self.inputs)
        with torch.inference_mode():
            result = self._net(*(array.contiguous(memory_format=self._layout) for array in arrays))
        values = result if isinstance(result, tuple) else (result,)
        return {spec.name: value.contiguous().numpy() for spec, value in zip(self.outputs, values, strict=True)}

    def close(self) -> None:
        """Let the module go."""
        self._net = None

    def __enter__(self) -> TorchSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class CompiledSession(TorchSession):
    """The module as ``torch.compile`` runs it, for the batch sizes that it was compiled for.

    Making one compiles, in this process alone, into a folder that goes when the process ends.

    Raises:
        SpecError: PyTorch cannot compile it here; says why.
    """

    def __init__(
        self,
        net: nn.Module,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        batches: Sequence[int],
    ) -> None:
        import torch

        super().__init__(net, inputs, outputs)
        self._batches, self._how = tuple(batches), "torch.compile"
        try:
            with _quietly():
                self._net = torch.compile(self._net, dynamic=False)
                for batch in self._batches:
                    super().run({s.name: np.zeros((batch, *s.shape), s.dtype) for s in inputs})
        except (RuntimeError, OSError, subprocess.SubprocessError) as e:  # what TorchDynamo raises is a RuntimeError
            raise SpecError(f"torch.compile: {_words(e)}", fix="leave it out, or install a C++ compiler") from e

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """See ``TorchSession``; a batch of another size would be compiled now, and is refused."""
        batch = len(feeds[self.inputs[0].name])
        if batch not in self._batches:
            asked = " and ".join(map(str, self._batches))
            raise SpecError(f"torch.compile was asked for batches of {asked}, not {batch}", fix="feed one of these")
        return super().run(feeds)

    def close(self) -> None:
        """Let the module go, and what was compiled of it."""
        super().close()
        if "torch._dynamo" in sys.modules:
            sys.modules["torch._dynamo"].reset()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """As many threads for each of PyTorch's operators; as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quietly() -> Iterator[None]:
    """Have PyTorch compile in this process, into a folder that goes with it unless the user named one, and say nothing.

    The variables stay: PyTorch reads them when its compiler is first imported, and later. Precompiled headers would go
    into a folder of their own, which stays.
    """
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    os.environ.setdefault("TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS", "0")
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = _folder().name
    silenced = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(silenced)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where compiled code lies until the process ends."""
    return tempfile.TemporaryDirectory(prefix="dlcv-deploy-")


def _words(error: Exception) -> str:
    """The line that says what is wrong, of the many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.endswith("raised:")), type(error).__name__)[:200]
