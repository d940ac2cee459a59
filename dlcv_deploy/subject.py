"""What a build is about: a network with its weights, exported to ONNX and calibrated."""

from __future__ import annotations

import dataclasses as dc
from typing import TYPE_CHECKING

from .calibration.samples import Samples, drawn
from .export import CHECK_BATCHES, check, export, exporter_versions, from_proto
from .progress import Progress, silent
from .proof import CPU_RUNTIMES, pixels_of, session_of
from .reference import TorchSession
from .report.document import environment
from .spec import BuildSpec, nearest
from .stages import Stages
from .types import ExportedModel, Preprocess

if TYPE_CHECKING:
    import onnx

    from .calibration.table import CalibrationTable
    from .models.catalogue import Network
    from .models.weights import LoadedWeights


@dc.dataclass(frozen=True, slots=True)
class Subject:
    """A network of the catalogue with the weights that were asked for, and how its images are prepared."""

    network: Network
    weights: LoadedWeights
    preprocess: Preprocess
    outputs: tuple[str, ...] = ("logits",)

    @classmethod
    def load(cls, spec: BuildSpec, progress: Progress = silent) -> Subject:
        """Look the network up and load its weights.

        Raises:
            SpecError: There is no such network.
            ArtifactError: The weights are absent, damaged, or another network's.
        """
        from .models import catalogue
        from .models.weights import load

        network = catalogue.network(spec.model)
        weights = load(network, spec.weights, progress=progress)
        preprocess = spec.preprocess(weights.preprocess or network.preprocess)
        return cls(network, weights, preprocess, _offered(network, spec.outputs))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        from .models.catalogue import labels

        return labels(self.network.labels)

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
        self, model: ExportedModel, samples: Samples, method: str, stages: Stages, progress: Progress
    ) -> CalibrationTable:
        """Ranges of the activations that INT8 needs, on images."""
        from .calibration.table import CalibrationTable

        def make() -> dict[str, bytes]:
            from .calibration.calibrate import calibrate
            from .calibration.collect import observed
            from .graph.qdq import quantizable

            tensors = quantizable(_proto(model))
            with session_of(observed(model.onnx, tensors)) as session:
                table = calibrate(
                    model,
                    graph_sha256(model),
                    tensors,
                    session,
                    samples,
                    self.preprocess,
                    method=method,
                    progress=progress,
                )
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
            method=method,
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
