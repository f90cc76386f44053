"""Maps whose result is known beforehand, since a token is in 0 .. tokens - 1.

Keras lets a table be indexed from its end, so that each Embedding comes with seven operations that do nothing
to a token: `x + (x < 0) * rows` and the like.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from steprnn.runtime.spec import StepSpec

from .lowering import Lowering
from .values import Buffer, Gather, Map, Operation, View
from .values import Function as F  # noqa: N817 (named in nearly every line)

Range = tuple[float, float]
MOST = 2**31 - 1


def simplified(lowering: Lowering, spec: StepSpec) -> list[Operation]:
    """The operations without those."""
    known: dict[Buffer, Range] = {
        lowering.tensor(t.name).buffer: (0, t.tokens - 1) for t in spec.inputs if t.tokens is not None
    }
    same: dict[Buffer, View] = {}  # a buffer, and the elements in a row that it equals
    writes = Counter(view.buffer for op in lowering.operations for view in op.writes())
    # Of others than maps nothing is put in the place of what they read.
    others = {v.buffer for o in lowering.operations if not isinstance(o, Map) for v in o.reads()}
    others -= {o.index.buffer for o in lowering.operations if isinstance(o, Gather)}
    kept: list[Operation] = []
    for operation in lowering.operations:
        operation = _instead(operation, same)
        if isinstance(operation, Map) and writes[operation.out.buffer] == 1 and _is_whole(operation.out):
            buffer, found = operation.out.buffer, _range(operation, known)
            if found is not None:
                known[buffer] = found
                if found[0] == found[1] and not buffer.pinned:
                    buffer.data = np.full(buffer.size, found[0], np.int32 if buffer.integer else np.float32)
                    continue
            equal = _equal(operation, known)
            if equal is not None and not buffer.pinned and buffer not in others:
                same[buffer] = equal
                if equal.buffer in known:
                    known[buffer] = known[equal.buffer]
                continue
        kept.append(operation)
    return kept


def _is_whole(view: View) -> bool:
    return view.in_a_row and view.size == view.buffer.size


def _instead(operation: Operation, same: dict[Buffer, View]) -> Operation:
    """The operation with what equals a buffer in its place."""

    def moved(view: View) -> View:
        to = same.get(view.buffer)
        return view if to is None else replace(view, buffer=to.buffer, offset=view.offset + to.offset)

    if isinstance(operation, Map):
        return Map(operation.function, operation.out, [moved(v) for v in operation.operands])
    if isinstance(operation, Gather):
        operation.index = moved(operation.index)
        return operation
    return operation


def _range(operation: Map, known: dict[Buffer, Range]) -> Range | None:
    """The least and the largest that a map can give."""
    ranges = [_of(view, known) for view in operation.operands]
    if any(r is None for r in ranges):
        return None
    a, *others = [r for r in ranges if r is not None]
    b = others[0] if others else (0.0, 0.0)
    found: Range | None = None
    if operation.function == F.FLOAT_OF_INT:
        found = a
    elif operation.function == F.NOT:
        found = (1, 1) if a == (0, 0) else (0, 0) if a[0] > 0 or a[1] < 0 else (0, 1)
    elif operation.function in (F.LESS, F.LESS_INT):
        found = (1, 1) if a[1] < b[0] else (0, 0) if a[0] >= b[1] else (0, 1)
    elif operation.function == F.ADD_INT:
        found = (a[0] + b[0], a[1] + b[1])
    elif operation.function == F.MULTIPLY_INT:
        corners = [p * q for p in a for q in b]
        found = (min(corners), max(corners))
    return found if found is None or max(map(abs, found)) <= MOST else None


def _of(view: View, known: dict[Buffer, Range]) -> Range | None:
    data = view.buffer.data
    if data is None:
        return known.get(view.buffer)
    return (float(data.min()), float(data.max())) if np.isfinite(data).all() else None


def _equal(operation: Map, known: dict[Buffer, Range]) -> View | None:
    """The operand that a map of whole numbers gives back: of a product with 1, or a sum with 0."""
    neutral = {F.MULTIPLY_INT: 1.0, F.ADD_INT: 0.0}.get(operation.function)
    operands: Sequence[View] = operation.operands
    if neutral is None:
        return None
    for one, other in (operands, operands[::-1]):
        if _of(one, known) == (neutral, neutral) and other.in_a_row and other.size == operation.out.size:
            return other
    return None
