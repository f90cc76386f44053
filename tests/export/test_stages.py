"""Stages of a command: lines alone in a file, and a clock beside them on a terminal."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from steprnn.export.stages import stages

LINE = r"\[  0\.\d s\] wrote \[bold\]a\[/bold\], 12 %"
CALL = """
import sys, keras
from steprnn.export import export
model = keras.Sequential([keras.Input((None, 1)), keras.layers.GRU(4, return_sequences=True)])
sys.stderr.write("begin\\n")
export(model, sys.argv[1])
"""


def test_a_caller_of_export_sees_nothing(tmp_path: Path) -> None:
    """tf2onnx turns the root logger on, and TensorFlow tells of assets and deprecations."""
    command = [sys.executable, "-c", CALL, str(tmp_path / "b")]
    result = subprocess.run(command, capture_output=True, check=True, encoding="utf-8")
    assert (result.stdout, result.stderr.partition("begin\n")[2]) == ("", "")


def test_a_file_gets_lines_alone() -> None:
    file = io.StringIO()
    with stages(file) as say:
        say("wrote [bold]a[/bold], 12 %")
    assert re.fullmatch(LINE + "\n", file.getvalue())


@pytest.mark.parametrize("colour", [True, False])
def test_a_terminal_gets_a_clock_too(monkeypatch: pytest.MonkeyPatch, colour: bool) -> None:
    pytest.importorskip("rich")
    pty = pytest.importorskip("pty")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, stages(terminal) as say:
        say("wrote [bold]a[/bold], 12 %")
    shown = ""
    with contextlib.suppress(OSError):  # how Linux says that the other side is closed
        while part := os.read(ours, 2**16).decode():
            shown += part
    os.close(ours)
    assert re.search(LINE, shown)
    assert "0:00:00" in shown
    assert bool(re.search(r"\x1b\[[\d;]*m", shown)) == colour
