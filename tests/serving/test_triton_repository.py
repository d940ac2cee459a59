"""Repositories of models: what is in them is what their configuration says, and answers as the bundle does."""

import dataclasses as dc
import json
import re

import numpy as np
import pytest
from helpers import bundles

pytest.importorskip("tritonclient.grpc")
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.utils import triton_to_np_dtype

from dlcv_deploy import backends
from dlcv_deploy.bundle import open_bundle
from dlcv_deploy.calibration.images import decode
from dlcv_deploy.digest import sha256
from dlcv_deploy.errors import ArtifactError, SpecError, ToolError
from dlcv_deploy.parity.compare import softmax
from dlcv_deploy.parity.crops import canvas, crops, to_input
from dlcv_deploy.triton import serve as stage
from dlcv_deploy.triton.repository import GOLDEN_INPUTS, GOLDEN_LOGITS, serve
from dlcv_deploy.triton.serve import TOLERANCE, Check, Wanted
from dlcv_deploy.types import Dim, Engine, PluginNeed, TensorSpec

PRE, BATCH = bundles.PREPROCESS, Dim(1, 10, 32)
RTX = Engine("tensorrt_rtx", "SM 8.0 and later", "1.7.1", {"model.rtx.engine": b"rtx"}, (), BATCH)


def plan(*, plugin=False):
    """A plan of TensorRT, in name."""
    need = PluginNeed("libdlcv_lrn.so", sha256(b"library"), "10.14.1", (86,), ("DlcvLRN",)) if plugin else None
    files = {"model.engine": b"plan", **({"libdlcv_lrn.so": b"library"} if plugin else {})}
    return Engine("tensorrt", "SM 8.6", "10.14.1.48", files, (), BATCH, need)


@pytest.fixture
def repo(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def put(repo, store):
    """Serve bundles into the repository."""

    def call(*paths, name=None, version=None, force=False, say=lambda line: None, **wanted):
        wanted = Wanted(**wanted)
        return serve(paths, repo, wanted, name=name, version=version, force=force, store=store, say=say)

    return call


def config_of(folder):
    return text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())


def shape_of(config, tensor):
    """A tensor's shape as Triton takes it: -1 for a free axis."""
    return ([-1] if config.max_batch_size else []) + list(tensor.dims)


def numpy_of(data_type):
    return np.dtype(triton_to_np_dtype(pb.DataType.Name(data_type).removeprefix("TYPE_"))).name


def in_onnx_runtime(folder):
    """Inputs and outputs of a model file by name: NumPy's type, and the shape with -1 for a free axis."""
    import onnx

    graph = onnx.load(folder / "1" / "model.onnx").graph

    def described(value):
        tensor = value.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim]
        return onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape

    return [{v.name: described(v) for v in side} for side in (graph.input, graph.output)]


def openvino_model(folder):
    """As Triton's backend makes it ready: ``ModelState::ValidateConfigureModel`` in its ``openvino.cc``."""
    from dlcv_deploy.backends import openvino

    ov, config = openvino._openvino(), config_of(folder)
    model = openvino._core().read_model(folder / "1" / "model.xml")
    prepared = ov.preprocess.PrePostProcessor(model)
    for tensor in config.input:
        prepared.input(tensor.name).tensor().set_element_type(ov.Type(np.dtype(numpy_of(tensor.data_type))))
        if config.max_batch_size:
            prepared.input(tensor.name).tensor().set_layout(ov.Layout("N..."))
    model = prepared.build()
    if config.max_batch_size:
        ov.set_batch(model, config.max_batch_size)
    return model


def in_openvino(folder):
    model = openvino_model(folder)

    def described(port):
        shape = [-1 if d.is_dynamic else d.get_length() for d in port.get_partial_shape()]
        return port.get_element_type().to_dtype().name, shape

    return [{p.get_any_name(): described(p) for p in side} for side in (model.inputs, model.outputs)]


def assert_as_configured(folder):
    config = config_of(folder)
    assert config.name == folder.name
    found = in_openvino(folder) if config.backend == "openvino" else in_onnx_runtime(folder)
    fixed = config.max_batch_size if config.backend == "openvino" and config.max_batch_size else -1
    for tensors, side in zip((config.input, config.output), found, strict=True):
        told = {t.name: (numpy_of(t.data_type), [fixed, *shape_of(config, t)[1:]]) for t in tensors}
        assert told == side


def contract_of(folder):
    return json.loads((folder / "contract.json").read_text())


def snapshot(folder):
    return {str(p.relative_to(folder)): sha256(p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


KINDS = [
    ("fp32", False, False),
    ("fp32", True, False),
    ("fp32", False, True),
    ("int8", True, True),
    *(
        pytest.param(*kind, marks=pytest.mark.slow)
        for kind in (("int8", False, False), ("int8", True, False), ("int8", False, True), ("fp32", True, True))
    ),
]
kinds = pytest.mark.parametrize(("precision", "uint8", "ten_crop"), KINDS)


@kinds
def test_models_are_what_their_configuration_says(need, put, repo, bundle, precision, uint8, ten_crop):
    need("openvino")
    path = bundle(precision, ("openvino", "onnxruntime"))
    put(path, targets=("openvino", "onnxruntime"), uint8=uint8, ten_crop=ten_crop)
    for target in ("openvino", "onnxruntime"):
        folder = repo / f"net-{target}"
        assert_as_configured(folder)
        assert config_of(folder).max_batch_size == (0 if target == "openvino" else 3 if ten_crop else 32)
        check = contract_of(folder)["versions"]["1"]["check"]
        if not (uint8 or ten_crop):
            assert check is None
        else:
            assert check["images"] == 16
            assert check["greatest_difference"] <= check["tolerance"] == TOLERANCE[precision]
            if target == "onnxruntime" and not ten_crop:
                assert check["same_bits"]
    put(path, targets=("openvino",), uint8=uint8, ten_crop=ten_crop, max_batch=2, name="padded")
    assert_as_configured(repo / "padded")


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@kinds
def test_a_served_model_answers_golden_inputs_as_the_bundle_does(
    need, put, repo, bundle, precision, uint8, ten_crop, target
):
    need(target)
    path = bundle(precision, (target,))
    rows = np.load(path / "golden" / "inputs.npy")
    with backends.get(target).load(open_bundle(path).engine(target)) as session:
        plain = softmax(session.run({"x": rows})["y"])
        images = sorted((path / "golden").glob("*.png"))
        cut = np.concatenate([crops(canvas(decode(i, i.name), PRE), PRE, 10) for i in images])
        ten = softmax(np.concatenate([session.run({"x": to_input(c, PRE)})["y"] for c in np.split(cut, 4)]))
        ten = ten.reshape(4, 10, 5).mean(1)
    put(path, uint8=uint8, ten_crop=ten_crop, targets=(target,))
    folder = repo / "net"
    fed = np.load(folder / GOLDEN_INPUTS)
    assert (folder / GOLDEN_LOGITS).exists() == (not ten_crop)
    files = {p.name: p.read_bytes() for p in (folder / "1").iterdir()}
    batch = Dim(1, 1, 3) if ten_crop else BATCH
    with backends.get(target).load(Engine(target, "CPU", "", files, (), batch)) as session:
        name, out = session.inputs[0].name, session.outputs[0].name
        found = np.concatenate([session.run({name: part})[out] for part in np.array_split(fed, 2)])
    found, expected = (found, ten) if ten_crop else (softmax(found), plain)
    assert np.abs(found - expected).max() <= TOLERANCE[precision]


def test_the_client_on_the_page_prepares_golden_images_exactly(put, repo, bundle):
    path = bundle()
    for uint8 in (False, True):
        for ten_crop in (False, True):
            put(path, uint8=uint8, ten_crop=ten_crop, name=f"m{uint8:d}{ten_crop:d}")
    programs = re.findall(r"```python\n(.*?)\n```", (repo / "README.md").read_text(), re.DOTALL)
    assert len(programs) == 4
    for program, folder in zip(programs, sorted(p for p in repo.iterdir() if p.is_dir()), strict=True):
        assert f'client.infer("{folder.name}"' in program
        assert max(map(len, program.splitlines())) <= 120
        space = {"__name__": "client"}
        exec(program, space)
        found = np.concatenate([space["prepared"](p) for p in sorted(folder.glob("golden-*.png"))])
        expected = np.load(folder / GOLDEN_INPUTS)
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
        (given,) = config_of(folder).input
        assert f'InferInput("{given.name}"' in program
        assert f'"{pb.DataType.Name(given.data_type)[5:]}")' in program


def test_the_client_pads_small_images(put, repo, bundle):
    small = dc.replace(PRE, fit="pad")
    path = bundle(preprocess=small, name="small.dlcv")
    from PIL import Image

    for ten_crop in (False, True):
        put(path, uint8=True, ten_crop=ten_crop, force=True)
        program = re.search(r"```python\n(.*?)\n```", (repo / "README.md").read_text(), re.DOTALL)[1]
        space = {"__name__": "client"}
        exec(program, space)
        pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(repo.parent / "p.png")
        expected = canvas(pixels, small) if ten_crop else pixels
        assert np.array_equal(space["prepared"](repo.parent / "p.png")[0], expected)


def test_what_a_repository_holds(put, repo, bundle):
    path = bundle()
    value = put(path)
    names = sorted(snapshot(repo))
    golden = [f"net/{n.replace('/', '-')}" for n in sorted(snapshot(path)) if n.startswith("golden/")]
    assert names == sorted(
        ["README.md", "net/1/model.onnx", "net/config.pbtxt", "net/contract.json", "net/labels.txt", *golden]
    )
    assert (repo / "net" / "labels.txt").read_text().split() == list(bundles.LABELS)
    assert (repo / "net" / "1" / "model.onnx").read_bytes() == (path / "model.onnx").read_bytes()
    (model,) = value["models"]
    assert model == contract_of(repo / "net")
    assert model["steps"] == list(open_bundle(path).manifest.contract)
    assert model["versions"]["1"]["files"] == {"model.onnx": sha256((path / "model.onnx").read_bytes())}
    assert not [p for p in (repo / "net").iterdir() if p.is_dir() and not p.name.isdecimal()]


def test_a_plan_and_its_plugin(need, put, repo, bundle):
    need("gxx")
    said = []
    put(bundle(more=(plan(plugin=True),)), say=said.append)
    folder = repo / "net"
    assert (folder / "1" / "model.plan").read_bytes() == b"plan"
    assert (folder / "1" / "libdlcv_lrn.so").read_bytes() == b"library"
    assert config_of(folder).platform == "tensorrt_plan"
    page = (repo / "README.md").read_text()
    assert "docker run --rm --gpus all" in page
    assert "--backend-config=tensorrt,plugins=/models/net/1/libdlcv_register.so\n" in page
    assert sorted(p.name for p in (folder / "1").iterdir()) == ["libdlcv_lrn.so", "libdlcv_register.so", "model.plan"]
    assert any("TensorRT is 10.14.1.48 and the GPU is SM 8.6" in line for line in said)


def test_the_best_engine_is_served(need, put, repo, bundle):
    need("openvino")
    put(bundle(targets=("onnxruntime", "openvino"), more=(plan(), RTX)), name="a")
    put(bundle(targets=("onnxruntime", "openvino"), more=(RTX,)), name="b")
    put(bundle(more=(RTX,)), name="c")
    assert [config_of(repo / n).backend for n in "abc"] == ["tensorrt", "openvino", "onnxruntime"]


def test_engines_of_rtx_are_not_loaded_by_triton(put, repo, bundle):
    path, said = bundle(targets=(), more=(RTX,)), []
    with pytest.raises(SpecError) as error:
        put(path, targets=("tensorrt_rtx",))
    assert error.value.what == "Triton's TensorRT backend does not load engines of TensorRT for RTX"
    assert "--target onnxruntime serves the same graph" in error.value.fix
    put(path, say=said.append)
    assert "note: net: the ONNX graph is served: Triton does not load the bundle's engine of TensorRT for RTX" in said
    config = config_of(repo / "net")
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 32)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"targets": ("openvino",)}, "net.dlcv holds no engine for 'openvino'"),
        ({"targets": ("caffe",)}, "Triton serves no engine for 'caffe'"),
        ({"max_batch": 33}, "a batch of 33 was asked for, and the engine takes 32"),
        ({"max_batch": 4, "ten_crop": True}, "a batch of 4 was asked for, and the engine takes 3"),
        ({"name": "a b"}, "'a b' names no model"),
        ({"name": ".."}, "'..' names no model"),
        ({"name": "../x"}, "'../x' names no model"),
        ({"name": ""}, "'' names no model"),
        ({"name": "x", "targets": ("onnxruntime", "tensorrt")}, "2 models cannot share the name 'x'"),
        ({"version": 0}, "version 0 is none of Triton's"),
    ],
)
def test_what_cannot_be_served(put, repo, bundle, how, message):
    path = bundle(more=(plan(),) if "name" in how else ())
    with pytest.raises(SpecError) as error:
        put(path, **how)
    assert error.value.what == message
    assert error.value.fix
    assert not repo.exists()


def test_openvino_has_no_gpu(need, put, bundle):
    need("openvino")
    with pytest.raises(SpecError, match="OpenVINO serves from a CPU alone"):
        put(bundle(targets=("openvino",)), gpu=True)


def test_an_engine_too_small_for_ten_crops(put, bundle):
    path = bundle(targets=(), more=(dc.replace(RTX, batch=Dim(1, 2, 9)),))
    with pytest.raises(SpecError, match=r"takes 9 rows, and ten crops of an image are 10"):
        put(path, ten_crop=True)


def test_a_bundle_is_no_repository(bundle, store):
    path = bundle()
    for last in (path, path.with_name("new.dlcv")):
        with pytest.raises(SpecError, match="is a bundle\n  fix: name the repository last"):
            serve((path,), last, Wanted(), store=store)


def test_two_bundles_of_one_name(put, repo, bundle, tmp_path):
    path = bundle()
    (tmp_path / "other").mkdir()
    again = path.rename(tmp_path / "other" / "net.dlcv")
    with pytest.raises(SpecError, match="would both be the model 'net'"):
        put(again, bundle())
    put(again, bundle(name="mein Netz!.dlcv"), bundle(name="..hidden.dlcv"))
    assert sorted(p.name for p in repo.iterdir()) == ["README.md", "hidden", "mein_Netz_", "net"]
    assert config_of(repo / "mein_Netz_").name == "mein_Netz_"


def test_other_models_are_left_alone(put, repo, bundle):
    put(bundle(name="a.dlcv"))
    (repo / "foreign" / "1").mkdir(parents=True)
    (repo / "foreign" / "config.pbtxt").write_text("by hand")
    before = snapshot(repo)
    put(bundle(name="b.dlcv"))
    after = snapshot(repo)
    assert {n: d for n, d in after.items() if not n.startswith("b/") and n != "README.md"} == {
        n: d for n, d in before.items() if n != "README.md"
    }
    page = (repo / "README.md").read_text()
    assert re.findall(r"^## (\w)$", page, re.MULTILINE) == ["a", "b"]


def test_a_readme_of_somebody_elses_stays(put, repo, bundle):
    repo.mkdir()
    (repo / "README.md").write_text("# Ours\n")
    put(bundle())
    assert (repo / "README.md").read_text() == "# Ours\n"
    assert (repo / "dlcv-deploy-README.md").read_text().startswith("# Models for Triton")


def test_a_model_that_is_there_is_replaced_only_when_told(put, repo, bundle):
    path = bundle()
    put(path)
    (repo / "net" / "left").write_text("over")
    before = snapshot(repo)
    with pytest.raises(ArtifactError) as error:
        put(path, uint8=True)
    assert error.value.what == f"{repo / 'net'} exists"
    assert "--version N adds a version to it, --force replaces it" in error.value.fix
    assert snapshot(repo) == before
    put(path, uint8=True, force=True)
    assert not (repo / "net" / "left").exists()
    assert config_of(repo / "net").input[0].name == "pixels"


def test_a_version_is_added_beside_the_others(put, repo, bundle):
    path = bundle()
    put(path)
    config = repo / "net" / "config.pbtxt"
    config.write_text(config.read_text().replace("count: 1", "count: 4"))  # tuned by hand
    before = snapshot(repo / "net")
    put(bundle(build_key="other"), version=7)
    after = snapshot(repo / "net")
    assert after["7/model.onnx"] == before["1/model.onnx"] == after["1/model.onnx"]
    assert after["config.pbtxt"] == before["config.pbtxt"]
    assert {k: v["build_key"] for k, v in contract_of(repo / "net")["versions"].items()} == {"1": "k", "7": "other"}
    with pytest.raises(ArtifactError, match="has a version 7"):
        put(path, version=7)
    put(bundle(), version=7, force=True)
    assert contract_of(repo / "net")["versions"]["7"]["build_key"] == "k"
    assert sorted(p.name for p in (repo / "net").iterdir() if p.is_dir()) == ["1", "7"]


def test_a_version_that_clients_could_not_use_is_refused(put, repo, bundle):
    path = bundle()
    put(path)
    before = snapshot(repo)
    for how, what in (
        ({"uint8": True}, "inputs, preprocessing"),
        ({"ten_crop": True}, "max_batch_size, inputs, outputs, preprocessing"),
        ({"max_batch": 4}, "max_batch_size"),
    ):
        with pytest.raises(ArtifactError) as error:
            put(path, version=2, **how)
        assert error.value.what == f"{repo / 'net'} serves another model: its {what} differ"
    (repo / "net" / "contract.json").write_text("[]")
    with pytest.raises(ArtifactError, match="was not written by dlcv-deploy triton"):
        put(path, version=2)
    (repo / "net" / "contract.json").write_text('{"schema": 99, "signature": {}, "versions": {}}')
    with pytest.raises(ArtifactError, match="of another version"):
        put(path, version=2)
    assert snapshot(repo).keys() == before.keys()


def test_nothing_is_written_where_one_model_fails(put, repo, bundle):
    good, bad = bundle(name="a.dlcv"), bundle(name="b.dlcv", targets=(), more=(dc.replace(RTX, batch=Dim(1, 1, 4)),))
    with pytest.raises(SpecError):
        put(good, bad, ten_crop=True)
    assert not repo.exists()


def test_a_baked_engine_that_answers_otherwise_is_not_served(put, repo, bundle, monkeypatch):
    from dlcv_deploy.graph import bake

    whole = bake._Front.normalized
    monkeypatch.setattr(bake._Front, "normalized", lambda self, p, pre: whole(self, p, dc.replace(pre, mean=(0, 0, 0))))
    path = bundle(weights="wrong")  # and so another baked graph in the store
    monkeypatch.setattr(stage, "TOLERANCE", {"fp32": 1e-4})
    from dlcv_deploy.store import Store

    with pytest.raises(ToolError, match=r"answers otherwise with preprocessing in the graph: .* in fp32\n  fix: "):
        serve((path,), repo, Wanted(uint8=True), store=Store(repo.parent / "own"))
    assert not repo.exists()


def test_what_was_not_checked_is_said(put, repo, bundle, monkeypatch):
    monkeypatch.setattr(stage, "_checked", lambda *_: Check(not_run="there is no GPU"))
    put(bundle(), uint8=True)
    assert "was **not checked**: there is no GPU" in (repo / "README.md").read_text()


def test_other_outputs_are_dropped_with_a_note(put, bundle):
    said = []
    path = bundle(outputs=(TensorSpec("y", (5,)), TensorSpec("features", (8,))))
    put(path, ten_crop=True, say=said.append)
    assert "note: net: with ten crops the one output is probabilities; features left out" in said
