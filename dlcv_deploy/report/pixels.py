"""What is said of a pipeline's tensors beside the contract's."""

from __future__ import annotations

from ..parity.contract import Cost, PixelsReport


def pixels_text(report: PixelsReport) -> str:
    """The report as lines of text."""
    found = report.distance
    lines = [
        report.source,
        "difference in grey levels of 255, after undoing the normalization:",
        f"{'':12}{'R':>12}{'G':>12}{'B':>12}",
        f"{'greatest':12}" + "".join(f"{value:12.4g}" for value in found.max_levels),
        f"{'mean':12}" + "".join(f"{value:12.4g}" for value in found.mean_levels),
    ]
    if report.mistakes:
        lines.append("explained by: " + "; ".join(report.mistakes))
        if report.left is not None:
            lines.append(
                f"what is left then: {report.left.greatest:.4g} at the most, {report.left.mean:.4g} on average"
            )
    elif not found.within:
        lines.append("none of the usual mistakes explains it")
    lines += [_cost(cost) for cost in report.costs]
    return "\n".join([*lines, verdict(report)])


def verdict(report: PixelsReport) -> str:
    """One line: equal, within the tolerance, or not the contract's."""
    tolerance = f"{report.tolerance_levels:g} grey level"
    if not report.passed:
        layout = " and channels first" if report.distance.within else ""
        return f"FAILED: these are not the contract's pixels (within {tolerance}{layout})"
    if report.distance.equal:
        return "passed: these are the contract's pixels, but for the rounding of floating point"
    return f"passed: these are the contract's pixels within {tolerance}, and not equal to them"


def _cost(cost: Cost) -> str:
    if cost.not_run:
        return f"{cost.name}: not run: {cost.not_run}"
    if cost.loss is None or cost.top1_contract is None or cost.top1_pixels is None:
        return f"{cost.name}: {cost.flips} images get another class (no labels)"
    loss = cost.loss
    return (
        f"{cost.name}: top-1 {cost.top1_contract:.2f} % on the contract's pixels, {cost.top1_pixels:.2f} % on these: "
        f"loses {loss.drop:.2f} points ({loss.low:.2f} to {loss.high:.2f}, 95 %), {cost.flips} images get another class"
    )
