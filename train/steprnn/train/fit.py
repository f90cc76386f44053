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
from .callbacks import Backup, Best, Epochs, Once, Samples
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
            say(f"going on after {run.reached()}")
        vocabulary.write(folder / VOCABULARY)

        # Before the samples, so that its line ends first.
        shown: list[Any] = [keras.callbacks.ProgbarLogger()]
        if prompts:
            shown.append(Samples(Sampler(run.model, vocabulary), prompts, sample_every, say))
        if tensorboard is not None:
            shown.append(keras.callbacks.TensorBoard(str(tensorboard), write_graph=False))
        try:
            run.fit(validation, shown, verbose)
        except KeyboardInterrupt as interrupt:
            raise type(interrupt)(run.interrupted()) from None
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
        self.first = self.step = 0
        if state is not None:
            self._restore(state)
        self.epochs = Epochs(windows.characters, state)
        self.best = Best("val_loss" if settings.holdout else "loss", settings.patience, state)
        self.backup = Backup(
            folder / RESUME,
            self.epochs,
            self.best,
            self._keep,
            state,
            steps=len(windows),
            every=backup_every,
        )
        self._kept: tuple[int | None, str | None] = (None, None)  # the epoch of the model in the folder
        self._record().write(folder)

    def fit(self, validation: Any, shown: list[Any], verbose: int) -> None:
        """Run Keras's fit: once, or first for what is left of an epoch and then for the others."""
        if self.step:
            once = Once()
            self._fit(validation, [*shown, self.best, self.backup, once], verbose)
            self.first, self.step = self.first + 1, 0
            if once.over or self.first == self.settings.epochs:
                return
        self._fit(validation, [*shown, self.best, self.backup], verbose)

    def _fit(self, validation: Any, callbacks: list[Any], verbose: int) -> None:
        rate = keras.callbacks.LearningRateScheduler(lambda epoch, _: self.settings.rate(epoch))
        self.trainer.fit(
            self.windows.dataset(range(self.first, self.settings.epochs), skip=self.step),
            steps_per_epoch=len(self.windows) - self.step,
            initial_epoch=self.first,
            epochs=self.settings.epochs,
            validation_data=validation,
            callbacks=[self.epochs, rate, *callbacks],
            shuffle=False,
            verbose=verbose,
        )

    def finish(self) -> Training:
        """Write the best model, the picture and the record; then nothing is left to go on from."""
        self.trainer.set_weights(self.best.best_weights)
        write_bytes(self.folder / HISTORY, self._picture())
        checkpoint.store(self.folder, replace(self._record(), finished=True), to_bytes(self.model))
        (self.folder / RESUME).unlink(missing_ok=True)
        return Training.read(self.folder)

    def interrupted(self) -> str:
        """Keep what was learnt; returns what to tell the user."""
        self.backup.look()
        if self.epochs.history:
            write_bytes(self.folder / HISTORY, self._picture())
        elif not self.backup.step:
            return "interrupted before the first step was over; there is nothing to keep yet"
        self.backup.write()
        kept = f"has the best model (epoch {self.best.best_epoch + 1})" if self.epochs.history else "keeps it"
        return f"interrupted after {self.reached()}; {self.folder} {kept}; the same command goes on from here"

    def reached(self) -> str:
        """How far the run has come, in words."""
        step = f" and {self.backup.step} of {len(self.windows)} steps" if self.backup.step else ""
        return f"{len(self.epochs.history)} of {self.settings.epochs} epochs{step}"

    def _keep(self) -> None:
        """Write the record, and the best model where it is another than the one in the folder."""
        record = self._record()
        if record.best_epoch == self._kept[0]:
            replace(record, model_sha256=self._kept[1]).write(self.folder)
            return
        now = self.trainer.get_weights()
        self.trainer.set_weights(self.best.best_weights)
        model = to_bytes(self.model)
        self.trainer.set_weights(now)
        self._kept = record.best_epoch, checkpoint.store(self.folder, record, model)

    def _restore(self, state: State) -> None:
        self.first, self.step = len(state.progress.history), state.progress.step
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
