"""What an inspection found, as a record for machines and a table for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from steprnn.runtime.pairing import Declared, Pair, shape_text


@dataclass(frozen=True)
class Hazard:
    """Something that can go wrong with the file, in words.

    A caution is safe for whoever binds tensors by name, and does not count for `--strict`.
    """

    kind: str
    words: str
    caution: bool = False


@dataclass(frozen=True)
class Weights:
    """Bytes of weights by dtype as stored, and how many of them one step reads.

    Of a table that is looked up it reads one row; of branches, the sum.
    """

    bytes: dict[str, int] = field(default_factory=dict)
    per_step: int | None = None  # None where there is no step

    @classmethod
    def of(cls, constants: Iterable[tuple[str, int, int]]) -> Weights:
        """The sum of constants, each `(dtype, bytes, bytes read per step)`."""
        stored: dict[str, int] = {}
        per_step = 0
        for dtype, size, read in constants:
            stored[dtype] = stored.get(dtype, 0) + size
            per_step += read
        return cls(stored, per_step)


@dataclass(frozen=True)
class Inspection:
    """One file, or a bundle with its graphs as `parts`. Tensors stand in the file's own order."""

    path: str
    format: str
    maker: str
    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    pairs: tuple[Pair, ...]
    operators: dict[str, int]
    weights: Weights | None
    hazards: tuple[Hazard, ...]
    notes: tuple[str, ...] = ()
    parts: tuple[Inspection, ...] = ()

    def all_hazards(self) -> list[Hazard]:
        """Its own and those of its parts."""
        return [*self.hazards, *(h for part in self.parts for h in part.all_hazards())]

    def to_record(self) -> dict[str, Any]:
        """For `--json`; a free dimension without a name is null."""
        record = {**asdict(self), "parts": [part.to_record() for part in self.parts]}
        record["states"] = record.pop("pairs")
        return record

    def table(self) -> str:
        """For people: one line a tensor, operators by how many, hazards in words."""
        lines = [f"{self.path}: {self.format}{', ' if self.maker else ''}{self.maker}"]
        lines += [f"{head:<10} {line}".rstrip() for head, line in self._rows()]
        return "\n".join([*lines, *(f"\n{part.table()}" for part in self.parts)])

    def _rows(self) -> Iterator[tuple[str, str]]:
        pairs = {pair.state: pair for pair in self.pairs}
        nexts = {pair.next for pair in self.pairs}
        tensors = [t for t in (*self.inputs, *self.outputs) if t.name not in nexts]
        name = max((len(t.name) for t in tensors), default=0)
        shape = max((len(shape_text(t.shape)) for t in tensors if t.name in pairs), default=0)
        for head, group in (
            ("inputs", [t for t in self.inputs if t.name not in pairs]),
            ("states", [t for t in self.inputs if t.name in pairs]),
            ("outputs", [t for t in self.outputs if t.name not in nexts]),
        ):
            rows = [f"{t.name:<{name}}  {t.dtype:<8} {shape_text(t.shape)}" for t in group]
            if head == "states":
                backs = [pairs[t.name] for t in group]
                width = max((len(pair.next) for pair in backs), default=0)
                rows = [
                    f"{row:<{name + shape + 11}}  -> {pair.next:<{width}}  {pair.evidence}"
                    for row, pair in zip(rows, backs, strict=True)
                ]
            yield from _under(head, rows or ["none"])
        if self.operators:
            counts = sorted(self.operators.items(), key=lambda item: (-item[1], item[0]))
            listed = ", ".join(f"{n} {operator}" for operator, n in counts)
            yield "operators", f"{sum(self.operators.values())}: {listed}"
        if self.weights is not None:
            kinds = ", ".join(f"{dtype} {size:,}" for dtype, size in self.weights.bytes.items())
            total = sum(self.weights.bytes.values())
            read = "" if self.weights.per_step is None else f", {self.weights.per_step:,} read per step"
            yield "weights", f"{total:,} bytes ({kinds or 'none'}){read}"
        for head, caution in (("hazards", False), ("cautions", True)):
            found = [f"{h.kind}: {h.words}" for h in self.hazards if h.caution == caution]
            if found or not caution:
                yield from _under(head, found or ["none"])
        yield from _under("notes", list(self.notes))


def _under(head: str, rows: list[str]) -> Iterator[tuple[str, str]]:
    """The head beside the first row, nothing beside the others."""
    yield from ((head if i == 0 else "", row) for i, row in enumerate(rows))
