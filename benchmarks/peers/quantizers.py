"""Those who quantize, each as its documentation says for convolutional networks, behind one signature.

Every one is called in a process of its own with a case, and writes its INT8 model into the case's folder. What is
imported before the clock starts is what ``imports`` names.
"""

from __future__ import annotations

import dataclasses as dc
import os
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from .case import Case

METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
CORRECTIONS = {"fast": True, "accurate": False}


def ours(case: Case, quality: str, out: Path) -> Path:
    """This project's calibration and quantization, as the package's own build calls them."""
    import onnx

    from dlcv_deploy.calibration.calibrate import calibrate
    from dlcv_deploy.calibration.collect import observed
    from dlcv_deploy.export import from_proto
    from dlcv_deploy.graph.qdq import quantizable, quantize
    from dlcv_deploy.proof import session_of
    from dlcv_deploy.subject import graph_sha256

    if quality != "fast":
        raise NotImplementedError(f"quality {quality} has no entry point yet")
    proto = onnx.load(case.fp32)
    model, tensors = from_proto(case.model, proto, case.weights_sha256), quantizable(proto)
    with session_of(observed(model.onnx, tensors)) as session:
        table = calibrate(model, graph_sha256(model), tensors, session, case.calibration, case.preprocess)
    path = out / "int8.onnx"
    path.write_bytes(quantize(model, table.amax).model.onnx)
    return path


def onnxruntime(case: Case, method: str, out: Path) -> Path:
    """ONNX Runtime's ``quant_pre_process`` and ``quantize_static``: Q/DQ, weights int8 per channel.

    Activations are uint8, as its documentation recommends for x86 CPUs with VNNI and as costs it the fewest flips;
    percentile and entropy have its own settings for everything else.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, path = out / "prepared.onnx", out / "int8.onnx"
    quant_pre_process(str(case.fp32), str(prepared))
    quantization.quantize_static(
        str(prepared),
        str(path),
        _reader(case),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType[os.environ.get("ORT_ACT", "QUInt8")],
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[METHODS[method]],
        **eval(os.environ.get("ORT_MORE", "{}")),
    )
    return path


def _reader(case: Case) -> Any:  # noqa: ANN401 - an untyped package
    from onnxruntime.quantization import CalibrationDataReader

    feeds = ({"input": case.inputs(case.calibration, i, i + 1)} for i in range(len(case.calibration)))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(feeds, None)

    return Reader()


def nncf(case: Case, correction: str, out: Path) -> Path:
    """NNCF's ``quantize`` on OpenVINO's model, its default settings but for the number of images.

    ``correction`` "accurate" is its ``fast_bias_correction=False``. Constants that stay floats are saved in fp32.
    """
    import nncf as package
    import openvino as ov

    images = case.calibration
    dataset = package.Dataset(range(len(images)), lambda i: {"input": case.inputs(images, i, i + 1)})
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
    """One tool with one setting, as it stands in the tables."""

    tool: str
    setting: str
    run: Callable[[Case, str, Path], Path]
    package: str
    imports: tuple[str, ...]

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
        if self.run is ours:
            from dlcv_deploy.stages import code_version

            found["code"] = code_version()[:12]
        return found


def _settings(
    tool: str, run: Callable[[Case, str, Path], Path], package: str, imports: tuple[str, ...], *settings: str
) -> dict[str, Quantizer]:
    each = (Quantizer(tool, setting, run, package, imports) for setting in settings)
    return {quantizer.name: quantizer for quantizer in each}


OURS = "dlcv-deploy"
QUANTIZERS = {
    **_settings("ONNX Runtime", onnxruntime, "onnxruntime", ("onnxruntime.quantization",), *METHODS),
    **_settings("NNCF", nncf, "nncf", ("nncf", "openvino"), *CORRECTIONS),
    **_settings(OURS, ours, "dlcv-deploy", ("onnx", "onnxruntime", "dlcv_deploy.graph.qdq"), "fast", "default", "best"),
}
