"""What one call of a layer is in the step: for each kind one rule, in shapes and in numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops, tree
from numpy.typing import NDArray

from steprnn.runtime.errors import SteprnnError, brief
from steprnn.runtime.spec import TensorSpec

from .graph import Call, mask_of
from .layers import TIMELESS, changes_a_variable, refusal
from .moment import Moment

LONGEST_INNER = 128  # steps of a recurrence within one time step, or before the first, which is unrolled


class Part:
    """A call that remembers nothing. It runs as it is, on a time axis of length 1 where it has one.

    `timed` tells whether it does, `by_rule` whether the step runs what a rule of ours makes of the layer, for
    one time step by construction. A part that remembers has `states`, once they have names, and of those that
    do not begin at zero `initial`, without the batch axis.
    """

    remembers = False
    by_rule = False
    states: tuple[TensorSpec, ...] = ()
    initial: dict[str, NDArray[np.float32]] = {}  # noqa: RUF012 (never written here)

    def __init__(self, timed: bool) -> None:
        self.timed = timed

    def shapes(self, call: Call) -> Any:
        """The symbolic results on a free time axis; raises `ExportError` where there are none."""
        try:
            result = call.output_spec()
        except Exception as error:  # each layer has its own complaint about a free time axis
            raise refusal(
                call.op,
                f"does not take a free time axis ({error})",
                "leave it out, or wrap it in TimeDistributed",
            ) from error
        for t in tree.flatten(result):
            if None in t.shape[2:]:
                raise refusal(call.op, "moves the time axis", "keep time at axis 1")
        return result

    def step(self, call: Call, moment: Moment) -> Any:
        """The results at one time step; raises `ExportError` where the layer does not run on one."""
        graph = tf.compat.v1.get_default_graph()
        before = len(graph.get_operations())
        try:
            results = self._run(call, moment)
        except SteprnnError:
            raise
        except Exception as error:
            words = brief(error, 200)
            instead = "it must act on each time step alone"
            raise refusal(call.op, f"does not run on a single time step ({words})", instead) from error
        if any(made.type.startswith("Assign") for made in graph.get_operations()[before:]):
            raise changes_a_variable(call.op)
        return results

    def _run(self, call: Call, moment: Moment) -> Any:
        return call.run()


class Timeless(Part):
    """Gives the same without a time axis, and then leaves no reshapes in the graph."""

    def _run(self, call: Call, moment: Moment) -> Any:
        arguments = (tree.map_structure(moment.drop_time_if_any, a) for a in call.args)
        return _with_mask(call, moment.add_time(call.op(*arguments)))


class Distributed(Part):
    """`TimeDistributed`: its layer, without the time axis.

    A recurrence within it runs inside one time step, and is unrolled: a step holds no loop.
    """

    by_rule = True

    def shapes(self, call: Call) -> Any:
        """Refused where such a recurrence has no length, or one that would make a graph of thousands."""
        if recurrences(call.op.layer):
            _refuse_length(call, 2, "within each time step")
        return super().shapes(call)

    def _run(self, call: Call, moment: Moment) -> Any:
        with _unrolled(call.op.layer):
            return _with_mask(call, moment.add_time(call.op.layer(moment.drop_time(call.args[0]))))


class Unrolled(Part):
    """A recurrence over a sequence that is given once and stays the same, such as an encoder's."""

    def shapes(self, call: Call) -> Any:
        """Refused where it keeps a state, has no length, or one that would make a graph of thousands."""
        if any(inner.stateful for inner in recurrences(call.op)):
            what = "keeps a state (stateful=True) of what has no input with a time axis"
            instead = "let its Input be [batch, time, features], or leave stateful=True out"
            raise refusal(call.op, what, instead)
        _refuse_length(call, 1, "over what stays the same")
        return super().shapes(call)

    def _run(self, call: Call, moment: Moment) -> Any:
        with _unrolled(call.op):
            return call.run()


def recurrences(layer: Any) -> list[Any]:
    """The recurrent layers in a layer, itself too."""
    within = layer._flatten_layers() if isinstance(layer, layers.Layer) else ()
    return [inner for inner in within if isinstance(inner, layers.RNN)]


def _refuse_length(call: Call, axis: int, where: str) -> None:
    shape = tree.flatten(call.args)[0].shape
    length = shape[axis] if len(shape) > axis else None
    if length is None or length > LONGEST_INNER:
        told = "of no fixed length" if length is None else f"of {length} steps"
        instead = f"give it a fixed length of at most {LONGEST_INNER}"
        raise refusal(call.op, f"runs a recurrence {told} {where}", instead)


@contextmanager
def _unrolled(layer: Any) -> Iterator[None]:
    """The recurrent layers in it without a loop."""
    inner = recurrences(layer)
    kept = [one.unroll for one in inner]
    for one in inner:
        one.unroll = True
    try:
        yield
    finally:
        for one, unroll in zip(inner, kept, strict=True):
            one.unroll = unroll


class Encoded(Part):
    """`CategoryEncoding`, which drops an axis of length 1 by itself."""

    by_rule = True

    def _run(self, call: Call, moment: Moment) -> Any:
        encoded = call.run()
        return moment.add_time(encoded) if call.args[0].shape.rank == 2 else encoded


class Reshaped(Part):
    """A `Reshape` of the features of each time step, or of what has no time.

    As Keras runs it, it asks for the batch size, which the TFLite converter would take for a constant.
    """

    by_rule = True

    def shapes(self, call: Call) -> Any:
        """Refused where a time step is not made of one time step alone."""
        (tensor,) = call.args
        outer = 1 + self.timed
        before, after = tensor.shape[outer:], tuple(int(n) for n in call.op.target_shape[outer - 1 :])
        if -1 in after:
            after = tuple(prod(before) // -prod(after) if n == -1 else n for n in after)
        if prod(before) != prod(after):
            instead = "keep time at axis 1: Reshape((-1, ...))"
            raise refusal(call.op, "reshapes time into the features", instead)
        self._shape = (-1, *(1,) * self.timed, *after)
        return keras.KerasTensor((*tensor.shape[:outer], *after), tensor.dtype)

    def _run(self, call: Call, moment: Moment) -> Any:
        return ops.reshape(call.args[0], self._shape)


class Flattened(Part):
    """A `Flatten` of what has no time, for the same reason."""

    def _run(self, call: Call, moment: Moment) -> Any:
        return ops.reshape(call.args[0], (-1, prod(call.args[0].shape[1:])))


class Padding(Part):
    """Zeros before the first step, which the convolution behind it takes up: `ZeroPadding`, `ops.pad`."""

    by_rule = True

    def shapes(self, call: Call) -> Any:
        """As if nothing were padded in time; refused at its end, where it is the future."""
        self.over = _widths(call)
        (self.left, right), *others = self.over
        if right:
            raise refusal(call.op, "pads the future", "pad on the left alone")
        self._others = others
        tensor = call.args[0]
        padded = (n + sum(pair) for n, pair in zip(tensor.shape[2:], others, strict=True))
        return keras.KerasTensor((*tensor.shape[:2], *padded), tensor.dtype)

    def _run(self, call: Call, moment: Moment) -> Any:
        if not any(map(any, self._others)):
            return call.args[0]
        return ops.pad(call.args[0], [(0, 0), (0, 0), *self._others])


def _widths(call: Call) -> tuple[tuple[int, int], ...]:
    """By how much each axis from the time axis on is padded, before and after."""
    op, rank = call.op, len(call.args[0].shape)
    if isinstance(op, layers.Layer):
        if getattr(op, "data_format", "channels_last") != "channels_last":
            raise refusal(op, "has the time axis last (channels_first)", "use channels_last")
        given = [*(op.padding if rank == 4 else (op.padding,)), (0, 0)]
    else:
        batch, *given = op.pad_width * (rank if len(op.pad_width) == 1 else 1)
        if any(batch):
            raise refusal(op, "pads the batch", "pad the features alone, or before the first time step")
        value = call.arguments.get("constant_values")
        if op.mode != "constant" or (value is not None and np.any(np.asarray(value))):
            raise refusal(op, "pads with something other than zeros", "pad with zeros")
    return tuple((int(left), int(right)) for left, right in given)


class Cropped(Part):
    """A `Cropping2D` that takes away what a transposed convolution before it made beyond the sequence."""

    by_rule = True

    def shapes(self, call: Call) -> Any:
        """As if nothing were cropped in time."""
        tensor, (left, right) = call.args[0], call.op.cropping[1]
        self._kept = slice(left, tensor.shape[2] - right)
        return keras.KerasTensor(
            (*tensor.shape[:2], tensor.shape[2] - left - right, tensor.shape[3]), tensor.dtype
        )

    def _run(self, call: Call, moment: Moment) -> Any:
        return call.args[0][:, :, self._kept]


class Repeated(Part):
    """A `RepeatVector` of what is the same at every step: it is there at this one."""

    def shapes(self, call: Call) -> Any:
        """A sequence of any length."""
        (tensor,) = call.args
        return keras.KerasTensor((tensor.shape[0], None, *tensor.shape[1:]), tensor.dtype)

    def _run(self, call: Call, moment: Moment) -> Any:
        return moment.add_time(call.args[0])


def part_of(op: Any, timed: bool) -> Part:
    """The part of a layer that remembers nothing."""
    kinds = TIMED if timed else UNTIMED
    # A subclass whose `call` is its own is none of them.
    stock = (c for c in type(op).__mro__ if c in kinds and type(op).call is vars(c).get("call"))
    kind = next((kinds[c] for c in stock), None)
    if timed and type(op).__name__ == "Pad" and type(op).__module__.startswith("keras."):
        kind = Padding
    if kind is None:
        kind = Timeless if timed and _is_timeless(op) else Part
    return kind(timed)


UNTIMED: dict[type, type[Part]] = {
    layers.Reshape: Reshaped,
    layers.Flatten: Flattened,
    layers.RepeatVector: Repeated,
}
TIMED: dict[type, type[Part]] = {
    layers.TimeDistributed: Distributed,
    layers.CategoryEncoding: Encoded,
    layers.Reshape: Reshaped,
    layers.ZeroPadding1D: Padding,
    layers.ZeroPadding2D: Padding,
}


def _is_timeless(op: Any) -> bool:
    if not type(op).__module__.startswith("keras."):  # of somebody's own, whatever its name
        return False
    if type(op).__name__ in TIMELESS:
        return True
    if isinstance(op, layers.Concatenate | layers.Softmax):
        return bool(op.axis == -1)
    return isinstance(op, layers.LayerNormalization) and list(tree.flatten(op.axis)) == [-1]


def _with_mask(call: Call, result: Any) -> Any:
    """Hang the mask on the result of a layer that was run without its time axis, as Keras does."""
    op, inputs = call.op, call.args[0]
    if isinstance(op, layers.Layer) and op.supports_masking:
        result._keras_mask = op.compute_mask(inputs, tree.map_structure(mask_of, inputs))
    return result
