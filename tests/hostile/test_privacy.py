"""Nothing is told to anybody: an engine that is loaded looks up no name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

# Every look-up of a name is written down and refused.
SHIM = r"""
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
    FILE *file = fopen(getenv("LOOKED_UP"), "a");
    if (file) { fprintf(file, "%s\n", node ? node : ""); fclose(file); }
    return EAI_FAIL;
}
"""
OURS = """
import sys
from steprnn.runtime import load
model = load(sys.argv[1], engine="onnx")
model.generate("分", 5)
sys.stdin.read()
"""
THEIRS = """
import sys, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1] + "/step.onnx", providers=["CPUExecutionProvider"])
onnxruntime.disable_telemetry_events()
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("there is no C compiler to make a shim with")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / "shim.so"), str(folder / "shim.c")]
    subprocess.run(command, check=True)
    return folder / "shim.so"


@contextmanager
def running(code: str, tiny: Path, shim: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that stays until its input ends."""
    environment = os.environ | {"LD_PRELOAD": str(shim), "LOOKED_UP": str(log)}
    for name in ("ORT_DISABLE_TELEMETRY", "CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST"):
        environment.pop(name, None)
    command = [sys.executable, "-c", code, str(tiny)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        yield process
        process.communicate(timeout=60)


def test_no_name_is_looked_up(tiny: Path, shim: Path, tmp_path: Path) -> None:
    """As long after a session was made as onnxruntime by itself needs to look one up."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    with ExitStack() as stack:
        stack.enter_context(running(OURS, tiny, shim, ours))
        control = stack.enter_context(running(THEIRS, tiny, shim, theirs))
        assert control.stdin is not None
        deadline = time.monotonic() + 30
        while not theirs.exists() and time.monotonic() < deadline:
            with pytest.raises(subprocess.TimeoutExpired):
                control.wait(0.1)
    if not theirs.exists():
        pytest.skip("this onnxruntime looks up nothing by itself")
    assert "microsoft.com" in theirs.read_text()
    assert not ours.exists(), ours.read_text()
