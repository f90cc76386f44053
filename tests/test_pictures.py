"""The pictures in docs/: they have their colours in every viewer, also in one without style sheets."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
DRAWN = ("rect", "path", "text", "use", "circle", "line")
STYLE = re.compile(r"<style>.*?</style>", re.DOTALL)
# What benchmarks/sizes.py draws, from made-up figures.
DRAW = """
import sys
from cost import Cost, Size
from picture import draw
from steprnn.runtime.bench.rounds import Spread

kinds = [(engine, variant) for engine in ("litert", "onnx") for variant in ("float32", "int8")]
costs = [Cost(Size(hidden=n), *kind, n, 1.0, Spread(n, n, n)) for n in (128, 256) for kind in kinds]
sys.stdout.write(draw(costs, Size()))
"""


def colours(svg: str) -> set[str]:
    """How everything that is drawn is filled, by attributes alone; "" where nothing says, which is black."""
    found = set()

    def visit(element: ElementTree.Element, above: str) -> None:
        said = re.search(r"(?:^|;\s*)fill: ([^;]+)", element.get("style", ""))
        fill = said[1] if said else element.get("fill", above)
        tag = element.tag.rpartition("}")[2]
        if tag in DRAWN:
            found.add(fill)
        for child in element:
            if tag not in ("defs", "clipPath"):  # seen where they are used, in the colours of that place
                visit(child, fill)

    visit(ElementTree.fromstring(svg), "")
    return found


@pytest.mark.parametrize("name", ["flow.svg", "cost.svg"])
def test_colours_need_no_style_sheet(name: str) -> None:
    svg = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert "var(" not in svg
    assert "prefers-color-scheme: dark" in svg
    assert all(re.fullmatch(r"#[0-9a-f]{6}|none", colour) for colour in colours(svg)), colours(svg)


def test_the_picture_of_the_sizes_is_drawn_as_it_is_kept() -> None:
    pytest.importorskip("matplotlib")
    command = [sys.executable, "-c", DRAW]
    drawn = subprocess.run(
        command, cwd=ROOT / "benchmarks", capture_output=True, text=True, check=True
    ).stdout
    kept = (ROOT / "docs" / "cost.svg").read_text(encoding="utf-8")
    assert STYLE.findall(drawn) == STYLE.findall(kept)
    assert colours(drawn) == colours(kept)
