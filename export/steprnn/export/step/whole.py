"""The original model on whole sequences: what the chained step must equal."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops, tree

from steprnn.runtime.parity.measure import Arrays
from steprnn.runtime.spec import StepSpec


class Whole:
    """Runs a Keras model on whole sequences by the step's names, whatever batch size it was built for.

    `inputs` maps a name of the spec to the position among the model's inputs, `outputs` likewise.
    `fixed_steps` is the sequence length the model was built for, None where it is free.
    """

    def __init__(
        self, model: keras.Model, spec: StepSpec, inputs: dict[str, int], outputs: dict[str, int]
    ) -> None:
        self._model = model
        self._inputs = inputs
        self._outputs = outputs
        first = spec.inputs[0]
        shape = model.inputs[inputs[first.name]].shape
        self.fixed_steps = shape[1] if len(shape) == len(first.shape) + 2 else None

    def __call__(self, inputs: Arrays) -> Arrays:
        """Inputs `[batch, steps, ...]` by name; outputs by name, `[batch, steps, ...]` or `[batch, ...]`.

        Initial states that the model takes as inputs are zero. A stateful model begins from zero and
        gets its own states back afterwards.
        """
        rows = len(next(iter(inputs.values())))
        given = [
            self._batch(self._by_position(inputs, i, rows), tensor)
            for i, tensor in enumerate(self._model.inputs)
        ]
        stateful = [layer for layer in self._model._flatten_layers() if getattr(layer, "stateful", False)]
        kept = [[ops.convert_to_numpy(v) for v in tree.flatten(layer.states)] for layer in stateful]
        for layer in stateful:
            layer.reset_state()
        structure = getattr(self._model, "_inputs_struct", None)
        packed = given[0] if structure is None else tree.pack_sequence_as(structure, given)
        outputs = tree.flatten(self._model(packed, training=False))
        for layer, values in zip(stateful, kept, strict=True):
            for variable, value in zip(tree.flatten(layer.states), values, strict=True):
                variable.assign(value)
        return {
            name: np.asarray(ops.convert_to_numpy(outputs[i]), np.float64)[:rows]
            for name, i in self._outputs.items()
        }

    def _by_position(self, inputs: Arrays, position: int, rows: int) -> Any:
        name = next((n for n, i in self._inputs.items() if i == position), None)
        tensor = self._model.inputs[position]
        if name is None:
            return np.zeros((rows, *tensor.shape[1:]), tensor.dtype)
        return inputs[name].astype(tensor.dtype)

    @staticmethod
    def _batch(array: Any, tensor: Any) -> Any:
        """Repeat the rows up to the batch size that the model was built for."""
        size = tensor.shape[0]
        return array if size is None else np.resize(array, (size, *array.shape[1:]))
