"""Errors that carry more than their message."""

from __future__ import annotations

import pickle

import pytest

from steprnn.runtime import UnknownToken, Vocabulary
from steprnn.runtime.errors import brief


def test_unknown_characters_can_be_asked_for() -> None:
    with pytest.raises(UnknownToken) as raised:
        Vocabulary.of("分开").encode("分爱开!爱")
    error = pickle.loads(pickle.dumps(raised.value))  # as a pool of processes hands it on
    assert (error.characters, error.size) == (("爱", "!"), 2)
    assert error.problem == "'爱' '!' not among the 2 characters of the vocabulary"
    assert str(error) == f"{error.problem}; choose others, or skip them with unknown='skip'"


def test_what_another_program_said_is_cut_at_a_word() -> None:
    assert brief("one\n two") == "one two"
    assert brief("one two three", 9) == "one two ..."
    assert brief("x" * 10, 9) == "x" * 9 + " ..."
