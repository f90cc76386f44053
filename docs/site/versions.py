"""Put the site of this version beside those of older ones: `python docs/site/versions.py FOLDER`.

FOLDER then has the site in a folder of its version and once more in `latest`, a page that leads there, and
`versions.json`, which the menu of versions in each site reads. This is how mike lays versions out
(https://github.com/jimporter/mike), which itself needs MkDocs.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from stage import build, told

MENU = '\n[project.extra.version]\nprovider = "mike"\n'
LATEST = "latest"
DOOR = f'''<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>steprnn</title>
<meta http-equiv="refresh" content="0; url={LATEST}/">
<a href="{LATEST}/">steprnn</a>
</html>
'''


def add(html: Path, name: str, folder: Path) -> Path:
    """Put `html` into `folder` as version `name`, such as "0.1", where it replaces one; its place there."""
    listed = folder / "versions.json"
    known = json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else []
    names = sorted({name, *(entry["version"] for entry in known)}, key=in_order, reverse=True)
    for place in (name, LATEST)[: 1 + (name == names[0])]:
        shutil.rmtree(folder / place, ignore_errors=True)
        shutil.copytree(html, folder / place)
    entries = [{"version": n, "title": n, "aliases": [LATEST] if n == names[0] else []} for n in names]
    listed.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    (folder / "index.html").write_text(DOOR, encoding="utf-8")
    return folder / name


def in_order(name: str) -> list[int]:
    """A version by its numbers, so that 0.10 comes after 0.9."""
    return [int(number) for number in re.findall(r"\d+", name)]


def main() -> int:
    """Build, and put it there."""
    parser = argparse.ArgumentParser(description="Build the site, and put it beside those of older versions.")
    parser.add_argument("folder", type=Path, help="where the sites of all versions are, or will be")
    folder = parser.parse_args().folder
    name = ".".join(version("steprnn").split(".")[:2])
    return told(lambda: add(build(MENU), name, folder))


if __name__ == "__main__":
    sys.exit(main())
