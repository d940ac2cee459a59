"""Runs native code next door: a child process whose crash, hang or silence becomes one clear error.

Requests, files and results travel through pipes as JSON and bytes. Nothing is pickled, and nothing touches the disk:
a full disk cannot stop a hand-over, and no kill of either process leaves a file behind.
"""

from __future__ import annotations

import dataclasses as dc
import glob
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from . import errors
from .backends.blame import explained
from .errors import DeployError, ToolError

_BOOT = "import sys; sys.path[:] = sys.argv[3:]; from dlcv_deploy.isolate import serve; serve(*sys.argv[1:3])"
_MAGIC = b"dlcv-1\0\0"
_TAIL_LINES = 20
_TELLING = re.compile(r"error|fatal|abort|terminate|what\(\)|assert|fail|cannot|out of memory|no space", re.IGNORECASE)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dc.dataclass(frozen=True, slots=True)
class Answer:
    """What the child returned, and what it and its native libraries printed."""

    value: dict[str, Any]
    files: dict[str, bytes] = dc.field(repr=False)
    log: str = dc.field(default="", repr=False)


def isolated(
    entry: str,
    request: Mapping[str, object],
    files: Mapping[str, bytes],
    *,
    what: str,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
) -> Answer:
    """Call ``entry(request, files)`` in a child process.

    The child has its own session, which is killed as a whole on a time-out, on Ctrl-C and on any other exception here;
    it dies with this process even where this one is killed with SIGKILL.

    Args:
        entry: "module:function"; the function takes the request and the files and returns a value and more files.
        request: Anything JSON can hold.
        files: Content by name.
        what: Who works there, as the errors should name it: "the TensorRT builder".
        timeout_s: Wall-clock limit, in seconds.
        env: Environment variables on top of this process's own.

    Raises:
        DeployError: The function raised it; of the same class here.
        ToolError: The child crashed, was killed, hung, raised anything else or returned nothing; ``log`` keeps the
            last lines that it printed.
    """
    message = b"".join(_pack(dict(request), files))
    paths = [os.path.abspath(path) for path in sys.path]
    try:
        child = subprocess.Popen(
            [sys.executable, "-u", "-c", _BOOT, entry, str(os.getpid()), *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    except OSError as e:
        raise ToolError(f"{what} could not be started: {e}", fix="free memory or processes, then try again") from e
    with child:
        try:
            out, err = child.communicate(message, timeout=timeout_s)
        except subprocess.TimeoutExpired as e:
            log = _tail(_kill(child))
            raise ToolError(
                f"{what} was still at work after {timeout_s:g} s and was stopped",
                fix="allow it more time, or leave it more of the machine",
                log=log,
            ) from e
        except BaseException:
            _kill(child)
            raise
    return _outcome(what, child.returncode, out, err)


def _outcome(what: str, code: int, out: bytes, err: bytes) -> Answer:
    """What came back, or the error that says why it did not."""
    answer = _unpack(out) if code == 0 else None
    if answer is None:
        _fail(what, code, _tail(err))
    value, files = answer
    if "error" in value:
        kind, text, fix = value["error"], value["what"], value["fix"]
        if kind == "ToolError":
            raise ToolError(text, fix=fix, log=value["log"] or _tail(err))
        raise getattr(errors, kind)(text, fix=fix)
    return Answer(value["value"], files, err.decode(errors="replace"))


def _fail(what: str, code: int, log: str) -> NoReturn:
    """Say how a child ended that returned nothing."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = next((line for line in reversed(lines) if _TELLING.search(line)), lines[-1] if lines else "")
    fix = "its last lines say more; if they do not, try another version of the tool or another target"
    if code == 0:
        how = "ended without a result"
    elif code > 0:
        how = f"ended with exit code {code}"
    else:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        how = f"crashed ({name})"
        if name == "SIGKILL":
            how, fix = "was killed (SIGKILL: out of memory?)", "free memory, or compile on a machine with more"
    told = explained(what, telling, log, fix=fix)
    raise ToolError(f"{what} {how}" + (f": {told.what}" if telling else " and printed nothing"), fix=told.fix, log=log)


def _tail(err: bytes) -> str:
    lines = err[-(1 << 16) :].decode(errors="replace").rstrip().splitlines()
    return "\n".join(lines[-_TAIL_LINES:])


def _kill(child: subprocess.Popen[bytes]) -> bytes:
    """Kill a child and all it started; returns what it had printed."""
    try:
        if os.name == "posix":
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    except ProcessLookupError:
        pass
    for _ in range(500):  # 5 s at the most; build tools put what they start into groups of their own
        others = _session(child.pid)
        for other in others:
            with suppress(ProcessLookupError):
                os.kill(other, signal.SIGKILL)
        if not others:
            break
        time.sleep(0.01)
    try:
        return child.communicate(timeout=5)[1]
    except (subprocess.TimeoutExpired, ValueError):  # someone it started keeps the pipe; or the pipe is closed already
        return b""


def _session(leader: int) -> list[int]:
    """The living processes of a session but for its leader; none where the system does not list them (proc(5))."""
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as file:
                state, _, _, session = file.read().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):  # it has just ended
            continue
        if int(session) == leader and state not in "ZX":
            found.append(int(path.split("/")[2]))
    return [number for number in found if number != leader]


def _pack(value: dict[str, Any], files: Mapping[str, bytes]) -> Iterator[bytes]:
    head = json.dumps({"value": value, "files": [[name, len(data)] for name, data in files.items()]}).encode()
    yield _MAGIC + len(head).to_bytes(8, "big")
    yield head
    yield from files.values()


def _unpack(message: bytes) -> tuple[dict[str, Any], dict[str, bytes]] | None:
    """Inverse of ``_pack``; None where the message is not whole."""
    if len(message) < 16 or message[:8] != _MAGIC:
        return None
    at = 16 + int.from_bytes(message[8:16], "big")
    if at > len(message):
        return None
    head, files = json.loads(message[16:at]), {}
    for name, size in head["files"]:
        files[name], at = message[at : at + size], at + size
    return (head["value"], files) if at == len(message) else None


def serve(entry: str, parent: str) -> None:
    """The child's side: read a request from stdin, do the work, write the answer where stdout was.

    From here on stdout is stderr, so that what native code prints is never taken for an answer. The process ends
    without running destructors: some native libraries crash in theirs, after all work is done.
    """
    _die_with(int(parent))
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    message = _unpack(sys.stdin.buffer.read())
    if message is None:  # the parent is gone
        os._exit(1)
    module, _, function = entry.partition(":")
    made: Mapping[str, bytes] = {}
    try:
        value, made = getattr(importlib.import_module(module), function)(*message)
        answer = {"value": value}
    except DeployError as e:
        log = e.log if isinstance(e, ToolError) else ""
        answer = {"error": type(e).__name__, "what": e.what, "fix": e.fix, "log": log}
    for piece in _pack(answer, made):
        out.write(piece)
    out.flush()
    os._exit(0)


def _die_with(parent: int) -> None:
    """End this process when its parent ends, however that comes about."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    else:
        import threading

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(0.5)
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
