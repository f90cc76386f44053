"""Findings as a table that a person reads in ten seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from steprnn.runtime.parity.findings import BUNDLE, STEP, Finding, Label, Level, Verdict, overall
from steprnn.runtime.parity.measure import NOT_JUDGED
from steprnn.runtime.spec import NEXT

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
    judged = [f for f in found if not f.summary.endswith(NOT_JUDGED)] or found
    worst = max(judged, key=lambda f: (not f.passed, f.measures.largest if f.measures else 0.0))
    return worst.summary, overall(found)


def main_run(findings: Sequence[Finding], candidate: Label) -> Finding | None:
    """The chained run on the input in use."""
    runs = (f for f in findings if f.candidate == candidate and f.level is Level.CHAINED and f.measures)
    return next(runs, None)


HEADS = ("same-top-1", "mean KL", "rms of y", "rms of states")


def said(findings: Sequence[Finding], candidate: Label) -> dict[str, str]:
    """What a candidate says otherwise on the input in use: a language model decides, a signal is off."""
    run = main_run(findings, candidate)
    measures = run.measures if run else None
    if measures is None:
        return {}
    if measures.same_top_1 is not None and measures.mean_kl is not None:
        return {"same-top-1": f"{measures.same_top_1:.2%}", "mean KL": f"{abs(measures.mean_kl):.1e}"}
    states = [off for name, off in measures.relative.items() if name.startswith(NEXT)]
    outputs = [off for name, off in measures.relative.items() if not name.startswith(NEXT)]
    both = (("rms of y", outputs), ("rms of states", states))
    return {
        head: f"{max(some):.2g}" if max(some) < 1e-4 else f"{max(some):.2%}" for head, some in both if some
    }


def table(findings: Sequence[Finding]) -> list[str]:
    """A row for each candidate, a column for each level; below it what belongs to none."""
    levels = [c for c in COLUMNS if any(f.level == c and f.candidate != BUNDLE for f in findings)]
    candidates = candidates_in(findings)
    says = {candidate: said(findings, candidate) for candidate in candidates}
    heads = [head for head in HEADS if any(head in own for own in says.values())]
    rows = [["", *map(str, levels), *heads, "verdict"]]
    for candidate in candidates:
        cells = []
        for level in levels:
            words, verdict = cell(findings, candidate, level)
            cells.append(words + MARKS[verdict])
        cells += [says[candidate].get(head, "") for head in heads]
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
