"""Files and folders appear whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from steprnn.runtime import atomic
from steprnn.runtime.atomic import new_folder, write_bytes, write_text

TOO_MUCH = b"x" * 1_000_000


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, hidden files too."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))
    }


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    write_text(path, "新")
    assert tree(tmp_path) == {"file": "新".encode()}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """What reaches the disk, in order: an fsync or a rename, of which inode, and how many bytes it has."""
    log: list[tuple[str, int, int]] = []

    def told(what: str, status: os.stat_result) -> None:
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0  # a folder's says nothing
        log.append((what, status.st_ino, size))

    def synced(fsync: Callable[[int], None], descriptor: int) -> None:
        told("fsync", os.fstat(descriptor))
        fsync(descriptor)

    def moved(rename: Callable[[Path, Path], Path], self: Path, target: Path) -> Path:
        told("rename", self.stat())
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", partial(synced, os.fsync))
    rename, replace = Path.rename, Path.replace
    monkeypatch.setattr(Path, "rename", lambda self, target: moved(rename, self, target))
    monkeypatch.setattr(Path, "replace", lambda self, target: moved(replace, self, target))
    return log


def test_a_file_is_on_the_disk_before_it_has_its_name_and_then_the_name_is(
    tmp_path: Path, log: list[tuple[str, int, int]]
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"four")
    file, folder = path.stat().st_ino, tmp_path.stat().st_ino
    assert log == [("fsync", file, 4), ("rename", file, 4), ("fsync", folder, 0)]


@pytest.mark.parametrize("existed", [True, False])
def test_a_folder_is_on_the_disk_before_it_has_its_name_and_then_the_name_is(
    tmp_path: Path, log: list[tuple[str, int, int]], existed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)  # as on systems that cannot
    path = tmp_path / "folder"
    old = []
    if existed:
        path.mkdir()
        old = [("rename", path.stat().st_ino, 0)]
    with new_folder(path) as folder:
        (folder / "a").write_bytes(b"1")
        (folder / "sub").mkdir()
        (folder / "sub" / "b").write_bytes(b"22")
    inode = {name: (path / name).stat().st_ino for name in ("", "a", "sub/b")}
    files = [("fsync", inode["a"], 1), ("fsync", inode["sub/b"], 2)]
    written = [entry for entry in log if entry[0] == "rename" or entry in files]
    assert written == [*files, *old, ("rename", inode[""], 0)]
    assert log[-1] == ("fsync", tmp_path.stat().st_ino, 0)


def test_a_full_disk_leaves_the_old_file(small_disk: Path) -> None:
    path = small_disk / "file"
    write_bytes(path, b"old")
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_bytes(path, TOO_MUCH)
    assert raised.value.errno == errno.ENOSPC
    assert tree(small_disk) == {"file": b"old"}
    write_bytes(path, b"new")
    assert tree(small_disk) == {"file": b"new"}


def test_a_file_that_cannot_be_replaced_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError):
        write_bytes(tmp_path / "taken", b"new")
    assert tree(tmp_path) == {"taken": None}


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "folder"
    with new_folder(path) as folder:
        (folder / "a").write_bytes(b"1")
        (folder / "sub").mkdir()
        (folder / "sub" / "b").write_bytes(b"2")
        assert not path.exists()
        assert folder.parent == path.parent, "on the same file system, so that it can be renamed"
    assert tree(path) == {"a": b"1", "sub": None, "sub/b": b"2"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_takes_the_place_of_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_bytes(b"old")
    with new_folder(path) as folder:
        (folder / "new").write_bytes(b"new")
        assert tree(path) == {"old": b"old"}
    assert tree(tmp_path) == {"folder": None, "folder/new": b"new"}


def test_a_relative_path_means_where_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    with new_folder(Path("folder")) as folder:
        (folder / "a").write_bytes(b"1")
        monkeypatch.chdir(tmp_path / "other")
    assert tree(tmp_path) == {"folder": None, "folder/a": b"1", "other": None}


def fill(folder: Path) -> None:
    (folder / "large").write_bytes(TOO_MUCH)


def interrupt(folder: Path) -> None:
    raise KeyboardInterrupt


def fail(folder: Path) -> None:
    raise ValueError("half-way")


@pytest.mark.parametrize(
    ("trouble", "error"), [(fill, OSError), (interrupt, KeyboardInterrupt), (fail, ValueError)]
)
@pytest.mark.parametrize("existed", [True, False])
def test_trouble_half_way_leaves_all_as_it_was(
    small_disk: Path, trouble: Callable[[Path], None], error: type[BaseException], existed: bool
) -> None:
    path = small_disk / "folder"
    if existed:
        path.mkdir()
        (path / "old").write_bytes(b"old")
    before = tree(small_disk)

    def write() -> None:
        with new_folder(path) as folder:
            (folder / "first").write_bytes(b"1")
            trouble(folder)

    with pytest.raises(error):
        write()
    assert tree(small_disk) == before


def test_the_old_folder_comes_back_if_the_new_one_does_not_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C at the worst moment: the old one is out of the way, and the new one not yet there."""
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    path, rename = tmp_path / "folder", Path.rename
    path.mkdir()
    (path / "old").write_bytes(b"old")

    def interrupted(self: Path, target: Path) -> Path:
        if self.suffix == ".tmp":
            assert not path.exists()
            raise KeyboardInterrupt
        return rename(self, target)

    def write() -> None:
        with new_folder(path) as folder:
            (folder / "new").write_bytes(b"new")
            monkeypatch.setattr(Path, "rename", interrupted)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert tree(tmp_path) == {"folder": None, "folder/old": b"old"}


def test_a_folder_that_cannot_be_moved_away_stays(small_disk: Path) -> None:
    """A mount point, as a container's volume is."""
    (small_disk / "old").write_bytes(b"old")

    def write() -> None:
        with new_folder(small_disk) as folder:
            (folder / "new").write_bytes(b"new")

    with pytest.raises(OSError, match="busy"):
        write()
    assert tree(small_disk.parent) == {"disk": None, "disk/old": b"old"}
