"""Tables between the markers of a Markdown file: `<!-- table: NAME -->` and `<!-- /table -->`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path


def put(path: Path, tables: Mapping[str, Sequence[str]]) -> None:
    """Replace what stands between the markers of each table; raises KeyError where there are none."""
    text = path.read_text(encoding="utf-8")
    for name, lines in tables.items():
        marked = re.compile(rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- /table -->)", re.DOTALL)
        if not marked.search(text):
            raise KeyError(f"{path} has no marker <!-- table: {name} -->")
        body = "".join(f"{line}\n" for line in lines)
        text = marked.sub(partial(_between, body), text)
    path.write_text(text, encoding="utf-8")


def _between(body: str, match: re.Match[str]) -> str:
    return f"{match[1]}{body}{match[2]}"
