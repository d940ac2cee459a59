"""Those who quantize, each as its documentation says for convolutional networks, behind one signature.

Every one is called in a process of its own with a case, and writes its INT8 model into the case's folder. What is
imported before the clock starts is what ``imports`` names.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .case import Case

if TYPE_CHECKING:
    from dlcv_deploy.calibration.calibrate import Subject
    from dlcv_deploy.calibration.table import CalibrationTable

CALIBRATORS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
CALIBRATIONS = tuple(f"{kind}-{method}" for kind in ("uint8", "int8") for method in CALIBRATORS)
CORRECTIONS = {"fast": True, "accurate": False}
INPUT = "input"
"""What this project's export calls a network's input."""


def ours(case: Case, quality: str, out: Path) -> Path:
    """This project's calibration and quantization, as ``dlcv-deploy calibrate`` and ``build`` do them."""
    from dlcv_deploy.calibration.calibrate import calibrate
    from dlcv_deploy.calibration.recipe import recipe
    from dlcv_deploy.proof import runtimes

    subject = _subject(case)
    table = calibrate(subject, case.calibration, recipe(quality), runtimes())
    return _written(subject, table, out / "int8.onnx")


def all_methods(case: Case, _: str, out: Path) -> Path:
    """One look at the images, and an INT8 model by each of this project's methods."""
    from dlcv_deploy.calibration.calibrate import observe, tabulated
    from dlcv_deploy.calibration.methods import METHODS
    from dlcv_deploy.calibration.recipe import recipe
    from dlcv_deploy.proof import runtimes

    subject, run = _subject(case), runtimes()
    seen = observe(subject, case.calibration, run, equalized=False)
    for method in METHODS:
        table = tabulated(subject, case.calibration, seen, recipe("fast", method), run)
        path = _written(subject, table, out / f"{method}.onnx")
    return path


def _subject(case: Case) -> Subject:
    import onnx

    from dlcv_deploy.calibration.calibrate import Subject
    from dlcv_deploy.export import from_proto
    from dlcv_deploy.graph.names import signature

    proto = onnx.load(case.fp32)
    return Subject(from_proto(case.model, proto, case.weights_sha256), signature(proto), case.preprocess)


def _written(subject: Subject, table: CalibrationTable, path: Path) -> Path:
    from dlcv_deploy.graph.qdq import quantize

    path.write_bytes(quantize(subject.model, table.amax, table.corrections).model.onnx)
    return path


def onnxruntime(case: Case, setting: str, out: Path) -> Path:
    """ONNX Runtime's ``quant_pre_process`` and ``quantize_static``: Q/DQ, weights in int8 per channel.

    Activations are as its documentation has them for CPUs with VNNI, "uint8" with a zero point, and for TensorRT,
    symmetric "int8". What else it offers is worse: on 10,000 images and the external ResNet-20, where uint8 costs 89,
    89 and 73 flips by min-max, entropy and percentile, weights of 7 bits (``reduce_range``) cost 99, 99 and 96; and
    OpenVINO refuses int8 with a zero point.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, path = out / "prepared.onnx", out / "int8.onnx"
    kind, _, method = setting.partition("-")
    quant_pre_process(str(case.fp32), str(prepared))
    quantization.quantize_static(
        str(prepared),
        str(path),
        _reader(case),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type={"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}[kind],
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[CALIBRATORS[method]],
        extra_options={"ActivationSymmetric": kind == "int8"},
    )
    return path


def _reader(case: Case) -> Any:  # noqa: ANN401 - an untyped package
    from onnxruntime.quantization import CalibrationDataReader

    feeds = ({INPUT: case.inputs(case.calibration, i, i + 1)} for i in range(len(case.calibration)))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(feeds, None)

    return Reader()


def nncf(case: Case, correction: str, out: Path) -> Path:
    """NNCF's ``quantize`` on OpenVINO's model, its default settings but for the number of images.

    Activations are uint8 where nothing is below 0, else symmetric int8.

    ``correction`` "accurate" is its ``fast_bias_correction=False``. Constants that stay floats are saved in fp32.
    """
    import nncf as package
    import openvino as ov

    images = case.calibration
    dataset = package.Dataset(range(len(images)), lambda i: {INPUT: case.inputs(images, i, i + 1)})
    quantized = package.quantize(
        ov.convert_model(str(case.fp32)),
        dataset,
        subset_size=len(images),
        fast_bias_correction=CORRECTIONS[correction],
    )
    path = out / "int8.xml"
    ov.save_model(quantized, path, compress_to_fp16=False)
    return path


@dc.dataclass(frozen=True)
class Quantizer:
    """One tool with one setting, as it stands in the tables; ``bare`` is for time and memory only."""

    tool: str
    setting: str
    run: Callable[[Case, str, Path], Path]
    package: str
    imports: tuple[str, ...]
    bare: bool = False

    @property
    def symmetric(self) -> bool:
        """Whether all activations are symmetric int8, the only ones that TensorRT takes."""
        return self.tool == OURS or self.setting.startswith("int8")

    @property
    def name(self) -> str:
        """As the command line has it."""
        return f"{self.package}-{self.setting}"

    def versions(self) -> dict[str, str]:
        """Of what decides its result; without ``package`` where that is not installed."""
        found = {}
        for name in (self.package, "openvino", "numpy"):
            with suppress(metadata.PackageNotFoundError):
                found[name] = metadata.version(name)
        if self.tool == OURS:
            from dlcv_deploy.stages import code_version

            found["this project's code"] = code_version()[:12]
        return found


def _settings(
    tool: str, run: Callable[[Case, str, Path], Path], package: str, imports: tuple[str, ...], *settings: str
) -> dict[str, Quantizer]:
    each = (Quantizer(tool, setting, run, package, imports) for setting in settings)
    return {quantizer.name: quantizer for quantizer in each}


OURS = "dlcv-deploy"
_IMPORTS = ("onnx", "onnxruntime", "dlcv_deploy.calibration.calibrate")
QUANTIZERS = {
    **_settings("ONNX Runtime", onnxruntime, "onnxruntime", ("onnxruntime.quantization",), *CALIBRATIONS),
    **_settings("NNCF", nncf, "nncf", ("nncf", "openvino"), *CORRECTIONS),
    **_settings(OURS, ours, OURS, _IMPORTS, "fast", "default", "best"),
    f"{OURS}-methods": Quantizer(OURS, "methods", all_methods, OURS, _IMPORTS, bare=True),
}
