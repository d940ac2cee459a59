"""The preprocessing contract: what is far from it is measured in grey levels, and the mistake is named."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from dlcv_deploy.calibration.samples import drawn
from dlcv_deploy.parity import contract, mistakes
from dlcv_deploy.parity.contract import Cost, Distance, PixelsReport, distance, golden_files, inputs_of, steps
from dlcv_deploy.parity.crops import canvas, crops
from dlcv_deploy.parity.mistakes import explain
from dlcv_deploy.parity.values import Loss
from dlcv_deploy.report.pixels import pixels_text
from dlcv_deploy.types import Preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PRE = Preprocess(56, 64, "resize", MEAN, STD)
CIFAR = Preprocess(32, 40, "pad", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))


def images_of(pre):
    sizes = contract.golden_sizes(pre)
    return [drawn(1, max(size), seed=i + 1).image(0)[: size[0], : size[1]] for i, size in enumerate(sizes)]


IMAGES = images_of(PRE)
PIXELS = np.stack([crops(canvas(image, PRE), PRE, 1)[0] for image in IMAGES]).astype(np.float64)
CONTRACT = inputs_of(IMAGES, PRE)


def values(pixels, mean=MEAN, std=STD, by=255.0):
    """(N, S, S, 3), as a user's own NumPy code would have it."""
    return ((pixels / by - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2).astype(np.float32)


# the steps and the golden files


def test_the_steps_are_said_exactly():
    assert steps(PRE) == (
        "decode to RGB, 8 bits a channel, without alpha, and as it is stored: an EXIF orientation is ignored",
        "scale the shorter side to 64 pixels and the longer one to floor(64 * longer / shorter), by Pillow's BILINEAR, "
        "which antialiases when it reduces, rounded to 8 bits; a side of 64 stays as it is",
        "cut the 64 x 64 in the centre: from round((length - 64) / 2), halves to even",
        "cut the 56 x 56 in the centre of that likewise",
        "(x / 255 - mean) / std in float32, with the RGB mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225)",
        "channels first, red, green, blue: N x 3 x 56 x 56",
    )
    assert steps(CIFAR)[1] == "take images of 32 x 32 pixels as they are, unscaled"
    assert len(steps(CIFAR)) == 4


@pytest.mark.parametrize("pre", [PRE, CIFAR, Preprocess(5, 8, "resize", MEAN, STD)])
def test_golden_images_come_back_from_their_files_and_give_their_inputs(pre):
    images = images_of(pre)
    inputs = inputs_of(images, pre)
    assert inputs.shape == (4, 3, pre.size, pre.size)
    files = golden_files(images, inputs, np.zeros((4, 7), np.float32))
    names = contract.golden_images({**files, "model.onnx": b"", "x.png": b""})
    assert len(names) == 4
    back = [np.asarray(Image.open(io.BytesIO(files[name]))) for name in names]
    assert np.array_equal(np.load(io.BytesIO(files["golden/inputs.npy"])), inputs_of(back, pre))
    assert np.load(io.BytesIO(files["golden/logits.npy"])).shape == (4, 7)
    for name, image in zip(names, images, strict=True):
        assert name.endswith(f"-{image.shape[1]}x{image.shape[0]}.png")


# the distance


def test_the_distance_is_in_grey_levels_a_channel():
    other = CONTRACT.copy()
    for channel, levels in enumerate((1.0, -2.0, 4.0)):
        other[1, channel] += levels / 255 / STD[channel]
    found = distance(CONTRACT, other, PRE)
    assert found.max_levels == pytest.approx((1, 2, 4), rel=1e-5)
    assert found.mean_levels == pytest.approx((0.25, 0.5, 1), rel=1e-5)
    assert (found.images, found.greatest, found.mean) == (4, found.max_levels[2], pytest.approx(1.75 / 3, rel=1e-5))
    parts = distance(CONTRACT[:1], other[:1], PRE), distance(CONTRACT[1:], other[1:], PRE)
    merged = parts[0].merge(parts[1])
    assert merged.max_levels == found.max_levels
    assert merged.mean_levels == pytest.approx(found.mean_levels)
    assert merged.images == 4


@pytest.mark.parametrize(
    ("levels", "equal", "within"),
    [(0, True, True), (2e-4, True, True), (3e-4, False, True), (0.99, False, True), (1.01, False, False)],
)
def test_equal_is_the_rounding_of_floats_and_the_tolerance_one_grey_level(levels, equal, within):
    other = CONTRACT.astype(np.float64)
    other[0, 0, 0, 0] += levels / 255 / STD[0]
    found = distance(CONTRACT, other, PRE)
    assert (found.equal, found.within) == (equal, within)
    assert PixelsReport("x", 4, found).passed == within


def test_nan_never_passes():
    other = CONTRACT.copy()
    other[0, 1, 2, 3] = math.nan
    found = distance(CONTRACT, other, PRE)
    assert not found.within
    assert not PixelsReport("x", 4, found).passed


def test_other_arithmetic_is_equal():
    exact = values(PIXELS)
    torchvisions = PIXELS.astype(np.float32).transpose(0, 3, 1, 2) / np.float32(255)
    torchvisions = (torchvisions - np.float32(MEAN)[:, None, None]) / np.float32(STD)[:, None, None]
    assert distance(CONTRACT, exact, PRE).equal
    assert distance(CONTRACT, torchvisions, PRE).equal
    half = CONTRACT.astype(np.float16).astype(np.float32)
    assert not distance(CONTRACT, half, PRE).equal
    assert distance(CONTRACT, half, PRE).within


# the mistakes


def scaled(how):
    return np.stack([mistakes._cut(image, PRE, how) for image in IMAGES]).astype(np.float64)


def resized(method, to=lambda image: None):
    """Pillow's own resize to whole squares, and the centre of them."""
    found = [np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(to(image), method)) for image in IMAGES]
    start = (found[0].shape[0] - PRE.size) // 2
    return np.stack([each[start : start + PRE.size, start : start + PRE.size] for each in found]).astype(np.float64)


BILINEAR = Image.Resampling.BILINEAR
SWAPPED = "channels swapped (BGR)"
MISTAKES = {
    "bgr": (lambda: CONTRACT[:, ::-1], [SWAPPED]),
    "bgr-read": (
        lambda: values(PIXELS[..., ::-1]),
        ["channels swapped (BGR), with R's mean and std for B and B's for R"],
    ),
    "reshaped": (
        lambda: np.ascontiguousarray(CONTRACT.transpose(0, 2, 3, 1)).reshape(CONTRACT.shape),
        ["channels last, reshaped to channels first and not transposed"],
    ),
    "no-255": (lambda: values(PIXELS, by=1.0), ["/ 255 is missing"]),
    "raw": (lambda: values(PIXELS, (0, 0, 0), (1, 1, 1), 1.0), ["/ 255, mean and std are missing"]),
    "unit": (lambda: values(PIXELS, (0, 0, 0), (1, 1, 1)), ["mean and std are missing"]),
    "no-mean": (lambda: values(PIXELS, (0, 0, 0)), ["the mean is missing"]),
    "no-std": (lambda: values(PIXELS, std=(1, 1, 1)), ["the std is missing"]),
    "signed": (lambda: values(PIXELS, (0.5,) * 3, (0.5,) * 3), ["scaled to -1 to 1, in place of mean and std"]),
    "other": (
        lambda: values(PIXELS, (0.25, 0.5, 0.75), (0.3, 0.4, 0.5)),
        ["another mean or std: as if the mean were (0.25, 0.5, 0.75) and the std (0.3, 0.4, 0.5)"],
    ),
    "caffe": (
        lambda: (PIXELS - 255 * np.array(MEAN))[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32),
        [SWAPPED, "/ 255 and std are missing"],
    ),
    "mirrored": (lambda: CONTRACT[..., ::-1], ["mirrored left to right"]),
    "flipped": (lambda: CONTRACT[:, :, ::-1], ["upside down"]),
    "transposed": (lambda: CONTRACT.swapaxes(2, 3), ["rows and columns swapped"]),
    "nearest": (lambda: values(scaled("nearest")), ["scaled by nearest in place of bilinear"]),
    "bicubic": (lambda: values(scaled("bicubic")), ["scaled by bicubic in place of bilinear"]),
    "rough": (lambda: values(scaled("")), ["scaled without antialiasing"]),
    "squashed": (
        lambda: values(resized(BILINEAR, lambda image: (64, 64))),
        ["squashed to a square, whatever the sides were"],
    ),
    "no-crop": (lambda: values(resized(BILINEAR, lambda image: (56, 56))), ["squashed to 56 x 56, without a crop"]),
    "several": (
        lambda: values(scaled("nearest"), by=1.0)[:, ::-1],
        ["scaled by nearest in place of bilinear", SWAPPED, "/ 255 is missing"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(name):
    make, words = MISTAKES[name]
    found = np.ascontiguousarray(make())
    assert not distance(CONTRACT, found, PRE).within
    why = explain(IMAGES, found, PRE)
    assert list(why.mistakes) == words
    assert why.left.greatest < 1e-3
    assert why.left.images == 4


@pytest.mark.parametrize("dy", [-1, 0, 1])
@pytest.mark.parametrize("dx", [-1, 0, 1])
def test_a_crop_that_is_off_by_one_is_named_with_its_direction(dy, dx):
    squares = [canvas(image, PRE) for image in IMAGES]
    found = values(np.stack([square[4 + dy : 60 + dy, 4 + dx : 60 + dx] for square in squares]).astype(np.float64))
    why = explain(IMAGES, found, PRE)
    if not (dy or dx):
        assert why is None
        return
    parts = [["up", "", "down"][dy + 1], ["left", "", "right"][dx + 1]]
    assert why.mistakes == ("the crop is off by " + " and ".join(f"1 {part}" for part in parts if part),)
    assert why.left.greatest < 1e-3


def test_the_filter_without_antialiasing_is_torchs():
    torch = pytest.importorskip("torch")
    image = IMAGES[2]
    height, width = image.shape[:2]
    to = (64, int(64 * width / height))
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].double()
    expected = torch.nn.functional.interpolate(planes, size=to, mode="bilinear", antialias=False)[0].numpy()
    assert np.allclose(mistakes._scaled(image, to, "").transpose(2, 0, 1), expected)


@pytest.mark.parametrize("pre", [CIFAR, Preprocess(32, 32, "pad", (0.5,) * 3, (0.2,) * 3)])
def test_networks_that_scale_nothing_have_their_mistakes_too(pre):
    images = images_of(pre)
    ours = inputs_of(images, pre)
    assert explain(images, ours, pre) is None
    assert explain(images, np.ascontiguousarray(ours[..., ::-1]), pre).mistakes == ("mirrored left to right",)
    assert explain(images, np.ascontiguousarray(ours[:, ::-1]), pre).mistakes[0].startswith(SWAPPED)


@pytest.mark.parametrize("made", [lambda: np.zeros_like(CONTRACT), lambda: -CONTRACT, lambda: CONTRACT[::-1]])
def test_what_no_mistake_explains_is_left_unexplained(made):
    assert explain(IMAGES, np.ascontiguousarray(made()), PRE) is None


# in words


def test_a_report_is_said_in_lines():
    far = Distance(4, (10.0, 20.5, 3.25), (1.0, 2.0, 3.0))
    loss = Loss(1, 2.5, 1.25, 4.0, 3, 1, 0.6)
    costs = (
        Cost("PyTorch", 90.0, 87.5, loss, 7),
        Cost("int8 on openvino", flips=3),
        Cost("int8 on tensorrt", not_run="no GPU"),
    )
    text = pixels_text(
        PixelsReport("x.npy, beside 4 images", 4, far, ("upside down",), Distance(4, *[(0.0,) * 3] * 2), costs)
    )
    assert text.splitlines() == [
        "x.npy, beside 4 images",
        "difference in grey levels of 255, after undoing the normalization:",
        "                       R           G           B",
        "greatest              10        20.5        3.25",
        "mean                   1           2           3",
        "explained by: upside down",
        "what is left then: 0 at the most, 0 on average",
        "PyTorch: top-1 90.00 % on the contract's pixels, 87.50 % on these: loses 2.50 points (1.25 to 4.00, 95 %), "
        "7 images get another class",
        "int8 on openvino: 3 images get another class (no labels)",
        "int8 on tensorrt: not run: no GPU",
        "FAILED: these are not the contract's pixels (within 1 grey level)",
    ]
    assert "none of the usual mistakes explains it" in pixels_text(PixelsReport("x", 4, far))
    near = PixelsReport("x", 4, Distance(4, (0.5, 0, 0), (0.1, 0, 0)))
    assert pixels_text(near).endswith(
        "passed: these are the contract's pixels within 1 grey level, and not equal to them"
    )
