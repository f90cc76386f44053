"""The pictures of a parity report, each a self-contained SVG."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("svg")
from matplotlib.figure import Figure

from steprnn.runtime.parity.findings import Finding, Label, Level
from steprnn.runtime.parity.profiles import PROFILES

from .table import candidates_in, main_run
from .variants import Variant

# Okabe and Ito's colours, which people of every colour vision tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "steprnn",  # the same findings give the same file
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.8,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "grid.color": "#e4e4e4",
}
WIDTH, HEIGHT = 5.2, 3.0  # inches: its letters can still be read at 360 pixels
LEAST = 1e-3  # what a logarithmic axis of units begins at
BAND = PROFILES["float32"].units or 0.0


def colour(findings: Sequence[Finding], candidate: Label) -> str:
    """The colour of a candidate, the same in every picture and table."""
    return COLOURS[candidates_in(findings).index(candidate) % len(COLOURS)]


def pictures(findings: Sequence[Finding], variants: Sequence[Variant]) -> list[tuple[str, str]]:
    """Every picture that the findings have figures for: its caption and its SVG."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # It measures text in a font without Chinese; the browser draws it in one that has it.
        warnings.filterwarnings("ignore", message="Glyph")
        made = [
            _tradeoff(findings, variants),
            *_errors(findings),
            _divergence(findings),
            _top(findings),
            _ranges(findings),
        ]
    return [picture for picture in made if picture is not None]


def _figure(rows: int = 1, columns: int = 1, height: float = HEIGHT) -> tuple[Figure, Any]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _svg(figure: Figure, label: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # One page holds them all, and their identifiers must not meet.
    prefix = re.sub(r"\W+", "-", label)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)


def _errors(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """Error over the steps, one picture for each kind of input."""
    made = []
    runs = [f for f in findings if f.level is Level.CHAINED and f.measures and f.measures.series]
    for kind in dict.fromkeys(f.case for f in runs):
        figure, ((axes,),) = _figure()
        axes.axhspan(LEAST, BAND, color="#009E73", alpha=0.10, lw=0)
        longest = 1
        for finding in (f for f in runs if f.case == kind):
            assert finding.measures is not None
            series = np.array(finding.measures.series, float)
            longest = max(longest, len(series))
            shown = np.clip(np.where(np.isfinite(series), series, 1e12), LEAST, 1e12)
            axes.plot(shown, color=colour(findings, finding.candidate), lw=0.9, alpha=0.9)
        axes.set_yscale("log")
        axes.set_ylim(bottom=LEAST * 10 if axes.get_ylim()[0] > LEAST * 10 else LEAST)
        axes.set_xlim(0, longest - 1 or 1)
        axes.text(
            1,
            BAND,
            f" {BAND:g}",
            va="center",
            color="#00694e",
            fontsize=8,
            transform=axes.get_yaxis_transform(),
        )
        axes.set_xlabel("step")
        axes.set_ylabel("largest error, units")
        axes.grid(axis="y")
        caption = f"Error at each step{f', {kind}' if kind else ''}. Green: what float32 may be off."
        made.append((caption, _svg(figure, f"error over steps {kind}")))
    return made


def _divergence(findings: Sequence[Finding]) -> tuple[str, str] | None:
    """How the KL divergence of the steps is distributed on the input in use."""
    runs = [run for c in candidates_in(findings) if (run := main_run(findings, c)) is not None]
    runs = [run for run in runs if run.measures and run.measures.kl]
    if not runs:
        return None
    figure, ((axes,),) = _figure()
    bins = np.logspace(-16, 2, 73)
    for run in runs:
        assert run.measures is not None
        kl = np.abs(np.nan_to_num(np.array(run.measures.kl), nan=1e2, posinf=1e2))
        shown, tint = np.clip(kl, 1.01e-16, 0.99e2), colour(findings, run.candidate)
        weights = np.full(len(shown), 100 / len(shown))
        axes.hist(shown, bins, weights=weights, histtype="stepfilled", color=tint, alpha=0.15)
        axes.hist(shown, bins, weights=weights, histtype="step", color=tint, lw=1.1)
    axes.set_xscale("log")
    axes.set_xlim(1e-16, 1e2)
    axes.set_xlabel("KL divergence of a step, nats")
    axes.set_ylabel("% of the steps")
    return "KL divergence from the reference, teacher-forced.", _svg(figure, "KL histogram")


def _bars(axes: Any, names: list[str], values: list[float], tints: list[str], words: list[str]) -> None:
    """Horizontal bars with their value in words; a value that is not known has no bar."""
    places = np.arange(len(names))[::-1]
    left = axes.get_xlim()[0]
    axes.barh(places, np.nan_to_num(np.array(values)) - left, left=left, height=0.62, color=tints)
    for place, value, word in zip(places, values, words, strict=True):
        end = value if np.isfinite(value) else left
        axes.annotate(word, (end, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(places, names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(names) - 0.4)


def _top(findings: Sequence[Finding]) -> tuple[str, str] | None:
    """Same-top-1 on the input in use."""
    runs = [run for c in candidates_in(findings) if (run := main_run(findings, c)) is not None]
    found = [(r.candidate, r.measures.same_top_1) for r in runs if r.measures]
    shares = [(c, 100 * s) for c, s in found if s is not None]
    if not shares:
        return None
    figure, ((axes,),) = _figure(height=0.9 + 0.3 * len(shares))
    least = min(s for _, s in shares)
    low = next(x for x in (99.0, 95.0, 90.0, 50.0, 0.0) if least >= x or x == 0)
    axes.set_xlim(low, 100 + (100 - low) * 0.22)
    names = [c.artefact for c, _ in shares]
    tints = [colour(findings, c) for c, _ in shares]
    _bars(axes, names, [s for _, s in shares], tints, [f"{s:.2f}" for _, s in shares])
    axes.set_xticks(np.linspace(low, 100, 3))
    axes.set_xlabel("steps with the same likeliest token, %")
    return f"Same-top-1, from {low:g} % on.", _svg(figure, "same-top-1")


def _ranges(findings: Sequence[Finding]) -> tuple[str, str] | None:
    """What each state reached, on each kind of input."""
    first = next((f for f in findings if f.level is Level.CHAINED and f.measures and f.measures.ranges), None)
    if first is None:
        return None
    runs = [f for f in findings if f.level is Level.CHAINED and f.candidate == first.candidate and f.measures]
    rows = [
        (f"{state}, {f.case}" if f.case else state, *f.measures.ranges[state])
        for state in first.measures.ranges  # type: ignore[union-attr]
        for f in runs
        if f.measures and state in f.measures.ranges
    ]
    figure, ((axes,),) = _figure(height=0.9 + 0.26 * len(rows))
    places = np.arange(len(rows))[::-1]
    ends = np.nan_to_num(np.array([row[1:] for row in rows], float), posinf=1e9, neginf=-1e9)
    axes.barh(places, ends[:, 1] - ends[:, 0], left=ends[:, 0], height=0.55, color="#777777")
    for place, (low, high) in zip(places, ends, strict=True):
        axes.annotate(
            f"{low:.3g} to {high:.3g}",
            (high, place),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    if np.abs(ends).max() > 20:
        axes.set_xscale("symlog", linthresh=1.0)
    axes.set_xticks([0])
    axes.set_yticks(places, [row[0] for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.3)
    axes.axvline(0, color="#888888", lw=0.8)
    axes.spines["left"].set_visible(False)
    return f"What the states reached ({first.candidate}).", _svg(figure, "state ranges")


def _tradeoff(findings: Sequence[Finding], variants: Sequence[Variant]) -> tuple[str, str] | None:
    """Size, speed and quality of all variants, side by side."""
    if not variants:
        return None
    figure, (panels,) = _figure(1, 3, height=1.0 + 0.32 * len(variants))
    names = [v.label.artefact for v in variants]
    tints = [colour(findings, v.label) for v in variants]
    quality = [_quality(main_run(findings, v.label)) for v in variants]
    called = next((name for name, _ in quality if name), "quality")
    columns = (
        ("kB", [(v.bytes or np.nan) / 1e3 for v in variants], "{:,.3g}"),
        ("us a step", [v.microseconds or np.nan for v in variants], "{:,.3g}"),
        (called, [value for _, value in quality], "{:.0e}"),
    )
    for axes, (title, values, template) in zip(panels, columns, strict=True):
        known = [v for v in values if np.isfinite(v) and v > 0] or [1.0]
        axes.set_xscale("log")
        low, high = np.log10(min(known)), np.log10(max(known))
        span = max(high - low, 1.0)
        axes.set_xlim(10 ** (low - 0.25 * span), 10 ** (high + 0.75 * span))
        words = [
            "" if not np.isfinite(v) else (template if v < 1000 else "{:,.0f}").format(v) for v in values
        ]
        _bars(axes, names if axes is panels[0] else [""] * len(names), values, tints, words)
        axes.set_title(title, fontsize=9)
        axes.set_xticks([])
        axes.minorticks_off()
        axes.spines["bottom"].set_visible(False)
    caption = "Size, speed (batch 1, one thread, here) and quality; shorter is better, axes are logarithmic."
    return caption, _svg(figure, "size speed quality")


def _quality(run: Finding | None) -> tuple[str, float]:
    if run is None or run.measures is None:
        return "", np.nan
    if run.measures.mean_kl is not None:
        return "mean KL, nats", abs(run.measures.mean_kl) or 1e-17
    return "rms error / rms", max(run.measures.relative.values(), default=0.0) or 1e-17
