"""What goes back: the events of a stream as they come, or one JSON object at the end."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from .errors import ApiError, encode
from .protocol import CompletionRequest
from .row import Piece, Row, ScoredToken

FAILED = "the engine failed; the server's log says how"

Arrived = tuple[int, Piece]  # which choice, and what is new of it


class Inbox:
    """Pieces of the choices of one request, from the scheduler to the one who answers it; on the loop.

    `at_once` is given a piece that comes alone and is not the last of its choice; where it returns False, and
    with all others, whoever waits for `batches` is woken.
    """

    def __init__(self, choices: int, at_once: Callable[[int, Piece], bool]) -> None:
        self._arrived: list[Arrived] = []
        self._unfinished = choices
        self._at_once = at_once
        self._news = asyncio.Event()
        self._in_hand = False  # a batch that nobody may overtake
        self.abandoned = False  # the client has left

    def put(self, choice: int, piece: Piece) -> None:
        """Add a piece."""
        is_first = not (self._arrived or self._in_hand)
        if is_first and piece.finish is None and self._at_once(choice, piece):
            return
        self._arrived.append((choice, piece))
        self._news.set()

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        self.abandoned = True
        self._news.set()

    async def batches(self) -> AsyncIterator[list[Arrived]]:
        """All that is there, each time there is something, until every choice is done or nobody waits."""
        while not self.is_done:
            await self._news.wait()
            self._news.clear()
            if self.abandoned:
                return
            arrived, self._arrived = self._arrived, []
            self._unfinished -= sum(piece.finish is not None for _, piece in arrived)
            self._in_hand = True
            yield arrived
            self._in_hand = False

    @property
    def is_done(self) -> bool:
        """Whether every choice has been taken whole."""
        return not self._unfinished


class Reply:
    """Turns pieces into the JSON of the protocol."""

    def __init__(
        self, model: str, asked: CompletionRequest, rows: Sequence[Row], session: str | None = None
    ) -> None:
        self._asked = asked
        self._rows = rows
        self._head = {
            "id": f"cmpl-{random.getrandbits(96):024x}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        if session is not None:
            self._head["session"] = session
        self._prefix = b"data: " + encode(self._head)[:-1]
        self._none_yet = b',"usage":null' if asked.include_usage else b""

    def event(self, number: int, piece: Piece) -> bytes:
        """The server-sent event of a piece of a choice."""
        scored = b"null" if self._asked.logprobs is None else encode(self._scored(piece.scores))
        return b'%s,"choices":[{"index":%d,"text":%s,"logprobs":%s,"finish_reason":%s}]%s}\n\n' % (
            self._prefix,
            number,
            encode(piece.text),
            scored,
            b"null" if piece.finish is None else encode(piece.finish),
            self._none_yet,
        )

    async def events(self, inbox: Inbox) -> AsyncIterator[tuple[bytes, bool]]:
        """Server-sent events, and whether there are more; those of pieces that came together go together."""
        async for arrived in inbox.batches():
            for _, piece in arrived:
                if piece.finish == "error":
                    yield b"data: %s\n\n" % encode(ApiError(500, piece.error or FAILED).body), False
                    return
            events = b"".join(self.event(number, piece) for number, piece in arrived)
            if not inbox.is_done:
                yield events, True
                continue
            if self._asked.include_usage:
                events += b'%s,"choices":[],"usage":%s}\n\n' % (self._prefix, encode(self._usage()))
            yield events + b"data: [DONE]\n\n", False

    async def whole(self, inbox: Inbox) -> bytes | None:
        """One object with every choice; None where nobody waits. Raises `ApiError` where a choice failed."""
        texts = ["" for _ in self._rows]
        scores: list[list[ScoredToken]] = [[] for _ in self._rows]
        ends: list[str | None] = [None for _ in self._rows]
        async for arrived in inbox.batches():
            for number, piece in arrived:
                texts[number] += piece.text
                scores[number] += piece.scores
                ends[number] = piece.finish
                if piece.finish == "error":
                    raise ApiError(500, piece.error or FAILED)
        if None in ends:
            return None
        choices = [
            _choice(number, text, self._scored(scores[number]), ends[number])
            for number, text in enumerate(texts)
        ]
        return encode(self._head | {"choices": choices, "usage": self._usage()})

    def _usage(self) -> dict[str, Any]:
        prompt, written = sum(map(len, self._asked.prompts)), sum(row.written for row in self._rows)
        cached = sum(row.cached for row in self._rows[:: self._asked.n])  # of each prompt once
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def _scored(self, scores: Sequence[ScoredToken]) -> dict[str, Any] | None:
        if self._asked.logprobs is None:
            return None
        return {
            "tokens": [s.token for s in scores],
            "token_logprobs": [s.logprob for s in scores],
            "top_logprobs": [s.top for s in scores],
            "text_offset": [s.offset for s in scores],
        }


def _choice(index: int, text: str, logprobs: dict[str, Any] | None, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
