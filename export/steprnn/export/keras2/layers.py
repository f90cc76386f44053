"""What Keras 3 no longer has: an activation that changed its meaning, and operations as layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import layers

# Of TensorFlow, what computes and does nothing else.
OPERATIONS = re.compile(
    r"(math|nn|linalg|__operators__|keras\.activations|compat\.v1\.nn)\.\w+$"
    r"|(concat|stack|unstack|expand_dims|squeeze|reshape|transpose|cast|where|split|tile|reverse|one_hot|gather"
    r"|shape|zeros_like|ones_like|identity|clip_by_value|repeat|pad|slice|strided_slice|abs|add|subtract|multiply"
    r"|divide|matmul|reduce_\w+|square|sqrt|exp|tanh|sigmoid|sign|maximum|minimum|pow|stop_gradient)$"
)


def hard_sigmoid(x: Any) -> Any:
    """Keras 2's: clip(0.2 x + 0.5, 0, 1); Keras 3's is clip(x / 6 + 0.5, 0, 1)."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


class TFOpLambda(layers.Layer):  # type: ignore[misc] # Keras ships no types
    """An operation of TensorFlow in a functional model, by its public name, such as `math.multiply`."""

    def __init__(self, function: str, **options: Any) -> None:
        super().__init__(**options)
        self.function = function

    def call(self, *args: Any, constant: Any = None, tensor_as: str | None = None, **kwargs: Any) -> Any:
        """What the operation gives; with `constant` as its first argument and the tensor by that name."""
        operation: Any = tf
        for part in self.function.split("."):
            operation = getattr(operation, part)
        if tensor_as is None:
            return operation(*args, **kwargs)
        return operation(tf.convert_to_tensor(constant, args[0].dtype), **{tensor_as: args[0]}, **kwargs)


class SlicingOpLambda(layers.Layer):  # type: ignore[misc]
    """`x[...]` in a functional model."""

    def __init__(self, function: str, **options: Any) -> None:
        super().__init__(**options)

    def call(self, x: Any, slice_spec: Any) -> Any:
        """The slice; `slice_spec` has `{start, stop, step}`, numbers, and an ellipsis by its name."""
        return x[tuple(_slice(part) for part in slice_spec)]


def _slice(part: Any) -> Any:
    if not isinstance(part, Mapping):
        return part
    if "start" in part:
        return slice(part["start"], part["stop"], part["step"])
    return Ellipsis


HARD_SIGMOID = "keras2_hard_sigmoid"  # as a configuration calls it
OWN: dict[str, Any] = {
    "TFOpLambda": TFOpLambda,
    "SlicingOpLambda": SlicingOpLambda,
    HARD_SIGMOID: hard_sigmoid,
}
