"""Tables in Markdown."""

from __future__ import annotations

from steprnn.runtime.markdown import table


def test_words_stand_on_the_left_and_numbers_on_the_right() -> None:
    assert table(["", "bytes"], [["a", "1"], ["b", "23"]]) == [
        "|  | bytes |",
        "| --- | ---: |",
        "| a | 1 |",
        "| b | 23 |",
    ]
    assert table(["a", "b", "c"], [], words=(0, 2))[1] == "| --- | ---: | --- |"
    assert table(["a", "b"], [], words=())[1] == "| ---: | ---: |"


def test_no_text_breaks_a_row() -> None:
    assert table(["text"], [["a|b\nc"]])[2:] == ["| a\\|b c |"]
