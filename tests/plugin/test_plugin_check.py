"""Every proof says passed, failed, or why it was not run; nothing that was not run passes."""

import itertools

import numpy as np
import pytest
from helpers.plugin import library_bytes

from dlcv_deploy import backends
from dlcv_deploy.errors import MissingBackend, SpecError, ToolError
from dlcv_deploy.plugin import cases, check, network, reference
from dlcv_deploy.plugin.build import source_sha256
from dlcv_deploy.plugin.check import CHECKS, FAILED, NOT_RUN, PASSED, Subject, check_plugin
from dlcv_deploy.plugin.library import read_library

NAMES = list(CHECKS)
COMPILES, DESCRIBED, ON_HOST, REGISTERS, MOVES, RTX_LOADS, TRT_LOADS, RTX_BUILDS, TRT_BUILDS, COMPUTES = NAMES


@pytest.fixture
def compiled(monkeypatch):
    """Puts what compiling gives in the place of the compilers."""

    def put(library=None, log="", error=None):
        def compile_library(architectures, *, proving):
            asked.append(tuple(architectures))
            if error:
                raise error
            return library, log

        monkeypatch.setattr(check, "compile_library", compile_library)

    def no_host(*_):
        raise MissingBackend("no g++, the C++ compiler")

    monkeypatch.setattr(check, "compile_host", no_host)
    asked = put.asked = []
    put(error=MissingBackend("the plugin cannot be compiled here: no nvcc, the CUDA compiler"))
    return put


def verdicts(*words):
    found = check_plugin(*words, say=lambda line: None)
    assert [finding.name for finding in found] == NAMES
    return {finding.name: (finding.verdict, finding.words) for finding in found}


def fake(**changes):
    return library_bytes(**{"source": source_sha256(), **changes})


@pytest.fixture
def on_host(monkeypatch, host_library):
    """The kernels on the host, compiled already, and few cases: the kernels' own tests run them all."""
    monkeypatch.setattr(check, "compile_host", lambda output: host_library)
    monkeypatch.setattr(check, "covering", lambda: itertools.islice(cases.covering(), 0, None, 37))


def test_the_real_one_is_proved_as_far_as_this_machine_can(plugin_compiled, compiled, on_host, need):
    need("tensorrt_rtx", "cuobjdump")
    library, log = plugin_compiled
    compiled(library, log)
    said = []
    found = {each.name: each for each in check_plugin(library.data, "x.so", say=said.append)}
    assert said == NAMES
    for name in (COMPILES, DESCRIBED, ON_HOST, REGISTERS, MOVES, RTX_LOADS, RTX_BUILDS):
        assert found[name].verdict == PASSED, found[name]
    assert found[COMPILES].words == "for the GPU architectures 75, 86, without a warning"
    assert "DlcvLRN and DlcvLRNMaxPool with their fields" in found[RTX_LOADS].words
    for name, backend in ((TRT_BUILDS, "tensorrt"), (TRT_LOADS, "tensorrt")):
        if backends.get(backend).ability().no_compile:
            assert found[name].verdict == NOT_RUN
            assert found[name].words
    if backends.get("tensorrt_rtx").ability().no_run:
        assert found[COMPUTES].verdict == NOT_RUN
        assert found[COMPUTES].words
    assert compiled.asked == [(75, 86)]


def test_without_a_compiler_and_a_library_nothing_passes(compiled):
    found = verdicts()
    assert {verdict for verdict, _ in found.values()} == {NOT_RUN}
    assert found[COMPILES][1] == "the plugin cannot be compiled here: no nvcc, the CUDA compiler"
    assert found[DESCRIBED][1] == found[RTX_LOADS][1] == "there is no library to prove this with"
    assert found[REGISTERS][1] == "nothing was compiled"
    assert compiled.asked == [(75, 80, 86, 89, 90, 100, 120)]


def test_a_kernel_that_is_wrong_on_the_host_fails(compiled, on_host, monkeypatch):
    monkeypatch.setattr(reference, "lrn", lambda x, *_: x)
    verdict, words = verdicts()[ON_HOST]
    assert verdict == FAILED
    assert words.startswith("fp32 linear, window 1, 1x1x1x1, pool None: 1 of 1 wrong, at (0, 0, 0, 0) ")


def test_source_that_does_not_compile_fails(compiled):
    compiled(error=ToolError("compiling the plugin failed: k.cu(1): error: no"))
    found = verdicts()
    assert found[COMPILES] == (FAILED, "compiling the plugin failed: k.cu(1): error: no")
    assert {found[name][0] for name in NAMES[1:]} == {NOT_RUN}


def test_without_a_library_the_compiled_one_is_proved(compiled):
    compiled(read_library(fake(), "x"), "Used 12 registers\n0 bytes spill stores, 0 bytes spill loads")
    found = verdicts()
    assert found[DESCRIBED] == (PASSED, "for the GPU architectures 75, 90, against TensorRT 10.14.1, by CUDA 13.0")
    assert found[REGISTERS] == (PASSED, "1 kernels use 12 registers at most, and none spills")


def test_architectures_that_this_nvcc_does_not_know_are_not_proved(compiled):
    compiled(error=SpecError("nvcc 12.0.1 does not compile for the architecture 120"))
    found = verdicts(fake(), "x.so")
    assert found[COMPILES] == (NOT_RUN, "nvcc 12.0.1 does not compile for the architecture 120")
    assert found[DESCRIBED][0] == PASSED


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "x.so is empty"),
        (b"words", "x.so is not a shared library for Linux"),
        (fake()[:-1], "x.so is damaged: it is cut off, or is no library for 64-bit processors"),
        (fake(machine=243), "it was built for processor 243, and this processor is x86_64"),
        (fake(source="ab" * 32), "it was compiled from another version of the source"),
    ],
)
def test_a_bad_library_fails(compiled, monkeypatch, data, words):
    monkeypatch.setattr(check.platform, "machine", lambda: "x86_64")
    found = verdicts(data, "x.so")
    assert found[DESCRIBED] == (FAILED, words)
    assert found[RTX_BUILDS][0] != PASSED


@pytest.mark.parametrize("data", [b"", b"words"])
def test_a_compiled_library_does_not_stand_in_for_a_bad_one(compiled, data):
    compiled(read_library(fake(), "x"))
    assert verdicts(data, "x.so")[RTX_LOADS][0] == NOT_RUN


def test_a_library_that_cannot_be_loaded_fails(compiled, need):
    need("tensorrt_rtx")
    found = verdicts(fake(), "x.so")
    for name in (RTX_LOADS, RTX_BUILDS):
        assert found[name][0] == FAILED
        assert "cannot load the LRN plugin's library" in found[name][1]


def test_other_fields_fail(plugin_library, compiled, monkeypatch, need):
    need("tensorrt_rtx")
    monkeypatch.setattr(check, "FIELDS", {})
    with pytest.raises(ToolError, match=r"the plugins' fields are .*'kernel_shape': 'INT32'.*, and should be {}"):
        check.loads(Subject(plugin_library), "tensorrt_rtx")


SOUND = "Used 40 registers\n 0 bytes spill stores, 0 bytes spill loads\n"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("Used 255 registers\n 8 bytes spill stores, 16 bytes spill loads\n", "1 of 3 kernels spill registers, 16"),
        ("Used 255 registers\n 64 bytes spill stores, 8 bytes spill loads\n", "1 of 3 kernels spill registers, 64"),
        ("Used 255 registers\n", "ptxas did not say"),
    ],
)
def test_spills_fail(log, words):
    with pytest.raises(ToolError, match=words):
        check.registers(Subject(log=SOUND + log + SOUND))
    with pytest.raises(ToolError, match="ptxas did not say"):
        check.registers(Subject(log="nothing of the kind"))


def answers(dtype, **changes):
    """What a right engine answers."""
    draw, found = np.random.default_rng(1), {}
    for i, shape in ((1, (1, 16, 32, 32)), (2, (1, 32, 16, 16))):
        x = np.abs(draw.normal(0, 2, shape))
        found[f"conv{i}"] = x.astype(np.float16 if dtype == "float16" else np.float32)
        x = reference.quantize(found[f"conv{i}"].astype(float), 0.05) * 0.05 if dtype == "int8" else found[f"conv{i}"]
        y = reference.lrn(x, 5, 5e-4, 0.75, 2.0)
        y = reference.max_pool(y, (3, 3), (2, 2), (0, 0, 1, 1)) if i == 1 else y
        found[f"lrn{i}"] = y.astype(found[f"conv{i}"].dtype)
        if dtype == "int8":
            found[f"lrn{i}"] = (reference.quantize(y, 0.03) * 0.03).astype(np.float32)
    return {**found, **changes}


@pytest.mark.parametrize("dtype", network.DTYPES)
def test_right_answers_agree_and_wrong_ones_do_not(dtype):
    right = answers(dtype)
    assert network.differs(right, dtype) == ""
    wrong = right["lrn2"].copy()
    wrong[0, 3, 5, 7] += {"float32": 1e-4, "float16": 4e-3, "int8": 0.06}[dtype]
    assert network.differs({**right, "lrn2": wrong}, dtype).startswith(f"DlcvLRN in {dtype} is off by ")
    wrong[0, 3, 5, 7] = np.nan
    assert network.differs({**right, "lrn2": wrong}, dtype)
    assert network.differs({**right, "lrn1": right["lrn1"] * 1.1}, dtype).startswith("DlcvLRNMaxPool ")
    small = right["lrn1"][:, :, 1:]
    assert network.differs({**right, "lrn1": small}, dtype) == (
        "DlcvLRNMaxPool answers in the shape (1, 16, 15, 16), not (1, 16, 16, 16)"
    )


@pytest.mark.gpu
def test_on_a_gpu_the_engines_agree_with_the_reference(plugin_library):
    """Not run by anyone yet."""
    assert check.computes(Subject(plugin_library)).endswith("gives the reference's values in float32, float16, int8")
