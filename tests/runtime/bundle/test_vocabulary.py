"""Characters to token indices and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steprnn.runtime import BundleError, UnknownToken, UsageError, Vocabulary
from steprnn.runtime.origin import upgrade

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(texts)
def test_decoding_undoes_encoding(text: str) -> None:
    vocabulary = Vocabulary.of(text)
    indices = vocabulary.encode(text)
    assert vocabulary.decode(indices) == text
    assert set(indices) == set(range(len(vocabulary)))


@given(texts, st.randoms())
def test_equal_characters_give_equal_indices_whatever_their_order(text: str, random: object) -> None:
    shuffled = list(text)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert Vocabulary.of(shuffled) == Vocabulary.of(text)
    assert list(Vocabulary.of(text).tokens) == sorted(set(text))


@given(texts, texts)
def test_skip_leaves_out_what_is_unknown_and_nothing_else(known: str, text: str) -> None:
    vocabulary = Vocabulary.of(known)
    kept = vocabulary.decode(vocabulary.encode(text, unknown="skip"))
    assert kept == "".join(c for c in text if c in known)


@given(st.binary(max_size=40), st.integers(1, 9))
def test_bytes_come_as_the_text_that_they_are(data: bytes, characters: int) -> None:
    """Whole characters as they come, and what is none as Python's own decoder tells it."""
    vocabulary = Vocabulary.of_bytes()
    text = data.decode("utf-8", "replace")
    assert vocabulary.decode(data) == text
    joiner = vocabulary.joiner()
    pieces = [joiner.push(byte) for byte in data]
    assert "".join(pieces) + joiner.close() == text
    assert [*vocabulary.pieces(data)] == [piece for piece in (*pieces, text[len("".join(pieces)) :]) if piece]
    tail = vocabulary.tail(np.array([*data], np.int32), characters)
    assert "".join(pieces).endswith(tail)


@given(texts, st.integers(1, 9))
def test_bytes_write_every_text(text: str, characters: int) -> None:
    vocabulary = Vocabulary.of_bytes()
    indices = vocabulary.encode(text)
    assert indices == [*text.encode()]
    assert vocabulary.decode(indices) == text
    assert vocabulary.tail(np.array(indices, np.int32), characters)[-characters:] == text[-characters:]
    known = Vocabulary.of(text)
    assert known.tail(np.array(known.encode(text), np.int32), characters) == text[-characters:]


def test_half_a_surrogate_pair_is_no_text_for_bytes() -> None:
    vocabulary = Vocabulary.of_bytes()
    assert (len(vocabulary), vocabulary.tokens[0x41], vocabulary.tokens[0xE5]) == (256, "A", "bytes:\\xe5")
    with pytest.raises(UnknownToken, match=r"'\\ud800' not among the 256 characters of the vocabulary"):
        vocabulary.encode("a\ud800é")
    assert vocabulary.encode("a\ud800é", unknown="skip") == [97, 195, 169]


def test_a_file_of_bytes_has_no_tokens(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    Vocabulary.of_bytes().write(path)
    assert Vocabulary.read(path) == Vocabulary.of_bytes()
    record = {"format": "steprnn.vocabulary", "version": 1, "unit": "byte", "tokens": ["a"]}
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(BundleError, match="unit is 'byte', expected 'character', or 'byte' alone"):
        Vocabulary.read(path)


def test_unknown_characters_are_named_once_each_in_the_order_they_come() -> None:
    with pytest.raises(UnknownToken) as raised:
        Vocabulary.of("分开不").encode("我不爱我")
    assert str(raised.value) == (
        "'我' '爱' not among the 3 characters of the vocabulary; "
        "choose others, or skip them with unknown='skip'"
    )


def test_no_more_than_ten_unknown_characters_are_named() -> None:
    with pytest.raises(
        UnknownToken, match=r"'a' 'b' 'c' 'd' 'e' 'f' 'g' 'h' 'i' 'j' \.\.\. not among the 1 "
    ):
        Vocabulary.of("z").encode("abcdefghijkl")


@pytest.mark.parametrize("indices", [[0, 300], [1.0], "ab", None, 5])
@pytest.mark.parametrize("vocabulary", [Vocabulary.of("分开"), Vocabulary.of_bytes()])
def test_a_token_that_is_none_is_refused(vocabulary: Vocabulary, indices: Any) -> None:
    with pytest.raises(UsageError) as raised:
        vocabulary.decode(indices)
    assert str(raised.value).startswith("there is a token that is none (")
    assert str(raised.value).endswith(f"); expected whole numbers from 0 to {len(vocabulary) - 1}")


def test_another_way_with_unknown_characters_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown is 'ignore'; expected 'error' or 'skip'"):
        Vocabulary.of("a").encode("a", unknown="ignore")


@given(texts)
def test_the_file_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("vocabulary") / "vocabulary.json"
    Vocabulary.of(text).write(path)
    assert Vocabulary.read(path) == Vocabulary.of(text)


def test_the_file_is_literally_this(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    Vocabulary.of("开分").write(path)
    assert path.read_bytes().decode() == (
        '{\n"format": "steprnn.vocabulary",\n"version": 1,\n"unit": "character",\n'
        '"tokens": [\n"分",\n"开"\n]\n}\n'
    )


GOOD = {"format": "steprnn.vocabulary", "version": 1, "unit": "character", "tokens": ["分", "开"]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", 'is not a vocabulary: expected "format": "steprnn.vocabulary"'),
        (json.dumps(GOOD | {"format": "other"}), "is not a vocabulary"),
        (
            json.dumps(GOOD | {"version": 2}),
            f"has format version 2 and this steprnn reads 1; {upgrade()}",
        ),
        (json.dumps(GOOD | {"tokens": []}), "tokens must be a list of characters"),
        (json.dumps(GOOD | {"tokens": ["分", 3]}), "tokens must be a list of characters"),
        (json.dumps(GOOD | {"tokens": ["分", ""]}), "tokens must be a list of characters"),
        (json.dumps(GOOD | {"tokens": "分开"}), "tokens must be a list of characters"),
        (json.dumps(GOOD | {"tokens": ["分", "分"]}), "a character stands twice among the tokens"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "vocabulary.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BundleError) as raised:
        Vocabulary.read(path)
    assert words in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_file_that_is_not_utf_8_and_a_missing_one_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    with pytest.raises(BundleError, match=r"vocabulary\.json is missing; copy the whole folder again"):
        Vocabulary.read(path)
    path.write_bytes(json.dumps(GOOD, ensure_ascii=False).encode("gbk"))
    with pytest.raises(BundleError, match=r"vocabulary\.json is not JSON"):
        Vocabulary.read(path)
