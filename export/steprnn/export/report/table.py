"""Findings as a table that a person reads in ten seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from steprnn.runtime.parity.findings import BUNDLE, STEP, Finding, Label, Level, Verdict, overall

MARKS = {Verdict.PASSED: "", Verdict.VOID: " ?", Verdict.FAILED: " !"}
COLUMNS = tuple(level for level in Level if level is not Level.TRANSFORM)


def candidates_in(findings: Sequence[Finding]) -> list[Label]:
    """The artefacts that were judged, in order."""
    return [c for c in dict.fromkeys(f.candidate for f in findings) if c not in (STEP, BUNDLE)]


def cell(findings: Sequence[Finding], candidate: Label, level: Level) -> tuple[str, Verdict]:
    """The worst of a level in a few words, and the verdict on all of it."""
    found = [f for f in findings if f.candidate == candidate and f.level == level]
    if not found:
        return "", Verdict.PASSED
    if level is Level.SENSITIVITY:
        return f"{sum(f.passed for f in found)} of {len(found)}", overall(found)
    worst = max(found, key=lambda f: (not f.passed, f.measures.largest if f.measures else 0.0))
    return worst.summary, overall(found)


def main_run(findings: Sequence[Finding], candidate: Label) -> Finding | None:
    """The chained run on the input in use."""
    runs = (f for f in findings if f.candidate == candidate and f.level is Level.CHAINED and f.measures)
    return next(runs, None)


def table(findings: Sequence[Finding]) -> list[str]:
    """A row for each candidate, a column for each level; below it what belongs to none."""
    levels = [c for c in COLUMNS if any(f.level == c and f.candidate != BUNDLE for f in findings)]
    rows = [["", *map(str, levels), "same-top-1", "mean KL", "verdict"]]
    for candidate in candidates_in(findings):
        cells = []
        for level in levels:
            words, verdict = cell(findings, candidate, level)
            cells.append(words + MARKS[verdict])
        run = main_run(findings, candidate)
        top = run.measures.same_top_1 if run and run.measures else None
        kl = run.measures.mean_kl if run and run.measures else None
        cells += ["" if top is None else f"{top:.2%}", "" if kl is None else f"{abs(kl):.1e}"]
        verdict = overall(f for f in findings if f.candidate == candidate)
        rows.append([str(candidate), *cells, str(verdict)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    for f in findings:
        if f.candidate in (STEP, BUNDLE):
            told = "" if f.passed else f" {f.verdict}"
            lines.append(f"{f.candidate}, {f.level}: {f.summary}{told}")
    return lines


def told(candidate: Label, found: Sequence[Finding]) -> str:
    """One line when a candidate is through."""
    verdicts = Counter(f.verdict for f in found)
    bad = ", ".join(f"{verdicts[v]} {v}" for v in (Verdict.FAILED, Verdict.VOID) if verdicts[v])
    return f"{candidate}: {len(found)} checks, {bad or 'all passed'}"
