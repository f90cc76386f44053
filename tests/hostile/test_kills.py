"""Processes that are killed while they write: nothing is lost or half, and the next run leaves no litter."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from steprnn.runtime import UsageError, atomic, load
from steprnn.runtime.atomic import new_folder, write_bytes
from steprnn.runtime.claims import claimed, temporary_folder
from steprnn.runtime.package import zip as package_zip

WRITER = """
import sys
from pathlib import Path
from steprnn.runtime import atomic
if sys.argv[2] == "slow":
    atomic._exchange = lambda one, other: False
number = 0
print("ready", flush=True)
while True:
    number += 1
    with atomic.new_folder(Path(sys.argv[1]) / "folder") as folder:
        for name in "abc":
            (folder / name).write_text(str(number) * 100)
    atomic.write_text(Path(sys.argv[1]) / "file", str(number) * 100)
"""


def whole(place: Path) -> None:
    """The folder and the file are there, and each is of one round."""
    texts = {(place / "folder" / name).read_text() for name in "abc"}
    assert len(texts) == 1
    assert len((place / "file").read_text()) % 100 == 0


@pytest.mark.parametrize("how", ["exchange", "slow"])
def test_a_kill_leaves_the_one_or_the_other(tmp_path: Path, how: str) -> None:
    chance = random.Random(1)
    for number in range(25):
        command = [sys.executable, "-c", WRITER, str(tmp_path), how]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.02 + chance.random() / 30)
            process.kill()
        if how == "exchange" and number:
            whole(tmp_path)  # also before anything has tidied up
        atomic.recover(tmp_path / "folder")
        if (tmp_path / "file").exists():
            whole(tmp_path)
    with new_folder(tmp_path / "folder") as folder:
        (folder / "last").write_bytes(b"")
    write_bytes(tmp_path / "file", b"last")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_there_is_no_moment_without_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system can exchange two names, nothing is moved aside."""
    path = tmp_path / "folder"
    path.mkdir()
    if not atomic._exchange(path, path):
        pytest.skip("this file system cannot exchange names")
    monkeypatch.setattr(Path, "rename", lambda self, target: pytest.fail("moved aside"))
    with new_folder(path) as folder:
        (folder / "new").write_bytes(b"")
    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "new"]


def test_what_stood_there_is_put_back(tmp_path: Path) -> None:
    old = tmp_path / ".folder.abcdefgh.old" / "folder"
    old.mkdir(parents=True)
    (old / "kept").write_bytes(b"1")
    with pytest.raises(KeyError), new_folder(tmp_path / "folder"):
        raise KeyError
    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "kept"]


def test_only_names_of_its_own_are_swept(tmp_path: Path) -> None:
    others = [".file.abcdefgh.tmp2", ".file.short.tmp", ".other.abcdefgh.tmp", "file.abcdefgh.tmp"]
    for name in [*others, ".file.abcdefgh.tmp"]:
        (tmp_path / name).write_bytes(b"")
    write_bytes(tmp_path / "file", b"1")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "file"])


def test_two_that_write_one_folder(tmp_path: Path) -> None:
    words = "another steprnn is writing .*folder; wait for it, or choose another --out"
    with new_folder(tmp_path / "folder") as folder:
        (folder / "first").write_bytes(b"")
        with pytest.raises(UsageError, match=words), new_folder(tmp_path / "folder"):
            pass
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["first"]
    with claimed(tmp_path / "folder"), pytest.raises(UsageError, match=words):
        claimed(tmp_path / "folder").__enter__()
    with claimed(tmp_path / "folder"):
        pass


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def test_temporary_folders_of_killed_processes_go(temporary: Path) -> None:
    code = f"import tempfile, os, signal; tempfile.tempdir = {str(temporary)!r}\n"
    code += "from steprnn.runtime.claims import temporary_folder\nwith temporary_folder() as f:\n"
    code += " (f / 'x').write_bytes(b'1'); os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert len(list(temporary.iterdir())) == 1
    with temporary_folder() as mine, temporary_folder() as another:
        assert sorted(temporary.iterdir()) == sorted([mine, another]), "those in use stay"
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", ["rmtree", "rename", "mkdtemp"])
def test_an_interrupt_while_it_is_made_or_goes(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    of: Any = {"rmtree": shutil, "rename": os, "mkdtemp": tempfile}[name]
    was = getattr(of, name)

    def interrupted(*given: object, **named: object) -> None:
        monkeypatch.setattr(of, name, was)
        if name == "mkdtemp":
            was(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(of, name, interrupted)
    with pytest.raises(KeyboardInterrupt), temporary_folder():
        pass
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_tidies_up(tiny: Path, tmp_path: Path, temporary: Path, number: signal.Signals) -> None:
    packed = package_zip.write(tiny, tmp_path / "tiny.zip")
    assert list(temporary.iterdir()) == []
    command = [
        sys.executable,
        "-m",
        "steprnn.runtime",
        "generate",
        str(packed),
        "-p",
        "分",
        "-n",
        "1000000000",
    ]
    environment = os.environ | {"TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.send_signal(number)
        err = process.communicate(timeout=60)[1].decode()
    assert list(temporary.iterdir()) == []
    told = "terminated" if number == signal.SIGTERM else "interrupted"
    assert process.returncode == 128 + number
    assert err.splitlines()[-1] == f"steprnn: {told}; nothing half-written was left behind"


def test_a_kill_while_packaging_leaves_the_old_file(tiny: Path, tmp_path: Path, temporary: Path) -> None:
    out = tmp_path / "tiny.zip"
    package_zip.write(tiny, out)
    before = out.read_bytes()
    environment = os.environ | {"TMPDIR": str(temporary)}
    chance = random.Random(2)
    command = [
        sys.executable,
        "-m",
        "steprnn.runtime",
        "package",
        str(tiny),
        "--as",
        "zip",
        "--out",
        str(out),
    ]
    for _ in range(12):
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as p:
            with contextlib.suppress(subprocess.TimeoutExpired):
                p.wait(0.1 + chance.random() / 3)
            p.kill()
        assert out.read_bytes() == before
        with zipfile.ZipFile(out) as archive:
            assert archive.testzip() is None
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert list(temporary.iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["temporary", "tiny.zip"]
    assert load(out).generate("分", 3) == load(tiny).generate("分", 3)
