"""The size of an input in use, as its first layers tell: a normalisation knows its data, a table its rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from steprnn.runtime.spec import TensorSpec

from ..formats.frozen import freeze, made_once
from ..step.contract import Step
from .audit import values_of

SAME = frozenset(("Identity", "Cast", "Reshape", "ExpandDims", "Squeeze"))
WIDE = 100  # integers that are drawn where nothing tells their range
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """An input in use: about `center`, give or take `spread`; the first and last index of a `table`."""

    center: Floats
    spread: Floats
    table: tuple[int, int] | None = None

    @property
    def integers(self) -> tuple[int, int]:
        """The least and the most of an integer: in its table, or two spreads to each side."""
        if self.table is not None:
            return self.table
        if np.all(self.spread == 1) and np.all(self.center == 0):
            return 0, WIDE - 1
        return int(np.min(self.center - 2 * self.spread)), int(np.max(self.center + 2 * self.spread))

    def drawn(self, noise: Any, beyond: float) -> NDArray[np.float32]:
        """Of standard normal noise `[..., size...]`, so many times as far from the center."""
        values: NDArray[np.float32] = (self.center + beyond * self.spread * noise).astype(np.float32)
        return values


def scale_of(step: Step, tensor: TensorSpec) -> Scale:
    """The scale of an input of a step or its start; zero, give or take one, where the graph tells none."""
    read = step if tensor.name in step.signature() or step.start is None else step.start
    return made_once(read, "scales", lambda: _scales(read)).get(tensor.name, Scale(np.zeros(()), np.ones(())))


def _scales(step: Step) -> dict[str, Scale]:
    graph = freeze(step).graph.as_graph_def()
    values, read = values_of(graph)
    constants = {_name(name): values[name] for name in read}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for source in node.input:
            readers.setdefault(_name(source), []).append(node)
    found = {t.name: list(_ends(t.name, readers, constants)) for t in step.spec.inputs}
    # A table is read from its end as well, which negative indices are for: the positive ones are in use.
    return {n: max(ends, key=lambda e: e.table[1] if e.table else 0) for n, ends in found.items() if ends}


def _ends(name: str, readers: dict[str, list[Any]], constants: dict[str, Any]) -> Iterator[Scale]:
    """What the places that read an input tell: where `factor * x + shift` ends, or is looked up."""
    waiting: list[tuple[str, Any, Any]] = [(name, np.float64(1), np.float64(0))]
    while waiting:
        source, factor, shift = waiting.pop()
        plain = np.size(factor) == 1 and factor == 1 and np.all(shift == 0)
        for node in readers.get(source, ()):
            moved = _moved(node, source, factor, shift, constants)
            if node.op in ("GatherV2", "OneHot"):
                size = _rows(node, source, constants)
                if size and np.size(factor) == np.size(shift) == 1 and factor > 0:
                    least, most = np.ceil(-shift / factor), np.floor((size - 1 - shift) / factor)
                    yield Scale(np.zeros(()), np.ones(()), (int(least), int(most)))
            elif moved is not None:
                waiting.append((node.name, *moved))
            elif not plain and np.all(factor != 0) and _is_float(node):
                yield Scale(np.squeeze(-shift / factor), np.squeeze(np.abs(1 / factor)))


def _moved(
    node: Any, source: str, factor: Any, shift: Any, constants: dict[str, Any]
) -> tuple[Any, Any] | None:
    """What becomes of `factor * x + shift` in an operator; None where that is no longer such."""
    if node.op in SAME or (node.op == "SelectV2" and _name(node.input[0]) != source):
        return factor, shift
    names = [_name(i) for i in node.input[:2]]
    if node.op not in ("Add", "AddV2", "BiasAdd", "Sub", "Mul", "RealDiv") or source not in names:
        return None
    other = constants.get(names[1 - names.index(source)])
    if other is None or np.count_nonzero(np.array(np.shape(other)) > 1) > 1:
        return None
    value = np.asarray(other, np.float64).ravel() if np.size(other) > 1 else np.float64(np.ravel(other)[0])
    first = names.index(source) == 0
    with np.errstate(all="ignore"):
        if node.op in ("Add", "AddV2", "BiasAdd"):
            return factor, shift + value
        if node.op == "Sub":
            return (factor, shift - value) if first else (-factor, value - shift)
        if node.op == "Mul":
            return factor * value, shift * value
        return (factor / value, shift / value) if first else None


def _rows(node: Any, source: str, constants: dict[str, Any]) -> int | None:
    """The rows of a table, or classes, that an operator looks an index up in."""
    names = [_name(i) for i in node.input]
    if node.op == "OneHot":
        return int(constants[names[1]]) if names[0] == source and names[1] in constants else None
    table = constants.get(names[0])
    return len(table) if table is not None and names[1] == source else None


def _is_float(node: Any) -> bool:
    return bool(node.attr["T"].type == tf.float32.as_datatype_enum)


def _name(source: str) -> str:
    return source.lstrip("^").split(":")[0]
