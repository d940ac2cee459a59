"""Images of every kind that a decoder must know: drawn JPEGs, and PNGs of all colour types written byte by byte."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def ihdr(width, height, depth=8, colour=2, interlaced=False):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


def lines(rng, width, height, depth, colour, interlaced):
    """Random rows, each with a filter of its own, of one pass or of Adam7's seven."""
    found = b""
    for x, y, dx, dy in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        for _ in range(max(0, rows) if columns > 0 else 0):
            found += bytes([rng.integers(5)]) + rng.bytes(-(-columns * CHANNELS[colour] * depth // 8))
    return found


def png(rng, width, height, depth, colour, interlaced, *before):
    """With the pixels in three chunks, of which one is empty."""
    palette = [chunk(b"PLTE", rng.bytes(3 * int(rng.integers(1, 2**depth + 1))))] if colour == 3 else []
    data = zlib.compress(lines(rng, width, height, depth, colour, interlaced))
    half = len(data) // 2
    pixels = [chunk(b"IDAT", part) for part in (data[:half], b"", data[half:])]
    head = ihdr(width, height, depth, colour, interlaced)
    return SIGNATURE + b"".join([head, *before, *palette, *pixels, chunk(b"IEND", b"")])


def pngs(rng):
    for width, height in ((1, 1), (2, 2), (3, 5), (4, 1), (1, 4), (5, 1), (1, 5), (9, 17), (33, 31)):
        for colour, depths in DEPTHS.items():
            for depth in depths:
                for interlaced in (False, True):
                    yield png(rng, width, height, depth, colour, interlaced)


def saved(image, form="JPEG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def picture(rng, width, height):
    """Smooth, with some noise and an edge: what photographs have."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * a + y * b) for a, b in rng.normal(0, 0.1, (3, 2))]
    image = 128 + 90 * np.stack(waves, -1) + rng.normal(0, 6, (height, width, 3))
    image[height // 2 :, width // 3 : width // 2] *= 0.3
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def jpegs(rng):
    for size in ((299, 203), (37, 53), (8, 8), (1, 1), (1, 40), (40, 1), (3, 2), (500, 17)):
        image = picture(rng, *size)
        for quality in (1, 30, 75, 95):
            for subsampling in (0, 1, 2, "4:1:1"):
                for progressive in (False, True):
                    yield saved(image, quality=quality, subsampling=subsampling, progressive=progressive)
        yield saved(image, restart_marker_blocks=3)
        yield saved(image, keep_rgb=True)
        for mode in ("L", "CMYK"):
            yield saved(image.convert(mode))
            yield saved(image.convert(mode), progressive=True)


def converted_pngs(rng):
    image = picture(rng, 61, 43)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield saved(image.convert(mode), "PNG")
    yield saved(image.convert("P"), "PNG", transparency=3)
    yield saved(image.quantize(3), "PNG", bits=2)
    yield saved(image, "PNG", save_all=True, append_images=[image.rotate(90)])  # animated
