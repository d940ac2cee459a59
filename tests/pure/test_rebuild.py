"""Engines compiled again from a bundle's graph: which, with what, and what is told of them."""

import dataclasses as dc
import io
import json
import shutil

import numpy as np
import pytest
from helpers import fake, models, reports

from dlcv_deploy import rebuild
from dlcv_deploy.bundle import open_bundle, write
from dlcv_deploy.digest import sha256
from dlcv_deploy.errors import ArtifactError, MissingBackend, ToolError
from dlcv_deploy.host import Host, HostGpu
from dlcv_deploy.latency.values import Latency
from dlcv_deploy.manifest import Manifest
from dlcv_deploy.parity.values import Consistency, Leg
from dlcv_deploy.report import document
from dlcv_deploy.report.renewed import NOT_MEASURED, renewed
from dlcv_deploy.store import Store
from dlcv_deploy.types import Dim, Engine, PluginNeed, Preprocess, TensorSpec

NET = models.net()
INPUTS = models.images(4)
GPU = HostGpu("NVIDIA L4", 89, 1 << 34, 13000)


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def host_of(gpu=None, **versions):
    return Host("x86_64", 1 << 34, versions, gpu, "" if gpu else "no GPU")


HERE = host_of(openvino="2.0", tensorrt_rtx="1.0", onnxruntime="1.0")


def manifest(precision="fp32"):
    return Manifest(
        model="small",
        precision=precision,
        weights="",
        weights_sha256="ab" * 32,
        trained=True,
        preprocess=Preprocess(8, 8, "pad", (0.5, 0.25, 0.1), (0.2, 0.2, 0.2)),
        inputs=(TensorSpec("x", (3, 8, 8)),),
        outputs=(TensorSpec("y", (5,)),),
        classes=5,
        engines={},
        build_key="ab" * 32,
        tool_version="0.0.9",
        contract=("decode",),
    )


OLD = {
    "openvino": Engine("openvino", "CPU", "3.0", {"model.xml": b"<old/>", "model.bin": b"old"}, ("old",), Dim(1, 2, 3)),
    "tensorrt_rtx": Engine("tensorrt_rtx", "SM 8.6", "0.9", {"model.rtx.engine": b"old plan"}, (), Dim(1, 2, 3)),
    "onnxruntime": Engine("onnxruntime", "CPU", "1.0", {"model.onnx": NET}),
}


def bundle_of(path, *names, report=None, precision="fp32", logits=None, **changes):
    """A bundle with old engines; its golden logits are what its graph answers."""
    logits = models.reference(NET, {"x": INPUTS})["y"] if logits is None else logits
    files = {
        "model.onnx": NET,
        "labels.txt": b"a\nb\nc\nd\ne\n",
        "golden/inputs.npy": npy(INPUTS),
        "golden/logits.npy": npy(logits),
    }
    if report is not None:
        files |= {"report.json": document.to_json(report).encode(), "report.md": b"old", "report.html": b"old"}
    engines = tuple(dc.replace(OLD[name], **changes.get(name, {})) for name in names)
    return write(path / "b.dlcv", manifest(precision), engines, files, replace=False).path


@pytest.fixture
def again(tmp_path, monkeypatch):
    """Compile a bundle again, with fakes in the place of the backends named."""

    def call(path, machine=HERE, output=None, **faults):
        made = {}
        for name, told in {"openvino": {"version": "2.0"}, **faults}.items():
            made[name] = fake.install(monkeypatch, name=name, **told)
        done = rebuild.rebuild(path, output=output, store=Store(tmp_path / "store"), machine=machine)
        return done, made

    return call


def content(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_another_version_is_compiled_again_in_place(again, tmp_path, need):
    need("onnxruntime")
    path = bundle_of(tmp_path, "openvino", "onnxruntime")
    done, made = again(path)
    assert [one.backend for one in done.engines] == ["openvino"]
    (one,) = done.engines
    assert (one.before, one.after, one.target) == ("3.0", "2.0", "nowhere")
    assert one.why == ("the engine for openvino was compiled by OpenVINO 3.0, and the older 2.0 is installed",)
    assert one.golden.startswith("on the golden images it is 1")
    assert one.words().startswith(
        "openvino was compiled again, by version 2.0 in place of 3.0, for nowhere: the engine"
    )
    assert done.path == path
    assert done.left == ()
    assert made["openvino"].compiled == 1
    opened = open_bundle(path)
    assert opened.manifest.engines["openvino"]["version"] == "2.0"
    assert opened.manifest.engines["openvino"]["batch"] == [1, 2, 3]  # as before
    assert opened.engine("openvino").files == {"model.fake": NET}
    assert opened.engine("onnxruntime") == OLD["onnxruntime"]  # left as it was
    assert opened.manifest.build_key not in ("", manifest().build_key)  # it is not what that build makes
    assert not (path / "openvino" / "model.xml").exists()


def test_what_runs_here_is_not_compiled_and_nothing_is_written(again, tmp_path):
    path = bundle_of(tmp_path, "openvino")
    before = content(path)
    done, made = again(path, host_of(openvino="3.1"), openvino={"version": "3.1"}, output=tmp_path / "c.dlcv")
    assert done == rebuild.Rebuilt(path, ())
    assert made["openvino"].compiled == 0
    assert content(path) == before
    assert not (tmp_path / "c.dlcv").exists()


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b"new"), lambda file: file.unlink()])
def test_a_damaged_engine_is_compiled_again(again, tmp_path, damage, need):
    need("onnxruntime")
    path = bundle_of(tmp_path, "openvino")
    damage(path / "openvino" / "model.bin")
    done, _ = again(path, host_of(openvino="3.0"), openvino={"version": "3.0"})
    assert done.engines[0].why == ("openvino/model.bin is damaged",)
    assert (
        done.engines[0].words().startswith("openvino was compiled again, by version 3.0, for nowhere: openvino/model")
    )
    assert open_bundle(path).engine("openvino").files == {"model.fake": NET}


@pytest.mark.parametrize("name", ["model.onnx", "golden/inputs.npy", "golden/logits.npy", "labels.txt"])
def test_other_damage_is_refused(again, tmp_path, name):
    path = bundle_of(tmp_path, "openvino")
    (path / name).write_bytes(b"x")
    before = content(path)
    with pytest.raises(ArtifactError, match=f"lost {name}, or it was altered, and compiling does not mend it") as e:
        again(path)
    assert e.value.fix.startswith("copy the bundle again")
    assert content(path) == before


def test_a_bundle_without_golden_files_is_refused(again, tmp_path):
    path = write(tmp_path / "b.dlcv", manifest(), (OLD["openvino"],), {"model.onnx": NET}, replace=False).path
    with pytest.raises(ArtifactError, match=r"has lost golden/inputs\.npy"):
        again(path)


def test_no_bundle_and_unsafe_names_are_refused_as_elsewhere(again, tmp_path):
    with pytest.raises(ArtifactError, match="there is no bundle at"):
        again(tmp_path / "absent.dlcv")
    path = bundle_of(tmp_path, "openvino")
    told = json.loads((path / "manifest.json").read_text())
    told["files"]["../outside"] = {"bytes": 1, "sha256": sha256(b"x")}
    (tmp_path / "outside").write_bytes(b"x")
    (path / "manifest.json").write_text(json.dumps(told))
    with pytest.raises(ArtifactError, match="names a file outside the bundle"):
        again(path)


def test_it_goes_elsewhere_and_replaces_nothing_there(again, tmp_path, need):
    need("onnxruntime")
    path, output = bundle_of(tmp_path, "openvino"), tmp_path / "c.dlcv"
    before = content(path)
    done, _ = again(path, output=output)
    assert done.path == output
    assert content(path) == before
    assert open_bundle(output).manifest.engines["openvino"]["version"] == "2.0"
    with pytest.raises(ArtifactError, match=r"c\.dlcv exists"):
        again(path, output=output)
    assert again(path, output=path)[0].path == path  # the same place, by name


def test_a_backend_that_cannot_compile_is_left(again, tmp_path):
    path = bundle_of(tmp_path, "openvino")
    before = content(path)
    done, _ = again(path, openvino={"version": "2.0", "no_compile": "no licence"})
    assert done == rebuild.Rebuilt(path, (), ("openvino was left as it is, for it cannot compile here: no licence",))
    assert content(path) == before
    (path / "openvino" / "model.bin").unlink()
    with pytest.raises(
        MissingBackend, match=r"b\.dlcv has lost openvino/model\.bin, and openvino cannot compile here: no"
    ):
        again(path, openvino={"version": "2.0", "no_compile": "no licence"})


def test_a_refusal_leaves_the_bundle(again, tmp_path):
    path = bundle_of(tmp_path, "openvino")
    before = content(path)
    with pytest.raises(ToolError, match="it never liked it"):
        again(path, openvino={"version": "2.0", "compile": "refuse"})
    assert content(path) == before


@pytest.mark.parametrize("fault", ["nan", "noise", "flip"])
def test_an_engine_that_answers_otherwise_leaves_the_bundle(again, tmp_path, fault, need):
    need("onnxruntime")
    path = bundle_of(tmp_path, "openvino")
    before = content(path)
    with pytest.raises(
        ToolError, match="openvino, compiled again, does not answer as its graph does: on the golden"
    ) as e:
        again(path, openvino={"version": "2.0", "run": fault})
    assert "the bundle was left as it is" in e.value.fix
    assert content(path) == before


def test_what_quantization_costs_is_no_fault_of_an_engine(again, tmp_path, need):
    """The golden logits are the original's: where the graph is far from them, so may the engine be."""
    need("onnxruntime")
    exact = models.reference(NET, {"x": INPUTS})["y"]
    off = exact + np.random.default_rng(0).normal(0, np.abs(exact).mean() / 3, exact.shape).astype("float32")
    path = bundle_of(tmp_path, "openvino", logits=off)
    done, _ = again(path)
    db = 10 * np.log10((off**2).sum() / ((exact - off) ** 2).sum())
    assert done.engines[0].golden == (
        f"on the golden images it is {db:.1f} dB from the original, and its graph {db:.1f} dB"
    )


def test_what_cannot_run_here_is_compiled_and_said_not_to_have_run(again, tmp_path):
    path = bundle_of(tmp_path, "openvino")
    done, made = again(path, openvino={"version": "2.0", "no_run": "no device"})
    assert done.engines[0].golden == "it was not held against the golden images: no device"
    assert made["openvino"].loaded == 0


def test_without_a_cpu_runtime_the_graph_is_not_run(again, tmp_path, monkeypatch):
    def none(onnx):
        raise MissingBackend("neither is installed")

    monkeypatch.setattr(rebuild, "session_of", none)
    done, _ = again(bundle_of(tmp_path, "openvino"))
    assert done.engines[0].golden.endswith(
        "dB from the original, its graph was not run beside it: neither is installed"
    )
    shutil.rmtree(tmp_path / "b.dlcv")
    with pytest.raises(ToolError, match="does not answer as its graph does"):
        again(bundle_of(tmp_path, "openvino"), openvino={"version": "2.0", "run": "nan"})


# --- GPUs and plugins


@pytest.mark.parametrize(
    ("target", "gpu", "sm"),
    [
        ("SM 8.6", GPU, (86, 89)),  # for this GPU too
        ("SM 8.6, 12.0", GPU, (86, 89, 120)),
        ("SM 8.0 and later", dc.replace(GPU, sm=75), (75,)),  # what serves later ones serves no earlier
        ("SM 8.9", GPU, (89,)),  # only the version differs
        ("SM 8.0 and later", GPU, ()),
        ("SM 8.6", None, (86,)),
    ],
)
def test_tensorrt_for_rtx_compiles_for_the_gpus_of_before_and_this_one(again, tmp_path, monkeypatch, target, gpu, sm):
    asked = []
    path = bundle_of(tmp_path, "tensorrt_rtx", tensorrt_rtx={"target": target})
    compile_ = fake.Fake.compile
    monkeypatch.setattr(fake.Fake, "compile", lambda self, onnx, o: (asked.append(o), compile_(self, onnx, o))[1])
    again(path, host_of(gpu, tensorrt_rtx="1.0"), tensorrt_rtx={"version": "1.0", "no_run": "not here"})
    assert [(o.sm, o.batch, o.plugin) for o in asked] == [(sm, Dim(1, 2, 3), b"")]


LIBRARY = b"a library"
LRN = models.lrn_net()


def plugged(path, **need):
    """A bundle of a TensorRT for RTX engine that calls the plugin."""
    fields = {
        "file": "libdlcv_lrn.so",
        "sha256": sha256(LIBRARY),
        "tensorrt": "10.14",
        "architectures": (86,),
        "ops": (),
    }
    engine = dc.replace(
        OLD["tensorrt_rtx"],
        files={"model.rtx.engine": b"plan", "libdlcv_lrn.so": LIBRARY},
        plugin=PluginNeed(**{**fields, **need}),
    )
    logits = npy(models.reference(LRN, {"x": INPUTS})["y"])
    files = {"model.onnx": LRN, "golden/inputs.npy": npy(INPUTS), "golden/logits.npy": logits}
    made = dc.replace(manifest(), outputs=(TensorSpec("y", (8, 4, 4)),))
    return write(path / "b.dlcv", made, (engine,), files, replace=False).path


@pytest.fixture
def built(monkeypatch):
    """What the plugin's library is built for; no compiler is started."""
    from dlcv_deploy.plugin import build

    asked = []
    monkeypatch.setattr(
        build, "built_library", lambda stages, sm: (asked.append(tuple(sm)), type("L", (), {"data": b"new library"}))[1]
    )
    return asked


@pytest.mark.parametrize(
    ("codes", "damaged", "gpu", "wanted"),
    [
        ((), False, None, []),  # the library serves: only the engine is of another version
        (("plugin_sm",), False, GPU, [(86, 89)]),
        (("plugin_machine",), False, None, [(86,)]),
        (("plugin_other",), False, None, [(86,)]),
        ((), True, None, [(86,)]),
    ],
)
def test_the_plugin_is_built_again_where_it_does_not_serve(
    again, tmp_path, monkeypatch, built, codes, damaged, gpu, wanted
):
    from dlcv_deploy.preflight import Finding

    path = plugged(tmp_path)
    if damaged:
        (path / "tensorrt_rtx" / "libdlcv_lrn.so").write_bytes(b"x")
    found = tuple(Finding(code, code, "", "tensorrt_rtx") for code in ("runtime_other", *codes))
    monkeypatch.setattr(rebuild, "preflight", lambda path, host: found)
    compiled = []
    compile_ = fake.Fake.compile
    monkeypatch.setattr(
        fake.Fake, "compile", lambda self, onnx, o: (compiled.append((onnx, o.plugin)), compile_(self, onnx, o))[1]
    )
    again(path, host_of(gpu, tensorrt_rtx="1.0"), tensorrt_rtx={"version": "1.0", "no_run": "no GPU"})
    assert built == wanted
    ((onnx, library),) = compiled
    assert library == (b"new library" if wanted else LIBRARY)
    assert b"DlcvLRN" in onnx  # the graph is lowered as a build does it


# --- the report


def test_a_report_tells_nothing_of_the_new_engine_that_was_measured_of_the_old(again, tmp_path, need):
    need("onnxruntime")
    report = reports.full()
    path = bundle_of(tmp_path, "openvino", report=report)
    done, _ = again(path)
    made = document.from_json((path / "report.json").read_text())
    (engine,) = [engine for engine in made.engines if engine.backend == "openvino"]
    assert (engine.version, engine.target) == ("2.0", "nowhere")
    assert [file.name for file in engine.files] == ["model.fake"]
    assert made.warnings[: len(report.warnings)] == report.warnings
    assert made.warnings[-1].startswith(f"{done.engines[0].words()}; what was measured of the earlier engine is left")
    for name in ("report.md", "report.html"):
        assert "was compiled again" in (path / name).read_text()


def test_other_engines_keep_what_was_measured():
    before, gone, kept = reports.full(), "int8 on openvino", "int8 on tensorrt_rtx"
    engine = document.CompiledEngine("openvino", "CPU", "9", ())
    after = renewed(before, [engine], ["it was"])
    assert after.engines == (engine, before.engines[1])
    assert after.warnings == (*before.warnings, "it was")
    for old, new in zip(before.parity, after.parity, strict=True):
        assert [leg.name for leg in new.legs] == [leg.name for leg in old.legs]
        for leg, was in zip(new.legs, old.legs, strict=True):
            assert leg == (Leg(gone, not_run=NOT_MEASURED) if leg.name == gone else was)
    old, new = before.latency, after.latency
    for row, was in zip(new.rows, old.rows, strict=True):
        assert row == (Latency(gone, was.batch, not_run=NOT_MEASURED) if row.name == gone else was)
    assert new.ratios == ()
    for rows in (new.cold, new.thread_sweep, new.clients, new.load, new.parts):
        assert gone not in {row.name for row in rows}
    assert kept in {row.name for row in new.cold}
    assert set(new.settings) == set(old.settings) - {gone}
    assert (new.machine, new.validity) == (old.machine, old.validity)
    told = {each.engine: each for each in after.consistency}
    assert told[gone] == Consistency(gone, (), NOT_MEASURED)
    assert told[kept] == next(each for each in before.consistency if each.engine == kept)
    assert after.drift == before.drift
    assert document.from_json(document.to_json(after)).warnings == after.warnings


def test_a_report_without_latency_stays_so():
    report = dc.replace(reports.full(), latency=None)
    assert renewed(report, [], []) == report
