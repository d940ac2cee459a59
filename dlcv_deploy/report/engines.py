"""What a report says of the engines that were compiled."""

from __future__ import annotations

from . import int8
from .document import CompiledEngine
from .words import milliseconds, plural, size


def engine_size(engine: CompiledEngine) -> str:
    """The size of an engine's files together."""
    return size(sum(file.size_bytes for file in engine.files))


def engine_notes(engine: CompiledEngine) -> tuple[str, ...]:
    """All that is to be said of an engine: its INT8 share, its LRN, and its compiler's notes."""
    return (*int8.audit_lines(engine), *lrn_lines(engine), *engine.notes)


def lrn_lines(engine: CompiledEngine) -> tuple[str, ...]:
    """Which LRN an engine uses, what the plugin could not take, and how a race ended; nothing if nothing was asked."""
    lrn = engine.lrn
    if lrn is None:
        return ()
    if lrn.choice == "plugin":
        first = f"LRN by the plugin's CUDA kernels: {plural(len(lrn.lowered), 'node')} ({', '.join(lrn.lowered)})"
    else:
        first = "LRN by TensorRT's own layer"
    left = (f"{node.op_type} {node.node} is left to TensorRT: {node.reason}" for node in lrn.left_alone)
    ran = [(row.name, row.batch, row.p50_ms) for row in lrn.race if not row.not_run]
    races = [
        f"race at batch {batch}, p50: "
        + ", ".join(f"{name} {milliseconds(p50)} ms" for name, at, p50 in ran if at == batch)
        for batch in dict.fromkeys(batch for _, batch, _ in ran)
    ]
    return (f"{first}, the faster of both" if lrn.race else first, *left, *races)
