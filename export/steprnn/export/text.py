"""A text to check on, from a file."""

from __future__ import annotations

from pathlib import Path

from steprnn.runtime.errors import CorpusError
from steprnn.runtime.texts.encoding import not_utf8


def read_text(path: Path) -> str:
    """The UTF-8 text of a file; raises `CorpusError` where it is missing or not UTF-8."""
    try:
        data = path.read_bytes()
        return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise CorpusError(f"{path} does not exist; expected a UTF-8 text file") from None
    except UnicodeDecodeError as error:
        raise CorpusError(not_utf8(str(path), data, error.start)) from None
