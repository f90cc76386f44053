"""An answer: the rows of a request, and the response that tells of them until the client goes away."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from functools import partial

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..bundle.vocabulary import Vocabulary
from ..engines.native.text import NativeSampler
from ..sampling.batch import sampler_for
from ..sampling.sampler import Sampler, Sampling
from .connection import Connection
from .errors import ApiError, encode
from .metrics import Metrics
from .protocol import CompletionRequest
from .reply import Inbox, Reply
from .row import Piece, Row, Task
from .scheduler import Scheduler
from .sessions import Position, Turn


class Answer(Response):
    """Submits its rows as it is made; raises `QueueFull` where there is no room."""

    def __init__(
        self,
        model: str,
        vocabulary: Vocabulary,
        asked: CompletionRequest,
        scheduler: Scheduler,
        metrics: Metrics,
        clients: Counter[str],
        client: str,
        connection: Connection | None = None,  # takes the events of a stream; None: ASGI does
        turn: Turn | None = None,  # of the session that it goes on with
    ) -> None:
        self._turn = turn
        choices = [prompt for prompt in asked.prompts for _ in range(asked.n)]
        self._connection, self._asked = connection, asked
        self._inbox = Inbox(len(choices), self._send_at_once)
        stands = turn.position if turn is not None else None
        self._rows = [
            Row(
                _task(asked, prompt, client, turn is not None, stands),
                vocabulary,
                _sampler(asked, vocabulary, asked.seed + i, prompt, turn),
                partial(self._inbox.put, i),
            )
            for i, prompt in enumerate(choices)
        ]
        for i, row in enumerate(self._rows):
            leader = self._rows[i - i % asked.n]
            if row is not leader and row.skips and len(row.prompt) > 1:
                row.follow(leader)
        self._stream = asked.stream
        self._seed = str(asked.seed).encode() if asked.seeded or stands is None else None
        self._reply = Reply(model, asked, self._rows, turn.name if turn is not None else None)
        self._scheduler = scheduler
        self._answers = metrics.answers
        scheduler.submit(self._rows)
        self._clients, self._client = clients, client
        clients[client] += len(self._rows)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; an ASGI application of its own."""
        watch = asyncio.create_task(self._watch(receive))
        try:
            await (self._send_events(send) if self._stream else self._send_whole(send))
        except asyncio.CancelledError:  # the server's time to finish is over
            error = encode(ApiError(503, "the server stops; ask again later").body)
            if self._stream:
                await _send_body(send, b"data: " + error + b"\n\n")
            else:
                await self._start(send, 503, b"application/json", len(error))
                await _send_body(send, error)
        finally:
            watch.cancel()
            self._scheduler.cancel(self._rows)
            if self._turn is not None:
                self._turn.release()
            self._clients[self._client] -= len(self._rows)
            if not self._clients[self._client]:
                del self._clients[self._client]

    async def _send_events(self, send: Send) -> None:
        await self._start(send, 200, b"text/event-stream; charset=utf-8")
        async for events, are_more in self._reply.events(self._inbox):
            if not are_more:
                try:
                    await self._keep()
                except ApiError as error:
                    events = b"data: %s\n\n" % encode(error.body)
            await send({"type": "http.response.body", "body": events, "more_body": are_more})

    async def _keep(self) -> None:
        """Store where the session stands, before the client is told of the end."""
        (row, *_) = self._rows
        if self._turn is not None and row.finish in ("length", "stop") and not self._inbox.abandoned:
            read = len(self._asked.prompts[0])
            await self._turn.keep(row.end(self._scheduler.initial_state), read + row.written)

    def _send_at_once(self, choice: int, piece: Piece) -> bool:
        """Send a piece without waking the one who answers; False where it has to wait."""
        if self._connection is None or not (self._stream and self._connection.takes_parts):
            return False
        self._connection.send_part(self._reply.event(choice, piece))
        return True

    async def _send_whole(self, send: Send) -> None:
        status = 200
        try:
            body = await self._reply.whole(self._inbox)
            await self._keep()
        except ApiError as error:
            status, body = error.status, encode(error.body)
        if body is not None:
            await self._start(send, status, b"application/json", len(body))
            await _send_body(send, body)

    async def _start(self, send: Send, status: int, kind: bytes, length: int | None = None) -> None:
        self._answers[status] += 1
        headers = [(b"content-type", kind), (b"cache-control", b"no-store")]
        if self._seed is not None:
            headers.append((b"x-seed", self._seed))
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._inbox.abandon()
        self._scheduler.cancel(self._rows)


async def _send_body(send: Send, body: bytes) -> None:
    """The rest of it."""
    await send({"type": "http.response.body", "body": body})


def _task(
    asked: CompletionRequest, prompt: list[int], client: str, keeps: bool, stands: Position | None
) -> Task:
    """What a row is to do, which goes on where a session stands."""
    task = Task(prompt, asked.length, asked.stop, asked.logprobs, asked.echo, asked.stream, client, keeps)
    if stands is None:
        return task
    pending = stands.pending
    return replace(
        task, prompt=[*pending, *prompt], states=stands.states, hidden=len(pending), history=stands.history
    )


def _sampler(
    asked: CompletionRequest, vocabulary: Vocabulary, seed: int, prompt: list[int], turn: Turn | None
) -> Sampler | NativeSampler:
    """What chooses its tokens; a session without a new seed goes on with its generator."""
    if turn is None:
        if asked.sampling == Sampling():  # the likeliest of all rows are found at once
            return Sampler(asked.sampling, seed)
        return sampler_for(asked.sampling, seed, prompt, len(vocabulary), asked.length)
    stands = turn.position
    sampler = Sampler(asked.sampling, seed, prompt if stands is None else [*stands.history, *prompt])
    if stands is not None and not asked.seeded:
        sampler.generator.setstate((3, tuple(stands.random), None))
    return sampler
