"""Loops, branches and other files of an ONNX file, read from its bytes: a bundle has none.

A loop of a stranger's graph may be one of 2^63 rounds, and an engine that is in it does not come back.
Weights in another file would be looked for where the process stands.
"""

from __future__ import annotations

from collections.abc import Iterator

CONTROL = frozenset({"If", "Loop", "Scan", "SequenceMap"})
EXTERNAL = "in another file"  # no operator has spaces in its name that an engine knows
# Message -> the fields that are walked into, and what they hold (onnx.proto).
MODEL: dict[int, str] = {7: "graph", 25: "function"}
FIELDS = {
    "model": MODEL,
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {4: "operator", 5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
}


def operators(data: bytes) -> Iterator[str]:
    """The operator of every node, of nested graphs and of functions, and `EXTERNAL` for each tensor that is.

    Raises `ValueError` where it is no protobuf.
    """
    parts = [("model", 0, len(data))]
    while parts:
        kind, at, end = parts.pop()
        while at < end:
            key, at = _varint(data, at, end)
            field, wire = key >> 3, key & 7
            size = 0
            if wire == 0:
                _, at = _varint(data, at, end)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
            elif wire == 2:
                size, at = _varint(data, at, end)
                inner = FIELDS[kind].get(field)
                if inner == "operator":
                    yield data[at : at + size].decode("utf-8", "replace")
                elif inner == "external":
                    yield EXTERNAL
                elif inner is not None:
                    parts.append((inner, at, at + size))
            else:
                raise ValueError(f"a field of the wire type {wire}")
            at += size
            if at > end:
                raise ValueError("a field that ends beyond what holds it")


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
