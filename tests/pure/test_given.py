"""Images that a program has at hand are samples like any others, whatever it keeps them in."""

import errno
import gc
import os
import threading
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from dlcv_deploy.calibration import given
from dlcv_deploy.calibration.samples import contents, from_images
from dlcv_deploy.errors import ArtifactError, SpecError

RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, shape, np.uint8) for shape in ((6, 9, 3), (4, 4, 3), (1, 7, 3))]


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    "images",
    [PICTURES, tuple(PICTURES), iter(PICTURES), (p for p in PICTURES), map(Image.fromarray, PICTURES)],
    ids=["list", "tuple", "iterator", "generator", "pillow"],
)
def test_images_come_out_as_they_went_in(images):
    samples = from_images(images, source="three pictures")
    assert len(samples) == 3
    assert (samples.source, samples.labels, samples.skipped, samples.random) == ("three pictures", None, (), False)
    for _ in range(2):  # as often as one likes
        assert all(np.array_equal(samples.image(i), picture) for i, picture in enumerate(PICTURES))
    assert samples.image(0).dtype == np.uint8
    assert [samples.name(i) for i in range(3)] == ["images[0]", "images[1]", "images[2]"]
    assert samples.sha256() == from_images(PICTURES).sha256() != from_images(PICTURES[::-1]).sha256()
    assert contents(samples) == contents(from_images(PICTURES[::-1])) != contents(from_images(PICTURES[:2]))
    with pytest.raises(IndexError):
        samples.image(3)


def test_the_shape_is_part_of_an_image():
    flat, tall = PICTURES[0], PICTURES[0].reshape(9, 6, 3)
    assert from_images([flat]).digest_of(0) != from_images([tall]).digest_of(0)


def test_an_array_of_images_is_a_sequence():
    stack = RNG.integers(0, 256, (4, 5, 5, 3), np.uint8)
    samples = from_images(stack)
    assert np.shares_memory(samples.image(2), stack)
    assert samples.source == "images from Python"


class DataSet:
    def __init__(self):
        self.asked, self.at_work = [], threading.Lock()

    def __len__(self):
        return 50

    def __getitem__(self, i):
        assert self.at_work.acquire(blocking=False), "two threads at once"
        self.asked.append(i)
        time.sleep(0.0005)
        picture = np.full((3, 3, 3), i, np.uint8)
        self.at_work.release()
        return picture


def test_a_sequence_is_read_on_demand_and_by_one_thread_at_a_time():
    data = DataSet()
    samples = from_images(data)
    assert data.asked == []
    found = {}
    threads = [
        threading.Thread(target=lambda: found.update({i: samples.image(i)[0, 0, 0] for i in range(50)}))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(data.asked) == 150
    assert found == {i: i for i in range(50)}


def test_what_can_be_gone_through_once_is_kept_on_disk_and_closed_with_its_samples():
    before = open_files()
    tracemalloc.start()
    samples = from_images(np.full((200, 200, 3), i, np.uint8) for i in range(100))  # 12 MB
    assert [int(samples.image(i)[7, 7, 0]) for i in (99, 0, 42)] == [99, 0, 42]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    assert open_files() == before + 1
    del samples
    gc.collect()
    assert open_files() == before


WRONG = [
    (np.zeros((4, 4, 3), np.float32), "float32 of shape (4, 4, 3)"),
    (np.zeros((3, 4, 4), np.uint8), "uint8 of shape (3, 4, 4)"),
    (np.zeros((4, 4), np.uint8), "uint8 of shape (4, 4)"),
    (np.zeros((0, 4, 3), np.uint8), "uint8 of shape (0, 4, 3)"),
    (None, "object of shape ()"),
    ("cat.png", "of shape ()"),
    ([[1], [1, 2]], "is no array"),
]


@pytest.mark.parametrize(("bad", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_is_no_image_is_named(bad, words):
    before = open_files()
    with pytest.raises(SpecError) as e:
        from_images(iter([PICTURES[0], bad]))
    samples = from_images([PICTURES[0], bad])
    samples.image(0)
    with pytest.raises(SpecError) as later:
        samples.image(1)
    assert str(e.value) == str(later.value)
    assert "images[1]" in str(e.value)
    assert words in str(e.value)
    assert "uint8 of shape (height, width, 3)" in e.value.fix
    del samples
    gc.collect()
    assert open_files() == before


def test_no_images_and_mappings_are_refused():
    for nothing in ([], iter([]), np.zeros((0, 4, 4, 3), np.uint8)):
        with pytest.raises(SpecError, match="no images"):
            from_images(nothing)
    with pytest.raises(SpecError, match="mapping") as e:
        from_images({"cat": PICTURES[0]})
    assert "values()" in e.value.fix


def test_an_error_of_the_program_stays_its_own_and_a_full_disk_is_explained(monkeypatch):
    def images():
        yield PICTURES[0]
        raise FileNotFoundError("dog.png")

    with pytest.raises(FileNotFoundError, match=r"dog\.png"):
        from_images(images())

    class Full:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            closed.append(True)

    closed = []
    monkeypatch.setattr(given, "nameless", Full)
    with pytest.raises(ArtifactError, match=r"the images cannot be kept in .*: No space left") as e:
        from_images(iter(PICTURES))
    assert "TMPDIR" in e.value.fix
    assert closed == [True]
