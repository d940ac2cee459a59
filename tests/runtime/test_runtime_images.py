"""What an image may be, and what is said of one that is none."""

import io
import struct
import zlib

import numpy as np
import pytest
from helpers import bundles
from PIL import Image

from dlcv_deploy.calibration.images import decode
from dlcv_deploy.errors import ArtifactError, SpecError
from dlcv_deploy.runtime import Engine
from dlcv_deploy.runtime.images import pixels_of

RNG = np.random.default_rng(9)
RGB = RNG.integers(0, 256, (12, 16, 3), np.uint8)
GREY = RNG.integers(0, 256, (12, 16), np.uint8)


@pytest.fixture(scope="module")
def engine(compiled, tmp_path_factory):
    path = bundles.bundle(tmp_path_factory.mktemp("images") / "net.dlcv", compiled("openvino"))
    with Engine.load(path) as loaded:
        yield loaded


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def palette():
    image = Image.fromarray(RGB).quantize(16)
    image.info["transparency"] = bytes(range(0, 256, 16))
    return image


MODES = {
    "grey": lambda: Image.fromarray(GREY),
    "two levels": lambda: Image.fromarray(GREY).convert("1"),
    "grey with alpha": lambda: Image.fromarray(GREY).convert("LA"),
    "palette": palette,
    "alpha": lambda: Image.fromarray(np.dstack([RGB, GREY])),
    "16 bits": lambda: Image.fromarray(RNG.integers(0, 65536, (12, 16), np.uint16)),
    "CMYK": lambda: Image.fromarray(RGB).convert("CMYK"),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_pillow_image_becomes_what_its_file_would(mode):
    image = MODES[mode]()
    content = saved(image, "TIFF" if mode == "CMYK" else "PNG")
    found = pixels_of(image, "it")
    assert found.shape == (12, 16, 3)
    assert found.dtype == np.uint8
    opened = Image.open(io.BytesIO(content))
    np.testing.assert_array_equal(found, pixels_of(opened, "it"))
    if mode != "CMYK":
        np.testing.assert_array_equal(found, decode(io.BytesIO(content), "it"))
        np.testing.assert_array_equal(found, pixels_of(content, "it"))


def test_what_the_modes_become():
    np.testing.assert_array_equal(pixels_of(Image.fromarray(GREY), "it"), np.dstack([GREY] * 3))
    np.testing.assert_array_equal(pixels_of(Image.fromarray(np.dstack([RGB, GREY])), "it"), RGB)
    deep = RNG.integers(0, 65536, (12, 16), np.uint16)
    np.testing.assert_array_equal(pixels_of(Image.fromarray(deep), "it")[..., 0], deep >> 8)


def test_an_orientation_is_ignored(engine, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    plain, turned = (saved(Image.fromarray(RGB), "PNG", **more) for more in ({}, {"exif": exif}))
    assert plain != turned
    assert engine.classify(turned) == engine.classify(plain)
    assert engine.classify(Image.open(io.BytesIO(turned))) == engine.classify(plain)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (RGB / 255, r"an image is float64 of shape \(12, 16, 3\)\n.*\(255 \* image\)\.round\(\)\.astype\('uint8'\)"),
        (np.zeros((3, 8, 8), np.float32), r"float32.*\n.*run\(\)"),
        (RGB.astype(np.int64), r"an image is int64 .*\n.*uint8 of shape \(height, width, 3\)"),
        (GREY, r"an image is uint8 of shape \(12, 16\)"),
        (RGB.transpose(2, 0, 1), r"uint8 of shape \(3, 12, 16\)"),
        (np.dstack([RGB, GREY]), r"uint8 of shape \(12, 16, 4\)"),
        (RGB[:0], r"uint8 of shape \(0, 16, 3\)"),
        (np.array(["a.png", "b.png"]), r"<U5 of shape \(2,\)"),
        (7, r"number 0 is no image, but of type int\n.*give a path"),
        (None, "number 0 is no image, but of type NoneType"),
        ([RGB, 7.5], "number 1 is no image, but of type float"),
        ([RGB, [RGB]], "number 1 is no image, but of type list"),
    ],
)
def test_what_is_no_image(engine, image, words):
    with pytest.raises(SpecError, match=words):
        engine.classify(image)


def cut_off(kind):
    return saved(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)), kind)[:-200]


FILES = {
    "cut off, JPEG": lambda: cut_off("JPEG"),
    "cut off, PNG": lambda: cut_off("PNG"),
    "empty": lambda: b"",
    "text": lambda: b"not an image\n" * 9,
    "another format": lambda: saved(Image.fromarray(RGB), "TIFF"),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_no_images(engine, tmp_path, kind):
    content = FILES[kind]()
    path = tmp_path / "broken file.jpg"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"image .*/broken file\.jpg cannot be read: .+\n  fix: give another"):
        engine.classify([RGB, path])
    for several, number in ((content, 0), ([RGB, io.BytesIO(content)], 1)):
        with pytest.raises(ArtifactError, match=rf"image number {number} cannot be read: .+\n  fix: give another"):
            engine.classify(several)


def test_paths_that_lead_nowhere(engine, tmp_path):
    for path in (tmp_path / "nowhere.png", tmp_path, "a\0b.png", ""):
        with pytest.raises(ArtifactError, match=r"image .* cannot be read"):
            engine.classify(path)


def test_a_closed_pillow_image(engine, tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    image.close()
    with pytest.raises(ArtifactError, match="image number 0 cannot be read"):
        engine.classify(image)


def bomb(side):
    """A PNG of some bytes that says it has side x side pixels, all of them black."""

    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    packed = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    data = b"".join(packed.compress(row) for _ in range(side)) + packed.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_bomb_is_an_error_before_it_goes_off(engine, tmp_path):
    content = bomb(20000)
    assert len(content) < 100_000
    (tmp_path / "bomb.png").write_bytes(content)
    for image in (content, tmp_path / "bomb.png"):
        with pytest.raises(ArtifactError, match=r"cannot be read: .*400000000 pixels"):
            engine.classify(image)


def test_text_that_unpacks_to_too_much(engine):
    """A chunk of text in a PNG is compressed, too."""
    content = saved(Image.fromarray(RGB))
    body = b"zTXtComment\0\0" + zlib.compress(bytes(1 << 28))
    text = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    with pytest.raises(ArtifactError, match="cannot be read"):
        engine.classify(content[:33] + text + content[33:])
