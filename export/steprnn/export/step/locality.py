"""Whether a layer is local in time, read from its graph: at each step it may depend on that step alone.

The layer is traced on sequences of any length and every operator of the trace is followed by its rule, so
that it does not matter at which step or for which values another time step shows.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from steprnn.runtime.errors import ExportError, brief

from . import moves, sums  # noqa: F401 (their rules)
from .graph import Call, mask_of
from .layers import changes_a_variable, refusal
from .rules import INDEX, LENGTH, RULES, TIME, Node, Seen, apply, nothing, union

ROWS, STEPS, MORE = 2, 9, 11
COMPARISONS = {"Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual"}
LARGE = 64  # elements; a constant of more is no place, size or threshold
UNSEEN = (tf.resource, tf.variant, tf.string)  # types without values to look at
ENDS = {"Identity", "Placeholder"}
DULL = ENDS | {"Cast", "ExpandDims", "Squeeze", "Reshape", "BroadcastTo"}  # in a path they tell nothing


class Unreadable(Exception):  # noqa: N818 (it reads as what it says)
    """A layer whose graph cannot be followed, and why."""


def read(call: Call, outputs: Any, masked: bool, length: int | None = None) -> tuple[Any, set[float]]:
    """Follow one call, whose symbolic `outputs` are known; `masked` tells whether it may be given masks.

    Gives the outputs, with a free time axis where a layer has told its length, and the constants that its
    input is compared with. Raises `ExportError` where it is not local in time,
    `Unreadable` where that cannot be told. `length` is the one that the model was built for.
    """
    symbols = tree.flatten(outputs)
    try:
        trace = _readable_trace(call, len(symbols), masked)
    except Unreadable:
        if length and _runs(call, length) and not (_runs(call, STEPS) and _runs(call, MORE)):
            alone = f"takes sequences of {length} time steps alone"
            raise refusal(call.op, alone, "give it no weight for each step") from None
        raise
    for i, tensor in enumerate(trace.results):
        timed = i >= len(symbols) or None in symbols[i].shape  # behind the outputs are their masks
        if not timed and trace.is_sequence(tensor):
            shape = symbols[i].shape
            timed, symbols[i] = True, keras.KerasTensor((shape[0], None, *shape[2:]), symbols[i].dtype)
        reason, instead = trace.fault(tensor, timed)
        if reason:
            raise refusal(call.op, reason, instead)
    return tree.pack_sequence_as(outputs, symbols), set(trace.compared())


class Trace:
    """A traced function of sequences, and what each of its tensors depends on.

    It is run over some steps and over more of them, for its shapes and sizes. `specs` are those of its
    inputs, `[batch, time, ...]` where they have a time axis; `results` are the names of what it returns, and
    `seen` has every tensor by its name.
    """

    def __init__(self, function: Any, specs: list[tf.TensorSpec]) -> None:
        if any(op.op_def.name.endswith(("Call", "If", "While")) for op in function.graph.get_operations()):
            function = convert_variables_to_constants_v2(function, lower_control_flow=False)  # it inlines
        self.results = [t.name for t in function.outputs]
        self.operators = function.graph.get_operations()
        self._inputs = [t.name for t in function.inputs[: len(specs)]]
        fetched = [t for op in self.operators for t in op.outputs if _has_values(t)]
        run = function.prune(function.inputs[: len(specs)], fetched)
        runs = [[t.numpy() for t in run(*(_given(s, steps) for s in specs))] for steps in (STEPS, MORE)]
        self._values = dict(zip([t.name for t in fetched], zip(*runs, strict=True), strict=True))
        self.seen: dict[str, Seen] = {}
        for op in self.operators:
            self._follow(op)

    def is_sequence(self, tensor: str) -> bool:
        """Whether a tensor has as many time steps as it was given."""
        seen = self.seen[tensor]
        return seen.value.shape[1:2] == (STEPS,) and seen.longer.shape[1:2] == (MORE,)

    def fault(self, tensor: str, timed: bool) -> tuple[str, str]:
        """What is not local in time about a result, and the way out; empty where nothing is."""
        seen = self.seen[tensor]
        if timed and not self.is_sequence(tensor):
            path = self._path(tensor, INDEX)
            return f"changes the number of time steps ({path})", "keep them all"
        moments = [(t, seen.bits[:, t]) for t in range(STEPS)] if timed else [(STEPS - 1, seen.bits)]
        faults = [(t, union(bits) & ~(np.int64(1) << t)) for t, bits in moments]
        for t, bits in faults:
            if others := int(bits & TIME):
                other = others.bit_length() - 1
                path = self._path(tensor, next((b for b in (LENGTH, INDEX) if bits & b), bits))
                return f"reads other time steps (step {t} reads step {other}: {path})", OTHER_STEPS
        for bit, what, instead in ((INDEX, "index of the time step", INDICES), (LENGTH, "length", LENGTHS)):
            if any(bits & bit for _, bits in faults):
                what = "length of the sequence" if bit == LENGTH else what
                return f"depends on the {what} ({self._path(tensor, bit)})", instead
        return "", ""

    def compared(self) -> Iterator[float]:
        """The constants that something which depends on a time step is compared with."""
        for op in (op for op in self.operators if op.type in COMPARISONS):
            sides = [self.seen[t.name] for t in op.inputs]
            for one, other in zip(sides, sides[::-1], strict=True):
                constant = other.value.size <= LARGE and not union(other.bits) and other.value.dtype != bool
                if constant and union(one.bits) & TIME:
                    yield from map(float, other.value.ravel())

    def _path(self, tensor: str, bit: np.int64) -> str:
        """How a bit came into a tensor: the operators from there back."""
        made_by = {t.name: op for op in self.operators for t in op.outputs}
        names = []
        following: str | None = tensor
        while following is not None:
            op = made_by[following]
            names.append(op.type if op.type in RULES or op.type in ENDS else f"{op.type} (no rule)")
            sources = (t.name for t in op.inputs if t.name in self.seen)
            following = next((s for s in sources if union(self.seen[s].bits) & bit), None)
        names = [n for n in names if n not in DULL] or [n for n in names if n not in ENDS]
        return " <- ".join(names if len(names) <= 5 else [*names[:2], "...", *names[-2:]])

    def _follow(self, op: tf.Operation) -> None:
        outputs = {t.name: self._unread(t) for t in op.outputs if t.dtype != tf.resource}
        self.seen |= outputs
        inputs = [self.seen.get(t.name, VARIABLE) for t in op.inputs]
        if op.type.endswith(("Call", "PyFunc")):
            raise Unreadable(f"it is compiled, or in another language ({op.type})")
        for name, seen in outputs.items() if op.type == "Placeholder" else ():
            if name in self._inputs and seen.value.ndim > 1 and seen.runs_along_time(1):
                steps = np.int64(1) << np.arange(STEPS, dtype=np.int64)
                steps = steps.reshape((1, STEPS) + (1,) * (seen.value.ndim - 2))
                seen.bits = np.broadcast_to(steps, seen.value.shape)
        if outputs and op.type != "Placeholder":
            found = apply(Node(op, inputs, [*outputs.values()]))
            for seen, bits in zip(outputs.values(), found, strict=True):
                seen.bits = np.broadcast_to(bits, seen.value.shape)

    def _unread(self, tensor: Any) -> Seen:
        if tensor.name in self._values:
            now, longer = self._values[tensor.name]
        elif tensor.dtype in UNSEEN:  # a list of tensors
            now = longer = np.zeros(())
        else:  # a weight, of which the shape says enough
            now = longer = np.broadcast_to(np.float32(0), tuple(tensor.shape))
        return Seen(now, longer, nothing(now.shape))


OTHER_STEPS = "use a recurrent layer or a causal Conv1D for what it remembers"
INDICES = "let the caller give the index, or what lies that far back, as an input"
LENGTHS = "leave it out, or let the caller give the length as an input"
VARIABLE = Seen(np.zeros(()), np.zeros(()), nothing(()))  # the handle of one


def _has_values(tensor: Any) -> bool:
    """Whether the values of a tensor are looked at; those of weights are not."""
    if tensor.dtype in UNSEEN:
        return False
    return tensor.op.type not in ("Const", "ReadVariableOp") or int(np.prod(tensor.shape)) <= LARGE


def _given(spec: tf.TensorSpec, steps: int) -> Any:
    """A tensor of so many time steps; zero is a token that every layer knows."""
    shape = [(ROWS if i == 0 else steps) if n is None else n for i, n in enumerate(spec.shape)]
    return tf.ones(shape, spec.dtype) if spec.dtype == tf.bool else tf.zeros(shape, spec.dtype)


def _runs(call: Call, steps: int) -> bool:
    """Whether a call runs on sequences of so many steps."""

    def value(argument: Any) -> Any:
        if not isinstance(argument, keras.KerasTensor):
            return argument
        return _given(tf.TensorSpec([None, *argument.shape[1:]], argument.dtype), steps)

    args, kwargs = tree.map_structure(value, (call.args, call.kwargs))
    try:
        call.op(*args, **kwargs)
    except Exception:  # each layer has its own complaint
        return False
    return True


def _readable_trace(call: Call, outputs: int, masked: bool) -> Trace:
    """The trace with masks hung on the sequences, or without where the layer does not run with them."""
    try:
        return _trace(call, outputs, masked)
    except (ExportError, Unreadable):
        raise
    except Exception as error:  # each layer has its own complaint
        if masked:
            return _readable_trace(call, outputs, False)
        raise Unreadable(brief(error, 200) or type(error).__name__) from error


def _trace(call: Call, outputs: int, masked: bool) -> Trace:
    arguments = (call.args, call.kwargs | ({"training": False} if "training" in call.kwargs else {}))
    leaves = tree.flatten(arguments)
    symbols = list({id(t): t for t in leaves if isinstance(t, keras.KerasTensor)}.values())
    with_mask = [t for t in symbols if masked and None in t.shape]
    specs = [tf.TensorSpec([None, *t.shape[1:]] if t.shape else [], t.dtype) for t in symbols]
    specs += [tf.TensorSpec([None, None], tf.bool) for _ in with_mask]

    def run(*tensors: Any) -> list[Any]:
        given = {id(s): tf.identity(t) for s, t in zip(symbols, tensors, strict=False)}
        for symbol, mask in zip(with_mask, tensors[len(symbols) :], strict=True):
            given[id(symbol)]._keras_mask = mask
        args, kwargs = tree.map_structure(lambda a: given.get(id(a), a), arguments)
        results = tree.flatten(call.op(*args, **kwargs))
        if len(results) != outputs:
            raise Unreadable(f"it gives {len(results)} tensors, expected {outputs}")
        masks = [m for m in map(mask_of, results) if m is not None]
        return [tf.identity(t) for t in (*results, *masks)]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras, about masks that a layer drops, which it may
        function = tf.compat.v1.wrap_function(run, specs)
    for op in function.graph.get_operations():
        if "Assign" in op.type:  # and running it would write it
            raise changes_a_variable(call.op)
    return Trace(function, specs)
