"""Backends by name. Each is a module of this package, imported when it is asked for; its native package later still."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from ..errors import MissingBackend, SpecError

if TYPE_CHECKING:
    from . import onnxruntime, openvino, tensorrt, tensorrt_rtx
    from .base import Backend

    _ALL: tuple[Backend, ...] = (onnxruntime, openvino, tensorrt_rtx, tensorrt)

_MODULES = {
    "onnxruntime": "dlcv_deploy.backends.onnxruntime",
    "openvino": "dlcv_deploy.backends.openvino",
    "tensorrt_rtx": "dlcv_deploy.backends.tensorrt_rtx",
    "tensorrt": "dlcv_deploy.backends.tensorrt",
}
_PREFERRED = ("tensorrt", "openvino", "onnxruntime")


def names() -> tuple[str, ...]:
    """All backends, installed or not."""
    return tuple(_MODULES)


def get(name: str) -> Backend:
    """A backend by its name.

    Raises:
        SpecError: There is none of that name.
    """
    if name not in _MODULES:
        raise SpecError(f"there is no backend {name!r}", fix=f"use one of {', '.join(_MODULES)}, or auto")
    return cast("Backend", importlib.import_module(_MODULES[name]))


def auto() -> str:
    """The best backend that compiles and runs here: TensorRT with a GPU, else OpenVINO, else ONNX Runtime.

    Raises:
        MissingBackend: None is installed.
    """
    for name in _PREFERRED:
        ability = get(name).ability()
        if ability.can_compile and ability.can_run:
            return name
    raise MissingBackend(
        "no backend is installed that runs on this machine",
        fix="pip install 'dlcv-deploy[openvino]' or 'dlcv-deploy[onnxruntime]'; with an NVIDIA GPU 'dlcv-deploy[gpu]'",
    )
