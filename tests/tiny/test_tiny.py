"""The committed bundle is whole, small, and says what TensorFlow said when it was made."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from steprnn.runtime import cli
from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.files import MANIFEST


def test_it_passes_its_own_check(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(tiny)]) == 0
    verdicts = re.findall(r"^(\S+-\S+) .*  (\w+)$", capsys.readouterr().out, re.MULTILINE)
    assert dict(verdicts) == dict.fromkeys(
        ("tflite-float32", "tflite-int8", "onnx-float32", "onnx-int8"), "passed"
    )


def test_it_stays_under_50_kilobytes(tiny: Path) -> None:
    assert sum(path.stat().st_size for path in tiny.rglob("*")) < 50_000


def test_it_holds_what_its_manifest_lists_and_nothing_else(tiny: Path) -> None:
    manifest = Manifest.read(tiny)
    assert {path.name for path in tiny.iterdir()} == {*manifest.files, MANIFEST}
    assert manifest.about["source"] == "tests/tiny/make.py"
