"""A training run from corpus to checkpoint folder."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from steprnn.runtime.atomic import write_bytes
from steprnn.runtime.claims import claimed
from steprnn.runtime.errors import UsageError
from steprnn.runtime.files import HISTORY, RESUME, VOCABULARY

from . import checkpoint, history
from .again import begin_again
from .callbacks import Backup, Best, Epochs, Once, Samples
from .checkpoint import Training
from .model import build
from .prepared import Prepared, check_sample_every, prepare
from .progress import Shown
from .resume import State
from .sampler import Sampler
from .settings import Settings
from .trainer import Trainer, to_bytes
from .windows import Windows, held_out

SAMPLES = 6  # of each prompt in a run, where nobody says how many


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")


def train(
    out: str | Path = "checkpoint",
    *,
    source: str | Path | None = None,
    sha256: str | None = None,
    settings: Settings | None = None,
    prompts: Sequence[str] = (),
    sample_every: int | None = None,
    unknown: str = "error",
    tensorboard: str | Path | None = None,
    overwrite: bool = False,
    backup_every: float = 10.0,
    verbose: int = 1,
    say: Callable[[str], None] = _to_stderr,
) -> Training:
    """Train a model on a corpus and leave a checkpoint folder at `out`; returns its record.

    `source` is a corpus file or URL, None the embedded lyrics; `sha256` is what it must have.
    An unfinished run in `out` with the same settings goes on where it was, with the result it would have
    had; a finished one is left as it is, or goes on from its best model where only `settings.epochs` is
    larger now. `backup_every` seconds, the state is written for that.

    `prompts` are continued after every `sample_every`-th epoch (None: six times in a run) and at the end;
    `unknown="skip"` leaves out their characters that the text does not have. `verbose=0` is silent but for
    what `say` gets: the samples, a line each; 1 tells on stderr what is trained on, and how far it has
    come. Sets the process's random seeds.

    Raises `CorpusError`, `CheckpointError`, `UsageError` (a prompt outside the vocabulary among them, and
    another process that trains in `out`); at
    Ctrl-C a `KeyboardInterrupt` whose message says what is kept.
    """
    settings = settings or Settings()
    prepared = prepare(source, sha256, settings, prompts, unknown)
    return train_prepared(
        out,
        prepared,
        settings,
        sample_every=sample_every,
        tensorboard=tensorboard,
        overwrite=overwrite,
        backup_every=backup_every,
        verbose=verbose,
        say=say,
    )


def train_prepared(
    out: str | Path,
    prepared: Prepared,
    settings: Settings,
    *,
    sample_every: int | None = None,
    tensorboard: str | Path | None = None,
    overwrite: bool = False,
    backup_every: float = 10.0,
    verbose: int = 1,
    say: Callable[[str], None] = _to_stderr,
) -> Training:
    """Train on a text that was looked at already; the rest is as in `train`."""
    if keras.backend.backend() != "tensorflow":
        raise UsageError(f"Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow")
    if tensorboard is not None and importlib.util.find_spec("tensorboard") is None:
        raise UsageError(
            "--tensorboard needs TensorBoard, which is not installed; run: pip install tensorboard"
        )
    check_sample_every(sample_every)
    vocabulary = prepared.vocabulary
    seen, unseen = prepared.corpus.split(settings.holdout)
    windows = Windows(
        vocabulary.encode(seen), batch=settings.batch, window=settings.window, seed=settings.seed
    )
    validation = held_out(vocabulary.encode(unseen)) if settings.holdout else None

    folder = Path(out)
    training = Training.of(settings, prepared.corpus, _versions())
    with ExitStack() as claims:
        if held := folder.is_dir():
            claims.enter_context(claimed(folder))
        there = checkpoint.enter(folder, training, settings, overwrite=overwrite)
        if there and there.finished and not settings.difference(there.settings):
            say(f"{folder} is finished already; nothing to do")
            return there
        if not held:
            claims.enter_context(claimed(folder))
        if verbose:
            say(prepared.summary)
            say(_processor())
        anew = ""
        if there:
            training = replace(training, went_on_after=there.went_on_after)
        if there and there.finished:
            training.went_on_after.append(len(there.history))
            begin_again(folder, there, settings, len(vocabulary))
            anew = " of a finished run, from its best model; Adam's moments begin anew"
        state = State.read(folder / RESUME)
        claims.enter_context(_enough_memory(settings))
        run = _Run(folder, training, settings, len(vocabulary), windows, state, backup_every)
        if state is not None:
            say(f"going on after {run.reached()}{anew}")
        vocabulary.write(folder / VOCABULARY)

        shown: list[Any] = []
        bar = Shown(run.epochs, settings.epochs, len(windows), settings.batch * settings.window)
        if verbose:
            shown.append(bar)
        every = sample_every or -(-settings.epochs // SAMPLES)
        samples = Samples(Sampler(run.model, vocabulary), prepared.prompts, every, say)
        shown.append(samples)
        if tensorboard is not None:
            shown.append(keras.callbacks.TensorBoard(str(tensorboard), write_graph=False))
        with ExitStack() as showing:
            if verbose:
                showing.callback(bar.end)
                bar.begin(run.first * len(windows) + run.step)
            try:
                run.fit(validation, shown)
            except KeyboardInterrupt as interrupt:
                raise type(interrupt)(run.interrupted()) from None
            samples.after(len(run.epochs.history))
        return run.finish()


@contextmanager
def _enough_memory(settings: Settings) -> Iterator[None]:
    """Tell in words where TensorFlow cannot have what a model takes."""
    try:
        yield
    except tf.errors.ResourceExhaustedError:
        raise UsageError(
            f"not enough memory for --units {settings.units} --layers {settings.layers} "
            f"--batch {settings.batch} --window {settings.window}; lower one of them"
        ) from None


def _processor() -> str:
    found = len(tf.config.list_physical_devices("GPU"))
    return f"training on {found} GPU(s)" if found else "training on the CPU; TensorFlow finds no GPU"


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

    def fit(self, validation: Any, shown: list[Any]) -> None:
        """Run Keras's fit: once, or first for what is left of an epoch and then for the others."""
        if self.step:
            once = Once()
            self._fit(validation, [*shown, self.best, self.backup, once])
            self.first, self.step = self.first + 1, 0
            if once.over or self.first == self.settings.epochs:
                return
        self._fit(validation, [*shown, self.best, self.backup])

    def _fit(self, validation: Any, callbacks: list[Any]) -> None:
        rate = keras.callbacks.LearningRateScheduler(lambda epoch, _: self.settings.rate(epoch))
        self.trainer.fit(
            self.windows.dataset(range(self.first, self.settings.epochs), skip=self.step),
            steps_per_epoch=len(self.windows) - self.step,
            initial_epoch=self.first,
            epochs=self.settings.epochs,
            validation_data=validation,
            callbacks=[self.epochs, rate, *callbacks],
            shuffle=False,
            verbose=0,
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
