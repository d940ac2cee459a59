"""Work for a child process that ends in every way work can end; see ``dlcv_deploy.isolate``."""

import os
import signal
import subprocess
import sys
import time

from dlcv_deploy.errors import ArtifactError, SpecError, ToolError


def echo(request, files):
    return request, {name: data[::-1] for name, data in files.items()}


def chatter(request, files):
    print("to stdout")  # noqa: T201
    os.write(1, b"to fd 1\n")
    os.write(2, b"to fd 2\n")
    return {"env": os.environ.get("DLCV_TEST"), "pid": os.getpid(), "stdin": sys.stdin.read()}, {}


def die(request, files):
    """Print ``lines``, then die by ``signal`` or with ``code``."""
    for line in request.get("lines", ()):
        os.write(2, line.encode() + b"\n")
    if "signal" in request:
        os.kill(os.getpid(), getattr(signal, request["signal"]))
        time.sleep(60)
    os._exit(request["code"])


def refuse(request, files):
    os.write(2, b"native words\n")
    kind = {"spec": SpecError, "artifact": ArtifactError, "tool": ToolError}[request["kind"]]
    more = {"log": request["log"]} if "log" in request else {}
    raise kind("node 'odd' is odd", fix="even it", **more)


def bug(request, files):
    raise ZeroDivisionError("a bug in a builder")


def nothing(request, files):
    return None


def not_json(request, files):
    return {"a": object()}, {}


def sleep(request, files):
    """Say the ids of this process and of one it starts, in a process group of its own as ninja's are, then hang."""
    code = "import os, time; os.setpgrp(); print(flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    other.stdout.readline()
    text = f"{os.getpid()} {other.pid}"
    os.write(2, f"started {text}\n".encode())
    if "tell" in request:
        with open(request["tell"] + ".part", "w") as file:
            file.write(text)
        os.rename(request["tell"] + ".part", request["tell"])
    time.sleep(60)
    return {}, {}
