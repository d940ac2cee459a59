"""Native loggers, brought into Python: errors and warnings are kept, and everything goes to ``logging``."""

from __future__ import annotations

import dataclasses as dc
import logging
from typing import Any

LEVELS = {
    "INTERNAL_ERROR": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.INFO,
    "VERBOSE": logging.DEBUG,
}
"""TensorRT's severities (``ILogger.Severity``) as Python's levels."""


@dc.dataclass
class NativeLog:
    """What a native library said: errors for a ``ToolError``, warnings for an engine's notes."""

    name: str
    errors: list[str] = dc.field(default_factory=list)
    warnings: list[str] = dc.field(default_factory=list)

    def record(self, severity: str, text: str) -> None:
        """Keep one message, once, and pass it on to ``logging``; an unknown severity counts as an error."""
        level, text = LEVELS.get(severity, logging.ERROR), text.strip()
        kept = self.errors if level >= logging.ERROR else self.warnings if level == logging.WARNING else None
        if kept is not None and text not in kept:
            kept.append(text)
        # an error here becomes an exception, which is where its reader finds it
        logging.getLogger(f"dlcv_deploy.{self.name}").log(min(level, logging.INFO), "%s", text)

    def take_errors(self) -> str:
        """The errors so far, one a line, which are then forgotten."""
        text = "\n".join(self.errors)
        self.errors.clear()
        return text


def tensorrt_logger(trt: Any, log: NativeLog) -> Any:  # noqa: ANN401 - either TensorRT's module, its ILogger
    """An ``ILogger`` of the given TensorRT module that writes to ``log``; keep it as long as what was made with it."""

    def start(self: Any) -> None:  # noqa: ANN401 - a class made below
        trt.ILogger.__init__(self)

    def record(self: Any, severity: Any, text: str) -> None:  # noqa: ANN401 - as above
        log.record(severity.name, text)

    return type("Logger", (trt.ILogger,), {"__init__": start, "log": record})()
