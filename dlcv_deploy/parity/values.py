"""What is measured of parity: accuracy in percent, losses in points, errors of logits."""

from __future__ import annotations

import dataclasses as dc
from typing import Literal

Average = Literal["softmax", "logits"]
"""What is averaged over an image's crops."""
Change = Literal["right to wrong", "wrong to right", "wrong to wrong", "changed"]
"""What a flip did to an image; "changed" where no label says which answer was right."""
Outcome = Literal["shown", "not shown", "shown worse"]


@dc.dataclass(frozen=True, slots=True)
class Flip:
    """An image that the candidate classifies otherwise than the reference.

    ``label`` is -1 where none is known; ``reference`` or ``candidate`` is -1 where it answered NaN or infinity. The
    margins are the probability of the best class less that of the next, for the reference before and for the candidate
    after; ``None`` where an answer was not finite. ``thumbnail`` is the image, small, as the base64 of a JPEG or PNG
    file; empty where none was kept.
    """

    index: int
    name: str
    label: int
    reference: int
    candidate: int
    margin_before: float | None = None
    margin_after: float | None = None
    thumbnail: str = ""

    @property
    def change(self) -> Change:
        """What became of the answer."""
        if self.label < 0:
            return "changed"
        if self.reference == self.label:
            return "right to wrong"
        return "wrong to right" if self.candidate == self.label else "wrong to wrong"


@dc.dataclass(frozen=True, slots=True)
class OutputError:
    """How far one output besides the logits is from the reference's, on the centre crop of each image.

    Each image's output, map or vector, counts as one vector. ``cosine_mean`` and ``cosine_min`` are over the images: 1
    where two vectors are equal or point the same way, 0 where they are orthogonal or one of them is zero.
    ``error_percent`` is the L2 norm of the difference over that of the reference, of all images together, and
    ``error_max_percent`` the greatest of one image. ``neighbours_percent`` is, for outputs that are vectors, the mean
    share of an image's five nearest others that it has in both, among the first ``neighbours_of`` images; ``None``
    where those are too few. ``non_finite`` counts the images on which either side was NaN or infinite anywhere; all
    figures are NaN then.
    """

    name: str
    cosine_mean: float | None
    cosine_min: float | None
    error_percent: float | None
    error_max_percent: float | None
    neighbours_percent: float | None = None
    neighbours_of: int = 0
    non_finite: int = 0


@dc.dataclass(frozen=True, slots=True)
class Verdict:
    """What the images prove of a rule that lets a candidate lose at most ``margin`` points at top ``k``.

    ``rule`` is its name ("margin 0.5", "MLPerf 99 %"). ``outcome`` holds the 95 % interval against the margin: "shown"
    where all of it is below, "shown worse" where all of it is above. ``met`` is what the figures alone say, without
    regard to chance. ``provable`` is the smallest margin that so many images could show of an equal candidate, with as
    many answers changed; ``images_needed`` the images that would show ``margin`` of one with a chance of 80 %, 0 where
    no number would.
    """

    rule: str
    k: int
    margin: float
    outcome: Outcome
    met: bool
    provable: float
    images_needed: int


@dc.dataclass(frozen=True, slots=True)
class Loss:
    """Reference minus candidate accuracy at top ``k`` in points, over the same images, with a paired 95 % interval.

    ``lost`` images only the reference had right, ``gained`` only the candidate. ``p_value`` is McNemar's exact test's,
    two-sided, of the two being equal.
    """

    k: int
    drop: float
    low: float
    high: float
    lost: int
    gained: int
    p_value: float


@dc.dataclass(frozen=True, slots=True)
class Step:
    """A leg beside the one before it on the way from the original to the engine (``previous``), on the same pixels.

    ``cosine`` is the mean over the images of that of their mean logits; ``drop`` is in points of top-1.
    """

    previous: str
    drop: float | None
    flips: int
    cosine: float | None
    sqnr_db: float | None
    max_abs: float | None


@dc.dataclass(frozen=True, slots=True)
class ClassCount:
    """How one class fared: images with that label, and how many of them each side had right."""

    label: int
    images: int
    reference: int
    candidate: int
    lost: int
    gained: int


@dc.dataclass(frozen=True, slots=True)
class Leg:
    """One candidate beside the reference, on the same pixels.

    Accuracies are percent, ``None`` without labels, and so are the ``losses``, of top-1 and top-5. ``logit_max_abs``,
    ``logit_sqnr_db`` and ``cosine`` compare the logits before the softmax. ``not_run`` says why the candidate could not
    be run here; every figure is then ``None``. ``non_finite`` counts the images answered with NaN or infinity: wrong,
    flipped, and without a logit error (NaN). ``outputs`` are those besides the logits. ``classes`` are those that have
    images, in their order.
    """

    name: str
    top1: float | None = None
    top5: float | None = None
    losses: tuple[Loss, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    agreement: float | None = None
    flips: tuple[Flip, ...] = ()
    logit_max_abs: float | None = None
    logit_sqnr_db: float | None = None
    cosine: float | None = None
    step: Step | None = None
    classes: tuple[ClassCount, ...] = ()
    not_run: str = ""
    non_finite: int = 0
    outputs: tuple[OutputError, ...] = ()

    def loss(self, k: int) -> Loss | None:
        """The loss at top ``k``, where it was measured."""
        return next((loss for loss in self.losses if loss.k == k), None)

    @property
    def drop(self) -> float | None:
        """Points of top-1 accuracy lost."""
        found = self.loss(1)
        return None if found is None else found.drop


@dc.dataclass(frozen=True, slots=True)
class ParityReport:
    """The reference's accuracy and every leg's, over ``images`` images with ``crops`` crops each.

    ``non_finite`` counts the images that the reference itself answers with NaN or infinity. ``margin`` is the loss in
    points that verdicts allow. ``rotated`` counts images whose EXIF orientation was ignored, as the papers' pipelines
    do.
    """

    source: str
    images: int
    crops: int
    labelled: bool
    top1: float | None
    top5: float | None
    legs: tuple[Leg, ...]
    non_finite: int = 0
    average: Average = "softmax"
    margin: float = 0.5
    rotated: int = 0


@dc.dataclass(frozen=True, slots=True)
class LayerError:
    """How far one layer's output in a graph is from the fp32 graph's; ``module`` as PyTorch names it, else the node.

    ``op_type`` names all that belongs to the layer ("Conv+Relu"); the network's input, where it is rounded, is "Input".
    ``sqnr_db`` is infinite where nothing differs and NaN where a value was not finite: JSON has neither, and
    ``cosine``, 1 or NaN, tells them apart.
    """

    node: str
    module: str
    op_type: str
    sqnr_db: float
    cosine: float


@dc.dataclass(frozen=True, slots=True)
class Drift:
    """Every layer of a graph beside fp32, in the order of computation, on ``images`` images.

    ``outlier`` is the module of the first layer that falls out of line with those before it, empty where none does.
    ``unmatched`` counts the layers of the fp32 graph that the other has no tensor for.
    """

    graph: str
    images: int
    layers: tuple[LayerError, ...]
    outlier: str = ""
    unmatched: int = 0


@dc.dataclass(frozen=True, slots=True)
class Check:
    """One property of an engine that was tried: whether it held, and what was seen; ``None`` where it could not be."""

    name: str
    passed: bool | None
    said: str


@dc.dataclass(frozen=True, slots=True)
class Consistency:
    """Whether an engine agrees with itself: rows of a batch, batch sizes, sessions, threads."""

    engine: str
    checks: tuple[Check, ...]
    not_run: str = ""

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not hold; what could not be tried has not failed."""
        return tuple(check for check in self.checks if check.passed is False)
