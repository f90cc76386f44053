"""What a step program is made of before it has addresses: buffers, views of them, and operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Function(IntEnum):
    """The functions of a map; the numbers are the format's."""

    COPY, NEGATE, ABSOLUTE, RECIPROCAL, ROOT, EXP, LOG, TANH, SIGMOID, SOFTPLUS, ERF = range(11)
    FLOOR, CEILING, ROUND, SIGN, RELU, FLOAT_OF_INT, INT_OF_FLOAT, NOT = range(11, 19)
    ADD, SUBTRACT, MULTIPLY, DIVIDE, MAXIMUM, MINIMUM, EQUAL, LESS, AT_MOST = range(19, 28)
    ADD_INT, SUBTRACT_INT, MULTIPLY_INT, QUOTIENT, REST, MAXIMUM_INT, MINIMUM_INT = range(28, 35)
    EQUAL_INT, LESS_INT, AT_MOST_INT, AND, OR, SELECT = range(35, 41)


KEEPING = {Function.COPY, Function.SELECT}  # of either kind
# Those whose result is int32.
INTEGERS = {f for f in Function if f >= Function.EQUAL} | {Function.INT_OF_FLOAT, Function.NOT}


class Reduction(IntEnum):
    """The functions of a reduction; the numbers are the format's."""

    SUM, PROD, LARGEST, LEAST, DOT, WHERE_LARGEST, WHERE_LEAST = range(7)


@dataclass(eq=False)
class Buffer:
    """A tensor in the arena, or a constant where it has `data`; its elements lie in a row."""

    size: int
    integer: bool = False
    data: NDArray[Any] | None = None  # float32 or int32 `[size]`
    pinned: bool = False  # an input, a state or a result: it has a place of its own


@dataclass(frozen=True)
class View:
    """Elements of a buffer: `shape`, and how many elements apart those of each axis are."""

    buffer: Buffer
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def whole(cls, buffer: Buffer, shape: Sequence[int]) -> View:
        """All of a buffer, in rows of rows."""
        return cls(buffer, 0, tuple(shape), row_strides(shape))

    @property
    def size(self) -> int:
        """Elements, each counted as often as it is seen."""
        return prod(self.shape)

    @property
    def integer(self) -> bool:
        """Whether it is of int32."""
        return self.buffer.integer

    @property
    def in_a_row(self) -> bool:
        """Whether its elements follow each other."""
        wanted = row_strides(self.shape)
        return all(n == 1 or a == b for n, a, b in zip(self.shape, self.strides, wanted, strict=True))

    def permuted(self, order: Sequence[int]) -> View:
        """The axes in another order."""
        shape, strides = (tuple(part[i] for i in order) for part in (self.shape, self.strides))
        return replace(self, shape=shape, strides=strides)

    def sliced(self, axis: int, start: int, count: int, step: int = 1) -> View:
        """Every `step`-th element of an axis."""
        shape, strides = list(self.shape), list(self.strides)
        offset = self.offset + start * strides[axis]
        shape[axis], strides[axis] = count, strides[axis] * step
        return View(self.buffer, offset, tuple(shape), tuple(strides))

    def broadcast(self, shape: Sequence[int]) -> View:
        """Seen as `shape`: axes are added in front, and those of one element repeated."""
        missing = len(shape) - len(self.shape)
        sizes, strides = (1,) * missing + self.shape, (0,) * missing + self.strides
        new = tuple(s if n == m else 0 for n, m, s in zip(sizes, shape, strides, strict=True))
        return replace(self, shape=tuple(shape), strides=new)

    def squeezed(self) -> View:
        """Without axes of one element."""
        kept = [(n, s) for n, s in zip(self.shape, self.strides, strict=True) if n > 1]
        return replace(self, shape=tuple(n for n, _ in kept), strides=tuple(s for _, s in kept))


def row_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of elements in a row."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


@dataclass(eq=False)
class Map:
    """`out = function(operands)`, element by element; all have one shape."""

    function: Function
    out: View
    operands: list[View]

    def reads(self) -> list[View]:
        """What it reads."""
        return self.operands

    def writes(self) -> list[View]:
        """What it writes."""
        return [self.out]


@dataclass(eq=False)
class Reduce:
    """`out` has the outer axes of the operands, whose last `inner` axes are reduced."""

    function: Reduction
    out: View
    operands: list[View]
    inner: int

    def reads(self) -> list[View]:
        """What it reads."""
        return self.operands

    def writes(self) -> list[View]:
        """What it writes."""
        return [self.out]


@dataclass(eq=False)
class Product:
    """`y[..., j] = sum of x[..., k] * weights[k, j]`, and the addends `[n]`; x is `[rows..., k...]`."""

    x: View
    rows: int  # axes of x that are rows
    weights: NDArray[np.float32]  # [k, n]
    y: View  # [rows..., n]
    addends: list[View] = field(default_factory=list)

    def reads(self) -> list[View]:
        """What it reads."""
        return [self.x, *self.addends]

    def writes(self) -> list[View]:
        """What it writes."""
        return [self.y]


@dataclass(eq=False)
class Gather:
    """`out[o, i, j] = data[o, index[i], j]`; a constant table of floats is kept in `table` instead."""

    index: View  # [count]
    data: View | None
    table: NDArray[np.float32] | None  # [rows, inner]
    outer: int
    rows: int
    inner: int
    out: View

    def reads(self) -> list[View]:
        """What it reads."""
        return [self.index, *([self.data] if self.data is not None else [])]

    def writes(self) -> list[View]:
        """What it writes."""
        return [self.out]


@dataclass(eq=False)
class Gates:
    """The gates of an LSTM (i, f, g, o, c -> next c, next h) or GRU; each view is n elements in a row."""

    lstm: bool
    operands: list[View]
    results: list[View]

    def reads(self) -> list[View]:
        """What it reads."""
        return self.operands

    def writes(self) -> list[View]:
        """What it writes."""
        return self.results


Operation = Map | Reduce | Product | Gather | Gates
