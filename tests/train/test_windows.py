"""Consecutive sampling: rows that go on from window to window, and nothing that depends on another epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from steprnn.runtime.errors import CorpusError
from steprnn.train.windows import HELD_OUT_WINDOW, Windows, held_out

Pair = tuple[NDArray[np.int32], NDArray[np.int32]]


def epoch(windows: Windows, number: int) -> list[Pair]:
    return list(windows.dataset(range(number, number + 1)).as_numpy_iterator())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 60), st.integers(0, 99), st.integers(0, 9))
def test_each_row_goes_on_where_it_was(batch: int, window: int, more: int, seed: int, number: int) -> None:
    length = batch * window + window + more
    windows = Windows(list(range(length)), batch=batch, window=window, seed=seed)
    pairs = epoch(windows, number)
    assert len(pairs) == len(windows) >= 1
    assert windows.characters == len(pairs) * batch * window
    rows = np.concatenate([x for x, _ in pairs], axis=1)
    offset = windows.offset(number)
    assert 0 <= offset < window
    row_length = (length - 1 - offset) // batch
    for row in range(batch):
        start = offset + row * row_length
        assert rows[row].tolist() == list(range(start, start + rows.shape[1]))
    for x, y in pairs:
        assert x.shape == y.shape == (batch, window)
        assert (y == x + 1).all()
        assert y.max() < length


def test_an_epoch_depends_on_seed_and_number_alone() -> None:
    windows = Windows(list(range(500)), batch=3, window=20, seed=5)
    at_once = list(windows.dataset(range(4)).as_numpy_iterator())
    later = epoch(windows, 2)
    for (x, y), (x_later, y_later) in zip(at_once[2 * len(windows) :], later, strict=False):
        assert (x == x_later).all()
        assert (y == y_later).all()
    assert len({windows.offset(number) for number in range(20)}) > 5
    other = Windows(list(range(500)), batch=3, window=20, seed=6)
    assert [other.offset(n) for n in range(9)] != [windows.offset(n) for n in range(9)]


def test_over_the_epochs_every_character_is_read() -> None:
    windows = Windows(list(range(200)), batch=3, window=20)
    read = {int(token) for x, _ in windows.dataset(range(99)).as_numpy_iterator() for token in x.flat}
    assert read == set(range(199))


def test_the_words_for_too_short_a_text() -> None:
    words = r"the text to train on has 1,154 characters; --batch 32 --window 35 needs at least 1,155"
    with pytest.raises(CorpusError, match=words):
        Windows([0] * 1154, batch=32, window=35)
    assert len(Windows([0] * 1155, batch=32, window=35)) == 1


@pytest.mark.parametrize("length", [2, 3, 50, HELD_OUT_WINDOW + 1, HELD_OUT_WINDOW + 2, 3000])
def test_held_out_text_is_read_once_in_order(length: int) -> None:
    items = list(held_out(list(range(length))).as_numpy_iterator())
    x, y, weight = (np.concatenate(parts, axis=1)[0] for parts in zip(*items, strict=True))
    assert x[weight > 0].tolist() == list(range(length - 1))
    assert y[weight > 0].tolist() == list(range(1, length))
    assert weight.mean() == pytest.approx(1)  # so that Keras's mean over the padding is the mean without it
    assert len({item[0].shape for item in items}) == 1


def test_the_words_for_no_held_out_text() -> None:
    with pytest.raises(
        CorpusError, match="held-out text has 1 characters and needs at least 2: raise --holdout"
    ):
        held_out([0])
