"""Keras callbacks of a run: what is remembered, kept, shown and written, within an epoch and at its end."""

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
    """Begins every epoch at zero states, or where `state` stopped within it, and remembers how it went."""

    def __init__(self, characters: int, state: State | None) -> None:
        super().__init__()
        self.history: list[Epoch] = list(state.progress.history) if state else []
        self.under_way = False  # whether steps are being taken, so that the variables are those of a step
        self._state = state if state and state.progress.step else None
        self._characters = characters
        self._began = self._ended = 0.0

    @property
    def seconds(self) -> float:
        """What the last or the present epoch has taken so far, of training alone."""
        return self._ended - self._began

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._began = self._ended = time.perf_counter()
        if self._state is None:
            self.model.reset_states()
        else:
            for variable, array in zip(self.model.metrics_variables, self._state.metrics, strict=True):
                variable.assign(array)  # Keras has just reset them
            self._began -= self._state.progress.seconds
            self._state = None
        self.under_way = True

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._ended = time.perf_counter()

    def on_test_begin(self, logs: Logs = None) -> None:
        self.under_way = False
        self.model.reset_states()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.under_way = False
        logs = logs or {}
        for name in ("", "val_"):
            if not math.isfinite(logs.get(f"{name}perplexity", 0.0)):  # its exponential, in float32
                loss = logs[f"{name}loss"]
                raise SteprnnError(
                    f"the loss became {loss:.4g} in epoch {epoch + 1}; expected a number below 88: "
                    "lower --learning-rate, or give --clip 0.25"
                )
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
                "seconds": round(self.seconds, 4),
                "characters_per_second": round(self._characters / self.seconds),
            }
        )


class Best(keras.callbacks.EarlyStopping):  # type: ignore[misc] # Keras ships no types
    """Keras's early stopping, which holds the best weights in memory; goes on where `state` left it.

    Without patience it never stops and holds the best weights alone. It leaves the model as it is: a run
    that goes on within an epoch calls `fit` twice.
    """

    def __init__(self, monitor: str, patience: int, state: State | None) -> None:
        super().__init__(monitor, mode="min", patience=patience or 2**31, restore_best_weights=True)
        super().on_train_begin()
        if state is not None:
            progress = state.progress
            self.best, self.best_epoch, self.wait = progress.best, progress.best_epoch, progress.wait
            self.best_weights = state.best_weights or None

    def on_train_begin(self, logs: Logs = None) -> None:
        pass

    def on_train_end(self, logs: Logs = None) -> None:
        pass


class Once(keras.callbacks.Callback):  # type: ignore[misc] # Keras ships no types
    """Ends `fit` after one epoch, of fewer steps than others; `over` tells whether another did so."""

    over = False

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.over = self.model.stop_training
        self.model.stop_training = True


class Samples(keras.callbacks.Callback):  # type: ignore[misc] # Keras ships no types
    """Continues the prompts after every `every`-th epoch and after the last, and says what came out."""

    def __init__(
        self, sampler: Sampler, prompts: Sequence[str], every: int, say: Callable[[str], None]
    ) -> None:
        super().__init__()
        self._sampler, self._prompts, self._every, self._say = sampler, prompts, every, say
        self._last = 0

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if (epoch + 1) % self._every == 0:
            self.after(epoch + 1)

    def after(self, epoch: int) -> None:
        """Do it now, after that many epochs, unless it was just done."""
        if epoch != self._last:
            for prompt in self._prompts:
                self._say(f"epoch {epoch}: {self._sampler(prompt)}")
        self._last = epoch


class Backup(keras.callbacks.Callback):  # type: ignore[misc] # Keras ships no types
    """Keeps the state from which a stopped run goes on: that after a step, or at the end of the last epoch.

    Writing it takes about as long as some steps, so it is done when `every` seconds have gone by since the
    last time, within an epoch as at its end: `write` then calls `keep`, which writes the best model. A killed
    run repeats the steps since then, with the same result.
    """

    def __init__(
        self,
        path: Path,
        epochs: Epochs,
        best: Best,
        keep: Callable[[], None],
        state: State | None,
        *,
        steps: int,
        every: float,
    ) -> None:
        super().__init__()
        self._path, self._epochs, self._best, self._keep, self._every = path, epochs, best, keep, every
        self._steps = steps  # of an epoch
        self._state = state
        self._before = state.progress.before if state else 0
        self._written = time.monotonic()
        self._writing = False

    @property
    def step(self) -> int:
        """Steps of the epoch that is under way in what `write` writes."""
        return self._state.progress.step if self._state else 0

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if time.monotonic() - self._written >= self._every:
            self.look()
            self.write()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        # From the state after the last epoch there would be nothing to go on to: the one before is kept.
        if self.model.stop_training or epoch + 1 == self.params["epochs"]:
            return
        self._state = self._now(0)
        if time.monotonic() - self._written >= self._every:
            self.write()

    def look(self) -> None:
        """Take the state of now, where that is one between two steps of an epoch.

        It may be called at any moment: the optimizer counts its steps in the same graph that changes the
        weights, so that the count belongs to them wherever an interrupt came.
        """
        if self.model is None or self._writing or not self._epochs.under_way:
            return
        epoch, step = divmod(int(self.model.optimizer.iterations.numpy()), self._steps)
        epoch += self._before
        if step and epoch == len(self._epochs.history):
            self._state = self._now(step)

    def write(self) -> None:
        """Write the best model, then the state; what was written before stays until each is complete."""
        self._writing = True  # the model has other weights for a while
        self._keep()
        if self._state is not None:
            self._state.write(self._path)
        self._written = time.monotonic()
        self._writing = False

    def _now(self, step: int) -> State:
        best = self._best
        return State(
            Progress(
                list(self._epochs.history),
                None if best.best is None else float(best.best),
                int(best.best_epoch),
                best.wait,
                step,
                self._epochs.seconds if step else 0.0,
                self._before,
            ),
            [variable.numpy() for variable in self.model.variables],
            [variable.numpy() for variable in self.model.optimizer.variables],
            [variable.numpy() for variable in self.model.metrics_variables],
            best.best_weights or [],
        )
