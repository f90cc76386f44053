"""Keep what C++ libraries write straight to the terminal off it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def quiet() -> Iterator[TextIO]:
    """Send file descriptor 2 to nowhere for a while; yields a file that still reaches it. For commands.

    TensorFlow and LiteRT greet on it before any of their log levels apply. Exceptions are not affected.
    """
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with os.fdopen(os.dup(saved), "w") as terminal:
            yield terminal
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


@contextmanager
def without_lines(prefix: bytes) -> Iterator[None]:
    """Hold back what is written to file descriptor 2 meanwhile, then pass it on without some lines.

    For a moment only: what other threads write there waits with it, and a crash takes it along.
    """
    try:
        saved = os.dup(2)
    except OSError:  # a process without one has nothing on it
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            os.write(2, b"".join(line for line in held if not line.startswith(prefix)))
