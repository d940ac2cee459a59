"""The C interface, as another language calls it: the answers of Python, and words where there are none."""

import ctypes
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import bundles
from PIL import Image

from dlcv_deploy import __version__
from dlcv_deploy.runtime import Engine
from dlcv_deploy.store import Store

OK, REQUEST, MISSING, ARTIFACT = 0, 2, 3, 5


class Prediction(ctypes.Structure):
    _fields_ = (("index", ctypes.c_int), ("label", ctypes.c_char_p), ("probability", ctypes.c_double))


@pytest.fixture(scope="module")
def library(cpp_build, need):
    need("openvino")
    found = ctypes.CDLL(str(cpp_build().library))
    engine, size, status = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    into, count = ctypes.POINTER(Prediction), ctypes.POINTER(ctypes.c_size_t)
    for name, result, *arguments in (
        ("version", ctypes.c_char_p),
        ("last_error", ctypes.c_char_p),
        ("load", status, ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p)),
        ("free", None, engine),
        ("backend", ctypes.c_char_p, engine),
        ("classes", size, engine),
        ("label", ctypes.c_char_p, engine, size),
        ("input_size", size, engine),
        ("classify_file", status, engine, ctypes.c_char_p, status, status, into, count),
        ("classify_rgb", status, engine, ctypes.c_char_p, status, status, status, status, into, count),
        ("run", status, engine, ctypes.c_void_p, size, ctypes.c_void_p),
    ):
        function = found[f"dlcv_{name}"]
        function.restype, function.argtypes = result, arguments
        setattr(found, name, function)
    return found


@pytest.fixture(scope="module")
def path(request, tmp_path_factory, need):
    need("openvino")
    kept = Store(Path(request.config.cache.mkdir("engines")))
    return bundles.bundle(tmp_path_factory.mktemp("c") / "n.dlcv", bundles.compiled("openvino", kept))


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(3).integers(0, 256, (13, 17, 3), np.uint8)


@pytest.fixture
def engine(library, path):
    loaded = ctypes.c_void_p()
    assert library.load(bytes(path), None, ctypes.byref(loaded)) == OK
    yield loaded
    library.free(loaded)


def classified(library, engine, pixels, *, top=5, crops=1):
    found, count = (Prediction * 8)(), ctypes.c_size_t(99)
    height, width = pixels.shape[:2]
    status = library.classify_rgb(engine, pixels.tobytes(), width, height, crops, top, found, ctypes.byref(count))
    return status, [(each.index, each.label.decode(), each.probability) for each in found[: count.value]]


def test_what_an_engine_is(library, engine):
    assert library.version().decode() == __version__
    assert library.backend(engine) == b"openvino"
    assert [library.label(engine, i).decode() for i in range(library.classes(engine))] == list(bundles.LABELS)
    assert library.label(engine, 5) is None
    assert library.input_size(engine) == 3 * 8 * 8


def test_answers_are_those_of_python(library, engine, path, pixels, tmp_path):
    file = tmp_path / "é.png"
    Image.fromarray(pixels).save(file)
    found, count = (Prediction * 3)(), ctypes.c_size_t()
    with Engine.load(path) as python:
        for crops in (1, 10):
            status, answers = classified(library, engine, pixels, crops=crops)
            assert status == OK
            expected = python.classify(pixels, crops=crops)
            assert [a[:2] for a in answers] == [(e.index, e.label) for e in expected]
            assert [a[2] for a in answers] == pytest.approx([e.probability for e in expected], abs=1e-5)
        assert library.classify_file(engine, bytes(file), 1, 3, found, ctypes.byref(count)) == OK
        assert [each.index for each in found] == [e.index for e in python.classify(file, top=3)]
        rows = np.concatenate([python.preprocess(pixels, crops=10)] * 2)
        logits = np.zeros((20, 5), np.float32)
        assert library.run(engine, rows.ctypes.data, 20, logits.ctypes.data) == OK
        np.testing.assert_allclose(logits, python.run(rows)["y"], atol=1e-5)
    assert count.value == 3


def test_more_are_not_told_than_there_are_classes(library, engine, pixels):
    assert len(classified(library, engine, pixels, top=8)[1]) == 5
    assert len(classified(library, engine, pixels, top=1)[1]) == 1


def test_nothing_is_no_crash(library, engine, path, pixels):
    found, count = (Prediction * 8)(), ctypes.c_size_t(7)
    library.free(None)
    assert library.backend(None) is None
    assert library.label(None, 0) is None
    assert (library.classes(None), library.input_size(None)) == (0, 0)
    rows = np.zeros((1, 3, 8, 8), np.float32).ctypes.data
    for call, name in (
        (lambda: library.load(None, None, ctypes.byref(ctypes.c_void_p())), "bundle"),
        (lambda: library.load(bytes(path), None, None), "engine"),
        (lambda: library.classify_file(engine, None, 1, 5, found, ctypes.byref(count)), "path"),
        (lambda: library.classify_file(engine, b"x.png", 1, 5, None, ctypes.byref(count)), "found"),
        (lambda: library.classify_rgb(engine, None, 8, 8, 1, 5, found, ctypes.byref(count)), "rgb"),
        (lambda: library.classify_rgb(engine, bytes(192), 8, 8, 1, 5, found, None), "count"),
        (lambda: library.classify_rgb(None, bytes(192), 8, 8, 1, 5, found, ctypes.byref(count)), "engine"),
        (lambda: library.run(None, rows, 1, rows), "engine"),
        (lambda: library.run(engine, None, 1, rows), "input"),
        (lambda: library.run(engine, rows, 1, None), "logits"),
    ):
        assert call() == REQUEST
        assert library.last_error().decode() == f"{name} is NULL\n  fix: give the address of one"
    assert count.value == 0


@pytest.mark.parametrize("size", [(0, 8), (8, 0), (-1, 8), (-(2**31), -(2**31))])
def test_an_image_without_pixels(library, engine, size):
    found, count = (Prediction * 8)(), ctypes.c_size_t()
    assert library.classify_rgb(engine, bytes(192), *size, 1, 5, found, ctypes.byref(count)) == REQUEST
    assert library.last_error().decode().startswith(f"an image of {size[0]} x {size[1]} pixels")


def test_errors_have_the_words_of_python(library, path, engine, pixels, tmp_path):
    loaded = ctypes.c_void_p(7)
    nothing = tmp_path / "nothing.dlcv"
    assert library.load(bytes(nothing), None, ctypes.byref(loaded)) == ARTIFACT
    assert loaded.value is None
    words = f"there is no bundle at {nothing}\n  fix: dlcv-deploy build MODEL -o PATH makes one"
    assert library.last_error().decode() == words
    assert library.load(bytes(path), b"tensorrt", ctypes.byref(loaded)) == REQUEST
    assert library.last_error().decode().startswith("the bundle holds no engine for tensorrt; it holds openvino")
    assert classified(library, engine, pixels, crops=3)[0] == REQUEST
    found, count = (Prediction * 8)(), ctypes.c_size_t()
    (tmp_path / "no.png").write_bytes(b"\x89PNG\r\n")
    assert library.classify_file(engine, bytes(tmp_path / "no.png"), 1, 5, found, ctypes.byref(count)) == ARTIFACT
    assert "no.png" in library.last_error().decode()


def test_words_are_of_the_thread_that_called(library, tmp_path):
    loaded, others = ctypes.c_void_p(), []
    assert library.load(bytes(tmp_path / "mine"), None, ctypes.byref(loaded)) == ARTIFACT

    def other():
        others.append(library.last_error())
        library.load(bytes(tmp_path / "other"), None, ctypes.byref(ctypes.c_void_p()))
        others.append(library.last_error())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert others[0] == b""
    assert b"other" in others[1]
    assert b"mine" in library.last_error()
