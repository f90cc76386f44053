"""The step contract: what goes into one time step, what comes out, and how the states pair, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

NEXT = "next_"
SIGNATURES = ("step", "start", "serving_default")  # that a graph may have: the first of them, else any

# Kind of an input's dtype -> kinds that it takes, in NumPy's letters and in words.
KINDS = {
    "f": ("fiub", "numbers"),
    "i": ("iu", "whole numbers"),
    "u": ("iu", "whole numbers"),
    "b": ("b", "truth values"),
}


@dataclass(frozen=True)
class TensorSpec:
    """A named tensor; `shape` leaves out the batch axis, which always comes first."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    tokens: int | None = None  # of an input that is a token index: how many tokens there are
    static: bool = False  # an input that stays the same over a stream

    @property
    def size(self) -> int:
        """Elements in one row of the batch."""
        return prod(self.shape)

    def array_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of the array for so many rows."""
        return (batch, *self.shape)

    def to_record(self) -> dict[str, Any]:
        """As it stands in manifest.json."""
        record: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}
        record |= {} if self.tokens is None else {"tokens": self.tokens}
        return record | {"static": True} if self.static else record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> TensorSpec:
        """The inverse of `to_record`; raises KeyError, TypeError or ValueError on anything else."""
        shape, tokens = tuple(int(n) for n in record["shape"]), record.get("tokens")
        known = None if tokens is None else int(tokens)
        static = bool(record.get("static", False))
        return cls(str(record["name"]), str(record["dtype"]), shape, known, static)


@dataclass(frozen=True)
class StepSpec:
    """Inputs and states of one time step, and the outputs; the state `h` comes back as `next_h`.

    A token model has one input `x`, int32 `[batch]`; a language model's `y` is the logits,
    float32 `[batch, vocabulary]`. Every state is float32 `[batch, size...]`.
    """

    inputs: tuple[TensorSpec, ...]
    states: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nexts: Mapping[str, str] = field(default_factory=dict, hash=False)  # where not next_<name>

    @property
    def stepped(self) -> tuple[TensorSpec, ...]:
        """The inputs that are given at every step."""
        return tuple(t for t in self.inputs if not t.static)

    @property
    def is_language_model(self) -> bool:
        """Whether the one input is a token index, and the one output its logits."""
        if len(self.inputs) != 1 or len(self.outputs) != 1 or not self.states:
            return False
        if self.inputs[0].tokens is None:
            return False
        return self.inputs[0].shape == () and self.outputs[0].shape == (self.inputs[0].tokens,)

    def next_of(self, state: TensorSpec) -> str:
        """The name under which a step returns this state."""
        return self.nexts.get(state.name, NEXT + state.name)

    @property
    def result_names(self) -> tuple[str, ...]:
        """Names of all that a step returns: the outputs, then the next states."""
        return tuple(t.name for t in self.outputs) + tuple(self.next_of(t) for t in self.states)

    def to_record(self) -> dict[str, Any]:
        """As it stands in manifest.json and in the ONNX metadata."""
        return {
            "inputs": [t.to_record() for t in self.inputs],
            "states": [t.to_record() | {"next": NEXT + t.name} for t in self.states],
            "outputs": [t.to_record() for t in self.outputs],
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> StepSpec:
        """The inverse of `to_record`; raises KeyError, TypeError or ValueError on anything else."""
        inputs, states, outputs = (
            tuple(TensorSpec.from_record(t) for t in record[part]) for part in ("inputs", "states", "outputs")
        )
        if any(t["next"] != NEXT + t["name"] for t in record["states"]):
            raise ValueError("a state's next name is not next_<name>")
        return cls(inputs, states, outputs)
