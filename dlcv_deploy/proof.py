"""Engines beside the PyTorch original: parity on the same pixels, latency within the same run."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np

from . import backends
from .bundle import Bundle
from .digest import digest, sha256
from .errors import ArtifactError, MissingBackend, SpecError
from .latency.measure import cores, machine
from .parity.answers import Candidate
from .progress import Progress, silent
from .reference import TorchSession
from .report.document import engine_name, environment
from .spec import is_own
from .stages import code_version
from .types import CompileOptions, Engine, Precision, Preprocess

if TYPE_CHECKING:
    from .backends.base import Array, Session
    from .calibration.calibrate import Runtimes
    from .calibration.samples import Samples
    from .models.catalogue import Network
    from .models.weights import LoadedWeights

PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx")
"""Whose versions a result depends on."""
CPU_RUNTIMES = ("onnxruntime", "openvino")
"""What checks and calibrates a graph, the first that is installed."""


def session_of(onnx: bytes, *, streams: int = 1) -> Session:
    """A graph, ready to run on this machine's CPU: ONNX Runtime where that is installed, else OpenVINO.

    Args:
        onnx: The graph.
        streams: Threads that will call the session at once.

    Raises:
        MissingBackend: Neither is installed.
    """
    for name in CPU_RUNTIMES:
        backend = backends.get(name)
        if backend.ability().can_run:
            return backend.load(backend.compile(onnx, CompileOptions(streams=streams)))
    raise MissingBackend(
        "checking and calibrating a graph takes ONNX Runtime or OpenVINO, and neither is installed",
        fix="pip install 'dlcv-deploy[onnxruntime]' or 'dlcv-deploy[openvino]'",
    )


def part_of(onnx: bytes, *, streams: int = 1) -> Session:
    """A part of a graph that has run, or it with other outputs or weights: loaded without a proof by a child process.

    Args:
        onnx: The graph.
        streams: Threads that will call the session at once.
    """
    runtime = backends.get("onnxruntime")
    if runtime.ability().can_run:
        version = runtime.ability().version
        return runtime.load(Engine(runtime.name, "CPU", version, {"model.onnx": onnx}, streams=streams))
    return session_of(onnx, streams=streams)


def int8_session_of(onnx: bytes) -> Session:
    """An INT8 graph, ready to run: OpenVINO where that is installed, which is fast at it, else ONNX Runtime."""
    fast = backends.get("openvino")
    return fast.load(fast.compile(onnx, CompileOptions())) if fast.ability().can_run else session_of(onnx)


def runtimes() -> Runtimes:
    """What calibration runs graphs with on this machine."""
    from .calibration.calibrate import Runtimes

    return Runtimes(session_of, part_of, int8_session_of, environment(CPU_RUNTIMES).packages)


def measured_on() -> list[object]:
    """What a measurement depends on besides its inputs: the processor, its cores, and the packages at work."""
    return [machine(), cores(), dc.asdict(environment(PACKAGES))]


@contextmanager
def loaded(engines: Iterable[Engine], precision: Precision) -> Iterator[dict[str, Session | str]]:
    """Engines by the name they have in reports, each as a session, or as the reason why it cannot run here."""
    with ExitStack() as stack:
        found: dict[str, Session | str] = {}
        for engine in engines:
            backend = backends.get(engine.backend)
            reason = backend.ability().no_run
            found[engine_name(precision, engine.backend)] = reason or stack.enter_context(backend.load(engine))
        yield found


@contextmanager
def legs(
    engines: Iterable[Engine], graphs: Mapping[str, bytes | str], precision: Precision
) -> Iterator[dict[str, Candidate]]:
    """All that stands between PyTorch and the engines, in order: each graph on ONNX Runtime, then each engine.

    A graph that ONNX Runtime runs as an engine anyway is there once. Each graph is a step from the one before it, and
    each engine one from the last graph.

    Args:
        engines: Of a bundle or a build.
        graphs: By what they are called, from the exported one on; or in words why one is not to be had.
        precision: Of the engines.
    """
    engines = tuple(engines)
    runtime, about = backends.get("onnxruntime"), measured_on()
    asked = {
        data: engine_name(precision, engine.backend)
        for engine in engines
        if engine.backend == runtime.name
        for data in engine.files.values()
    }
    with ExitStack() as stack:
        found: dict[str, Candidate] = {}
        previous, steps = "", dict[str, str]()
        for name, onnx in graphs.items():
            leg = f"{name} on {runtime.name}"
            if isinstance(onnx, str):
                found[leg] = Candidate(onnx, previous)
            elif onnx in asked:
                leg = asked[onnx]
                steps[leg] = previous
            elif reason := runtime.ability().no_run:
                found[leg] = Candidate(reason, previous)
            else:
                engine = runtime.compile(onnx, CompileOptions())
                session = stack.enter_context(runtime.load(engine))
                found[leg] = Candidate(session, previous, _identity(engine, about))
            previous = leg
        sessions = stack.enter_context(loaded(engines, precision))
        for engine, (name, session_or_reason) in zip(engines, sessions.items(), strict=True):
            found[name] = Candidate(session_or_reason, steps.get(name, previous), _identity(engine, about))
        yield found


def _identity(engine: Engine, about: list[object]) -> str:
    """Digest of what an engine's answers depend on besides its inputs."""
    return digest(
        engine=[engine.backend, engine.target, engine.version, engine.streams],
        files={name: sha256(data) for name, data in engine.files.items()},
        device=backends.get(engine.backend).ability().device,
        machine=about,
        code=code_version(),
    )


def original_identity(bundle: Bundle) -> str:
    """Digest of what the original's answers depend on besides its inputs, on this machine."""
    import torch

    m = bundle.manifest
    return digest(
        network=[m.model, m.factory, m.code_sha256, m.classes, m.bgr, m.outputs[0].name],
        weights=m.weights_sha256,
        threads=torch.get_num_threads(),
        machine=measured_on(),
        code=code_version(),
    )


def original(
    bundle: Bundle, weights: str | None, model: str | None = None, progress: Progress = silent
) -> TorchSession:
    """The PyTorch network that a bundle was built from, as a session; arguments and errors as ``original_network``."""
    m = bundle.manifest
    return TorchSession(original_network(bundle, weights, model, progress)[1].net, m.inputs, m.outputs)


def original_network(
    bundle: Bundle, weights: str | None, model: str | None = None, progress: Progress = silent
) -> tuple[Network, LoadedWeights]:
    """The PyTorch network that a bundle was built from.

    Args:
        bundle: Says which network, and which weights.
        weights: Where they are now, if they have moved.
        model: What makes a network of the user's own now, if that has moved.
        progress: Told of bytes downloaded.

    Raises:
        ArtifactError: Other weights, or another network, are there than those the bundle was built from.
    """
    from .models.own import load

    m = bundle.manifest
    network = _network(bundle, model)
    chosen = load(network, weights or m.weights or None, bgr=m.bgr, progress=progress)
    if chosen.weights_sha256 != m.weights_sha256:
        raise ArtifactError(
            f"{bundle.path.name} was built from other weights than {chosen.source}",
            fix="name the weights it was built from with --weights FILE, or build it again",
        )
    return network, chosen


def _network(bundle: Bundle, model: str | None) -> Network:
    from .models import catalogue, own

    m, name = bundle.manifest, bundle.path.name
    if not m.factory:
        if model is not None:
            raise SpecError(f"{name} is of the catalogue's {m.model}", fix="leave --model out")
        network = catalogue.network(m.model)
        return network if m.classes == network.classes else catalogue.with_classes(network, m.classes)
    if model is not None and not is_own(model):
        raise SpecError(f"{name} was built from {m.factory}", fix="--model FILE.py:factory, where it is now")
    try:
        network = own.network(model or m.factory, m.preprocess, tuple(spec.name for spec in m.outputs))
    except ArtifactError as e:
        raise ArtifactError(
            f"{name} was built from {m.factory}, and {e.what}", fix="--model FILE.py:factory, where it is now"
        ) from e
    if network.code_sha256 != m.code_sha256:
        raise ArtifactError(
            f"the code of {network.factory} is not what {name} was built from; it has changed",
            fix="build it again, or name the code as it was: --model FILE.py:factory",
        )
    return network


def pixels_of(samples: Samples, pre: Preprocess, count: int) -> Array:
    """Network inputs of the first ``count`` images, one centre crop each: (count, 3, size, size) float32."""
    from .parity.crops import canvas, crops, to_input

    chosen = [crops(canvas(samples.image(i), pre), pre, 1) for i in range(min(count, len(samples)))]
    return to_input(np.concatenate(chosen), pre)
