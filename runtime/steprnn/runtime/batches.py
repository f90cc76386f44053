"""Texts without end in batches of about one length, and what is made of them in the order given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from .errors import UnknownToken, UsageError

T = TypeVar("T")

ROWS = 64  # in a batch: more rows are hardly faster, and take as much more memory
TEXTS, CHARACTERS = 1024, 2**20  # that are in memory together; one longer text is there alone

ONLY = -1


@dataclass(frozen=True)
class Encoded:
    """One text of many."""

    place: int  # among the results, from 0; `ONLY` where there are no others
    text: str
    tokens: list[int]


def in_order(
    texts: Iterable[str],
    encode: Callable[[str], list[int]],
    do: Callable[[Sequence[Encoded]], Sequence[T]],
    copies: int = 1,
) -> Iterator[T]:
    """What `do` gives for each of the texts, `copies` times; it has a batch at a time, longest text first.

    Texts are read ahead by at most `TEXTS` and about `CHARACTERS`, and sorted among those. A refused text
    is named by its place; the results of the texts that were read ahead with it are not given.
    """
    for window in _windows(texts, encode, copies):
        results: dict[int, T] = {}
        longest_first = sorted(window, key=lambda one: -len(one.tokens))
        for i in range(0, len(window), ROWS):
            batch = longest_first[i : i + ROWS]
            results |= zip((one.place for one in batch), do(batch), strict=True)
        for one in window:
            yield results.pop(one.place)


def _windows(
    texts: Iterable[str], encode: Callable[[str], list[int]], copies: int
) -> Iterator[list[Encoded]]:
    window: list[Encoded] = []
    characters = 0
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"texts[{i}] is of type {type(text).__name__}; expected str")
        try:
            tokens = encode(text)
        except UnknownToken as error:
            raise error.at(f"texts[{i}]") from None
        except UsageError as error:
            raise UsageError(f"texts[{i}]: {error}") from None
        for place in range(i * copies, (i + 1) * copies):
            if len(window) == TEXTS or (window and characters + len(text) > CHARACTERS):
                yield window
                window, characters = [], 0
            window.append(Encoded(place, text, tokens))
            characters += len(text)
    if window:
        yield window
