"""What one call of a layer is in the step: for each kind one rule, in shapes and in numbers."""

from __future__ import annotations

from math import prod
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops, tree
from numpy.typing import NDArray

from steprnn.runtime.spec import TensorSpec

from .graph import Call, mask_of
from .layers import TIMELESS, refusal
from .moment import Moment


class Part:
    """A call that remembers nothing. It runs as it is, on a time axis of length 1 where it has one.

    `timed` tells whether it does. A part that remembers has `states`, once they have names, and of those
    that do not begin at zero `initial`, without the batch axis.
    """

    remembers = False
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
        except Exception as error:
            raise refusal(
                call.op, "does not run on a single time step", "it must act on each time step alone"
            ) from error
        if any(made.type.startswith("Assign") for made in graph.get_operations()[before:]):
            instead = "draw outside the model, and give it what was drawn as an Input"
            raise refusal(call.op, "changes a variable at every call, as drawing at random does", instead)
        return results

    def _run(self, call: Call, moment: Moment) -> Any:
        return call.run()


class Timeless(Part):
    """Gives the same without a time axis, and then leaves no reshapes in the graph."""

    def _run(self, call: Call, moment: Moment) -> Any:
        arguments = (tree.map_structure(moment.drop_time_if_any, a) for a in call.args)
        return _with_mask(call, moment.add_time(call.op(*arguments)))


class Distributed(Part):
    """`TimeDistributed`: its layer, without the time axis."""

    def _run(self, call: Call, moment: Moment) -> Any:
        return _with_mask(call, moment.add_time(call.op.layer(moment.drop_time(call.args[0]))))


class Encoded(Part):
    """`CategoryEncoding`, which drops an axis of length 1 by itself."""

    def _run(self, call: Call, moment: Moment) -> Any:
        encoded = call.run()
        return moment.add_time(encoded) if call.args[0].shape.rank == 2 else encoded


class Reshaped(Part):
    """A `Reshape` of the features of each time step, or of what has no time.

    As Keras runs it, it asks for the batch size, which the TFLite converter would take for a constant.
    """

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
    """`ZeroPadding1D` or `ZeroPadding2D` before the first step, which the convolution behind it takes up."""

    def shapes(self, call: Call) -> Any:
        """As if nothing were padded in time; refused at its end, where it is the future."""
        (tensor,), padding = call.args, call.op.padding
        over_time, *others = padding if len(tensor.shape) == 4 else (padding,)
        self.left, right = (int(n) for n in over_time)
        if right:
            raise refusal(call.op, "pads the future", "pad on the left alone")
        self._others = [tuple(int(n) for n in pair) for pair in others]
        padded = [n + sum(pair) for n, pair in zip(tensor.shape[2:], self._others, strict=False)]
        return keras.KerasTensor((*tensor.shape[:2], *padded, tensor.shape[-1]), tensor.dtype)

    def _run(self, call: Call, moment: Moment) -> Any:
        if not any(map(any, self._others)):
            return call.args[0]
        return ops.pad(call.args[0], [(0, 0), (0, 0), *self._others, (0, 0)])


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
    kind = next((kinds[c] for c in type(op).__mro__ if c in kinds), None)
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
