"""How far a run has come: one bar for all of it on a terminal, and a line from time to time elsewhere."""

from __future__ import annotations

import math
import sys
import time
from datetime import timedelta
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .callbacks import Epochs, Logs

APART = 2.0  # seconds between two lines of epochs
MOST = 14.0  # of a loss whose exponential, about a million, is shown as a number
WITHIN = 30.0  # and between two lines within an epoch


class Shown(keras.callbacks.Callback):  # type: ignore[misc] # Keras ships no types
    """Tells epochs, perplexity, characters a second and the time that is left, on stderr.

    `size` is characters a step. What others write to `sys.stderr` meanwhile comes above the bar.
    """

    def __init__(self, epochs: Epochs, of: int, steps: int, size: int) -> None:
        super().__init__()
        self._epochs, self._of, self._steps, self._size = epochs, of, steps, size
        self._bar = _bar() if sys.stderr.isatty() else None
        self._done = self._first = 0
        self._began = self._told = time.monotonic()
        self._task: Any = None

    def begin(self, done: int) -> None:
        """Begin with that many steps done in an earlier run."""
        self._done = self._first = done
        if self._bar is not None:
            self._task = self._bar.add_task("", total=self._of * self._steps, completed=done, told="")
            self._bar.start()

    def end(self) -> None:
        """Take the bar away, however the run ended."""
        if self._bar is not None:
            self._bar.stop()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._done += 1
        if self._done == self._first + 1:
            self._began = time.monotonic()  # the first step compiles, which takes seconds
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, told=self._words(logs))
        elif time.monotonic() - self._told >= WITHIN:
            self._tell(f", step {self._done % self._steps or self._steps} of {self._steps}", logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self._bar is None and (epoch + 1 == self._of or time.monotonic() - self._told >= APART):
            self._tell("", logs)

    def _tell(self, within: str, logs: Logs) -> None:
        self._told = time.monotonic()
        sys.stderr.write(f"{self._words(logs, within)}{self._left()}\n")

    def _words(self, logs: Logs, within: str = "") -> str:
        logs = logs or {}
        epoch = min((self._done - 1) // self._steps + 1, self._of)
        said = [f"epoch {epoch} of {self._of}{within}: perplexity {_perplexity(logs['loss'])}"]
        if "val_loss" in logs:
            said.append(f"held out {_perplexity(logs['val_loss'])}")
        if speed := self._speed():
            said.append(f"{speed * self._size:,.0f} characters/s")
        return ", ".join(said)

    def _speed(self) -> float:
        """Steps a second, all that lies between them included."""
        taken, seconds = self._done - self._first - 1, time.monotonic() - self._began
        return taken / seconds if taken > 0 and seconds > 0 else 0.0

    def _left(self) -> str:
        speed, left = self._speed(), self._of * self._steps - self._done
        return f", {timedelta(seconds=round(left / speed))} left" if speed and left else ""


def _perplexity(loss: float) -> str:
    """The exponential of a loss, which may be any number while a run diverges."""
    if not loss < MOST:
        return f"e^{loss:.3g}"
    perplexity = math.exp(loss)
    return f"{perplexity:,.4f}" if perplexity < 10 else f"{perplexity:,.1f}"


def _bar() -> Progress:
    columns = TextColumn("{task.fields[told]}"), BarColumn(bar_width=None), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
