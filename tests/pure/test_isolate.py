"""Work in a child process: what it returns, what it says, and every way in which it can end."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlcv_deploy.errors import ArtifactError, DeployError, SpecError, ToolError
from dlcv_deploy.isolate import _pack, _unpack, isolated

TESTS = str(Path(__file__).parents[1])


def work(function, request=None, files=None, timeout_s=60.0, **more):
    return isolated(f"helpers.natives:{function}", request or {}, files or {}, what="It", timeout_s=timeout_s, **more)


def failure(function, request=None, **more):
    with pytest.raises(ToolError) as e:
        work(function, request, **more)
    return e.value


def gone(pid, within_s=10.0):
    """Whether a process ends in time; one that nobody has collected yet has ended."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_values_and_files_come_back():
    request = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}
    files = {"model.onnx": bytes(range(256)) * 5000, "empty": b"", "näme": b"xy"}
    answer = work("echo", request, files)
    assert answer.value == request
    assert answer.files == {name: data[::-1] for name, data in files.items()}


def test_the_child_is_another_process_and_what_it_prints_is_kept():
    answer = work("chatter", env={"DLCV_TEST": "given"})
    assert answer.value["env"] == "given"
    assert answer.value["pid"] != os.getpid()
    assert answer.value["stdin"] == ""
    assert answer.log.splitlines() == ["to stdout", "to fd 1", "to fd 2"]
    assert "DLCV_TEST" not in os.environ


@pytest.mark.parametrize(("kind", "error"), [("spec", SpecError), ("artifact", ArtifactError), ("tool", ToolError)])
def test_errors_keep_their_class(kind, error):
    with pytest.raises(DeployError) as e:
        work("refuse", {"kind": kind})
    assert type(e.value) is error
    assert (e.value.what, e.value.fix) == ("node 'odd' is odd", "even it")


def test_an_error_keeps_its_own_log_and_gets_the_childs_where_it_has_none():
    assert failure("refuse", {"kind": "tool", "log": "its own"}).log == "its own"
    assert failure("refuse", {"kind": "tool"}).log == "native words"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"signal": "SIGSEGV"}, "It crashed (SIGSEGV) and printed nothing"),
        ({"signal": "SIGABRT", "lines": ["terminate called", "  last", ""]}, "It crashed (SIGABRT): terminate called"),
        ({"signal": "SIGABRT", "lines": ["one", "two"]}, "It crashed (SIGABRT): two"),
        ({"signal": "SIGKILL"}, "It was killed (SIGKILL: out of memory?) and printed nothing"),
        ({"code": 3, "lines": ["[E] no space left", "bye"]}, "It ended with exit code 3: [E] no space left"),
        ({"code": 0, "lines": ["bye"]}, "It ended without a result: bye"),
    ],
    ids=lambda v: v.get("signal", str(v.get("code"))) if isinstance(v, dict) else "",
)
def test_every_end_is_one_error(request_, message):
    error = failure("die", request_)
    assert error.what == message
    assert error.fix
    assert error.log.splitlines() == request_.get("lines", [])[:2]


def test_out_of_memory_says_what_to_do():
    assert "memory" in failure("die", {"signal": "SIGKILL"}).fix


def test_the_log_keeps_its_last_twenty_lines():
    lines = [f"line {i}" for i in range(200)]
    assert failure("die", {"signal": "SIGSEGV", "lines": lines}).log.splitlines() == lines[-20:]


def test_a_bug_keeps_its_traceback():
    error = failure("bug")
    assert error.what == "It ended with exit code 1: ZeroDivisionError: a bug in a builder"
    assert "in bug" in error.log


@pytest.mark.parametrize("function", ["nothing", "not_json", "no_such_function"])
def test_a_wrong_function_is_an_error(function):
    assert "exit code 1" in failure(function).what
    assert "Error" in failure(function).what


def test_a_hang_ends_with_all_it_started():
    start = time.monotonic()
    error = failure("sleep", timeout_s=3.0)
    assert time.monotonic() - start < 30
    assert error.what == "It was still at work after 3 s and was stopped"
    pids = error.log.split()[1:]
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_the_child_ends_with_its_parent(tmp_path, sent):
    tell = tmp_path / "pids"
    code = (
        f"import sys; sys.path.insert(0, {TESTS!r})\n"
        "from dlcv_deploy.isolate import isolated\n"
        f"isolated('helpers.natives:sleep', {{'tell': {str(tell)!r}}}, {{}}, what='It', timeout_s=60)"
    )
    room = tmp_path / "tmp"
    room.mkdir()
    env = {**os.environ, "TMPDIR": str(room)}
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=env)
    while not tell.exists():
        assert parent.poll() is None, parent.stderr.read()
        time.sleep(0.02)
    child, grandchild = tell.read_text().split()
    parent.send_signal(sent)
    _, said = parent.communicate(timeout=30)
    assert gone(child)
    if sent == signal.SIGINT:
        assert said.splitlines()[-1] == "KeyboardInterrupt"
        assert gone(grandchild)
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(grandchild), signal.SIGKILL)
    assert list(room.iterdir()) == []


def test_a_full_disk_is_no_hindrance(monkeypatch):
    """Nothing is handed over through files, so a folder for them is not even needed."""
    monkeypatch.setenv("TMPDIR", "/dev/full")
    assert work("echo", {"a": 1}, {"big": bytes(1 << 20)}).files["big"] == bytes(1 << 20)


def test_no_process_to_be_had(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert "It could not be started" in failure("echo").what


def test_an_answer_that_is_cut_anywhere_is_none():
    whole = b"".join(_pack({"a": 1}, {"x": b"12345", "y": b""}))
    assert _unpack(whole) == ({"a": 1}, {"x": b"12345", "y": b""})
    for n in range(len(whole)):
        assert _unpack(whole[:n]) is None
    assert _unpack(whole + b"!") is None
    assert _unpack(b"printed by someone else, in place of an answer") is None


def test_importing_is_light():
    code = "import sys, dlcv_deploy.isolate; print([m for m in ('numpy', 'onnx', 'ctypes') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
