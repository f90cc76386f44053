"""The original model on whole sequences: what the chained step must equal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops, tree
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from steprnn.runtime.errors import ExportError
from steprnn.runtime.parity.reference import Arrays

from ..formats.frozen import PRECISIONS, retype
from .analysis import Analysis
from .graph import operations, walk

LONG = 64  # time steps in one call, from which on tracing it is the quicker


class SequenceModel:
    """Runs a Keras model on whole sequences by the step's names, whatever batch size it was built for.

    One that was built for a single time step is called step by step where it keeps its states or takes back
    those that it gave; else its layers are run on longer sequences, if they take them. `fixed_steps` is the
    sequence length that a model was built for, None where any will do.
    """

    def __init__(self, model: keras.Model, analysis: Analysis) -> None:
        self._model = model
        self._analysis = analysis
        spec = analysis.spec
        self._static = set(analysis.inputs) - {t.name for t in spec.stepped}
        self._stateful = [m for m in model._flatten_layers() if getattr(m, "stateful", False)]
        stepped = {t.name: analysis.inputs[t.name] for t in spec.stepped}
        lengths = {n: analysis.flat.get(i, model.inputs[i].shape[1]) for n, i in stepped.items()}
        length = _common_length(lengths)
        states = [i for i in range(len(model.inputs)) if i not in analysis.inputs.values()]
        handed = bool(states) and all(i in analysis.carried for i in states)
        self._calls_by_step = length == 1 and (handed or (bool(self._stateful) and not states))
        self._runs_longer = length == 1 and not self._calls_by_step and not states and self._takes(4)
        # A time step takes Keras some 5 ms where it runs eagerly, and 0.2 ms as a graph once that is traced.
        self._one_call = tf.function(self._outputs_of, autograph=False)
        # Of `TimeDistributed` Keras traces every time step by itself.
        self._is_quick_to_trace = not any(
            isinstance(op, keras.layers.TimeDistributed) for op in operations(analysis.graph)
        )
        self.fixed_steps = None if self._calls_by_step or self._runs_longer else length

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
        specs = [tf.TensorSpec(t.shape, t.dtype) for t in given]
        function = tf.function(self._outputs_of, autograph=False).get_concrete_function(*specs)
        frozen = convert_variables_to_constants_v2(function)
        graph = frozen.graph.as_graph_def()
        retype(graph, PRECISIONS["float64"])
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            tf.graph_util.import_graph_def(graph, name="")
            feeds = {t.name: array.numpy() for t, array in zip(frozen.inputs, given, strict=True)}
            outputs = session.run([t.name for t in frozen.outputs], feeds)
        rows = len(next(iter(inputs.values())))
        return {name: outputs[i][:rows] for name, i in self._analysis.outputs.items()}

    def _run(self, inputs: Arrays) -> Arrays:
        """At most as many rows as the model was built for."""
        rows = len(next(iter(inputs.values())))
        with self._from_zero():
            calls = list(self._calls(inputs))
        names = self._analysis.outputs
        outputs = {
            n: [np.asarray(ops.convert_to_numpy(call[i]), np.float64)[:rows] for call in calls]
            for n, i in names.items()
        }
        if not self._calls_by_step:
            return {n: parts[0] for n, parts in outputs.items()}
        ranks = {t.name: len(t.shape) for t in self._analysis.spec.outputs}
        return {  # with a time axis of 1, or without
            n: np.concatenate(p, axis=1) if p[0].ndim == ranks[n] + 2 else np.stack(p, axis=1)
            for n, p in outputs.items()
        }

    def _outputs_of(self, *given: Any) -> list[Any]:
        structure = getattr(self._model, "_inputs_struct", None)
        packed = given[0] if structure is None else tree.pack_sequence_as(structure, list(given))
        outputs: list[Any] = tree.flatten(self._model(packed, training=False))
        return outputs

    def _called(self, given: list[Any], traced: bool) -> list[Any]:
        if traced:
            with contextlib.suppress(
                Exception
            ):  # eagerly a state may grow to its rows, in a graph it may not
                outputs: list[Any] = self._one_call(*given)
                return outputs
        return self._outputs_of(*given)

    def _calls(self, inputs: Arrays) -> Iterator[list[Any]]:
        """The outputs of each call of the model."""
        back: dict[int, Any] = {}
        for t in range(self.steps_of(inputs)) if self._calls_by_step else [slice(None)]:
            part = {n: a[:, t : t + 1] if isinstance(t, int) else a[:, t] for n, a in inputs.items()}
            given = self.given(part)
            given = [back.get(i, tensor) for i, tensor in enumerate(given)]
            if self._runs_longer:
                yield walk(self._analysis.graph, given, lambda call: call.run())
                continue
            long = self._is_quick_to_trace and self.steps_of(inputs) > LONG
            outputs = self._called(given, traced=self._calls_by_step or long)
            back = {i: outputs[j] for i, j in self._analysis.carried.items()}
            yield outputs

    @contextlib.contextmanager
    def _from_zero(self) -> Iterator[None]:
        """The states of stateful layers at zero, and afterwards as they were."""
        kept = [[ops.convert_to_numpy(v) for v in tree.flatten(layer.states)] for layer in self._stateful]
        for layer in self._stateful:
            layer.reset_state()
        try:
            yield
        finally:
            for layer, values in zip(self._stateful, kept, strict=True):
                for variable, value in zip(tree.flatten(layer.states), values, strict=True):
                    variable.assign(value)

    def _takes(self, steps: int) -> bool:
        """Whether the layers run on so many time steps, though the model was built for one."""
        spec, start = self._analysis.spec, self._analysis.start
        taken = {t.name: t for t in (*spec.inputs, *(start.inputs if start else ()))}
        given = self.given({n: np.zeros((1, steps, *t.shape)) for n, t in taken.items()})
        try:
            outputs = walk(self._analysis.graph, given, lambda call: call.run())
        except Exception:  # some layers keep the length that they were built for
            return False
        shapes = [tuple(outputs[self._analysis.outputs[t.name]].shape[1:]) for t in spec.outputs]
        pairs = zip(shapes, spec.outputs, strict=True)
        return all(shape in ((steps, *t.shape), t.shape) for shape, t in pairs)

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
            if i in self._analysis.flat:
                array = array.reshape(len(array), -1)
            size = tensor.shape[0] or rows
            given.append(ops.convert_to_tensor(np.resize(array, (size, *array.shape[1:])), tensor.dtype))
        return given


def _common_length(lengths: dict[str, int | None]) -> int | None:
    """The sequence length that all inputs were built for; None where it is free."""
    fixed = {name: length for name, length in lengths.items() if length is not None}
    if len(set(fixed.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in fixed.items())
        raise ExportError(
            f"the inputs have sequences of different lengths ({told}), which are not stepped together; export"
            " what reads each as a model of its own"
        )
    return next(iter(fixed.values()), None)
