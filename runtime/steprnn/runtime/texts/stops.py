"""Stop strings: a text ends before the first of them, wherever its pieces begin and end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..errors import UsageError


class Until:
    """Lets text through up to the first of the stop strings, which is left out.

    Holds back what may turn out to be the beginning of a stop string.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.ended = False  # whether a stop string was met: nothing comes after it
        self._stop = stop
        self._held = ""
        self._end: int | None = None  # where the first stop string found in what is held begins

    def push(self, piece: str) -> str:
        """The text that is certain once this piece has come; may be empty."""
        held = self._held = self._held + piece
        end = min((i for s in self._stop if (i := held.find(s)) >= 0), default=None)
        keep = max((n for s in self._stop for n in range(1, len(s)) if held.endswith(s[:n])), default=0)
        certain = len(held) - keep
        self._end = end
        if end is not None and end <= certain:  # else one that began before it may still be completed
            self.ended = True
            return held[:end]
        self._held = held[certain:]
        self._end = None if end is None else end - certain
        return held[:certain]

    def close(self) -> str:
        """What was held back, once no piece follows."""
        self.ended = self._end is not None
        return self._held[: self._end]


def until(pieces: Iterable[str], stop: Sequence[str]) -> Iterator[str]:
    """The pieces up to the first of the stop strings, as `Until` lets them through; none is empty."""
    gate = Until(stop)
    for piece in pieces:
        if text := gate.push(piece):
            yield text
        if gate.ended:
            return
    if text := gate.close():
        yield text


def before_stop(text: str, stop: Sequence[str]) -> str:
    """The whole text before the first of the stop strings."""
    return text[: min((i for s in stop if (i := text.find(s)) >= 0), default=len(text))]


def checked_stops(stop: str | Sequence[str]) -> list[str]:
    """One stop string or several as a list; raises `UsageError` where one is empty or no text."""
    stops = [stop] if isinstance(stop, str) or not isinstance(stop, Iterable) else list(stop)
    if not all(isinstance(one, str) for one in stops):
        raise UsageError(f"stop is {stop!r}; expected a str, or several in a list")
    if not all(stops):
        raise UsageError("a stop string is empty; expected at least one character")
    return stops
