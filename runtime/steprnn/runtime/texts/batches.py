"""Texts without end in batches of about one length, and what is made of them in the order given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import NotFinite, SteprnnError, UnknownToken, UsageError, wrong_type

T = TypeVar("T")
Made = TypeVar("Made", covariant=True)

ROWS = 64  # in a batch: more rows are hardly faster, and take as much more memory
TEXTS, CHARACTERS = 1024, 2**20  # that are in memory together; one longer text is there alone

ONLY = -1


@dataclass(frozen=True)
class Encoded:
    """One text of many."""

    place: int  # among the results, from 0; `ONLY` where there are no others
    text: str
    tokens: list[int]


@dataclass(frozen=True)
class Task(Generic[Made]):
    """What is done with texts, of each of which there are `copies` results."""

    encode: Callable[[str], list[int]]  # raises `UsageError` where a text is refused
    do: Callable[[Sequence[Encoded]], Sequence[Made]]  # of a batch, longest text first; raises `NotFinite`
    copies: int = 1

    def alone(self, text: str) -> Made:
        """The first result of a text that has no others beside it."""
        return self.do([Encoded(ONLY, text, self.encode(text))])[0]


def in_order(texts: Iterable[str], task: Task[T], only: bool = False) -> Iterator[T]:
    """The results of each of the texts; the first that is refused ends it, with an error that has its place.

    A text that is the `only` one has none. Texts are read ahead by at most `TEXTS` and about `CHARACTERS`,
    and sorted among those.
    """
    several = "str, or several in a list or an iterator"
    if isinstance(texts, bytes):  # whose numbers would be told as texts
        raise wrong_type("the text", texts, several)
    try:
        given = iter(texts)
    except TypeError:
        raise wrong_type("the text", texts, several) from None
    for place, result in enumerate(each(given, task)):
        if isinstance(result, SteprnnError):
            raise result if only else named(result, f"texts[{place // task.copies}]")
        yield result


def each(texts: Iterable[str | SteprnnError], task: Task[T]) -> Iterator[T | SteprnnError]:
    """The same, with an error in the place of a result, and the other texts go on.

    An error in the place of a text, which could not be read, comes back as it is.
    """
    for window in _windows(texts, task):
        results: dict[int, T | SteprnnError] = {}
        fine: list[Encoded] = []
        for place, one in window:
            if isinstance(one, Encoded):
                fine.append(one)
            else:
                results[place] = one
        fine.sort(key=lambda one: -len(one.tokens))
        for i in range(0, len(fine), ROWS):
            batch = fine[i : i + ROWS]
            results |= zip((one.place for one in batch), _done(batch, task), strict=True)
        for place, _ in window:
            yield results.pop(place)


def named(error: SteprnnError, where: str) -> SteprnnError:
    """The error of a text, where it is known which of several it is."""
    if isinstance(error, UnknownToken):
        return error.at(where)
    if isinstance(error, NotFinite):
        return NotFinite(f"{where}: {error.what}", error.model, error.steps)
    return UsageError(f"{where}: {error}")


def _done(batch: Sequence[Encoded], task: Task[T]) -> Sequence[T | SteprnnError]:
    """A batch ends at the first text that gives no numbers; which it is, and the others, are found singly."""
    try:
        return task.do(batch)
    except NotFinite as error:
        if len(batch) == 1:
            return [error]
    return [result for one in batch for result in _done([one], task)]


def _windows(
    texts: Iterable[str | SteprnnError], task: Task[T]
) -> Iterator[list[tuple[int, Encoded | SteprnnError]]]:
    """Places of results, each with its text or with why that is refused."""
    window: list[tuple[int, Encoded | SteprnnError]] = []
    characters = 0
    for i, text in enumerate(texts):
        read = _read(text, task)
        size = 0 if isinstance(read, SteprnnError) else len(read[0])
        for place in range(i * task.copies, (i + 1) * task.copies):
            if len(window) == TEXTS or (window and characters + size > CHARACTERS):
                yield window
                window, characters = [], 0
            window.append((place, read if isinstance(read, SteprnnError) else Encoded(place, *read)))
            characters += size
    if window:
        yield window


def _read(text: str | SteprnnError, task: Task[T]) -> tuple[str, list[int]] | SteprnnError:
    """The text with its tokens, or why it is refused."""
    if isinstance(text, SteprnnError):
        return text
    try:
        return text, task.encode(text)
    except UsageError as error:
        return error
