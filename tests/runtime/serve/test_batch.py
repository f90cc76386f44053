"""Continuous batching: rows join and leave at any step, and each writes what it writes alone."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import Model, NotFinite, Sampling, load
from steprnn.runtime.sampling.sampler import Sampler
from steprnn.runtime.serve.batch import STEPS_BEFORE_SHRINKING, Batch
from steprnn.runtime.serve.metrics import Metrics
from steprnn.runtime.serve.prefixes import Prefixes
from steprnn.runtime.serve.row import Piece, Row, Task
from steprnn.runtime.serve.scheduler import QueueFull, Scheduler

POISON = 5


def row(model: Model, prompt: str, length: int, seed: int, sampling: Sampling) -> Row:
    assert model.vocabulary is not None
    tokens = model.vocabulary.encode(prompt)
    return Row(Task(tokens, length), model.vocabulary, Sampler(sampling, seed, tokens), lambda piece: None)


def test_rows_join_and_leave_at_any_step(model: Model) -> None:
    """Some 60 rows through 8 places; a row that was given up takes nothing with it."""
    chance = random.Random(1)
    batch = Batch(model, 8)
    expected: dict[Row, str] = {}
    given_up = 0
    for seed in range(60):
        prompt = "".join(chance.choices("分开云不走月", k=chance.randint(1, 9)))
        length = chance.randint(1, 30)
        options = {"temperature": chance.choice([0.0, 1.5]), "repeat_penalty": chance.choice([1.0, 1.3])}
        joining = row(model, prompt, length, seed, Sampling(**options))
        expected[joining] = model.generate(prompt, length, seed=seed, **options).removeprefix(prompt)
        batch.join([joining])
        assert batch.size in (1, 2, 4, 8)
        while len(batch) == 8 or (len(batch) and chance.random() < 0.7):
            if chance.random() < 0.02:
                batch.rows[0].cancelled = True
            for left in batch.step():
                given_up += left.cancelled
                if not left.cancelled:
                    assert left.piece().text == expected.pop(left)
                else:
                    del expected[left]
    while len(batch):
        for left in batch.step():
            assert left.piece().text == expected.pop(left)
    assert not expected
    assert 0 < given_up < 20


def test_a_batch_shrinks_when_most_have_left(model: Model) -> None:
    batch = Batch(model, 16)
    batch.join([row(model, "分", 5 if i else 100, i, Sampling()) for i in range(9)])
    assert batch.size == 16
    for _ in range(5):
        batch.step()
    assert (len(batch), batch.size) == (1, 16)
    for _ in range(STEPS_BEFORE_SHRINKING + 1):
        batch.step()
    assert (len(batch), batch.size) == (1, 1)
    (left,) = [left for _ in range(100 - 6 - STEPS_BEFORE_SHRINKING) for left in batch.step()]
    assert left.piece() == Piece(model.generate("分", 100)[1:], [], "length")
    batch.step()
    assert batch.size == 0


def test_a_limit_that_is_no_power_of_two(models: dict[str, Model]) -> None:
    batch = Batch(models["onnx"], 5)
    batch.join([row(models["onnx"], "分", 3, i, Sampling()) for i in range(5)])
    assert batch.size == 5


def test_a_step_that_fails_ends_its_rows_and_no_others(
    models: dict[str, Model], caplog: pytest.LogCaptureFixture
) -> None:
    """onnxruntime raises where a token is not in the table."""
    model = models["onnx"]
    assert model.vocabulary is not None
    tokens = model.vocabulary

    async def both() -> tuple[Piece, Piece]:
        scheduler = Scheduler(model, Metrics(), batch=4, queue=4)
        scheduler.start(asyncio.get_running_loop())
        pieces: asyncio.Queue[Piece] = asyncio.Queue()
        scheduler.submit([Row(Task([10**6], 5), tokens, Sampler(Sampling(), 0), pieces.put_nowait)])
        wrong = await asyncio.wait_for(pieces.get(), 60)
        good = Task(model.vocabulary.encode("分"), 5, streamed=False)
        scheduler.submit([Row(good, tokens, Sampler(Sampling(), 0), pieces.put_nowait)])
        right = await asyncio.wait_for(pieces.get(), 60)
        assert scheduler.alive
        scheduler.stop()
        assert not scheduler.alive
        return wrong, right

    wrong, right = asyncio.run(both())
    assert wrong == Piece("", [], "error")
    assert right == Piece(model.generate("分", 5)[1:], [], "length")
    assert caplog.text.count("a step failed (") == 1


def test_a_row_that_is_done_before_submit_returns_is_delivered_once(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine may give the scheduler's thread its turn at any time."""

    async def pieces_of_one() -> list[Piece]:
        scheduler = Scheduler(model, Metrics(), batch=4, queue=4)
        scheduler.start(asyncio.get_running_loop())
        pieces: list[Piece] = []
        one = row(model, "分", 5, 0, Sampling())
        one.deliver = pieces.append

        class Held:
            """Its lock, which the thread of `submit` comes back from when the row is done."""

            def __enter__(self) -> None:
                changed.__enter__()

            def __exit__(self, *error: Any) -> None:
                changed.__exit__(*error)
                if threading.current_thread() is threading.main_thread():
                    while one.finish is None:
                        time.sleep(0)

            def __getattr__(self, name: str) -> Any:
                return getattr(changed, name)

        changed = scheduler._changed
        monkeypatch.setattr(scheduler, "_changed", Held())
        scheduler.submit([one])
        monkeypatch.undo()
        while not any(piece.finish for piece in pieces):
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        scheduler.stop()
        return pieces

    pieces = asyncio.run(asyncio.wait_for(pieces_of_one(), 60))
    assert "".join(piece.text for piece in pieces) == model.generate("分", 5)[1:]
    assert [piece.finish for piece in pieces if piece.finish] == ["length"]


@pytest.mark.parametrize("engine", ["litert", "onnx"])
def test_a_row_without_a_token_ends_alone(poisoned: Path, engine: str) -> None:
    model = load(poisoned, engine=engine, variant="float32")
    assert model.vocabulary is not None
    bad = model.vocabulary.tokens[POISON]
    expected = {}
    batch = Batch(model, 8)
    rows = [row(model, "分开", 6, seed, Sampling(temperature=float(seed % 2))) for seed in range(6)]
    for seed, one in enumerate(rows):
        try:
            text = model.generate("分开", 6, seed=seed, temperature=float(seed % 2))
            expected[one] = Piece(text.removeprefix("分开"), [], "length")
        except NotFinite as error:  # it draws the token by itself
            expected[one] = Piece("", [], "error", str(error))
    first = row(model, bad + "分", 6, 0, Sampling())
    scored = Task(model.vocabulary.encode("分" + bad + "开"), 2, logprobs=0, echo=True)
    second = Row(scored, model.vocabulary, Sampler(Sampling(), 0), lambda piece: None)
    batch.join([*rows[:3], first, second, *rows[3:]])
    left = {one: one.piece() for _ in range(20) for one in batch.step()}
    assert left.pop(first).error == (
        f"the largest logit is nan after 2 steps of model {model.manifest.model[:12]}; "
        "expected finite numbers: look at its weights and at what went in"
    )
    assert "the largest logit is nan after 2 steps" in str(left.pop(second).error)
    assert set(left) == set(expected)
    for one, piece in left.items():
        assert (piece.finish, piece.error) == (expected[one].finish, expected[one].error)
        assert piece.error or piece.text == expected[one].text
    assert sum(piece.error is None for piece in left.values()) >= 3
    assert len(batch) == 0


class Stuck(Row):
    """A row that holds up the step it is in."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def read(self, logits: Any) -> bool:
        self.begun.set()
        self.go_on.wait(60)
        return super().read(logits)


def test_it_is_alive_only_while_steps_are_taken(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models["onnx"]
    assert model.vocabulary is not None
    tokens = model.vocabulary

    async def look() -> None:
        scheduler = Scheduler(model, Metrics(), batch=2, queue=2)
        pieces: asyncio.Queue[Piece] = asyncio.Queue()
        scheduler.start(asyncio.get_running_loop())
        assert scheduler.alive
        stuck = Stuck(Task([1], 3, streamed=False), tokens, Sampler(Sampling(), 0), pieces.put_nowait)
        scheduler.submit([stuck])
        assert await asyncio.to_thread(stuck.begun.wait, 60)
        assert scheduler.alive, "a step may take a while"
        monkeypatch.setattr("steprnn.runtime.serve.scheduler.STALLED", 0.0)
        assert not scheduler.alive
        scheduler.stop()  # comes back, though the thread does not
        assert not scheduler.alive
        stuck.go_on.set()

    asyncio.run(look())


def test_it_is_alive_with_nothing_to_do(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    model = models["onnx"]
    assert model.vocabulary is not None
    tokens = model.vocabulary

    async def look() -> None:
        scheduler = Scheduler(model, Metrics(), batch=2, queue=2)
        scheduler.start(asyncio.get_running_loop())
        pieces: asyncio.Queue[Piece] = asyncio.Queue()
        scheduler.submit(
            [Row(Task([1], 3, streamed=False), tokens, Sampler(Sampling(), 0), pieces.put_nowait)]
        )
        await asyncio.wait_for(pieces.get(), 60)
        deadline = time.monotonic() + 20
        while scheduler._working_since is not None:  # until it waits for more
            assert time.monotonic() < deadline
            await asyncio.sleep(0)
        monkeypatch.setattr("steprnn.runtime.serve.scheduler.STALLED", 0.0)
        assert scheduler.alive
        monkeypatch.undo()
        scheduler.stop()

    asyncio.run(look())


def test_a_queue_takes_all_rows_of_a_request_or_none(models: dict[str, Model]) -> None:
    model = models["litert"]
    metrics = Metrics()
    scheduler = Scheduler(model, metrics, batch=2, queue=1)  # not started: nothing leaves it
    scheduler.submit([row(model, "分", 5, i, Sampling()) for i in range(2)])
    waiting = [row(model, "分", 5, i, Sampling()) for i in range(2)]
    metrics.rows_waiting = metrics.rows_active = -100  # they tell, and decide nothing
    with pytest.raises(QueueFull):
        scheduler.submit(waiting)
    assert (scheduler.waiting, scheduler.full) == (2, False)
    scheduler.submit(waiting[:1])
    scheduler.cancel(waiting[:1])
    assert metrics.rows_waiting == 2
    scheduler.submit(waiting[1:])
    assert metrics.rows_waiting == 3


def test_a_prompt_that_was_read_before_is_not_read_again(model: Model) -> None:
    """By the same client; where the scores of its tokens are asked for, it is."""
    vocabulary = model.vocabulary
    assert vocabulary is not None
    prompt = "云不走月在雨后分开 " * 4
    tokens = vocabulary.encode(prompt)
    expected = {seed: model.generate(prompt, 9, seed=seed, temperature=1.5)[40:] for seed in range(9)}
    batch = Batch(model, 8)

    def steps(seed: int, client: str, **options: Any) -> tuple[int, int]:
        """How many it takes for nine tokens beside another row, and how many were known."""
        task = Task(tokens, 9, client=client, **options)
        sampler = Sampler(Sampling(temperature=1.5), seed, tokens)
        one = Row(task, vocabulary, sampler, lambda piece: None)
        batch.join([one, row(model, "分开", 500, 1, Sampling())])
        before = batch.steps
        while one not in batch.step():
            pass
        assert one.piece().text.endswith(expected[seed])
        for other in batch.rows:
            other.cancelled = True
        return batch.steps - before, one.cached

    assert steps(0, "a") == (48, 0)
    assert steps(1, "a") == (9, 39)
    assert steps(2, "a", logprobs=3) == (9, 39)
    assert steps(3, "a", echo=True, logprobs=3) == (48, 0)
    assert steps(4, "a", echo=True) == (9, 39)
    assert steps(5, "b") == (48, 0), "another client cannot tell that it was"
    assert steps(6, "b") == (9, 39)


@pytest.mark.parametrize("length", [2, 40])
def test_rows_of_one_prompt_read_it_once(model: Model, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    """A step with one row is taken for each token but the last, and with all of them from there on."""
    vocabulary = model.vocabulary
    assert vocabulary is not None
    prompt = ("云不走月在雨后分开 " * 4)[:length]
    tokens = vocabulary.encode(prompt)
    sizes: list[int] = []
    step = Batch.step

    def counted(batch: Batch) -> list[Row]:
        sizes.append(batch.size)
        return step(batch)

    monkeypatch.setattr(Batch, "step", counted)

    async def texts() -> list[str]:
        scheduler = Scheduler(model, Metrics(), batch=4, queue=4)
        scheduler.start(asyncio.get_running_loop())
        made: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        rows = [
            Row(
                Task(tokens, 9, streamed=False),
                vocabulary,
                Sampler(Sampling(temperature=1.5), seed, tokens),
                lambda piece, seed=seed: made.put_nowait((seed, piece)),
            )
            for seed in range(6)
        ]
        for one in rows[1:]:
            one.follow(rows[0])
        scheduler.submit(rows)
        pieces = dict([await asyncio.wait_for(made.get(), 60) for _ in rows])
        scheduler.stop()
        assert scheduler._metrics.prompt_tokens == length + 5
        return [pieces[seed].text for seed in range(6)]

    expected = [model.generate(prompt, 9, seed=seed, temperature=1.5)[length:] for seed in range(6)]
    assert asyncio.run(texts()) == expected
    assert sizes[: length - 1] == [1] * (length - 1)
    assert sizes[length - 1 : length + 8] == [4] * 9


def test_rows_go_on_where_the_one_that_reads_for_them_fails(poisoned: Path) -> None:
    model = load(poisoned, engine="litert", variant="float32")
    assert model.vocabulary is not None
    tokens, vocabulary = [POISON, *model.vocabulary.encode("分开")], model.vocabulary

    async def errors() -> list[str | None]:
        scheduler = Scheduler(model, Metrics(), batch=4, queue=4)
        scheduler.start(asyncio.get_running_loop())
        pieces: asyncio.Queue[Piece] = asyncio.Queue()
        rows = [Row(Task(tokens, 5), vocabulary, Sampler(Sampling(), 0), pieces.put_nowait) for _ in range(3)]
        for one in rows[1:]:
            one.follow(rows[0])
        scheduler.submit(rows)
        ends = [(await asyncio.wait_for(pieces.get(), 60)).error for _ in rows]
        scheduler.stop()
        return ends

    assert all("the largest logit is nan" in str(error) for error in asyncio.run(errors()))


def test_prefixes_are_bounded() -> None:
    states = {"h": np.zeros(100, np.float32)}
    kept = Prefixes(10 * (400 + 8 * 29))
    for i in range(10):
        kept.keep("a", [i] * 30, states)
    assert kept.find("a", [0] * 30) is states  # used now, and so it stays
    kept.keep("a", [77] * 30, states)
    assert len(kept) == 10
    assert [kept.find("a", [i] * 30) is None for i in (0, 1, 2, 77)] == [False, True, False, False]
    assert kept.find("a", [0] * 31) is None
    assert kept.find("b", [0] * 30) is None
    kept.keep("a", [5] * 10, states)
    assert kept.find("a", [5] * 10) is None, "too short to be worth a place"
