"""The picture of `benchmarks/sizes.py`: three panels of lines, with their floors below them."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
from cost import Cost, Size

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

# On light, which is drawn, and on dark. Blue and orange differ for every eye.
COLOURS = {
    "page": ("#ffffff", "#161b22"),
    "ink": ("#1d2733", "#e6ebf1"),
    "line": ("#d5dbe3", "#333d4a"),
    "litert": ("#1f6fb8", "#6cb2f0"),
    "onnx": ("#c2570c", "#f5a15a"),
}
LIGHT = {name: light for name, (light, _) in COLOURS.items()}
DRAWN_WITH = "DejaVu Sans"  # comes with matplotlib, and is wide: other fonts need no more room
SHOWN_WITH = "system-ui, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif"
PANELS = {"hidden": "hidden units", "layers": "layers", "vocabulary": "vocabulary"}
STYLES = {"float32": ("-", "o"), "int8": ("--", "s")}
FLOORS: dict[str, Any] = {"float32": ":", "int8": (0, (4, 1.5, 1, 1.5))}
NAMES = {"litert": "LiteRT", "onnx": "onnxruntime"}


def draw(costs: list[Cost], book: Size) -> str:
    """The SVG, whose colours follow the reader's preference; the panels have the size `book` in common."""
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "steprnn",  # the same file from the same figures
        "font.family": DRAWN_WITH,
        "font.size": 10,
        "text.color": LIGHT["ink"],
        "axes.labelcolor": LIGHT["ink"],
        "axes.edgecolor": LIGHT["line"],
        "axes.facecolor": LIGHT["page"],
        "figure.facecolor": LIGHT["page"],
        "xtick.color": LIGHT["ink"],
        "ytick.color": LIGHT["ink"],
        "grid.color": LIGHT["line"],
    }
    with matplotlib.rc_context(style):
        figure, axes = pyplot.subplots(1, 3, figsize=(9.6, 4.1), sharey=True, layout="constrained")
        for axis, (along, label) in zip(axes, PANELS.items(), strict=True):
            _panel(axis, costs, along, book)
            axis.set_xlabel(label)
        axes[0].set_ylabel("microseconds a step")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside upper center",
            ncols=6,
            frameon=False,
            columnspacing=1.2,
            handlelength=1.8,
        )
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    return _coloured(buffer.getvalue(), book)


def _panel(axis: Any, costs: list[Cost], along: str, book: Size) -> None:
    others = [name for name in PANELS if name != along]
    here = [c for c in costs if all(getattr(c.size, n) == getattr(book, n) for n in others)]
    here.sort(key=lambda cost: getattr(cost.size, along))
    for engine, name in NAMES.items():
        for variant, (line, marker) in STYLES.items():
            of = [c for c in here if (c.engine, c.variant) == (engine, variant)]
            x = [getattr(c.size, along) for c in of]
            look = {"color": LIGHT[engine], "linestyle": line, "marker": marker, "markersize": 5}
            axis.plot(x, [c.us.median for c in of], label=f"{name} {variant}", **look)
    for variant, line in FLOORS.items():  # of both engines nearly the same
        of = [c for c in here if (c.engine, c.variant) == ("litert", variant)]
        look = {"color": LIGHT["ink"], "linestyle": line, "linewidth": 1.3}
        x = [getattr(c.size, along) for c in of]
        axis.plot(x, [c.floor_us for c in of], label=f"floor {variant}", **look)
    ticks = sorted({getattr(c.size, along) for c in here})
    if along != "layers":
        axis.set_xscale("log")
    axis.set_yscale("log")
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.grid(visible=True, which="major", linewidth=0.8)
    axis.tick_params(length=0, which="both")
    axis.spines[["top", "right"]].set_visible(False)


def _coloured(svg: str, book: Size) -> str:
    """With the reader's font, and other colours on dark; a viewer without style sheets shows the light."""
    svg = svg.replace(f"'{DRAWN_WITH}'", SHOWN_WITH)
    rules = " ".join(
        f"[style*='{part}: {light}'] {{ {part}: {dark} !important }}"
        for light, dark in COLOURS.values()
        for part in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark) {{ {rules} }}</style>"
    title = "<title>What a step costs</title>"
    title += (
        "<desc>Microseconds a step against hidden units, layers and vocabulary, the others being "
        f"{book.hidden} units, {book.layers} layer and {book.vocabulary:,} characters, for LiteRT and "
        "onnxruntime in float32 and int8, with the time to read the weights once.</desc>"
    )
    return re.sub(r"(<svg [^>]*>)", lambda match: f"{match[1]}\n{title}\n{style}", svg, count=1)
