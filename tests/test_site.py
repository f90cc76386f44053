"""The documents become the pages of a site; `make site` builds it, with warnings as errors."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import steprnn.export
import steprnn.runtime
import steprnn.train

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def stage() -> Any:
    """docs/site/stage.py, which is a program and in no package."""
    spec = importlib.util.spec_from_file_location("stage", ROOT / "docs" / "site" / "stage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
