"""One suite for every backend: what ``backends.base`` promises, whoever keeps the promise."""

import dataclasses as dc
import subprocess
import sys

import numpy as np
import pytest
from helpers import models

from dlcv_deploy import backends
from dlcv_deploy.backends import optional
from dlcv_deploy.errors import ArtifactError, MissingBackend, SpecError, ToolError
from dlcv_deploy.types import Ability, CompileOptions, Dim, Engine, TensorSpec

EVERY = ("onnxruntime", "openvino", "tensorrt_rtx", "tensorrt")
SMALL = CompileOptions(batch=Dim(1, 2, 8), timeout_s=300)
FP32, FP16 = {"rtol": 1e-5, "atol": 1e-5}, {"rtol": 5e-3, "atol": 5e-3}


@pytest.fixture(scope="module", params=EVERY)
def compiler(request, need):
    """Every backend that compiles here."""
    need(request.param)
    return backends.get(request.param)


@pytest.fixture(scope="module")
def compiled(compiler):
    """Compile each model once."""
    made = {}

    def compile_(build):
        if build not in made:
            made[build] = compiler.compile(build(), SMALL)
        return made[build]

    return compile_


@pytest.fixture(scope="module")
def runner(compiler):
    """Every backend that runs here, too."""
    if reason := compiler.ability().no_run:
        pytest.skip(f"needs gpu: {reason}")
    return compiler


@pytest.fixture
def load(runner, compiled):
    """Sessions that are closed after the test."""
    made = []

    def load_(build):
        made.append(runner.load(compiled(build)))
        return made[-1]

    yield load_
    for session in made:
        session.close()


# --- the table of names


def test_names():
    assert backends.names() == EVERY


def test_an_unknown_name_lists_the_known():
    with pytest.raises(SpecError, match=r"no backend 'tensort'\n  fix: use one of onnxruntime, openvino, tensorrt_rtx"):
        backends.get("tensort")


@pytest.mark.parametrize("name", EVERY)
def test_ability_is_told_without_importing_the_package(name):
    code = (
        "import sys, time; from dlcv_deploy import backends\n"
        f"b = backends.get({name!r}); a = b.ability(); assert b.name == {name!r}\n"
        "assert a.version or (a.no_compile and a.no_run), a\n"
        f"print([m for m in {EVERY} + ('openvino_telemetry', 'onnx', 'cuda.bindings.runtime') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("name", EVERY)
def test_an_absent_package_is_a_reason_with_the_extra(monkeypatch, name):
    backend = backends.get(name)
    monkeypatch.setattr(optional, "version_of", lambda *_: "")
    ability = backend.ability()
    extra = {"tensorrt_rtx": "rtx", "tensorrt": "gpu"}.get(name, name)
    assert ability.no_compile == ability.no_run == f"{name} is not installed; pip install 'dlcv-deploy[{extra}]'"
    engine = Engine(name, "", "1", {})
    for call in (lambda: backend.compile(b"", SMALL), lambda: backend.load(engine)):
        with pytest.raises(MissingBackend, match=rf"{name} cannot \w+ here: {name} is not installed"):
            call()


@pytest.mark.parametrize(
    ("able", "best"),
    [
        (("onnxruntime", "openvino", "tensorrt"), "tensorrt"),
        (("onnxruntime", "openvino", "tensorrt_rtx"), "openvino"),
        (("onnxruntime",), "onnxruntime"),
    ],
)
def test_auto_takes_the_best(monkeypatch, able, best):
    for name in EVERY:
        ability = Ability("1", "" if name in able else "no", "" if name in able else "no")
        monkeypatch.setattr(backends.get(name), "ability", lambda ability=ability: ability)
    assert backends.auto() == best


def test_auto_without_any_backend_says_what_to_install(monkeypatch):
    for name in EVERY:  # compiling alone is not enough
        monkeypatch.setattr(backends.get(name), "ability", lambda: Ability("1", "", "no GPU"))
    with pytest.raises(
        MissingBackend, match=r"dlcv-deploy\[openvino\].*dlcv-deploy\[onnxruntime\].*dlcv-deploy\[gpu\]"
    ):
        backends.auto()


# --- compiling


@pytest.mark.parametrize("build", [models.net, models.net_fp16, models.net_int8], ids=["fp32", "fp16", "int8"])
def test_an_engine_says_what_it_is(compiler, compiled, build):
    engine = compiled(build)
    assert (engine.backend, engine.version, engine.batch) == (compiler.name, compiler.ability().version, SMALL.batch)
    assert engine.target
    assert all(engine.files.values())
    again = compiler.compile(build(), SMALL)
    assert dc.replace(again, files={}) == dc.replace(engine, files={})
    assert again.files.keys() == engine.files.keys()


@pytest.mark.parametrize("domain", ["", "away."])
def test_an_unknown_operator_is_named_with_its_node(compiler, domain):
    with pytest.raises(ToolError, match=r"refused node 'odd' \(Frobnicate\)") as e:
        compiler.compile(models.unknown_operator(domain), SMALL)
    assert e.value.log
    assert e.value.fix


@pytest.mark.parametrize("onnx", [b"", b"junk", models.net()[:200]], ids=["empty", "junk", "cut"])
def test_what_is_no_graph_is_refused(compiler, onnx):
    with pytest.raises(ToolError, match="refused the graph"):
        compiler.compile(onnx, SMALL)


def test_a_fixed_batch_is_refused_unless_it_is_the_one_asked_for(compiler):
    with pytest.raises(SpecError, match=r"tensor 'x' has a fixed batch of 1; 1 to 8 was asked for\n  fix: export"):
        compiler.compile(models.fixed_batch(1), SMALL)
    engine = compiler.compile(models.fixed_batch(3), dc.replace(SMALL, batch=Dim(3, 3, 3)))
    assert engine.files


def test_free_axes_are_refused(compiler):
    with pytest.raises(SpecError, match="tensor 'x' has free axes besides its batch"):
        compiler.compile(models.free_axes(), SMALL)


def test_a_hang_is_stopped(compiler):
    with pytest.raises(ToolError, match=r"still at work after 0\.01 s"):
        compiler.compile(models.linear(), dc.replace(SMALL, timeout_s=0.01))


# --- running


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize(("build", "limit"), [(models.net, FP32), (models.net_fp16, FP16), (models.net_int8, FP16)])
def test_answers_are_the_standards(load, build, limit, batch):
    feeds = {"x": models.images(batch)}
    got = load(build).run(feeds)
    expected = models.reference(build(), feeds)["y"]
    assert got.keys() == {"y"}
    assert (got["y"].shape, got["y"].dtype) == ((batch, 5), np.dtype("float32"))
    np.testing.assert_allclose(got["y"], expected, **limit)


SEVERAL = [(models.returning, FP32), (models.returning_fp16, FP16), (models.returning_int8, FP16)]


@pytest.mark.parametrize("build", [build for build, _ in SEVERAL])
def test_several_outputs_compile(compiled, build):
    assert all(compiled(build).files.values())


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize(("build", "limit"), SEVERAL)
def test_every_output_is_answered_by_its_name(load, build, limit, batch):
    """One feeds a convolution, quantized or not, one the last layer; all are float32."""
    feeds, session = {"x": models.images(batch)}, load(build)
    assert {spec.name: spec.shape for spec in session.outputs} == {"y": (5,), "map": (8, 8, 8), "features": (8,)}
    assert {spec.dtype for spec in session.outputs} == {"float32"}
    got, expected = session.run(feeds), models.reference(build(), feeds)
    for name, want in expected.items():
        assert got[name].dtype == np.float32
        np.testing.assert_allclose(got[name], want, **limit)
    if build is models.returning_int8:  # as it was before it was rounded
        steps = got["map"] / (6 / 127)
        assert np.abs(steps - np.rint(steps)).max() > 0.4


def test_batches_may_come_in_any_order(load):
    session, x = load(models.net), models.images(7)
    whole = session.run({"x": x})["y"]
    for part in (slice(0, 1), slice(2, 7), slice(0, 7), slice(6, 7)):
        np.testing.assert_allclose(session.run({"x": x[part]})["y"], whole[part], **FP32)


def test_tensors_are_described(load):
    assert load(models.net).inputs == (TensorSpec("x", (3, 8, 8), "float32"),)
    assert load(models.net).outputs == (TensorSpec("y", (5,), "float32"),)
    session = load(models.two_inputs)
    assert session.inputs == (TensorSpec("a", (6,), "float32"), TensorSpec("b", (4,), "float32"))
    assert session.outputs == (TensorSpec("y", (4,), "float32"), TensorSpec("z", (4,), "float32"))


def test_inputs_are_taken_by_name(load):
    a, b = models.weights(3, 6, seed=5), models.weights(3, 4, seed=6)
    expected = models.reference(models.two_inputs(), {"a": a, "b": b})
    got = load(models.two_inputs).run({"b": b, "a": a})
    np.testing.assert_allclose(got["y"], expected["y"], **FP32)
    np.testing.assert_array_equal(got["z"], b + b)


def test_nan_stays_in_its_row(load):
    x = models.weights(3, 6, seed=3)
    session = load(models.linear)
    clean = session.run({"x": x})["y"]
    x[1, 2] = np.nan
    got = session.run({"x": x})["y"]
    assert np.isnan(got[1]).all()
    np.testing.assert_allclose(got[[0, 2]], clean[[0, 2]], **FP32)
    x[1, 2] = 0
    assert np.isfinite(session.run({"x": x})["y"]).all()


def test_outputs_belong_to_the_caller_and_inputs_are_left_alone(load):
    session, x = load(models.linear), models.weights(2, 6, seed=3)
    kept = x.copy()
    first = session.run({"x": x})["y"]
    before = first.copy()
    second = session.run({"x": -x})["y"]
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, before)
    first[:] = 7
    np.testing.assert_array_equal(session.run({"x": x})["y"], before)
    np.testing.assert_array_equal(x, kept)
    session.close()
    assert second.sum() == second.copy().sum()


def test_inputs_may_be_read_only_or_strided(load):
    session = load(models.linear)
    wide = models.weights(4, 12, seed=3)
    expected = session.run({"x": wide[::2, ::2].copy()})["y"]
    np.testing.assert_array_equal(session.run({"x": wide[::2, ::2]})["y"], expected)
    frozen = wide[::2, ::2].copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(session.run({"x": frozen})["y"], expected)


def second_linear():
    return models.linear(seed=9)


def test_two_sessions_do_not_interfere(load):
    x = models.weights(5, 6, seed=3)
    one, other, twin = load(models.linear), load(second_linear), load(models.linear)
    expected = [models.reference(build(), {"x": x})["y"] for build in (models.linear, second_linear)]
    for _ in range(3):
        np.testing.assert_allclose(one.run({"x": x})["y"], expected[0], **FP32)
        np.testing.assert_allclose(other.run({"x": x})["y"], expected[1], **FP32)
    one.close()
    np.testing.assert_allclose(other.run({"x": x})["y"], expected[1], **FP32)
    np.testing.assert_allclose(twin.run({"x": x})["y"], expected[0], **FP32)


def test_a_closed_session_refuses(load):
    x = {"x": models.weights(1, 6)}
    with load(models.linear) as session:
        session.run(x)
    with pytest.raises(SpecError, match=r"the session is closed\n  fix: load the engine again"):
        session.run(x)
    session.close()  # twice is once


X = models.weights(2, 6)
WANTED = r"'x' float32 \(N, 6\)"


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, rf"input 'x' is missing\n  fix: feed {WANTED}"),
        ({"x": X, "z": X}, rf"there is no input 'z'\n  fix: feed {WANTED}"),
        ({"x": X.tolist()}, rf"input 'x' is a list\n  fix: feed a NumPy array: {WANTED}"),
        ({"x": X.astype("f8")}, r"input 'x' is float64, not float32\n  fix: use \.astype\('float32'\)"),
        ({"x": X.astype(">f4")}, r"input 'x' is >f4, not float32"),
        ({"x": X[:, :5]}, rf"input 'x' has shape \(2, 5\)\n  fix: feed {WANTED}"),
        ({"x": X[0]}, rf"input 'x' has shape \(6,\)\n  fix: feed {WANTED}"),
        ({"x": X[None]}, rf"input 'x' has shape \(1, 2, 6\)\n  fix: feed {WANTED}"),
        ({"x": X[:0]}, r"input 'x' is a batch of 0; the engine takes 1 to 8"),
        ({"x": models.weights(9, 6)}, r"input 'x' is a batch of 9; the engine takes 1 to 8\n  fix: split the batch"),
    ],
)
def test_wrong_feeds_say_what_is_right(load, feeds, message):
    session = load(models.linear)
    with pytest.raises(SpecError, match=message):
        session.run(feeds)
    assert session.run({"x": X})["y"].shape == (2, 4)


def test_inputs_of_different_batches_are_refused(load):
    with pytest.raises(SpecError, match=r"the inputs differ in batch \(a: 2, b: 3\)"):
        load(models.two_inputs).run({"a": models.weights(2, 6), "b": models.weights(3, 4)})


def test_the_largest_and_smallest_batch_run(load):
    for batch in (SMALL.batch.hi, SMALL.batch.lo):
        assert load(models.linear).run({"x": models.weights(batch, 6)})["y"].shape == (batch, 4)


# --- damage


def test_damaged_engines_are_refused(runner, compiled):
    engine = compiled(models.net)
    for name, data in engine.files.items():
        for files, words in (
            ({**engine.files, name: b""}, "cannot be read" if name == "model.bin" else f"file {name} is empty"),
            ({k: v for k, v in engine.files.items() if k != name}, f"file {name} is missing"),
            ({**engine.files, name: data[: len(data) // 2]}, "cannot be read"),
        ):
            with pytest.raises(ArtifactError, match=f"the {runner.name} engine") as e:
                runner.load(dc.replace(engine, files=files))
            assert words in e.value.what
            assert "build it again" in e.value.fix


def test_loading_works_or_says_why_not(compiler, compiled):
    engine, reason = compiled(models.net), compiler.ability().no_run
    if not reason:
        compiler.load(engine).close()
        return
    with pytest.raises(MissingBackend) as e:
        compiler.load(engine)
    assert e.value.what == f"{compiler.name} cannot run here: {reason}"
