"""Lay the documents out as the site has them, and build it: `make site`.

The documents read well where they are, with links to the files beside them. The site has pages alone, so
that READMEs, examples and the like become pages here, links follow them, and what can be listed is: every
public name, every decision.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build" / "site"
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
OUTSIDE = re.compile(r"https?:|mailto:")
PROJECT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
PACKAGES = ("runtime", "runtime.streams", "runtime.bulk", "export", "train")
# What mkdocstrings logs is no error to zensical's own --strict.
WRONG = re.compile(r"^(?:WARNING|ERROR)\b|\bERROR\b", re.MULTILINE)


class SiteError(Exception):
    """A link that leads nowhere, or a build that is not clean."""


def pages() -> dict[Path, Path]:
    """Each document of the repository, and the page or file that it becomes."""
    found = {Path("README.md"): Path("index.md"), Path("README.zh-CN.md"): Path("zh/index.md")}
    for path in sorted((ROOT / "docs").rglob("*")):
        here = path.relative_to(ROOT / "docs")
        if path.is_file() and here.parts[0] != "site":
            found[Path("docs") / here] = here
    found |= {Path(name): Path("project") / name.lower() for name in PROJECT}
    found[Path("data/README.md")] = Path("corpora.md")
    for path in sorted((ROOT / "examples").glob("*.py")):
        found[path.relative_to(ROOT)] = Path("examples") / f"{path.stem}.md"
    found |= {
        path.relative_to(ROOT): Path("examples") / path.name for path in (ROOT / "examples").glob("*.ipynb")
    }
    return found


def stage(folder: Path) -> None:
    """Write all pages; raises `SiteError` for a link that leads nowhere."""
    found = pages()
    for source, target in found.items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            text = (ROOT / source).read_text(encoding="utf-8")
            (folder / target).write_text(linked(text, source, target, found), encoding="utf-8")
        elif source.suffix == ".py":
            text = (ROOT / source).read_text(encoding="utf-8")
            (folder / target).write_text(f"# {source.name}\n\n```python\n{text}```\n", encoding="utf-8")
        else:
            shutil.copyfile(ROOT / source, folder / target)
    write_list(folder / "examples", "Examples", [(p.stem, p.name) for p in (ROOT / "examples").glob("*.py")])
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    write_list(folder / "decisions", "Decisions", [(p.stem, title(p)) for p in decisions])
    tutorials = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
    write_list(folder / "tutorials", "Tutorials", [(p.stem, title(p)) for p in tutorials])
    (folder / "api").mkdir()
    for package in PACKAGES:
        (folder / "api" / f"{package}.md").write_text(reference(f"steprnn.{package}"), encoding="utf-8")


def linked(text: str, source: Path, target: Path, found: dict[Path, Path]) -> str:
    """A document with its links as they are between pages."""

    def follow(match: re.Match[str]) -> str:
        before, link, after = match.groups()
        if OUTSIDE.match(link):
            return match[0]
        named = Path(os.path.normpath(source.parent / link))
        there = found.get(named)
        if named in (Path("examples"), Path("docs/decisions"), Path("docs/tutorials")):
            there = Path(named.name) / "index.md"
        if there is None:
            raise SiteError(f"{source} links to {link}, which is no page")
        return f"{before}{Path(os.path.relpath(there, target.parent)).as_posix()}{after}"

    return LINK.sub(follow, text)


def title(path: Path) -> str:
    """The first heading of a document."""
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def write_list(folder: Path, heading: str, entries: list[tuple[str, str]]) -> None:
    """The page of a folder: a link to each page in it."""
    lines = [f"- [{words}]({stem}.md)" for stem, words in sorted(entries)]
    (folder / "index.md").write_text("\n".join([f"# {heading}", "", *lines, ""]), encoding="utf-8")


def reference(package: str) -> str:
    """The reference of a package: every public name, from its docstring."""
    names: list[str] = sorted(importlib.import_module(package).__all__, key=str.lower)
    entries = [f"::: {package}.{name}\n" for name in names]
    return "\n".join([f"# {package}\n", *entries])


def public() -> Iterator[tuple[str, str]]:
    """Every public name, with the anchor that its entry has."""
    for package in PACKAGES:
        for name in importlib.import_module(f"steprnn.{package}").__all__:
            yield package, f"steprnn.{package}.{name}"


def build(more: str = "") -> Path:
    """Stage and build, with `more` after the settings; the folder of the pages.

    Raises `SiteError` for a warning, and where a public name is not in the reference.
    """
    shutil.rmtree(OUT, ignore_errors=True)
    stage(OUT / "pages")
    config = OUT / "zensical.toml"
    config.write_text(Path(__file__).with_name("zensical.toml").read_text("utf-8") + more, encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", config]
    built = subprocess.run(command, cwd=OUT, capture_output=True, text=True, check=False)
    said = built.stdout + built.stderr
    if built.returncode or WRONG.search(said):
        raise SiteError(said)
    for package, anchor in public():
        page = (OUT / "html" / "api" / package / "index.html").read_text(encoding="utf-8")
        if f'id="{anchor}"' not in page:
            raise SiteError(f"{anchor} is not in the reference")
    return OUT / "html"


def told(make: Callable[[], Path]) -> int:
    """Make a site, and print where it begins or what is wrong with it; the exit code."""
    try:
        folder = make()
    except SiteError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{folder / 'index.html'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(told(build))
