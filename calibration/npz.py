"""Images and labels in an .npz."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import ArtifactError

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def read_npz(path: Path) -> tuple[Pixels, Labels | None]:
    """Images (N, H, W, 3) and labels (N,) of an .npz; never unpickles.

    Raises:
        ArtifactError: Damaged, or without ``images`` that are RGB bytes, or with ``labels`` that do not fit them.
    """
    try:
        with path.open("rb") as raw:
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile) or "images" not in file:
                raise ArtifactError(
                    f"{path.name} holds no array 'images'", fix="np.savez(FILE, images=uint8 NHWC, labels=int64)"
                )
            pixels: Pixels = file["images"]
            truth: npt.NDArray[np.generic] | None = file.get("labels")
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as e:
        raise ArtifactError(f"{path.name} cannot be read: {e}", fix="write it again with np.savez") from e
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or 0 in pixels.shape:
        raise ArtifactError(
            f"{path.name}: images are {pixels.dtype} of shape {pixels.shape}",
            fix="give uint8 of shape (count, height, width, 3), RGB",
        )
    if truth is None:
        return pixels, None
    indices = truth.astype(np.int64) if truth.dtype.kind in "iu" else None
    if indices is None or indices.shape != pixels.shape[:1] or indices.min() < 0:
        raise ArtifactError(
            f"{path.name}: labels are {truth.dtype} of shape {truth.shape}, for {len(pixels)} images",
            fix="give one class index for each image, from 0",
        )
    return pixels, indices
