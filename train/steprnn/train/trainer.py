"""What `fit` is called on: the stock model behind the faster forward pass, with the state carried along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from steprnn.runtime.claims import temporary_folder
from steprnn.runtime.files import MODEL

from . import recurrence
from .settings import Settings


class Trainer(keras.Model):  # type: ignore[misc] # Keras ships no types
    """Trains the variables of `model`; adds the states between two windows, which are no part of it.

    Called with tokens int32 `[batch, time]`, it returns logits float32 `[batch, time, vocabulary]` and
    leaves the states after the last step for the next call. Training carries `settings.batch` rows, the
    held-out text one. Both begin at zero after `reset_states`.
    """

    def __init__(self, model: Any, settings: Settings) -> None:
        super().__init__(name="trainer")
        self.model = model
        self._carried = {
            training: [[self._zeros(rows, units) for units in layer] for layer in recurrence.sizes(model)]
            for training, rows in ((True, settings.batch), (False, 1))
        }
        self.built = True
        self.compile(
            optimizer=keras.optimizers.Adam(settings.learning_rate, global_clipnorm=settings.clip or None),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=True,
        )
        self.optimizer.build(self.trainable_variables)

    def call(self, tokens: Any, training: bool = False) -> Any:
        carried = self._carried[bool(training)]
        states = [[tf.convert_to_tensor(state) for state in layer] for layer in carried]
        logits, after = recurrence.forward(self.model, tokens, states, training=bool(training))
        for variables, values in zip(carried, after, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        return logits

    def reset_states(self) -> None:
        """Begin a text: all states zero."""
        for layers in self._carried.values():
            for layer in layers:
                for state in layer:
                    state.assign(tf.zeros(state.shape))

    def get_metrics_result(self) -> dict[str, Any]:
        """The loss, and its exponential: the perplexity, at 1 when every character is foreseen."""
        results = dict(super().get_metrics_result())
        results["perplexity"] = keras.ops.exp(results["loss"])
        return results

    def _zeros(self, rows: int, units: int) -> Any:
        return self.add_weight(shape=(rows, units), initializer="zeros", trainable=False)


def to_bytes(model: Any) -> bytes:
    """The `.keras` file of a model."""
    with temporary_folder() as folder:  # Keras writes to a path, and decides by its ending
        path = Path(folder) / MODEL
        model.save(path)
        return path.read_bytes()
