"""Engines in C++: Python's answers, from one thread or several, without leaks; and plain refusals."""

import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import bundles

from dlcv_deploy import host, preflight
from dlcv_deploy.runtime import Engine
from dlcv_deploy.store import Store
from dlcv_deploy.types import Dim
from dlcv_deploy.types import Engine as Compiled

EXAMPLE = Path(__file__).parents[2] / "examples" / "cpp"
ANSWER = np.dtype([("index", "<i4"), ("probability", "<f8")])
SANITIZED = {
    "TBB_ENABLE_SANITIZERS": "1",  # else TBB opens a library in a way (RTLD_DEEPBIND) that sanitizers refuse
    "TSAN_OPTIONS": "exitcode=0",  # reports are judged here
}
LEAKS = """
# OpenVINO 2026.4 keeps one stream for the thread that loads, in memory of the thread, and never gives it back
leak:ov::threading::CPUStreamsExecutor::get_stream_id
"""
LOADER = """
{
   glibc's loader compares eight bytes at a time, beyond the end of a name
   Memcheck:Addr8
   fun:strncmp
   fun:is_dst
   ...
}
"""


@pytest.fixture(scope="session")
def compiled(request, need):
    """The engine of OpenVINO for ``models.net``."""
    need("openvino")
    return bundles.compiled("openvino", Store(Path(request.config.cache.mkdir("engines"))))


@pytest.fixture(scope="session")
def net(compiled, tmp_path_factory):
    return bundles.bundle(tmp_path_factory.mktemp("cpp") / "net.dlcv", compiled)


def pictures(count, height, width, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def called(*words, rc=0, timeout=300, **env):
    done = subprocess.run(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **SANITIZED, **env},
        check=False,
    )
    assert done.returncode == rc, done.stdout[-2000:] + done.stderr[-6000:]
    return done


def answers(program, bundle, images, crops, folder):
    """What C++ says of images, and of the first again by itself: five classes each."""
    source, out = folder / "images", folder / "answers"
    source.write_bytes(struct.pack("<3i", *images.shape[:3]) + images.tobytes())
    called(program, bundle, 5, crops, source, out)
    return np.frombuffer(out.read_bytes(), ANSWER).reshape(len(images) + 1, -1)


def check_same(found, bundle, images, crops):
    """The same classes in the same order, and probabilities within 1e-5."""
    with Engine.load(bundle, backend="openvino") as engine:
        wanted = [*engine.classify(images, crops=crops), engine.classify(images[0], crops=crops)]
    assert np.array_equal(found["index"], [[p.index for p in answer] for answer in wanted])
    assert np.allclose(found["probability"], [[p.probability for p in answer] for answer in wanted], rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch", [Dim(1, 2, 8), Dim(3, 3, 4), Dim(8, 8, 8)])
@pytest.mark.parametrize("crops", [1, 10])
def test_answers_are_pythons(cpp_build, compiled, tmp_path, batch, crops):
    bundle, images = bundles.bundle(tmp_path / "net.dlcv", compiled, batch=batch), pictures(9, 13, 17)
    check_same(answers(cpp_build().program("engine_answers"), bundle, images, crops, tmp_path), bundle, images, crops)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["--int8", "--fp32"])
def test_answers_are_pythons_for_every_test_image(cpp_build, need, cifar10_dir, tmp_path, precision):
    need("torch", "openvino")
    bundle = tmp_path / "resnet20.dlcv"
    called(
        *(Path(sys.executable).with_name("dlcv-deploy"), "build", "resnet20", precision),
        *("--target", "openvino", "-o", bundle),
        DLCV_DATA=str(cifar10_dir.parent),
        timeout=1200,
    )
    images = np.load(cifar10_dir / "test.npz")["images"]
    assert len(images) == 10_000
    check_same(answers(cpp_build().program("engine_answers"), bundle, images, 1, tmp_path), bundle, images, 1)


@pytest.mark.parametrize("kind", ["plain", "address"])
def test_threads_that_come_and_go(cpp_build, net, tmp_path, kind):
    (tmp_path / "leaks").write_text(LEAKS)
    done = called(
        cpp_build(kind).program("engine_threads"),
        net,
        LSAN_OPTIONS=f"suppressions={tmp_path / 'leaks'}:print_suppressions=0",
    )
    assert (done.stdout, done.stderr) == ("60 calls, 0 wrong\n", "")


def own_races(text):
    """Reports of the thread sanitizer in which one of the two accesses is this library's or the program's.

    OpenVINO is not compiled for it: what its threads hand to each other by atomics looks like a race there.
    """
    reports = [part for part in text.split("=" * 18) if "WARNING: ThreadSanitizer" in part]
    accesses = [re.split(r"\n  (?:Location|Mutex|Thread|As if)", report)[0] for report in reports]
    return [text for text in accesses if re.search(r"libdlcv|engine_threads", text)]


def test_threads_do_not_race(cpp_build, net):
    done = called(cpp_build("thread").program("engine_threads"), net)
    assert done.stdout == "60 calls, 0 wrong\n"
    assert own_races(done.stderr) == []


@pytest.mark.parametrize("times", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_loads_and_unloads_keep_no_memory(cpp_build, net, times):
    early, late = map(int, called(cpp_build().program("engine_loads"), net, times).stdout.split())
    assert late - early < 8 * 1024, f"{late - early} KiB more after {times} loads"


@pytest.mark.slow
@pytest.mark.parametrize("times", [2, 1000])
def test_valgrind_finds_no_leak(cpp_build, net, tmp_path, times):
    if not shutil.which("valgrind"):
        pytest.skip("needs valgrind: not installed")
    (tmp_path / "loader").write_text(LOADER)
    program = cpp_build().program("engine_loads")
    checks = ("--leak-check=full", "--errors-for-leak-kinds=definite,indirect", "--error-exitcode=9")
    done = called("valgrind", *checks, f"--suppressions={tmp_path / 'loader'}", program, net, times, timeout=7200)
    assert "definitely lost: 0 bytes" in done.stderr
    assert "indirectly lost: 0 bytes" in done.stderr


def refused(cpp_build, bundle, rc):
    """Code and words of a bundle that is not loaded."""
    code, _, words = called(cpp_build().program("engine_answers"), bundle, 5, 1, "-", "-", rc=rc).stderr.partition("|")
    return code, words.rstrip("\n")


def test_an_engine_for_a_gpu_is_refused_without_one(cpp_build, need, tmp_path):
    need("tensorrt_rtx")
    here = host.here()
    if here.gpu is not None:
        pytest.skip("there is a GPU")
    version = here.runtimes["tensorrt_rtx"]
    plan = {"model.rtx.engine": b"plan"}
    engine = Compiled("tensorrt_rtx", "SM 8.0 and later", version, plan, (), Dim(1, 1, 8))
    bundle = bundles.bundle(tmp_path / "net.dlcv", engine)
    finding = preflight.preflight(bundle, here)[0]
    assert finding.code == "gpu_none"
    assert refused(cpp_build, bundle, 3) == ("gpu_none", f"{finding.what}\n  fix: {finding.fix}")


def test_no_bundle(cpp_build, need, tmp_path):
    need("openvino")
    code, words = refused(cpp_build, tmp_path / "none.dlcv", 5)
    assert code == "no_bundle"
    assert words.startswith(f"there is no bundle at {tmp_path / 'none.dlcv'}\n  fix: ")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"model.xml": b"<net/"}, "the openvino engine cannot be read: "),
        ({"model.bin": b""}, "the openvino engine cannot be read: "),
        ({"model.xml": b""}, "the openvino engine's file model.xml is empty\n  fix: build it again"),
    ],
)
def test_an_engine_that_openvino_does_not_take(cpp_build, compiled, tmp_path, files, words):
    engine = Compiled("openvino", "CPU", compiled.version, {**compiled.files, **files}, (), bundles.BATCH)
    assert refused(cpp_build, bundles.bundle(tmp_path / "net.dlcv", engine), 5)[1].startswith(words)


def test_labels_of_other_classes(cpp_build, compiled, tmp_path):
    bundle = bundles.bundle(tmp_path / "net.dlcv", compiled, labels=("ant", "bee"))
    code, words = refused(cpp_build, bundle, 5)
    assert code == "manifest_damaged"
    assert "there are 2 labels" in words


def test_the_example_builds_and_answers(cpp_build, net, tmp_path):
    from PIL import Image

    build, image = cpp_build(), tmp_path / "one.png"
    pixels = pictures(1, 20, 12)[0]
    Image.fromarray(pixels).save(image)
    called(build.cmake, "-S", EXAMPLE, "-B", tmp_path / "build", *build.cmake_options)
    called(build.cmake, "--build", tmp_path / "build")
    program = tmp_path / "build" / "classify"
    first, blank, name, *lines, last = called(program, net, image).stdout.splitlines()
    assert (first, blank, name) == ("net, fp32, openvino", "", f"{image} (12 x 20)")
    with Engine.load(net) as engine:
        assert lines == [f"  {100 * p.probability:6.2f} %  {p.label}" for p in engine.classify(pixels)]
    assert re.fullmatch(r"  \d+\.\d{3} ms from pixels to classes, median of 20 calls", last)
    assert called(program, rc=2).stderr == "usage: classify BUNDLE IMAGE...\n"
    assert called(program, tmp_path / "none.dlcv", image, rc=5).stderr.startswith("error: there is no bundle at ")
    assert called(program, net, net / "labels.txt", rc=5).stderr.startswith("error: ")
