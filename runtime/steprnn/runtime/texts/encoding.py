"""What is said of a text that is not UTF-8."""

from __future__ import annotations

import codecs
from shlex import quote

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def not_utf8(name: str, data: bytes, at: int) -> str:
    """The message for a file whose bytes are none from `at` on, with the line that converts it."""
    utf_16 = data.startswith(UTF_16)
    found = "is UTF-16, expected UTF-8" if utf_16 else f"is not UTF-8, first at byte {at:,}"
    file = "FILE" if name == "stdin" else quote(name)
    return f"{name} {found}; run: iconv -f {'UTF-16' if utf_16 else 'ENCODING'} -t UTF-8 {file} > OTHER"
