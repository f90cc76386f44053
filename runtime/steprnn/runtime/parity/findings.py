"""What a level of parity found of a candidate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from .measure import Measures


class Words(str, Enum):
    """A value that is also what a person reads."""

    def __str__(self) -> str:
        """The words."""
        return str(self.value)


class Level(Words):
    """What a candidate is put through; docs/parity.md has them in this order."""

    TRANSFORM = "transform"
    STRUCTURE = "structure"
    ONE_STEP = "one step"
    CHAINED = "chained"
    BATCH = "batch"
    FREE_RUN = "free run"
    SEMANTICS = "semantics"
    SENSITIVITY = "sensitivity"


@dataclass(frozen=True)
class Label:
    """Who is judged: an artefact in an engine, or a thing that has none."""

    artefact: str
    engine: str = ""

    def __str__(self) -> str:
        """As a person would call it."""
        return f"{self.artefact} in {self.engine}" if self.engine else self.artefact


STEP, BUNDLE = Label("the step"), Label("the bundle")  # what is judged beside the artefacts


@dataclass(frozen=True)
class Finding:
    """What one level found of one candidate."""

    level: Level
    candidate: Label
    passed: bool
    summary: str  # a few words
    failure: str = ""  # the first breach in words; empty if passed
    figures: dict[str, Any] = field(default_factory=dict)
    measures: Measures | None = field(default=None, repr=False)
    case: str = ""  # which of several of this level: a kind of input, or a mistake

    @property
    def title(self) -> str:
        """The level and the case."""
        return f"{self.level}, {self.case}" if self.case else str(self.level)

    def __str__(self) -> str:
        """A failure in words."""
        return f"{self.candidate} fails at the level '{self.title}': {self.failure}"


def attempt(level: Level, candidate: Label, judged: Callable[[], Finding], case: str = "") -> Finding:
    """What is found, or a failed finding with the engine's own words where it raises."""
    try:
        return judged()
    except Exception as error:  # each engine raises its own classes
        words = " ".join(str(error).split())[:500] or type(error).__name__
        return Finding(level, candidate, False, "broke", f"it does not run: {words}", case=case)
