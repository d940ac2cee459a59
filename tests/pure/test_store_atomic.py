"""Files and folders appear whole or not at all: refusals, kills at every line, writers side by side."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from dlcv_deploy import atomic
from dlcv_deploy.atomic import check_place
from dlcv_deploy.errors import ArtifactError
from dlcv_deploy.store import write_folder, write_whole


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def no_right_to_write(tmp_path):
    """A folder that this process may not write to; root gives its rights up for the while."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(was)


def test_file_is_new_then_replaced(tmp_path):
    write_whole(tmp_path / "a", b"1")
    write_whole(tmp_path / "a", iter([b"2", b"", b"3"]))
    assert content(tmp_path) == {"a": b"23"}


def test_file_has_the_usual_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", b"")
        write_folder(tmp_path / "b", {"c": b""}, replace=False)
    finally:
        os.umask(before)
    assert [oct((tmp_path / p).stat().st_mode & 0o777) for p in ("a", "b", "b/c")] == ["0o640", "0o750", "0o640"]


def test_an_error_between_pieces_leaves_the_old_file(tmp_path):
    def pieces():
        yield b"half"
        raise KeyboardInterrupt

    write_whole(tmp_path / "a", b"old")
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a", pieces())
    assert content(tmp_path) == {"a": b"old"}


def test_a_writer_in_progress_is_not_swept_away(tmp_path):
    def pieces():
        yield b"slow "
        write_whole(tmp_path / "a", b"quick")
        assert (tmp_path / "a").read_bytes() == b"quick"
        yield b"writer"

    write_whole(tmp_path / "a", pieces())
    assert content(tmp_path) == {"a": b"slow writer"}


def test_folder_is_new_then_replaced(tmp_path):
    write_folder(tmp_path / "x.dlcv", {"a": b"1", "sub/deep/b": b"2"}, replace=False)
    assert content(tmp_path / "x.dlcv") == {"a": b"1", "sub/deep/b": b"2"}
    write_folder(tmp_path / "x.dlcv", {"c": b"3"}, replace=True)
    assert content(tmp_path) == {"x.dlcv/c": b"3"}
    assert [p.name for p in tmp_path.iterdir()] == ["x.dlcv"]


def test_folder_that_exists_is_refused_and_kept(tmp_path):
    write_folder(tmp_path / "x", {"a": b"1"}, replace=False)
    with pytest.raises(ArtifactError, match=r"cannot write .*x: it exists\n  fix: choose another name"):
        write_folder(tmp_path / "x", {"a": b"2"}, replace=False)
    assert content(tmp_path) == {"x/a": b"1"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="it exists"):
        write_folder(tmp_path / "empty", {"a": b"2"}, replace=False)


def test_folder_that_appears_meanwhile_is_kept(tmp_path, monkeypatch):
    def sync(folder):
        monkeypatch.undo()
        write_folder(tmp_path / "x", {"a": b"theirs"}, replace=False)

    monkeypatch.setattr(atomic, "_sync", sync)
    with pytest.raises(ArtifactError, match="it exists"):
        write_folder(tmp_path / "x", {"a": b"mine"}, replace=False)
    assert content(tmp_path) == {"x/a": b"theirs"}


def test_folder_replaces_a_link_and_not_what_it_points_at(tmp_path):
    write_folder(tmp_path / "real", {"a": b"1"}, replace=False)
    (tmp_path / "link").symlink_to("real")
    write_folder(tmp_path / "link", {"a": b"2"}, replace=True)
    assert content(tmp_path) == {"real/a": b"1", "link/a": b"2"}
    assert not (tmp_path / "link").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "real"]


def test_folder_does_not_replace_a_file(tmp_path):
    write_whole(tmp_path / "x", b"mine")
    with pytest.raises(ArtifactError, match="it is a file, not a folder"):
        write_folder(tmp_path / "x", {"a": b"2"}, replace=True)
    assert content(tmp_path) == {"x": b"mine"}


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "", ".", "a\0b"])
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    with pytest.raises(ArtifactError, match="is not the name of a file inside a folder"):
        write_folder(tmp_path / "x", {"a": b"", name: b""}, replace=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("absent/a", "No such file or directory\n  fix: its folder does not exist: make it first"),
        ("file/a", "Not a directory\n  fix: a part of that path is a file"),
        ("n" * 300, "File name too long\n  fix: choose a shorter name"),
        ("..", "it has no name of its own"),
    ],
)
@pytest.mark.parametrize("write", [lambda p: write_whole(p, b""), lambda p: write_folder(p, {}, replace=True)])
def test_places_that_cannot_be_written(tmp_path, path, message, write):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ArtifactError, match="cannot write") as e:
        write(tmp_path / path)
    assert message in str(e.value)
    assert content(tmp_path) == {"file": b""}


def test_a_folder_or_device_is_not_overwritten_by_a_file(tmp_path):
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArtifactError, match=r"it is a folder\n  fix: give the name of a file"):
        write_whole(tmp_path / "d", b"")
    with pytest.raises(ArtifactError, match="it is not a regular file"):
        write_whole(tmp_path / "pipe", b"")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "pipe"]


def test_no_right_to_write(no_right_to_write):
    with pytest.raises(ArtifactError, match="Permission denied\n  fix: you may not write there"):
        write_whole(no_right_to_write / "a", b"")
    with pytest.raises(ArtifactError, match="Permission denied\n  fix: you may not write there"):
        write_folder(no_right_to_write / "a", {}, replace=False)


def test_disk_full(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_whole(tmp_path / "a", b"old")
    write_folder(tmp_path / "b", {"c": b"old"}, replace=False)
    monkeypatch.setattr(atomic.os, "fsync", full)
    for write in (lambda: write_whole(tmp_path / "a", b"new"), lambda: write_folder(tmp_path / "b", {}, replace=True)):
        with pytest.raises(ArtifactError, match="No space left on device\n  fix: free space on that disk"):
            write()
    assert content(tmp_path) == {"a": b"old", "b/c": b"old"}


def test_a_write_that_stops_midway(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(ArtifactError, match="File too large"):
            write_folder(tmp_path / "b", {"small": b"1", "large": bytes(1 << 21)}, replace=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_others_stay(tmp_path):
    """Only names of our own making, for the same final name, are swept."""
    mine = [".a.tmp-1-0", ".a.old-1-1"]
    others = [".a.tmp-x", ".b.tmp-1-0", ".a.tmp-1-0.txt", "a.tmp-1-0", ".a.b.tmp-1-0"]
    for name in (*mine, *others):
        (tmp_path / name).write_bytes(b"")
    write_whole(tmp_path / "a", b"")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "a"])


KILLS = """
import itertools, os, shutil, signal, sys
from pathlib import Path
from dlcv_deploy import atomic
from dlcv_deploy.atomic import check_place
from dlcv_deploy.errors import ArtifactError
from dlcv_deploy.store import Store, write_folder, write_whole

os.fsync = lambda fd: None  # a kill of a process loses nothing that is written
OLD, NEW = {"a": b"old", "d/e": b"old"}, {"a": b"new", "d/f": b"new"}
TRACED = (atomic.__file__, shutil.__file__)

def killed(line, act):
    '''Whether a child that does this reached the line-th line of the code and killed itself there.'''
    if (pid := os.fork()) == 0:
        left = line
        def trace(frame, event, arg):
            nonlocal left
            if frame.f_code.co_filename not in TRACED:
                return None
            left -= event == "line"
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace
        sys.settrace(trace)
        act()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status == signal.SIGKILL

def content(path):
    if path.is_file():
        return path.read_bytes()
    if path.is_dir():
        return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}

def every_kill(before, act, allowed, after=lambda path: None):
    '''Kill at each line in turn; what is found must be allowed, and the next run must succeed and leave nothing.'''
    seen = []
    for line in itertools.count(1):
        root = Path(sys.argv[1]) / str(line)
        root.mkdir()
        path = root / "x.dlcv"
        before(path)
        dead = killed(line, lambda: act(path))
        found = content(path)
        assert found in allowed, (line, found)
        if found not in seen:
            seen.append(found)
        after(path)
        act(path)
        assert content(path) == allowed[-1], line
        assert [p.name for p in root.iterdir()] == ["x.dlcv"], (line, list(root.iterdir()))
        shutil.rmtree(root)
        if not dead:
            assert seen == list(allowed), seen  # kills hit every phase
            return print(line, "lines")

def nothing(path):
    pass

def old_folder(path):
    write_folder(path, OLD, replace=False)

def new_folder(path):
    write_folder(path, NEW, replace=True)
"""
CASES = {
    "a new folder": "every_kill(nothing, new_folder, (None, NEW))",
    "a folder in place of another": "every_kill(old_folder, new_folder, (OLD, NEW))",
    "without an exchange of names": """
def put_back(path):
    if not path.exists():
        try:
            write_folder(path, NEW, replace=False)
        except ArtifactError:
            assert content(path) == OLD
        else:
            raise AssertionError("the old folder was lost")

atomic._swap_names = lambda a, b: False
every_kill(old_folder, new_folder, (OLD, None, NEW), put_back)
""",
    "a file": "every_kill(lambda p: write_whole(p, b'old'), lambda p: write_whole(p, b'new'), (b'old', b'new'))",
    "an entry of the store": """
def put(root):
    Store(root).put("stage", "key", NEW)

seen = []
for line in itertools.count(1):
    root = Path(sys.argv[1]) / str(line)
    dead = killed(line, lambda: put(root))
    found = Store(root).get("stage", "key")
    assert found in (None, NEW), (line, found)
    seen.append(found)
    put(root)
    assert Store(root).get("stage", "key") == NEW
    assert os.listdir(root / "stages/stage") == ["key"]
    if not dead:
        break
assert None in seen and NEW in seen
""",
}


@pytest.mark.parametrize("case", CASES)
def test_a_kill_at_any_line_leaves_nothing_half_done(case, tmp_path):
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", KILLS + CASES[case], str(tmp_path)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


RACE = """
import os, sys
from pathlib import Path
from dlcv_deploy.store import write_folder
path = Path(sys.argv[1]) / "x"
write_folder(path, {"a": b"0" * 1000, "b": b"0" * 1000}, replace=False)
children = []
for me in range(4):
    if (pid := os.fork()) == 0:
        for i in range(40):
            text = str(me).encode() * 1000
            write_folder(path, {"a": text, "b": text}, replace=True)
        os._exit(0)
    children.append(pid)
while children:
    fd = os.open(path, os.O_RDONLY)  # the name is never absent
    os.close(fd)
    done, status = os.waitpid(-1, os.WNOHANG)
    if done:
        assert status == 0, status
        children.remove(done)
assert os.listdir(sys.argv[1]) == ["x"], os.listdir(sys.argv[1])
assert (path / "a").read_bytes() == (path / "b").read_bytes()
"""


def test_several_processes_replace_one_folder(tmp_path):
    run = subprocess.run([sys.executable, "-c", RACE, str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_path_that_is_not_text(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/n\xff"))  # not UTF-8
    write_folder(path, {"a": b"1"}, replace=False)
    write_folder(path, {"a": b"2"}, replace=True)
    assert content(path) == {"a": b"2"}


def test_a_place_is_looked_at_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    check_place(tmp_path / "new")
    check_place(tmp_path, parents=True)
    check_place(tmp_path / "a/b", parents=True)
    for path, parents, missing in (("a/b", False, "a"), ("file/b", False, "file"), ("file/b/c", True, "file")):
        with pytest.raises(ArtifactError, match=f"there is no folder .*{missing}\n  fix: its folder does not exist"):
            check_place(tmp_path / path, parents=parents)
    monkeypatch.setattr(os, "access", lambda folder, mode: mode != os.W_OK)  # root may write everywhere
    with pytest.raises(ArtifactError, match=r"you may not write into .*\n  fix: you may not write there"):
        check_place(tmp_path / "new")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
