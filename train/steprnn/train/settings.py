"""The settings of a training run: everything that changes its result."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from steprnn.runtime.errors import UsageError

CELLS = ("lstm", "gru", "rnn")
TOKENS = ("characters", "bytes")


@dataclass(frozen=True)
class Settings:
    """What a run is made of; two runs with equal settings, text and machine give equal weights.

    The defaults are the book's (batch 32, window 35, 256 units, the first 10,000 characters), but for the
    optimizer: Adam at 1e-2, falling in the second half, where the book takes SGD at 1e2 on gradients clipped
    to a norm of 1e-2.
    Raises `UsageError` for a value that cannot be meant.
    """

    cell: str = "lstm"
    layers: int = 1
    units: int = 256
    embedding: int = 0  # 0: one-hot
    dropout: float = 0.0
    characters: int = 10_000  # 0: the whole text
    keep_line_breaks: bool = False
    tokens: str = "characters"  # or "bytes" of UTF-8: any script, 256 of them
    batch: int = 32
    window: int = 35
    epochs: int = 60
    learning_rate: float = 1e-2
    decay: float = 0.5  # the share of the epochs, at the end, over which the learning rate falls; 0: never
    clip: float = 0.25  # the largest global norm of a gradient; 0: not clipped
    holdout: float = 0.0
    patience: int = 0  # 0: never stops early
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise UsageError(f"--cell is {self.cell!r}; expected one of {', '.join(CELLS)}")
        if self.tokens not in TOKENS:
            raise UsageError(f"--tokens is {self.tokens!r}; expected one of {', '.join(TOKENS)}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value < least:
                raise UsageError(f"{_flag(name)} is {value}; expected at least {least}")
        if not 0 <= self.decay <= 1:
            raise UsageError(f"--decay is {self.decay}; expected a share from 0 to 1")
        for name in ("dropout", "holdout"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise UsageError(f"{_flag(name)} is {value}; expected a share from 0 to below 1")
        if not self.learning_rate > 0:
            raise UsageError(f"--learning-rate is {self.learning_rate}; expected more than 0")

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0: level at first, then falling by equal steps."""
        falling = self.decay * self.epochs
        return self.learning_rate * (min(1.0, (self.epochs - epoch) / falling) if falling else 1.0)

    def record(self) -> dict[str, Any]:
        """The settings as `training.json` holds them."""
        return asdict(self)

    def goes_on(self, record: dict[str, Any]) -> bool:
        """Whether a finished run with this record can go on to these settings: more epochs, else the same."""
        epochs = record.get("epochs", self.epochs)
        return epochs < self.epochs and self.record() == _FORMERLY | record | {"epochs": self.epochs}

    def difference(self, record: dict[str, Any]) -> str:
        """What a record of another run has otherwise, as `units 128 (here 256), ...`; empty if nothing."""
        mine, record = self.record(), _FORMERLY | record
        return ", ".join(
            f"{_flag(name)} {record.get(name)} (here {mine[name]})"
            for name in mine
            if record.get(name) != mine[name]
        )


_FORMERLY = {"tokens": "characters"}  # of records from before it was a setting

_LEAST = {
    "layers": 1,
    "units": 1,
    "embedding": 0,
    "characters": 0,
    "batch": 1,
    "window": 1,
    "epochs": 1,
    "clip": 0,
    "patience": 0,
    "seed": 0,
}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
