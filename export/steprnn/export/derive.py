"""Derive the single step from a functional Keras model by walking its own graph.

Every layer runs as it is on a time axis of length 1; only a layer that remembers (an `RNN`, a causal
convolution) is stepped on states that the caller holds. Nothing here knows a particular model.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops, tree
from numpy.typing import NDArray

from steprnn.runtime.errors import ExportError
from steprnn.runtime.parity import Arrays
from steprnn.runtime.spec import NEXT, StepSpec, TensorSpec

from .layers import TIMELESS, instead_of_padding, refusal, refuse
from .memory import ConvolutionMemory, Memory, RecurrentMemory, Tensors
from .whole import Whole

Visit = Callable[..., Any]
SURVEY_BATCH = 3  # a batch that is told apart from the time axis, which alone is None


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


def functional_graph(model: Any) -> Any:
    """The functional graph of a functional or built Sequential model, None of anything else.

    With `walk`, the one place that leans on Keras's private walk of a graph.
    """
    if isinstance(model, keras.Sequential):
        model = model._functional
    return model if hasattr(model, "_run_through_graph") and model.inputs else None


def walk(graph: Any, inputs: list[Any], visit: Visit) -> list[Any]:
    """Run `visit(op, *args, **kwargs)` for every operation in order, nested models too; flat outputs."""

    def operation(op: Any) -> Callable[..., Any]:
        inner = functional_graph(op)
        if inner is not None:
            return lambda *args, **kwargs: nested(inner, tree.flatten(args), kwargs.get("mask"))
        return lambda *args, **kwargs: visit(op, *args, **kwargs)

    def nested(inner: Any, inputs: list[Any], mask: Any) -> list[Any]:
        for tensor, own in zip(inputs, tree.flatten(mask), strict=False):
            if own is not None:
                tensor._keras_mask = own
        return walk(inner, inputs, visit)

    outputs: list[Any] = tree.flatten(graph._run_through_graph(inputs, operation_fn=operation))
    return outputs


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
    survey = _Survey(graph, model.name)
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


def _suspect(graph: Any, survey: _Survey, inputs: Arrays) -> str:
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


class _Survey:
    """A first walk with symbolic tensors: which inputs are read, what is remembered, what is refused."""

    def __init__(self, graph: Any, model: str) -> None:
        self._graph = graph
        self._model = model
        self._calls: Counter[int] = Counter()
        self._prefixes: Counter[str] = Counter()
        self._found: list[tuple[tuple[int, int], Any, Any]] = []  # key, layer, what its memory needs
        self._padded: dict[int, tuple[Any, int]] = {}
        self._read: set[int] = set()
        self.masked = any(type(op).__name__ == "NotEqual" or op_makes_mask(op) for op in _operations(graph))
        masking = (op for op in _operations(graph) if isinstance(op, layers.Masking))
        self.silence = next((float(op.mask_value) for op in masking), None)
        self.timed: dict[tuple[int, int], bool] = {}
        self.symbols = [self._symbol(t) for t in graph.inputs]
        self.outputs = walk(graph, list(self.symbols), self._visit)
        if not self._found:
            raise ExportError(f"model {model!r} has no recurrent layer; a step needs something to remember")
        policy = next(op.compute_dtype for _, op, _ in self._found)
        self._state_dtype = "float64" if policy == "float64" else "float32"
        self.memories: dict[tuple[int, int], Memory] = {
            key: self._memory(op, needs) for key, op, needs in self._found
        }
        self.initial = {n: a for m in self.memories.values() for n, a in m.initial.items()}
        self.spec = self._spec()

    def _symbol(self, tensor: Any) -> Any:
        rank = len(tensor.shape)
        has_time = rank > 2 or (rank == 2 and (tensor.shape[1] is None or _is_token(self._graph, tensor)))
        shape = (SURVEY_BATCH, None, *tensor.shape[2:]) if has_time else (SURVEY_BATCH, *tensor.shape[1:])
        return keras.KerasTensor(shape, tensor.dtype)

    def _visit(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        key = (id(op), self._calls[id(op)])
        self._calls[id(op)] += 1
        arguments = _bound(op, args, kwargs)
        initial = arguments.pop("initial_state", None) if isinstance(op, layers.RNN) else None
        tensors = [t for t in tree.flatten(arguments) if isinstance(t, keras.KerasTensor)]
        self._read.update(id(t) for t in tensors)
        timed = self.timed[key] = any(None in t.shape for t in tensors)
        refuse(op, timed)
        pads = sum(self._padded[id(t)][1] for t in tensors if id(t) in self._padded)
        if pads and not (_reach(op) == pads and op.padding == "valid"):
            raise refusal(
                op, f"follows a ZeroPadding1D of {pads} that no convolution takes up", "use padding='causal'"
            )
        if isinstance(op, layers.ZeroPadding1D) and timed:
            left, right = op.padding
            if right:
                raise refusal(op, "pads the future", "pad on the left alone")
            spec = keras.KerasTensor(tensors[0].shape, tensors[0].dtype)
            self._padded[id(spec)] = (spec, left)
            return spec
        if isinstance(op, layers.Reshape) and timed:
            return keras.KerasTensor((*tensors[0].shape[:2], *_features(op, tensors[0])), tensors[0].dtype)
        if timed and _reach(op):
            if op.padding == "valid" and not pads:
                raise refusal(op, "shortens the sequence (padding='valid')", instead_of_padding(op))
            self._found.append((key, op, int(tensors[0].shape[-1])))
            width = op.compute_output_spec(tensors[0]).shape[-1]
            return keras.KerasTensor((*tensors[0].shape[:-1], width), tensors[0].dtype)
        if isinstance(op, layers.RNN):
            given = self._given(op, initial)
            # Keras hands a mask on with the sequence only where that is the one tensor of the call.
            masked = arguments.get("mask") is not None or (self.masked and not given)
            self._found.append((key, op, (masked, given)))
            return op.compute_output_spec(tensors[0])
        try:
            result = op.compute_output_spec(*args, **_taken(op, kwargs))
        except Exception as error:  # each layer has its own complaint about a free time axis
            raise refusal(
                op, f"does not take a free time axis ({error})", "leave it out, or wrap it in TimeDistributed"
            ) from error
        for t in tree.flatten(result):
            if None in t.shape[2:]:
                raise refusal(op, "moves the time axis", "keep time at axis 1")
        return result

    def _given(self, op: Any, initial: Any) -> list[Any]:
        """The initial state, flat: constants, or inputs of the model, or nothing where it is zero."""
        flat = tree.flatten(initial) if initial is not None else []
        symbolic = [t for t in flat if isinstance(t, keras.KerasTensor)]
        if any(all(t is not s for s in self.symbols) for t in symbolic):
            raise refusal(
                op,
                "begins from a state that is computed from other inputs",
                "export it as a model of its own whose initial_state is an Input",
            )
        return flat

    def _memory(self, op: Any, needs: Any) -> Memory:
        name = re.sub(r"\W", "_", op.name)
        self._prefixes[name] += 1
        if self._prefixes[name] > 1:  # the same layer called again: the same weights, another stream
            name = f"{name}_{self._prefixes[name]}"
        prefix = "" if len(self._found) == 1 else f"{name}_"
        if isinstance(op, layers.RNN):
            return RecurrentMemory(op, prefix, self._state_dtype, *needs)
        return ConvolutionMemory(op, prefix, self._state_dtype, needs)

    def _spec(self) -> StepSpec:
        self.inputs: dict[str, int] = {}  # name -> position among the model's inputs
        specs = []
        read = [i for i, s in enumerate(self.symbols) if id(s) in self._read]
        for i in read:
            tensor, symbol = self._graph.inputs[i], self.symbols[i]
            name = "x" if len(read) == 1 else re.sub(r"\W", "_", tensor.name)
            token = _is_token(self._graph, tensor)
            dtype = "int32" if token or "int" in tensor.dtype else self._state_dtype
            shape = symbol.shape[2:] if None in symbol.shape else symbol.shape[1:]
            specs.append(TensorSpec(name, dtype, tuple(shape), _token_count(self._graph, tensor)))
            self.inputs[name] = i
        self.spoken = [i for i, t in enumerate(self._graph.outputs) if not _is_final_state(t)]
        if not self.spoken:
            raise ExportError(f"model {self._model!r} returns only states; a step needs an output")
        names = (
            ["y"] if len(self.spoken) == 1 else _distinct([_output_name(self._graph, i) for i in self.spoken])
        )
        outputs = []
        for name, i in zip(names, self.spoken, strict=True):
            shape = self.outputs[i].shape
            outputs.append(
                TensorSpec(name, self._state_dtype, tuple(shape[2:] if None in shape else shape[1:]))
            )
        states = tuple(s for m in self.memories.values() for s in m.states)
        return StepSpec(tuple(specs), states, tuple(outputs))


def _trace(graph: Any, survey: _Survey, tensors: Tensors) -> Tensors:
    """Walk the graph once with real tensors: one time step."""
    time = _TimeAxis()
    calls: Counter[int] = Counter()
    results: Tensors = {}

    def visit(op: Any, *args: Any, **kwargs: Any) -> Any:
        key = (id(op), calls[id(op)])
        calls[id(op)] += 1
        timed = survey.timed[key]
        memory = survey.memories.get(key)
        arguments = _bound(op, args, kwargs)
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


def _bound(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by the names of the operation's own signature."""
    bound = inspect.signature(op.call).bind(*args, **_taken(op, kwargs))
    return dict(bound.arguments)


def _taken(op: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Without what Keras takes for every layer (`training`, `mask`) and this one's `call` does not."""
    parameters = inspect.signature(op.call).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return kwargs
    return {name: value for name, value in kwargs.items() if name in parameters}


def _timeless(op: Any) -> bool:
    if type(op).__name__ in TIMELESS:
        return True
    if isinstance(op, layers.Concatenate | layers.Softmax):
        return bool(op.axis == -1)
    return isinstance(op, layers.LayerNormalization) and list(tree.flatten(op.axis)) == [-1]


def _features(op: layers.Reshape, tensor: Any) -> tuple[int, ...]:
    """The shape of one time step after a Reshape; refused where it is not made of one time step alone."""
    before, after = tensor.shape[2:], tuple(int(n) for n in op.target_shape[1:])
    if -1 in after:
        after = tuple(prod(before) // -prod(after) if n == -1 else n for n in after)
    if prod(before) != prod(after):
        raise refusal(op, "reshapes time into the features", "keep time at axis 1: Reshape((-1, ...))")
    return after


def _reach(op: Any) -> int:
    """How many past inputs a convolution over time needs."""
    if isinstance(op, layers.Conv1D | layers.DepthwiseConv1D):
        return int((op.kernel_size[0] - 1) * op.dilation_rate[0])
    return 0


def _operations(graph: Any) -> list[Any]:
    found = []
    for op in graph.operations:
        inner = functional_graph(op)
        found.extend(_operations(inner) if inner is not None else [op])
    return found


def op_makes_mask(op: Any) -> bool:
    """Whether a layer tells the ones behind it which time steps to leave out."""
    return isinstance(op, layers.Masking) or bool(getattr(op, "mask_zero", False))


def _consumers(graph: Any, tensor: Any) -> list[Any]:
    found = []
    for op in graph.operations:
        for node in op._inbound_nodes:
            for position, read in enumerate(node.input_tensors):
                if read is not tensor:
                    continue
                inner = functional_graph(op)
                found.extend(_consumers(inner, inner.inputs[position]) if inner is not None else [op])
    return found


def _token_count(graph: Any, tensor: Any) -> int | None:
    """How many tokens there are, where the input is a token index; None where it is not."""
    for op in _consumers(graph, tensor):
        if isinstance(op, layers.Embedding):
            return int(op.input_dim)
        if type(op).__name__ == "OneHot":
            return int(op.num_classes)
        if isinstance(op, layers.CategoryEncoding):
            return int(op.num_tokens)
    return None


def _is_token(graph: Any, tensor: Any) -> bool:
    return _token_count(graph, tensor) is not None


def _is_final_state(tensor: Any) -> bool:
    """Whether an output of the model is a state that its recurrent layer returns: `next_` says it already."""
    op, _, index = tensor._keras_history
    return isinstance(op, layers.RNN) and index > 0


def _output_name(graph: Any, i: int) -> str:
    return re.sub(r"\W", "_", graph.output_names[i])


def _distinct(names: list[str]) -> list[str]:
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return result
