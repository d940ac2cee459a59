import dataclasses as dc
import json
import shutil

import pytest
from helpers.bundles import UNREAD

from dlcv_deploy.bundle import open_bundle, write
from dlcv_deploy.digest import sha256
from dlcv_deploy.errors import ArtifactError, SpecError
from dlcv_deploy.types import Dim, Engine, PluginNeed

ENGINES = (
    Engine("onnxruntime", "CPU", "1.31", {"model.onnx": b"graph"}),
    Engine("openvino", "CPU", "2026.4", {"model.xml": b"<net/>", "model.bin": b"\0\1"}, ("a note",), Dim(1, 2, 4)),
)
FILES = {"model.onnx": b"graph", "labels.txt": b"cat\ndog\n", "report.json": b"{}"}


@pytest.fixture
def bundle(tmp_path):
    return write(tmp_path / "b.dlcv", UNREAD, ENGINES, FILES, replace=False)


def test_round_trip(bundle):
    opened = open_bundle(bundle.path)
    assert opened.manifest == bundle.manifest
    assert opened.engine("openvino") == ENGINES[1]
    assert opened.engine("onnxruntime") == ENGINES[0]
    assert opened.model().onnx == b"graph"
    assert opened.model().precision == "int8"
    assert opened.manifest.preprocess == UNREAD.preprocess


def test_a_shared_file_is_there_once(bundle):
    names = sorted(str(p.relative_to(bundle.path)) for p in bundle.path.rglob("*") if p.is_file())
    assert names == [
        "labels.txt",
        "manifest.json",
        "model.onnx",
        "openvino/model.bin",
        "openvino/model.xml",
        "report.json",
    ]


def test_every_other_file_is_listed_with_its_digest(bundle):
    document = json.loads((bundle.path / "manifest.json").read_text())
    assert document["files"]["model.onnx"] == {"bytes": 5, "sha256": sha256(b"graph")}
    assert set(document["files"]) == {*FILES, "openvino/model.bin", "openvino/model.xml"}


def test_an_existing_bundle_is_kept_unless_replaced(bundle):
    with pytest.raises(ArtifactError, match="it exists"):
        write(bundle.path, UNREAD, (), {"model.onnx": b"new"}, replace=False)
    assert open_bundle(bundle.path).read("model.onnx") == b"graph"
    write(bundle.path, UNREAD, (), {"model.onnx": b"new"}, replace=True)
    assert open_bundle(bundle.path).read("model.onnx") == b"new"
    assert not (bundle.path / "openvino").exists()


@pytest.mark.parametrize("name", ["model.onnx", "openvino/model.bin", "labels.txt", "report.json"])
def test_one_flipped_byte_is_found(bundle, name):
    data = bytearray((bundle.path / name).read_bytes())
    data[0] ^= 1
    (bundle.path / name).write_bytes(data)
    with pytest.raises(ArtifactError, match=r"was altered.*\n.*--force"):
        open_bundle(bundle.path)


def test_a_missing_file_is_named(bundle):
    (bundle.path / "openvino/model.bin").unlink()
    with pytest.raises(ArtifactError, match=r"lacks openvino/model\.bin"):
        open_bundle(bundle.path)


def test_a_folder_without_manifest_is_no_bundle(bundle, tmp_path):
    (bundle.path / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="is no bundle"):
        open_bundle(bundle.path)
    with pytest.raises(ArtifactError, match="there is no bundle at"):
        open_bundle(tmp_path / "absent")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 4}', "null"])
def test_a_damaged_manifest_is_said_to_be(bundle, text):
    (bundle.path / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest\.json is damaged"):
        open_bundle(bundle.path)


def test_another_schema_is_refused_by_number(bundle):
    document = json.loads((bundle.path / "manifest.json").read_text())
    (bundle.path / "manifest.json").write_text(json.dumps({**document, "schema": 99}))
    with pytest.raises(ArtifactError, match="has schema 99, and this version reads schema 4"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("value", [None, "x", [1], {}])
def test_a_contract_that_is_no_list_of_steps_is_a_damaged_manifest(bundle, value):
    assert open_bundle(bundle.path).manifest.contract == UNREAD.contract != ()
    document = json.loads((bundle.path / "manifest.json").read_text())
    (bundle.path / "manifest.json").write_text(json.dumps({**document, "contract": value}))
    with pytest.raises(ArtifactError, match=r"manifest\.json is damaged: contract is missing, or is not"):
        open_bundle(bundle.path)


def test_a_manifest_cannot_name_files_outside(bundle, tmp_path):
    (tmp_path / "secret").write_bytes(b"s")
    document = json.loads((bundle.path / "manifest.json").read_text())
    document["files"]["../secret"] = {"bytes": 1, "sha256": sha256(b"s")}
    (bundle.path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match="outside the bundle"):
        open_bundle(bundle.path)


def test_an_engine_that_is_not_there(bundle):
    with pytest.raises(SpecError, match="it holds onnxruntime, openvino"):
        bundle.engine("tensorrt")


def test_a_bundle_can_be_moved(bundle, tmp_path):
    shutil.move(bundle.path, tmp_path / "elsewhere")
    assert open_bundle(tmp_path / "elsewhere").manifest == bundle.manifest


# --- engines that call the LRN plugin

LIBRARY = "libdlcv_lrn.so"
NEED = PluginNeed(LIBRARY, sha256(b"library"), "10.14.1", (75, 86), ("DlcvLRN", "DlcvLRNMaxPool"))


def calling(backend):
    return Engine(backend, "SM 8.6", "10", {"model.engine": backend.encode(), LIBRARY: b"library"}, plugin=NEED)


@pytest.fixture
def with_plugin(tmp_path):
    engines = (ENGINES[0], calling("tensorrt"), calling("tensorrt_rtx"))
    return write(tmp_path / "p.dlcv", UNREAD, engines, FILES, replace=False)


def test_what_an_engine_needs_comes_back(with_plugin):
    opened = open_bundle(with_plugin.path)
    assert opened.manifest == with_plugin.manifest
    assert opened.engine("tensorrt") == calling("tensorrt")
    assert opened.engine("tensorrt_rtx") == calling("tensorrt_rtx")
    assert opened.engine("onnxruntime").plugin is None


def test_the_manifest_says_what_is_needed_and_only_where_it_is(with_plugin, bundle):
    document = json.loads((with_plugin.path / "manifest.json").read_text())
    assert document["schema"] == 4
    assert document["engines"]["tensorrt_rtx"]["plugin"] == {
        "file": LIBRARY,
        "sha256": sha256(b"library"),
        "tensorrt": "10.14.1",
        "architectures": [75, 86],
        "ops": ["DlcvLRN", "DlcvLRNMaxPool"],
    }
    for engine in [document["engines"]["onnxruntime"], *bundle.manifest.engines.values()]:
        assert set(engine) == {"target", "sm", "later", "version", "notes", "batch", "files"}


def test_two_engines_share_one_library(with_plugin):
    engines = with_plugin.manifest.engines
    assert {engines[name]["files"][LIBRARY] for name in ("tensorrt", "tensorrt_rtx")} == {f"tensorrt/{LIBRARY}"}
    assert len(list(with_plugin.path.rglob(LIBRARY))) == 1


def test_a_library_that_is_gone_or_altered_is_named(with_plugin):
    file = with_plugin.path / "tensorrt" / LIBRARY
    file.write_bytes(b"Library")
    with pytest.raises(ArtifactError, match=r"libdlcv_lrn\.so was altered"):
        open_bundle(with_plugin.path)
    file.unlink()
    with pytest.raises(ArtifactError, match=r"lacks tensorrt/libdlcv_lrn\.so"):
        open_bundle(with_plugin.path)


def edited(bundle, change):
    document = json.loads((bundle.path / "manifest.json").read_text())
    change(document["engines"]["tensorrt"])
    (bundle.path / "manifest.json").write_text(json.dumps(document))


def test_an_engine_whose_library_the_manifest_does_not_list_is_refused(with_plugin):
    edited(with_plugin, lambda engine: engine["files"].pop(LIBRARY))
    opened = open_bundle(with_plugin.path)
    with pytest.raises(ArtifactError, match=r"p\.dlcv lacks libdlcv_lrn\.so, which its engine for tensorrt needs"):
        opened.engine("tensorrt")
    assert opened.engine("tensorrt_rtx") == calling("tensorrt_rtx")


@pytest.mark.parametrize("value", [None, "x", {}, {"file": LIBRARY}, {**dc.asdict(NEED), "architectures": 86}])
def test_a_damaged_need_is_a_damaged_manifest(with_plugin, value):
    edited(with_plugin, lambda engine: engine.update(plugin=value))
    with pytest.raises(ArtifactError, match=r"manifest\.json is damaged"):
        open_bundle(with_plugin.path)


def test_inspect_says_what_an_engine_needs(with_plugin):
    from dlcv_deploy.describe import describe_bundle

    onnx = b""  # an empty graph
    path = with_plugin.path.with_name("q.dlcv")
    told = describe_bundle(write(path, UNREAD, (calling("tensorrt"),), {"model.onnx": onnx}, replace=False))
    (line,) = [line for line in told.splitlines() if line.startswith("plugin")]
    assert line.split(maxsplit=1)[1] == (
        "tensorrt needs libdlcv_lrn.so (DlcvLRN, DlcvLRNMaxPool), for SM 7.5, 8.6,"
        f" built against TensorRT 10.14.1, SHA-256 {sha256(b'library')[:12]}"
    )
