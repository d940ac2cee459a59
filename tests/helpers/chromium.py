"""Headless Chromium, driven through its own protocol over two pipes: no port, no network, no further package."""

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_chromium():
    """The browser's path, or nothing; ``DLCV_CHROMIUM`` names another."""
    return os.environ.get("DLCV_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A page in a browser that runs until the ``with`` statement ends; ``events`` are all that it has told."""

    def __init__(self, path, limit_s=60):
        self._limit_s, self._ids, self._buffer, self.events = limit_s, itertools.count(1), b"", []
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        (read, out), (into, self._write) = _pipe(), _pipe()
        self._read, told = read, out
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        flags += ["--hide-scrollbars", "--disable-background-networking", "--disable-component-update"]
        flags += ["--disable-extensions", f"--user-data-dir={self._profile}", "--remote-debugging-pipe", "about:blank"]
        null = os.open(os.devnull, os.O_RDWR)
        streams = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
        pipes = [(os.POSIX_SPAWN_DUP2, into, 3), (os.POSIX_SPAWN_DUP2, told, 4)]
        self._pid = os.posix_spawn(path, [path, *flags], os.environ, file_actions=[*streams, *pipes], setpgroup=0)
        for fd in (into, told, null):
            os.close(fd)
        self._session = None
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._read)
        os.close(self._write)
        shutil.rmtree(self._profile, ignore_errors=True)

    def __call__(self, method, **params):
        """Ask, and wait for the answer."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        found = self._until(lambda said: said.get("id") == number)
        assert "error" not in found, f"{method}: {found.get('error')}"
        return found["result"]

    def open(self, file):
        """Show a file, and wait until it has been drawn."""
        self.events.clear()
        self("Page.navigate", url=Path(file).absolute().as_uri())
        if not any(said.get("method") == "Page.loadEventFired" for said in self.events):
            self._until(lambda said: said.get("method") == "Page.loadEventFired")

    def resize(self, width, height=900):
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def scheme(self, name):
        """Light or dark."""
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def value(self, expression):
        """What a JavaScript expression is on the page; the page's own policy does not bind it."""
        found = self("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self, *, whole=False):
        """The page as PNG: what is seen of it, or the whole of it."""
        return base64.b64decode(self("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def pdf(self):
        """The page as it is printed, on A4."""
        size = {"paperWidth": 8.27, "paperHeight": 11.69}
        return base64.b64decode(self("Page.printToPDF", preferCSSPageSize=True, printBackground=True, **size)["data"])

    def complaints(self):
        """Errors on the console, exceptions and refused loads since the page was opened."""
        bad = ("Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed")
        return [said for said in self.events if said.get("method") in bad]

    def loads(self):
        """What the page asked for besides itself, apart from what it holds."""
        asked = [s["params"]["request"]["url"] for s in self.events if s.get("method") == "Network.requestWillBeSent"]
        return [url for url in asked[1:] if not url.startswith("data:")]

    def _until(self, wanted):
        end = time.monotonic() + self._limit_s
        while True:
            while b"\0" in self._buffer:
                one, self._buffer = self._buffer.split(b"\0", 1)
                said = json.loads(one)
                self.events.append(said)
                if wanted(said):
                    return said
            left = end - time.monotonic()
            assert left > 0, "chromium said nothing for too long"
            assert select.select([self._read], [], [], left)[0], "chromium said nothing for too long"
            data = os.read(self._read, 1 << 20)
            assert data, "chromium has ended"
            self._buffer += data


def _pipe():
    """The two ends of a pipe, above the numbers that the browser wants for its own."""
    ends = os.pipe()
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in ends]
    for fd in ends:
        os.close(fd)
    return high
