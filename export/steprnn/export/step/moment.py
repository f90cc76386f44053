"""One time step under way."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from keras import ops

Tensors = dict[str, Any]


class Moment:
    """The inputs and states that came in, the next states so far, and the time axis of length 1.

    An axis that was added and is dropped again cancels out, and leaves no reshape in the graph.
    """

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors  # inputs and states by name, `[batch, ...]`
        self.following: Tensors = {}  # next states by name, `[batch, size...]`
        self.beginning: Tensors = {}  # of states that begin from something, by name, what the model says
        self._without: dict[int, tuple[Any, Any]] = {}

    def add_time(self, tensor: Any) -> Any:
        """`[batch, 1, ...]` of `[batch, ...]`."""
        expanded = ops.expand_dims(tensor, 1)
        self._without[id(expanded)] = (tensor, expanded)  # holding it keeps its id from being reused
        return expanded

    def drop_time(self, tensor: Any) -> Any:
        """`[batch, ...]` of `[batch, 1, ...]`."""
        pair = self._without.get(id(tensor))
        return pair[0] if pair else ops.squeeze(tensor, 1)

    def drop_time_if_any(self, value: Any) -> Any:
        """The same for a tensor of two axes or more; anything else as it is."""
        has_time = tf.is_tensor(value) and value.shape.rank and value.shape.rank > 1
        return self.drop_time(value) if has_time else value
