"""The three files of a report: what they hold, that others can read them, and that the page needs nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.engines import open_engine
from steprnn.runtime.parity import levels
from steprnn.runtime.parity.findings import Finding, Label, Level
from steprnn.runtime.parity.levels import Candidate
from steprnn.runtime.parity.measure import Measures
from steprnn.runtime.parity.profiles import PROFILES, Profile
from steprnn.runtime.parity.reference import Reference
from steprnn.runtime.spec import StepSpec, TensorSpec

jsonschema = pytest.importorskip("jsonschema")
pytest.importorskip("matplotlib")

from steprnn.export.check.command import golden_levels  # noqa: E402
from steprnn.export.report.files import junit, write_report  # noqa: E402
from steprnn.export.report.record import record  # noqa: E402
from steprnn.export.report.table import cell, table  # noqa: E402
from steprnn.export.report.variants import measured  # noqa: E402

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    schema = json.loads((ROOT / "docs" / "parity-report.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return dict(schema)


@pytest.fixture(scope="module")
def candidates(tiny: Path) -> list[Candidate]:
    spec = Manifest.read(tiny).step
    files = {"step.onnx": "float32", "step.int8.onnx": "int8"}
    return [
        Candidate(n, "onnx", spec, PROFILES[p], partial(open_engine, "onnx", tiny / n, spec), path=tiny / n)
        for n, p in files.items()
    ]


@pytest.fixture(scope="module")
def reference(tiny: Path) -> Reference:
    return Reference.read(tiny / "golden.npz")


@pytest.fixture(scope="module")
def findings(candidates: list[Candidate], reference: Reference) -> list[Finding]:
    return [f for c in candidates for f in golden_levels(c, reference)]


@pytest.fixture(scope="module")
def failing(findings: list[Finding], candidates: list[Candidate], reference: Reference) -> list[Finding]:
    """The same with one chained run that is wrong, not finite and full of what markup must escape."""
    results = {n: a.copy() for n, a in reference.results.items()}
    results["next_c"][4, 0, 2] = np.inf
    results["next_h"][3, 0, 1] += 1.0
    wrong = replace(reference, results=results)
    candidate = replace(candidates[0], name='<b>&"\x00')
    return [*findings, levels.chained(candidate, candidate.open(1), wrong, "<script>")]


@pytest.fixture(scope="module")
def folder(
    failing: list[Finding], candidates: list[Candidate], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("report") / "deep" / "report"
    write_report(failing, out, "a <bundle>", candidates)
    return out


def test_three_files_and_no_other(folder: Path) -> None:
    assert {p.name for p in folder.iterdir()} == {"report.json", "junit.xml", "report.html"}


def test_other_files_of_the_folder_stay(findings: list[Finding], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "report.json").write_text("old", encoding="utf-8")
    write_report(findings, tmp_path, "bundle")
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "mine"
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["passed"] is True


def test_the_json_is_of_the_documented_schema(folder: Path, schema: dict[str, Any]) -> None:
    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text = (folder / "report.json").read_text(encoding="utf-8")
    report = json.loads(text, parse_constant=no_constant)
    jsonschema.validate(report, schema)
    assert report["passed"] is False
    failed = [f for f in report["findings"] if not f["passed"]]
    assert len(failed) == 1
    assert failed[0]["figures"]["breach"]["tensor"] == "next_h"
    assert failed[0]["figures"]["breach"]["step"] == 3
    assert failed[0]["figures"]["breach"]["row"] == "seed 0"
    assert failed[0]["figures"]["worst"]["expected"] is None, "infinity is told as null"


def test_the_record_of_a_bundle_is_of_the_same_schema(
    tiny: Path, findings: list[Finding], schema: dict[str, Any]
) -> None:
    jsonschema.validate(json.loads((tiny / "parity.json").read_text(encoding="utf-8")), schema)
    jsonschema.validate(record(findings), schema)


@pytest.mark.parametrize("spoil", [{"level": "guess"}, {"passed": "yes"}, {"tensor": 1}])
def test_the_schema_refuses_other_things(
    findings: list[Finding], schema: dict[str, Any], spoil: dict[str, Any]
) -> None:
    told = record(findings)
    told["findings"][0] |= spoil
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(told, schema)


def test_junit_has_a_suite_a_candidate_and_a_case_a_level(failing: list[Finding]) -> None:
    root = ElementTree.fromstring(junit(failing))
    assert root.tag == "testsuites"
    assert (root.get("tests"), root.get("failures")) == (str(len(failing)), "1")
    suites = {s.get("name"): s for s in root}
    assert list(suites) == ["step.onnx in onnx", "step.int8.onnx in onnx", '<b>&"? in onnx']
    right = suites["step.onnx in onnx"]
    assert (right.get("tests"), right.get("failures")) == ("11", "0")
    names = [c.get("name") for c in right]
    assert names[:5] == ["structure", "one step", "chained", "batch", "semantics"]
    assert "sensitivity, state zeroed" in names
    (case,) = suites['<b>&"? in onnx']
    (failure,) = case
    words = failure.get("message") or ""
    assert words.startswith("next_h is ")
    assert " units off at step 3 of seed 0 (got " in words
    assert "fails at the level 'chained, <script>'" in (failure.text or "")


def test_junit_tells_how_long_each_took(findings: list[Finding]) -> None:
    slow = [replace(f, seconds=0.25 * (i + 1)) for i, f in enumerate(findings[:3])]
    (suite,) = ElementTree.fromstring(junit(slow))
    assert [case.get("time") for case in suite] == ["0.250", "0.500", "0.750"]
    assert suite.get("time") == "1.500"
    assert all(f.seconds > 0 for f in findings), "each finding was timed"


@pytest.mark.parametrize(
    ("profile", "relative", "words"),
    [
        ("float32", 0.0, "3.4 u of 8"),
        ("int8", 0.0042, "rms 0.42% of 5.0%"),
        ("float16", 0.0042, "rms 0.42% of 0.5%"),
    ],
)
def test_a_figure_stands_beside_its_limit(profile: str, relative: float, words: str) -> None:
    shape = StepSpec(
        (TensorSpec("x", "float32", (1,)),),
        (TensorSpec("h", "float32", (1,)),),
        (TensorSpec("y", "float32", (1,)),),
    )
    signal = Measures(9, {"y": 3.4, "next_h": 1.0}, None, relative={"y": relative, "next_h": 0.5})
    assert signal.told(shape, PROFILES[profile]) == words
    assert signal.told(shape, Profile()) == "3.4 u, not judged"


def test_the_cell_of_a_level_is_what_is_judged(findings: list[Finding]) -> None:
    """Not the run on inputs that nobody uses, however far off it is there."""
    (chained,) = [f for f in findings if f.level is Level.CHAINED and "int8" in f.candidate.artefact]
    assert re.fullmatch(r"KL \S+ of 0\.01", chained.summary)
    other = replace(chained, summary="9e+09 u, not judged", case="one token repeated")
    assert cell([chained, other], chained.candidate, Level.CHAINED)[0] == chained.summary


class Page(HTMLParser):
    """Every tag with its attributes, and the text a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_tells_the_verdict_and_the_first_breach(page: Page) -> None:
    assert "FAILED" in page.text
    assert "a <bundle>" in page.text
    assert "may be shipped" in page.text
    assert "must not be shipped" in page.text
    assert re.search(
        r"next_h is \S+ units off at step 3 of seed 0 \(got \S+, expected \S+\), at most 8", page.text
    )
    assert "NOT REJECTED" not in page.text
    assert "onnxruntime" in page.text


def test_the_page_needs_no_network_and_runs_nothing(page: Page) -> None:
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "b"}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("href", "xlink:href", "src"):
                assert (value or "").startswith("#"), f"<{tag} {name}={value!r}>"
            assert not name.startswith("on"), f"<{tag} {name}>"
    style = next(i for i, (tag, _) in enumerate(page.tags) if tag == "style")
    assert style < next(i for i, (tag, _) in enumerate(page.tags) if tag == "body")


def test_the_page_has_its_pictures_and_no_identifier_twice(page: Page) -> None:
    labels = [a["aria-label"] for tag, a in page.tags if tag == "svg"]
    assert labels == [
        "size speed quality",
        "error over steps ",
        "error over steps <script>",
        "KL histogram",
        "same-top-1",
        "state ranges",
    ]
    identifiers = [a["id"] for _, a in page.tags if "id" in a]
    assert len(identifiers) == len(set(identifiers))


def test_a_page_of_a_candidate_that_never_ran() -> None:
    from steprnn.export.report.html_page import html_page

    finding = Finding(Level.STRUCTURE, Label("theirs.onnx", "onnx"), False, "broke", "it does not run: no")
    text = Page(html_page([finding], [], "theirs.onnx", {})).text
    assert "it does not run: no" in text
    assert "theirs.onnx in onnx  broke !  " in "\n".join(table([finding])).replace("    ", "  ")


def test_size_and_speed_are_measured(candidates: list[Candidate], tiny: Path) -> None:
    first, second = measured([candidates[0], replace(candidates[1], path=None)])
    assert first.bytes == (tiny / "step.onnx").stat().st_size
    assert first.microseconds is not None
    assert 0.1 < first.microseconds < 1e5
    assert second.bytes is None


def test_what_does_not_open_has_no_speed(candidates: list[Candidate]) -> None:
    def never(threads: int) -> Any:
        raise ValueError("no")

    assert measured([replace(candidates[0], open=never)])[0].microseconds is None
