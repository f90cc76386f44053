"""The parts that remember: what a layer keeps from one time step to the next is a state of the caller's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops, tree

from steprnn.runtime.spec import NEXT, TensorSpec

from .graph import Call, mask_of
from .moment import Moment
from .parts import Part

DTYPE = "float32"  # of every state, whatever the model computes in


class Recurrent(Part):
    """An `RNN` of any cell: `h` and `c` of an LSTM, `h` of a GRU or SimpleRNN, else `s0`, `s1`, ...

    `begins` is the initial state of the call, flat: constants, or inputs of the model, or nothing where it
    is zero. `masked` tells whether time steps may be left out.
    """

    remembers = True

    def __init__(self, op: layers.RNN, timed: bool, masked: bool, begins: list[Any]) -> None:
        super().__init__(timed)
        self.op = op
        self._masked = masked
        self.begins = begins
        structure = op.get_initial_state(batch_size=1)
        self._structure = list(structure) if tree.is_nested(structure) else [structure]

    def take_names(self, prefix: str) -> None:
        """Give the states their names, with `prefix` before each."""
        begin = [np.asarray(ops.convert_to_numpy(s)) for s in tree.flatten(self._structure)]
        for i, given in enumerate(self.begins):
            if not isinstance(given, keras.KerasTensor):
                begin[i] = np.asarray(ops.convert_to_numpy(given))
        self._names = names = [prefix + name for name in _state_names(self.op.cell)]
        self.states = tuple(
            TensorSpec(name, DTYPE, tuple(int(n) for n in array.shape[1:]))
            for name, array in zip(names, begin, strict=True)
        )
        self.initial = {n: a[0].astype(np.float32) for n, a in zip(names, begin, strict=True) if a.any()}
        # At a masked step Keras repeats the last output, which for its own cells is a state already,
        # but for one: before the first output it puts out zeros, and not the initial state.
        own = None if self.begins else _output_state(self.op.cell)
        self._last = prefix + (own or "last")
        if self._masked and self._last not in names:
            cell = self.op.cell
            size = getattr(cell, "output_size", None) or cell.state_size  # as `RNN` itself has it
            self.states += (TensorSpec(self._last, DTYPE, (int(tree.flatten(size)[0]),)),)

    def shapes(self, call: Call) -> Any:
        """Those of the whole sequence."""
        return self.op.compute_output_spec(next(iter(call.arguments.values())))

    def _run(self, call: Call, moment: Moment) -> Any:
        """Call the cell once; the output, and behind it the final states where the layer returns them."""
        arguments = call.arguments
        sequence, mask = next(iter(arguments.values())), arguments.get("mask")
        moment.beginning |= dict(zip(self._names, tree.flatten(arguments.get("initial_state")), strict=False))
        if mask is None and arguments.get("initial_state") is None:  # handed on with the sequence
            mask = mask_of(sequence)
        counts = None if mask is None else moment.drop_time(mask)
        y, after = self._cell(moment.drop_time(sequence), counts, moment)
        if self.op.return_sequences:
            y = moment.add_time(y)
            y._keras_mask = mask
        return [y, *after] if self.op.return_state else y

    def _cell(self, x: Any, mask: Any, moment: Moment) -> tuple[Any, list[Any]]:
        """The output and the states after x `[batch, ...]`; where masked, the last ones again."""
        before = [moment.tensors[name] for name in self._names]
        if hasattr(x, "_keras_mask"):  # the mask is applied below, and the cell would warn of it
            x = tf.identity(x)
        with _without_dropout(self.op.cell):
            y, after = self.op.cell(x, tree.pack_sequence_as(self._structure, before))
        after = tree.flatten(after)
        if mask is not None:
            last = moment.tensors[self._last]
            y = _where(
                mask, y, ops.zeros_like(y) if self.op.zero_output_for_mask else ops.cast(last, y.dtype)
            )
            after = [
                _where(mask, new, ops.cast(old, new.dtype)) for new, old in zip(after, before, strict=True)
            ]
        moment.following |= {NEXT + name: state for name, state in zip(self._names, after, strict=True)}
        if len(self.states) > len(self._names):
            moment.following[NEXT + self._last] = y
        return y, after


class Convolution(Part):
    """A causal convolution over time: `past`, the last (kernel - 1) * dilation inputs, oldest first.

    Of one dimension, or of two of which time is the first. What another convolution remembers of the same
    sequence is not kept twice: `shares` is that one.
    """

    remembers = True

    def __init__(self, op: Any, timed: bool, shares: Convolution | None = None) -> None:
        super().__init__(timed)
        self.op = op
        self._owner = shares or self

    def take_names(self, prefix: str) -> None:
        """Give the state its name, with `prefix` before it."""
        self.name = f"{prefix}past"
        self.states = (TensorSpec(self.name, DTYPE, (reach(self.op), *self._features)),)

    def shapes(self, call: Call) -> Any:
        """As many time steps as it reads."""
        sequence = call.args[0]
        self._features = tuple(int(n) for n in sequence.shape[2:])
        rest = self.op.compute_output_spec(sequence).shape[2:]
        return keras.KerasTensor((*sequence.shape[:2], *rest), sequence.dtype)

    def _run(self, call: Call, moment: Moment) -> Any:
        """Convolve the one window that ends at this time step."""
        op, x = self.op, moment.drop_time(call.args[0])
        past = ops.cast(moment.tensors[self._owner.name], x.dtype)
        window = ops.concatenate([past, ops.expand_dims(x, 1)], axis=1)
        moment.following[NEXT + self._owner.name] = window[:, 1:]
        if isinstance(op, layers.Conv2DTranspose):  # the window alone makes as many steps before and after
            return moment.add_time(op(window)[:, reach(op)])
        kernel = ops.cast(op.kernel, x.dtype)
        options = {"strides": op.strides, "padding": "valid", "dilation_rate": op.dilation_rate}
        options["data_format"] = op.data_format  # not what Keras is set to now
        if isinstance(op, layers.DepthwiseConv1D | layers.DepthwiseConv2D):
            y = ops.depthwise_conv(window, kernel, **options)
        else:  # group by group: Keras compiles a grouped convolution with XLA, which no format takes
            groups = zip(ops.split(window, op.groups, -1), ops.split(kernel, op.groups, -1), strict=True)
            y = ops.concatenate([ops.conv(w, k, **options) for w, k in groups], axis=-1)
        y = ops.squeeze(y, 1)
        if op.use_bias:
            y = ops.add(y, ops.cast(op.bias, x.dtype))
        if op.activation is not None:
            y = op.activation(y)
        return moment.add_time(y)


Memory = Recurrent | Convolution


def reach(op: Any) -> int:
    """How many past inputs a convolution over time needs; 0 of anything else."""
    kinds = (
        *(layers.Conv1D, layers.DepthwiseConv1D),
        *(layers.Conv2D, layers.DepthwiseConv2D, layers.Conv2DTranspose),
    )
    if isinstance(op, kinds) and not isinstance(op, layers.Conv1DTranspose):
        return int((op.kernel_size[0] - 1) * op.dilation_rate[0])
    return 0


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
    size = len(tree.flatten(cell.state_size))
    if isinstance(cell, layers.LSTMCell) and size == 2:  # a subclass may have more
        return ["h", "c"]
    if isinstance(cell, layers.GRUCell | layers.SimpleRNNCell) and size == 1:
        return ["h"]
    return ["s"] if size == 1 else [f"s{i}" for i in range(size)]


def _output_state(cell: Any) -> str | None:
    """The state that is the cell's output, where there is one."""
    if isinstance(cell, layers.StackedRNNCells):
        inner = _output_state(cell.cells[-1])
        return f"cell_{len(cell.cells) - 1}_{inner}" if inner else None
    # A subclass may put out anything; whether it does, its class does not say.
    return "h" if type(cell) in (layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell) else None


def _where(mask: Any, new: Any, old: Any) -> Any:
    return ops.where(ops.reshape(mask, (-1,) + (1,) * (len(new.shape) - 1)), new, old)
