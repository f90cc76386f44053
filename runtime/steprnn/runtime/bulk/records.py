"""Records of a text each, from lines and to JSON lines."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError

BOM = b"\xef\xbb\xbf"
LONGEST = 2**27  # characters in a field of CSV


@dataclass(frozen=True)
class Record:
    """One row: its fields, and why they could not be read where they could not."""

    fields: dict[str, Any]
    error: str | None = None


def of_text(lines: Iterable[bytes], column: str) -> Iterator[Record]:
    """A record for each line of UTF-8: its text, without the line break."""
    for line in _decoded(lines):
        yield Record({column: line}) if isinstance(line, str) else Record({column: None}, str(line))


def of_json(lines: Iterable[bytes], column: str) -> Iterator[Record]:
    """A record for each line of JSON: an object, or a text alone."""
    for line in _decoded(lines):
        if isinstance(line, ValueError):
            yield Record({column: None}, str(line))
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Record({column: None}, f"the line is not JSON ({error})")
            continue
        if isinstance(value, str):
            yield Record({column: value})
        elif not isinstance(value, dict):
            yield Record({column: None}, "the line is neither an object of JSON nor a text of it")
        elif column not in value:
            held = ", ".join(map(repr, value)) or "none"
            yield Record(value, f"the object has no field {column!r}; it has {held}")
        else:
            yield Record(value)


def of_csv(lines: Iterable[bytes], column: str) -> Iterator[Record]:
    """A record for each row of a CSV file with a header; every field is text, as it is in the file.

    Raises `UsageError` where a quote is not closed as it should be, or a line is not UTF-8: where the next
    row begins is not known then.
    """
    csv.field_size_limit(LONGEST)
    rows = csv.reader(_csv_lines(lines), strict=True)
    try:
        names = next(rows, [])
        if names and column not in names:
            raise UsageError(f"the header has no column {column!r}; it has {', '.join(map(repr, names))}")
        if len(set(names)) != len(names):
            raise UsageError("a column stands twice in the header; rename one")
        for row in rows:
            if row:  # an empty line is no row
                fits = len(row) == len(names)
                words = None if fits else f"the row has {len(row)} fields, expected {len(names)}"
                yield Record(dict(zip(names, row, strict=False)), words)
    except (csv.Error, UnicodeDecodeError) as error:
        line = rows.line_num + isinstance(error, UnicodeDecodeError)  # which is not counted yet
        raise UsageError(f"line {line} is not CSV ({error})") from None


def _csv_lines(lines: Iterable[bytes]) -> Iterator[str]:
    for i, line in enumerate(lines):
        yield line.decode("utf-8-sig" if i == 0 else "utf-8")


def _decoded(lines: Iterable[bytes]) -> Iterator[str | ValueError]:
    for i, line in enumerate(lines):
        data = line.removeprefix(BOM) if i == 0 else line
        if not data:
            continue
        try:
            yield data.decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            yield ValueError(f"the line is not UTF-8 ({error.reason} at byte {error.start})")


def to_json(fields: dict[str, Any]) -> bytes:
    """A line of JSON, in which NaN and infinity are null, and a date is as ISO 8601 has it.

    Raises `TypeError` where JSON has no word for a value, such as bytes.
    """
    try:
        return _dumped(fields, ascii=False).encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, from an escape of JSON
        return _dumped(fields, ascii=True).encode()


def digits(vector: Iterable[float]) -> list[float]:
    """Numbers of float32 in as few digits as give the same again: nine."""
    return [float(f"{value:.9g}") for value in vector]


def _dumped(fields: dict[str, Any], ascii: bool) -> str:
    try:
        return json.dumps(fields, ensure_ascii=ascii, allow_nan=False, default=_in_words) + "\n"
    except ValueError:
        return json.dumps(_finite(fields), ensure_ascii=ascii, default=_in_words) + "\n"


def _in_words(value: object) -> str:
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    if type(value).__module__ in ("decimal", "uuid"):
        return str(value)
    raise TypeError(f"JSON has no word for a {type(value).__name__}")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
