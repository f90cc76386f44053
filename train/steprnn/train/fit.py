"""A training run from corpus to checkpoint folder."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from steprnn.runtime.atomic import write_bytes
from steprnn.runtime.bundle.vocabulary import Vocabulary
from steprnn.runtime.claims import claimed
from steprnn.runtime.errors import UsageError
from steprnn.runtime.files import HISTORY, RESUME, VOCABULARY

from . import checkpoint, corpus, history
from .callbacks import Backup, Best, Epochs, Samples
from .checkpoint import Training
from .model import build
from .resume import State
from .sampler import Sampler
from .settings import Settings
from .trainer import Trainer, to_bytes
from .windows import Windows, held_out


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")


def train(
    out: str | Path = "checkpoint",
    *,
    source: str | Path | None = None,
    sha256: str | None = None,
    settings: Settings | None = None,
    prompts: Sequence[str] = (),
    sample_every: int = 50,
    tensorboard: str | Path | None = None,
    overwrite: bool = False,
    backup_every: float = 10.0,
    verbose: int = 1,
    say: Callable[[str], None] = _to_stderr,
) -> Training:
    """Train a model on a corpus and leave a checkpoint folder at `out`; returns its record.

    `source` is a corpus file or URL, None the embedded lyrics; `sha256` is what it must have.
    An unfinished run in `out` with the same settings goes on where it was, with the result it would have
    had; a finished one is left as it is. `backup_every` seconds, the state is written for that.
    `verbose` is that of Keras's `fit`, whose progress bar goes to stdout; `say` gets the samples, a line
    each. Sets the process's random seeds.

    Raises `CorpusError`, `CheckpointError`, `UsageError` (a prompt outside the vocabulary among them, and
    another process that trains in `out`); at
    Ctrl-C a `KeyboardInterrupt` whose message says what is kept.
    """
    settings = settings or Settings()
    if keras.backend.backend() != "tensorflow":
        raise UsageError(f"Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow")
    if tensorboard is not None and importlib.util.find_spec("tensorboard") is None:
        raise UsageError(
            "--tensorboard needs TensorBoard, which is not installed; run: pip install tensorboard"
        )
    if sample_every < 1:
        raise UsageError(f"--sample-every is {sample_every}; expected at least 1")
    text = corpus.load(
        source,
        sha256=sha256,
        characters=settings.characters,
        keep_line_breaks=settings.keep_line_breaks,
    )
    vocabulary = Vocabulary.of(text.text)
    for prompt in prompts:
        if not prompt:
            raise UsageError("a prompt is empty; expected at least one character")
        vocabulary.encode(prompt)
    seen, unseen = text.split(settings.holdout)
    windows = Windows(
        vocabulary.encode(seen), batch=settings.batch, window=settings.window, seed=settings.seed
    )
    validation = held_out(vocabulary.encode(unseen)) if settings.holdout else None

    folder = Path(out)
    training = Training.of(settings, text, _versions())
    with ExitStack() as claims:
        if held := folder.is_dir():
            claims.enter_context(claimed(folder))
        if finished := checkpoint.enter(folder, training, settings, overwrite=overwrite):
            say(f"{folder} is finished already; nothing to do")
            return finished
        if not held:
            claims.enter_context(claimed(folder))
        state = State.read(folder / RESUME)
        run = _Run(folder, training, settings, len(vocabulary), windows, state, backup_every)
        if state is not None:
            say(f"going on after epoch {len(state.progress.history)} of {settings.epochs}")
        vocabulary.write(folder / VOCABULARY)

        # Before the samples, so that its line ends first.
        shown: list[Any] = [keras.callbacks.ProgbarLogger()]
        if prompts:
            shown.append(Samples(Sampler(run.model, vocabulary), prompts, sample_every, say))
        if tensorboard is not None:
            shown.append(keras.callbacks.TensorBoard(str(tensorboard), write_graph=False))
        try:
            run.fit(validation, shown, verbose)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(run.interrupted()) from None
        return run.finish()


class _Run:
    """The parts of a run that its end needs, however it ends."""

    def __init__(
        self,
        folder: Path,
        training: Training,
        settings: Settings,
        vocabulary: int,
        windows: Windows,
        state: State | None,
        backup_every: float,
    ) -> None:
        self.folder, self.training, self.settings, self.windows = folder, training, settings, windows
        keras.utils.set_random_seed(settings.seed)
        self.model = build(vocabulary, settings)
        self.trainer = Trainer(self.model, settings)
        self.first = 0
        if state is not None:
            self._restore(state)
        self.epochs = Epochs(windows.characters, state.progress.history if state else [])
        self.best = Best("val_loss" if settings.holdout else "loss", settings.patience, state)
        self.backup = Backup(folder / RESUME, self.epochs, self.best, self._keep, every=backup_every)
        self._record().write(folder)

    def fit(self, validation: Any, shown: list[Any], verbose: int) -> None:
        """Run Keras's fit from the first epoch that is not over."""
        rate = keras.callbacks.LearningRateScheduler(lambda epoch, _: self.settings.rate(epoch))
        self.trainer.fit(
            self.windows.dataset(range(self.first, self.settings.epochs)),
            steps_per_epoch=len(self.windows),
            initial_epoch=self.first,
            epochs=self.settings.epochs,
            validation_data=validation,
            callbacks=[self.epochs, rate, *shown, self.best, self.backup],
            shuffle=False,
            verbose=verbose,
        )

    def finish(self) -> Training:
        """Write the best model, the picture and the record; then nothing is left to go on from."""
        write_bytes(self.folder / HISTORY, self._picture())
        checkpoint.store(self.folder, replace(self._record(), finished=True), to_bytes(self.model))
        (self.folder / RESUME).unlink(missing_ok=True)
        return Training.read(self.folder)

    def interrupted(self) -> str:
        """Keep the best model so far; returns what to tell the user."""
        if self.best.best_weights is None:
            return "interrupted in the first epoch; there is nothing to keep yet"
        write_bytes(self.folder / HISTORY, self._picture())
        self.backup.write()
        return (
            f"interrupted after {len(self.epochs.history)} of {self.settings.epochs} epochs; {self.folder}"
            f" has the best model (epoch {self.best.best_epoch + 1}); the same command goes on from here"
        )

    def _keep(self) -> None:
        now = self.trainer.get_weights()
        self.trainer.set_weights(self.best.best_weights)
        model = to_bytes(self.model)
        self.trainer.set_weights(now)
        checkpoint.store(self.folder, self._record(), model)

    def _restore(self, state: State) -> None:
        self.first = len(state.progress.history)
        variables = [*self.trainer.variables, *self.trainer.optimizer.variables]
        arrays = [*state.variables, *state.optimizer]
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)

    def _record(self) -> Training:
        best = None if self.best.best_weights is None else int(self.best.best_epoch) + 1
        return self.training.advance(self.epochs.history, best)

    def _picture(self) -> bytes:
        return history.draw(self.epochs.history, self._record().best_epoch)


def _versions() -> dict[str, str]:
    return {
        "steprnn": version("steprnn"),
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "python": platform.python_version(),
    }
