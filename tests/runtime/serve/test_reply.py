"""Pieces on their way to the client: some go at once, some wait, and none overtakes another."""

from __future__ import annotations

import asyncio

from steprnn.runtime.serve.reply import Inbox
from steprnn.runtime.serve.row import Piece


def test_a_piece_that_could_go_at_once_waits_for_those_before_it() -> None:
    sent: list[str] = []
    reads = True  # whether the client does

    def at_once(choice: int, piece: Piece) -> bool:
        if reads:
            sent.append(piece.text)
        return reads

    async def deliver() -> None:
        nonlocal reads
        inbox, drained = Inbox(1, at_once), asyncio.Event()

        async def answer() -> None:
            async for arrived in inbox.batches():
                await drained.wait()
                sent.extend(piece.text for _, piece in arrived)

        def put(text: str, finish: str | None = None) -> None:
            inbox.put(0, Piece(text, [], finish))

        task = asyncio.create_task(answer())
        put("a")
        reads = False
        put("b")
        put("c")
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the one who answers has them, and waits for the client
        reads = True
        put("d")
        assert sent == ["a"]
        drained.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        put("e")
        put("f", "length")
        await asyncio.wait_for(task, 60)

    asyncio.run(deliver())
    assert sent == [*"abcdef"]
