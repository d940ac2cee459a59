"""Which node a tool means, from what it says."""

import importlib

import pytest
from helpers import models

from dlcv_deploy.backends import optional
from dlcv_deploy.backends.blame import culprits, refusal
from dlcv_deploy.errors import MissingBackend


@pytest.mark.parametrize(
    ("message", "nodes"),
    [
        ("in layer conv2: bad", ["node 'conv2' (Conv)"]),
        ("{ForeignNode[conv1...relu1]}", ["node 'conv1' (Conv)", "node 'relu1' (Relu)"]),
        ("op Gemm (fc)", ["node 'fc' (Gemm)"]),
        ("conv1 then a Relu named relu2", ["node 'relu2' (Relu)"]),  # name and operator beat a name alone
        ("no kernel for Conv-19", ["node 'conv1' (Conv)", "node 'conv2' (Conv)"]),
        ("conv10 and myconv2, Convolution", []),
        ("nothing of use", []),
    ],
)
def test_nodes_are_found_by_name_then_by_operator(message, nodes):
    assert culprits(models.net(), message) == nodes


def test_what_is_no_graph_has_no_nodes():
    assert culprits(b"junk", "conv1") == []


def test_a_refusal_keeps_the_words_and_drops_the_noise():
    message = "Exception from a.cpp:1:\nCheck 'false' failed at b.cpp:2:\nSummary:\n-- No rule for: Gemm-19\n\n"
    error = refusal("Tool", models.net(), message)
    assert error.what == "Tool refused node 'fc' (Gemm): -- No rule for: Gemm-19"
    assert error.log == message.strip()
    assert refusal("T", b"", "[ONNXRuntimeError] : 1 : FAIL : why").what == "T refused the graph: why"
    assert refusal("T", b"", "Exception from a.cpp").what == "T refused the graph: Exception from a.cpp"


def test_a_folder_of_stubs_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "made_up").mkdir()
    (tmp_path / "made_up" / "__init__.pyi").touch()
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert optional.version_of("made_up") == ""
    (tmp_path / "made_up" / "__init__.py").write_text("import made_up_libs")
    importlib.invalidate_caches()
    assert optional.version_of("made_up") == "unknown"
    with pytest.raises(
        MissingBackend, match=r"made_up cannot be imported: No module.*\n  fix: pip install 'dlcv-deploy\[x"
    ):
        optional.module("made_up", extra="x")
    assert optional.version_of("not_there.below") == ""
    assert optional.version_of("onnx") == importlib.import_module("onnx").__version__
