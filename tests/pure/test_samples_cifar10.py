"""The official archive's layout is read, and no pickle is ever run."""

import contextlib
import io
import os
import pickle  # noqa: TID251 - to write what must never be loaded
import struct
import tarfile

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dlcv_deploy.calibration import cifar10
from dlcv_deploy.calibration.samples import open_samples
from dlcv_deploy.errors import ArtifactError

RNG = np.random.default_rng(0)


class Python2(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, and NumPy's constructor under its old name: as the archive has it."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_string(self, text):
        size = len(text)
        head = b"U" + bytes([size]) if size < 256 else b"T" + struct.pack("<i", size)
        self.write(head + text)
        self.memoize(text)

    def save_text(self, text):
        self.save_string(text.encode("latin-1"))

    def save_global(self, value, name=None):
        if getattr(value, "__name__", "") == "_reconstruct":
            self.write(b"cnumpy.core.multiarray\n_reconstruct\n")
            self.memoize(value)
        else:
            super().save_global(value, name)

    dispatch[bytes] = save_string
    dispatch[str] = save_text
    dispatch[type(np.empty)] = save_global
    dispatch[type(lambda: 0)] = save_global


def python2(value):
    out = io.BytesIO()
    Python2(out, 2).dump(value)
    return out.getvalue()


def python3(value):
    return pickle.dumps(value, 2)


def batch(rows, name=b"testing batch 1 of 1"):
    planes = RNG.integers(0, 256, (rows, 3072), np.uint8)
    truth = RNG.integers(0, 10, rows).tolist()
    files = [b"image_%d.png" % i for i in range(rows)]
    return {b"batch_label": name, b"labels": truth, b"data": planes, b"filenames": files}


def archive(path, batches, write=python2):
    with tarfile.open(path, "w:gz") as tar:
        for name, value in {"batches.meta": {b"label_names": [b"airplane"]}, **batches}.items():
            data = value if isinstance(value, bytes) else write(value)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def rgb(planes):
    return np.stack([planes[:, 1024 * c : 1024 * (c + 1)].reshape(-1, 32, 32) for c in range(3)], axis=3)


@pytest.mark.parametrize("write", [python2, python3])
def test_the_archive_is_read_without_unpickling(tmp_path, write):
    test = batch(7)
    train = {f"data_batch_{i}": batch(i, b"training") for i in range(1, 6)}
    shuffled = dict(sorted(train.items(), key=lambda item: item[0][-1] in "24"))
    path = archive(tmp_path / "a.tar.gz", {**shuffled, "test_batch": test}, write)
    pixels, truth = cifar10.read_archive(path, "test")
    assert np.array_equal(pixels, rgb(test[b"data"]))
    assert pixels.flags.c_contiguous
    assert truth.tolist() == test[b"labels"]
    pixels, truth = cifar10.read_archive(path, "train")
    assert np.array_equal(pixels, np.concatenate([rgb(train[f"data_batch_{i}"][b"data"]) for i in range(1, 6)]))
    assert truth.tolist() == [label for i in range(1, 6) for label in train[f"data_batch_{i}"][b"labels"]]


def test_the_layout_is_that_of_the_official_archive():
    """The head of its test_batch as published: protocol 2, strings as Python 2 wrote them, the old name of NumPy."""
    data = python2(batch(300))
    assert data.startswith(b"\x80\x02}q\x00(U\x0bbatch_label")
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in data
    assert b"cnumpy\ndtype\n" in data
    assert b"_codecs" not in data
    assert b"T" + struct.pack("<i", 300 * 3072) in data


class Hostile:
    """Unpickling one runs a command."""

    def __init__(self, call, *arguments):
        self.what = (call, arguments)

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize(
    "value",
    [
        Hostile(os.system, "touch pwned"),  # noqa: TID251 - must never run
        {b"data": Hostile(open, "pwned", "w"), b"labels": []},
        Hostile(eval, "open('pwned', 'w')"),
        Hostile(np.load, "x.npy"),
        Hostile(np.dtype, "O"),
        Hostile(np.dtype, "f4", False, True),
        np.array([object()]),
        np.zeros((2, 3072), np.float32),
        np.asfortranarray(np.zeros((2, 3072), np.uint8)),
        {1.5: b"float"},
        {(): b"tuple"},
        {b"data": {1, 2}},
        2**70,
        Python2,
    ],
    ids=lambda value: type(value).__name__,
)
def test_hostile_and_foreign_pickles_are_refused_and_nothing_runs(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    path = archive(tmp_path / "a.tar.gz", {"test_batch": value}, python3)
    with pytest.raises(ArtifactError, match=r"a\.tar\.gz cannot be read"):
        cifar10.read_archive(path, "test")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("protocol", [0, 3, 4, 5])
def test_other_protocols_are_refused(protocol):
    with pytest.raises(ValueError, match="not read here"):
        cifar10.plain(pickle.dumps({b"a": [1, 2, b"c"]}, protocol))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"\x80\x02.",
        b"\x80\x02(.",
        b"\x80\x02]",
        b"\x80\x02e.",
        b"\x80\x02K\x01e.",
        b"\x80\x02h\x05.",
        b"\x80\x02]q\x00a.",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02}]K\x01s.",
        b"\x80\x02T\xff\xff\xff\x7fab.",
        b"\x80\x02T\xff\xff\xff\xffab.",
        b"\x80\x02cos\nsystem\nU\x02ls\x85R.",
        b"\x80\x02cnumpy\ndtype\n)R.",
        b"\x80\x02cnumpy\ndtype\n)b.",
        b"\x80\x02K\x01)R.",
        b"\x80\x02cnumpy\ndtype\n\x81.",
        b"\x80\x02Pid\n.",
    ],
)
def test_damaged_pickles_are_refused(data):
    with pytest.raises(ValueError, match=r"pickle|not|expected|exhausted|count"):
        cifar10.plain(data)


@given(st.binary(max_size=60))
def test_no_bytes_do_anything_but_be_refused_or_read(data):
    with contextlib.suppress(ValueError):
        cifar10.plain(b"\x80\x02" + data)


SMALL = python2(batch(2))


@example(at=92, byte=ord("\\"))  # an escape that there is not
@given(at=st.integers(0, len(SMALL) - 1), byte=st.integers(0, 255))
def test_an_altered_batch_is_read_or_refused(at, byte):
    data = SMALL[:at] + bytes([byte]) + SMALL[at + 1 :]
    try:
        pixels, truth = cifar10._batch(data)
    except ValueError:
        return
    assert pixels.shape[1] == 3072
    assert len(truth) == len(pixels)


def test_what_a_pickle_says_is_what_python_reads():
    tuples = [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]
    value = {b"a": [1, -1, 300, 70_000, -70_000, None, True, False, *tuples], b"b": []}
    assert cifar10.plain(python3(value)) == value
    assert cifar10.plain(python2(value)) == value


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ({}, "it holds no test_batch"),
        ({"test_batch": [1]}, "no dictionary"),
        ({"test_batch": {b"labels": [1]}}, "no 'data'"),
        ({"test_batch": {**batch(2), b"data": np.zeros((2, 100), np.uint8)}}, "no 'data'"),
        ({"test_batch": {**batch(2), b"labels": [1]}}, "no 'labels'"),
        ({"test_batch": {**batch(2), b"labels": [1, 10]}}, "no 'labels'"),
        ({"test_batch": {**batch(2), b"labels": [1, b"2"]}}, "no 'labels'"),
        ({"test_batch": {**batch(2), b"labels": [1, []]}}, "cannot be read"),
    ],
)
def test_archives_of_something_else_are_refused(tmp_path, batches, words):
    with pytest.raises(ArtifactError) as e:
        cifar10.read_archive(archive(tmp_path / "a.tar.gz", batches), "test")
    assert words in str(e.value)


def test_a_batch_too_large_to_be_one_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "_LARGEST_BATCH_BYTES", 1000)
    with pytest.raises(ArtifactError, match="test_batch is of"):
        cifar10.read_archive(archive(tmp_path / "a.tar.gz", {"test_batch": batch(2)}), "test")


def test_a_damaged_archive_is_refused(tmp_path):
    path = archive(tmp_path / "a.tar.gz", {"test_batch": batch(20)})
    whole = path.read_bytes()
    for data in (b"", b"<html>", whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(ArtifactError, match=r"a\.tar\.gz cannot be read"):
            cifar10.read_archive(path, "test")


# where it is looked for


def test_the_data_folder_comes_first(tmp_path, monkeypatch):
    (tmp_path / "cifar10").mkdir()
    np.savez(tmp_path / "cifar10" / "train.npz", images=np.full((2, 32, 32, 3), 7, np.uint8), labels=np.array([1, 2]))
    np.savez(tmp_path / "cifar10" / "test.npz", images=np.zeros((2, 32, 32, 3), np.uint8))
    monkeypatch.setenv("DLCV_DATA", str(tmp_path))
    monkeypatch.setattr(cifar10, "download", None)
    samples = open_samples("cifar10-train")
    assert samples.source == "2 CIFAR-10 train images"
    assert samples.name(1) == "train[1]"
    assert samples.image(1).min() == 7
    with pytest.raises(ArtifactError, match=r"test\.npz in DLCV_DATA is not CIFAR-10"):
        open_samples("cifar10")


def test_the_archive_comes_next(tmp_path, monkeypatch):
    test = batch(3)
    path = archive(tmp_path / "a.tar.gz", {"test_batch": test})
    asked = []

    def download(*what):
        asked.append(what)
        return path

    monkeypatch.setenv("DLCV_DATA", str(tmp_path))
    monkeypatch.setattr(cifar10, "download", download)
    assert open_samples("cifar10").labels.tolist() == test[b"labels"]
    assert [what[:3] for what in asked] == [(cifar10.URL, "cifar-10-python.tar.gz", cifar10.SHA256)]


def test_without_data_and_network_all_ways_out_are_named(monkeypatch):
    def download(*what):
        raise ArtifactError("cannot fetch it", fix="look at the network")

    monkeypatch.delenv("DLCV_DATA", raising=False)
    monkeypatch.setattr(cifar10, "download", download)
    with pytest.raises(ArtifactError, match="CIFAR-10 is not here: cannot fetch it") as e:
        open_samples("cifar10")
    for way in ("DLCV_DATA", "cifar10/test.npz", "cifar-10-python.tar.gz", "run again"):
        assert way in e.value.fix
