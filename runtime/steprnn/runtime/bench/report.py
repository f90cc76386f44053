"""What was measured, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .machine import Machine


@dataclass(frozen=True)
class Report:
    """A row of figures for each engine and variant.

    Times are microseconds, speeds are tokens a second; a figure that does not apply is None.
    """

    model: str  # sha256 of the weights, as in the manifest
    machine: Machine
    core: int | None  # the one that was measured on
    share: float | None  # of that core's time that was ours: the less, the less certain all of it
    rounds: int
    rows: list[dict[str, Any]]
    left_out: list[str]
