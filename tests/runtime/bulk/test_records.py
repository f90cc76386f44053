"""Records of lines, and lines of JSON of records."""

from __future__ import annotations

import datetime
import decimal
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steprnn.runtime import UsageError
from steprnn.runtime.bulk.records import Record, digits, of_csv, of_json, of_text, to_json

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\ufeff"))


@given(
    texts=st.lists(TEXT), ends=st.sampled_from([b"\n", b"\r\n"]), mark=st.sampled_from([b"", b"\xef\xbb\xbf"])
)
def test_lines_of_text(texts: list[str], ends: bytes, mark: bytes) -> None:
    data = mark + b"".join(text.encode() + ends for text in texts)
    assert [*of_text(io.BytesIO(data), "t")] == [Record({"t": text}) for text in texts]


def test_a_csv_file_has_texts_as_they_are() -> None:
    data = '\ufeffid,text\r\n007,"分,""开""\n雨"\r\n\r\n,\r\n1\r\n1,2,3\r\n'.encode()
    assert [*of_csv(io.BytesIO(data), "text")] == [
        Record({"id": "007", "text": '分,"开"\n雨'}),
        Record({"id": "", "text": ""}),
        Record({"id": "1"}, "the row has 1 fields, expected 2"),
        Record({"id": "1", "text": "2"}, "the row has 3 fields, expected 2"),
    ]
    with pytest.raises(UsageError, match="a column stands twice in the header"):
        [*of_csv(io.BytesIO(b"a,a\n1,2\n"), "a")]
    with pytest.raises(UsageError, match="line 3 is not CSV"):
        [*of_csv(io.BytesIO(b"a\n1\n\xff\n"), "a")]
    with pytest.raises(UsageError, match="line 2 is not CSV"):
        [*of_csv(io.BytesIO(b'a\n"1"2\n'), "a")]
    long = "分" * 200_000
    assert next(of_csv(io.BytesIO(f"a\n{long}\n".encode()), "a")).fields == {"a": long}


def test_deep_json_is_an_error_of_its_row() -> None:
    found = [*of_json(io.BytesIO(b"[" * 100_000 + b"\n" + b'"a"\n'), "t")]
    assert [record.error is None for record in found] == [False, True]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ('分"\n', '"分\\"\\n"'),
        ("\ud800", '"\\ud800"'),
        (float("nan"), "null"),
        ([1.5, float("inf"), {"a": -float("inf")}], '[1.5, null, {"a": null}]'),
        (datetime.date(2026, 1, 2), '"2026-01-02"'),
        (decimal.Decimal("1.10"), '"1.10"'),
        (None, "null"),
    ],
)
def test_a_line_of_json(value: Any, written: str) -> None:
    line = to_json({"v": value})
    assert line == f'{{"v": {written}}}\n'.encode()
    json.loads(line)


def test_json_has_no_word_for_bytes() -> None:
    with pytest.raises(TypeError, match="JSON has no word for a bytes"):
        to_json({"v": b"1"})


@given(value=st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_nine_digits_are_enough(value: float) -> None:
    (short,) = digits([value])
    assert np.float32(short) == np.float32(value)
