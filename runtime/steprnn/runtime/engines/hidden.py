"""States that a TFLite file keeps to itself, from its flatbuffer: nothing is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

VARIABLES = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE")


def assigned(counts: Counter[str]) -> Iterator[str]:
    """Resource variables, by how many operators of each name there are."""
    found = {name: counts[name] for name in VARIABLES if name in counts}
    if found:
        listed = ", ".join(f"{n} {name}" for name, n in found.items())
        what = "a state that the caller does not hold" if "ASSIGN_VARIABLE" in found else "unfrozen weights"
        yield f"{listed}: {what}"


def kept(model: Any) -> Iterator[str]:
    """Variable tensors, such as those of a fused LSTM, of the schema's `ModelT`."""
    number = sum(bool(tensor.isVariable) for graph in model.subgraphs for tensor in graph.tensors or ())
    if number:
        tensors = f"{number} variable tensor{'s' if number > 1 else ''}"
        yield f"{tensors}: the interpreter keeps a state that the caller does not hold"
