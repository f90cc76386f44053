"""The original model on whole sequences: what the chained step must equal."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops, tree
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from steprnn.runtime.parity.reference import Arrays

from ..formats.frozen import PRECISIONS, retype
from .analysis import Analysis


class SequenceModel:
    """Runs a Keras model on whole sequences by the step's names, whatever batch size it was built for.

    `fixed_steps` is the sequence length that it was built for, None where it is free.
    """

    def __init__(self, model: keras.Model, analysis: Analysis) -> None:
        self._model = model
        self._analysis = analysis
        self._static = {t.name for t in analysis.spec.inputs if t.static}
        first = analysis.spec.stepped[0]
        self.fixed_steps = model.inputs[analysis.inputs[first.name]].shape[1]

    def __call__(self, inputs: Arrays) -> Arrays:
        """Inputs `[batch, steps, ...]` by name; outputs by name, `[batch, steps, ...]` or `[batch, ...]`.

        Of a static input the first step is meant. Initial states that the model takes as inputs are zero. A
        stateful model begins from zero and gets its own states back afterwards.
        """
        rows = len(next(iter(inputs.values())))
        size = self._model.inputs[0].shape[0] or rows
        pieces = [
            self._run({n: a[start : start + size] for n, a in inputs.items()})
            for start in range(0, rows, size)
        ]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def exactly(self, inputs: Arrays) -> Arrays:
        """The same, computed in float64: what the model's own float32 is an approximation of."""
        given = self.given(inputs)
        function = tf.function(lambda *tensors: self._outputs(tensors), autograph=False)
        specs = [tf.TensorSpec(t.shape, t.dtype) for t in given]
        frozen = convert_variables_to_constants_v2(function.get_concrete_function(*specs))
        graph = frozen.graph.as_graph_def()
        retype(graph, PRECISIONS["float64"])
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            tf.graph_util.import_graph_def(graph, name="")
            feeds = {t.name: array.numpy() for t, array in zip(frozen.inputs, given, strict=True)}
            outputs = session.run([t.name for t in frozen.outputs], feeds)
        return self._named(outputs, len(next(iter(inputs.values()))))

    def _outputs(self, given: Any) -> list[Any]:
        structure = getattr(self._model, "_inputs_struct", None)
        packed = given[0] if structure is None else tree.pack_sequence_as(structure, list(given))
        outputs: list[Any] = tree.flatten(self._model(packed, training=False))
        return outputs

    def _named(self, outputs: list[Any], rows: int) -> Arrays:
        return {
            name: np.asarray(ops.convert_to_numpy(outputs[i]), np.float64)[:rows]
            for name, i in self._analysis.outputs.items()
        }

    def _run(self, inputs: Arrays) -> Arrays:
        """At most as many rows as the model was built for."""
        given = self.given(inputs)
        stateful = [layer for layer in self._model._flatten_layers() if getattr(layer, "stateful", False)]
        kept = [[ops.convert_to_numpy(v) for v in tree.flatten(layer.states)] for layer in stateful]
        for layer in stateful:
            layer.reset_state()
        outputs = self._outputs(given)
        for layer, values in zip(stateful, kept, strict=True):
            for variable, value in zip(tree.flatten(layer.states), values, strict=True):
                variable.assign(value)
        return self._named(outputs, len(next(iter(inputs.values()))))

    def steps_of(self, inputs: Arrays) -> int:
        """Time steps of inputs `[batch, steps, ...]`."""
        return int(inputs[self._analysis.spec.stepped[0].name].shape[1])

    def given(self, inputs: Arrays) -> list[Any]:
        """The model's inputs in their order, with the rows repeated up to the batch size it was built for."""
        names = {position: name for name, position in self._analysis.inputs.items()}
        rows = len(next(iter(inputs.values())))
        given = []
        for i, tensor in enumerate(self._model.inputs):
            array = inputs[names[i]] if i in names else np.zeros((rows, *tensor.shape[1:]))
            if i in names and names[i] in self._static:
                array = array[:, 0]
            size = tensor.shape[0] or rows
            given.append(ops.convert_to_tensor(np.resize(array, (size, *array.shape[1:])), tensor.dtype))
        return given
