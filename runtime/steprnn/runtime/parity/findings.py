"""What a level of parity found of a candidate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
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
    WEIGHTS = "weights"
    ONE_STEP = "one step"
    OWN_WEIGHTS = "own weights"
    CHAINED = "chained"
    BATCH = "batch"
    FREE_RUN = "free run"
    SEMANTICS = "semantics"
    SENSITIVITY = "sensitivity"


class Verdict(Words):
    """What comes of a finding, or of several: the worst of them."""

    PASSED = "passed"
    VOID = "cannot tell"
    FAILED = "FAILED"


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
    seconds: float = field(default=0.0, compare=False)  # that it took
    void: bool = False  # not passed, and no breach either: the check cannot tell; `failure` says why

    @property
    def title(self) -> str:
        """The level and the case."""
        return f"{self.level}, {self.case}" if self.case else str(self.level)

    @property
    def verdict(self) -> Verdict:
        """One of three."""
        return Verdict.PASSED if self.passed else Verdict.VOID if self.void else Verdict.FAILED

    def __str__(self) -> str:
        """A failure in words."""
        does = "cannot be told from a mistake" if self.void else "fails"
        return f"{self.candidate} {does} at the level '{self.title}': {self.failure}"


def overall(findings: Iterable[Finding]) -> Verdict:
    """The worst verdict of all."""
    verdicts = {finding.verdict for finding in findings}
    return next((v for v in (Verdict.FAILED, Verdict.VOID) if v in verdicts), Verdict.PASSED)


def attempt(level: Level, candidate: Label, judged: Callable[[], Finding], case: str = "") -> Finding:
    """What is found, or a failed finding with the engine's own words where it raises."""
    started = time.perf_counter()
    try:
        found = judged()
    except Exception as error:  # each engine raises its own classes
        words = " ".join(str(error).split())[:500] or type(error).__name__
        found = Finding(level, candidate, False, "broke", f"it does not run: {words}", case=case)
    return replace(found, seconds=time.perf_counter() - started)
