"""What everyone is given: one network's fp32 graph and the same images, in a folder.

``fp32.onnx`` is the graph; ``calibration.bin`` and ``test.bin`` hold images as bytes one after the other, so that each
can be read alone and none stays in memory; ``case.json`` says what they are.
"""

from __future__ import annotations

import dataclasses as dc
import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dlcv_deploy.parity.crops import canvas, crops, to_input
from dlcv_deploy.types import Preprocess

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SEED = 0
EXTERNAL = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""How the external checkpoints' images are normalized."""


def data() -> Path:
    """Where checkpoints and photographs are, if they are."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    return Path(os.environ.get("DLCV_DATA") or beside).expanduser().resolve()


@dc.dataclass(frozen=True)
class Network:
    """A network of the comparison: its name in the catalogue, and its weights where they are not the bundled ones.

    ``checkpoint`` is a path below DLCV_DATA; a network on ``photographs`` has no accuracy to lose.
    """

    model: str
    checkpoint: str = ""
    weights: str | None = None
    photographs: bool = False

    def file(self) -> Path | None:
        """The checkpoint, where there is one and it is here."""
        path = data() / self.checkpoint
        return path if self.checkpoint and path.is_file() else None

    def missing(self) -> str:
        """Why it cannot take part; empty where it can."""
        if not self.checkpoint or self.file() is not None:
            return ""
        return f"DLCV_DATA has no {self.checkpoint}"


NETWORKS = {
    "resnet20": Network("resnet20"),
    "alexnet-cifar10": Network("alexnet-cifar10"),
    "googlenet-cifar10": Network("googlenet-cifar10"),
    "resnet20-external": Network("resnet20", "checkpoints/akamaster/resnet20-12fca82f.th"),
    "resnet32-external": Network("resnet32", "checkpoints/akamaster/resnet32-d509ac18.th"),
    "resnet50": Network("resnet50", weights="random", photographs=True),
}


@dc.dataclass(frozen=True)
class Images:
    """Images in a file, read one at a time; a source of samples for this project's own calibration."""

    path: Path
    count: int
    side: int
    source: str
    labels: npt.NDArray[np.int64] | None = None
    skipped: tuple[str, ...] = ()
    random: bool = False

    def __len__(self) -> int:
        return self.count

    def image(self, i: int) -> Pixels:
        """Image ``i``: (side, side, 3), RGB."""
        size = self.side * self.side * 3
        pixels = np.fromfile(self.path, np.uint8, size, offset=range(self.count)[i] * size)
        return pixels.reshape(self.side, self.side, 3)

    def name(self, i: int) -> str:
        """What to call image ``i``."""
        return f"images[{range(self.count)[i]}]"

    def digest_of(self, i: int) -> str:
        """Digest of the pixels of image ``i``."""
        return hashlib.sha256(self.image(i).tobytes()).hexdigest()

    def sha256(self) -> str:
        """Digest of all pixels."""
        return hashlib.sha256("".join(map(self.digest_of, range(self.count))).encode()).hexdigest()


@dc.dataclass(frozen=True)
class Case:
    """One network with its images, as written by ``prepare``."""

    folder: Path
    network: str
    model: str
    weights_sha256: str
    preprocess: Preprocess
    calibration: Images
    test: Images | None

    @classmethod
    def open(cls, folder: Path) -> Case:
        """Read a case's folder."""
        value = json.loads((folder / "case.json").read_text())
        pre = {k: tuple(v) if isinstance(v, list) else v for k, v in value.pop("preprocess").items()}
        sets = {name: _images(folder / f"{name}.bin", value.pop(name)) for name in ("calibration", "test")}
        return cls(folder, preprocess=Preprocess(**pre), **value, **sets)

    @property
    def fp32(self) -> Path:
        """The graph."""
        return self.folder / "fp32.onnx"

    def inputs(self, images: Images, start: int, stop: int) -> Floats:
        """Images as the network takes them, by the package's own preprocessing: (stop - start, 3, S, S)."""
        pre = self.preprocess
        return to_input(np.concatenate([crops(canvas(images.image(i), pre), pre, 1) for i in range(start, stop)]), pre)


def _images(path: Path, value: dict[str, object] | None) -> Images | None:
    if value is None:
        return None
    labels = None if value["labels"] is None else np.array(value.pop("labels"), np.int64)
    return Images(path, **{**value, "labels": labels})  # type: ignore[arg-type]


def prepare(network: str, images: int, tests: int, folder: Path) -> None:
    """Export a network and write its case: ``images`` training images to calibrate on, ``tests`` test images.

    The training images are chosen by a seed; the test images are the first ones. PyTorch is loaded here, and nowhere
    else in the comparison.
    """
    from dlcv_deploy.spec import BuildSpec
    from dlcv_deploy.stages import Stages
    from dlcv_deploy.store import Store
    from dlcv_deploy.subject import Subject

    entry = NETWORKS[network]
    checkpoint = entry.file()
    spec = (
        BuildSpec(entry.model, weights=entry.weights)
        if checkpoint is None
        else BuildSpec(entry.model, weights=str(checkpoint), **EXTERNAL)
    )
    subject = Subject.load(spec)
    with tempfile.TemporaryDirectory() as store:
        model = subject.exported(Stages(Store(Path(store)), lambda line: None))
    (folder / "fp32.onnx").write_bytes(model.onnx)
    sets = _photographs(images, subject.preprocess) if entry.photographs else _cifar10(images, tests)
    value: dict[str, object] = {
        "network": network,
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "preprocess": dc.asdict(subject.preprocess),
        "calibration": None,
        "test": None,
    }
    for name, (pixels, labels, source) in sets.items():
        pixels.tofile(folder / f"{name}.bin")
        truth = None if labels is None else labels.tolist()
        value[name] = {"count": len(pixels), "side": pixels.shape[1], "source": source, "labels": truth}
    (folder / "case.json").write_text(json.dumps(value))


def _cifar10(images: int, tests: int) -> dict[str, tuple[Pixels, npt.NDArray[np.int64] | None, str]]:
    from dlcv_deploy.calibration import cifar10

    pixels, labels = cifar10.load("train")
    chosen = np.random.default_rng(SEED).permutation(len(pixels))[:images]
    seen, truth = cifar10.load("test")
    return {
        "calibration": (pixels[chosen], labels[chosen], f"{images} of {len(pixels)} CIFAR-10 train images"),
        "test": (seen[:tests], truth[:tests], f"the first {tests} CIFAR-10 test images"),
    }


def _photographs(images: int, pre: Preprocess) -> dict[str, tuple[Pixels, npt.NDArray[np.int64] | None, str]]:
    """Squares of photographs, each at its own place and mirrored every other time; drawn images where there are none.

    They are as large as the canvas that the network's crops are cut from, so that nobody scales anything.
    """
    from dlcv_deploy.calibration.samples import drawn, open_samples

    side, folder = pre.canvas, data() / "imagenet224" / "images"
    if not folder.is_dir():
        made = drawn(images, side)
        return {"calibration": (np.stack([made.image(i) for i in range(images)]), None, made.source)}
    photos, rng, squares = open_samples(folder), np.random.default_rng(SEED), []
    for i in range(images):
        whole = photos.image(i % len(photos))
        if min(whole.shape[:2]) < side:
            whole = canvas(whole, pre)
        y, x = (int(rng.integers(n - side + 1)) for n in whole.shape[:2])
        square = whole[y : y + side, x : x + side]
        squares.append(square[:, ::-1] if i // len(photos) % 2 else square)
    return {"calibration": (np.stack(squares), None, f"{images} squares of {len(photos)} photographs")}
