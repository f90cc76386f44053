"""The files of a parity report: report.json for programs, junit.xml for CI, report.html for people."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from steprnn.runtime.atomic import write_bytes, write_text
from steprnn.runtime.parity.findings import Finding, Verdict
from steprnn.runtime.parity.levels import Candidate

from .html_page import html_page
from .record import conditions, record
from .variants import measured


def write_report(
    findings: Sequence[Finding], folder: Path, name: str, candidates: Sequence[Candidate] = ()
) -> None:
    """Write the three files into `folder`, each at once; others that are there stay.

    `name` is what was checked. `candidates` are opened again to measure their size and speed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    findings = [
        replace(
            f,
            candidate=replace(f.candidate, artefact=_plain(f.candidate.artefact)),
            case=_plain(f.case),
            failure=_plain(f.failure),
        )
        for f in findings
    ]
    variants = measured(candidates)
    told = record(findings)
    told["variants"] = [vars(v) | {"label": str(v.label)} for v in variants]
    write_text(folder / "report.json", json.dumps(told, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    write_bytes(folder / "junit.xml", junit(findings))
    write_text(folder / "report.html", html_page(findings, variants, name, conditions()))


def junit(findings: Sequence[Finding]) -> bytes:
    """One testsuite a candidate, one testcase a level; the failure text is the breach in words."""
    root = ElementTree.Element("testsuites", name="steprnn check")
    root.attrib |= _counts(findings)
    for candidate in dict.fromkeys(f.candidate for f in findings):
        own = [f for f in findings if f.candidate == candidate]
        suite = ElementTree.SubElement(root, "testsuite", name=_plain(str(candidate)))
        suite.attrib |= _counts(own)
        for finding in own:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=_plain(str(candidate)),
                name=_plain(finding.title),
                time=f"{finding.seconds:.3f}",
            )
            if finding.void:
                ElementTree.SubElement(case, "skipped", message=_plain(finding.failure))
            elif not finding.passed:
                words = _plain(finding.failure)
                failure = ElementTree.SubElement(case, "failure", message=words, type="ParityError")
                failure.text = _plain(str(finding))
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _counts(findings: Sequence[Finding]) -> dict[str, str]:
    verdicts = Counter(f.verdict for f in findings)
    return {
        "tests": str(len(findings)),
        "failures": str(verdicts[Verdict.FAILED]),
        "errors": "0",
        "skipped": str(verdicts[Verdict.VOID]),
        "time": f"{sum(f.seconds for f in findings):.3f}",
    }


def _plain(text: str) -> str:
    """Without the characters that XML 1.0 and HTML have no place for."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
