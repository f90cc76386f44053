"""The documents become the pages of a site; `make site` builds it, with warnings as errors."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

import steprnn.export
import steprnn.runtime
import steprnn.train

ROOT = Path(__file__).parents[1]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Any:
    """docs/site/stage.py, which is a program and in no package."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "site")
    return importlib.import_module("stage")


def test_every_page_of_the_menu_is_laid_out_and_every_link_leads_to_one(stage: Any, tmp_path: Path) -> None:
    stage.stage(tmp_path)
    menu = re.findall(r'"([\w/-]+\.md)"', (ROOT / "docs" / "site" / "zensical.toml").read_text("utf-8"))
    assert len(menu) > 20
    assert [page for page in menu if not (tmp_path / page).is_file()] == []
    links = 0
    for page in tmp_path.rglob("*.md"):
        for _, link, _ in stage.LINK.findall(page.read_text(encoding="utf-8")):
            if not stage.OUTSIDE.match(link):
                assert (page.parent / link).is_file(), f"{page}: {link}"
                links += 1
    assert links > 100


def test_the_reference_has_every_public_name(stage: Any, tmp_path: Path) -> None:
    for package in (steprnn.runtime, steprnn.export, steprnn.train):
        entries = re.findall(r"^::: (\S+)$", stage.reference(package.__name__), re.MULTILINE)
        assert sorted(entries) == sorted(f"{package.__name__}.{name}" for name in package.__all__)


def test_a_link_that_is_no_page_is_told(stage: Any) -> None:
    source = Path("docs/flow.md")
    text = stage.linked("[a](../README.md#install)", source, Path("flow.md"), stage.pages())
    assert text == "[a](index.md#install)"
    with pytest.raises(stage.SiteError, match=r"docs/flow\.md links to \.\./Makefile, which is no page"):
        stage.linked("[a](../Makefile)", source, Path("flow.md"), stage.pages())


def test_versions_stand_beside_each_other_and_the_newest_is_latest(stage: Any, tmp_path: Path) -> None:
    versions = importlib.import_module("versions")
    sites = tmp_path / "sites"

    def add(name: str, words: str = "") -> None:
        html = tmp_path / f"html-{name}{words}"
        html.mkdir()
        (html / "index.html").write_text(name + words)
        sites.mkdir(exist_ok=True)
        versions.add(html, name, sites)

    for name in ("0.9", "0.10", "0.8"):
        add(name)
    (sites / "0.9" / "old.html").touch()
    add("0.9", ", again")
    pages = {str(path.relative_to(sites)): path.read_text() for path in sites.glob("*/*")}
    told = {"0.8": "0.8", "0.9": "0.9, again", "0.10": "0.10", "latest": "0.10"}
    assert pages == {f"{name}/index.html": text for name, text in told.items()}
    assert 'url=latest/"' in (sites / "index.html").read_text()
    assert [(v["version"], v["aliases"]) for v in json.loads((sites / "versions.json").read_text())] == [
        ("0.10", ["latest"]),
        ("0.9", []),
        ("0.8", []),
    ]


def test_a_chinese_word_is_found_within_a_sentence() -> None:
    """The search knows words by what separates them, and Chinese has no spaces: its characters are words."""
    settings = (ROOT / "docs" / "site" / "zensical.toml").read_text("utf-8")
    (separator,) = re.findall(r"^separator = '(.*)'$", settings, re.MULTILINE)
    found = [word for word in re.split(separator, "跑的都是采样器，top_k 0.5") if word]
    assert found == [*"跑的都是采样器", "top", "k", "0.5"]
