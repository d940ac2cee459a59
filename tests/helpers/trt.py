"""A make-believe TensorRT that takes notes, its plugin registry, and libraries that only say what they are."""

import json
import platform
from pathlib import Path
from types import SimpleNamespace

from dlcv_deploy.plugin.library import OPS

LAYERS = SimpleNamespace(PLUGIN_V3="plugin v3")
MACHINES = {"x86_64": 62, "aarch64": 183}


def library(tensorrt="10.14.1", architectures=(75, 86, 89), machine=None, source="ab" * 32, **more):
    """The bytes of a plugin library, with no code in it."""
    head = bytearray(64)
    head[:6] = b"\x7fELF\x02\x01"
    head[18:20] = MACHINES[machine or platform.machine()].to_bytes(2, "little")
    info = {"schema": 1, "tensorrt": tensorrt, "architectures": architectures, "cuda": "13.0", "source": source, **more}
    return bytes(head) + b"DLCV_PLUGIN_INFO" + json.dumps(info).encode() + b"\0"


def creator(name, version="1", namespace=""):
    return SimpleNamespace(name=name, plugin_version=version, plugin_namespace=namespace)


OURS = tuple(creator(name) for name in OPS)


class FakeRegistry:
    """TensorRT's plugin registry: holds one creator of a name, version and namespace."""

    def __init__(self, *there, brings=OURS, refuses=""):
        self.all_creators, self.brings, self.refuses = [creator("ROIAlign_TRT", "2"), *there], list(brings), refuses
        self.said, self.loaded = [], []

    def load_library(self, path):
        self.loaded.append(Path(path).read_bytes())
        self.said.append(("load", self.loaded[-1]))
        if self.refuses:
            return None
        self.all_creators += self.brings
        return self

    def deregister_library(self, handle):
        assert handle is self
        self.said.append(("deregister",))
        self.all_creators = [one for one in self.all_creators if one not in self.brings]


class FakeDims(list):
    pass


class FakeTensorRT:
    """TensorRT 10: one input ``x`` (N, 3, 8, 8); ``faults`` name what returns None or False.

    ``said`` is what was asked of it, in order. ``layers`` are the types of the layers that the parser makes.
    """

    __name__ = "tensorrt"
    __version__ = "10.13.0.35"
    Dims = FakeDims
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    BuilderFlag = SimpleNamespace(TF32="tf32")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    LayerType = LAYERS

    def __init__(self, *faults, shape=(-1, 3, 8, 8), dtype="FLOAT", outputs=1, layers=("conv",), registry=None):
        self.faults, self.said, self.outputs = faults, [], outputs
        self.layers, self.registry = layers, registry or FakeRegistry()
        self.registry.said = self.said
        self.get_plugin_registry = lambda: self.registry
        self.input = SimpleNamespace(name="x", shape=shape, dtype=SimpleNamespace(name=dtype))
        self.ILogger = type("ILogger", (), {"__init__": lambda self: None})

    def given(self, name, value):
        return None if name in self.faults else value

    def note(self, name, value=None):
        def call(*args, **kwargs):
            self.said.append((name, *args, *kwargs.values()))
            return value(*args) if callable(value) else value

        return call

    def Builder(self, logger):
        if "builder" in self.faults:
            logger.log(SimpleNamespace(name="ERROR"), "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        logger.log(SimpleNamespace(name="WARNING"), "a warning")
        self.logger = logger
        return SimpleNamespace(
            create_network=self.note("flags", self.given("network", self.network())),
            create_builder_config=lambda: self.given("config", self.config()),
            create_optimization_profile=lambda: self.given("profile", self.profile()),
            build_serialized_network=self.build,
        )

    def build(self, network, config):
        if "plan" in self.faults:
            self.logger.log(SimpleNamespace(name="ERROR"), "no tactic for conv1")
        return self.given("plan", b"engine")

    def network(self):
        return SimpleNamespace(
            num_inputs=1,
            num_outputs=self.outputs,
            get_input=lambda i: self.input,
            num_layers=len(self.layers),
            get_layer=lambda i: SimpleNamespace(type=self.layers[i]),
        )

    def config(self):
        return SimpleNamespace(
            set_memory_pool_limit=self.note("memory"),
            clear_flag=self.note("clear"),
            add_optimization_profile=self.note("profile", -1 if "added" in self.faults else 0),
            create_timing_cache=self.note("cache in", lambda data: self.given("cache", ("cache", data))),
            set_timing_cache=self.note("cache set", "cache set" not in self.faults),
            get_timing_cache=lambda: self.given("cache back", SimpleNamespace(serialize=lambda: b"new times")),
        )

    def profile(self):
        return SimpleNamespace(set_shape=self.note("shape"))

    def OnnxParser(self, network, logger):
        def error(name, operator, code, text):
            return SimpleNamespace(
                node_name=lambda: name,
                node_operator=lambda: operator,
                code=lambda: SimpleNamespace(name=code),
                desc=lambda: text,
            )

        errors = [
            error("odd", "Frob", "INVALID_NODE", "no such\nin a.cpp\n[x::catchCudaError] 35\nmore"),
            error("", "", "INVALID_GRAPH", "cut"),
        ]
        return SimpleNamespace(
            parse=self.note("parse", "parse" not in self.faults), num_errors=2, get_error=lambda i: errors[i]
        )
