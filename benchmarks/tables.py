"""Tables between the markers of Markdown files: `<!-- table: NAME -->` and `<!-- /table -->`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path


def add_argument(parser: argparse.ArgumentParser) -> None:
    """The flag `--tables`, which every benchmark that makes one has."""
    told = "also write the tables into these Markdown files, between the markers of each"
    parser.add_argument("--tables", metavar="FILE", nargs="+", type=Path, default=[], help=told)


def put(paths: Sequence[Path], tables: Mapping[str, Sequence[str]]) -> None:
    """Replace each table where it stands in any of the files; raises KeyError where it stands in none."""
    if not paths:
        return
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    for name, lines in tables.items():
        marked = re.compile(rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- /table -->)", re.DOTALL)
        body = "".join(f"{line}\n" for line in lines)
        found = [path for path, text in texts.items() if marked.search(text)]
        if not found:
            raise KeyError(f"{', '.join(map(str, paths))}: no marker <!-- table: {name} -->")
        for path in found:
            texts[path] = marked.sub(partial(_between, body), texts[path])
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")


def _between(body: str, match: re.Match[str]) -> str:
    return f"{match[1]}{body}{match[2]}"
