"""A wrong kernel is caught: each of these is the kernels' source with one mistake in it, which the judge must see."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dlcv_deploy.plugin import host
from dlcv_deploy.plugin.cases import POOL, Case, complaint

CSRC = host._SOURCE.parents[1]
MUTANTS = {
    "window one too narrow": (
        "lrn_math.h",
        "for (int d = -kHalf; d <= kHalf; ++d)",
        "for (int d = -kHalf; d < kHalf; ++d)",
    ),
    "general window one too wide": ("lrn_math.h", "(d <= c.half && -d <= c.half)", "(d <= c.half + 1 && -d <= c.half)"),
    "alpha not divided": ("lrn_kernel.cu", "static_cast<double>(a.alpha) / a.size * in * in", "a.alpha * in * in"),
    "the paper's alpha, times the window": ("lrn_kernel.cu", "(a.alpha) / a.size", "(a.alpha) * a.size"),
    "sums in float16": (
        "lrn_math.h",
        "sum = fmaf(v, v, sum);",
        "sum = __half2float(__float2half_rn(fmaf(v, v, sum)));",
    ),
    "scale of the input not squared": ("lrn_kernel.cu", "/ a.size * in * in", "/ a.size * in"),
    "gain turned over": ("lrn_kernel.cu", "static_cast<float>(in / out)", "static_cast<float>(out / in)"),
    "beta of one half": ("lrn_math.h", "return root * of_root;", "return root;"),
    "halo before a chunk missing": (
        "lrn_kernel.cu",
        "window.load(i, x + image, map, first - W::kHalo + i, pixel, true)",
        "window.load(i, x + image, map, first - W::kHalo + i, pixel, i >= W::kHalo)",
    ),
    "halo behind a chunk missing": (
        "lrn_kernel.cu",
        "window.load(2 * W::kHalo + i, x + image, map, piece + W::kHalo + i, pixel, true)",
        "window.load(2 * W::kHalo + i, x + image, map, piece + W::kHalo + i, pixel, piece + W::kHalo + i < last)",
    ),
    "channels that pad the vector count": (
        "lrn_kernel.cu",
        "values[place * L::kChannels + i][p] = channel ?",
        "values[place * L::kChannels + i][p] = true ?",
    ),
    "padding channels not cleared": (
        "lrn_kernel.cu",
        "L::Type::written(channel ? y : 0.0f)",
        "L::Type::written(y + (channel ? 0.0f : 1.0f))",
    ),
    "channels and pixels swapped": (
        "lrn_layout.h",
        "(pixel * map.pieces + piece) * kChannels",
        "(piece * map.pixels + pixel) * kChannels",
    ),
    "vectors of 32 as if of 8": (
        "lrn_layout.h",
        "constexpr int kPerVector = kVector / kChannels;",
        "constexpr int kPerVector = 1;",
    ),
    "images of the batch overlap": (
        "lrn_layout.h",
        "static_cast<std::int64_t>(map.pieces) * kChannels * map.pixels",
        "static_cast<std::int64_t>(map.channels - 1) * map.pixels",
    ),
    "rounds towards zero": ("lrn_math.h", "bits_of_float(held + 1", "bits_of_float(truncf(held) + 1"),
    "saturates at -127": ("lrn_math.h", "fmaxf(v, -128.0f)", "fmaxf(v, -127.0f)"),
    "int8 without its sign": ("lrn_math.h", "8388736.0f", "8388608.0f"),
    "any beta as if it were 0.75": ("lrn_kernel.cu", "a.beta == 0.75f && a.bias >= FLT_MIN", "a.bias >= FLT_MIN"),
    "no barrier": ("lrn_kernel.cu", "    __syncthreads();\n", ""),
    "one buffer in place of two": (
        "lrn_kernel.cu",
        "buffer = L::kStep * kThreads - buffer;",
        "",
    ),
    "padding is 0 and not the lowest": (
        "lrn_kernel.cu",
        "inside ? made.values[k] : L::Type::lowest()",
        "inside ? made.values[k] : 0",
    ),
    "NaN loses": ("lrn_math.h", "return b > a || b != b ? b : a;", "return b > a ? b : a;"),
    "height and width swapped in strides": (
        "lrn_kernel.cu",
        "top * pool.about.strides[0] - pool.about.pads[0]",
        "top * pool.about.strides[1] - pool.about.pads[0]",
    ),
    "last tile cut off": (
        "lrn_kernel.cu",
        "pool.tiles = pool.tiles_across * divided_up(o.height, pool.tile.out_height)",
        "pool.tiles = pool.tiles_across * (o.height / pool.tile.out_height)",
    ),
    "general pool one row short": (
        "lrn_kernel.cu",
        "for (int h = 0; h < kernel_height; ++h)",
        "for (int h = 0; h < kernel_height - 1; ++h)",
    ),
}

CASES = (
    Case("fp32 linear", 5, (2, 21, 6, 6)),  # four pixels a thread
    Case("fp32 linear", 3, (1, 17, 5, 7), POOL),
    Case("fp32 linear", 5, (1, 3, 23, 23), POOL),  # rows that fill no whole tiles
    Case("fp32 linear", 13, (1, 30, 3, 3), beta=0.6),
    Case("fp16 linear", 5, (1, 19, 3, 5), spread=200.0),
    Case("fp16 linear", 5, (1, 9, 60, 9), (3, 3, 2, 1, 1, 1, 1, 1)),
    Case("fp16 kHWC8", 5, (2, 43, 5, 5)),
    Case("fp16 kHWC8", 7, (2, 12, 8, 8), (2, 3, 1, 2, 1, 1, 0, 2)),
    Case("int8 kCHW4", 5, (2, 38, 5, 5), scales=(0.3, 0.1)),
    Case("int8 kCHW4", 5, (1, 6, 9, 9), (3, 3, 2, 2, 2, 2, 2, 2), scales=(0.3, 0.02)),
    Case("int8 kCHW32", 5, (2, 70, 5, 5), scales=(0.05, 0.04)),
)


def verdict(kernels):
    """The first complaint about kernels, however the work is cut and the threads are ordered."""
    for seed, case in enumerate(CASES):
        x = case.drawn(seed)
        if case.format.dtype != "int8":
            x[0, 0, 1, 1] = np.nan  # not where the window of a pool begins
        for order in host.ORDERS:
            if said := complaint(case, x, case.run(kernels, x, order=order)):
                return said
    return ""


def judged(source):
    """What the judge says of a source folder's kernels, in a process of its own: a mistake may cost it its memory."""
    library = host.compile_host(source / "liblrn_host.so", ["-O0", "-Wno-error"], source / "host/lrn_host.cpp")
    done = subprocess.run([sys.executable, __file__, library], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}"
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def mutated(folder, mutant):
    file, old, new = MUTANTS[mutant]
    source = folder / mutant.replace(" ", "_").replace("'", "")
    shutil.copytree(CSRC, source)
    text = (source / file).read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
    (source / file).write_text(text.replace(old, new))
    return judged(source)


@pytest.fixture(scope="module")
def mutants(need, tmp_path_factory):
    """What the judge says, by mistake, as soon as it is known."""
    need("gxx")
    folder = tmp_path_factory.mktemp("mutants")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {mutant: pool.submit(mutated, folder, mutant) for mutant in MUTANTS}


def test_the_kernels_as_they_are(need, tmp_path):
    need("gxx")
    shutil.copytree(CSRC, tmp_path / "csrc")
    assert judged(tmp_path / "csrc") == ""


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mistake_is_caught(mutants, mutant):
    assert mutants[mutant].result() != ""


if __name__ == "__main__":
    sys.stdout.write(verdict(host.HostKernels(Path(sys.argv[1]))))
