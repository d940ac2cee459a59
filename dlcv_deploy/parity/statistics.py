"""What paired answers prove: a loss with its interval and test, and verdicts on the losses that rules allow.

Everything here depends on four numbers: the images, those that only the reference got right (lost), those that only the
candidate did (gained), and what the reference got right. The images are taken as drawn at random from those the network
will meet; that they are is for whoever chose them to say.
"""

from __future__ import annotations

import math

from ..errors import SpecError
from .values import Loss, Outcome, Verdict

Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution: the two ends of a 95 % interval."""
Z80 = 0.8416212335729143
"""Its 80 % point: the chance that ``images_needed`` gives an equal candidate."""
MLPERF = (("MLPerf 99 %", 100), ("MLPerf 99.9 %", 1000))
"""A rule's name, and one part in how many of the reference's accuracy it lets go."""
_EXACT = 10_000
"""Discordant images up to which the binomial is summed in integers."""


def percent(part: int, whole: int) -> float:
    """``part`` of ``whole`` in percent, rounded once."""
    return 100 * part / whole


def loss(k: int, lost: int, gained: int, images: int) -> Loss:
    """The loss at top ``k`` of a candidate over ``images``, above 0, with its interval and McNemar's test.

    The interval is a score interval and the test exact: near 5 % the one may leave zero out where the other does not
    reject. The exact test is the stricter.

    Raises:
        SpecError: counts that cannot be.
    """
    if min(lost, gained) < 0 or images < 1 or lost + gained > images:
        raise SpecError(f"{lost} images lost and {gained} gained cannot be among {images}")
    low, high = paired_interval(lost, gained, images)
    return Loss(k, percent(lost - gained, images), low, high, lost, gained, mcnemar(lost, gained))


def mcnemar(lost: int, gained: int) -> float:
    """Two-sided p of McNemar's exact test: as many lost as gained but for chance.

    Twice the smaller tail of the binomial of ``lost + gained`` throws of a coin, 1 at most. Up to 10,000 discordant
    images it is rounded once; above, its relative error is below 1e-6.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12 (1947) 153-157, with the binomial in place of its approximation.
    """
    throws, few = lost + gained, min(lost, gained)
    if lost == gained:
        return 1.0
    if throws <= _EXACT:
        term = total = 1
        for i in range(few):
            term = term * (throws - i) // (i + 1)
            total += term
        return min(1.0, 2 * total / (1 << throws))
    log = math.lgamma(throws + 1) - math.lgamma(few + 1) - math.lgamma(throws - few + 1) - throws * math.log(2)
    share = tail = 1.0  # of the greatest term, the last
    for i in range(few, 0, -1):
        share *= i / (throws - i + 1)
        tail += share
        if share < 1e-18 * tail:
            break
    return min(1.0, 2 * math.exp(log) * tail)


def paired_interval(lost: int, gained: int, images: int) -> tuple[float, float]:
    """95 % interval of the fall in accuracy, in points: Tango's score interval for paired proportions.

    It holds the differences that a score test does not reject, and at zero that test is McNemar's: the interval leaves
    zero out exactly where McNemar's test finds a difference. It depends on the discordant images and the total only,
    stays within +-100, and has width where no image is discordant: +-100 z^2 / (n + z^2), 0.04 points at 10,000 images
    and 79 at one, where the usual Wald interval would claim certainty. Limits by bisection, to the last bit or two.

    Args:
        lost: Images that only the reference got right.
        gained: Images that only the candidate got right.
        images: All images, above 0.

    Source: Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17 (1998) 891-908; recommended with Newcombe's and Bonett-Price's by Fagerland,
    Lydersen, Laake, Statistics in Medicine 33 (2014) 2850-2875.
    """

    def statistic(delta: float) -> float:  # falls from +infinity at -1 to -infinity at 1
        b = (2 * images - lost + gained) * delta - lost - gained
        c = -gained * delta * (1 - delta)
        root = math.sqrt(max(0.0, b * b - 8 * images * c))
        q = (root - b) / (4 * images) if b <= 0 else -2 * c / (root + b)  # likeliest gained / images, given delta
        variance = images * (2 * q + delta * (1 - delta))
        surplus = lost - gained - images * delta
        return surplus / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, surplus)

    def limit(target: float, low: float, high: float) -> float:
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if statistic(middle) > target else (low, middle)
        return 100 * (low + high) / 2

    seen = (lost - gained) / images
    return (-100.0 if seen == -1 else limit(Z95, -1.0, seen), 100.0 if seen == 1 else limit(-Z95, seen, 1.0))


def verdicts(reference: float, loss: Loss, images: int, margin: float) -> tuple[Verdict, ...]:
    """What the images prove of each rule: that of the ``margin``, and at top-1 MLPerf's two.

    MLPerf lets a candidate lose 1 % or 0.1 % of the reference's accuracy: at 76 % top-1 these are margins of 0.76 and
    0.076 points. ``met`` is its own rule, on the accuracies as measured: at least 99 % or 99.9 % of the reference's.
    ``outcome`` asks for more than it does, that the images show it of images not seen too.

    Args:
        reference: Accuracy of the reference at top ``loss.k``, percent of ``images``.
        loss: As measured on these images.
        images: How many.
        margin: Points, above 0 and at most 100.

    Raises:
        SpecError: a margin out of its range.

    Source: MLCommons, MLPerf inference rules, "closed division": 99 % and 99.9 % of the fp32 reference's accuracy.
    """
    if not 0 < margin <= 100:  # a NaN fails here
        raise SpecError(f"a margin of {margin:g} points cannot be shown", fix="give points above 0, 100 at most")
    changed = loss.lost + loss.gained
    rules = [(f"margin {margin:g}", margin, loss.drop <= margin)]
    if loss.k == 1:
        right = round(reference * images / 100)
        rules += [(name, reference / parts, (loss.lost - loss.gained) * parts <= right) for name, parts in MLPERF]
    return tuple(
        Verdict(
            rule,
            loss.k,
            points,
            outcome(loss, points),
            met,
            provable(changed, images),
            images_needed(points, changed, images),
        )
        for rule, points, met in rules
    )


def outcome(loss: Loss, margin: float) -> Outcome:
    """The interval against a margin in points; one that ends on the margin is not beside it, and shows nothing."""
    if loss.high < margin:
        return "shown"
    return "shown worse" if loss.low > margin else "not shown"


def provable(changed: int, images: int) -> float:
    """Points: the upper end of the interval where ``changed`` images are discordant and as many are lost as gained.

    It is where Tango's interval ends then, 100 z sqrt(changed + z^2) / (images + z^2), and a margin must be above it.
    """
    z2 = Z95 * Z95
    return 100 * Z95 * math.sqrt(changed + z2) / (images + z2)


def images_needed(margin: float, changed: int, images: int) -> int:
    """Images that show ``margin`` points of an equal candidate with a chance of 80 %; 0 where no number would.

    The candidate is taken to lose as many images as it gains but for chance, and to change the share of all that was
    seen, ``changed`` of ``images``. That many images whose ``provable`` is the margin would have an even chance only;
    the chance of 80 % takes about twice as many.

    Source: the score test's sample size of Nam, "Establishing equivalence of two treatments and sample size
    requirements in matched-pairs design", Biometrics 53 (1997) 1422-1430, at no difference; the share of discordant
    pairs as what decides it: Connor, "Sample size for testing differences in proportions for the paired-sample design",
    Biometrics 43 (1987) 207-211.
    """
    if margin <= 0:
        return 0
    share, limit = changed / images, margin / 100
    at_limit = (share + math.sqrt(share**2 + 4 * limit**2 * (1 - share))) / 2 - limit**2
    return math.floor(((Z95 * math.sqrt(max(0.0, at_limit)) + Z80 * math.sqrt(share)) / limit) ** 2) + 1
