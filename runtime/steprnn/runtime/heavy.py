"""Imports of what is as large as TensorFlow; only commands use this."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Without the garbage collector, which later leaves alone what was imported.

    It would go through some 600,000 objects again and again, and once more as the process ends, and none of
    them is ever freed: a third of the time that TensorFlow takes to come and go.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_on:
            gc.enable()
