"""Who is writing what: a lock that the system lets go of when its process is gone, however it went.

A temporary file or folder is locked while it is written. One that nobody locks was left by a process that
was killed, and the next that writes there removes it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UsageError

PREFIX = "steprnn-"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder for the length of a block; raises `UsageError` where another process does."""
    descriptor = lock(folder)
    if descriptor is None:
        raise UsageError(f"another steprnn is writing {folder}; wait for it, or choose another --out")
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that only this user can read, and that is gone after the block."""
    place = Path(tempfile.gettempdir())
    with alone(place):
        sweep(place, re.compile(re.escape(PREFIX) + "[a-z0-9_]{8}"))
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        descriptor = lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        close(descriptor)


def lock(path: Path) -> int | None:
    """A descriptor that holds the lock of a file or folder; None where another process holds it."""
    try:
        import fcntl
    except ImportError:  # Windows, where a folder cannot be opened
        return os.open(os.devnull, os.O_RDONLY)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:  # a file system without locks: nobody can tell, so nobody is refused
        pass
    return descriptor


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one process after the other make and lock, or remove, what lies in a folder."""
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except (ImportError, OSError):
        yield
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sweep(place: Path, name: re.Pattern[str]) -> bool:
    """Remove what killed processes of this user left in a folder; returns whether anything is still held."""
    held = False
    for path in place.iterdir():
        if not name.fullmatch(path.name):
            continue
        try:
            if hasattr(os, "getuid") and path.lstat().st_uid != os.getuid():
                continue
            descriptor = lock(path)
        except OSError:  # a link, or gone meanwhile
            continue
        if descriptor is None:
            held = True
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        os.close(descriptor)
    return held


def close(descriptor: int | None) -> None:
    """Let go of a lock."""
    if descriptor is not None:
        os.close(descriptor)
