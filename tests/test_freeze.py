"""The hook for PyInstaller is where it looks; tests/alone.py freezes programs with it."""

from __future__ import annotations

import re
from pathlib import Path

from steprnn.runtime.freeze import hook_dirs

ROOT = Path(__file__).parents[1]


def test_the_hook_is_found_by_its_entry_point() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(
        r'^\[project\.entry-points\.pyinstaller40\]\nhook-dirs = "steprnn\.runtime\.freeze:hook_dirs"$',
        project,
        re.MULTILINE,
    )
    assert [path.name for path in Path(hook_dirs()[0]).glob("hook-*")] == ["hook-steprnn.runtime.py"]
