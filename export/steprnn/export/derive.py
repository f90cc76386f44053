"""Derive the single step from a functional Keras model by walking its own graph.

Every layer runs as it is on a time axis of length 1; only where the operation is an `RNN` is its
cell called once, on the states the caller holds. Nothing here knows a particular model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from steprnn.runtime.errors import ExportError
from steprnn.runtime.spec import NEXT, StepSpec, TensorSpec

Tensors = dict[str, Any]

# They act on each element or on the last axis alone, so they give the same without a time axis, and
# leave no reshapes in the graph.
TIMELESS = ("Dense", "Embedding", "OneHot", "Dropout", "Activation")


@dataclass(frozen=True)
class Step:
    """The contract of a step and the function that computes it on Keras's own variables.

    `call` maps tensors named as the inputs and states of `spec` to tensors named as its outputs and
    next states. The batch axis is free.
    """

    spec: StepSpec
    call: Callable[[Tensors], Tensors]

    def signature(self, batch: int | None) -> Tensors:
        """TensorFlow's specification of the inputs and states, by name."""
        return {
            t.name: tf.TensorSpec([batch, *t.shape], t.dtype, t.name)
            for t in (*self.spec.inputs, *self.spec.states)
        }

    def function(self, batch: int | None) -> Any:
        """A concrete function of keyword arguments, traced for this batch size (None: any)."""
        step = tf.function(lambda **tensors: self.call(tensors), autograph=False)
        return step.get_concrete_function(**self.signature(batch))


def derive(model: keras.Model) -> Step:
    """The step of a functional or Sequential model whose recurrent layers are all causal.

    Raises `ExportError` where the model has no such graph, or no recurrent layer.
    """
    walk = _graph_walk(model)
    recurrent = [op for op in walk.operations if isinstance(op, layers.RNN)]
    if not recurrent:
        raise ExportError(f"model {model.name!r} has no recurrent layer; a step needs at least one")
    for op in recurrent:
        if op.go_backwards:
            raise ExportError(f"layer {op.name!r} reads backwards (go_backwards); a step only knows the past")
    # The oracle's model computes in float64 and is stepped in it; every other is float32 outside.
    precision = "float64" if recurrent[0].compute_dtype == "float64" else "float32"
    states = {op.name: _state_specs(op, precision, alone=len(recurrent) == 1) for op in recurrent}
    inputs = tuple(
        TensorSpec(name, keras.backend.standardize_dtype(t.dtype), tuple(t.shape[2:]))
        for name, t in zip(_names(walk.inputs, "x"), walk.inputs, strict=True)
    )
    spoken = [t for t in walk.outputs if not _is_final_state(t)]
    if not spoken:
        raise ExportError(f"model {model.name!r} returns only states; a step needs an output")
    output_names = ["y"] if len(spoken) == 1 else [f"y_{i}" for i in range(len(spoken))]
    outputs = tuple(
        TensorSpec(name, precision, tuple(t.shape[2:] if _has_time(t, walk) else t.shape[1:]))
        for name, t in zip(output_names, spoken, strict=True)
    )
    spec = StepSpec(inputs, tuple(s for op in recurrent for s in states[op.name]), outputs)

    def call(tensors: Tensors) -> Tensors:
        time = _TimeAxis()
        results: Tensors = {}

        def operation(op: Any) -> Callable[..., Any]:
            if isinstance(op, layers.RNN):
                return lambda sequence, **_: one_step(op, sequence)
            if type(op).__name__ in TIMELESS:
                return lambda sequence, *rest, **options: time.add(op(time.drop(sequence), *rest, **options))
            if isinstance(op, layers.TimeDistributed):
                return lambda sequence, **_: time.add(op.layer(time.drop(sequence)))
            return op  # type: ignore[no-any-return]

        def one_step(op: layers.RNN, sequence: Any) -> Any:
            names = [s.name for s in states[op.name]]
            before = tf.nest.pack_sequence_as(op.cell.state_size, [tensors[n] for n in names])
            y, after = op.cell(time.drop(sequence), before if isinstance(before, list) else [before])
            after = tf.nest.flatten(after)
            results.update({NEXT + n: s for n, s in zip(names, after, strict=True)})
            y = time.add(y) if op.return_sequences else y
            return [y, *after] if op.return_state else y

        given = walk._run_through_graph([time.add(tensors[t.name]) for t in inputs], operation_fn=operation)
        given = [
            g for g, t in zip(tf.nest.flatten(given), walk.outputs, strict=True) if not _is_final_state(t)
        ]
        for out, value, symbolic in zip(outputs, given, spoken, strict=True):
            value = time.drop(value) if _has_time(symbolic, walk) else value
            results[out.name] = ops.cast(value, out.dtype)
        return {name: results[name] for name in spec.result_names}

    return Step(spec, call)


class _TimeAxis:
    """Adds and drops the time axis of length 1, and remembers the pairs, so that they cancel out."""

    def __init__(self) -> None:
        self._without: dict[int, tuple[Any, Any]] = {}

    def add(self, tensor: Any) -> Any:
        expanded = ops.expand_dims(tensor, 1)
        self._without[id(expanded)] = (tensor, expanded)  # holding it keeps its id from being reused
        return expanded

    def drop(self, tensor: Any) -> Any:
        pair = self._without.get(id(tensor))
        return pair[0] if pair else ops.squeeze(tensor, 1)


def _graph_walk(model: keras.Model) -> Any:
    """The functional graph of a model: the one place that leans on Keras's private walk."""
    if isinstance(model, keras.Sequential):
        model = model._functional
    if not hasattr(model, "_run_through_graph"):
        raise ExportError(
            f"{type(model).__name__} {getattr(model, 'name', '')!r} is not a functional or Sequential model "
            f"(or Keras {keras.__version__} no longer has the graph walk that steprnn needs)"
        )
    return model


def _state_specs(op: layers.RNN, dtype: str, *, alone: bool) -> tuple[TensorSpec, ...]:
    """States of a recurrent layer: `h` and `c`, with the layer's name before them if there are others."""
    prefix = "" if alone else f"{op.name}_"
    sizes = tf.nest.flatten(op.cell.state_size)
    if isinstance(op.cell, layers.LSTMCell):
        names = ["h", "c"]
    elif isinstance(op.cell, layers.GRUCell | layers.SimpleRNNCell):
        names = ["h"]
    else:
        names = [f"s{i}" for i in range(len(sizes))]
    return tuple(TensorSpec(prefix + n, dtype, (int(s),)) for n, s in zip(names, sizes, strict=True))


def _names(tensors: Sequence[Any], single: str) -> list[str]:
    return [single] if len(tensors) == 1 else [t.name for t in tensors]


def _is_final_state(tensor: Any) -> bool:
    """Whether an output of the model is a state that its recurrent layer returns: `next_` says it already."""
    op, _, index = tensor._keras_history
    return isinstance(op, layers.RNN) and index > 0


def _has_time(tensor: Any, walk: Any) -> bool:
    return len(tensor.shape) > 2 and tensor.shape[1] == walk.inputs[0].shape[1]
