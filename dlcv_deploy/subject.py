"""What a build is about: a network with its weights, exported to ONNX and calibrated."""

from __future__ import annotations

import dataclasses as dc
from pathlib import Path
from typing import TYPE_CHECKING

from .calibration.samples import Samples, drawn
from .errors import ArtifactError, SpecError
from .export import CHECK_BATCHES, check, export, exporter_versions, from_proto
from .progress import Progress, silent
from .proof import CPU_RUNTIMES, pixels_of, runtimes, session_of
from .reference import TorchSession
from .report.document import environment
from .spec import BuildSpec, is_own, nearest
from .stages import Stages
from .types import ExportedModel, Preprocess

if TYPE_CHECKING:
    import onnx

    from .calibration.choose import Trials
    from .calibration.recipe import Recipe
    from .calibration.table import CalibrationTable
    from .models.catalogue import Network
    from .models.weights import LoadedWeights


@dc.dataclass(frozen=True, slots=True)
class Subject:
    """A network with the weights that were asked for, how its images are prepared, and what its classes are called.

    ``notes`` are what a report must warn of.
    """

    network: Network
    weights: LoadedWeights
    preprocess: Preprocess
    classes: tuple[str, ...]
    outputs: tuple[str, ...] = ("logits",)
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, spec: BuildSpec, progress: Progress = silent) -> Subject:
        """Look the network up, or make it, and load its weights.

        Raises:
            SpecError: There is no such network, or what was named makes none; labels of another number.
            ArtifactError: The weights are absent, damaged, or another network's.
        """
        from .models import own

        network, classes = _classes(_network(spec), spec)
        outputs = _offered(network, spec.outputs)
        weights = own.load(network, spec.weights, bgr=spec.bgr, progress=progress)
        preprocess = spec.preprocess(weights.preprocess or network.preprocess)
        missing = [f"--{name}" for name in ("mean", "std") if getattr(spec, name) is None]
        notes = f"ImageNet's {' and '.join(missing)} were taken, for none were given" if missing else ""
        return cls(network, weights, preprocess, classes, outputs, (notes,) if notes and is_own(spec.model) else ())

    def exported(self, stages: Stages) -> ExportedModel:
        """The network as ONNX, checked against PyTorch on images.

        Raises:
            ToolError: PyTorch cannot export it, or the two do not agree.
        """
        files = stages.run(
            "export",
            self._export,
            network=dc.asdict(self.network),
            weights=self.weights.weights_sha256,
            preprocess=self.preprocess,
            outputs=self.outputs,
            versions=exporter_versions(),
        )
        return self._model(files["model.onnx"])

    def _export(self) -> dict[str, bytes]:
        from .models.outputs import select

        name, shape = self.network.name, self.network.input_shape
        net, digest = select(self.weights.net, self.outputs), self.weights.weights_sha256
        model = export(name, net, shape, outputs=self.outputs, weights_sha256=digest)
        inputs = pixels_of(drawn(max(CHECK_BATCHES), self.preprocess.size), self.preprocess, max(CHECK_BATCHES))
        with self.reference(model) as reference, session_of(model.onnx) as candidate:
            check(model, reference, candidate, inputs)
        return {"model.onnx": model.onnx}

    def _model(self, data: bytes) -> ExportedModel:
        from onnx import load_model_from_string

        return from_proto(self.network.name, load_model_from_string(data), self.weights.weights_sha256)

    def reference(self, model: ExportedModel) -> TorchSession:
        """The PyTorch original, with the inputs and outputs of ``model``."""
        return TorchSession(self.weights.net, model.inputs, model.outputs)

    def calibrated(
        self,
        model: ExportedModel,
        samples: Samples,
        recipe: Recipe,
        stages: Stages,
        progress: Progress,
        trials: Trials | None = None,
    ) -> CalibrationTable:
        """Ranges of the activations that INT8 needs and corrections of its layers, on images."""
        from .calibration.table import CalibrationTable

        def make() -> dict[str, bytes]:
            from .calibration.calibrate import Subject as Calibrated
            from .calibration.choose import Trials, choose

            subject = Calibrated(model, graph_sha256(model), self.preprocess)
            table = choose(subject, samples, recipe, trials or Trials(), runtimes(), progress=progress)
            return {"calibration.json": table.to_json().encode()}

        files = stages.run(
            "calibrate",
            make,
            onnx=model.onnx,
            weights=model.weights_sha256,
            runtimes=environment(CPU_RUNTIMES).packages,
            samples=samples.sha256(),
            source=samples.source,
            preprocess=self.preprocess,
            recipe=recipe,
            trials=trials,
        )
        return CalibrationTable.from_json(files["calibration.json"])

    def check_table(self, table: CalibrationTable, model: ExportedModel) -> None:
        """Refuse a table that is not this network's.

        Raises:
            ArtifactError: Says everything that differs.
        """
        from .calibration.table import check_belongs
        from .graph.qdq import quantizable

        check_belongs(
            table,
            model=model.name,
            weights_sha256=model.weights_sha256,
            graph_sha256=graph_sha256(model),
            preprocess=self.preprocess,
            tensors=quantizable(_proto(model)),
        )


def _network(spec: BuildSpec) -> Network:
    from .models import catalogue, own

    if not is_own(spec.model):
        return catalogue.network(spec.model)
    return own.network(spec.model, own.preprocess(spec), spec.outputs)


def _classes(network: Network, spec: BuildSpec) -> tuple[Network, tuple[str, ...]]:
    """Class names in the order of the logits, and the network with as many classes.

    Raises:
        SpecError: The file names another number of them than the network has.
    """
    from .models import catalogue

    if spec.labels is None:
        numbered = tuple(f"class_{i}" for i in range(network.classes))
        return network, catalogue.labels(network.labels) if network.labels else numbered
    names = _read_labels(spec.labels.expanduser())
    if len(names) == network.classes:
        return network, names
    what = f"{spec.labels} names {len(names)} classes, and {network.name} tells {network.classes} apart"
    if is_own(spec.model):
        raise SpecError(what, fix="give one name a line, in the order of the logits")
    if spec.weights is None:
        raise SpecError(what, fix=f"--weights FILE with weights of {len(names)} classes, or a file of as many names")
    return catalogue.with_classes(network, len(names)), names


def _read_labels(path: Path) -> tuple[str, ...]:
    try:
        names = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ArtifactError(
            f"the labels {path} cannot be read: {e}", fix="give a text file, UTF-8, one name a line"
        ) from e
    while names and not names[-1].strip():
        names.pop()
    if empty := [at for at, name in enumerate(names, 1) if not name.strip()]:
        raise ArtifactError(f"{path}, line {empty[0]} is empty", fix="give one name a line")
    return tuple(name.strip() for name in names)


def _offered(network: Network, asked: tuple[str, ...]) -> tuple[str, ...]:
    """The outputs asked for, each once, if the network has them all.

    Raises:
        SpecError: It lacks one. The logits are always there, and first: parity is measured by them.
    """
    for name in asked:
        if name not in network.outputs:
            raise nearest(f"output of {network.name}", name, network.outputs)
    return tuple(dict.fromkeys(("logits", *asked)))


def graph_sha256(model: ExportedModel) -> str:
    """Digest of a graph's structure, to which a calibration table is bound."""
    from .graph.names import signature

    return signature(_proto(model))


def _proto(model: ExportedModel) -> onnx.ModelProto:
    from onnx import load_model_from_string

    return load_model_from_string(model.onnx)
