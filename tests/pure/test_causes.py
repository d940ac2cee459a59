"""What lies behind a native tool's words: real texts of failures, each with the cause that the shared table gives it.

``golden/causes.json`` has the texts. ``seen`` says where each was: in a thread, among a library's strings, or "live",
which are those that ``contract/test_causes_live.py`` provokes.
"""

import itertools
import json
import sys
from importlib import resources
from pathlib import Path

import pytest

from dlcv_deploy.backends import names, optional
from dlcv_deploy.backends.blame import cause, explained, refusal
from dlcv_deploy.backends.session import damaged
from dlcv_deploy.errors import ArtifactError, MissingBackend, ToolError
from dlcv_deploy.isolate import isolated
from dlcv_deploy.messages import cause_of
from dlcv_deploy.types import Engine

CAUSES = json.loads(resources.files("dlcv_deploy").joinpath("messages.json").read_text())["causes"]
SEEN = json.loads((Path(__file__).parents[1] / "golden" / "causes.json").read_text())
NO_DRIVER = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at a.cpp:250 "
    "(cudaError 35: CUDA driver version is insufficient for CUDA runtime version))"
)


def holding(entry):
    return [text for text in SEEN if text["tool"] in entry["tools"] and all(p in text["text"] for p in entry["all"])]


@pytest.mark.parametrize("entry", SEEN, ids=lambda entry: f"{entry['tool']}-{entry['code']}")
def test_real_words_have_their_cause(entry):
    found = cause_of(entry["tool"], entry["text"])
    assert found is not None
    assert found.code == entry["code"]


@pytest.mark.parametrize("i", range(len(CAUSES)), ids=lambda i: f"{CAUSES[i]['code']}-{CAUSES[i]['all'][-1]}")
def test_every_entry_is_the_first_for_some_real_words(i):
    assert [text for text in holding(CAUSES[i]) if not any(text in holding(before) for before in CAUSES[:i])]


def test_no_entry_hides_a_later_one():
    for (i, a), (j, b) in itertools.combinations(enumerate(CAUSES), 2):
        if all(any(part in other for other in b["all"]) for part in a["all"]):
            assert not set(b["tools"]) <= set(a["tools"]), f"{a['all']} ({i}) leaves nothing to {b['all']} ({j})"


def test_the_table_is_as_it_should_be():
    told = {}
    for entry in CAUSES:
        assert list(entry) == ["code", "tools", "all", "what", "fix"]
        assert set(entry["tools"]) <= {"cuda", *names()}
        assert all((entry["tools"], entry["all"], *entry["all"], entry["what"], entry["fix"]))
        for sentence in (entry["what"], entry["fix"]):
            assert not sentence.endswith(".")
            assert "{" not in sentence
        assert told.setdefault(entry["code"], (entry["what"], entry["fix"])) == (entry["what"], entry["fix"])
    assert len(told) >= 20
    for tool in ("tensorrt", "tensorrt_rtx", "onnxruntime", "openvino", "cuda"):
        assert any(tool in entry["tools"] for entry in CAUSES)


def test_where_words_were_seen_is_told():
    for entry in SEEN:
        assert entry["seen"].startswith(("https://github.com/", "strings of lib")) or entry["seen"] == "live"


def test_letters_count_and_tools_are_told_apart():
    assert cause_of("tensorrt", "version tag does not match") is None
    assert cause_of("openvino", "Version tag does not match") is None
    assert cause_of("", "out of memory") is None
    assert cause_of("tensorrt", "") is None
    assert cause_of("onnxruntime", "INVALID_GRAPH") is None  # one substring of two


def test_the_words_of_every_error_without_a_driver_are_no_cause_of_it():
    """TensorRT says this after each error, whatever that was; after none of its own it is the cause."""
    assert cause("tensorrt_rtx", f"something odd\n{NO_DRIVER}") is None
    assert cause("tensorrt_rtx", NO_DRIVER).code == "cuda_driver"
    assert cause("TensorRT for RTX", f"No engine found in plan\n{NO_DRIVER}").code == "trt_damaged"
    illegal = (
        "[checkMacros.cpp::catchCudaError::212] Error Code 1: Cuda Runtime (an illegal memory access was encountered)"
    )
    assert cause("TensorRT", f"odd\n{illegal}").code == "cuda_illegal_access"


def test_an_error_says_the_cause_first_and_keeps_the_words():
    told = explained("OpenVINO", "x: libtbb.so.12: cannot open shared object file", fix="?")
    assert told.code == "lib_tbb"
    assert told.what == (
        "OpenVINO's threading library (TBB) is not where the loader looks "
        "(x: libtbb.so.12: cannot open shared object file)"
    )
    assert told.fix.startswith("pip install --force-reinstall openvino")
    assert explained("OpenVINO", "odd", fix="?").what == "odd"
    assert explained("OpenVINO", "odd", fix="?").fix == "?"
    assert explained("OpenVINO", "odd", "odd, for std::bad_alloc").what == "memory ran out (odd)"


def test_a_refusal_says_why():
    words = (
        "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for Relu(14) node with name 'a'"
    )
    error = refusal("ONNX Runtime", b"", words)
    assert isinstance(error, ToolError)
    assert error.what.startswith(
        "ONNX Runtime refused the graph: ONNX Runtime has no kernel for an operator in its type ("
    )
    assert (
        error.fix == "cast it to float32 in the graph, or build for another target: dlcv-deploy build --target openvino"
    )
    assert error.log == words


def test_a_damaged_engine_says_why():
    error = damaged(Engine("tensorrt", "SM 8.9", "10", {}), "6: incompatible", "generated on an incompatible device")
    assert isinstance(error, ArtifactError)
    assert error.what == "the tensorrt engine cannot be read: the engine was compiled for another GPU (6: incompatible)"
    assert error.fix == "compile again on this machine: dlcv-deploy doctor BUNDLE --rebuild"
    assert damaged(Engine("tensorrt", "SM 8.9", "10", {}), "odd").fix == "build it again"


def test_a_crash_next_door_says_why():
    lines = ["loading", "terminate called after throwing an instance of 'std::bad_alloc'", "  what():  std::bad_alloc"]
    with pytest.raises(ToolError) as e:
        isolated("helpers.natives:die", {"signal": "SIGABRT", "lines": lines}, {}, what="OpenVINO", timeout_s=60)
    assert e.value.what == "OpenVINO crashed (SIGABRT): memory ran out (what():  std::bad_alloc)"
    assert e.value.fix == "use a smaller batch, or a machine with more memory"
    assert e.value.log.splitlines() == lines


def test_a_package_whose_library_is_missing_says_so(tmp_path, monkeypatch):
    words = "libnvinfer.so.11: cannot open shared object file: No such file or directory"
    (tmp_path / "tensorrt.py").write_text(f"raise ImportError({words!r})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(MissingBackend) as e:
        optional.module("tensorrt", extra="gpu")
    told = "TensorRT's libraries are not installed, or not where the loader looks"
    assert e.value.what == f"tensorrt cannot be imported: {told} ({words})"
    assert e.value.fix == "pip install 'dlcv-deploy[gpu]', or put the lib folder of TensorRT on LD_LIBRARY_PATH"
