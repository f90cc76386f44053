"""Sessions: a step says what the textbook's LSTM says, and each stream keeps its state to itself."""

from __future__ import annotations

import io
import random
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steprnn.runtime import Model, Session, State, StateError, UsageError

ENCODE = "; a text is made tokens by model.vocabulary.encode"
TOKENS = np.random.default_rng(0).integers(0, 21, (200, 1))


def chained(session: Session, tokens: Any) -> Any:
    return np.stack([session.step(x) for x in tokens])


def test_every_step_is_the_textbooks(model: Model, lstm: Any) -> None:
    """Arbitrary tokens, 200 of them, and the state after each: float32 rounding is all that differs."""
    expected = lstm.chain(TOKENS)
    session = model.session()
    for t, x in enumerate(TOKENS):
        y = session.step(x)
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, expected["y"][t], rtol=0, atol=1e-5, err_msg=f"y at step {t}")
        tensors = session.state.tensors
        np.testing.assert_allclose(tensors["h"], expected["next_h"][t], rtol=0, atol=2e-6)
        np.testing.assert_allclose(tensors["c"], expected["next_c"][t], rtol=0, atol=2e-6)


def test_it_begins_at_zero_and_returns_there(model: Model) -> None:
    session = model.session()
    assert {n: t.tolist() for n, t in session.state.tensors.items()} == {"h": [[0.0] * 8], "c": [[0.0] * 8]}
    first = session.step(3)
    session.step(5)
    session.reset()
    assert not any(t.any() for t in session.state.tensors.values())
    np.testing.assert_array_equal(session.step(3), first)


def test_a_single_token_needs_no_batch_axis(model: Model) -> None:
    np.testing.assert_array_equal(model.session().step(3), model.session().step([3]))
    assert model.session().step({"x": [3]}).shape == (1, 21)


def test_a_runner_of_an_earlier_step_is_not_gone_on_with(model: Model) -> None:
    """A session leaves its states in a runner; between two steps others come, and runners change places."""
    session, tokens = model.session(), [3, 5, 7, 5, 3, 9, 2, 4]
    kept = model.session()
    alone = [kept.step(token).copy() for token in tokens]
    moves = [
        lambda: None,
        lambda: model.runners.give(1, *model.runners.borrow(1)),
        lambda: model.generate("分", 3),
        lambda: model.runners._idle[1].reverse(),
        lambda: model.session().step(8),
        lambda: session.state.tensors["h"].fill(9),
    ]
    with model.runner(), model.runner():
        pass  # there are two now, or more that other tests left
    assert model.runners.idle >= 2
    for seed in range(30):
        chance = random.Random(seed)
        session.reset()
        for token, expected in zip(tokens, alone, strict=True):
            np.testing.assert_array_equal(session.step(token), expected)
            chance.choice(moves)()
            model.runners._idle[1].reverse()


def test_a_token_of_another_type_is_the_same_or_refused(model: Model) -> None:
    expected = model.session().step(3)
    for token in (np.int64(3), np.array(3), [3], np.array([3], np.int32)):
        np.testing.assert_array_equal(model.session().step(token), expected)
    for token in (-1, 21, 2**70, 3.0, True, "3"):
        with pytest.raises(UsageError):
            model.session().step(token)


def test_y_and_state_are_copies(model: Model) -> None:
    session = model.session()
    y, state = session.step(3), session.state
    kept, h = y.copy(), state.tensors["h"].copy()
    session.step(5)
    np.testing.assert_array_equal(y, kept)
    np.testing.assert_array_equal(state.tensors["h"], h)
    state = session.state
    state.tensors["h"][...] = 9
    assert not (session.state.tensors["h"] == 9).any()


def test_a_fork_goes_its_own_way(model: Model) -> None:
    session = model.session()
    chained(session, TOKENS[:5])
    fork = session.fork()
    left, right = chained(session, TOKENS[5:10]), chained(fork, TOKENS[10:15])
    alone = model.session()
    np.testing.assert_array_equal(chained(alone, TOKENS[:10])[5:], left)
    other = model.session()
    chained(other, TOKENS[:5])
    np.testing.assert_array_equal(chained(other, TOKENS[10:15]), right)
    assert not np.array_equal(left, right)


def test_rows_of_a_batch_do_not_touch_each_other(model: Model, lstm: Any) -> None:
    tokens = TOKENS.reshape(40, 5)
    expected = lstm.chain(tokens)["y"]
    np.testing.assert_allclose(chained(model.session(batch=5), tokens), expected, rtol=0, atol=1e-5)
    disturbed = tokens.copy()
    disturbed[:, 2] = 7
    got = chained(model.session(batch=5), disturbed)
    others = [0, 1, 3, 4]
    np.testing.assert_allclose(got[:, others], expected[:, others], rtol=0, atol=1e-5)
    assert not np.allclose(got[:, 2], expected[:, 2], atol=1e-2)


def test_interleaved_sessions_give_what_each_gives_alone(model: Model) -> None:
    streams = TOKENS.reshape(4, 50, 1)
    alone = [chained(model.session(), stream) for stream in streams]
    sessions = [model.session() for _ in streams]
    together = np.stack([[s.step(x) for s, x in zip(sessions, xs)] for xs in streams.swapaxes(0, 1)])  # noqa: B905
    np.testing.assert_array_equal(together.swapaxes(0, 1), alone)


def test_eight_threads_share_one_model(model: Model) -> None:
    """Sessions, greedy text and batches at once; each thread gets what it would get alone."""
    tokens = TOKENS.reshape(8, 25, 1)
    expected = [
        (chained(model.session(), tokens[i]), model.generate("分开", 30, temperature=1.0, seed=i))
        for i in range(8)
    ]
    start, wrong = threading.Barrier(8), []

    def work(i: int) -> None:
        start.wait()
        for _ in range(10):
            steps = chained(model.session(), tokens[i])
            text = model.generate("分开", 30, temperature=1.0, seed=i)
            texts = model.generate("分开", 30, n=2, temperature=1.0, seed=i)
            if not np.array_equal(steps, expected[i][0]) or (text, texts[0]) != (expected[i][1],) * 2:
                wrong.append((i, text, texts))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_saved_state_goes_on_exactly(model: Model) -> None:
    session = model.session()
    chained(session, TOKENS[:20])
    saved = session.state.to_bytes()
    following = chained(session, TOKENS[20:40])
    np.testing.assert_array_equal(chained(model.session(State.from_bytes(saved)), TOKENS[20:40]), following)


def test_a_state_saved_in_one_engine_goes_on_in_the_other(models: dict[str, Model]) -> None:
    session = models["onnx"].session()
    chained(session, TOKENS[:20])
    other = models["litert"].session(State.from_bytes(session.state.to_bytes()))
    np.testing.assert_allclose(other.step(3), session.step(3), rtol=0, atol=1e-5)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=16, max_size=16))
def test_state_bytes_keep_every_bit(values: list[float]) -> None:
    tensors = {"h": np.array([values[:8]], np.float32), "c": np.array([values[8:]], np.float32)}
    state = State.from_bytes(State("0123", tensors).to_bytes())
    assert state.model == "0123"
    assert {n: t.tobytes() for n, t in state.tensors.items()} == {n: t.tobytes() for n, t in tensors.items()}


def test_a_state_brings_its_batch_size(model: Model) -> None:
    session = model.session(batch=3)
    session.step([1, 2, 3])
    np.testing.assert_array_equal(model.session(session.state).step([4, 5, 6]), session.step([4, 5, 6]))


def test_a_state_of_another_model_is_refused(model: Model) -> None:
    session = model.session()
    state = State("f" * 64, session.state.tensors)
    with pytest.raises(StateError) as raised:
        model.session(state)
    assert str(raised.value) == (
        f"this state belongs to model ffffffffffff, not to {model.manifest.model[:12]}; "
        "load the bundle it was made with"
    )
    with pytest.raises(StateError, match="belongs to model"):
        session.state = state


ZERO = np.zeros((1, 8), np.float32)


@pytest.mark.parametrize(
    ("tensors", "got"),
    [
        ({"h": ZERO}, "{'h': ('float32', (1, 8))}"),
        ({"h": ZERO, "c": ZERO[:, :7]}, "'c': ('float32', (1, 7))"),
        ({"h": ZERO, "c": ZERO, "s": ZERO}, "'s': ('float32', (1, 8))"),
        ({"h": ZERO, "c": np.zeros((2, 8), np.float32)}, "'c': ('float32', (2, 8))"),
        ({"h": ZERO, "c": ZERO.astype(np.float64)}, "'c': ('float64', (1, 8))"),
        ({"h": np.float32(0), "c": np.float32(0)}, "'h': ('float32', ())"),
        ({}, "{}"),
    ],
)
def test_a_state_of_another_shape_is_refused(model: Model, tensors: dict[str, Any], got: str) -> None:
    with pytest.raises(StateError) as raised:
        model.session(State(model.manifest.model, tensors))
    assert f"this state has {got}" in str(raised.value) or got in str(raised.value)
    assert "expected {'h': ('float32', (" in str(raised.value)


def test_what_is_printed_of_a_session_and_a_state(model: Model) -> None:
    session = model.session(batch=3)
    assert repr(session) == "<Session of model 2b9effb9, batch 3>"
    assert repr(session.state) == "<State of model 2b9effb9: h [3, 8], c [3, 8]>"
    assert repr(session.fork()) == repr(session)
    assert repr(State("0123456789", {})) == "<State of model 01234567: none>"


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize("data", [b"", b"state", npz(h=ZERO, c=ZERO), npz(**{"": np.zeros(3, np.uint8)})])
def test_bytes_that_are_no_state_are_refused(data: bytes) -> None:
    with pytest.raises(StateError) as raised:
        State.from_bytes(data)
    assert str(raised.value).startswith(f"these {len(data)} bytes are not a state (")
    assert str(raised.value).endswith("; expected State.to_bytes()")


def test_a_damaged_state_is_refused(model: Model) -> None:
    data = bytearray(model.session().state.to_bytes())
    with pytest.raises(StateError, match="are not a state"):
        State.from_bytes(bytes(data[:-30]))
    data[data.index(b"\x93NUMPY", 200) + 140] ^= 1  # in the values: the zip's CRC tells
    with pytest.raises(StateError, match="are not a state"):
        State.from_bytes(bytes(data))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (21, "input 'x' has a token outside 0..20: [21]"),
        (-1, "input 'x' has a token outside 0..20: [-1]"),
        ([1, 2], "input 'x' has shape (2,), expected (1,)"),
        ([[1]], "input 'x' has shape (1, 1), expected (1,)"),
        (1.0, "input 'x' has dtype float64, expected whole numbers (int32)"),
        (True, "input 'x' has dtype bool, expected whole numbers (int32)"),
        ("分", f"input 'x' has dtype <U1, expected whole numbers (int32){ENCODE}"),
        (["分", "开"], f"input 'x' has shape (2,), expected (1,){ENCODE}"),
        ({"token": 1}, "got inputs ['token'], expected ['x']"),
        ({}, "got inputs [], expected ['x']"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_and_changes_nothing(model: Model, x: Any, words: str) -> None:
    session = model.session()
    session.step(3)
    before = session.state.to_bytes()
    with pytest.raises(UsageError) as raised:
        session.step(x)
    assert str(raised.value) == words
    assert session.state.to_bytes() == before


def test_one_bad_row_of_a_batch_is_refused(model: Model) -> None:
    with pytest.raises(UsageError, match=r"a token outside 0\.\.20: \[1, 99, 2\]"):
        model.session(batch=3).step([1, 99, 2])
    with pytest.raises(UsageError, match=r"input 'x' has shape \(\), expected \(3,\)"):
        model.session(batch=3).step(1)


def test_what_is_no_state_is_told_how_it_becomes_one(model: Model) -> None:
    session, data = model.session(), model.session().state.to_bytes()
    many = model.streams()
    for wrong, words in (
        (data, "the state is of type bytes; expected State, which State.from_bytes makes of them"),
        (5, "the state is of type int; expected State"),
        ({"h": data}, "the state is of type dict; expected State"),
    ):
        for call in (
            lambda: model.session(wrong),  # noqa: B023 (called at once)
            lambda: setattr(session, "state", wrong),  # noqa: B023
            lambda: many.__setitem__("a", wrong),  # noqa: B023
        ):
            with pytest.raises(UsageError) as raised:
                call()
            assert str(raised.value) == words
    for call in (lambda: setattr(session, "state", None), lambda: many.__setitem__("a", None)):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="the state is of type NoneType; expected State"):
            call()
    for text in (None, "state.npz"):
        with pytest.raises(
            StateError, match=f"a state comes from bytes, not from {type(text).__name__}; read"
        ):
            State.from_bytes(text)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="static is of type list; expected a dict of inputs by name"):
        model.session(static=[1])  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_none_is_refused(model: Model, batch: int) -> None:
    with pytest.raises(UsageError, match=f"batch is {batch}; expected at least 1"):
        model.session(batch=batch)


@pytest.mark.parametrize("batch", ["2", 2.0, True, None])
def test_a_batch_that_is_no_whole_number_is_refused(model: Model, batch: Any) -> None:
    with pytest.raises(UsageError, match=f"batch is {batch!r}; expected a whole number, at least 1"):
        model.session(batch=batch)


@pytest.mark.parametrize(("steps", "batch"), [(64, 1), (5, 3), (1, 1), (0, 2)])
def test_a_block_is_its_steps_to_the_bit(model: Model, steps: int, batch: int) -> None:
    tokens = np.random.default_rng(3).integers(0, 21, (steps, batch))
    singly, block = model.session(batch=batch), model.session(batch=batch)
    for session in (singly, block):
        session.step([3] * batch)
    expected = chained(singly, tokens) if steps else np.zeros((0, batch, 21), np.float32)
    y = block.run(tokens)
    assert isinstance(y, np.ndarray)
    assert (y.dtype, y.shape) == (np.float32, (steps, batch, 21))
    np.testing.assert_array_equal(y, expected)
    assert block.state.to_bytes() == singly.state.to_bytes()
    np.testing.assert_array_equal(block.step([7] * batch), singly.step([7] * batch))


def test_a_block_of_one_row_needs_no_batch_axis_and_takes_turns(model: Model) -> None:
    one, two, alone = model.session(), model.session(), model.session()
    for part in (TOKENS[:50, 0], TOKENS[50:60], TOKENS[60:, 0].tolist()):
        two.run([5, 6])  # has the runner between
        np.testing.assert_array_equal(one.run(part), chained(alone, np.reshape(part, (-1, 1))))
    assert one.state.to_bytes() == alone.state.to_bytes()


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (1, "a block has an axis of time first, of one length in every input"),
        ("分开", f"a block has an axis of time first, of one length in every input{ENCODE}"),
        (["分", "开"], f"input 'x' has dtype <U1, expected whole numbers (int32){ENCODE}"),
        ({}, "a block has an axis of time first, of one length in every input"),
        ([1, 21, 2], "input 'x' has a token outside 0..20: [[1], [21], [2]]"),
        ([[1, 2]], "input 'x' has shape (1, 2), expected (1, 1)"),
        ([0.5], "input 'x' has dtype float64, expected whole numbers (int32)"),
        ({"token": [1]}, "got inputs ['token'], expected ['x']"),
    ],
)
def test_a_block_that_does_not_fit_is_refused_and_changes_nothing(
    model: Model, frames: Any, words: str
) -> None:
    session = model.session()
    session.step(3)
    before = session.state.to_bytes()
    with pytest.raises(UsageError) as raised:
        session.run(frames)
    assert str(raised.value) == words
    assert session.state.to_bytes() == before
