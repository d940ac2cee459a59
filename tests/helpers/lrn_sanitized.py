"""What compute-sanitizer watches: every kernel on small, awkward maps, each tensor an allocation of its own.

    compute-sanitizer --tool memcheck python lrn_sanitized.py libdlcv_lrn.so
    compute-sanitizer --tool memcheck python lrn_sanitized.py libdlcv_lrn.so --past-the-end

With ``--past-the-end`` an input is one image short, which memcheck must say.
"""

import itertools
import sys
from pathlib import Path

from dlcv_deploy.plugin.cases import POOL, Case, complaint
from dlcv_deploy.plugin.device import DeviceKernels
from dlcv_deploy.plugin.formats import FORMATS
from dlcv_deploy.plugin.gpu import Gpu
from dlcv_deploy.plugin.interface import Operator, load

WINDOWS = (1, 3, 5, 7, 9, 15)
SHAPES = ((2, 37, 4, 6), (1, 5, 9, 7), (1, 70, 17, 18))
GENERAL = (5, 4, 2, 3, 2, 1, 2, 3)
"""A pool that is not compiled for."""


def cases():
    """Every window that is compiled and the general one, each format, with no pool, 3x3 and another."""
    for form, size, pool in itertools.product(FORMATS, WINDOWS, (None, POOL, GENERAL)):
        for shape in SHAPES:
            yield Case(form, size, shape, pool)


def watched(kernels):
    """Run them; what is wrong with the first wrong answer, empty where none is."""
    for case in cases():
        for multiprocessors in (0, 108):
            x = case.drawn()
            if wrong := complaint(case, x, case.run(kernels, x, multiprocessors=multiprocessors, guard_bytes=0), 2.0):
                return wrong
    return ""


def past_the_end(kernels):
    """Read an image that is not there."""
    case = Case("fp32 linear", 5, (1, 64, 32, 32))
    (stream,) = kernels.device.streams(1)
    with kernels.place(case.drawn(), case.format, Operator(5, 1e-4, 0.75, 1.0), guard_bytes=0) as placed:
        placed.send(stream)
        placed.launch(stream, shape=(2, 64, 32, 32))
        placed.fetch(stream)


def main(library, *words):
    kernels = DeviceKernels(load(Path(library)), Gpu())
    if "--past-the-end" in words:
        past_the_end(kernels)
        return "nothing was noticed"
    return watched(kernels) or None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
