"""The cache: results of stages under the digest of all that made them, and downloads checked against theirs."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from . import __version__
from .atomic import place_folder, remove_folder, write_folder, write_whole
from .digest import sha256, sha256_file
from .errors import ArtifactError, SpecError
from .progress import Progress, silent

__all__ = ["Store", "cache_dir", "download", "download_path", "write_folder", "write_whole"]

_SCHEMA = 1
_TIMEOUT_S = 15.0
_PIECE_BYTES = 1 << 18


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
        if path.is_file() and sha256_file(path).startswith(sha256_prefix):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, _fetch(url, name, sha256_prefix, progress))
    return path


def _fetch(url: str, name: str, sha256_prefix: str, progress: Progress) -> Iterator[bytes]:
    """The pieces of what an address serves; raises after the last one where they are not all, or not the right ones."""
    request = urllib.request.Request(url, headers={"User-Agent": f"dlcv-deploy/{__version__}"})
    hasher, done = hashlib.sha256(), 0
    with _network_errors(url):
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    with response:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else 0
        with progress(f"download {name}", total) as advance:
            while True:
                with _network_errors(url):
                    piece = response.read(_PIECE_BYTES)
                if not piece:
                    break
                hasher.update(piece)
                done += len(piece)
                advance(len(piece))
                yield piece
    if done < total:
        raise ArtifactError(f"{url} was cut off after {done} of {total} bytes", fix="connect to the network again")
    if not hasher.hexdigest().startswith(sha256_prefix):
        raise ArtifactError(
            f"{url} served something else: its SHA-256 begins with {hasher.hexdigest()[:8]}, not {sha256_prefix[:8]}",
            fix="look at what stands between you and that address, such as a proxy's login page",
        )


@contextmanager
def _network_errors(url: str) -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as e:
        e.close()
        raise ArtifactError(f"{url} answers {e.code} {e.reason}", fix="look whether the address still holds") from e
    except (OSError, http.client.HTTPException) as e:
        reason = e.reason if isinstance(e, urllib.error.URLError) else e
        raise ArtifactError(
            f"cannot fetch {url}: {reason or type(e).__name__}", fix="connect to the network once, and run again"
        ) from e
