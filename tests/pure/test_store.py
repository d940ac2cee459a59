"""The cache of stages' results, where it is, and downloads."""

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
    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/whole")
            self.end_headers()
        elif self.path == "/absent":
            self.send_error(404)
        elif self.path == "/hangs":
            self.server.released.wait(20)
        else:
            self.send_response(200)
            if self.path == "/chunked-cut":
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"100\r\n" + CONTENT[:50])
                return
            if self.path != "/no-length":
                self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write({"/cut": CONTENT[:1000], "/wrong": CONTENT[::-1]}.get(self.path, CONTENT))


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("DLCV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
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


@pytest.mark.parametrize("path", ["/whole", "/redirect", "/no-length"])
@pytest.mark.parametrize("digits", [8, 64])
def test_download(server, path, digits):
    found = download(server.url + path, "w.pth", SHA[:digits])
    assert found == download_path("w.pth") == cache_dir() / "downloads/w.pth"
    assert found.read_bytes() == CONTENT
    assert kept() == ["w.pth"]


def test_a_download_happens_once_and_shows_progress(server):
    steps = []

    @contextmanager
    def progress(what, total):
        steps.append((what, total))
        yield steps.append

    for _ in range(2):
        download(server.url + "/whole", "w.pth", SHA, progress)
    assert server.asked == ["/whole"]
    assert steps[0] == ("download w.pth", len(CONTENT))
    assert sum(steps[1:]) == len(CONTENT)


def test_a_damaged_download_is_fetched_again(server):
    path = download(server.url + "/whole", "w.pth", SHA)
    path.write_bytes(CONTENT[:-1])
    assert download(server.url + "/whole", "w.pth", SHA).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/absent", "/absent answers 404 Not Found\n  fix: look whether the address still holds"),
        ("/cut", "/cut was cut off after 1000 of 1048576 bytes\n  fix: connect to the network again"),
        ("/chunked-cut", "cannot fetch .*/chunked-cut: IncompleteRead"),
        ("/wrong", f"/wrong served something else: its SHA-256 begins with [0-9a-f]{{8}}, not {SHA[:8]}\n"),
    ],
)
def test_a_bad_download_keeps_what_was_there(server, path, message):
    download_path("w.pth").parent.mkdir(parents=True)
    download_path("w.pth").write_bytes(b"before")
    with pytest.raises(ArtifactError, match=message):
        download(server.url + path, "w.pth", SHA)
    assert kept() == ["w.pth"]
    assert download_path("w.pth").read_bytes() == b"before"


def test_a_server_that_hangs(server, monkeypatch):
    monkeypatch.setattr(store_module, "_TIMEOUT_S", 0.1)
    with pytest.raises(ArtifactError, match=r"cannot fetch .*/hangs: timed out"):
        download(server.url + "/hangs", "w.pth", SHA)
    assert kept() == []


def test_nobody_answers(server):
    with pytest.raises(ArtifactError, match="Connection refused\n  fix: connect to the network once"):
        download("http://127.0.0.1:1/", "w.pth", SHA)
    assert kept() == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/x", "data:,x", "/etc/passwd", ""])
def test_only_http(url):
    with pytest.raises(SpecError, match="is not an http or https address"):
        download(url, "w.pth", SHA)


@pytest.mark.parametrize("prefix", ["", "1234567", SHA.upper(), SHA + "0"])
def test_a_digest_is_needed(prefix):
    with pytest.raises(SpecError, match="give 8 to 64 hex digits"):
        download("https://h/x", "w.pth", prefix)
