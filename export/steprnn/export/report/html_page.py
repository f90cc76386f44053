"""report.html: one page without network or scripts, for people."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from steprnn.runtime.parity.findings import Finding, Label, Level, Verdict, overall

from .plots import BAND, colour, pictures
from .table import COLUMNS, HEADS, candidates_in, cell, said
from .variants import Variant

STYLE = """
:root { color-scheme: light; --line: #ddd; --good: #00694e; --bad: #b3261e; --soft: #666; --void: #8a5a00; }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, "DejaVu Sans", "Noto Sans CJK SC", sans-serif; color: #1b1b1b;
  margin: 0 auto; max-width: 1240px; padding: 20px; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
header { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; }
.verdict { font-weight: 700; color: #fff; padding: .15rem .7rem; border-radius: 4px; }
.verdict.good { background: var(--good); } .verdict.bad { background: var(--bad); }
.verdict.void { background: var(--void); }
td .good, td .bad, td .void { white-space: nowrap; }
td .good, p .good { color: var(--good); } td .bad, p .bad { color: var(--bad); font-weight: 700; }
td .void, p .void { color: var(--void); font-weight: 700; }
.soft { color: var(--soft); } p { margin: .4rem 0; max-width: 80ch; }
.breach { border-left: 4px solid var(--bad); background: #fdf1f0; padding: .5rem 1rem; margin: .6rem 0; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { overflow-wrap: normal; font-weight: 600; color: var(--soft); font-size: .87rem; }
td { font-variant-numeric: tabular-nums; }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .4em; }
.plots { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem 2rem; align-items: start; }
figure { margin: 0; } figcaption { font-size: .87rem; color: var(--soft); }
svg { width: 100%; height: auto; display: block; }
svg text { font-family: "DejaVu Sans", Verdana, sans-serif; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; }
summary { cursor: pointer; }
@media (max-width: 720px) {
  body { padding: 12px; } .plots { grid-template-columns: minmax(0, 1fr); }
  thead { display: none; }
  tr { display: grid; grid-template-columns: 1fr 1fr; column-gap: 1.2rem; padding: .5rem 0;
    border-bottom: 1px solid var(--line); }
  td { display: flex; justify-content: space-between; gap: .5rem; border: 0; padding: 0; font-size: .87rem;
    text-align: right; }
  td::before { content: attr(data-of); color: var(--soft); text-align: left; }
  td:first-child { grid-column: 1 / -1; font-weight: 600; font-size: 1rem; text-align: left; }
  td:first-child::before { content: none; }
  .wide td { grid-column: 1 / -1; }
  td:empty { display: none; }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; }
}
"""

TINTS = {Verdict.PASSED: "good", Verdict.VOID: "void", Verdict.FAILED: "bad"}


def html_page(
    findings: Sequence[Finding], variants: Sequence[Variant], name: str, conditions: dict[str, Any]
) -> str:
    """The whole page."""
    failed = [f for f in findings if f.verdict is Verdict.FAILED]
    void = [f for f in findings if f.void]
    verdict = str(overall(findings)).upper()
    counted = ((failed, "failed"), (void, "cannot tell"))
    told = [f"{len(some)} of {len(findings)} checks {words}." for some, words in counted if some]
    said = " ".join(told) or f"All {len(findings)} checks passed."
    parts = [
        f"<header><h1>{escape(name)}</h1>"
        f'<span class="verdict {TINTS[overall(findings)]}">{verdict}</span><span>{said}</span></header>',
        _choice(findings, variants),
        *(_breach(f) for f in [*failed, *void][:8]),
        f"<p>{len(failed + void) - 8} more are in the list below.</p>" if len(failed + void) > 8 else "",
        _verdicts(findings),
        '<p class="soft">u, a unit: the largest error of TensorFlow’s own float32 step against the same step '
        f"in float64. A float32 artefact may be {BAND:g} u off.</p>",
        "<h2>Pictures</h2>",
        f'<div class="plots">{"".join(map(_plot, pictures(findings, variants)))}</div>',
        _sensitivity(findings),
        "<h2>Conditions</h2>",
        _conditions(conditions),
        _all(findings),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}: {verdict}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _breach(finding: Finding) -> str:
    """A failure in words: which artefact, level, tensor, step, seed, got, expected, how many units."""
    where = f"{escape(str(finding.candidate))}, {escape(finding.title)}"
    return f'<div class="breach"><strong>{where}</strong><br>{escape(finding.failure)}</div>'


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]], style: str = "") -> str:
    """A table that becomes a list of cards where it is narrow; cells are HTML already."""
    heads = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join(
        "<tr>"
        + "".join(f'<td data-of="{escape(h)}">{c}</td>' for h, c in zip(head, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<table class="{style}"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'


def _dot(findings: Sequence[Finding], candidate: Label) -> str:
    tint = colour(findings, candidate)
    return f'<span><span class="dot" style="background:{tint}"></span>{escape(str(candidate))}</span>'


ANSWERS = {
    Verdict.PASSED: "may be shipped",
    Verdict.VOID: "cannot be told",
    Verdict.FAILED: "must not be shipped",
}


def _choice(findings: Sequence[Finding], variants: Sequence[Variant]) -> str:
    """Which artefact may be shipped, and what each costs."""
    candidates = candidates_in(findings)
    says = {candidate: said(findings, candidate) for candidate in candidates}
    heads = [head for head in HEADS if any(head in own for own in says.values())]
    measured = {str(v.label): v for v in variants}
    rows = []
    for candidate in candidates:
        verdict = overall(f for f in findings if f.candidate == candidate)
        one = measured.get(str(candidate))
        size = f"{one.bytes:,}" if one and one.bytes is not None else ""
        speed = f"{one.microseconds:,.1f}" if one and one.microseconds is not None else ""
        answer = f'<span class="{TINTS[verdict]}">{ANSWERS[verdict]}</span>'
        costs = [says[candidate].get(head, "") for head in heads]
        rows.append([_dot(findings, candidate), answer, size, speed, *costs])
    return _rows(["artefact", "", "bytes", "us a step", *heads], rows) if rows else ""


def _verdicts(findings: Sequence[Finding]) -> str:
    levels = [c for c in COLUMNS if any(f.level == c for f in findings)]
    rows = []
    for candidate in candidates_in(findings):
        cells = []
        for level in levels:
            words, verdict = cell(findings, candidate, level)
            tint = "" if verdict is Verdict.PASSED else TINTS[verdict]
            cells.append(f'<span class="{tint}">{escape(words)}</span>' if words else "")
        verdict = overall(f for f in findings if f.candidate == candidate)
        rows.append(
            [
                _dot(findings, candidate),
                *cells,
                _verdict(verdict),
            ]
        )
    others = "; ".join(
        f"{escape(str(f.candidate))}, {escape(str(f.level))}: {escape(f.summary)} {_verdict(f.verdict)}"
        for f in findings
        if f.candidate not in candidates_in(findings)
    )
    return "<h2>Levels</h2>" + _rows(["", *map(str, levels), "verdict"], rows) + f"<p>{others}</p>"


def _verdict(verdict: Verdict) -> str:
    return f'<span class="{TINTS[verdict]}">{verdict}</span>'


def _plot(picture: tuple[str, str]) -> str:
    caption, svg = picture
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _sensitivity(findings: Sequence[Finding]) -> str:
    """Each mistake against each candidate: how far it is off, and whether it was rejected."""
    mutants = [f for f in findings if f.level is Level.SENSITIVITY]
    if not mutants:
        return ""
    candidates = [c for c in candidates_in(findings) if any(f.candidate == c for f in mutants)]
    rows = []
    for mistake in dict.fromkeys(f.case for f in mutants):
        cells = [escape(mistake)]
        for candidate in candidates:
            found = [f for f in mutants if (f.case, f.candidate) == (mistake, candidate)]
            tint = TINTS[found[0].verdict] if found else ""
            told = "rejected" if found and found[0].passed else "not rejected"
            words = f'{escape(found[0].summary)} <span class="{tint}">{told}</span>' if found else ""
            cells.append(f"<span>{words}</span>" if words else "")
        rows.append(cells)
    return (
        "<h2>Sensitivity</h2><p>The same judgement on artefacts with a known mistake. Where one is "
        "not rejected, the check cannot tell the artefact from one that makes it.</p>"
        + _rows(["mistake", *map(str, candidates)], rows, "wide")
    )


def _conditions(conditions: dict[str, Any]) -> str:
    items = []
    for key, value in conditions.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        elif isinstance(value, list):
            value = " ".join(map(str, value))
        items.append(f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(str(value))}</dd>")
    return f"<dl>{''.join(items)}</dl>"


def _all(findings: Sequence[Finding]) -> str:
    rows = [
        [escape(str(f.candidate)), escape(f.title), escape(f.summary), _verdict(f.verdict), escape(f.failure)]
        for f in findings
    ]
    table = _rows(["artefact", "level", "found", "verdict", "in words"], rows, "wide")
    return f"<h2>Everything</h2><details><summary>All {len(findings)} checks</summary>{table}</details>"
