"""Keras callbacks of a run: what is remembered, kept, shown and written at the end of an epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import keras

from steprnn.runtime.errors import SteprnnError

from .checkpoint import Epoch
from .resume import Progress, State
from .sampler import Sampler

Logs = dict[str, float] | None


class Epochs(keras.callbacks.Callback):  # type: ignore[misc] # Keras ships no types
    """Begins every epoch at zero states, and remembers how it went."""

    def __init__(self, characters: int, history: list[Epoch]) -> None:
        super().__init__()
        self.history = list(history)
        self._characters = characters
        self._began = self._ended = 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.model.reset_states()
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._ended = time.perf_counter()

    def on_test_begin(self, logs: Logs = None) -> None:
        self.model.reset_states()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        logs = logs or {}
        if not math.isfinite(logs["loss"]):
            raise SteprnnError(
                f"the loss became {logs['loss']} in epoch {epoch + 1}; expected a number: "
                "lower --learning-rate or --clip"
            )
        seconds = self._ended - self._began
        held_out = {
            f"held_out_{name}": float(logs[f"val_{name}"])
            for name in ("loss", "perplexity")
            if f"val_{name}" in logs
        }
        self.history.append(
            {
                "epoch": epoch + 1,
                "loss": float(logs["loss"]),
                "perplexity": float(logs["perplexity"]),
                **held_out,
                "seconds": round(seconds, 4),
                "characters_per_second": round(self._characters / seconds),
            }
        )


class Best(keras.callbacks.EarlyStopping):  # type: ignore[misc] # Keras ships no types
    """Keras's early stopping, which holds the best weights in memory; goes on where `state` left it.

    Without patience it never stops and holds the best weights alone.
    """

    def __init__(self, monitor: str, patience: int, state: State | None) -> None:
        super().__init__(monitor, mode="min", patience=patience or 2**31, restore_best_weights=True)
        self._state = state
        self._go_on()

    def on_train_begin(self, logs: Logs = None) -> None:
        super().on_train_begin(logs)
        self._go_on()

    def _go_on(self) -> None:
        if self._state is not None:
            progress = self._state.progress
            self.best, self.best_epoch, self.wait = progress.best, progress.best_epoch, progress.wait
            self.best_weights = self._state.best_weights


class Samples(keras.callbacks.Callback):  # type: ignore[misc] # Keras ships no types
    """Continues the prompts every `every` epochs, and says what came out."""

    def __init__(
        self, sampler: Sampler, prompts: Sequence[str], every: int, say: Callable[[str], None]
    ) -> None:
        super().__init__()
        self._sampler, self._prompts, self._every, self._say = sampler, prompts, every, say

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if (epoch + 1) % self._every == 0:
            for prompt in self._prompts:
                self._say(f"epoch {epoch + 1}: {self._sampler(prompt)}")


class Backup(keras.callbacks.Callback):  # type: ignore[misc] # Keras ships no types
    """Keeps the state at the end of the last epoch, from which a stopped run goes on.

    Writing it and the best model takes about half an epoch of a small model, so it is done when `every`
    seconds have gone by since the last time: `write` then calls `keep`, which writes the model. A killed
    run repeats the epochs since then, with the same result.
    """

    def __init__(
        self, path: Path, epochs: Epochs, best: Best, keep: Callable[[], None], *, every: float
    ) -> None:
        super().__init__()
        self._path, self._epochs, self._best, self._keep, self._every = path, epochs, best, keep, every
        self._state: State | None = None
        self._written = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        # From the state after the last epoch there would be nothing to go on to: the one before is kept.
        if self.model.stop_training or epoch + 1 == self.params["epochs"]:
            return
        progress = Progress(
            list(self._epochs.history), float(self._best.best), int(self._best.best_epoch), self._best.wait
        )
        self._state = State(
            progress,
            [variable.numpy() for variable in self.model.variables],
            [variable.numpy() for variable in self.model.optimizer.variables],
            self._best.best_weights,
        )
        if time.monotonic() - self._written >= self._every:
            self.write()

    def write(self) -> None:
        """Write the best model, then the state; what was written before stays until each is complete."""
        self._keep()
        if self._state is not None:
            self._state.write(self._path)
        self._written = time.monotonic()
