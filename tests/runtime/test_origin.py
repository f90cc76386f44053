"""The line that installs an extra is one that works for whoever reads it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from steprnn.runtime import MissingExtra, origin


@pytest.fixture
def came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make pip's record say where steprnn came from, as pip writes it; None is an index."""

    def write(record: dict[str, Any] | None) -> None:
        folder = tmp_path / "steprnn-0.1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: steprnn\nVersion: 0.1.0\n")
        if record is not None:
            (folder / "direct_url.json").write_text(json.dumps(record))
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    return write


FORMS: list[tuple[dict[str, Any] | None, str, str]] = [
    (None, "pip install 'steprnn[onnx]'", "run: pip install --upgrade steprnn"),
    (
        {"url": "file:///home/me/my%20code/steprnn", "dir_info": {}},
        "pip install '/home/me/my code/steprnn[onnx]'",
        "install a newer steprnn; this one is from /home/me/my code/steprnn",
    ),
    (
        {"url": "file:///home/me/steprnn", "dir_info": {"editable": True}},
        "pip install --editable '/home/me/steprnn[onnx]'",
        "install a newer steprnn; this one is from /home/me/steprnn",
    ),
    (
        {"url": "file:///home/me/steprnn-0.1.0-py3-none-any.whl", "archive_info": {"hash": "sha256=0"}},
        "pip install '/home/me/steprnn-0.1.0-py3-none-any.whl[onnx]'",
        "install a newer steprnn; this one is from /home/me/steprnn-0.1.0-py3-none-any.whl",
    ),
    (
        {"url": "https://example.org/steprnn-0.1.0-py3-none-any.whl", "archive_info": {}},
        "pip install 'steprnn[onnx] @ https://example.org/steprnn-0.1.0-py3-none-any.whl'",
        "install a newer steprnn; this one is from https://example.org/steprnn-0.1.0-py3-none-any.whl",
    ),
    (
        {"url": "https://example.org/steprnn", "vcs_info": {"vcs": "git", "commit_id": "0"}},
        "pip install 'steprnn[onnx] @ git+https://example.org/steprnn'",
        "install a newer steprnn; this one is from https://example.org/steprnn",
    ),
]


@pytest.mark.skipif(sys.platform == "win32", reason="the paths are POSIX's")
@pytest.mark.parametrize(("record", "install", "upgrade"), FORMS)
def test_the_lines_follow_pips_record(
    came_from: Any, record: dict[str, Any] | None, install: str, upgrade: str
) -> None:
    came_from(record)
    assert origin.install("onnx") == install
    assert origin.upgrade() == upgrade
    assert str(MissingExtra("it", "onnx")) == f"it is not installed; run: {install}"
    asked = shlex.split(install)[-1]
    if "@" in asked:
        assert Requirement(asked).extras == {"onnx"}


def test_a_python_without_any_record_is_told_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    assert origin.install("onnx") == "pip install 'steprnn[onnx]'"
