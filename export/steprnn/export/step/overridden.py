"""A subclass of a layer that remembers: what its `call` does besides is read as that of any layer is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from keras import layers, ops, tree

from steprnn.runtime.errors import ExportError

from .graph import Call
from .locality import Unreadable, read


def is_stock(op: Any) -> bool:
    """Whether Keras's own code runs where a layer is called."""
    names = ("__call__", "call", "inner_loop", "convolution_op")
    return all(
        getattr(type(op), name).__module__.startswith("keras.") for name in names if hasattr(type(op), name)
    )


def read_around(call: Call, outputs: Any, masked: bool, length: int | None = None) -> tuple[Any, set[float]]:
    """Read a call with something that is local in time in place of its memory.

    Raises `ExportError` where what is left is not local, `Unreadable` where that cannot be told.
    """
    shape = tree.flatten(outputs)[0].shape
    with _without_memory(call.op, shape) as called:
        try:
            found = read(call, outputs, masked, length)
        except ExportError:
            if called:
                raise
    if not called:
        raise Unreadable(f"it does not run super().call of {_stock(call.op).__name__}")
    return found


@contextmanager
def _without_memory(op: Any, shape: tuple[int | None, ...]) -> Iterator[list[str]]:
    """Let its `super().call` give a sequence of that shape, each step made of one step of its input."""
    called: list[str] = []
    own, stock = type(op), _stock(op)
    sizes = shape[1 + (None in shape) :]

    def stand_in(self: Any, sequence: Any, *args: Any, mask: Any = None, **kwargs: Any) -> Any:
        called.append(own.__name__)
        y = ops.sum(sequence, axis=range(2, len(sequence.shape)))
        if mask is not None:
            y = ops.where(mask, y, ops.zeros_like(y))
        y = ops.reshape(y, (*ops.shape(y), *(1,) * len(sizes))) + ops.zeros(sizes, y.dtype)
        if not isinstance(op, layers.RNN):
            return y
        last = y if op.return_sequences else y[:, -1]
        number = len(tree.flatten(op.cell.state_size)) if op.return_state else 0
        return [last, *[y[:, -1]] * number] if number else last

    between = type(own.__name__, (stock,), {"call": stand_in})
    op.__class__ = type(own.__name__, (own, between), {})
    try:
        yield called
    finally:
        op.__class__ = own


def _stock(op: Any) -> type:
    """The class of Keras that it is a subclass of."""
    return next(c for c in type(op).__mro__ if c.__module__.startswith("keras."))
