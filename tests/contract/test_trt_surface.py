"""TensorRT itself is on no test machine without a GPU: so what is used of it is checked against what is known of it.

Against TensorRT for RTX, which has the same API and imports everywhere, and against the published type stubs.
"""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dlcv_deploy

BACKENDS = Path(dlcv_deploy.__file__).parent / "backends"
SOURCES = ("_plugin.py", "_trt.py", "_trt_session.py", "tensorrt.py", "tensorrt_rtx.py")
ONLY_BEFORE_11 = {"NetworkDefinitionCreationFlag.STRONGLY_TYPED"}  # TensorRT for RTX still has it, too
TYPES = {  # what the sources call their objects
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
    "error": "ParserError",
    "tensor": "ITensor",
    "plan": "ICudaEngine",
    "_context": "IExecutionContext",
    "_runtime": "Runtime",
    "registry": "IPluginRegistry",
    "creator": "IPluginCreatorV3One",
    "layer": "ILayer",
}


def dotted(node):
    """``a.b.c`` as a list of names; None for anything else."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else None


def used(source):
    """Names of the module's API in a source: "Builder", "MemoryPoolType.WORKSPACE", "ICudaEngine.num_io_tensors"."""
    for node in ast.walk(ast.parse(source)):
        names = dotted(node) if isinstance(node, ast.Attribute) else None
        if names and names[0] == "self":
            names = names[1:]
        if not names or len(names) < 2:
            continue
        if names[0] in ("trt", "tensorrt"):
            yield ".".join(names[1:])
        elif names[0] in TYPES:
            yield f"{TYPES[names[0]]}.{names[1]}"


def api():
    return {name for source in SOURCES for name in used((BACKENDS / source).read_text())}


def test_the_scan_sees_all_kinds():
    found = set(used("trt.A.B.c(); self._context.d; x: tensorrt.E; config.f = 1; other.g"))
    assert found == {"A.B.c", "A.B", "A", "IExecutionContext.d", "E", "IBuilderConfig.f"}
    assert {
        "Builder",
        "OnnxParser",
        "MemoryPoolType.WORKSPACE",
        "BuilderFlag.TF32",
        "ICudaEngine.get_tensor_profile_shape",
        "IExecutionContext.execute_async_v3",
        "ParserError.node_operator",
        "IBuilderConfig.set_timing_cache",
        "Runtime.deserialize_cuda_engine",
        "get_plugin_registry",
        "IPluginRegistry.load_library",
        "IPluginRegistry.deregister_library",
        "IPluginRegistry.all_creators",
        "IPluginCreatorV3One.plugin_namespace",
        "INetworkDefinition.get_layer",
        "ILayer.type",
        "LayerType.PLUGIN_V3",
        *ONLY_BEFORE_11,
    } <= api()


def test_every_name_exists_in_tensorrt_for_rtx(need):
    need("tensorrt_rtx")
    import tensorrt_rtx

    for name in sorted(api() - ONLY_BEFORE_11):
        value = tensorrt_rtx
        for part in name.split("."):
            if part == "__members__":
                break
            assert hasattr(value, part), f"tensorrt_rtx has no {name}"
            value = getattr(value, part)


def test_only_before_11_is_asked_for_by_version_alone():
    from types import SimpleNamespace

    from dlcv_deploy.backends.tensorrt import network_flags

    trt = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1))
    assert [network_flags(trt, v) for v in ((10,), (10, 13, 0, 35))] == [2, 2]
    assert [network_flags(None, v) for v in ((11,), (11, 4, 0), (12,))] == [0, 0, 0]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("10.13.0.35", (10, 13, 0, 35)), ("9.3", (9, 3)), ("11.4.0.post1", (11, 4, 0)), ("10.0rc1", (10,)), ("", ())],
)
def test_versions_are_numbers(text, numbers):
    from dlcv_deploy.backends._trt import version

    assert version(text) == numbers
    assert version("10.2") > version("9.12")


# --- types


def stubs(into):
    """TensorRT's published stubs (10.13), with the lines mended that are no Python; None where not installed."""
    try:
        spec = importlib.util.find_spec("tensorrt_stubs")
    except ImportError:
        return None
    if spec is None:
        return None
    packages = Path(spec.origin).parents[1]
    for name in ("tensorrt/__init__.pyi", "tensorrt_bindings/__init__.pyi", "tensorrt_bindings/tensorrt.pyi"):
        text = (packages / name).read_text()
        text = re.sub(r"\bin: (?=list\[)", "in_: ", text)
        text = text.replace(
            "power: Weights = None, channel_axis: int)", "power: Weights = None, channel_axis: int = 0)"
        )
        (into / name).parent.mkdir(exist_ok=True)
        (into / name).write_text(text)
    return into


@pytest.fixture
def check_types(need, tmp_path, request):
    """Run mypy --strict on the sources with the stubs, each source changed first; its complaints about them."""
    need("mypy")
    if stubs(tmp_path) is None:
        pytest.skip("tensorrt-stubs is not installed")

    def check(change=lambda text: text):
        package = tmp_path / "checked" / "dlcv_deploy"
        root = BACKENDS.parent
        folders = (root, *(root / name for name in ("backends", "graph", "plugin")))
        for path in (p for folder in folders for p in folder.glob("*.py")):
            copy = package / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(change(path.read_text()) if path.name in SOURCES else path.read_text())
        command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--follow-imports=silent"]
        command += ["--config-file=", f"--cache-dir={request.config.cache.mkdir('mypy')}"]
        command += [str(package / "backends" / source) for source in SOURCES]
        env = {**os.environ, "MYPYPATH": str(tmp_path)}
        done = subprocess.run(command, cwd=package.parent, env=env, capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stderr
        return [line for line in done.stdout.splitlines() if "error:" in line and "backends" in line]

    return check


def test_types_agree_with_tensorrts_stubs(check_types):
    assert check_types() == []


def test_the_type_check_sees_mistakes(check_types):
    def spoil(text):
        text = text.replace("builder.create_builder_config()", "builder.create_builder_confg()")
        text = text.replace("set_input_shape(spec.name, shape)", "set_input_shape(shape, spec.name)")
        return text.replace("MemoryPoolType.WORKSPACE", "MemoryPoolType.WORKSPACES")

    found = "\n".join(check_types(spoil))
    for word in ("create_builder_confg", "set_input_shape", "WORKSPACES"):
        assert word in found
