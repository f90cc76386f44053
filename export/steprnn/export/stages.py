"""How far a command has come: a line for each stage, and on a terminal a clock while one is under way."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def stages(terminal: TextIO) -> Iterator[Callable[[str], None]]:
    """A function that tells of a stage, with the seconds since the beginning."""
    started = time.monotonic()

    def written(line: str) -> str:
        return f"[{time.monotonic() - started:5.1f} s] {line}"

    def say(line: str) -> None:
        terminal.write(written(line) + "\n")
        terminal.flush()

    if not terminal.isatty() or importlib.util.find_spec("rich") is None:  # Keras brings it
        yield say
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

    shown = Console(file=terminal)
    with Progress(
        SpinnerColumn(),
        TimeElapsedColumn(),
        console=shown,
        transient=True,
        redirect_stdout=False,  # others read what the commands write there
        redirect_stderr=False,
    ) as clock:
        clock.add_task("")
        yield lambda line: shown.print(written(line), markup=False, highlight=False, soft_wrap=True)
