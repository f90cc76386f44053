"""The options of generation, as `Model.generate`, `stream` and `astream` take them by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from .hooks import Cancel, LogitsProcessor


class Filters(TypedDict, total=False):
    """Those that are of `Sampling`, which tells what they mean and their defaults."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    repeat_last_n: int


class Unseeded(Filters, total=False):
    """All but the seed; `Model.stream` tells what they mean and their defaults."""

    stop: str | Sequence[str]
    unknown: str
    logits_processor: LogitsProcessor | None
    cancel: Cancel | None


class Options(Unseeded, total=False):
    """All of them."""

    seed: int | None


def check_names(call: str, given: Mapping[str, object], options: Iterable[str], *others: str) -> None:
    """Raise Python's own error where one is no option, but with those there are, and the call's `others`."""
    if strange := given.keys() - options:
        there = ", ".join((*others, *sorted(options)))
        raise TypeError(f"{call}() got an unexpected keyword argument {min(strange)!r}; expected {there}")
