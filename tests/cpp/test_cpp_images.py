"""The C++ library sees images as Python does: the same pixels, the same numbers, and the same files refused."""

import io
import os
import random
import struct
import subprocess
import zlib

import numpy as np
import PIL
import pytest
from helpers import odd_images as odd
from PIL import Image

from dlcv_deploy.calibration.images import decode
from dlcv_deploy.errors import ArtifactError, SpecError
from dlcv_deploy.parity import contract
from dlcv_deploy.parity.compare import softmax
from dlcv_deploy.parity.crops import canvas, crops, to_input
from dlcv_deploy.types import Preprocess

IMAGENET = Preprocess(224, 256, "resize", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR10 = Preprocess(32, 40, "pad", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))
FIX = "\n  fix: give another image, or leave it out"


def blocks(items):
    return b"".join(struct.pack("<ii", a, b) + data for a, b, data in items)


def unblocked(data):
    """Images as arrays, network inputs as flat arrays, errors as words."""
    found, at = [], 0
    while at < len(data):
        a, b = struct.unpack_from("<ii", data, at)
        at += 8
        size = b if a == 0 else 4 * a if b == 0 else 3 * a * b
        part = data[at : at + size]
        at += size
        if a == 0:
            found.append(part.decode())
        else:
            found.append(np.frombuffer(part, np.float32) if b == 0 else np.frombuffer(part, np.uint8).reshape(b, a, 3))
    return found


class Cpp:
    """The program ``pixels.cpp``."""

    def __init__(self, program, folder):
        self.program, self.given, self.told = program, folder / "in", folder / "out"

    def call(self, verb, data, *words, out=True):
        self.given.write_bytes(data)
        files = (self.given, self.told) if out else (self.given,)
        command = [str(word) for word in (self.program, verb, *files, *words)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-4000:]
        assert done.stderr == ""  # nothing of the libraries' own warnings
        return self.told.read_bytes() if out else done.stdout

    def decode(self, contents):
        return unblocked(self.call("decode", blocks((len(c), 0, c) for c in contents)))

    def input(self, images, pre, count):
        data = blocks((image.shape[1], image.shape[0], image.tobytes()) for image in images)
        return unblocked(self.call("input", data, count, pre.size, pre.canvas, pre.fit, *pre.mean, *pre.std))


@pytest.fixture
def cpp(cpp_build, tmp_path):
    return Cpp(cpp_build("plain").program("pixels"), tmp_path)


def python(content):
    try:
        return decode(io.BytesIO(content), "x")
    except ArtifactError as e:
        return str(e)


def assert_same(cpp, contents, lenient=0):
    """Each content gives the same pixels in both languages, or an error in both; the number of images.

    So many JPEGs may be read though Python refuses them: Pillow walks their markers first, and has its own libjpeg.
    """
    contents = list(contents)
    images = 0
    for i, (content, found) in enumerate(zip(contents, cpp.decode(contents), strict=True)):
        wanted = python(content)
        if lenient and content[:1] == b"\xff" and isinstance(wanted, str) and not isinstance(found, str):
            lenient -= 1
            continue
        assert isinstance(found, str) == isinstance(wanted, str), (i, found, wanted)
        if not isinstance(wanted, str):
            np.testing.assert_array_equal(found, wanted, str(i))
            images += 1
    return images


def assert_inputs(cpp, images, pre, count):
    for image, found in zip(images, cpp.input(images, pre, count), strict=True):
        wanted = to_input(crops(canvas(image, pre), pre, count), pre)
        np.testing.assert_array_equal(found.view(np.int32), wanted.ravel().view(np.int32), str(image.shape))


def test_pngs_of_every_kind_have_the_same_pixels(cpp):
    contents = [*odd.pngs(np.random.default_rng(0)), *odd.converted_pngs(np.random.default_rng(1))]
    assert assert_same(cpp, contents) == len(contents)


def test_jpegs_of_every_kind_have_the_same_pixels(cpp):
    contents = list(odd.jpegs(np.random.default_rng(0)))
    assert assert_same(cpp, contents) == len(contents)


def test_photographs_have_the_same_pixels_and_become_the_same_numbers(cpp, imagenet224_dir):
    contents = [path.read_bytes() for path in sorted((imagenet224_dir / "images").iterdir())[::5]]
    assert assert_same(cpp, contents) == len(contents)
    jpegs = [odd.saved(Image.open(io.BytesIO(c)).convert("RGB"), quality=80) for c in contents]
    assert assert_same(cpp, jpegs) == len(jpegs)
    for count in (1, 10):
        assert_inputs(cpp, [python(c) for c in contents[:6]], IMAGENET, count)


@pytest.mark.parametrize("pre", [IMAGENET, CIFAR10], ids=["resize", "pad"])
@pytest.mark.parametrize("count", [1, 10])
def test_images_of_the_golden_sizes_become_the_same_numbers(cpp, pre, count):
    rng = np.random.default_rng(2)
    images = [np.asarray(odd.picture(rng, width, height)) for height, width in contract.golden_sizes(pre)]
    assert_inputs(cpp, images, pre, count)


def test_any_size_becomes_the_same_numbers(cpp):
    rng = np.random.default_rng(3)
    for _ in range(25):
        side = int(rng.integers(1, 60))
        mean, std = ([float(v) for v in rng.random(3) + 0.01] for _ in range(2))
        pre = Preprocess(int(rng.integers(1, side + 1)), side, "resize", tuple(mean), tuple(std))
        shapes = [(int(h), int(w), 3) for h, w in rng.integers(1, 200, (6, 2))]
        if int(PIL.__version__.split(".")[0]) < 13:  # scaled tall images down horizontally first
            shapes = [(h, w, 3) for h, w, _ in shapes if h <= 2 * w - 2]
        images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
        assert_inputs(cpp, images, pre, int(rng.choice([1, 10])))


def test_an_image_of_one_row_of_a_million_pixels_takes_no_more_than_its_square(cpp):
    image = np.random.default_rng(4).integers(0, 256, (1, 1_000_000, 3), dtype=np.uint8)
    (found,) = cpp.input([image], IMAGENET, 1)
    assert found.shape == (3 * 224 * 224,)


def test_an_image_that_must_not_be_scaled_and_crops_that_cannot_be_cut_are_told_as_in_python(cpp):
    image = np.zeros((33, 32, 3), np.uint8)
    with pytest.raises(SpecError) as told:
        canvas(image, CIFAR10)
    assert cpp.input([image], CIFAR10, 1) == [str(told.value)]
    fix = "give 1 for the centre, or 10"
    assert cpp.input([image[:32]], CIFAR10, 5) == [f"cannot cut 5 crops of an image\n  fix: {fix}"]


def cut_off(rng):
    """Files that end at any of their bytes, and behind them."""
    image = odd.picture(rng, 40, 30)
    text = odd.chunk(b"tEXt", b"Comment\0" + bytes(50))
    tailed = odd.saved(image, "PNG")[:-12] + text + odd.chunk(b"IEND", b"")
    whole = [
        odd.saved(image, quality=60),
        odd.saved(image, quality=60, progressive=True),
        odd.saved(image.quantize(8), "PNG"),
        odd.png(rng, 9, 8, 16, 6, True, text),
        tailed,
    ]
    for content in whole:
        steps = [*range(0, len(content), 1 + len(content) // 150), *range(max(0, len(content) - 90), len(content))]
        yield from (content[:at] for at in steps)
        yield content + b"behind it" * 20
        yield content + content


def test_files_that_are_cut_off_are_refused_where_python_refuses_them(cpp):
    assert_same(cpp, cut_off(np.random.default_rng(5)))


def altered(contents, count, seed):
    """Contents with some bytes altered or an end cut off."""
    rng = random.Random(seed)
    for _ in range(count):
        content = bytearray(rng.choice(contents))
        if rng.random() < 0.3:
            del content[rng.randrange(len(content)) :]
        for _ in range(rng.randint(0, 3) if content else 0):
            content[rng.randrange(len(content))] = rng.choice([0, 255, rng.randrange(256)])
        yield bytes(content)


def small(seed):
    rng = np.random.default_rng(seed)
    return [c for c in (*odd.pngs(rng), *odd.jpegs(rng), *odd.converted_pngs(rng)) if len(c) < 3000]


@pytest.mark.filterwarnings("ignore")  # of Pillow, about what it reads
def test_damaged_files_give_the_same_pixels_or_errors(cpp):
    assert_same(cpp, altered(small(6), 600, 6))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_damaged_files_give_the_same_pixels_or_errors(cpp):
    for seed in range(10):
        assert_same(cpp, altered(small(seed), 5000, seed), lenient=3)


def fuzzed(cpp_build, tmp_path, count):
    found = small(7)
    tool = Cpp(cpp_build("address").program("pixels"), tmp_path)
    told = tool.call("fuzz", blocks((len(c), 0, c) for c in found), 1, count, out=False)
    read, refused = (int(word) for word in told.split())
    assert read + refused == count * len(found)
    assert min(read, refused) > 0.05 * count * len(found)


def test_no_damage_makes_the_decoders_touch_memory_that_is_not_theirs(cpp_build, tmp_path):
    fuzzed(cpp_build, tmp_path, 10)


@pytest.mark.slow
def test_no_damage_of_much_makes_the_decoders_touch_memory_that_is_not_theirs(cpp_build, tmp_path):
    fuzzed(cpp_build, tmp_path, 1000)


ROW = odd.chunk(b"IDAT", zlib.compress(b"\0" + bytes(30)))
HUGE_JPEG = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, 65500, 65500, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
SCAN = b"\xff\xda" + struct.pack(">HB", 12, 3) + b"\1\0\2\0\3\0\0?\0" + bytes(20)
MOST = 2**32 - 1
BROKEN = "broken data stream when reading image file"
LIMIT = "exceeds limit of 178956970 pixels, could be decompression bomb DOS attack."


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"hello", "it is no JPEG or PNG image"),
        (odd.SIGNATURE, "image file is truncated"),
        (odd.SIGNATURE + odd.ihdr(0, 3) + ROW, "it has no pixels"),
        (odd.SIGNATURE + odd.ihdr(3, 3, 3) + ROW, "PNG has no colour type 2 with 3 bits"),
        (odd.SIGNATURE + ROW, "broken PNG file (pixels before its header)"),
        (odd.SIGNATURE + odd.ihdr(3, 3)[:-1] + b"x" + ROW, "broken PNG file (bad header checksum in IHDR)"),
        (odd.SIGNATURE + odd.ihdr(20000, 10000) + ROW, f"Image size (20000 x 10000 pixels) {LIMIT}"),
        (odd.SIGNATURE + odd.ihdr(MOST, MOST) + ROW, f"Image size ({MOST} x {MOST} pixels) {LIMIT}"),
        (odd.SIGNATURE + odd.ihdr(9000, 9000, interlaced=True) + ROW, "image file is truncated"),
        (odd.SIGNATURE + odd.ihdr(9, 9) + odd.chunk(b"IDAT", b"no stream"), BROKEN),
        (HUGE_JPEG + SCAN, f"Image size (65500 x 65500 pixels) {LIMIT}"),
        (HUGE_JPEG[:30], "image file is truncated"),
    ],
)
def test_what_is_no_image_is_told_in_words(cpp, content, words):
    assert cpp.decode([content]) == [f"image x cannot be read: {words}{FIX}"]
    assert isinstance(python(content), str)


def test_pixels_that_end_early_are_refused_where_pillow_makes_the_rest_black(cpp):
    content = odd.SIGNATURE + odd.ihdr(2, 2, 8, 0) + odd.chunk(b"IDAT", zlib.compress(b"\0\5\6"))
    assert python(content).tolist() == [[[5] * 3, [6] * 3], [[0] * 3, [0] * 3]]
    assert cpp.decode([content]) == [f"image x cannot be read: image file is truncated{FIX}"]


def test_a_stream_that_says_less_of_its_window_than_it_takes_is_read(cpp):
    rows = b"".join(b"\0" + row for row in (np.random.default_rng(10).bytes(300), b"\7" * 300) * 9)
    stream = zlib.compress(rows)
    small = b"\x08\x1d" + stream[2:]  # a window of 256 bytes
    content = odd.SIGNATURE + odd.ihdr(300, 18, 8, 0) + odd.chunk(b"IDAT", small) + odd.chunk(b"IEND", b"")
    assert assert_same(cpp, [content]) == 1


@pytest.mark.parametrize(("distance", "images"), [(10, 0), (70_000, 1)])
def test_what_follows_the_pixels_of_a_jpeg_is_looked_at_as_far_as_pillow_looks(cpp, distance, images):
    content = odd.saved(odd.picture(np.random.default_rng(11), 40, 30))
    frame = content[content.index(b"\xff\xc0") :][:19]  # a second one, which is an error
    assert assert_same(cpp, [content[:-2] + bytes(distance) + frame + b"\xff\xd9"]) == images


def test_paths_that_are_no_files_are_told_in_words(cpp, tmp_path):
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    image = tmp_path / "image.png"
    image.write_bytes(odd.saved(odd.picture(np.random.default_rng(8), 3, 2), "PNG"))
    paths = {
        tmp_path / "none.png": "No such file or directory",
        tmp_path: "Is a directory",
        pipe: "it is no file",
    }
    given = [*paths, image]
    *told, opened = unblocked(cpp.call("open", b"\n".join(str(path).encode() for path in given)))
    assert told == [f"image {path} cannot be read: {why}{FIX}" for path, why in paths.items()]
    np.testing.assert_array_equal(opened, decode(image, "x"))


@pytest.mark.parametrize("count", [1, 10])
def test_answers_rank_as_in_python(cpp, count):
    logits = np.random.default_rng(9).normal(0, 8, (50, count, 20)).astype(np.float32)
    logits[::5] = np.round(logits[::5] / 4)  # equals
    logits[1] = 1000 * logits[1]
    told = np.frombuffer(cpp.call("top", logits.tobytes(), count, 5, 20), [("index", "<i4"), ("p", "<f8")])
    probabilities = softmax(logits).mean(1)
    scores = probabilities if count > 1 else logits[:, 0]
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(told["index"].reshape(50, 5), best)
    np.testing.assert_allclose(told["p"].reshape(50, 5), np.take_along_axis(probabilities, best, 1), rtol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_not_finite_is_none(cpp, bad):
    logits = np.zeros((1, 1, 3), np.float32)
    logits[0, 0, 1] = bad
    told = cpp.call("top", logits.tobytes(), 1, 5, 3).decode()
    assert told == "the engine's answer is not finite\n  fix: dlcv-deploy validate BUNDLE"
