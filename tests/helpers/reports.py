"""Reports for tests of pages: one with every kind of figure, one of which nothing can be trusted."""

import dataclasses as dc
import math

from helpers.trials import study

from dlcv_deploy.latency.values import (
    ClientRow,
    Cold,
    DeviceTimes,
    Latency,
    LatencyReport,
    LoadRow,
    Part,
    Quantile,
    Ratio,
    ThreadRow,
    Validity,
)
from dlcv_deploy.parity.values import (
    Check,
    ClassCount,
    Consistency,
    Drift,
    Flip,
    LayerError,
    Leg,
    Loss,
    OutputError,
    ParityReport,
    Step,
    Verdict,
)
from dlcv_deploy.report.document import (
    Calibration,
    CompiledEngine,
    Environment,
    File,
    Report,
    Weights,
)
from dlcv_deploy.types import LeftAlone, NotInt8, PrecisionAudit, Preprocess, StageTime

PYTORCH, ONNX, GRAPH = "PyTorch fp32", "fp32 graph on onnxruntime", "int8 graph on onnxruntime"
OPENVINO, RTX = "int8 on openvino", "int8 on tensorrt_rtx"
NO_GPU = "running needs an NVIDIA GPU, and this machine has none"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mNgYGAAAAAEAAHI6uv5AAAAAElFTkSuQmCC"
"""A black pixel as PNG."""


def flips(count):
    """So many flips, three of four from right to wrong, then one the other way and one between two wrong classes."""
    found = []
    for i in range(count):
        label = i % 10
        before, after = {3: ((label + 1) % 10, label), 7: ((label + 1) % 10, (label + 2) % 10)}.get(
            i % 8, (label, (label + 1) % 10)
        )
        found.append(Flip(7 * i, f"test/{7 * i:05}", label, before, after, (i % 16) / 32, (i % 8) / 64, PIXEL))
    return tuple(found)


def classes(lost=6, gained=2):
    """Ten classes of a thousand images, of which the third lost the most and the seventh gained."""
    counts = [ClassCount(label, 1000, 913, 913, 0, 0) for label in range(10)]
    counts[2] = ClassCount(2, 1000, 900, 900 - lost, lost, 0)
    counts[3] = ClassCount(3, 1000, 850, 849, 1, 0)
    counts[6] = ClassCount(6, 1000, 950, 950 + gained, 0, gained)
    return tuple(counts)


def verdicts(outcome="shown"):
    """What the images prove of a margin of half a point at top-1 and top-5, and of MLPerf's two rules."""
    return (
        Verdict("margin 0.5", 1, 0.5, outcome, True, 0.14, 1_254),
        Verdict("MLPerf 99 %", 1, 0.913, "shown", True, 0.14, 424),
        Verdict("MLPerf 99.9 %", 1, 0.0913, "not shown", False, 0.14, 22_345),
        Verdict("margin 0.5", 5, 0.5, "shown", True, 0.06, 512),
    )


def ten():
    """Ten crops of labelled images."""
    return ParityReport(
        "CIFAR-10 test",
        10_000,
        10,
        True,
        91.3,
        99.71,
        (
            Leg(
                ONNX,
                91.3,
                99.71,
                (Loss(1, 0.0, -0.038, 0.038, 0, 0, 1.0), Loss(5, 0.0, -0.038, 0.038, 0, 0, 1.0)),
                agreement=100.0,
                logit_max_abs=1.5e-5,
                logit_sqnr_db=118.2,
                cosine=1.0,
                step=Step(PYTORCH, 0.0, 0, 1.0, 118.2, 1.5e-5),
            ),
            Leg(
                GRAPH,
                91.21,
                99.7,
                (Loss(1, 0.09, -0.06, 0.24, 32, 23, 0.2807), Loss(5, 0.01, -0.04, 0.07, 2, 1, 1.0)),
                verdicts(),
                99.4,
                flips(60),
                0.8125,
                27.04,
                0.998765,
                Step(ONNX, 0.09, 60, 0.998764, 27.04, 0.8125),
            ),
            Leg(
                OPENVINO,
                91.2,
                99.7,
                (Loss(1, 0.1, -0.05, 0.25, 8, 2, 0.1094), Loss(5, 0.01, -0.04, 0.07, 2, 1, 1.0)),
                verdicts(),
                99.88,
                flips(12),
                0.75,
                27.31,
                0.998877,
                Step(GRAPH, 0.01, 21, 0.999912, 38.5, 0.25),
                classes(),
            ),
            Leg(RTX, not_run=NO_GPU),
        ),
        rotated=3,
    )


def one():
    """One crop of drawn images, without labels, and further outputs."""
    return ParityReport(
        "drawn images",
        64,
        1,
        False,
        None,
        None,
        (
            Leg(
                GRAPH,
                agreement=100.0,
                logit_max_abs=0.0,
                logit_sqnr_db=math.inf,
                outputs=(
                    OutputError("features", 0.99912345, 0.9954321, 4.1867, 9.5432, 96.5625, 64),
                    OutputError("c5", 1.0, 1.0, 0.0, 0.0),
                ),
            ),
            Leg(
                OPENVINO,
                agreement=98.4375,
                flips=(Flip(3, "drawn 3", -1, 1, 2, 0.25, 0.125),),
                logit_max_abs=1.5,
                logit_sqnr_db=20.0,
                outputs=(
                    OutputError("features", 0.99812345, 0.9934567, 6.12345, 11.2, 95.3125, 64),
                    OutputError("c5", 0.99712345, 0.99, 7.5, 12.34567),
                ),
            ),
            Leg(RTX, not_run=NO_GPU),
        ),
    )


def row(name, batch, calls, mean_ms, p50_ms, p99_ms, **fields):
    """Times of which the percentiles lie evenly between the median and the 99th, and 100 calls tell the last apart."""
    times = [p50_ms + (p99_ms - p50_ms) * part for part in (0, 0.25, 0.5, 1, 1.25, 1.5)]
    points = tuple(
        Quantile(p, ms, 0.98 * ms, math.inf if calls < 100 / (100 - min(p, 99.99)) else 1.02 * ms)
        for p, ms in zip((50.0, 90.0, 95.0, 99.0, 99.9, 100.0), times, strict=True)
    )
    shape = tuple(p50_ms * (0.96 + 0.001 * i) for i in range(64))
    return Latency(name, batch, calls, mean_ms, points, 1e3 * batch / mean_ms, shape=shape, **fields)


def latency():
    """Two batch sizes, and all that is measured besides."""
    return LatencyReport(
        "Some CPU @ 2.0GHz (AVX512-VNNI, AMX-INT8)",
        2,
        (
            row(PYTORCH, 1, 640, 4.2, 4.0512, 6.25),
            row(OPENVINO, 1, 4210, 0.51, 0.5, 0.75),
            Latency(RTX, 1, not_run=NO_GPU),
            row(PYTORCH, 10, 64, 20.5, 20.0, 25.0, settled=False),
            row(OPENVINO, 10, 1100, 2.5, 2.5, 3.0, device=DeviceTimes(0.25, 1.5, 0.125, 0.0625, 1.875)),
            Latency(RTX, 10, not_run=NO_GPU),
        ),
        (
            Ratio(OPENVINO, PYTORCH, 1, 8.1024, 7.96, 8.25),
            Ratio(OPENVINO, PYTORCH, 10, 8.0, 7.5, 8.5),
        ),
        (
            Cold(PYTORCH, 1520.0, 12.5, 30.25, 412 << 20, 96 << 20),
            Cold(OPENVINO, 310.0, 85.5, 1.25, 180 << 20, 24 << 20),
            Cold(RTX, not_run=NO_GPU),
        ),
        (ThreadRow(OPENVINO, 1, 0.9, 1.1, 1110.0), ThreadRow(OPENVINO, 2, 0.5, 0.75, 1990.0)),
        (ClientRow(OPENVINO, 1, 0.5, 0.75, 1990.0), ClientRow(OPENVINO, 4, 1.9, 3.5, 2105.0)),
        (LoadRow(OPENVINO, 500.0, 499.5, 0.55, 1.25, True), LoadRow(OPENVINO, 2500.0, 2090.0, 250.0, 480.0, False)),
        (Part(OPENVINO, "engine", 0.5), Part(OPENVINO, "resize and crop", 0.25), Part(OPENVINO, "decode", 1.5)),
        Validity(
            ("the governor is powersave, which changes clocks between calls", "other processes took 35 % of the CPU."),
            {"governor": "powersave", "load": "1.42 on 2 cores", "other processes": "35 % of the CPU"},
        ),
        {PYTORCH: {"threads": "2"}, OPENVINO: {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": "2"}},
    )


def drift():
    """Eleven layers, of which the fifth falls out of line."""
    layers = [LayerError(f"conv_{i}", f"layer1.{i}.conv1", "Conv", 42.0 - i, 1 - 1e-5 * i) for i in range(11)]
    layers[4] = dc.replace(layers[4], sqnr_db=18.25, cosine=0.9925)
    return Drift("int8 graph", 64, tuple(layers), "layer1.4.conv1")


def consistency(passed=True):
    """An engine whose rows agree, or do not, and one that was not run."""
    checks = (
        Check("equal rows", True, "64 equal rows, 64 equal answers"),
        Check("permuted rows", passed, "permuted alike" if passed else "3 of 64 rows differ by up to 0.5"),
        Check("several threads", None, "this backend has one stream"),
    )
    return Consistency(OPENVINO, checks), Consistency(RTX, (), NO_GPU)


def full():
    """A report with every kind of figure."""
    return Report(
        tool_version="0.1.0",
        created="2026-11-21T22:30:00Z",
        model="resnet20",
        weights=Weights("bundled", "ab" * 32, "Apache-2.0", "91.30 % on the CIFAR-10 test images", True),
        preprocess=Preprocess(32, 40, "pad", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
        precision="int8",
        calibration=Calibration("mse", "CIFAR-10 training images, seed 0", 128, False, "cd" * 32),
        quantized=tuple(f"node_{i}" for i in range(22)),
        left_alone=(LeftAlone("node_pool", "ReduceMean", "not a product: nothing to gain in INT8"),),
        engines=(
            CompiledEngine(
                "openvino", "CPU", "2026.4.0", (File("openvino/model.xml", 123_456, "01" * 32),), audit=audit()
            ),
            CompiledEngine(
                "tensorrt_rtx", "SM 8.6, 8.9", "1.7.1", (File("rtx/e.bin", 1 << 20, "23" * 32),), ("no timing cache",)
            ),
        ),
        stages=(StageTime("export", 4.2, True), StageTime("calibrate", 12.34, False)),
        peak_memory_bytes=900 << 20,
        parity=(ten(), one()),
        latency=latency(),
        environment=Environment("3.11.7", "Linux-6.1-x86_64", {"torch": "2.13.0", "onnx": "1.23.0"}),
        warnings=("2 images could not be read and were left out",),
        quantization=study(),
        drift=(drift(),),
        consistency=consistency(),
        commands=(
            "dlcv-deploy build resnet20 --int8 --data cifar10 --target openvino --target tensorrt_rtx",
            "dlcv-deploy validate resnet20-int8.dlcv --data cifar10",
            "dlcv-deploy bench resnet20-int8.dlcv",
        ),
    )


def audit():
    """ResNet-20 with its last layer left in floating point on request, and one more that the runtime dequantizes."""
    asked = NotInt8("gemm_1", "linear", "Gemm", 640, "float32", "it was to stay in floating point", asked=True)
    missed = NotInt8(
        "conv_1", "conv1", "Conv", 442_368, "float32", "the graph has it in INT8, and openvino dequantizes it"
    )
    shares = 1 - 443_008 / 40_551_040, 1 - 640 / 40_551_040
    return PrecisionAudit("openvino", *shares, 40_551_040, (missed, asked), "OpenVINO's execution graph")


def bare():
    """Random weights and random calibration, an engine that answers NaN, and next to nothing measured."""
    features = OutputError("features", math.nan, math.nan, math.nan, math.nan, non_finite=1)
    nan = Leg(
        OPENVINO,
        agreement=0.0,
        flips=(Flip(0, "drawn 0", -1, 1, -1),),
        non_finite=1,
        logit_max_abs=math.nan,
        outputs=(features,),
    )
    return dc.replace(
        full(),
        weights=Weights("random, seed 0", "ef" * 32, "", "", False),
        calibration=Calibration("max", "standard normal, seed 0", 128, True, "cd" * 32),
        quantized=(),
        left_alone=(),
        engines=(dc.replace(full().engines[0], audit=None),),
        stages=(),
        peak_memory_bytes=None,
        parity=(ParityReport("drawn images", 1, 1, False, None, None, (nan,)),),
        latency=None,
        warnings=(),
        quantization=None,
        drift=(),
        consistency=(),
        commands=(),
    )
