"""How far a long command has come, on a terminal alone."""

from __future__ import annotations

import sys
import time

QUIET, EVERY = 2.0, 0.2  # seconds before the first line, and between two


class Progress:
    """One line on stderr that is written over, where that is a terminal and it takes longer than `QUIET`."""

    def __init__(self, what: str) -> None:
        self._what = what  # is counted
        self._shown = sys.stderr is not None and sys.stderr.isatty()
        self._started = time.monotonic()
        self._next = self._started + QUIET
        self._width = 0

    def tell(self, count: int, share: float | None = None, skipped: int = 0) -> None:
        """So many are done, `skipped` of them by an earlier run; `share` of all is 0 to 1, where known."""
        now = time.monotonic()
        if not self._shown or now < self._next:
            return
        self._next = now + EVERY
        seconds = now - self._started
        line = f"{count:,} {self._what}, {(count - skipped) / seconds:,.0f} a second"
        if share is not None and (done := share * (count - skipped) / max(count, 1)) > 0:
            line += f", {100 * share:.0f} %, {_in_words(seconds * (1 - share) / done)} left"
        sys.stderr.write("\r" + line.ljust(self._width))
        sys.stderr.flush()
        self._width = len(line)

    def end(self) -> None:
        """Take the line away, so that what is said next begins a line."""
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()


def _in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
