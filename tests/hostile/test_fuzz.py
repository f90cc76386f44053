"""Some mutants of each kind of file; `make hostile` makes many more."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from steprnn.runtime.bundle.manifest import Manifest

from . import fuzz


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_mutants_are_refused_or_right(kind: str) -> None:
    count = "12" if kind == "http" else "40"  # an answer that does not come is waited for
    command = [sys.executable, str(Path(fuzz.__file__)), "--kinds", kind, "--count", count, "--seed", "10000"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"| {kind} | {count} |" in ended.stdout


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_mutants_of_other_graphs_are_refused_or_right(format: str, tiny: Path, tmp_path: Path) -> None:
    """`make hostile` has those of every layer, which takes minutes to write."""
    (tmp_path / "lstm").mkdir()
    shutil.copyfile(tiny / f"step.{format}", tmp_path / "lstm" / f"step.{format}")
    record = json.dumps(Manifest.read(tiny).step.to_record())
    (tmp_path / "lstm" / "spec.json").write_text(record, encoding="utf-8")
    outcomes, bad, _ = fuzz.run(f"{format}-layers", 0, 40, tmp_path)
    assert (outcomes.total(), bad) == (40, [])
    assert outcomes["refused"] > 5
    assert outcomes["right"] > 5


def test_the_judge_notices(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind whose mutants are read wrongly, raise, crash and hang."""
    program = """
import os, sys
seed = int(sys.argv[sys.argv.index("--seed") + 1])
for number, outcome in enumerate(["right", "wrong", "traceback ValueError: x", "crash", "right", "refused"]):
    if number >= seed:
        print(number, flush=True)
        if outcome == "crash":
            os.abort()
        print(outcome, flush=True)
print("peak 1000", flush=True)
"""
    popen = subprocess.Popen
    monkeypatch.setattr(
        fuzz.subprocess,
        "Popen",
        lambda command, **how: popen([command[0], "-c", program, *command[2:]], **how),
    )
    outcomes, bad, peak = fuzz.run("zip", 0, 6)
    assert outcomes == {"right": 2, "wrong": 1, "traceback": 1, "crash": 1, "refused": 1}
    assert bad == ["zip 1: wrong", "zip 2: traceback ValueError: x", "zip 3: crash -6"]
    assert peak == 1000
