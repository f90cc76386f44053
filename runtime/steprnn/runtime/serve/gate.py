"""Where there is no room: who asks is told so before anything is read or parsed, and when to ask again."""

from __future__ import annotations

import math
import re
import time

from .errors import ApiError, encode
from .metrics import Metrics
from .scheduler import Scheduler

MOST_SECONDS = 60  # to wait; OpenAI's client looks at no more
COMPLETIONS = "/v1/completions"
ASKED = f"POST {COMPLETIONS} HTTP/1.1\r\n".encode()
LENGTH = re.compile(rb"\r\ncontent-length: ?([0-9]{1,7})(?=\r\n)")
UNUSUAL = re.compile(rb"\r\n(?:transfer-encoding|connection: ?close|expect|upgrade|origin)")
SHARE = (
    0.5  # of the texts that are done in a second, for those who come again; the rest for those who are new
)
UNKNOWN = 100.0  # texts a second, before any was done


class Gate:
    """Answers 429 while the queue is full, from the bytes: through the application it costs ten times that.

    Each who is refused is told a time of its own to come again, after those who wait and those who were
    refused before it: a crowd that came back every second would leave no time to serve anybody.
    """

    def __init__(self, scheduler: Scheduler, metrics: Metrics) -> None:
        self.scheduler = scheduler
        self._metrics = metrics
        self._next = 0.0  # when the one that was refused last will come again

    def error(self) -> ApiError:
        """What to tell who has no room."""
        now, waiting = time.monotonic(), self.scheduler.waiting
        rate = self.scheduler.rate or UNKNOWN
        self._next = max(self._next, now + waiting / rate) + 1 / (SHARE * rate)
        seconds = math.ceil(self._next - now)
        if seconds > MOST_SECONDS:  # nobody waits for so long, and so many will not all come again
            self._next = now + MOST_SECONDS
        return ApiError(
            429,
            f"the queue is full, with {waiting} texts waiting; try again",
            code="rate_limit_exceeded",
            headers={"Retry-After": str(min(seconds, MOST_SECONDS))},
        )

    def refusal(self, request: bytes) -> bytes | None:
        """The whole answer to a request that came whole, if it is for a text and there is no room.

        What is not plainly that is None, and goes the whole way.
        """
        if not (request.startswith(ASKED) and self.scheduler.full):
            return None
        head, _, body = request.partition(b"\r\n\r\n")
        head = head.lower()
        lengths = LENGTH.findall(head + b"\r\n")
        if len(lengths) != 1 or int(lengths[0]) != len(body) or UNUSUAL.search(head):
            return None
        error = self.error()
        self._metrics.answers[error.status] += 1
        answer = encode(error.body)
        retry = error.headers["Retry-After"]
        told = f"content-type: application/json\r\ncontent-length: {len(answer)}\r\nretry-after: {retry}"
        return f"HTTP/1.1 429 Too Many Requests\r\n{told}\r\n\r\n".encode() + answer
