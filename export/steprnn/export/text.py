"""A text to check on, from a file."""

from __future__ import annotations

from pathlib import Path

from steprnn.runtime.errors import CorpusError


def read_text(path: Path) -> str:
    """The UTF-8 text of a file; raises `CorpusError` where it is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CorpusError(f"{path} does not exist; expected a UTF-8 text file") from None
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8, first at byte {error.start:,}; convert it first") from None
