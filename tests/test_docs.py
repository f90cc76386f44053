"""The paths that the documents name are there, and no module has grown beyond what one reads at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "data").glob("*.md")])
# A path of the project: it begins with one of its folders.
PATH = re.compile(
    r"(?<![\w./-])(?:train|export|runtime|tests|docs|benchmarks|examples|data)/[\w./*-]*[\w*/](?![\w/])"
)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
LONGEST = 350  # lines


def named(text: str) -> set[str]:
    """The paths in a document's words and code; not in the output of a command, which names the user's."""
    return {
        path
        for path in PATH.findall(text)
        if path.startswith(("docs/", "tests/")) or "." in path or path[-1] == "/"
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_path_that_a_document_names_is_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    gone = [path for path in named(text) if not list(ROOT.glob(path.rstrip("/")))]
    gone += [link for link in LINK.findall(text) if not (document.parent / link).exists()]
    assert not gone


def test_the_paths_of_a_document_are_found() -> None:
    text = "`runtime/steprnn/runtime/errors.py` and export/steprnn/export/formats/, see docs/parity.md, http://a/docs/b"
    assert named(text) == {
        "runtime/steprnn/runtime/errors.py",
        "export/steprnn/export/formats/",
        "docs/parity.md",
    }


def test_no_module_is_longer_than_one_reads_at_once() -> None:
    modules = [path for root in ("train", "export", "runtime") for path in (ROOT / root).rglob("*.py")]
    assert len(modules) > 100
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in modules}
    assert {name: n for name, n in lengths.items() if n > LONGEST} == {}
