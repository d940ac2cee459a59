"""The cache: results of stages under the digest of all that made them, and downloads checked against theirs."""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from . import __version__
from .atomic import land, partial, place_folder, remove_folder, write_folder, write_whole
from .digest import sha256, sha256_file
from .errors import ArtifactError, SpecError
from .progress import Advance, Progress, silent

__all__ = ["Store", "cache_dir", "download", "download_path", "write_folder", "write_whole"]

_SCHEMA = 1
_TIMEOUT_S = 15.0
_PIECE_BYTES = 1 << 18
_PAUSES_S = (1.0, 2.0, 4.0)
"""Between connections; as many in a row may bring nothing."""
_PASSING = (429, 500, 502, 503, 504)
_ONCE = "connect to the network once, and run again"
_AGAIN = "connect to the network again, and run again: what has come is kept"


def cache_dir() -> Path:
    """Where results and downloads are kept: DLCV_CACHE, else XDG_CACHE_HOME/dlcv-deploy, else ~/.cache/dlcv-deploy.

    Raises:
        ArtifactError: there is no home folder.
    """
    if own := os.environ.get("DLCV_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):  # a relative one is to be ignored (XDG Base Directory Specification)
        return Path(shared) / "dlcv-deploy"
    try:
        return Path.home() / ".cache" / "dlcv-deploy"
    except RuntimeError as e:
        raise ArtifactError("there is no home folder to keep a cache in", fix="set DLCV_CACHE to a folder") from e


class Store:
    """Results of stages, each under the digest of all that can change it; several processes may share one.

    An entry is a folder ``stages/STAGE/KEY`` of files and an index of their sizes and digests. The first writer of a
    key wins, so that no reader sees an entry change.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or cache_dir()) / "stages"

    def get(self, stage: str, key: str) -> dict[str, bytes] | None:
        """The files of an entry by name; None where there is none, or a damaged one, which is removed."""
        entry = self._entry(stage, key)
        if not entry.is_dir():
            return None
        try:
            return _read_entry(entry)
        except _DamagedError:
            remove_folder(entry)
        except OSError:  # unreadable for now, or for us: not ours to remove
            pass
        return None

    def put(self, stage: str, key: str, files: Mapping[str, bytes]) -> None:
        """Keep the files of an entry, unless a sound one is there already.

        Raises:
            ArtifactError: the cache cannot be written.
        """
        entry = self._entry(stage, key)
        if self.get(stage, key) is not None:
            return
        index = {"schema": _SCHEMA, "files": {name: [len(data), sha256(data)] for name, data in files.items()}}
        written = {"index.json": json.dumps(index, indent=1).encode()}
        written.update({f"files/{name}": data for name, data in files.items()})
        with _cache_errors(entry), suppress(FileExistsError):
            entry.parent.mkdir(parents=True, exist_ok=True)
            place_folder(entry, written, replace=False)

    def path(self, stage: str, key: str, name: str) -> Path:
        """Where a file of an entry lies."""
        return self._entry(stage, key) / "files" / name

    def _entry(self, stage: str, key: str) -> Path:
        for name in (stage, key):
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
                raise SpecError(f"{name!r} cannot name a stage or its result", fix="use letters, digits, _ and -")
        return self.root / stage / key


class _DamagedError(Exception):
    """An entry is not what its index says."""


def _read_entry(entry: Path) -> dict[str, bytes]:
    try:
        index = json.loads((entry / "index.json").read_bytes())
        if index["schema"] != _SCHEMA:
            raise _DamagedError
        files = {name: (entry / "files" / name).read_bytes() for name in index["files"]}
        if any([len(data), sha256(data)] != index["files"][name] for name, data in files.items()):
            raise _DamagedError
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, KeyError, TypeError) as e:
        raise _DamagedError from e
    return files


@contextmanager
def _cache_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise ArtifactError(
            f"cannot write {path} in the cache: {e.strerror or e}",
            fix="free space there, or set DLCV_CACHE to a folder that you may write to",
        ) from e


def download_path(name: str) -> Path:
    """Where a download of this name is kept, and looked for."""
    return cache_dir() / "downloads" / name


def download(url: str, name: str, sha256_prefix: str, progress: Progress = silent) -> Path:
    """The file behind an address, from the cache where it is there and sound.

    A download that was cut off goes on where it ended, in this run or a later one.

    Args:
        url: http or https.
        name: The file's name in the cache.
        sha256_prefix: At least the first 8 hex digits of the content's SHA-256.
        progress: Called with the bytes to come.

    Raises:
        SpecError: an address of another kind, or a digest too short.
        ArtifactError: no network, no such file, cut off, not the content asked for, or no place to keep it.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise SpecError(f"{url} is not an http or https address", fix="give one that begins with https://")
    if not re.fullmatch("[0-9a-f]{8,64}", sha256_prefix):
        raise SpecError(f"{sha256_prefix!r} does not name a content", fix="give 8 to 64 hex digits of its SHA-256")
    path = download_path(name)
    with _cache_errors(path):
        if _sound(path, sha256_prefix):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
    with partial(path) as part:
        if not _sound(path, sha256_prefix):  # fetched by another process while this one waited for its turn
            _fetch(url, name, sha256_prefix, part, progress)
            land(part, path)
    return path


def _sound(path: Path, sha256_prefix: str) -> bool:
    return path.is_file() and sha256_file(path).startswith(sha256_prefix)


def _fetch(url: str, name: str, sha256_prefix: str, part: BinaryIO, progress: Progress) -> None:
    """Bring a partial file to its whole length; raises where that cannot be, or where the content is another one."""
    with ExitStack() as stack:
        _Download(url, part, lambda total: stack.enter_context(progress(f"download {name}", total))).run(sha256_prefix)


class _CutOffError(ArtifactError):
    """A connection ended too early; the next one may bring more."""


class _Download:
    """What comes from an address into a partial file, over as many connections as that takes."""

    def __init__(self, url: str, part: BinaryIO, show: Callable[[int], Advance]) -> None:
        self._url, self._part, self._show = url, part, show
        self._advance: Advance | None = None
        self._shown = 0
        self._came = False  # anything, in this run
        self._old = self._size() > 0  # some of it is from an earlier run, and perhaps of another content

    def run(self, sha256_prefix: str) -> None:
        """Fetch what is missing; afresh, once, where that does not fit to what was there."""
        if self._old and self._sha256().startswith(sha256_prefix):
            return
        while True:
            self._complete()
            found, old = self._sha256(), self._old
            if found.startswith(sha256_prefix):
                return
            self._clear()
            if not old:
                raise ArtifactError(
                    f"{self._url} served something else: its SHA-256 begins with {found[:8]}, not {sha256_prefix[:8]}",
                    fix="look at what stands between you and that address, such as a proxy's login page",
                )

    def _complete(self) -> None:
        """Connect until all is there, or until several connections in a row have brought nothing."""
        failures, most = 0, self._size()
        while True:
            try:
                return self._connect()
            except _CutOffError:  # noqa: PERF203
                failures = 0 if self._size() > most else failures + 1
                most = max(most, self._size())
                if failures == len(_PAUSES_S):
                    raise
                time.sleep(_PAUSES_S[failures])

    def _connect(self) -> None:
        with self._errors():
            response = self._response(self._size())
        with response:
            begin, total = _extent(response)
            if begin != self._size():
                self._clear()
            if begin != self._size():
                raise ArtifactError(f"{self._url} serves a part that was not asked for", fix="fetch it in another way")
            self._seen(total)
            while True:
                with self._errors():
                    piece = response.read1(_PIECE_BYTES)
                if not piece:
                    break
                self._part.write(piece)
                self._came = True
                self._seen(total)
        if self._size() < total:
            raise _CutOffError(f"{self._url} was cut off after {self._size()} of {total} bytes", fix=_AGAIN)

    def _response(self, start: int) -> http.client.HTTPResponse:
        headers = {"User-Agent": f"dlcv-deploy/{__version__}", **({"Range": f"bytes={start}-"} if start else {})}
        request = urllib.request.Request(self._url, headers=headers)
        try:
            response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as e:
            if e.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
                raise
            e.close()
            self._clear()  # it is longer than what is there now
            return self._response(0)
        return response

    def _seen(self, total: int) -> None:
        """Show how far it is, never going back."""
        if self._advance is None:
            self._advance = self._show(total)
        if (size := self._size()) > self._shown:
            self._advance(size - self._shown)
            self._shown = size

    def _size(self) -> int:
        return self._part.seek(0, os.SEEK_END)

    def _clear(self) -> None:
        self._part.truncate(0)
        self._old = False

    def _sha256(self) -> str:
        self._part.flush()
        return sha256_file(Path(self._part.name))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except urllib.error.HTTPError as e:
            e.close()
            kind = _CutOffError if e.code in _PASSING else ArtifactError
            what = f"{self._url} answers {e.code} {e.reason}"
            raise kind(what, fix="look whether the address still holds") from e
        except (OSError, http.client.HTTPException) as e:
            reason = e.reason if isinstance(e, urllib.error.URLError) else e
            kind, fix = (
                (_CutOffError, _AGAIN) if self._came else (ArtifactError, "connect to the network once, and run again")
            )
            raise kind(f"cannot fetch {self._url}: {reason or type(e).__name__}", fix=fix) from e


def _extent(response: http.client.HTTPResponse) -> tuple[int, int]:
    """Where an answer begins in the whole, and how long the whole is; 0 where that is not said."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        said = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        return (int(said[1]), int(said[2]) if said[2] != "*" else 0) if said else (-1, 0)
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else 0
