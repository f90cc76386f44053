"""Loops, branches, other files and uneven splits of an ONNX file, from its bytes: a bundle has none.

A loop of a stranger's graph may be one of 2^63 rounds, and an engine that is in it does not come back.
Weights in another file would be looked for where the process stands. A Split that says it has fewer parts
than it has makes onnxruntime end the process.
"""

from __future__ import annotations

from collections.abc import Iterator

CONTROL = frozenset({"If", "Loop", "Scan", "SequenceMap"})
EXTERNAL = "in another file"  # no operator has spaces in its name that an engine knows
UNEVEN = "in other parts than it says"
# Message -> the fields that are walked into, and what they hold (onnx.proto).
MODEL: dict[int, str] = {7: "graph", 25: "function"}
FIELDS = {
    "model": MODEL,
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {2: "output", 4: "operator", 5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
}


def operators(data: bytes) -> Iterator[str]:
    """The operator of every node, of nested graphs and of functions.

    Beside them `EXTERNAL` for each tensor that is in another file, and `UNEVEN` for each node that says it
    has another number of outputs than it has. Raises `ValueError` where it is no protobuf.
    """
    parts = [("model", 0, len(data))]
    while parts:
        kind, at, end = parts.pop()
        outputs, said = 0, set()
        for field, begin, stop in _fields(data, at, end):
            inner = FIELDS[kind].get(field)
            if stop < 0 or inner is None:
                continue
            if inner == "operator":
                yield data[begin:stop].decode("utf-8", "replace")
            elif inner == "external":
                yield EXTERNAL
            elif inner == "output":
                outputs += 1
            else:
                parts.append((inner, begin, stop))
            if inner == "attribute":
                said |= _number(data, begin, stop)
        if said and said != {outputs}:
            yield UNEVEN


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Each field of a message: its number, and where it begins and ends; of a number, that and -1."""
    while at < end:
        key, at = _varint(data, at, end)
        field, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at, end)
            yield field, value, -1
            continue
        if wire == 2:
            size, at = _varint(data, at, end)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field of the wire type {wire}")
        if at + size > end:
            raise ValueError("a field that ends beyond what holds it")
        if wire == 2:
            yield field, at, at + size
        at += size


def _number(data: bytes, at: int, end: int) -> set[int]:
    """What an attribute says is the number of outputs, if it is the one that does."""
    name, number = b"", 0
    for field, begin, stop in _fields(data, at, end):
        if field == 1 and stop >= 0:
            name = data[begin:stop]
        elif field == 3 and stop < 0:
            number = begin
    return {number} if name == b"num_outputs" else set()


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number that does not end")
