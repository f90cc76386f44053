"""Loops and branches in an ONNX file, read from its bytes: a step of a bundle has none, however it is asked.

A loop of a stranger's graph may be one of 2^63 rounds, and an engine that is in it does not come back.
"""

from __future__ import annotations

from collections.abc import Iterator

CONTROL = frozenset({"If", "Loop", "Scan", "SequenceMap"})
# Message -> the fields that are walked into, and what they hold (onnx.proto).
MODEL: dict[int, str] = {7: "graph", 25: "function"}
FIELDS = {
    "model": MODEL,
    "graph": {1: "node"},
    "function": {7: "node"},
    "node": {4: "operator", 5: "attribute"},
    "attribute": {6: "graph", 11: "graph"},
}


def operators(data: bytes) -> Iterator[str]:
    """The operator of every node, of nested graphs and of functions; `ValueError` where it is no protobuf."""
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
