"""The cache of stages' results, where it is, and downloads."""

import errno
import hashlib
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dlcv_deploy import store as store_module
from dlcv_deploy.errors import ArtifactError, SpecError
from dlcv_deploy.store import Store, cache_dir, download, download_path

FILES = {"model.onnx": b"\x08\x07", "empty": b"", "engine/a.bin": bytes(range(256))}


def test_cache_dir_order(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DLCV_CACHE", "~/mine")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == tmp_path / "mine"
    monkeypatch.setenv("DLCV_CACHE", "")
    assert cache_dir() == Path("/xdg/dlcv-deploy")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the specification
    assert cache_dir() == tmp_path / ".cache/dlcv-deploy"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == tmp_path / ".cache/dlcv-deploy"


def test_cache_dir_is_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLCV_CACHE", "here")
    assert cache_dir() == tmp_path / "here"


def test_no_home(monkeypatch):
    def homeless():
        raise RuntimeError

    monkeypatch.delenv("DLCV_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(store_module.Path, "home", homeless)
    with pytest.raises(ArtifactError, match="set DLCV_CACHE"):
        cache_dir()


def test_put_then_get(tmp_path):
    store = Store(tmp_path)
    assert store.get("export", "k1") is None
    store.put("export", "k1", FILES)
    assert store.get("export", "k1") == FILES
    assert store.get("export", "k2") is None
    assert store.get("calibrate", "k1") is None
    assert Store(tmp_path).get("export", "k1") == FILES


def test_default_place(monkeypatch, tmp_path):
    monkeypatch.setenv("DLCV_CACHE", str(tmp_path))
    Store().put("export", "k", {"a": b"1"})
    assert (tmp_path / "stages/export/k/files/a").read_bytes() == b"1"


def test_the_first_writer_wins(tmp_path):
    store = Store(tmp_path)
    store.put("s", "k", {"a": b"1"})
    store.put("s", "k", {"a": b"2"})
    assert store.get("s", "k") == {"a": b"1"}


def test_files_may_be_named_as_the_index(tmp_path):
    store = Store(tmp_path)
    store.put("s", "k", {"index.json": b"mine"})
    assert store.get("s", "k") == {"index.json": b"mine"}


DAMAGE = {
    "one bit": lambda e: (e / "files/model.onnx").write_bytes(b"\x08\x06"),
    "truncated": lambda e: (e / "files/model.onnx").write_bytes(b"\x08"),
    "a file is gone": lambda e: (e / "files/empty").unlink(),
    "an empty file has grown": lambda e: (e / "files/empty").write_bytes(b"1"),
    "the index is gone": lambda e: (e / "index.json").unlink(),
    "the index is cut": lambda e: (e / "index.json").write_bytes((e / "index.json").read_bytes()[:-9]),
    "the index is empty": lambda e: (e / "index.json").write_bytes(b""),
    "the index is a list": lambda e: (e / "index.json").write_bytes(b"[]"),
    "the index is not text": lambda e: (e / "index.json").write_bytes(b"\xff\xfe"),
    "the index is another version's": lambda e: (e / "index.json").write_bytes(b'{"schema": 0, "files": {}}'),
    "a file became a folder": lambda e: ((e / "files/empty").unlink(), (e / "files/empty").mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_absent_and_removed(tmp_path, damage):
    store = Store(tmp_path)
    store.put("s", "k", FILES)
    DAMAGE[damage](tmp_path / "stages/s/k")
    assert store.get("s", "k") is None
    assert os.listdir(tmp_path / "stages/s") == []
    store.put("s", "k", FILES)
    assert store.get("s", "k") == FILES


def test_put_mends_a_damaged_entry(tmp_path):
    store = Store(tmp_path)
    store.put("s", "k", FILES)
    DAMAGE["one bit"](tmp_path / "stages/s/k")
    store.put("s", "k", FILES)
    assert store.get("s", "k") == FILES


def test_an_entry_that_cannot_be_read_now_is_kept(tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied")

    store = Store(tmp_path)
    store.put("s", "k", FILES)
    with monkeypatch.context() as m:
        m.setattr(store_module.Path, "read_bytes", refused)
        assert store.get("s", "k") is None
    assert store.get("s", "k") == FILES


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "-x", "é"])
def test_names_that_are_no_names(tmp_path, name):
    with pytest.raises(SpecError, match="cannot name a stage"):
        Store(tmp_path).get("s", name)
    with pytest.raises(SpecError, match="cannot name a stage"):
        Store(tmp_path).put(name, "k", {})


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "stages").write_bytes(b"")
    with pytest.raises(ArtifactError, match="set DLCV_CACHE to a folder that you may write to"):
        Store(tmp_path).put("s", "k", FILES)


RACE = """
import os, sys
from pathlib import Path
from dlcv_deploy.store import Store
store = Store(Path(sys.argv[1]))
pids = []
for me in range(4):
    if (pid := os.fork()) == 0:
        for i in range(25):
            text = str(me).encode() * 5000
            store.put("s", f"k{i}", {"a": text, "b": text})
            found = store.get("s", f"k{i}")
            assert found is not None and found["a"] == found["b"] and len(found["a"]) == 5000, (me, i)
        os._exit(0)
    pids.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 4
assert sorted(os.listdir(store.root / "s")) == sorted(f"k{i}" for i in range(25))
"""


def test_several_processes_share_a_store(tmp_path):
    run = subprocess.run([sys.executable, "-c", RACE, str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


# --- downloads ---

CONTENT = bytes(range(256)) * 4096
SHA = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Each path is one kind of server; ``asked`` keeps the path and the Range of every request."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        serve = getattr(self, self.path[1:].replace("-", "_"))
        serve(int((self.headers.get("Range") or "bytes=0-")[6:-1]))

    def whole(self, start):
        self.answer(CONTENT)

    def redirect(self, start):
        self.send_response(302)
        self.send_header("Location", "/ranges")
        self.end_headers()

    def absent(self, start):
        self.send_error(404)

    def hangs(self, start):
        self.server.released.wait(20)

    def no_length(self, start):
        self.answer(CONTENT, length=None)

    def wrong(self, start):
        self.answer(CONTENT[::-1])

    def cut(self, start):
        self.answer(CONTENT[:1000], length=len(CONTENT))

    def chunked_cut(self, start):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"100\r\n" + CONTENT[:50])

    def ranges(self, start, upto=None):
        """A good server; cut off after ``upto`` bytes."""
        if start >= len(CONTENT):
            self.send_error(416)
        else:
            extent = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
            self.answer(CONTENT[start:][:upto], length=len(CONTENT) - start, extent=extent if start else None)

    def flaky(self, start):
        self.ranges(start, 300_000)

    def stalls(self, start):
        if start:
            return self.ranges(start)
        self.ranges(0, 1000)
        self.wfile.flush()
        return self.server.released.wait(20)

    def busy(self, start):
        if len(self.server.asked) < 3:
            return self.send_error(503)
        return self.ranges(start)

    def odd(self, start):
        """Asked for a part, it gives another one."""
        extent = f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}"
        self.answer(CONTENT[7:] if start else CONTENT[:9000], length=None, extent=extent if start else None)

    def answer(self, data, *, length=-1, extent=None):
        self.send_response(206 if extent else 200)
        if length is not None:
            self.send_header("Content-Length", str(len(data) if length < 0 else length))
        if extent:
            self.send_header("Content-Range", extent)
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("DLCV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(store_module, "_PAUSES_S", (0.0, 0.0, 0.0))
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.asked, httpd.released = [], threading.Event()
    httpd.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    yield httpd
    httpd.released.set()
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def kept():
    folder = cache_dir() / "downloads"
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def begun(data):
    """What an earlier run has left."""
    part = download_path("w.pth").with_name(".w.pth.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(data)
    return part


@pytest.mark.parametrize("path", ["/whole", "/ranges", "/redirect", "/no-length"])
@pytest.mark.parametrize("digits", [8, 64])
def test_download(server, path, digits):
    found = download(server.url + path, "w.pth", SHA[:digits])
    assert found == download_path("w.pth") == cache_dir() / "downloads/w.pth"
    assert found.read_bytes() == CONTENT
    assert kept() == ["w.pth"]


@pytest.mark.parametrize("start", [0, 12345])
def test_a_download_happens_once_and_shows_progress(server, start):
    steps = []

    @contextmanager
    def progress(what, total):
        steps.append((what, total))
        yield steps.append

    begun(CONTENT[:start])
    for _ in range(2):
        download(server.url + "/ranges", "w.pth", SHA, progress)
    assert server.asked == [("/ranges", f"bytes={start}-" if start else None)]
    assert steps[0] == ("download w.pth", len(CONTENT))
    assert sum(steps[1:]) == len(CONTENT)
    assert not start or steps[1] == start


def test_a_damaged_download_is_fetched_again(server):
    path = download(server.url + "/whole", "w.pth", SHA)
    path.write_bytes(CONTENT[:-1])
    assert download(server.url + "/whole", "w.pth", SHA).read_bytes() == CONTENT


def test_a_connection_that_breaks_is_taken_up_again(server):
    assert download(server.url + "/flaky", "w.pth", SHA).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_connection_that_stalls_is_taken_up_again(server, monkeypatch):
    monkeypatch.setattr(store_module, "_TIMEOUT_S", 0.3)
    assert download(server.url + "/stalls", "w.pth", SHA).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=1000-"]


def test_a_server_that_is_busy_is_asked_again(server):
    assert download(server.url + "/busy", "w.pth", SHA).read_bytes() == CONTENT
    assert len(server.asked) == 3


PARTS = {
    "none of the ranges are served": (CONTENT[:500], "/whole", 1),
    "it is of another content": (b"x" * 500, "/ranges", 2),
    "it is longer than the content": (CONTENT + b"x", "/ranges", 2),
    "it is of another content and as long": (CONTENT[::-1], "/ranges", 2),
    "it is whole": (CONTENT, "/ranges", 0),
}


@pytest.mark.parametrize("case", PARTS)
def test_what_an_earlier_run_left(server, case):
    data, path, requests = PARTS[case]
    begun(data)
    assert download(server.url + path, "w.pth", SHA).read_bytes() == CONTENT
    assert kept() == ["w.pth"]
    assert len(server.asked) == requests


def test_a_run_that_gives_up_is_gone_on_with_by_the_next(server):
    with pytest.raises(ArtifactError, match="run again: what has come is kept"):
        download(server.url + "/cut", "w.pth", SHA)
    assert kept() == [".w.pth.part"]
    assert download(server.url + "/ranges", "w.pth", SHA).read_bytes() == CONTENT
    assert server.asked[-1] == ("/ranges", "bytes=1000-")


@pytest.mark.parametrize(
    ("path", "message", "requests", "left"),
    [
        ("/absent", "/absent answers 404 Not Found\n  fix: look whether the address still holds", 1, []),
        (
            "/cut",
            "/cut was cut off after 1000 of 1048576 bytes\n  fix: connect to the network again",
            4,
            [".w.pth.part"],
        ),
        ("/chunked-cut", "cannot fetch .*/chunked-cut: IncompleteRead", 4, [".w.pth.part"]),
        ("/wrong", f"/wrong served something else: its SHA-256 begins with [0-9a-f]{{8}}, not {SHA[:8]}\n", 1, []),
        ("/odd", f"/odd served something else: .*, not {SHA[:8]}\n", 1, []),
    ],
)
def test_a_bad_download_keeps_what_was_there(server, path, message, requests, left):
    download_path("w.pth").parent.mkdir(parents=True)
    download_path("w.pth").write_bytes(b"before")
    with pytest.raises(ArtifactError, match=message):
        download(server.url + path, "w.pth", SHA)
    assert kept() == [*left, "w.pth"]
    assert len(server.asked) == requests
    assert download_path("w.pth").read_bytes() == b"before"


def test_a_part_that_was_not_asked_for(server):
    begun(CONTENT[:9000])
    with pytest.raises(ArtifactError, match="/odd serves a part that was not asked for"):
        download(server.url + "/odd", "w.pth", SHA)
    assert kept() == []


def test_wrong_content_after_what_an_earlier_run_left(server):
    begun(CONTENT[:1000])
    with pytest.raises(ArtifactError, match="/wrong served something else"):
        download(server.url + "/wrong", "w.pth", SHA)
    assert len(server.asked) == 1
    assert kept() == []


def test_an_error_keeps_what_an_earlier_run_left(server):
    part = begun(CONTENT[:1000])
    with pytest.raises(ArtifactError, match="404"):
        download(server.url + "/absent", "w.pth", SHA)
    assert part.read_bytes() == CONTENT[:1000]


def test_a_server_that_hangs(server, monkeypatch):
    monkeypatch.setattr(store_module, "_TIMEOUT_S", 0.1)
    with pytest.raises(ArtifactError, match=r"cannot fetch .*/hangs: timed out"):
        download(server.url + "/hangs", "w.pth", SHA)
    assert kept() == []


def test_nobody_answers(server):
    with pytest.raises(ArtifactError, match="Connection refused\n  fix: connect to the network once"):
        download("http://127.0.0.1:1/", "w.pth", SHA)
    assert kept() == []


def test_a_cache_that_is_a_file(server, tmp_path):
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"cannot write .*w.pth in the cache: .*\n  fix: free space there, or set"):
        download(server.url + "/whole", "w.pth", SHA)


def test_a_disk_that_is_full(server, monkeypatch):
    def full(response):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module, "_extent", full)
    with pytest.raises(ArtifactError, match=r"cannot write .*w.pth: No space left on device\n  fix: free space"):
        download(server.url + "/whole", "w.pth", SHA)


TOGETHER = """
import os, sys
from dlcv_deploy.store import download
pids = []
for _ in range(3):
    if (pid := os.fork()) == 0:
        os._exit(len(download(sys.argv[1], "w.pth", sys.argv[2]).read_bytes()) != 1 << 20)
    pids.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 3
"""


def test_processes_that_want_the_same_fetch_it_once(server):
    run = subprocess.run(
        [sys.executable, "-c", TOGETHER, server.url + "/ranges", SHA], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert len(server.asked) == 1
    assert kept() == ["w.pth"]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/x", "data:,x", "/etc/passwd", ""])
def test_only_http(url):
    with pytest.raises(SpecError, match="is not an http or https address"):
        download(url, "w.pth", SHA)


@pytest.mark.parametrize("prefix", ["", "1234567", SHA.upper(), SHA + "0"])
def test_a_digest_is_needed(prefix):
    with pytest.raises(SpecError, match="give 8 to 64 hex digits"):
        download("https://h/x", "w.pth", prefix)
