"""Canvas, crops and numbers are those of torchvision's transforms on Pillow's images.

``golden/torchvision.json`` was made once by torchvision 0.29.1 with Pillow 13.0 and torch 2.13 on a CPU: for each size
an image drawn as below; Resize(canvas) and CenterCrop(canvas) of it, or Pad by half of what the canvas is larger where
the fit is "pad"; the SHA-256 of that and of the ten crops of TenCrop(size), both as uint8, row by row; the first six
pixels in the middle row of CenterCrop(size) of the canvas; and some values, by their place, of ToTensor and Normalize
of that crop.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from dlcv_deploy.digest import sha256
from dlcv_deploy.parity.crops import canvas, crops, to_input
from dlcv_deploy.types import Preprocess

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "torchvision.json").read_text())
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def drawn(height, width):
    y, x, channel = np.ogrid[:height, :width, :3]
    return ((3 * y * y + 7 * x + x * y // 5 + 50 * channel) % 256).astype(np.uint8)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda g: f"{g['width']}x{g['height']}-{g['canvas']}-{g['size']}")
def test_ours_equals_torchvisions(golden):
    pre = Preprocess(golden["size"], golden["canvas"], golden["fit"], MEAN, STD)
    square = canvas(drawn(golden["height"], golden["width"]), pre)
    centre, ten = crops(square, pre, 1), crops(square, pre, 10)
    assert centre[0, pre.size // 2, :6].reshape(-1).tolist() == golden["middle_row"]
    assert sha256(square.tobytes()) == golden["canvas_sha256"]
    assert sha256(ten.tobytes()) == golden["ten_sha256"]
    found, places = to_input(centre, pre), np.array([int(i) for i in golden["inputs"]])
    std = np.array(STD)[places // pre.size**2]
    error = np.abs(found.reshape(-1)[places] - np.array(list(golden["inputs"].values())))
    assert (error <= 2**-20 / std).all()
