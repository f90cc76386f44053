"""What a step program holds, read from its bytes; nothing is run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steprnn.runtime.bundle.packed import Place
from steprnn.runtime.errors import BundleError
from steprnn.runtime.pairing import Declared

from .encoding import CONSTANT, FIXED, HEADER, INT8, MAGIC, RECORD, VARIANTS, VERSION

NAMES = {
    1: "map",
    2: "reduce",
    3: "product",
    4: "gather",
    5: "LSTM",
    6: "GRU",
    7: "LSTM fixed",
    8: "GRU fixed",
}
Words = NDArray[np.uint32]


@dataclass(frozen=True)
class Held:
    """A constant tensor: what it stands for, how far 8 bits round each element, and what a step reads."""

    name: str
    values: NDArray[np.float32]
    step: NDArray[np.float32] | None
    read_bytes: int


class Program:
    """A step program; raises `BundleError` where the file is none. What it says is not checked further."""

    def __init__(self, path: Place) -> None:
        data = path.read_bytes()
        self.words: Words = np.frombuffer(data[: len(data) // 4 * 4], "<u4")
        if len(self.words) < HEADER or self.words[0] != MAGIC or self.words[1] != VERSION:
            raise BundleError(f"{path} is no step program of version {VERSION}; export again")
        self._path, self._data = path, data
        self.variant = VARIANTS[self._number(3)] if self._number(3) < len(VARIANTS) else "unknown"
        self.arena_bytes = 4 * self._number(4) + self._number(5)
        self.meta = self._meta()
        self.inputs, self.states, self.outputs = (self._records(i) for i in (6, 8, 10))

    def _number(self, index: int) -> int:
        return int(self.words[index])

    def _meta(self) -> dict[str, Any]:
        at, size = 4 * self._number(15), self._number(16)
        try:
            found = json.loads(self._data[at : at + size])
        except ValueError:
            found = None
        return found if isinstance(found, dict) else {}

    def _records(self, head: int) -> list[Declared]:
        found = []
        for i in range(self._number(head)):
            record = [int(n) for n in self.words[self._number(head + 1) + i * RECORD :][:RECORD]]
            if len(record) < RECORD:
                raise BundleError(f"{self._path} ends within its tensors; copy it again")
            name = self._data[record[0] : record[0] + record[1]].decode("utf-8", "replace")
            shape: tuple[int | str | None, ...] = ("batch", *record[10 : 10 + min(record[9], 8)])
            found.append(Declared(name, ("float32", "int32")[min(record[2], 1)], shape))
        return found

    def operations(self) -> Iterator[tuple[str, list[int]]]:
        """The name and the words of each operation."""
        at = self._number(13)
        for _ in range(self._number(12)):
            size = self._number(at) >> 8 if at < len(self.words) else 0
            if size == 0 or at + size > len(self.words):
                raise BundleError(f"{self._path} ends within its operations; copy it again")
            words = [int(n) for n in self.words[at : at + size]]
            yield NAMES.get(words[0] & 255, "unknown"), words
            at += size

    def constants(self) -> Iterator[Held]:
        """Every constant tensor that an operation reads."""
        for number, (name, op) in enumerate(self.operations()):
            where = f"{name} {number}"
            if name == "product":
                yield from self._product(where, op)
            elif name == "gather" and op[7 + 1] & CONSTANT:
                yield self._table(where, op)
            elif name in ("map", "reduce"):
                yield from self._operands(where, name, op)

    def _floats(self, at: int, count: int) -> NDArray[np.float32]:
        return self.words[at : at + count].view(np.float32)

    def _bytes(self, at: int, count: int) -> NDArray[np.int8]:
        return self.words[at : at + -(-count // 4)].view(np.int8)[:count]

    def _product(self, where: str, op: Sequence[int]) -> Iterator[Held]:
        kind, k, n, at, scales = op[1] & 255, *op[2:6]
        wide, deep = -(-n // 16) * 16, -(-k // 4) * 4
        if kind in (INT8, FIXED):
            blocks = self._bytes(at, deep * wide).reshape(wide // 16, deep // 4, 16, 4)
            matrix = blocks.transpose(1, 3, 0, 2).reshape(deep, wide)
        else:
            panels = self._floats(at, k * wide) if kind == 0 else self._bytes(at, k * wide)
            edges = [*range(0, wide, 32), wide]
            matrix = np.concatenate(
                [panels[a * k : b * k].reshape(k, b - a) for a, b in zip(edges, edges[1:], strict=False)],
                axis=1,
            )
        values, step = matrix[:k, :n].astype(np.float32), None
        if kind:
            step = np.broadcast_to(self._floats(scales, n), values.shape)
            values = values * step
        yield Held(f"{where} weights", values, step, values.size * (1 if kind else 4))
        for i in range(op[1] >> 24):
            if op[9 + i] & CONSTANT:
                added = self._floats(op[9 + i] & ~CONSTANT, n)
                yield Held(f"{where} addend", added, None, added.nbytes)

    def _table(self, where: str, op: Sequence[int]) -> Held:
        kind, rows, inner, at, scales = op[1], op[2] * op[3], op[4], op[8] & ~CONSTANT, op[9]
        if kind == 0:
            return Held(where, self._floats(at, rows * inner).reshape(rows, inner), None, 4 * inner * op[5])
        step = np.broadcast_to(self._floats(scales, rows)[:, None], (rows, inner))
        values = self._bytes(at, rows * inner).reshape(rows, inner) * step
        return Held(where, values.astype(np.float32), step, inner * op[5])

    def _operands(self, where: str, name: str, op: Sequence[int]) -> Iterator[Held]:
        first, second = op[1] >> 8 & 255, op[1] >> 16
        rank = first + (second if name == "reduce" else 0)
        sizes, at = op[2 : 2 + rank], 2 + rank + 1 + (first if name == "reduce" else rank)
        while at < len(op):
            place, strides = op[at], [n - 2**32 if n >> 31 else n for n in op[at + 1 : at + 1 + rank]]
            at += 1 + rank
            if place & CONSTANT:
                seen = [(n, s) for n, s in zip(sizes, strides, strict=True) if s]
                indices = np.full([n for n, _ in seen], place & ~CONSTANT, np.int64)
                for axis, (n, s) in enumerate(seen):
                    indices += (np.arange(n) * s).reshape(-1, *[1] * (len(seen) - 1 - axis))
                if prod(indices.shape) and indices.min() >= 0 and indices.max() < len(self.words):
                    values = self.words[indices].view(np.float32)
                    yield Held(where, values, None, values.nbytes)
