"""A first walk of a model with symbolic tensors: what a step reads, remembers, says and refuses."""

from __future__ import annotations

import re
from collections import Counter
from math import prod
from typing import Any

import keras
from keras import layers, tree

from steprnn.runtime.errors import ExportError
from steprnn.runtime.spec import StepSpec, TensorSpec

from .graph import (
    bound,
    is_final_state,
    is_token,
    makes_mask,
    operations,
    output_name,
    taken,
    token_count,
    walk,
)
from .layers import instead_of_padding, refusal, refuse
from .memory import ConvolutionMemory, Memory, RecurrentMemory

SURVEY_BATCH = 3  # a batch that is told apart from the time axis, which alone is None


class Survey:
    """A first walk with symbolic tensors: which inputs are read, what is remembered, what is refused."""

    def __init__(self, graph: Any, model: str) -> None:
        self._graph = graph
        self._model = model
        self._calls: Counter[int] = Counter()
        self._prefixes: Counter[str] = Counter()
        self._found: list[tuple[tuple[int, int], Any, Any]] = []  # key, layer, what its memory needs
        self._padded: dict[int, tuple[Any, int]] = {}
        self._read: set[int] = set()
        self.masked = any(type(op).__name__ == "NotEqual" or makes_mask(op) for op in operations(graph))
        masking = (op for op in operations(graph) if isinstance(op, layers.Masking))
        self.silence = next((float(op.mask_value) for op in masking), None)
        self.timed: dict[tuple[int, int], bool] = {}
        self.symbols = [self._symbol(t) for t in graph.inputs]
        self.outputs = walk(graph, list(self.symbols), self._visit)
        if not self._found:
            raise ExportError(f"model {model!r} has no recurrent layer; a step needs something to remember")
        self.memories: dict[tuple[int, int], Memory] = {
            key: self._memory(op, needs) for key, op, needs in self._found
        }
        self.initial = {n: a for m in self.memories.values() for n, a in m.initial.items()}
        self.spec = self._spec()

    def _symbol(self, tensor: Any) -> Any:
        rank = len(tensor.shape)
        has_time = rank > 2 or (rank == 2 and (tensor.shape[1] is None or is_token(self._graph, tensor)))
        shape = (SURVEY_BATCH, None, *tensor.shape[2:]) if has_time else (SURVEY_BATCH, *tensor.shape[1:])
        return keras.KerasTensor(shape, tensor.dtype)

    def _visit(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        key = (id(op), self._calls[id(op)])
        self._calls[id(op)] += 1
        arguments = bound(op, args, kwargs)
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
            result = op.compute_output_spec(*args, **taken(op, kwargs))
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
            return RecurrentMemory(op, prefix, *needs)
        return ConvolutionMemory(op, prefix, needs)

    def _spec(self) -> StepSpec:
        self.inputs: dict[str, int] = {}  # name -> position among the model's inputs
        specs = []
        read = [i for i, s in enumerate(self.symbols) if id(s) in self._read]
        for i in read:
            tensor, symbol = self._graph.inputs[i], self.symbols[i]
            name = "x" if len(read) == 1 else re.sub(r"\W", "_", tensor.name)
            token = is_token(self._graph, tensor)
            dtype = "int32" if token or "int" in tensor.dtype else "float32"
            shape = symbol.shape[2:] if None in symbol.shape else symbol.shape[1:]
            specs.append(TensorSpec(name, dtype, tuple(shape), token_count(self._graph, tensor)))
            self.inputs[name] = i
        self.spoken = [i for i, t in enumerate(self._graph.outputs) if not is_final_state(t)]
        if not self.spoken:
            raise ExportError(f"model {self._model!r} returns only states; a step needs an output")
        names = (
            ["y"] if len(self.spoken) == 1 else _distinct([output_name(self._graph, i) for i in self.spoken])
        )
        outputs = []
        for name, i in zip(names, self.spoken, strict=True):
            shape = self.outputs[i].shape
            outputs.append(TensorSpec(name, "float32", tuple(shape[2:] if None in shape else shape[1:])))
        states = tuple(s for m in self.memories.values() for s in m.states)
        return StepSpec(tuple(specs), states, tuple(outputs))


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


def _distinct(names: list[str]) -> list[str]:
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return result
