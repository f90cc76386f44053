"""What goes back: the events of a stream as they come, or one JSON object at the end."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from .errors import ApiError, encode
from .protocol import CompletionRequest
from .row import Piece, Row, ScoredToken

FAILED = "the engine failed; the server's log says how"

Arrived = tuple[int, Piece]  # which choice, and what is new of it


class Inbox:
    """Pieces of the choices of one request, from the scheduler to the one who answers it; on the loop."""

    def __init__(self, choices: int) -> None:
        self._arrived: list[Arrived] = []
        self._unfinished = choices
        self._news = asyncio.Event()
        self.abandoned = False  # the client has left

    def put(self, choice: int, piece: Piece) -> None:
        """Add a piece."""
        self._arrived.append((choice, piece))
        self._news.set()

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        self.abandoned = True
        self._news.set()

    async def batches(self) -> AsyncIterator[list[Arrived]]:
        """All that is there, each time there is something, until every choice is done or nobody waits."""
        while self._unfinished:
            await self._news.wait()
            self._news.clear()
            if self.abandoned:
                return
            arrived, self._arrived = self._arrived, []
            self._unfinished -= sum(piece.finish is not None for _, piece in arrived)
            yield arrived


class Reply:
    """Turns pieces into the JSON of the protocol."""

    def __init__(self, model: str, asked: CompletionRequest, rows: Sequence[Row]) -> None:
        self._asked = asked
        self._rows = rows
        self._head = {
            "id": f"cmpl-{random.getrandbits(96):024x}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        self._prefix = b"data: " + encode(self._head)[:-1]

    async def events(self, inbox: Inbox) -> AsyncIterator[bytes]:
        """Server-sent events; those of pieces that came together go out together."""
        none_yet = b',"usage":null' if self._asked.include_usage else b""
        async for arrived in inbox.batches():
            chunks = []
            for number, piece in arrived:
                if piece.finish == "error":
                    yield b"data: %s\n\n" % encode(ApiError(500, piece.error or FAILED).body)
                    return
                choices = encode([_choice(number, piece.text, self._scored(piece.scores), piece.finish)])
                chunks.append(b'%s,"choices":%s%s}\n\n' % (self._prefix, choices, none_yet))
            yield b"".join(chunks)
        if inbox.abandoned:
            return
        if self._asked.include_usage:
            yield b'%s,"choices":[],"usage":%s}\n\n' % (self._prefix, encode(self._usage()))
        yield b"data: [DONE]\n\n"

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
