"""A stranger's graph is tried in a process of its own: an engine that crashes on it ends that one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .errors import BundleError

SECONDS = 60  # for the process to start, load and take a step
REFUSED = 1
PROGRAM = f"""
import sys
from {__package__} import SteprnnError, load
try:
    load(sys.argv[1], engine=sys.argv[2], variant=sys.argv[3])
except SteprnnError:
    sys.exit({REFUSED})
"""


def try_apart(path: str | Path, engine: str, variant: str) -> None:
    """Load a bundle and take a step in another process.

    Raises `BundleError` where that process crashes or does not come to an end. What `load` refuses there it
    refuses here too.
    """
    command = [sys.executable, "-c", PROGRAM, str(path), engine, variant]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise BundleError(f"{path} was not loaded within {SECONDS} s; do not trust it") from None
    if ended.returncode not in (0, REFUSED):
        raise BundleError(
            f"{path} makes the engine crash ({ended.returncode}); do not trust it, or export again"
        )
