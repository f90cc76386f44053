"""The repetition penalty: what the latest tokens of a stream do to its logits, in literal numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steprnn.runtime.sampling.recent import Recent

LOGITS = np.array([2.0, -2.0, 0.0, 3.0, -3.0], np.float32)


def test_a_positive_logit_is_divided_and_a_negative_one_multiplied() -> None:
    recent = Recent(4.0, 8, [0, 1, 2])
    assert recent.penalise(LOGITS).tolist() == [0.5, -8.0, 0.0, 3.0, -3.0]
    assert LOGITS.tolist() == [2.0, -2.0, 0.0, 3.0, -3.0]


def test_a_penalty_below_one_makes_recent_tokens_likelier() -> None:
    assert Recent(0.25, 8, [0, 1, 2]).penalise(LOGITS).tolist() == [8.0, -0.5, 0.0, 3.0, -3.0]


def test_a_token_that_stands_there_twice_is_penalised_once() -> None:
    assert Recent(4.0, 8, [0, 0, 0]).penalise(LOGITS).tolist() == [0.5, -2.0, 0.0, 3.0, -3.0]


@pytest.mark.parametrize(("most", "expected"), [(1, [2, -2, 0, 0.75, -3]), (2, [2, -8, 0, 0.75, -3])])
def test_only_so_many_are_recent(most: int, expected: list[float]) -> None:
    assert Recent(4.0, most, [0, 1, 3]).penalise(LOGITS).tolist() == expected
    recent = Recent(4.0, most, [])
    assert recent.penalise(LOGITS).tolist() == LOGITS.tolist()
    for token in (0, 1, 3):
        recent.remember(token)
    assert recent.penalise(LOGITS).tolist() == expected


def test_it_stays_in_float32_and_in_one_array() -> None:
    """The array is made once, and the next call overwrites it."""
    recent = Recent(4.0, 8, [0])
    first = recent.penalise(LOGITS)
    assert first.dtype == np.float32
    recent.remember(3)
    assert recent.penalise(LOGITS) is first
    assert first.tolist() == [0.5, -2.0, 0.0, 0.75, -3.0]


def test_it_keeps_its_tokens_in_arrays_that_are_given() -> None:
    slots, values = np.empty(2, np.intp), np.empty(2)
    recent = Recent(4.0, 2, [0, 1])
    recent.keep_in(slots, values, 5)
    recent.remember(3)
    assert sorted(slots.tolist()) == [1, 3]
    assert recent.penalise(LOGITS).tolist() == [2.0, -8.0, 0.0, 0.75, -3.0]
    assert sorted(values.tolist()) == [-8.0, 0.75]
    recent.remember(3)
    assert (recent.count, slots.tolist()) == (1, [3, 5])


def test_what_was_rounded_is_had_exactly() -> None:
    recent = Recent(3.0, 8, [0, 3])
    narrow = recent.penalise(LOGITS)
    assert recent.exact(narrow).tolist() == [2 / 3, -2.0, 0.0, 1.0, -3.0]
    assert narrow.tolist() == [float(np.float32(2 / 3)), -2.0, 0.0, 1.0, -3.0]


@given(
    st.lists(st.integers(0, 4), max_size=12),
    st.lists(st.integers(0, 4), max_size=12),
    st.integers(1, 4),
    st.sampled_from([0.5, 2.0]),
)
def test_it_forgets_as_a_list_of_the_latest_would(
    before: list[int], after: list[int], most: int, penalty: float
) -> None:
    recent, tokens = Recent(penalty, most, before), list(before)
    for token in (None, *after):
        if token is not None:
            recent.remember(token)
            tokens.append(token)
        latest = set(tokens[-most:])
        expected = [
            value if i not in latest else value / penalty if value > 0 else value * penalty
            for i, value in enumerate(LOGITS.tolist())
        ]
        assert recent.penalise(LOGITS).tolist() == expected
