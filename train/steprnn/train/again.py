"""A finished run that is given more epochs: the state that it goes on from, out of its best model."""

from __future__ import annotations

from pathlib import Path

import keras

from steprnn.runtime.files import MODEL, RESUME

from .checkpoint import Training
from .model import build
from .resume import Progress, State
from .settings import Settings
from .trainer import Trainer


def begin_again(folder: Path, finished: Training, settings: Settings, vocabulary: int) -> None:
    """Write `resume.npz` beside a finished model: its best weights, its history, and an optimizer at rest.

    The optimizer's moments went with the end of the run, so that this is not the run that would have had
    all the epochs from the beginning.
    """
    keras.utils.set_random_seed(settings.seed)
    model = build(vocabulary, settings)
    trainer = Trainer(model, settings)
    model.set_weights(keras.models.load_model(folder / MODEL).get_weights())
    best = (finished.best_epoch or 1) - 1
    loss = finished.history[best]["held_out_loss" if settings.holdout else "loss"]
    state = State(
        Progress(finished.history, loss, best, wait=0, before=len(finished.history)),
        [variable.numpy() for variable in trainer.variables],
        [variable.numpy() for variable in trainer.optimizer.variables],
        [variable.numpy() for variable in trainer.metrics_variables],
        trainer.get_weights(),
    )
    state.write(folder / RESUME)
