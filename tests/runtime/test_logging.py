"""What `steprnn` logs: nothing that anybody sees who did not ask for it."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from steprnn.runtime import load


def test_what_was_loaded_is_logged(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "steprnn"):
        load(tiny, engine="onnx", variant="int8", threads=2)
    assert [(r.name, r.levelno) for r in caplog.records] == [("steprnn.runtime", logging.DEBUG)]
    assert caplog.messages == [f"loaded {tiny}: onnx-int8 in onnx, 2 threads"]


def test_it_is_silent_by_default_and_imports_no_logging(tiny: Path) -> None:
    code = (
        "import sys\nfrom steprnn.runtime import load\n"
        f"model = load({str(tiny)!r}, engine='litert')\n"
        "assert 'logging' not in sys.modules\n"
        "import logging\nlogging.basicConfig(level='DEBUG')\n"  # as tf2onnx does to whoever imports it
        f"load({str(tiny)!r}, engine='litert')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
