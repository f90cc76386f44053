"""What a step costs at one size of the model: `benchmarks/sizes.py` measures it, `picture.py` draws it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steprnn.runtime.bench.rounds import Spread


@dataclass(frozen=True, order=True)
class Size:
    """The book's model has the middle of each."""

    hidden: int = 256
    layers: int = 1
    vocabulary: int = 1027


@dataclass(frozen=True)
class Cost:
    """Microseconds a step, greedy, of one engine and variant at one size."""

    size: Size
    engine: str
    variant: str
    read_bytes: int
    floor_us: float
    us: Spread

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Cost:
        """From its JSON."""
        return cls(**record | {"size": Size(**record["size"]), "us": Spread(**record["us"])})
