"""A folder that belongs to one disk tier: its format, its single writer, and files that appear whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ..errors import BadStore, TierLocked

SEGMENTS = "segments"
MARKS = "marks"

_FORMAT = "sostenuto kv 1\n"
_UNFINISHED = ".tmp"


class Folder:
    """A tier's folder, opened. A writer holds its lock until `close` or the end of the process, however it ends."""

    def __init__(self, path: Path, *, write: bool) -> None:
        """A writer makes the folder where there is none.

        Raises BadStore for a folder that holds something else, TierLocked where another process writes.
        """
        self.path = path
        self.closed = False
        self._lock: int | None = None
        if write:
            made = [each for each in (path, *path.parents) if not each.exists()]
            with suppress(FileExistsError):  # a file: said below
                path.mkdir(parents=True, exist_ok=True)
            for each in made:
                sync_folder(each.parent)
            _known(path, new=True)
            self._lock = _locked(path)
        try:
            if write:
                _prepare(path)
            else:
                _known(path, new=False)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process write. Closing twice is harmless."""
        self.closed = True
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def write_whole(path: Path, data: bytes) -> None:
    """A durable file with `data`, in place of what was there: after a crash it is the old one or the new one."""
    beside = path.with_name(path.name + _UNFINISHED)
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make durable which files a folder has."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _known(path: Path, *, new: bool) -> None:
    """Raise BadStore unless a tier lies at `path`, or, where `new` is allowed, nothing yet."""
    try:
        found = (path / "FORMAT").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        others = {each.name for each in path.iterdir()} if path.is_dir() else set()
        # A first opening that was killed leaves its lock, its empty folders and half a file.
        if new and others <= {"lock", "FORMAT" + _UNFINISHED, SEGMENTS, MARKS}:
            _folders(path)
            return
        empty = "an empty folder, or " if new else ""
        raise BadStore(f"no disk tier lies in {path}: give {empty}one that a disk tier has written to") from None
    except NotADirectoryError:
        raise BadStore(f"{path} is a file: give the folder of a disk tier") from None
    if found != _FORMAT:
        raise BadStore(f"{path} is of format {found[:40]!r}; this reads {_FORMAT!r}")
    _folders(path)


def _folders(path: Path) -> None:
    for each in (path / SEGMENTS, path / MARKS):
        if each.exists() and not each.is_dir():
            raise BadStore(f"{each} is a file, and should be a folder of the disk tier: move it elsewhere")


def _locked(path: Path) -> int:
    import fcntl  # there is none on Windows, where the other tiers must work all the same

    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(lock, 32, 0).strip()
        os.close(lock)
        raise TierLocked(str(path), int(text) if text.isdigit() else None) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _prepare(path: Path) -> None:
    """Make what is missing; which files are there is durable then, also where an earlier writer was killed at it."""
    for name in (SEGMENTS, MARKS):
        (path / name).mkdir(exist_ok=True)
        for beside in (path / name).glob("*" + _UNFINISHED):
            beside.unlink()
        sync_folder(path / name)
    sync_folder(path)
    if not (path / "FORMAT").exists():
        write_whole(path / "FORMAT", _FORMAT.encode())
