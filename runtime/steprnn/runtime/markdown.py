"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: Collection[int] = (0,)) -> list[str]:
    """The lines of a table; the columns of words stand on the left, those of numbers on the right."""
    ruler = ["---" if column in words else "---:" for column in range(len(head))]
    return [_line(head), _line(ruler), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    """A text of a model may hold what ends a cell or a row."""
    return " ".join(text.splitlines()).replace("|", "\\|")
