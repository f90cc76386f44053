"""Files and folders that appear whole or not at all: a temporary name, fsync, rename."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .claims import close, made, sweep
from .errors import UsageError

AT_FDCWD, RENAME_EXCHANGE = -100, 2


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data` at once; on any failure the old file stays as it was."""
    with new_file(path) as file:
        file.write(data)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A temporary file that takes the place of `path` when the block ends without an error."""
    temporary, claim = made(path.parent, f".{path.name}.", ".tmp", _new_file)
    try:
        sweep(path.parent, _left_of(path), but=temporary)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp's 0600 would keep the file from other users
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        close(claim)
    _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `path` when the block ends without an error.

    What stood at `path` before stays until the new folder is complete and on disk. Raises `UsageError`
    where another process is making a folder for the same place.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, claim = made(path.parent, f".{path.name}.", ".tmp", _new_folder)
    try:
        recover(path)
        if sweep(path.parent, _left_of(path), but=temporary):
            raise UsageError(f"another steprnn is writing {path}; wait for it, or choose another --out")
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
        temporary.chmod(0o755)
        if path.exists():
            _replace(path, temporary)
        else:
            temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        close(claim)
    _sync_folder(path.parent)


def tidy(path: Path) -> None:
    """Remove what a killed process was just writing at `path`; what another is writing stays."""
    sweep(path.parent, _left_of(path))


def recover(path: Path) -> None:
    """Put back what a process moved aside to make room, and was killed before it put the new one there."""
    for old in path.parent.glob(f".{path.name}.*.old"):
        if _left_of(path).fullmatch(old.name) and not path.exists() and (old / path.name).is_dir():
            (old / path.name).rename(path)


def _replace(path: Path, temporary: Path) -> None:
    """Put a folder in the place of another, which goes."""
    if _exchange(temporary, path):  # at once: there is no moment without one
        shutil.rmtree(temporary)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
    try:
        path.rename(old / path.name)
        temporary.rename(path)
    except BaseException:
        if not path.exists():
            (old / path.name).rename(path)
        old.rmdir()
        raise
    shutil.rmtree(old)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places at once; False where the system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2  # Linux, from glibc 2.28 on
    except (AttributeError, OSError, TypeError):
        return False
    paths = os.fsencode(one), os.fsencode(other)
    return bool(rename(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0)


def _new_file(prefix: str, suffix: str, place: Path) -> str:
    handle, name = tempfile.mkstemp(suffix, prefix, place)
    os.close(handle)
    return name


def _new_folder(prefix: str, suffix: str, place: Path) -> str:
    return tempfile.mkdtemp(suffix, prefix, place)


def _left_of(path: Path) -> re.Pattern[str]:
    """The temporary names of a path."""
    return re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}(\.tmp|\.old|)")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
