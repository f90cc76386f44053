"""The scheduler: a thread that steps the batch, lets rows in, and sends their pieces to the event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence

from ..model import Model
from .batch import Batch
from .metrics import Metrics
from .row import Piece, Row

# Seconds between two pieces of one stream, for each stream there is: all together send at most 1,000 a
# second, some 5 % of a core, and each of 64 streams 16. Alone, a stream waits no longer than for a few steps.
PAUSE = 1 / 1000
# Steps after which a row that others wait for lets one of them in, and how many there are between two such
# moves, which cost a step or two. 1,024 steps of a full batch are some tenths of a second.
TURN, BETWEEN_TURNS = 1024, 64
STALLED = 10.0  # seconds after which a step is not slow but stuck

log = logging.getLogger("steprnn.serve")


class QueueFull(Exception):  # noqa: N818
    """As many rows are waiting as may."""


class Scheduler:
    """Rows wait in the order they came, join as soon as there is a place, and leave when they are done.

    One that has had its turn and is not done goes to the end of those who wait: many long texts do not
    keep a short one waiting.
    """

    def __init__(self, model: Model, metrics: Metrics, *, batch: int, queue: int) -> None:
        self._batch = Batch(model, batch)
        self.initial_state = model.initial_state
        self._batch_limit = batch
        self._queue_limit = queue
        self._metrics = metrics  # is told, and decides nothing
        self._waiting: deque[Row] = deque()
        self._active = 0  # rows in the batch, and those about to join it
        self._changed = threading.Condition()
        self._closing = False
        self._resting: list[Row] = []  # went back to wait, and what they have made is still to go out
        self._rested = 0  # the step at which rows last went back to wait
        self._left = 0  # rows that are done, since the time that stands beside
        self._left_since, self.rate = time.monotonic(), 0.0  # and how many a second they were before
        self._done: list[Row] = []  # have left the batch, and wait for their last piece to go out
        self._working_since: float | None = None  # in the step that is being taken; None: nothing to do
        self._due = math.inf  # when the first of the streams' next pieces may go out
        self._delivering = False  # a delivery that the event loop has not gone through yet
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="steprnn-scheduler", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether steps are taken, or would be if there were something to do."""
        since = self._working_since
        stalled = since is not None and time.monotonic() - since > STALLED
        return self._thread.is_alive() and not stalled

    @property
    def waiting(self) -> int:
        """Rows that have no place."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether there is no room for one more row."""
        return self.waiting >= max(self._batch_limit - self._active, 0) + self._queue_limit

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin; pieces are delivered on this loop."""
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """Drop all rows and end the thread; one that is stuck in a step is left to end with the process."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(STALLED)

    def submit(self, rows: Sequence[Row]) -> None:
        """Line up rows, all or none; raises `QueueFull`. One with nothing to do is delivered at once."""
        working, idle = ([row for row in rows if (row.finish is None) == works] for works in (True, False))
        with self._changed:
            free = max(self._batch_limit - self._active, 0) + self._queue_limit
            if working and len(self._waiting) + len(working) > free:
                raise QueueFull
            self._waiting.extend(working)
            self._metrics.rows_waiting = len(self._waiting)
            self._changed.notify()
        for row in idle:  # not those that are done by now: they are delivered as the others are
            row.deliver(row.piece())

    def cancel(self, rows: Sequence[Row]) -> None:
        """Stop rows that nobody waits for any more; those that are done are left alone."""
        with self._changed:
            for row in rows:
                row.cancelled = True
                if row in self._waiting:
                    self._waiting.remove(row)
            self._metrics.rows_waiting = len(self._waiting)

    def _run(self) -> None:
        while self._admit():
            self._working_since = time.monotonic()
            try:
                self._step()
            except Exception as error:
                log.error("a step failed (%s: %s); its rows were given up", type(error).__name__, error)
                for row in self._batch.clear():
                    row.finish = "error"
                    self._done.append(row)
            self._active = self._metrics.rows_active = len(self._batch)
            self._metrics.batch_size = self._batch.size
            self._post()

    def _admit(self) -> bool:
        """Wait for work and let rows join; returns False when it is to end."""
        if len(self._batch) and not self._waiting and not self._closing:
            return True
        with self._changed:
            while not (self._waiting or len(self._batch) or self._closing):
                self._working_since = None
                self._changed.wait()
                self._left, self._left_since = 0, time.monotonic()
            if self._closing:
                return False
            self._take_turns()
            free = self._batch_limit - len(self._batch)
            joining: list[Row] = []
            passed: list[Row] = []
            while self._waiting and len(joining) < free:
                row = self._waiting.popleft()
                (joining if row.is_ready else passed).append(row)
            self._waiting.extendleft(reversed(passed))
            self._metrics.rows_waiting = len(self._waiting)
            self._active = len(self._batch) + len(joining)
            self._metrics.rows_active = self._active
        if joining:
            begun = [row for row in joining if row.is_new]
            try:
                self._batch.join(joining)
                self._metrics.prompt_tokens += sum(len(row.prompt) - row.cached for row in begun)
                self._due = min([self._due, *(row.next_piece_at for row in joining if row.streamed)])
            except Exception as error:  # the engine refuses this size, or has no memory for it
                log.error("rows could not join (%s: %s)", type(error).__name__, error)
                for row in {*joining, *self._batch.clear()}:
                    row.finish = "error"
                    self._done.append(row)
        return True

    def _take_turns(self) -> None:
        """Make room for those who wait, where others have been in for long."""
        steps, free = self._batch.steps, self._batch_limit - len(self._batch)
        if not self._waiting or free or steps - self._rested < BETWEEN_TURNS:
            return
        ready = sum(row.is_ready for row in self._waiting)
        tired = sorted((r for r in self._batch.rows if steps - r.turn >= TURN), key=lambda r: r.turn)
        if tired := tired[:ready]:
            self._rested = steps
            self._batch.rest(tired)
            self._waiting.extend(tired)
            self._resting += tired

    def _count(self, left: int) -> None:
        """Keep how many rows a second are done, over a second or more."""
        self._left += left
        passed = time.monotonic() - self._left_since
        if passed >= 1.0:
            self.rate, self._left, self._left_since = self._left / passed, 0, time.monotonic()

    def _step(self) -> None:
        began = time.perf_counter()
        left = self._batch.step()
        self._metrics.completion_tokens = self._batch.written
        self._metrics.rows_cancelled += sum(row.cancelled for row in left)
        self._metrics.steps += 1
        self._metrics.step_seconds += time.perf_counter() - began
        self._done += [row for row in left if not row.cancelled]
        self._count(len(left))

    def _post(self) -> None:
        """Send out what is due, unless the event loop still has its hands full with the last delivery."""
        rows = self._batch.rows
        if self._delivering and rows:
            return
        now = time.perf_counter()
        self._resting = [row for row in self._resting if row.streamed and row.has_text and not row.finish]
        pieces = [(row, row.piece()) for row in (*self._done, *self._resting)]
        self._done.clear()
        self._resting.clear()
        if now >= self._due:  # those that would be due soon go with them: the event loop is woken once
            pause = PAUSE * len(rows)
            for row in rows:
                if row.streamed and now + pause / 2 >= row.next_piece_at:
                    self._batch.catch_up(row)
                    if row.has_text:
                        row.next_piece_at = now + pause
                        pieces.append((row, row.piece()))
            self._due = min((row.next_piece_at for row in rows if row.streamed), default=math.inf)
        if pieces:
            self._delivering = True
            try:
                self._loop.call_soon_threadsafe(self._deliver, pieces)
            except RuntimeError:  # the loop was closed under it: the server was told to stop at once
                self._closing = True

    def _deliver(self, pieces: Sequence[tuple[Row, Piece]]) -> None:
        for row, piece in pieces:
            row.deliver(piece)
        self._loop.call_soon(self._delivered)  # after those who were woken have written

    def _delivered(self) -> None:
        self._delivering = False
