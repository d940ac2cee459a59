"""A backend that does what it is told, so that every fault can be had without a fault.

    backend = fake.install(monkeypatch)                        # backends.get("fake"), and the first in names()
    fake.install(monkeypatch, compile="crash")                 # a real child process dies by SIGSEGV
    fake.install(monkeypatch, name="openvino", no_run="...")   # in another's place

``compile``: "" | "crash" | "killed" | "hang" (past ``timeout_s``) | "refuse" (names a node) | "nothing" (no result).
``load``: "" | "damaged" | "absent".        ``run``: "" | "nan" | "noise" | "flip" | "refuse" | "slow".
``compiled``, ``loaded`` and ``ran`` count the calls that succeeded; ``closed`` the sessions closed.
The engine is the graph itself, and its answers are ONNX Runtime's where that is installed.
"""

import time

import numpy as np

from dlcv_deploy import backends
from dlcv_deploy.backends.session import CheckedSession, damaged, file_of, spec_of
from dlcv_deploy.errors import MissingBackend, ToolError
from dlcv_deploy.isolate import isolated
from dlcv_deploy.types import Ability, Engine

FILE = "model.fake"
_ENDS = {
    "crash": ("die", {"signal": "SIGSEGV", "lines": ["fake: internal error in layer conv1"]}),
    "killed": ("die", {"signal": "SIGKILL"}),
    "hang": ("sleep", {}),
    "nothing": ("die", {"code": 0}),
}


class Fake:
    def __init__(self, name="fake", *, compile="", load="", run="", no_compile="", no_run="", version="1.0"):
        self.name, self._compile, self._load, self._run = name, compile, load, run
        self._ability = Ability(version, no_compile, no_run)
        self.compiled = self.loaded = self.ran = self.closed = 0

    def ability(self):
        return self._ability

    def compile(self, onnx, options):
        if self._ability.no_compile:
            raise MissingBackend(f"{self.name} cannot compile here: {self._ability.no_compile}", fix="install it")
        if self._compile == "refuse":
            raise ToolError("Fake refused node 'conv1' (Conv): it never liked it", fix="none", log="first\nlast words")
        if self._compile:
            function, request = _ENDS[self._compile]
            isolated(f"helpers.natives:{function}", request, {}, what="Fake", timeout_s=options.timeout_s)
        self.compiled += 1
        return Engine(self.name, "nowhere", self._ability.version, {FILE: onnx}, ("a note of the fake",), options.batch)

    def load(self, engine):
        if self._ability.no_run or self._load == "absent":
            raise MissingBackend(f"{self.name} cannot run here: {self._ability.no_run or 'no device'}", fix="buy one")
        if self._load == "damaged":
            raise damaged(engine, "its checksum is wrong")
        session = _Session(self, file_of(engine, FILE), engine.batch)
        self.loaded += 1
        return session

    def answer(self, outputs):
        """Outputs with this backend's fault."""
        self.ran += 1
        if self._run == "refuse":
            raise ToolError("Fake refused to run", log="last words")
        if self._run == "slow":
            time.sleep(0.05)
        changes = {
            "nan": lambda y: np.full_like(y, np.nan),
            "noise": lambda y: (y + np.random.default_rng(0).normal(0, y.std() + 1, y.shape)).astype(y.dtype),
            "flip": lambda y: np.roll(y, 1, axis=-1),
        }
        return [changes.get(self._run, np.array)(y) for y in outputs]


class _Session(CheckedSession):
    def __init__(self, fake, onnx, batch):
        from onnx import load_model_from_string
        from onnx.helper import tensor_dtype_to_np_dtype

        def spec(value):
            kind = value.type.tensor_type
            shape = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
            return spec_of(value.name, shape, tensor_dtype_to_np_dtype(kind.elem_type).name, batch)

        graph = load_model_from_string(onnx).graph
        held = {tensor.name for tensor in graph.initializer}
        inputs = tuple(spec(value) for value in graph.input if value.name not in held)
        outputs = tuple(map(spec, graph.output))
        run, self._fake = _runner(onnx), fake
        super().__init__(
            inputs,
            outputs,
            batch,
            lambda arrays: fake.answer(run({s.name: a for s, a in zip(inputs, arrays, strict=True)})),
        )

    def close(self):
        super().close()
        self._fake.closed += 1


def _runner(onnx):
    try:
        import onnxruntime
    except ImportError:
        from onnx import load_model_from_string
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(load_model_from_string(onnx))
    else:
        session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, feeds)


def install(monkeypatch, name="fake", **faults):
    """Make ``backends.get(name)`` a ``Fake`` for one test; returns it."""
    made, get, names = Fake(name, **faults), backends.get, backends.names
    monkeypatch.setattr(backends, "get", lambda asked: made if asked == name else get(asked))
    monkeypatch.setattr(backends, "names", lambda: tuple(dict.fromkeys((name, *names()))))
    return made
