"""Runners that nobody is using, by batch size; of many, those that were not used for longest go."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from .engines import Runner

MOST_BYTES = 2**26  # that idle runners may keep: 127 batch sizes kept 454 MB in LiteRT


class Pool:
    """Lends runners to threads. `weight` tells about how many bytes one of a batch size keeps."""

    def __init__(self, make: Callable[[int], Runner], weight: Callable[[int], int]) -> None:
        self._make = make
        self._weight = weight
        self._idle: dict[int, list[tuple[Runner, object]]] = {}  # each with what `give` was told
        self._used: dict[int, int] = {}  # batch size -> when one was borrowed last
        self._clock = count()
        self._lock = threading.Lock()
        self._made = 0  # bytes of all runners, idle and lent
        self.give(1, self._new(1))  # the first shows at once that the engine takes the file

    @contextmanager
    def lend(self, batch: int) -> Iterator[Runner]:
        """A runner for the length of a `with` block; its states are whatever the last borrower left."""
        runner, _ = self.borrow(batch)
        try:
            yield runner
        finally:
            self.give(batch, runner)

    def borrow(self, batch: int) -> tuple[Runner, object]:
        """A runner that is to be given back, and whose states it has, as whoever gave it back says."""
        self._used[batch] = next(self._clock)
        try:
            return self._idle[batch].pop()  # one bytecode: two threads never get the same one
        except (IndexError, KeyError):
            return self._new(batch), None

    def give(self, batch: int, runner: Runner, holder: object = None) -> None:
        """Take a runner back; `holder` stands for the stream whose states it has."""
        self._idle.setdefault(batch, []).append((runner, holder))
        if self._made > MOST_BYTES:  # it grows where one is made, in a burst of threads or of sizes
            self._thin(keep=batch)

    @property
    def idle(self) -> int:
        """How many nobody is using."""
        return sum(map(len, self._idle.values()))

    def _new(self, batch: int) -> Runner:
        runner = self._make(batch)
        with self._lock:
            self._made += self._weight(batch)
        return runner

    def _thin(self, keep: int) -> None:
        """Let idle runners go, one of the size `keep` aside."""
        with self._lock:
            for batch in sorted(self._idle, key=lambda size: self._used.get(size, 0)):
                runners = self._idle[batch]
                while self._made > MOST_BYTES and len(runners) > (batch == keep):
                    try:
                        runners.pop()
                    except IndexError:  # a thread was quicker
                        break
                    self._made -= self._weight(batch)
