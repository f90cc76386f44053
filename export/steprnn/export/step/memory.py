"""What a layer remembers from one time step to the next, as states that the caller holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops, tree
from numpy.typing import NDArray

from steprnn.runtime.spec import NEXT, TensorSpec

Tensors = dict[str, Any]
DTYPE = "float32"  # of every state, whatever the model computes in


class Memory(Protocol):
    """One layer's states, and its step."""

    states: tuple[TensorSpec, ...]
    initial: dict[str, NDArray[np.float32]]  # states that do not begin at zero

    def step(self, x: Any, mask: Any, tensors: Tensors) -> tuple[Any, list[Any], Tensors]:
        """One time step on x `[batch, ...]`: its output, its final states, and the next states by name."""


class RecurrentMemory:
    """An `RNN` of any cell: `h` and `c` of an LSTM, `h` of a GRU or SimpleRNN, else `s0`, `s1`, ..."""

    def __init__(self, op: layers.RNN, prefix: str, masked: bool, initial: list[Any]) -> None:
        self._op = op
        structure = op.get_initial_state(batch_size=1)
        self._structure = list(structure) if tree.is_nested(structure) else [structure]
        begin = [np.asarray(ops.convert_to_numpy(s)) for s in tree.flatten(self._structure)]
        if initial and not any(isinstance(s, keras.KerasTensor) for s in initial):
            begin = [np.asarray(ops.convert_to_numpy(s)) for s in initial]
        names = [prefix + name for name in _state_names(op.cell)]
        self._names = names
        self.states = tuple(
            TensorSpec(name, DTYPE, tuple(int(n) for n in array.shape[1:]))
            for name, array in zip(names, begin, strict=True)
        )
        self.initial = {n: a[0].astype(np.float32) for n, a in zip(names, begin, strict=True) if a.any()}
        # At a masked step Keras repeats the last output, which for its own cells is a state already,
        # but for one: before the first output it puts out zeros, and not the initial state.
        own = None if initial else _output_state(op.cell)
        self._last = prefix + (own or "last")
        if masked and self._last not in names:
            size = getattr(op.cell, "output_size", None) or op.cell.state_size  # as `RNN` itself has it
            self.states += (TensorSpec(self._last, DTYPE, (int(tree.flatten(size)[0]),)),)

    def step(self, x: Any, mask: Any, tensors: Tensors) -> tuple[Any, list[Any], Tensors]:
        """Call the cell once; at a masked step keep the states and repeat the last output."""
        before = [tensors[name] for name in self._names]
        if hasattr(x, "_keras_mask"):  # the mask is applied below, and the cell would warn of it
            x = tf.identity(x)
        with _without_dropout(self._op.cell):
            y, after = self._op.cell(x, tree.pack_sequence_as(self._structure, before))
        after = tree.flatten(after)
        keeps_output = len(self.states) > len(self._names)
        if mask is not None:
            last = tensors[self._last]
            y = _where(
                mask, y, ops.zeros_like(y) if self._op.zero_output_for_mask else ops.cast(last, y.dtype)
            )
            after = [
                _where(mask, new, ops.cast(old, new.dtype)) for new, old in zip(after, before, strict=True)
            ]
        following = {NEXT + name: state for name, state in zip(self._names, after, strict=True)}
        if keeps_output:
            following[NEXT + self._last] = y
        return y, after, following


class ConvolutionMemory:
    """A causal convolution: `past`, the last (kernel - 1) * dilation inputs, oldest first."""

    initial: dict[str, NDArray[np.float32]] = {}  # noqa: RUF012 (never written: padding is zeros)

    def __init__(self, op: Any, prefix: str, channels: int) -> None:
        self._op = op
        reach = (op.kernel_size[0] - 1) * op.dilation_rate[0]
        self._name = f"{prefix}past"
        self.states: tuple[TensorSpec, ...] = (TensorSpec(self._name, DTYPE, (reach, channels)),)

    def step(self, x: Any, mask: Any, tensors: Tensors) -> tuple[Any, list[Any], Tensors]:
        """Convolve the one window that ends at this time step."""
        op = self._op
        past = ops.cast(tensors[self._name], x.dtype)
        window = ops.concatenate([past, ops.expand_dims(x, 1)], axis=1)
        kernel = ops.cast(op.kernel, x.dtype)
        if isinstance(op, layers.DepthwiseConv1D):
            y = ops.depthwise_conv(window, kernel, padding="valid", dilation_rate=op.dilation_rate)
        else:  # group by group: Keras compiles a grouped convolution with XLA, which no format takes
            groups = zip(ops.split(window, op.groups, -1), ops.split(kernel, op.groups, -1), strict=True)
            y = ops.concatenate(
                [ops.conv(w, k, padding="valid", dilation_rate=op.dilation_rate) for w, k in groups], axis=-1
            )
        y = ops.squeeze(y, 1)
        if op.use_bias:
            y = ops.add(y, ops.cast(op.bias, x.dtype))
        if op.activation is not None:
            y = op.activation(y)
        return y, [], {NEXT + self._name: window[:, 1:]}


@contextmanager
def _without_dropout(cell: Any) -> Iterator[None]:
    """A SimpleRNNCell draws its masks even where it does not use them, and that writes a variable."""
    cells = [c for c in getattr(cell, "cells", [cell]) if isinstance(c, layers.SimpleRNNCell)]
    rates = [(c.dropout, c.recurrent_dropout) for c in cells]
    for c in cells:
        c.dropout = c.recurrent_dropout = 0.0
    try:
        yield
    finally:
        for c, (dropout, recurrent_dropout) in zip(cells, rates, strict=True):
            c.dropout, c.recurrent_dropout = dropout, recurrent_dropout


def _state_names(cell: Any) -> list[str]:
    if isinstance(cell, layers.StackedRNNCells):
        return [f"cell_{i}_{name}" for i, inner in enumerate(cell.cells) for name in _state_names(inner)]
    if isinstance(cell, layers.LSTMCell):
        return ["h", "c"]
    if isinstance(cell, layers.GRUCell | layers.SimpleRNNCell):
        return ["h"]
    size = len(tree.flatten(cell.state_size))
    return ["s"] if size == 1 else [f"s{i}" for i in range(size)]


def _output_state(cell: Any) -> str | None:
    """The state that is the cell's output, where there is one."""
    if isinstance(cell, layers.StackedRNNCells):
        inner = _output_state(cell.cells[-1])
        return f"cell_{len(cell.cells) - 1}_{inner}" if inner else None
    return "h" if isinstance(cell, layers.LSTMCell | layers.GRUCell | layers.SimpleRNNCell) else None


def _where(mask: Any, new: Any, old: Any) -> Any:
    return ops.where(ops.reshape(mask, (-1,) + (1,) * (len(new.shape) - 1)), new, old)
