"""Derive the single step from a functional Keras model by walking its own graph.

Every layer runs as it is on a time axis of length 1; only a layer that remembers (an `RNN`, a causal
convolution) is stepped on states that the caller holds. Nothing here knows a particular model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops, tree
from numpy.typing import NDArray

from steprnn.runtime.errors import ExportError
from steprnn.runtime.parity.measure import Arrays
from steprnn.runtime.spec import NEXT, StepSpec

from .graph import bound, functional_graph, walk
from .layers import TIMELESS, refusal
from .memory import Tensors
from .survey import Survey, _features
from .whole import Whole


@dataclass(frozen=True)
class Step:
    """The contract of a step and the function that computes it on the model's own variables.

    `call` maps tensors named as the inputs and states of `spec` to tensors named as its outputs and
    next states; the batch axis is free. `initial` holds the states that do not begin at zero, without
    the batch axis. `whole` is the model on whole sequences, `[batch, steps, ...]` by the same names:
    what the chained step is proved to equal. Without it there is nothing to prove it by.
    """

    spec: StepSpec
    call: Callable[[Tensors], Tensors]
    initial: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    whole: Callable[[Arrays], Arrays] | None = None
    fixed_steps: int | None = None  # the only sequence length that `whole` takes
    silence: float | None = None  # a time step of this value throughout is masked
    suspect: Callable[[Arrays], str] = lambda inputs: "no layer can be named"

    def __post_init__(self) -> None:
        names = [t.name for t in (*self.spec.inputs, *self.spec.states)] + list(self.spec.result_names)
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ExportError(
                f"the step has two tensors named {twice[0]!r}; rename that input or output of the model"
            )

    def signature(self) -> Tensors:
        """TensorFlow's specification of the inputs and states, by name."""
        return {
            t.name: tf.TensorSpec([None, *t.shape], t.dtype, t.name)
            for t in (*self.spec.inputs, *self.spec.states)
        }

    def function(self) -> Any:
        """A concrete function of keyword arguments, traced for any batch size."""
        step = tf.function(lambda **tensors: self._checked(self.call(tensors)), autograph=False)
        return step.get_concrete_function(**self.signature())

    def _checked(self, results: Tensors) -> Tensors:
        """What `call` returned, if it is what the spec says; nothing is renamed, cast or broadcast."""
        expected = {t.name: t for t in self.spec.outputs} | {NEXT + t.name: t for t in self.spec.states}
        if set(results) != set(expected):
            raise ExportError(
                f"the step returns {', '.join(sorted(results))}; "
                f"its spec expects {', '.join(sorted(expected))}"
            )
        tensors = {name: tf.convert_to_tensor(result) for name, result in results.items()}
        for name, t in expected.items():
            shape, dtype = tensors[name].shape, tensors[name].dtype.name
            if dtype != t.dtype or not shape.is_compatible_with([None, *t.shape]):
                raise ExportError(
                    f"the step returns {name} as {dtype} {shape}; its spec expects {t.dtype} "
                    f"{tf.TensorShape([None, *t.shape])}"
                )
        return tensors


def derive(model: keras.Model) -> Step:
    """The step of a functional or Sequential model whose layers are all causal.

    Raises `ExportError` where the model has no graph to read, nothing to remember, or a layer that
    has no step, which it names.
    """
    graph = functional_graph(model)
    if graph is None:
        raise ExportError(
            f"model {getattr(model, 'name', '')!r} ({type(model).__name__}) has no graph to read: it is not "
            "functional, or a Sequential model that was not built; write its step as a function and pass "
            "steprnn.export.Step(spec, call)"
        )
    survey = Survey(graph, model.name)
    spec = survey.spec

    def call(tensors: Tensors) -> Tensors:
        return _trace(graph, survey, tensors)

    spoken = {t.name: i for t, i in zip(spec.outputs, survey.spoken, strict=True)}
    whole = Whole(model, spec, survey.inputs, spoken)
    return Step(
        spec,
        call,
        survey.initial,
        whole,
        whole.fixed_steps,
        survey.silence,
        lambda inputs: _suspect(graph, survey, inputs),
    )


def _suspect(graph: Any, survey: Survey, inputs: Arrays) -> str:
    """Name the first layer whose output at one time step is not what it gives on that step alone."""
    found: list[str] = []
    calls: Counter[int] = Counter()
    steps = len(next(iter(inputs.values())))

    def at(step: int, value: Any) -> Any:
        is_sequence = tf.is_tensor(value) and value.shape.rank > 1 and value.shape[1] == steps
        return value[:, step : step + 1] if is_sequence else value

    def alone(op: Any, whole: Any, step: int, *arguments: Any) -> bool:
        args, kwargs = tree.map_structure(partial(at, step), arguments)
        try:
            pairs = zip(tree.flatten(whole), tree.flatten(op(*args, **kwargs)), strict=True)
            return all(np.allclose(at(step, w), a, 1e-3, 1e-3) for w, a in pairs)
        except Exception:  # a layer that does not even run on one time step is the one
            return False

    def visit(op: Any, *args: Any, **kwargs: Any) -> Any:
        key = (id(op), calls[id(op)])
        calls[id(op)] += 1
        whole = op(*args, **kwargs)
        if found or key in survey.memories or not survey.timed[key]:
            return whole
        if not all(alone(op, whole, step, args, kwargs) for step in {0, steps // 2, steps - 1}):
            found.append(f"layer {op.name!r} ({type(op).__name__}) mixes time steps, so it has no step")
        return whole

    rows = next(iter(inputs.values())).shape[1]
    names = {position: name for name, position in survey.inputs.items()}
    given = [
        ops.convert_to_tensor(np.moveaxis(inputs[names[i]], 0, 1), t.dtype)
        if i in names
        else ops.zeros((rows, *t.shape[1:]), t.dtype)
        for i, t in enumerate(graph.inputs)
    ]
    walk(graph, given, visit)
    return found[0] if found else "no single layer was found that mixes time steps"


def _trace(graph: Any, survey: Survey, tensors: Tensors) -> Tensors:
    """Walk the graph once with real tensors: one time step."""
    time = _TimeAxis()
    calls: Counter[int] = Counter()
    results: Tensors = {}

    def visit(op: Any, *args: Any, **kwargs: Any) -> Any:
        key = (id(op), calls[id(op)])
        calls[id(op)] += 1
        timed = survey.timed[key]
        memory = survey.memories.get(key)
        arguments = bound(op, args, kwargs)
        if memory is not None:
            sequence, mask = next(iter(arguments.values())), arguments.get("mask")
            if mask is None and arguments.get("initial_state") is None:  # handed on with the sequence
                mask = mask_of(sequence)
            y, after, following = memory.step(
                time.drop(sequence), None if mask is None else time.drop(mask), tensors
            )
            results.update(following)
            if not isinstance(op, layers.RNN):
                return time.add(y)
            if op.return_sequences:
                y = time.add(y)
                y._keras_mask = mask
            return [y, *after] if op.return_state else y
        if isinstance(op, layers.ZeroPadding1D) and timed:
            return args[0]
        try:
            if timed and isinstance(op, layers.TimeDistributed):
                return _keep_mask(op, args[0], time.add(op.layer(time.drop(args[0]))))
            if timed and isinstance(op, layers.CategoryEncoding) and args[0].shape.rank == 2:
                return time.add(op(args[0]))  # it drops an axis of length 1 by itself
            if timed and isinstance(op, layers.Reshape):
                return ops.reshape(args[0], (-1, 1, *_features(op, args[0])))
            if timed and _timeless(op):
                result = time.add(op(*(tree.map_structure(time.drop_any, a) for a in args)))
                return _keep_mask(op, args[0], result)
            return op(*args, **kwargs)
        except Exception as error:
            raise refusal(
                op, "does not run on a single time step", "it must act on each time step alone"
            ) from error

    given = []
    for i, (tensor, symbol) in enumerate(zip(graph.inputs, survey.symbols, strict=True)):
        name = next((n for n, position in survey.inputs.items() if position == i), None)
        if name is None:  # an initial state, which the caller now holds
            given.append(ops.zeros((1, *tensor.shape[1:]), tensor.dtype))
        else:
            given.append(time.add(tensors[name]) if None in symbol.shape else tensors[name])
    values = walk(graph, given, visit)
    for spec, i in zip(survey.spec.outputs, survey.spoken, strict=True):
        value = time.drop(values[i]) if None in survey.outputs[i].shape else values[i]
        results[spec.name] = value
    dtypes = {t.name: t.dtype for t in (*survey.spec.outputs, *survey.spec.states)}
    return {
        name: ops.cast(
            results[name], dtypes[name.removeprefix("next_")] if name not in dtypes else dtypes[name]
        )
        for name in survey.spec.result_names
    }


def mask_of(tensor: Any) -> Any:
    """The mask that Keras hangs on a tensor, `[batch, 1]`; None where all time steps count."""
    return getattr(tensor, "_keras_mask", None)


def _keep_mask(op: Any, inputs: Any, result: Any) -> Any:
    """Hang the mask on the result of a layer that was run without its time axis, as Keras does."""
    if isinstance(op, layers.Layer) and op.supports_masking:
        result._keras_mask = op.compute_mask(inputs, tree.map_structure(mask_of, inputs))
    return result


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

    def drop_any(self, value: Any) -> Any:
        return (
            self.drop(value) if tf.is_tensor(value) and value.shape.rank and value.shape.rank > 1 else value
        )


def _timeless(op: Any) -> bool:
    if type(op).__name__ in TIMELESS:
        return True
    if isinstance(op, layers.Concatenate | layers.Softmax):
        return bool(op.axis == -1)
    return isinstance(op, layers.LayerNormalization) and list(tree.flatten(op.axis)) == [-1]
