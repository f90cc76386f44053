"""int8-fixed: which operations of a step have a form in integers."""

from __future__ import annotations

from collections.abc import Sequence

from steprnn.runtime.errors import ExportError

from .values import Buffer, Function, Gates, Map, Operation, Product, Reduce

MOVES = {Function.COPY, Function.RELU, Function.SELECT}  # of floats, without arithmetic
INTEGERS = {f for f in Function if f >= Function.ADD_INT} | {Function.NOT}


def refuse_strangers(operations: Sequence[Operation]) -> None:
    """Raise `ExportError` with the names of the operations that only floats have."""
    strangers = {
        operation.function.name.lower()
        for operation in operations
        if isinstance(operation, Reduce)
        or (isinstance(operation, Map) and operation.function not in MOVES | INTEGERS)
    }
    if strangers:
        raise ExportError(
            f"the step holds {', '.join(sorted(strangers))}, which int8-fixed has not: it is for LSTM and "
            "GRU as Keras makes them by default, with Embedding or features, and Dense; leave int8-fixed out "
            "of --quantize"
        )
    if not any(isinstance(operation, Gates) for operation in operations):
        raise ExportError(
            "the step holds no gates of LSTM or GRU, for which int8-fixed is; leave it out of --quantize"
        )


def before_gates(operations: Sequence[Operation]) -> set[Buffer]:
    """The results of products that are read by gates alone, or as an addend of such a product.

    Gates take them to within 2^-16 up to 8192, so that they need not be told better.
    """
    found: set[Buffer] = set()
    told: set[Buffer] = set()  # what is read elsewhere
    for operation in reversed(operations):
        if isinstance(operation, Product):
            buffer = operation.y.buffer
            if not buffer.pinned and buffer not in told:
                found.add(buffer)
            told.add(operation.x.buffer)
            if buffer not in found:
                told |= {view.buffer for view in operation.addends}
        elif isinstance(operation, Gates):
            told |= {operation.operands[4 if operation.lstm else 6].buffer}  # c or h
        else:
            told |= {view.buffer for view in operation.reads()}
    return found
