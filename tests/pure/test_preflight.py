"""Pre-flight checks, for machines that need not be there."""

import dataclasses as dc
import json
import os
import random
import shutil

import pytest
from helpers.bundles import UNREAD

from dlcv_deploy import preflight as module
from dlcv_deploy.bundle import open_bundle, write
from dlcv_deploy.digest import sha256
from dlcv_deploy.errors import ArtifactError, MissingBackend, SpecError
from dlcv_deploy.host import Host, HostGpu
from dlcv_deploy.manifest import MANIFEST
from dlcv_deploy.preflight import ORDER, Finding, check, error_of, preflight
from dlcv_deploy.types import Engine, PluginNeed

X86 = b"\x7fELF".ljust(18, b"\0") + (62).to_bytes(2, "little") + b"rest"
NEED = PluginNeed("libdlcv_lrn.so", sha256(X86), "10.14.1", (86, 75), ("DlcvLRN",))
RTX = Engine("tensorrt_rtx", "SM 8.0 and later", "1.7.1.116", {"model.rtx.engine": b"rtx"})
TRT = Engine("tensorrt", "SM 8.6, 8.9", "10.14.1.48", {"model.engine": b"trt", "libdlcv_lrn.so": X86}, plugin=NEED)
VINO = Engine("openvino", "CPU", "2026.4.1", {"model.xml": b"<net/>", "model.bin": b"\0" * 20})
ORT = Engine("onnxruntime", "CPU", "1.31.1", {"model.onnx": b"graph"})
FILES = {"model.onnx": b"graph", "labels.txt": b"cat\ndog\n"}
GPU = HostGpu("RTX 3090", 86, 1 << 34, 13000)
RUNTIMES = {"tensorrt": "10.14.1.48", "tensorrt_rtx": "1.7.1.116", "openvino": "2026.4.1", "onnxruntime": "1.31.1"}
HOST = Host("x86_64", 1 << 34, RUNTIMES, GPU)


def made(path, *engines):
    return write(path / "b.dlcv", UNREAD, engines or (ORT, VINO, RTX, TRT), FILES, replace=True).path


@pytest.fixture
def path(tmp_path):
    return made(tmp_path)


def told(path, host=HOST, backend=None):
    """Code, sentence and fix of the one finding."""
    (found,) = preflight(path, host, backend)
    return found.code, found.what, found.fix


def codes(path, host=HOST, backend=None):
    return [(found.code, found.backend) for found in preflight(path, host, backend)]


def edit(path, change):
    document = json.loads((path / MANIFEST).read_text())
    change(document)
    (path / MANIFEST).write_text(json.dumps(document))


# --- what is loaded


def test_all_runs_and_the_first_of_the_order_is_taken(path):
    found = check(path, HOST)
    assert (found.findings, found.backend, found.labels) == ((), "tensorrt", b"cat\ndog\n")
    assert found.files == TRT.files
    assert found.manifest.engine("tensorrt", found.files) == TRT
    assert preflight(path, HOST) == ()


@pytest.mark.parametrize("engine", [ORT, VINO, RTX, TRT])
def test_the_engine_that_is_asked_for(path, engine):
    found = check(path, HOST, engine.backend)
    assert (found.findings, found.backend, found.files) == ((), engine.backend, engine.files)


def test_the_first_that_runs_here_is_taken(path):
    found = check(path, dc.replace(HOST, gpu=None, no_gpu="none"))
    assert (found.backend, found.files) == ("openvino", VINO.files)
    assert [f.code for f in found.findings] == ["gpu_none", "gpu_none"]
    assert check(path, dc.replace(HOST, gpu=None, no_gpu="none"), "tensorrt").files == {}
    only = Host("x86_64", 0, {"onnxruntime": "1.31.1"})
    assert check(path, only).files == ORT.files


def test_each_file_is_opened_once_and_what_was_read_is_what_is_loaded(path, monkeypatch):
    read, really = [], module.opened

    def opened(file):
        read.append(str(file.relative_to(path)))
        return really(file)

    monkeypatch.setattr(module, "opened", opened)
    check(path, HOST)
    assert sorted(read) == sorted(json.loads((path / MANIFEST).read_text())["files"])


def test_a_bundle_without_labels(tmp_path):
    path = write(tmp_path / "n.dlcv", UNREAD, (VINO,), {"model.onnx": b""}, replace=False).path
    assert (check(path, HOST).backend, check(path, HOST).labels) == ("openvino", b"")


def test_nothing_is_kept_where_nothing_is_to_be_loaded(path):
    assert check(path, HOST, keep=False) == dc.replace(check(path, HOST), files={}, labels=b"")


def test_a_damaged_file_of_another_engine_is_not_passed_over(path):
    (path / "openvino/model.bin").write_bytes(b"\1" * 20)
    found = check(path, HOST, "tensorrt_rtx")
    assert ([f.code for f in found.findings], found.backend, found.files) == (["file_altered"], "", {})


# --- files


def test_files_are_told_in_the_order_of_their_names(path):
    (path / "model.onnx").unlink()
    (path / "labels.txt").write_bytes(b"cat\ndog")
    (path / "openvino/model.bin").write_bytes(b"\0" * 19 + b"\1")
    again = "copy the bundle again, or build it again with dlcv-deploy build --force"
    assert preflight(path, HOST) == (
        Finding(
            "file_size",
            "labels.txt has 7 bytes and not 8: it was cut off, or altered after the bundle was written",
            again,
        ),
        Finding("file_missing", "the bundle lacks model.onnx", again.replace("again,", "again, whole,", 1)),
        Finding(
            "file_altered",
            "openvino/model.bin was altered after the bundle was written: its SHA-256 is not the manifest's",
            again,
        ),
    )


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../x", "/etc/hosts", "//x", "a//b", "a/", "./a", "a/.", ".", "..", "a\\b", "..\\x", "C:x", "openvino/"],
)
def test_names_that_leave_the_bundle(path, name):
    edit(path, lambda document: document["files"].update({name: {"bytes": 5, "sha256": sha256(b"graph")}}))
    assert told(path) == (
        "file_unsafe",
        f"the manifest names a file outside the bundle: {name}",
        "do not use this bundle: nothing that dlcv-deploy wrote names such a file",
    )


@pytest.mark.parametrize("name", ["../../x", "none.bin", "openvino/absent"])
def test_a_file_that_an_engine_names_and_the_manifest_does_not_list(path, name):
    edit(path, lambda document: document["engines"]["openvino"]["files"].update({"model.bin": name}))
    code = "file_unsafe" if ".." in name else "file_missing"
    assert codes(path) == [(code, "")]


def test_a_file_that_is_there_and_not_listed_is_missing(path):
    edit(path, lambda document: document["files"].pop("openvino/model.bin"))
    assert told(path)[:2] == ("file_missing", "the bundle lacks openvino/model.bin")


def linked(path, name, to):
    (path / name).unlink()
    (path / name).symlink_to(to)


def test_links_may_stay_in_the_bundle_and_not_leave_it(path, tmp_path):
    (path / "copy").write_bytes(b"graph")
    linked(path, "model.onnx", "copy")
    assert preflight(path, HOST) == ()
    (tmp_path / "outside").write_bytes(b"graph")
    linked(path, "model.onnx", "../outside")
    assert codes(path) == [("file_unsafe", "")]
    linked(path, "model.onnx", tmp_path / "outside")
    assert codes(path) == [("file_unsafe", "")]
    linked(path, "model.onnx", "../nowhere")
    assert codes(path) == [("file_missing", "")]
    linked(path, "model.onnx", "model.onnx")
    assert codes(path) == [("file_missing", "")]


def test_a_folder_that_is_a_link_out_of_the_bundle(path, tmp_path):
    shutil.move(path / "openvino", tmp_path / "elsewhere")
    (path / "openvino").symlink_to(tmp_path / "elsewhere")
    assert codes(path) == [("file_unsafe", ""), ("file_unsafe", "")]


def test_the_bundle_may_be_a_link(path, tmp_path):
    (tmp_path / "link").symlink_to(path)
    assert check(tmp_path / "link", HOST).files == TRT.files


def test_a_folder_whose_name_begins_as_the_bundles_is_outside(path, tmp_path):
    (tmp_path / "b.dlcv2").mkdir()
    (tmp_path / "b.dlcv2/model.onnx").write_bytes(b"graph")
    linked(path, "model.onnx", "../b.dlcv2/model.onnx")
    assert codes(path) == [("file_unsafe", "")]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_opened(path, make, monkeypatch):
    (path / "model.onnx").unlink()
    make(path / "model.onnx")
    asked, really = [], os.open
    monkeypatch.setattr(os, "open", lambda p, *a: asked.append(str(p)) or really(p, *a))
    assert codes(path) == [("file_missing", "")]
    assert str(path / "labels.txt") in asked
    assert str(path / "model.onnx") not in asked


def test_a_pipe_that_takes_a_files_place_at_the_last_moment(path, monkeypatch):
    (path / "model.onnx").unlink()
    os.mkfifo(path / "model.onnx")
    monkeypatch.setattr(module, "regular", lambda file: True)
    assert codes(path) == [("file_missing", "")]


def test_a_file_that_cannot_be_read(path, monkeypatch):
    def opened(file):
        if file.name == "model.bin":
            raise PermissionError(13, "Permission denied")
        return really(file)

    really = module.opened
    monkeypatch.setattr(module, "opened", opened)
    assert told(path) == (
        "file_unreadable",
        "openvino/model.bin is there, and cannot be read",
        "give this user the right to read it, or copy the bundle again",
    )


def test_opening_a_bundle_makes_the_same_checks(path):
    assert open_bundle(path).engine("openvino") == VINO
    (path / "model.onnx").unlink()
    (path / "labels.txt").unlink()
    first = preflight(path, HOST)[0]
    with pytest.raises(ArtifactError) as e:
        open_bundle(path)
    assert (e.value.what, e.value.fix) == (first.what, first.fix)


# --- engines


def test_an_engine_that_the_bundle_lacks(tmp_path):
    path = made(tmp_path, ORT, VINO)
    (found,) = preflight(path, HOST, "tensorrt")
    assert found == Finding(
        "engine_none",
        "the bundle holds no engine for tensorrt; it holds openvino, onnxruntime",
        "name one of these, or build for the other: dlcv-deploy build --target tensorrt",
        "tensorrt",
    )
    assert isinstance(error_of(found), SpecError)
    (path / "labels.txt").unlink()
    assert codes(path, HOST, "other") == [("file_missing", ""), ("engine_none", "other")]
    assert check(path, HOST, "other").backend == ""


def test_a_bundle_without_engines(tmp_path):
    path = write(tmp_path / "n.dlcv", UNREAD, (), FILES, replace=False).path
    assert check(path, HOST).backend == ""
    assert preflight(path, HOST) == ()
    assert told(path, HOST, "openvino")[1] == "the bundle holds no engine for openvino; it holds none"


@pytest.mark.parametrize(
    ("backend", "tool", "extra"),
    [
        ("tensorrt", "TensorRT", "gpu"),
        ("tensorrt_rtx", "TensorRT-RTX", "rtx"),
        ("openvino", "OpenVINO", "openvino"),
        ("onnxruntime", "ONNX Runtime", "onnxruntime"),
    ],
)
def test_a_runtime_that_is_not_installed(path, backend, tool, extra):
    host = dc.replace(HOST, runtimes={k: v for k, v in RUNTIMES.items() if k != backend})
    (found,) = preflight(path, host)
    assert found == Finding(
        "runtime_missing",
        f"{tool} is not installed, and the engine for {backend} needs it",
        f"pip install 'dlcv-deploy[{extra}]'; for C++, build the library again with it there: dlcv-deploy cpp PREFIX",
        backend,
    )
    assert isinstance(error_of(found), MissingBackend)


@pytest.mark.parametrize(
    ("backend", "installed", "code"),
    [
        ("tensorrt", "10.14.1", ""),
        ("tensorrt", "10.14.1.48.post1", ""),
        ("tensorrt", "10.14.1.49", "other"),
        ("tensorrt", "10.15.1", "other"),
        ("tensorrt", "11", "other"),
        ("tensorrt", "unknown", ""),
        ("tensorrt_rtx", "1.7.0.1", "other"),
        ("tensorrt_rtx", "1.10.1.116", "other"),
        ("openvino", "2026.4.0", ""),
        ("openvino", "2026.4", ""),
        ("openvino", "2026.5.0-1-abc", ""),
        ("openvino", "2027.0", ""),
        ("openvino", "2026.3.9", "older"),
        ("openvino", "2025.12", "older"),
        ("openvino", "2026", "older"),
        ("openvino", "unknown", ""),
        ("openvino", "\u0662026.1", ""),
        ("openvino", "1234567890.1", ""),
        ("onnxruntime", "1.31", ""),
        ("onnxruntime", "1.9.5", "older"),
    ],
)
def test_versions(path, backend, installed, code):
    found = preflight(path, dc.replace(HOST, runtimes={**RUNTIMES, backend: installed}))
    assert [f.code for f in found] == ([f"runtime_{code}"] if code else [])


def test_what_is_said_of_versions(path):
    host = dc.replace(HOST, runtimes={**RUNTIMES, "tensorrt": "10.9", "openvino": "2026.1"})
    assert [(f.what, f.fix) for f in preflight(path, host)] == [
        (
            "the engine for tensorrt was compiled by TensorRT 10.14.1.48, and 10.9 is installed;"
            " it takes the same version",
            "install TensorRT 10.14.1.48, or compile again: dlcv-deploy doctor BUNDLE --rebuild",
        ),
        (
            "the engine for openvino was compiled by OpenVINO 2026.4.1, and the older 2026.1 is installed",
            "install OpenVINO 2026.4.1 or later, or compile again: dlcv-deploy doctor BUNDLE --rebuild",
        ),
    ]


def test_no_gpu(path):
    host = dc.replace(HOST, gpu=None, no_gpu="the NVIDIA driver sees no GPU (CUDA_VISIBLE_DEVICES?)")
    assert codes(path, host) == [("gpu_none", "tensorrt"), ("gpu_none", "tensorrt_rtx")]
    assert preflight(path, host)[0].what == (
        "the engine for tensorrt needs an NVIDIA GPU: the NVIDIA driver sees no GPU (CUDA_VISIBLE_DEVICES?)"
    )


def test_onnx_runtime_on_a_gpu(tmp_path):
    path = made(tmp_path, dc.replace(ORT, target="CUDA"))
    assert codes(path, dc.replace(HOST, gpu=None)) == [("gpu_none", "onnxruntime")]
    assert codes(path) == []


@pytest.mark.parametrize(
    ("target", "sm", "runs"),
    [
        ("SM 8.6, 8.9", 86, True),
        ("SM 8.6, 8.9", 89, True),
        ("SM 8.6, 8.9", 90, False),
        ("SM 8.6, 8.9", 87, False),
        ("SM 8.0 and later", 80, True),
        ("SM 8.0 and later", 120, True),
        ("SM 8.0 and later", 75, False),
        ("SM 7.5, 8.6 and later", 80, False),
        ("any", 75, True),
    ],
)
def test_architectures(tmp_path, target, sm, runs):
    path = made(tmp_path, dc.replace(RTX, target=target))
    host = dc.replace(HOST, gpu=dc.replace(GPU, sm=sm))
    if runs:
        assert codes(path, host) == []
        return
    assert told(path, host) == (
        "gpu_other",
        f"the engine for tensorrt_rtx was compiled for {target}, and this GPU (RTX 3090) is SM {sm / 10:.1f}",
        f"compile again on this machine, dlcv-deploy doctor BUNDLE --rebuild, or build with --sm {sm}",
    )


@pytest.mark.parametrize(
    ("engine", "version", "cuda", "needed"),
    [
        (RTX, "1.7.1.116", 11080, "12.0"),
        (RTX, "1.7.1.116", 12000, ""),
        (RTX, "2.0", 11000, ""),
        (TRT, "11.2.1", 12010, "12.2"),
        (TRT, "11.2.1", 12020, ""),
        (TRT, "10.14.1", 11000, ""),
    ],
)
def test_drivers(tmp_path, engine, version, cuda, needed):
    path = made(tmp_path, dc.replace(engine, version=version))
    host = dc.replace(HOST, runtimes={engine.backend: version}, gpu=dc.replace(GPU, cuda=cuda))
    if not needed:
        assert codes(path, host) == []
        return
    tool = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}[engine.backend]
    assert told(path, host) == (
        "driver_old",
        f"the NVIDIA driver serves CUDA {cuda // 1000}.{cuda % 1000 // 10}, and {tool} {version} needs CUDA {needed}",
        "update the NVIDIA driver",
    )


def test_memory(tmp_path):
    big = dc.replace(VINO, files={"model.xml": b"x", "model.bin": bytes(5 << 20)})
    path = made(tmp_path, big, dc.replace(RTX, files={"model.rtx.engine": bytes(3 << 20)}))
    need = (5 << 20) + 1
    assert codes(path, dc.replace(HOST, memory_bytes=need)) == []
    assert codes(path, dc.replace(HOST, memory_bytes=0, gpu=dc.replace(GPU, memory_bytes=0))) == []
    short = dc.replace(HOST, memory_bytes=need - 1, gpu=dc.replace(GPU, memory_bytes=(3 << 20) - 1))
    gpu, cpu = preflight(path, short)
    assert (gpu.code, gpu.what, gpu.fix) == (
        "gpu_memory",
        "the engine for tensorrt_rtx takes at least 3 MiB of GPU memory, and 2 MiB are free",
        "stop other processes that use the GPU, or build for a smaller batch",
    )
    assert (cpu.code, cpu.what, cpu.fix) == (
        "memory",
        "the engine for openvino takes at least 6 MiB of memory, and 5 MiB are free",
        "stop other processes, or use a machine with more memory",
    )


def test_a_file_that_has_two_names_takes_its_memory_once(tmp_path):
    path = made(tmp_path, dc.replace(VINO, files={"a": bytes(100), "b": bytes(100)}))
    assert codes(path, dc.replace(HOST, memory_bytes=100)) == []
    assert codes(path, dc.replace(HOST, memory_bytes=99)) == [("memory", "openvino")]


# --- the plugin


def test_a_plugin_that_is_none_of_the_engines_files(path):
    edit(path, lambda document: document["engines"]["tensorrt"]["files"].pop("libdlcv_lrn.so"))
    assert codes(path) == [("plugin_missing", "tensorrt")]
    assert preflight(path, HOST)[0].what == (
        "the engine for tensorrt calls the plugin library libdlcv_lrn.so, which the bundle lacks"
    )
    assert isinstance(error_of(preflight(path, HOST)[0]), ArtifactError)


def test_another_library(path):
    edit(path, lambda document: document["engines"]["tensorrt"]["plugin"].update(sha256="0" * 64))
    assert told(path)[:2] == (
        "plugin_other",
        "libdlcv_lrn.so is not the plugin library that the engine for tensorrt was compiled with",
    )


def test_a_library_for_another_processor(path):
    assert told(path, dc.replace(HOST, machine="aarch64")) == (
        "plugin_machine",
        "the plugin library libdlcv_lrn.so was built for x86_64, and this processor is aarch64",
        "build it on this machine, dlcv-deploy plugin build, and the bundle with it",
    )


@pytest.mark.parametrize(
    ("data", "built"), [(b"", "processor 0"), (b"x" * 18 + b"\xb7", "aarch64"), (b"\1" * 30, "processor 257")]
)
def test_what_is_no_library(tmp_path, data, built):
    need = dc.replace(NEED, sha256=sha256(data))
    path = made(tmp_path, dc.replace(TRT, files={**TRT.files, "libdlcv_lrn.so": data}, plugin=need))
    assert f"was built for {built}, and" in told(path)[1]


def test_a_library_that_is_altered_is_told_once(path):
    (path / "tensorrt/libdlcv_lrn.so").write_bytes(X86[:-1] + b"!")
    assert codes(path, dc.replace(HOST, machine="aarch64")) == [("file_altered", "")]


@pytest.mark.parametrize(("sm", "runs"), [(75, True), (86, True), (89, True), (72, False), (80, False), (87, True)])
def test_a_library_for_other_gpus(tmp_path, sm, runs):
    path = made(tmp_path, dc.replace(TRT, target="any"))
    host = dc.replace(HOST, gpu=dc.replace(GPU, sm=sm))
    if runs:
        assert codes(path, host) == []
        return
    assert told(path, host) == (
        "plugin_sm",
        f"the plugin library libdlcv_lrn.so was built for SM 8.6, 7.5, and this GPU (RTX 3090) is SM {sm / 10:.1f}",
        f"build it for this GPU, dlcv-deploy plugin build --arch {sm}, and the bundle with it",
    )


def test_all_that_holds_is_told(path):
    host = Host("aarch64", 1, {**RUNTIMES, "tensorrt": "11.0"}, HostGpu("old", 72, 1, 11000))
    assert codes(path, host) == [
        ("runtime_other", "tensorrt"),
        ("driver_old", "tensorrt"),
        ("gpu_other", "tensorrt"),
        ("gpu_memory", "tensorrt"),
        ("plugin_machine", "tensorrt"),
        ("plugin_sm", "tensorrt"),
        ("driver_old", "tensorrt_rtx"),
        ("gpu_other", "tensorrt_rtx"),
        ("gpu_memory", "tensorrt_rtx"),
        ("memory", "openvino"),
        ("memory", "onnxruntime"),
    ]


def test_every_backend_has_its_place_in_the_order():
    from dlcv_deploy import backends

    assert sorted(ORDER) == sorted(backends._MODULES)


# --- damage at random


def test_a_byte_of_any_file_a_cut_and_a_swap(path):
    """Of every file but the manifest: each is found, and it is that file that is named."""
    random.seed(7)
    names = sorted(json.loads((path / MANIFEST).read_text())["files"])
    content = {name: (path / name).read_bytes() for name in names}
    for name, data in content.items():
        worse = [data[:cut] for cut in {0, len(data) // 2, len(data) - 1}] + [data + b"\0"]
        for _ in range(8):
            at = random.randrange(len(data))
            worse.append(data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :])
        worse += [other for other in content.values() if other != data]
        for each in worse:
            (path / name).write_bytes(each)
            (found,) = preflight(path, HOST)
            assert found.code in ("file_size", "file_altered")
            assert found.what.startswith(name)
        (path / name).write_bytes(data)
    assert preflight(path, HOST) == ()


@pytest.mark.parametrize("seed", range(4))
def test_bytes_of_the_manifest(path, seed):
    """A finding, or a manifest that says the same kind of thing: never a traceback, never a file from elsewhere."""
    draw, data = random.Random(seed), (path / MANIFEST).read_bytes()
    found_something = 0
    for turn in range(150):
        worse = bytearray(data)
        for _ in range(draw.choice([1, 1, 1, 3, 30])):
            worse[draw.randrange(len(worse))] = draw.randrange(256)
        if turn % 5 == 0:
            del worse[draw.randrange(len(worse)) :]
        (path / MANIFEST).write_bytes(worse)
        found = check(path, HOST)
        found_something += bool(found.findings)
        assert all(f.what and f.fix for f in found.findings)
        if found.backend:
            engine = found.manifest.engine(found.backend, found.files)
            assert set(engine.files.values()) <= {
                *TRT.files.values(),
                *RTX.files.values(),
                *VINO.files.values(),
                b"graph",
            }
        if any(not f.backend for f in found.findings):
            with pytest.raises(ArtifactError) as e:
                open_bundle(path)
            assert (e.value.what, e.value.fix) == (found.findings[0].what, found.findings[0].fix)
        else:
            open_bundle(path)
    assert found_something > 75
