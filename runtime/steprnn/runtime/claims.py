"""Who is writing what: a lock that the system lets go of when its process is gone, however it went.

A temporary file or folder is locked while it is written. One that nobody locks was left by a process that
was killed, and the next that writes there removes it.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UsageError

PREFIX = "steprnn-"
NEW = re.compile(r"\.(\d{1,9})\.new$")  # of what is not locked yet, with the process that makes it


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
    folder, descriptor = made(place, PREFIX, "", lambda *name: tempfile.mkdtemp(name[1], name[0], name[2]))
    try:  # nothing stands between, where a signal could come in
        sweep(place, re.compile(re.escape(PREFIX) + "[a-z0-9_]{8}"), but=folder)
        yield folder
    finally:
        remove(folder)
        close(descriptor)


@contextmanager
def temporary_files() -> Iterator[Path]:
    """Within the block all temporary files of this process are made in a folder, which is gone after it.

    Those of others, such as TensorFlow's, have names that nobody could sweep after a kill.
    """
    before = tempfile.tempdir, os.environ.get("TMPDIR")
    with temporary_folder() as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
        try:
            yield folder
        finally:
            tempfile.tempdir = before[0]
            if before[1] is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = before[1]


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


def made(
    place: Path, prefix: str, suffix: str, make: Callable[[str, str, Path], str]
) -> tuple[Path, int | None]:
    """A temporary file or folder with a random name, and the descriptor that holds its lock.

    `make` is called with prefix, suffix and place. It has its name, by which it is swept, once it is locked.
    """
    ending = f".{os.getpid()}.new"
    try:
        new = Path(make(prefix, ending, place))
    except KeyboardInterrupt:  # it may be there, under a name that was not told
        for path in place.iterdir():
            if path.name.startswith(prefix) and path.name.endswith(ending):
                _remove(path)
        raise
    path = new.with_name(NEW.sub("", new.name) + suffix)
    try:
        descriptor = lock(new)
        os.rename(new, path)  # noqa: PTH104 (tests look at what Path.rename puts in its place)
    except BaseException:
        remove(new)
        remove(path)
        raise
    return path, descriptor


def remove(path: Path) -> None:
    """Remove a file or folder, also where Ctrl-C or SIGTERM comes in the middle of it."""
    try:
        _remove(path)
    except KeyboardInterrupt:
        _remove(path)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sweep(place: Path, name: re.Pattern[str], but: Path | None = None) -> bool:
    """Remove what killed processes of this user left in a folder; returns whether anything is still held."""
    held = False
    for path in place.iterdir():
        if path == but or not name.fullmatch(NEW.sub("", path.name)):
            continue
        try:
            status = path.lstat()
            if hasattr(os, "getuid") and status.st_uid != os.getuid():
                continue
            if (new := NEW.search(path.name)) and _runs(int(new[1])):
                continue  # it is about to be locked
            descriptor = lock(path)
        except OSError:  # a link, or gone meanwhile
            continue
        if descriptor is None:
            held = True
            continue
        remove(path)
        os.close(descriptor)
    return held


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def close(descriptor: int | None) -> None:
    """Let go of a lock."""
    if descriptor is not None:
        os.close(descriptor)
