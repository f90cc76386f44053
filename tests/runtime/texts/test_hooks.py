"""Processors of logits, cancels from another thread, and streams in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import Model, UnknownToken, UsageError
from steprnn.runtime.texts.hooks import AnyOf

OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0, "seed": 7},
    {"temperature": 2.0, "seed": 1, "top_k": 5, "repeat_penalty": 1.3},
    {"temperature": 1.5, "seed": 2, "top_p": 0.9, "min_p": 0.01},
]


def test_a_cancel_of_an_event_loop_is_looked_at_when_it_is_given(model: Model) -> None:
    with pytest.raises(UsageError, match=r"^cancel is of type bool; expected a threading\.Event"):
        model.astream("分开", cancel=True)  # type: ignore[typeddict-item]


# logits_processor


@pytest.mark.parametrize("options", OPTIONS)
def test_a_processor_that_does_nothing_changes_nothing(model: Model, options: dict[str, Any]) -> None:
    expected = model.generate("分开", 40, **options)
    assert model.generate("分开", 40, logits_processor=lambda logits, tokens: None, **options) == expected
    assert model.generate("分开", 40, logits_processor=lambda logits, tokens: logits, **options) == expected
    rows = model.generate("分开", 40, n=3, logits_processor=lambda logits, tokens: None, **options)
    assert rows == model.generate("分开", 40, n=3, **options)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("keep", [1, 2, 20])
def test_what_is_banned_is_never_written(model: Model, options: dict[str, Any], keep: int) -> None:
    """With every filter, and down to a single character that is left."""
    allowed = np.random.default_rng(keep).permutation(21)[:keep]

    def ban(logits: Any, tokens: Sequence[int]) -> None:
        left = logits[allowed]
        logits[:] = -np.inf
        logits[allowed] = left

    texts = [model.generate("分开", 60, logits_processor=ban, **options)]
    texts += model.generate("分开", 60, n=3, logits_processor=ban, **options)
    assert {c for text in texts for c in text[2:]} <= set(model.vocabulary.decode(allowed))
    assert all(len(text) == 62 for text in texts)
    assert texts[0] == texts[1], "a row is what it is alone"


@pytest.mark.parametrize("n", [None, 1])
def test_a_processor_sees_the_logits_and_the_tokens_so_far(model: Model, lstm: Any, n: int | None) -> None:
    seen: list[tuple[Any, list[int]]] = []

    def look(logits: Any, tokens: Sequence[int]) -> None:
        assert (logits.dtype, logits.shape) == (np.float32, (21,))
        seen.append((logits, list(tokens)))  # to keep: no later step writes into it

    written = model.generate("雨后", 20, n=n, logits_processor=look)  # type: ignore[call-overload]
    text = model.generate("雨后", 20)
    assert written == (text if n is None else [text])
    tokens = model.vocabulary.encode(text)
    assert [so_far for _, so_far in seen] == [tokens[: 2 + i] for i in range(20)]
    expected = lstm.chain(np.array(tokens[:-1])[:, None])["y"][1:, 0]
    np.testing.assert_allclose([logits for logits, _ in seen], expected, rtol=0, atol=1e-5)


def test_rows_have_tokens_of_their_own(model: Model) -> None:
    """Prompts of three lengths, each followed by its own last character for ever."""

    def repeat(logits: Any, tokens: Sequence[int]) -> Any:
        return np.where(np.arange(21) == tokens[-1], 0, -np.inf)

    prompts = ["分", "不分开", "雨后"]
    assert model.generate(prompts, 5, logits_processor=repeat) == [
        "分分分分分分",
        "不分开开开开开开",
        "雨后后后后后后",
    ]


@pytest.mark.parametrize("n", [None, 2])
@pytest.mark.parametrize(
    ("result", "words"),
    [
        (
            np.full(21, -np.inf),
            "the logits processor gave -inf as the largest logit after 2 tokens; expected at",
        ),
        (np.full(21, np.nan), "the logits processor gave nan as the largest logit after 2 tokens"),
        (np.full(21, np.inf), "the logits processor gave inf as the largest logit after 2 tokens"),
        (np.zeros(20), r"the logits processor gave shape \(20,\), expected \(21,\)"),
        (np.zeros((1, 21)), r"the logits processor gave shape \(1, 21\), expected \(21,\)"),
    ],
)
def test_what_a_processor_must_not_return(model: Model, n: int | None, result: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        model.generate("分开", 5, n=n, logits_processor=lambda logits, tokens: result)  # type: ignore[call-overload]
    assert model.generate("分开", 5) == model.generate("分开", 50)[:7]


# cancel


@contextlib.contextmanager
def counted(model: Model, batch: int) -> Iterator[list[int]]:
    """A list that grows with each step that the model takes in a batch of this size."""
    steps: list[int] = []
    with model.runner(batch) as runner:  # the one that is lent next
        run = runner.run
    runner.run = lambda: (steps.append(1), run())[1]  # type: ignore[method-assign, func-returns-value]
    try:
        yield steps
    finally:
        runner.run = run  # type: ignore[method-assign]


def after(calls: int) -> tuple[threading.Event, Any]:
    """An event, and a processor that sets it at this call."""
    event, count = threading.Event(), itertools.count(1)

    def processor(logits: Any, tokens: Sequence[int]) -> None:
        if next(count) == calls:
            event.set()

    return event, processor


def test_a_cancel_keeps_what_was_written_so_far(model: Model) -> None:
    whole = model.generate("分开", 50)
    event, processor = after(6)
    assert model.generate("分开", 50, cancel=event, logits_processor=processor) == whole[:7]
    assert model.generate("分开", 50, cancel=event) == "分开", "set before it began"
    assert model.generate("分开", 50, cancel=threading.Event()) == whole
    event, processor = after(9)
    texts = model.generate(["分开", "不分开"], 50, cancel=event, logits_processor=processor)
    assert texts == [whole[:7], model.generate("不分开", 50)[:7]]  # five and four characters
    assert model.generate("分开", 50) == whole


def test_a_cancel_ends_the_reading_of_a_long_prompt(model: Model) -> None:
    event = threading.Event()
    event.set()
    prompt = "分" * 500
    with counted(model, 1) as steps:
        assert model.generate(prompt, 5, cancel=event) == prompt
    assert steps == []
    with counted(model, 2) as steps:
        assert model.generate([prompt, prompt], 5, cancel=event) == [prompt, prompt]
    assert len(steps) == 1


def test_any_of_several_cancels() -> None:
    first, second = threading.Event(), threading.Event()
    either = AnyOf(first, second)
    assert not either.is_set()
    second.set()
    assert either.is_set()
    first.set()
    second.clear()
    assert either.is_set()


@pytest.mark.parametrize("n", [None, 4])
def test_a_thread_that_writes_for_ever_is_cancelled_by_another(model: Model, n: int | None) -> None:
    cancel, begun, texts = threading.Event(), threading.Event(), []

    def begin(logits: Any, tokens: Sequence[int]) -> None:
        begun.set()

    def work() -> None:
        options = {"temperature": 1.0, "seed": 3, "cancel": cancel, "logits_processor": begin}
        texts.append(model.generate("分开", 10_000_000, n=n, **options))  # type: ignore[call-overload]

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(60)
    cancel.set()
    thread.join(60)
    assert not thread.is_alive()
    text = texts[0] if n is None else texts[0][0]
    assert model.generate("分开", len(text) - 2, temperature=1.0, seed=3) == text


# astream


async def collect(stream: Any, most: int = 10**9) -> list[str]:
    pieces: list[str] = []
    async for piece in stream:
        pieces.append(piece)
        if len(pieces) == most:
            break
    return pieces


@pytest.mark.parametrize("options", [*OPTIONS, {"stop": "月"}, {"stop": ["开云", "没"]}])
def test_astream_gives_the_pieces_of_stream(model: Model, options: dict[str, Any]) -> None:
    assert asyncio.run(collect(model.astream("分开", 50, **options))) == list(
        model.stream("分开", 50, **options)
    )


def test_many_astreams_take_turns(model: Model) -> None:
    order: list[int] = []

    async def one(i: int) -> str:
        text = ""
        async for piece in model.astream("分开", 30, temperature=1.0, seed=i):
            order.append(i)
            text += piece
        return text

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*(one(i) for i in range(8)))

    assert asyncio.run(all_of_them()) == [
        model.generate("分开", 30, temperature=1.0, seed=i)[2:] for i in range(8)
    ]
    assert order != sorted(order)


def test_the_loop_has_its_turn_while_a_prompt_is_read(model: Model) -> None:
    """One that is left behind in it ends soon, though it has a million characters to read."""

    async def main() -> int:
        stream = model.astream("分开" * 500_000, 5)
        waiting = asyncio.ensure_future(anext(stream))
        turns = 0
        while turns < 20:
            await asyncio.sleep(0)
            turns += 1
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return turns

    with counted(model, 1) as steps:
        assert asyncio.run(main()) == 20  # it joins its worker threads
    assert len(steps) < 900_000, "it was read to the end though nobody waited for it"


def test_leaving_an_astream_and_a_cancel_in_it(model: Model) -> None:
    async def main() -> None:
        stream = model.astream("分开", 50)
        assert await collect(stream, 3) == list(model.stream("分开", 3))
        await stream.aclose()  # type: ignore[attr-defined]
        cancel = threading.Event()
        pieces = []
        async for piece in model.astream("分开", 50, cancel=cancel):
            pieces.append(piece)
            if len(pieces) == 4:
                cancel.set()
        assert pieces == list(model.stream("分开", 4))

    asyncio.run(main())
    assert model.runners.idle < 40, "runners are given back"


def test_astream_refuses_at_the_call(model: Model) -> None:
    with pytest.raises(UsageError, match="the prompt is empty"):
        model.astream("")
    with pytest.raises(UnknownToken):
        model.astream("爱")
