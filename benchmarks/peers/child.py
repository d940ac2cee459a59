"""One child process: its answer, how long it took, how much memory it and its own children held, or how it ended."""

from __future__ import annotations

import dataclasses as dc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .case import data

LOOK_S = 0.02
"""How often memory is looked at: often enough for what grows by a gigabyte a second."""
HERE = Path(__file__).parents[1]


@dc.dataclass(frozen=True)
class Outcome:
    """What a child answered, or why it did not. ``peak_bytes`` is the most its tree was seen to hold at once."""

    value: Mapping[str, Any]
    error: str
    seconds: float
    peak_bytes: int


def run(
    task: str, arguments: Mapping[str, object], *, most_bytes: int, timeout_s: float, module: str = "peers.work"
) -> Outcome:
    """Run a task in a process of its own.

    Args:
        task: One of the module's.
        arguments: Whatever JSON can hold.
        most_bytes: Resident memory of the child and its children together above which it is stopped.
        timeout_s: Wall-clock limit, in seconds.
        module: What is run, as ``python -m``.
    """
    with tempfile.TemporaryDirectory() as room:
        answer, log = Path(room) / "answer.json", Path(room) / "log"
        start, peak, error = time.perf_counter(), 0, ""
        with log.open("wb") as chatter:
            child = subprocess.Popen(
                [sys.executable, "-m", module, task, str(answer), json.dumps(arguments)],
                stdin=subprocess.DEVNULL,
                stdout=chatter,
                stderr=subprocess.STDOUT,
                cwd=room,
                env=_environment(),
                start_new_session=True,
            )
        try:
            while not error and child.poll() is None:
                peak = max(peak, held_bytes(child.pid))
                if peak > most_bytes:
                    error = f"out of memory: more than {most_bytes / 1e9:g} GB"
                elif time.perf_counter() - start > timeout_s:
                    error = f"still at work after {timeout_s:g} s"
                with suppress(subprocess.TimeoutExpired):
                    child.wait(0 if error else LOOK_S)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        seconds = time.perf_counter() - start
        value = json.loads(answer.read_text()) if answer.is_file() and not error else {}
        error = error or value.get("error", "") or ("" if "value" in value else _end(child.returncode, log))
        return Outcome(value.get("value", {}), error, seconds, peak)


def held_bytes(root: int) -> int:
    """Resident memory of a process and all below it, on Linux; 0 elsewhere.

    Pages of files, which are mostly the same libraries, count once: as many as the process has that has the most.
    """
    own, files, todo = 0, 0, [Path(f"/proc/{root}")]
    while todo:
        process = todo.pop()
        with suppress(OSError):  # it has ended
            resident, shared = map(int, (process / "statm").read_text().split()[1:3])
            own, files = own + resident - shared, max(files, shared)
            for thread in (process / "task").iterdir():
                todo += [Path(f"/proc/{child}") for child in (thread / "children").read_text().split()]
    return (own + files) * os.sysconf("SC_PAGE_SIZE")


def _environment() -> dict[str, str]:
    """This process's own, with these modules in reach, and the data where no folder changes it."""
    path = [str(HERE), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    found = {"DLCV_DATA": str(data())} if data().is_dir() else {}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **found}


def _end(code: int, log: Path) -> str:
    """How a child ended that answered nothing, with the last line it said."""
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{how}: {lines[-1][:200]}" if lines else how
