"""Canvas, crops and numbers: pixel for pixel, and bit by bit where floats allow it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcv_deploy.errors import SpecError
from dlcv_deploy.parity.crops import canvas, crops, fill, to_input
from dlcv_deploy.types import Preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pre(size, side, fit="pad", mean=MEAN, std=STD):
    return Preprocess(size, side, fit, mean, std)


def numbered(side):
    """Red counts the pixels row by row; green and blue tell the channels apart."""
    red = np.arange(side * side, dtype=np.uint8).reshape(side, side)
    return np.stack([red, red + 100, red + 200], 2)


def test_ten_crops_of_a_numbered_canvas_in_torchvisions_order():
    # 0  1  2  3
    # 4  5  6  7
    # 8  9 10 11
    # 12 13 14 15
    found = crops(numbered(4), pre(2, 4), 10)
    assert found.shape == (10, 2, 2, 3)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert found[..., 0].reshape(10, 4).tolist() == [
        [0, 1, 4, 5],  # top left
        [2, 3, 6, 7],  # top right
        [8, 9, 12, 13],  # bottom left
        [10, 11, 14, 15],  # bottom right
        [5, 6, 9, 10],  # centre
        [3, 2, 7, 6],  # the same of the mirrored canvas: its top left is the mirrored top right
        [1, 0, 5, 4],
        [11, 10, 15, 14],
        [9, 8, 13, 12],
        [6, 5, 10, 9],
    ]
    assert (found[..., 1] == found[..., 0] + 100).all()
    assert (found[..., 2] == found[..., 0] + 200).all()


def test_an_uneven_centre_rounds_halves_to_even_as_torchvision_does():
    assert crops(numbered(3), pre(2, 3), 1)[0, 0, 0, 0] == 0  # round(0.5) == 0: row 0, column 0
    assert crops(numbered(5), pre(2, 5), 1)[0, 0, 0, 0] == 12  # round(1.5) == 2: row 2, column 2
    ten = crops(numbered(3), pre(2, 3), 10)[..., 0].reshape(10, 4)
    assert ten[4].tolist() == [0, 1, 3, 4]
    assert ten[9].tolist() == [2, 1, 5, 4]  # the centre of the mirrored canvas, not the mirrored centre


@given(st.integers(1, 6), st.integers(0, 5))
def test_the_centre_crop_of_a_padded_canvas_is_the_image(size, more):
    image = numbered(size) + 1
    p = pre(size, size + more)
    padded = canvas(image, p)
    assert padded.shape == (size + more, size + more, 3)
    assert np.array_equal(crops(padded, p, 1)[0], image)
    assert padded.sum() == image.sum()  # black elsewhere
    assert np.array_equal(crops(padded, p, 10)[4], image)


def test_cifar_canvas_has_four_black_pixels_on_every_side():
    image = np.full((32, 32, 3), 255, np.uint8)
    padded = canvas(image, pre(32, 40))
    assert (padded[4:36, 4:36] == 255).all()
    assert not padded[:4].any()
    assert not padded[36:].any()
    assert not padded[:, :4].any()
    assert not padded[:, 36:].any()


@pytest.mark.parametrize(
    ("height", "width", "to", "y", "x"),
    [
        (333, 500, (384, 256), 0, 64),  # 256 * 500 / 333 = 384.4: cut off, not rounded
        (500, 333, (256, 384), 64, 0),
        (300, 301, (256, 256), 0, 0),  # 256.9
        (100, 151, (386, 256), 0, 65),
    ],
)
def test_resize_has_torchvisions_size_and_offset(height, width, to, y, x):
    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    expected = np.asarray(Image.fromarray(image).resize(to, Image.Resampling.BILINEAR))
    found = canvas(image, pre(224, 256, "resize"))
    assert found.shape == (256, 256, 3)
    assert np.array_equal(found, expected[y : y + 256, x : x + 256])


def test_reduction_is_antialiased():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::4] = 255
    assert canvas(stripes, pre(4, 64, "resize"))[8:-8, 8:-8].std() == 0  # without a wider filter: 0 or 255


def test_an_image_of_the_right_size_is_not_touched():
    image = np.random.default_rng(0).integers(0, 256, (8, 11, 3), np.uint8)
    assert np.array_equal(canvas(image, pre(4, 8, "resize")), image[:, 2:10])  # round(1.5) == 2
    assert np.array_equal(canvas(image[:, ::-1], pre(4, 8, "resize")), image[:, ::-1][:, 2:10])


def test_to_input_of_known_values():
    p = pre(1, 1, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    found = to_input(np.array([[[[0, 0, 0]]], [[[255, 255, 255]]]], np.uint8), p)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert found.reshape(2, 3).tolist() == [[0, -1, -4], [1, 1, 0]]


def test_to_input_moves_channels_first():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), np.uint8)
    found = to_input(pixels, pre(1, 1, mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255)))
    assert found.shape == (2, 3, 3, 4)
    assert np.array_equal(found, pixels.transpose(0, 3, 1, 2))


@given(st.integers(1, 6), st.integers(0, 5), st.sampled_from([1, 10]), st.integers(0, 99))
def test_fill_gives_the_crops_input_bit_for_bit(size, more, count, seed):
    image = np.random.default_rng(seed).integers(0, 256, (size + more, size + more, 3), np.uint8)
    p, out = pre(size, size + more), np.full((count, 3, size, size), np.nan, np.float32)
    fill(out, image, p, count)
    assert out.tobytes() == to_input(crops(image, p, count), p).tobytes()


def test_fill_refuses_what_crops_refuses():
    with pytest.raises(SpecError, match="cannot cut 5 crops"):
        fill(np.zeros((5, 3, 2, 2), np.float32), np.zeros((4, 4, 3), np.uint8), pre(2, 4), 5)


@given(st.floats(0, 1), st.floats(0.01, 1))
def test_rounding_stays_within_the_stated_bounds(mean, std):
    levels = np.arange(256, dtype=np.uint8)
    found = to_input(np.stack([levels] * 3, -1).reshape(1, 16, 16, 3), pre(1, 1, mean=(mean,) * 3, std=(std,) * 3))
    found = found[0, 0].reshape(-1)
    exact = (levels / 255 - mean) / std
    torchvisions = (levels.astype(np.float32) / np.float32(255) - np.float32(mean)) / np.float32(std)
    assert np.abs(found - exact).max() <= 2**-22 / std
    assert np.abs(found.astype(np.float64) - torchvisions).max() <= 2**-20 / std


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: canvas(np.zeros((4, 4), np.uint8), pre(4, 4)), r"uint8 of shape \(4, 4\)"),
        (lambda: canvas(np.zeros((4, 4, 4), np.uint8), pre(4, 4)), r"shape \(4, 4, 4\)"),
        (lambda: canvas(np.zeros((4, 4, 3), np.float32), pre(4, 4)), "float32"),
        (lambda: canvas(np.zeros((0, 4, 3), np.uint8), pre(4, 4, "resize")), r"shape \(0, 4, 3\)"),
        (lambda: canvas(np.zeros((5, 4, 3), np.uint8), pre(4, 4)), "4 x 5 pixels, and this network takes 4 x 4"),
        (lambda: crops(np.zeros((4, 4, 3), np.uint8), pre(2, 4), 5), "cannot cut 5 crops"),
        (lambda: crops(np.zeros((4, 5, 3), np.uint8), pre(2, 4), 10), r"\(4, 5, 3\) is not 4 x 4"),
    ],
)
def test_what_is_no_image_is_refused(call, message):
    with pytest.raises(SpecError, match=message):
        call()
