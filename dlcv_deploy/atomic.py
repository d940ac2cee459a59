"""Files and folders that appear whole or not at all; the one module that opens files for writing.

Everything is written under a temporary name beside its final one, ``.NAME.tmp-PID-N``, synced, and renamed. Its
writer holds a lock on it that the system drops when the process ends, however it ends; what a dead process left is
removed by the next one that writes the same name.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from .errors import ArtifactError

_serial = itertools.count()
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF)
_WAYS_OUT = {
    errno.ENOSPC: "free space on that disk, or write elsewhere",
    errno.EFBIG: "no file may be so large there: write elsewhere",
    errno.EDQUOT: "your quota there is used up: free some of it, or write elsewhere",
    errno.EACCES: "you may not write there: choose another folder, or change its permissions",
    errno.EPERM: "you may not write there: choose another folder, or change its permissions",
    errno.EROFS: "that file system is read-only: write elsewhere",
    errno.ENOENT: "its folder does not exist: make it first, or write elsewhere",
    errno.ENOTDIR: "a part of that path is a file: write elsewhere",
    errno.EISDIR: "give the name of a file",
    errno.EEXIST: "choose another name, or remove what is there",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def check_place(path: Path, *, parents: bool = False) -> None:
    """Refuse, before any work, an output that can never be written.

    Args:
        path: What is to be written.
        parents: Whether it is a folder that others may have filled, made with those above it where they are missing.

    Raises:
        ArtifactError: The folder that it would be written into is missing or closed.
    """
    folder = path.absolute() if parents else path.absolute().parent
    while parents and not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise ArtifactError(f"cannot write {path}: there is no folder {folder}", fix=_WAYS_OUT[errno.ENOENT])
    if not os.access(folder, os.W_OK):
        raise ArtifactError(f"cannot write {path}: you may not write into {folder}", fix=_WAYS_OUT[errno.EACCES])


def write_whole(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file so that a reader, or a kill at any moment, finds the old content or the new.

    Args:
        path: The file; its folder exists.
        data: The content, or its pieces; an error raised between two of them leaves everything as it was.

    Raises:
        ArtifactError: it cannot be written there; what was there stays.
    """
    with _explained(path), _scratch(path, folder=False) as temp:
        if path.is_dir():
            raise OSError(errno.EISDIR, "it is a folder")
        if path.exists() and not path.is_file():  # a device or a pipe, which the rename would replace
            raise OSError(errno.EEXIST, "it is not a regular file")
        _write(temp, [data] if isinstance(data, bytes) else data)
        os.replace(temp, path)
        _sync(path.parent)


def write_folder(path: Path, files: Mapping[str, bytes], *, replace: bool) -> None:
    """Write a folder so that a reader, or a kill at any moment, finds the whole new one or what was there before.

    On a file system that cannot exchange two names, a kill between two renames can leave no folder under the name;
    the next write puts the old one back first.

    Args:
        path: The folder; its parent exists.
        files: Contents by name; ``/`` in a name makes folders inside.
        replace: Whether a folder that is there gives way, whatever it holds.

    Raises:
        ArtifactError: it exists and may not be replaced, is not a folder, or cannot be written; nothing has changed.
    """
    with _explained(path):
        place_folder(path, files, replace=replace)


def place_folder(path: Path, files: Mapping[str, bytes], *, replace: bool) -> None:
    """As ``write_folder``, raising what the system raises: FileExistsError where ``path`` may not be replaced."""
    with _scratch(path, folder=True) as temp:
        if os.path.lexists(path) and not replace:
            raise OSError(errno.EEXIST, "it exists")
        if path.exists() and not path.is_dir():
            raise OSError(errno.EEXIST, "it is a file, not a folder")
        for name, data in files.items():
            file = temp / _inside(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            _write(file, [data])
        for folder, _, _ in os.walk(temp):
            _sync(Path(folder))
        if os.path.lexists(path) and replace:
            _exchange(temp, path)
        else:
            _rename_to_free(temp, path)
        _sync(path.parent)


@contextmanager
def partial(path: Path) -> Iterator[BinaryIO]:
    """The beginning of a file, ``.NAME.part``, kept from one try to the next and open to one process at a time.

    It stays where it is, whatever happens, unless it is empty; :func:`land` makes it the file.

    Raises:
        ArtifactError: it cannot be written there.
    """
    with _explained(path):
        file = _held(path.with_name(f".{path.name}.part"))
        try:
            yield file
        finally:
            with file, suppress(FileNotFoundError):
                file.flush()
                if os.path.samestat(os.fstat(file.fileno()), os.stat(file.name)) and not os.path.getsize(file.name):
                    os.unlink(file.name)


def land(file: BinaryIO, path: Path) -> None:
    """Put a whole partial file in its place."""
    file.flush()
    os.fsync(file.fileno())
    os.replace(file.name, path)
    _sync(path.parent)


def nameless() -> BinaryIO:
    """A new file without a name, in the folder for temporary files; it goes when it is closed or the process ends.

    Raises:
        OSError: there can be none.
    """
    return tempfile.TemporaryFile()


def _held(part: Path) -> BinaryIO:
    """A partial file, opened and locked; waits for the process that has it now."""
    while True:
        file = part.open("a+b")
        with _where_supported():
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):  # it has become the file meanwhile
            if os.path.samestat(os.fstat(file.fileno()), os.stat(part)):
                return file
        file.close()


def remove_folder(path: Path) -> None:
    """Remove a folder in one moment for its readers, as far as the system lets us."""
    _remove(path, path)


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\0" in name:
        raise ArtifactError(f"{name!r} is not the name of a file inside a folder")
    return path


def _write(file: Path, pieces: Iterable[bytes]) -> None:
    with file.open("wb") as out:
        for piece in pieces:
            out.write(piece)
        out.flush()
        os.fsync(out.fileno())


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the system refuses into an error that says what to do."""
    try:
        yield
    except OSError as e:
        way_out = _WAYS_OUT.get(e.errno or 0, "write elsewhere")
        raise ArtifactError(f"cannot write {path}: {e.strerror or e}", fix=way_out) from e


@contextmanager
def _where_supported() -> Iterator[None]:
    """Go on where a file system has no locks, or cannot sync a folder."""
    try:
        yield
    except OSError as e:
        if e.errno not in _UNSUPPORTED:
            raise


def _temp_name(path: Path, kind: str = "tmp") -> Path:
    return path.with_name(f".{path.name}.{kind}-{os.getpid()}-{next(_serial)}")


@contextmanager
def _scratch(path: Path, *, folder: bool) -> Iterator[Path]:
    """A new empty file or folder beside ``path``, locked while in use; what bears its name at the end goes."""
    if path.name in ("", ".."):
        raise OSError(errno.EEXIST, "it has no name of its own")
    _sweep(path)
    while True:
        temp = _temp_name(path)
        with suppress(FileExistsError):  # left by a process that had our number
            fd = _create(temp, folder=folder)
            if fd is not None:
                break
    try:
        yield temp
    finally:
        _remove(temp, path)
        os.close(fd)


def _create(temp: Path, *, folder: bool) -> int | None:
    """A descriptor that locks the new file or folder; None where another process swept it away before it was locked."""
    if not folder:
        fd = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    else:
        temp.mkdir()
        try:
            fd = os.open(temp, os.O_RDONLY)
        except FileNotFoundError:
            return None
    try:
        with _where_supported():
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.stat(temp)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


def _sweep(path: Path) -> None:
    """Remove what dead processes left beside ``path``; put back a folder that one of them had moved aside."""
    name = re.compile(rf"\.{re.escape(path.name)}\.(tmp|old)-\d+-\d+")
    with os.scandir(path.parent) as entries:
        found = [(match, Path(entry.path)) for entry in entries if (match := name.fullmatch(entry.name))]
    for match, leftover in found:
        with suppress(OSError):  # in use, or a file system without locks, where nobody can tell
            fd = os.open(leftover, os.O_RDONLY if leftover.is_dir() else os.O_RDWR)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if match[1] == "old" and not os.path.lexists(path):
                    os.rename(leftover, path)
                else:
                    _remove(leftover, path)
            finally:
                os.close(fd)


def _remove(path: Path, owner: Path) -> None:
    """Remove what is there, if anything; a folder under a new name first, so that nobody can put half of it up."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            doomed = _temp_name(owner)
            os.rename(path, doomed)
            shutil.rmtree(doomed, ignore_errors=True)
        else:
            path.unlink()


def _rename_to_free(new: Path, path: Path) -> None:
    try:
        os.rename(new, path)
    except OSError as e:
        if e.errno == errno.ENOTEMPTY:  # another process has just put its own there
            raise OSError(errno.EEXIST, "it exists") from e
        raise


def _exchange(new: Path, old: Path) -> None:
    """Put ``new`` in the place of ``old``; ``new`` then names what was there."""
    if _swap_names(new, old):
        return
    fd, aside = os.open(old, os.O_RDONLY), _temp_name(old, "old")
    try:
        with _where_supported():
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(old, aside)
        os.rename(new, old)
        os.rename(aside, new)
    finally:
        os.close(fd)


def _swap_names(a: Path, b: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot (Linux's renameat2(2))."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if renameat2(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code))


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        with _where_supported():
            os.fsync(fd)
    finally:
        os.close(fd)
