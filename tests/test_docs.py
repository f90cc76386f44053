"""The paths that the documents name are there, and no module has grown beyond what one reads at once."""

from __future__ import annotations

import importlib.util
import re
import subprocess
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
READMES = ("README.md", "README.zh-CN.md")
LONGEST_README = 170  # lines: what a stranger reads in three minutes
# What a reader copies: code blocks, and commands that stand in a table. Comments are in the page's language.
BLOCK = re.compile(r"^```\w+\n.*?^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"`((?:steprnn|make|pip) [^`]+)`")
COMMENT = re.compile(r" *#.*$", re.MULTILINE)


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


@pytest.mark.parametrize("name", READMES)
def test_a_readme_is_read_in_three_minutes(name: str) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= LONGEST_README


def blocks(text: str) -> list[str]:
    """The code of a document, in order, without comments."""
    return [COMMENT.sub("", block) for block in BLOCK.findall(text)]


def tables(text: str) -> list[str]:
    """Its measured tables."""
    return re.findall(r"<!-- table: .*?<!-- /table -->", text, re.DOTALL)


def test_both_readmes_have_the_same_commands_and_figures() -> None:
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in READMES)
    assert len(blocks(english)) > 5
    assert blocks(chinese) == blocks(english)
    assert COMMAND.findall(chinese) == COMMAND.findall(english) != []
    assert tables(chinese) == tables(english) != []
    figures = re.compile(r"[\d.,]*\d (?:[MG]B)\b")
    assert figures.findall(chinese) == figures.findall(english) != []


@pytest.mark.parametrize("page", ["flow", "training", "embedding"])
def test_chinese_pages_have_the_code_of_the_english(page: str) -> None:
    english, chinese = (
        (ROOT / "docs" / folder / f"{page}.md").read_text(encoding="utf-8") for folder in ("", "zh")
    )
    assert blocks(chinese) == blocks(english) != []


def test_every_tutorial_is_a_journey_that_can_be_run() -> None:
    """`python tests/journeys/run.py` runs them, in a clean clone; here they are only read."""
    spec = importlib.util.spec_from_file_location("journeys", ROOT / "tests" / "journeys" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    journeys = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(journeys)
    assert {path.stem for path in journeys.TUTORIALS.glob("*.md")} == {*journeys.ORDER}
    for name in journeys.ORDER:
        text = (journeys.TUTORIALS / f"{name}.md").read_text(encoding="utf-8")
        script = journeys.script(text)
        assert len(re.findall(r"^printf", script, re.MULTILINE)) > 2
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)
        for program in re.findall(r"<<'PROGRAM'\n(.*?)PROGRAM", script, re.DOTALL):
            compile(program, name, "exec")


def test_no_module_is_longer_than_one_reads_at_once() -> None:
    modules = [path for root in ("train", "export", "runtime") for path in (ROOT / root).rglob("*.py")]
    assert len(modules) > 100
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules}
    assert {name: n for name, n in lengths.items() if n > LONGEST} == {}
