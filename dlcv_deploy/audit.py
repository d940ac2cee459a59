"""What share of the multiply-adds of an INT8 engine really runs in INT8, and what keeps the rest from it.

An INT8 graph is a request. OpenVINO and ONNX Runtime decide by themselves which of it they compute on integers, and
dequantize the rest without a word. So an engine is asked what it runs, and a build that did not get what it was asked
for fails.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, cast

from . import backends
from .digest import sha256
from .engines import identity
from .errors import ToolError
from .proof import measured_on
from .report import document
from .stages import Stages
from .types import Engine, LeftAlone, NotInt8, PrecisionAudit

if TYPE_CHECKING:
    from .backends.base import Audited
    from .graph.macs import Product

LEAST = 0.95
"""Of the multiply-adds that were to run in INT8, the share below which a build fails."""
_NAMED = 5
_ASKED = "it was to stay in floating point"


def audited(
    engine: Engine, onnx: bytes, left_alone: Iterable[LeftAlone], floats: Collection[str], stages: Stages
) -> PrecisionAudit | None:
    """The audit of one engine; None where its backend cannot say what it runs.

    Args:
        engine: Of an INT8 build.
        onnx: The graph that it was compiled from.
        left_alone: The nodes of that graph that were not quantized, and why.
        floats: Nodes that were to stay in floating point.
        stages: Keeps the result.

    Raises:
        ToolError: The engine's runtime refused it.
        SpecError: The sizes of the graph are not known.
    """
    backend = backends.get(engine.backend)
    if not hasattr(backend, "runs_in"):
        return None
    asked = cast("Audited", backend)
    reasons = {left.node: left.reason for left in left_alone}

    def make() -> dict[str, bytes]:
        from onnx import load_model_from_string

        from .graph.macs import products

        found = products(load_model_from_string(onnx))
        audit = judge(engine.backend, found, asked.runs_in(engine, onnx), reasons, floats, asked.EVIDENCE)
        return {"audit.json": json.dumps(document.plain(audit)).encode()}

    files = stages.run(
        f"audit {engine.backend}",
        make,
        engine=identity((engine,)),
        onnx=sha256(onnx),
        reasons=reasons,
        floats=sorted(floats),
        machine=measured_on(),
    )
    return cast(PrecisionAudit, document.read(PrecisionAudit, json.loads(files["audit.json"]), "audit"))


def judge(
    engine: str,
    products: Iterable[Product],
    runs_in: Mapping[str, str],
    reasons: Mapping[str, str],
    floats: Collection[str],
    evidence: str,
) -> PrecisionAudit:
    """The audit of an engine that computes each product in the type that ``runs_in`` says, by node name."""
    found = tuple(products)
    rest = [
        NotInt8(
            product.name,
            product.module,
            product.op_type,
            product.multiply_adds,
            runs_in.get(product.name, "unknown"),
            reasons.get(product.name) or (_ASKED if product.name in floats else _why(product, engine)),
            product.name in floats,
        )
        for product in found
        if runs_in.get(product.name) != "int8"
    ]
    rest.sort(key=lambda each: -each.multiply_adds)
    total = max(1, sum(product.multiply_adds for product in found))
    asked = sum(product.multiply_adds for product in found if product.name not in floats)
    wide = sum(each.multiply_adds for each in rest)
    return PrecisionAudit(engine, 1 - wide / total, asked / total, total, tuple(rest), evidence)


def _why(product: Product, engine: str) -> str:
    if product.int8_data and product.int8_weight:
        return f"the graph has it in INT8, and {engine} dequantizes it"
    return "the graph does not have it in INT8"


def keeps_word(audit: PrecisionAudit) -> bool:
    """Whether an engine runs in INT8 what it was asked to, but for a twentieth."""
    return _delivered(audit) >= LEAST * audit.asked_share - 1e-9


def _delivered(audit: PrecisionAudit) -> float:
    """The share that runs in INT8 of what was to; a node that runs so though it was not to does not count."""
    missed = sum(each.multiply_adds for each in audit.not_int8 if not each.asked)
    return audit.asked_share - missed / audit.total_multiply_adds


def check(audits: Iterable[PrecisionAudit | None], *, allow_partial: bool) -> None:
    """Refuse engines that were asked for INT8 and do not deliver it.

    Raises:
        ToolError: Names the layers that each computes otherwise, the heaviest first.
    """
    broken = [audit for audit in audits if audit is not None and not keeps_word(audit)]
    if allow_partial or not broken:
        return
    names = ", ".join(audit.engine for audit in broken)
    better = "" if "openvino" in names else " (--target openvino runs such graphs in INT8 on CPUs)"
    raise ToolError(
        "; ".join(map(_words, broken)),
        fix=f"leave {names} out{better}, or --allow-partial to take what runs as it is, and have it reported",
    )


def _words(audit: PrecisionAudit) -> str:
    missed = [each for each in audit.not_int8 if not each.asked]
    layers = ", ".join(
        f"{each.module} ({each.op_type}, {100 * each.multiply_adds / audit.total_multiply_adds:.1f} %, {each.runs_in})"
        for each in missed[:_NAMED]
    )
    more = f" and {len(missed) - _NAMED} more" if len(missed) > _NAMED else ""
    asked = f" of {100 * audit.asked_share:.1f} % asked" if audit.asked_share < 1 else ""
    return (
        f"{audit.engine} runs {100 * audit.int8_share:.1f} %{asked} of the multiply-adds in INT8, by {audit.evidence};"
        f" not in INT8: {layers}{more}"
    )
