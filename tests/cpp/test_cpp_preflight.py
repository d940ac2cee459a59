"""What keeps a bundle from running is the same in C++ and Python: codes, sentences and their order."""

import copy
import dataclasses as dc
import itertools
import json
import os
import random
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
from helpers.bundles import UNREAD

from dlcv_deploy.bundle import write
from dlcv_deploy.digest import sha256
from dlcv_deploy.host import Host, HostGpu
from dlcv_deploy.manifest import DEEPEST, MOST_BYTES, sealed
from dlcv_deploy.preflight import ORDER, check
from dlcv_deploy.types import Engine, PluginNeed

ELF = b"\x7fELF" + bytes(14) + (62).to_bytes(2, "little") + b"library"
NEED = PluginNeed("libdlcv_lrn.so", sha256(ELF), "10.14.1", (75, 86), ("DlcvLRN",))
ENGINES = (
    Engine("openvino", "CPU", "2026.4.1", {"model.xml": b"<net/>", "model.bin": b"weights"}),
    Engine("onnxruntime", "CPU", "1.20.1", {"model.onnx": b"graph"}),
    Engine("tensorrt_rtx", "SM 8.0 and later", "1.7.1.116", {"model.rtx.engine": b"x" * 3000}),
    Engine("tensorrt", "SM 8.6", "10.14.1.48", {"model.engine": b"engine", "libdlcv_lrn.so": ELF}, plugin=NEED),
)
RUNTIMES = {"tensorrt": "10.14.1.48", "tensorrt_rtx": "1.7.1.116", "openvino": "2026.4.1", "onnxruntime": "1.31.0"}
WHOLE = Host("x86_64", 1 << 33, RUNTIMES, HostGpu("NVIDIA RTX A4000", 86, 1 << 33, 13000))
BARE = Host("x86_64", 1 << 33, {"openvino": "2026.4.1"}, None, "no NVIDIA driver (libcuda.so.1 is not on this machine)")


def bundle(path):
    """A bundle with an engine for each backend, of which each is as it should be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = write(path, UNREAD, ENGINES, {"model.onnx": b"graph", "labels.txt": b"cat\ndog\n"}, replace=False).path
    document = json.loads((made / "manifest.json").read_bytes())
    document["engines"]["tensorrt_rtx"] |= {"sm": [80], "later": True}
    document["engines"]["tensorrt"] |= {"sm": [86]}
    (made / "manifest.json").write_text(json.dumps(document))
    return made


def python_finds(path, host, backend):
    found = check(Path(path), host, backend or None)
    files = dict(found.files)
    if found.backend and found.labels:
        files["labels.txt"] = found.labels
    return {
        "findings": [dc.asdict(finding) for finding in found.findings],
        "backend": found.backend,
        "files": {name: data.decode("latin-1") for name, data in files.items()},
    }


@pytest.fixture(scope="session")
def cases_program(cpp_build):
    return cpp_build("address").program("preflight_cases")


@pytest.fixture
def compare(cases_program, tmp_path):
    """Both languages on cases (path, host, backend); returns the codes that were found, of each case."""

    def run(cases):
        cases, file = list(cases), tmp_path / "cases"
        lines = [line for path, host, backend in cases for line in (str(path), backend, json.dumps(dc.asdict(host)))]
        file.write_text("".join(f"{line}\n" for line in lines))
        done = subprocess.run([cases_program, file], capture_output=True, check=True, timeout=120)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(answers) == len(cases)
        codes = []
        for case, cpp in zip(cases, answers, strict=True):
            expected = python_finds(*case)
            assert cpp == expected, case
            codes.append([finding["code"] for finding in cpp["findings"]])
        return codes

    return run


def test_a_sound_bundle_runs_everywhere(tmp_path, compare):
    path = bundle(tmp_path / "b.dlcv")
    assert compare([(path, WHOLE, ""), *((path, WHOLE, name) for name in ORDER)]) == [[]] * 5
    found = python_finds(path, BARE, "")
    assert found["backend"] == "openvino"
    assert found["files"] == {"model.xml": "<net/>", "model.bin": "weights", "labels.txt": "cat\ndog\n"}
    (codes,) = compare([(path, BARE, "")])
    assert codes == ["runtime_missing", "gpu_none"] * 2 + ["runtime_missing"]


def test_hosts(tmp_path, compare):
    path = bundle(tmp_path / "b.dlcv")
    versions = ["", "10.14.1.48", "10.14", "10.14.1-rc", "11.0", "1.7.1.116", "1.7.2", "2026.4.1-22310-0a1b", "2026"]
    versions += ["2026.3.9", "2025.10", "x", "1.20", "1.19.9", "1", "1234567890.1", "2027.", ".5", "٣.٤"]
    choose = random.Random(7)
    cases = []
    for _ in range(250):
        gpu = HostGpu(
            choose.choice(["NVIDIA H100", "a {name}", "größer"]),
            choose.choice([61, 72, 75, 80, 86, 87, 89, 90, 101, 120]),
            choose.choice([0, 1, 100, 2999, 3000, 1 << 20, (1 << 20) - 1, 1 << 33]),
            choose.choice([0, 11080, 12000, 12010, 12020, 13000]),
        )
        host = Host(
            choose.choice(["x86_64", "aarch64", "riscv64"]),
            choose.choice([0, 1, 12, 13, 1 << 33]),
            {name: choose.choice([RUNTIMES[name], *versions]) for name in ORDER if choose.random() < 0.9},
            choose.choice([gpu, gpu, None]),
            "no GPU {backend}",
        )
        cases.append((path, host, choose.choice(["", "", *ORDER, "cpu", "{held}"])))
    codes = {code for found in compare(cases) for code in found}
    assert codes == {
        *("engine_none", "runtime_missing", "runtime_other", "runtime_older", "gpu_none", "driver_old", "gpu_other"),
        *("gpu_memory", "memory", "plugin_machine", "plugin_sm"),
    }


def places(value, at=()):
    """Where the values of a document lie."""
    yield at
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*at, key))


def at(value, place):
    for key in place:
        value = value[key]
    return value


VALUES = [
    *(None, True, False, 0, 1, -1, 86, 3.0, 0.5, -0.5, 1e300, 2**31 - 1, 2**31, 2**53, 2**53 + 1, 2**63, 2**70, 10**19),
    *("", "x", "..", ".", "a/b", "../x", "/etc/passwd", "a//b", "a\\b", "c:d", "x" * 255, "x" * 256, "é" * 512),
    *(
        "a\u0000b",
        "\u007f",
        "\n",
        "x" * 1024,
        "x" * 1025,
        "x" * 4096,
        "x" * 4097,
        "fp16",
        "resize",
        "CUDA",
        "0f" * 32,
        "0F" * 32,
    ),
    *("0f" * 32, "0F" * 32),
    *([], {}, [1, 2, 3], [1, 2], [3, 2, 1], [0, 1, 2], [999], [1000], [1] * 65, [2**16] * 2, [2**15] * 8, [0.5, 1, 2]),
    *([""], ["x"], {"x": "y"}, {"": "y"}, {"a/b": "c"}, {"model.xml": "labels.txt"}, {"bytes": 1, "sha256": "0f" * 32}),
]


def altered(document, choose):
    """A manifest with one to three of its values replaced, dropped or added."""
    document = copy.deepcopy(document)
    for _ in range(choose.choice([1, 1, 1, 2, 3])):
        *head, last = choose.choice([place for place in places(document) if place])
        holder = at(document, head)
        alike = [v for v in map(partial(at, document), places(document)) if type(v) is type(holder[last])]
        if choose.random() < 0.5:
            holder[last] = copy.deepcopy(choose.choice(alike))
        elif choose.random() < 0.15:
            del holder[last]
        elif isinstance(holder, dict) and choose.random() < 0.2:
            holder[choose.choice(["", "x", "a/b", "x" * 256, "plugin", "../x"])] = choose.choice(VALUES)
        else:
            holder[last] = choose.choice(VALUES)
    return document


def variants(tmp_path, count):
    """Bundles of the same files, with the manifest to be altered."""
    origin = bundle(tmp_path / "origin.dlcv")
    document = json.loads((origin / "manifest.json").read_bytes())
    for i in range(count):
        path = tmp_path / f"{i}.dlcv"
        shutil.copytree(origin, path, copy_function=os.link)
        (path / "manifest.json").unlink()
        yield path, document


def test_manifests_of_any_values(tmp_path, compare):
    choose, cases = random.Random(11), []
    for path, document in variants(tmp_path, 400):
        (path / "manifest.json").write_text(json.dumps(altered(document, choose)))
        cases.append((path, choose.choice([WHOLE, BARE]), choose.choice(["", "", "openvino", "tensorrt"])))
    codes = list(itertools.chain(*compare(cases)))
    wanted = ("manifest_damaged", "manifest_schema", "file_unsafe", "file_missing", "file_size", "file_altered")
    assert set(wanted) <= set(codes)


PLACES = [
    *(("model",), ("engines", "tensorrt", "plugin", "file"), ("engines", "openvino", "files", "model.xml")),
    *(("engines", "tensorrt", "sm"), ("engines", "tensorrt", "batch"), ("inputs", 0, "shape"), ("preprocess", "std")),
    *(("classes",), ("files", "labels.txt", "bytes")),
]


def test_each_value_where_it_could_stand(tmp_path, compare):
    """Manifests alone, of bundles without files: a value of each kind in some places, and each text as a key."""
    whole = json.loads((bundle(tmp_path / "b.dlcv") / "manifest.json").read_bytes())
    documents = []
    for *head, last in PLACES:
        for value in VALUES:
            documents.append(copy.deepcopy(whole))
            at(documents[-1], head)[last] = value
    for key in (value for value in VALUES if isinstance(value, str)):
        for place in (("files",), ("engines",), ("engines", "openvino", "files")):
            documents.append(copy.deepcopy(whole))
            holder = at(documents[-1], place)
            holder[key] = copy.deepcopy(next(iter(holder.values())))
    for i, document in enumerate(documents):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "manifest.json").write_text(json.dumps(document))
    codes = compare((tmp_path / str(i), BARE, "openvino") for i in range(len(documents)))
    assert len([found for found in codes if found[0].startswith("file_")]) > 50


def test_plugins(tmp_path, compare):
    cases, codes = [], {"plugin_missing": {"file": "x.so"}, "plugin_other": {"sha256": "0f" * 32}}
    codes["plugin_sm"] = {"architectures": [80, 86, 90]}
    for code, change in codes.items():
        path = bundle(tmp_path / f"{code}.dlcv")
        document = json.loads((path / "manifest.json").read_bytes())
        document["engines"]["tensorrt"]["plugin"] |= change
        (path / "manifest.json").write_text(json.dumps(document))
        gpu = dc.replace(WHOLE.gpu, sm=87)  # of Tegra, which runs its own code alone
        cases.append((path, dc.replace(WHOLE, gpu=gpu) if code == "plugin_sm" else WHOLE, "tensorrt"))
    assert compare(cases) == [["plugin_missing"], ["plugin_other"], ["gpu_other", "plugin_sm"]]


TEXTS = [
    *(b"", b"{", b"[]", b"null", b"3", b'"x"', b"{}", b'{"schema": 4}', b'{"schema": 5}', b'{"schema": "4"}'),
    *(b'{"schema": 4.0}', b'{"schema": 4e0}', b'{"schema": -0}', b'{"schema": -1}', b'{"schema": 9007199254740992}'),
    *(b'{"schema": 9007199254740993}', b'{"schema": 09}', b'{"schema": +4}', b'{"schema": 5,}', b'{"schema": 5} x'),
    *(b'{"schema": 5, "x": 1e308}', b'{"schema": 5, "x": 1e309}', b'{"schema": 5, "x": -1e999}', b'{"schema": NaN}'),
    *(b'{"schema": 5, "x": ' + b"9" * n + b"}" for n in (18, 19, 20, 21, 308, 309, 310, 5000)),
    *(b'{"schema": 5, "x": -' + b"9" * n + b"}" for n in (18, 19, 20, 400)),
    *(b'{"schema": 5, "schema": 5}', b'{"schema": 5, "x": {"a": 1, "\\u0061": 2}}', b'{"schema": 5} // x'),
    *(
        b'\xef\xbb\xbf{"schema": 5}',
        b'{"schema": 5}\x00',
        b'{"schema": 5}\x00{',
        b'\x00{"schema": 5}',
        b'{"schema":\xa05}',
    ),
    *(b'{"schema": 5, "x": "\xff"}', b'{"schema": 5, "x": "\xed\xa0\x80"}', b'{"schema": 5, "x": "\xc0\x80"}'),
    *(
        b'{"schema": 5, "x": "\xf4\x90\x80\x80"}',
        b'{"schema": 5, "x": "\xf0\x9f\x98\x80"}',
        b'{"schema": 5, "x": "\xe2\x82',
    ),
    *(b'{"schema": 5, "x": "\\ud83d\\ude00"}', b'{"schema": 5, "x": "\\ud83d"}', b'{"schema": 5, "\\ude00": 1}'),
    *(b'{"schema": 5, "x": "\\ud83dx\\ude00"}', b'{"schema": 5, "x": "\t"}', b'{"schema": 5, "x": "\\t\\u0000\\/\\b"}'),
    *(
        b'{"schema": 5, "x": "\x7f"}',
        b'{"schema": 5, "x": "\\x"}',
        b'{"schema": 5, "x": Infinity}',
        b"\x0c{}",
        b" {} \r\n\t",
    ),
    *(b'{"schema": 5, "x": ' + b"[" * n + b"]" * n + b"}" for n in (DEEPEST - 1, DEEPEST, 100_000)),
    *(b'{"schema": 5, "x": ' + b'{"a":' * n + b"1" + b"}" * n + b"}" for n in (DEEPEST - 1, DEEPEST)),
    *(b'{"schema": 5, "x": "' + b"[" * 99 + b'"}', b"[" * 50, b'{"schema": 5}'.decode().encode("utf-16")),
    *(b'{"schema": 5}' + b" " * (MOST_BYTES - 13), b'{"schema": 5}' + b" " * (MOST_BYTES - 12)),
]


def test_manifests_of_any_text(tmp_path, compare):
    path, cases = bundle(tmp_path / "b.dlcv"), []
    whole = (path / "manifest.json").read_bytes()
    seal = sealed(UNREAD)
    choose = random.Random(13)
    flipped = [*(bytearray(whole) for _ in range(300)), *(bytearray(seal) for _ in range(30))]
    flipped += [bytearray(seal[-81 - n :]) for n in range(5)]
    for each in flipped:
        each[choose.randrange(len(each))] ^= 1 << choose.randrange(8)
    cut = [whole[: choose.randrange(len(whole))] for _ in range(20)]
    again = [
        seal.replace(b'"build_key": "k"', b'"build_key": "l"'),
        seal,
        seal[-81:],
        seal[-80:],
        seal + b"\n",
        seal[:-1],
    ]
    for i, text in enumerate([*TEXTS, *map(bytes, flipped), *cut, *again]):
        each = tmp_path / f"{i}.dlcv"
        each.mkdir()
        (each / "manifest.json").write_bytes(text)
        cases.append((each, WHOLE, ""))
    codes = compare(cases)
    assert {"manifest_damaged", "manifest_schema", "file_missing"} <= {code for found in codes for code in found}
    assert codes[-len(again) :][:2] == [["manifest_damaged"], []]


def link(to):
    return lambda file: (file.unlink(), file.symlink_to(to))


def harm(path, kind):
    file = path / "openvino" / "model.bin"
    folder = path / "openvino"
    if kind == "away":
        file.unlink()
    elif kind == "cut off":
        file.write_bytes(file.read_bytes()[:-1])
    elif kind == "longer":
        file.write_bytes(file.read_bytes() + b"x")
    elif kind == "flipped":
        file.write_bytes(b"Weights")
    elif kind == "swapped":
        os.replace(folder / "model.xml", file)
    elif kind == "folder":
        file.unlink()
        file.mkdir()
    elif kind == "pipe":
        file.unlink()
        os.mkfifo(file)
    elif kind == "link within":
        file.rename(folder / "other")
        file.symlink_to("other")
    elif kind == "link out":
        outside = path.with_name("outside")
        outside.write_bytes(b"weights")
        link(outside)(file)
    elif kind == "link to itself":
        link(file.name)(file)
    elif kind == "link to a device":
        link("/dev/zero")(file)
    elif kind == "folder links out":
        folder.rename(path.with_name("elsewhere"))
        folder.symlink_to("../elsewhere")
    elif kind == "folder is a file":
        for each in folder.iterdir():
            each.unlink()
        folder.rmdir()
        folder.write_bytes(b"")
    elif kind == "prefix":
        beside = path.with_name(path.name + "x")
        beside.mkdir()
        (beside / "w").write_bytes(b"weights")
        link(beside / "w")(file)
    elif kind == "all altered":
        for each in path.rglob("*"):
            if each.is_file() and each.name != "manifest.json":
                each.write_bytes(bytes(len(each.read_bytes())))
    else:
        assert kind == "no manifest"
        (path / "manifest.json").unlink()


CODES = {
    "away": ["file_missing"],
    "cut off": ["file_size"],
    "longer": ["file_size"],
    "flipped": ["file_altered"],
    "swapped": ["file_size", "file_missing"],
    "folder": ["file_missing"],
    "pipe": ["file_missing"],
    "link within": [],
    "link out": ["file_unsafe"],
    "link to itself": ["file_missing"],
    "link to a device": ["file_missing"],
    "folder links out": ["file_unsafe", "file_unsafe"],
    "folder is a file": ["file_missing", "file_missing"],
    "prefix": ["file_unsafe"],
    "all altered": ["file_altered"] * 7,
    "no manifest": ["not_a_bundle"],
}


def test_files(tmp_path, compare):
    cases = []
    for i, kind in enumerate(CODES):
        path = bundle(tmp_path / str(i) / "b.dlcv")
        harm(path, kind)
        cases.append((path, WHOLE, ""))
    assert dict(zip(CODES, compare(cases), strict=True)) == CODES


def test_paths_are_shown_alike(tmp_path, compare, monkeypatch):
    path = bundle(tmp_path / "b.dlcv")
    (path / "manifest.json").write_text("{")
    (tmp_path / "to").symlink_to(path)
    inside = [f"{path}/", f"{path}//.", f"{tmp_path}/./x/../b.dlcv", f"//{path}", f"///{path}", f"{tmp_path}/to"]
    shown = [
        "",
        ".",
        "/",
        "//",
        "./",
        "b.dlcv",
        "./b.dlcv/",
        "../nothing",
        "a\u00fcb",
        f"{path}/manifest.json",
        "x" * 300,
    ]
    monkeypatch.chdir(tmp_path)
    compare([(each, WHOLE, "") for each in (*inside, *shown)])
    monkeypatch.chdir(path)
    assert compare([("", WHOLE, ""), (".", WHOLE, "")]) == [["manifest_damaged"]] * 2
