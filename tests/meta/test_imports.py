"""Imports run one way, and the command line starts without anything heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dlcv_deploy

ROOT = Path(dlcv_deploy.__file__).parent
FOLDERS = {"": ROOT, "calibration": ROOT.parent / "calibration", "models": ROOT.parent / "models"}
HEAVY = ["torch", "onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "PIL", "cuda", "numpy", "rich"]

# each may import those above it, and within its own row
RANKS = [
    {"errors", "types", "study", "digest", "messages", "parity.values", "latency.values"},
    {"progress", "log", "atomic", "store", "spec", "backends.base", "plugin.library"},
    {"graph", "parity", "latency", "report"},
    {"calibration"},
    {"isolate", "backends"},
    {"models"},
    {"export", "reference", "host", "manifest", "bundle", "stages", "plugin", "preflight"},
    {"runtime", "install_cpp"},
    {"proof", "describe"},
    {"application", "bench", "compare", "latency.cold"},
    {"sources", "subject", "validate", "pixels"},
    {"adopt", "engines", "lrn", "race", "audit", "inspection", "commands", "assemble", "build", "rebuild", "triton"},
    {"cli_options"},
    {"cli_cpp", "cli_plugin", "cli_proof", "cli_report", "cli_triton"},
    {"cli"},
]


def modules():
    for prefix, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [p for p in (prefix, *path.relative_to(folder).with_suffix("").parts) if p]
            if parts != ["__init__"] and (prefix or not {"calibration", "models"} & set(parts)):
                yield ".".join(p for p in parts if p != "__init__"), path


def rank(module):
    for name in (module, module.split(".")[0]):
        for i, row in enumerate(RANKS):
            if name in row:
                return i
    raise AssertionError(f"{module} has no rank; add it to RANKS")


def imported(module, path):
    """Modules of the package that ``module`` imports, anywhere in its body."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package[: len(package) - (node.level - 1)]
        target = [*base, *(node.module.split(".") if node.module else [])]
        if target and (node.module or base):
            yield ".".join(target)
        if not node.module:
            yield from (".".join([*base, alias.name]) for alias in node.names)


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda v: v if isinstance(v, str) else "")
def test_imports_run_one_way(module, path):
    for other in imported(module, path):
        if other.startswith("__"):
            continue
        assert rank(other) <= rank(module), f"{module} imports {other}, which stands above it"


def test_the_layering_test_sees_imports():
    found = set(imported("cli", ROOT / "cli.py"))
    assert {"errors", "build", "store", "spec"} <= found


def test_the_command_line_starts_light():
    code = f"import sys, dlcv_deploy.cli; print([m for m in {HEAVY} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_nothing_prints_and_nothing_is_unpickled():
    for module, path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Name):
                assert node.id != "print", f"{module} prints"
            if isinstance(node, ast.Import):
                assert "pickle" not in {a.name for a in node.names}, f"{module} imports pickle"


def test_only_atomic_and_store_write_files():
    allowed = {"atomic", "store", "isolate", "models.train"}
    for module, path in modules():
        if module in allowed:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                assert node.attr not in {"write_text", "write_bytes", "mkdir", "unlink"}, f"{module}: {node.attr}"
