"""Pre-flight: what stands between a bundle and this machine, before a native loader sees a byte of it.

The C++ library (``cpp/src/preflight.cpp``) makes the same checks in the same order, with the same words.

1. ``no_bundle``, ``not_a_bundle``, ``manifest_damaged``, ``manifest_schema``: each ends the checks.
2. Every file of the manifest, in the order of their names as bytes: ``file_unsafe``, ``file_missing``, ``file_size``,
   ``file_altered``; the first that holds of a file is told. A file that an engine names and the manifest does not list
   is missing.
3. Every engine, or the one that is asked for (``engine_none`` where the bundle lacks it), in the order of ``ORDER``:
   ``runtime_missing``, then of the installed ``runtime_other`` (the two TensorRTs take their own version alone) or
   ``runtime_older`` (OpenVINO and ONNX Runtime, by year or major and by minor version); for a GPU's engine
   ``gpu_none``, or ``driver_old``, ``gpu_other``, ``gpu_memory``; else ``memory``; then the plugin:
   ``plugin_missing``, ``plugin_other``, ``plugin_machine``, ``plugin_sm``. All that hold are told.

An engine takes at the least as much memory as its files have bytes; MiB are rounded up for what it takes and down for
what is free.
"""

from __future__ import annotations

import dataclasses as dc
from pathlib import Path

from .host import Host

ORDER = ("tensorrt", "tensorrt_rtx", "openvino", "onnxruntime")
"""Which engine of a bundle is taken first."""


@dc.dataclass(frozen=True, slots=True)
class Finding:
    """Something that keeps a bundle, or with ``backend`` one of its engines, from running here."""

    code: str
    what: str
    fix: str
    backend: str = ""


def preflight(path: Path, host: Host, backend: str | None = None) -> tuple[Finding, ...]:
    """All that keeps a bundle from running on a machine; empty where every engine runs.

    Args:
        path: The bundle's folder.
        host: The machine.
        backend: Look at one engine alone.
    """
    raise NotImplementedError
