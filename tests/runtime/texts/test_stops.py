"""Stop strings end a stream before them, wherever the pieces of the stream begin and end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steprnn.runtime import UsageError
from steprnn.runtime.texts.stops import Until, before_stop, checked_stops, until

texts = st.text("ab ", max_size=30)  # few letters: many near misses
stops = st.lists(st.text("ab ", min_size=1, max_size=4), min_size=1, max_size=3)


@st.composite
def chunks(draw: st.DrawFn, texts: st.SearchStrategy[str] = texts) -> list[str]:
    """A text cut anywhere, empty pieces among them."""
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=10)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def before_first(text: str, stop: list[str]) -> str:
    return min((text.partition(s)[0] for s in stop), key=len)


@given(chunks(), stops)
def test_it_is_the_text_before_the_first_stop_string(pieces: list[str], stop: list[str]) -> None:
    assert "".join(until(pieces, stop)) == before_first("".join(pieces), stop)


@given(texts, stops)
def test_no_piece_is_taken_back_and_none_is_empty(text: str, stop: list[str]) -> None:
    pieces = list(until(text, stop))
    assert all(pieces)
    assert before_first(text, stop).startswith("".join(pieces[:1]))


@given(texts)
def test_without_a_stop_string_every_piece_comes_at_once(text: str) -> None:
    assert list(until(text, [])) == list(text)


def test_only_what_may_become_a_stop_string_is_held_back() -> None:
    read = []

    def pieces() -> Iterator[str]:
        for piece in "xaby":
            read.append(piece)
            yield piece

    stream = until(pieces(), ["abc"])
    assert (next(stream), "".join(read)) == ("x", "x")
    assert (next(stream), "".join(read)) == ("aby", "xaby")


@pytest.mark.parametrize("stop", [["ab"], ["ab", "abc"], ["abcd", "ab"]])
def test_nothing_is_read_beyond_the_stop_string(stop: list[str]) -> None:
    """Not even where a longer one begins at the same place: the text ends there either way."""
    stream = iter("xabz")
    assert list(until(stream, stop)) == ["x"]
    assert list(stream) == ["z"]


@given(texts, stops)
def test_a_whole_text_ends_where_its_pieces_would(text: str, stop: list[str]) -> None:
    assert before_stop(text, stop) == before_first(text, stop)
    assert before_stop(text, []) == text


def test_whether_a_stop_string_was_met_is_told_with_the_piece_that_ends_it() -> None:
    gate = Until(["开始"])
    assert gate.ended is False
    assert [(gate.push(piece), gate.ended) for piece in ("云", "开", "门开", "始了")] == [
        ("云", False),
        ("", False),
        ("开门", False),
        ("", True),
    ]


@pytest.mark.parametrize(
    ("pieces", "stop", "pushed", "rest", "ended"),
    [
        ("xab", ["abc", "b"], ["x", "", ""], "a", True),  # "b" is in what "abc" held back
        ("xab", ["abc", "bc"], ["x", "", ""], "ab", False),
        ("xx", ["y"], ["x", "x"], "", False),
        (["wxab"], ["abc", "b"], ["wx"], "a", True),
    ],
)
def test_what_was_held_back_comes_when_nothing_follows(
    pieces: Sequence[str], stop: list[str], pushed: list[str], rest: str, ended: bool
) -> None:
    gate = Until(stop)
    assert [gate.push(piece) for piece in pieces] == pushed
    assert not gate.ended
    assert (gate.close(), gate.ended) == (rest, ended)


def test_one_stop_string_or_several_and_none_that_is_empty() -> None:
    assert checked_stops("ab") == ["ab"]
    assert checked_stops(("ab", "c")) == ["ab", "c"]
    assert checked_stops([]) == []
    for stop in ("", ["a", ""]):
        with pytest.raises(UsageError) as raised:
            checked_stops(stop)
        assert str(raised.value) == "a stop string is empty; expected at least one character"


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("abc", ["abc", "b"], ""),  # "abc" begins first, though "b" ends first
        ("abd", ["abc", "b"], "a"),
        ("ab", ["abc", "b"], "a"),
        ("aab", ["ab"], "a"),
        ("云开 ", [" "], "云开"),
        ("ab", ["abc"], "ab"),
    ],
)
def test_literal_cases(text: str, stop: list[str], expected: str) -> None:
    assert "".join(until(text, stop)) == expected
    assert "".join(until([text], stop)) == expected
