"""`steprnn check`: a bundle on this machine, or any artefact against the Keras model it came from."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from steprnn.runtime import contract, engines
from steprnn.runtime.contract import Candidate, Finding
from steprnn.runtime.errors import MissingExtra, UsageError
from steprnn.runtime.manifest import GOLDEN, Manifest
from steprnn.runtime.parity import PROFILES, Reference
from steprnn.runtime.quiet import quiet

if TYPE_CHECKING:
    from .derive import Step

HELP = "show that a bundle, or an artefact of any tool, says what TensorFlow says"
EXAMPLE = """  steprnn check lyrics.bundle
  steprnn check lyrics.bundle --reference lyrics.checkpoint --report report
  steprnn check theirs.onnx --reference model.keras --map h=state_in --map next_h=state_out"""
NEEDS: dict[str, str] = {}
Say = Callable[[str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parser.add_argument(
        "candidate", type=Path, help="a bundle, or a graph: .onnx, .tflite or a SavedModel folder"
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="MODEL",
        help="checkpoint folder, .keras or .h5 to compare with; without it, the run that the bundle carries",
    )
    parser.add_argument(
        "--text", type=Path, help="UTF-8 text to run on (default: one that the model writes itself)"
    )
    parser.add_argument(
        "--profile", choices=tuple(PROFILES), help="limits to judge by (default: the variant's own)"
    )
    parser.add_argument("--steps", type=int, default=1024, metavar="N", help="length of the chained runs")
    parser.add_argument("--seeds", type=int, default=8, metavar="N", help="streams of each kind of input")
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="a name in the graph of another tool",
    )
    parser.add_argument("--trust", action="store_true", help="run the Python code that the reference brings")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="also write report.json, junit.xml and report.html"
    )


def run(arguments: argparse.Namespace) -> int:
    """Check, tell each stage on stderr, print a table; 1 where anything failed."""
    if arguments.report and importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("matplotlib", "export")
    started = time.monotonic()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet() as terminal, warnings.catch_warnings():
        warnings.simplefilter("ignore")

        def say(line: str) -> None:
            terminal.write(f"[{time.monotonic() - started:5.1f} s] {line}\n")
            terminal.flush()

        findings = _against_reference(arguments, say) if arguments.reference else _golden(arguments, say)
    sys.stdout.write("\n".join(table(findings)) + "\n")
    if arguments.report:
        from .report import write_report

        write_report(findings, arguments.report, arguments.candidate)
        sys.stderr.write(f"steprnn: wrote {arguments.report}\n")
    failed = [f for f in findings if not f.passed]
    for finding in failed:
        sys.stderr.write(
            f"steprnn: {finding.candidate} fails at the level '{finding.level}': {finding.failure}\n"
        )
    return 1 if failed else 0


def _golden(arguments: argparse.Namespace, say: Say) -> list[Finding]:
    """Every file's hash, and the recorded run on each engine that is installed here."""
    folder: Path = arguments.candidate
    if folder.is_file():
        raise UsageError(f"{folder} is one graph; give the model it came from with --reference")
    manifest = Manifest.read(folder)
    manifest.verify(folder, list(manifest.files))
    findings = [Finding("structure", "the bundle", True, f"{len(manifest.files)} files as listed")]
    say(f"{len(manifest.files)} files have the sizes and hashes of the manifest")
    reference = Reference.read(folder / GOLDEN)
    installed = engines.installed()
    if not installed:
        raise MissingExtra("an engine", "onnx")
    for name in installed:
        for artefact in (a for a in manifest.artefacts if a.format == engines.ENGINES[name]):
            opened = partial(engines.open_engine, name, folder / artefact.path, manifest.step)
            profile = PROFILES[arguments.profile or artefact.variant]
            candidate = Candidate(artefact.name, name, manifest.step, profile, opened)
            found = golden_levels(candidate, reference)
            findings += found
            failed = sum(not f.passed for f in found)
            say(f"{candidate.label}: {len(found)} checks, {f'{failed} FAILED' if failed else 'all passed'}")
    return findings


def golden_levels(candidate: Candidate, reference: Reference) -> list[Finding]:
    """The levels that need nothing but a recorded run."""
    engine = candidate.open(1)
    return [
        contract.one_step(candidate, engine, reference, None),
        contract.judge(
            "chained", candidate, reference, contract.run_chained(candidate, engine.runner, reference)
        ),
        contract.batch(candidate, engine, reference),
        contract.semantics(candidate, engine, reference),
        *contract.sensitivity(candidate, engine, reference),
    ]


def _against_reference(arguments: argparse.Namespace, say: Say) -> list[Finding]:
    for module in ("tensorflow", "tf2onnx", "onnx"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(module, "export")
    say("starting TensorFlow")
    from .derive import derive
    from .foreign import foreign_candidate
    from .judge import bundle_candidates, judge_all
    from .source import open_source

    logging.disable(logging.WARNING)
    source = open_source(arguments.reference, trust=arguments.trust)
    step: Step = derive(source.model)
    path: Path = arguments.candidate
    structure = []
    if (path / "manifest.json").is_file():
        if arguments.map:
            raise UsageError("--map is for the graphs of other tools; a bundle tells its own names")
        manifest = Manifest.read(path)
        manifest.verify(path, list(manifest.files))
        structure = [_same_contract(manifest, step)]
        candidates = bundle_candidates(path, manifest, arguments.profile)
    else:
        names = _names(arguments.map)
        candidates = [foreign_candidate(path, step.spec, names, PROFILES[arguments.profile or "float32"])]
    text = arguments.text.read_text(encoding="utf-8") if arguments.text else None
    return structure + judge_all(
        step,
        candidates,
        text=text,
        vocabulary=source.vocabulary,
        steps=arguments.steps,
        seeds=arguments.seeds,
        say=say,
    )


def _same_contract(manifest: Manifest, step: Step) -> Finding:
    """Whether the bundle's step has the names, shapes and dtypes of the reference's."""
    got, expected = manifest.step.to_record(), step.spec.to_record()
    differences = [
        f"{part}: got {got[part]}, expected {expected[part]}"
        for part in expected
        if got[part] != expected[part]
    ]
    summary = f"{len(manifest.files)} files as listed"
    return Finding("structure", "the bundle", not differences, summary, "; ".join(differences))


def _names(pairs: Sequence[str]) -> dict[str, str]:
    names = {}
    for pair in pairs:
        ours, separator, theirs = pair.partition("=")
        if not (ours and separator and theirs):
            raise UsageError(f"--map {pair!r} is not OURS=THEIRS, such as --map h=state_in")
        names[ours] = theirs
    return names


COLUMNS = ("one step", "chained", "batch", "free run", "semantics")


def table(findings: Sequence[Finding]) -> list[str]:
    """A row for each candidate, a column for each level; below it what does not belong to one."""
    candidates = list(dict.fromkeys(f.candidate for f in findings if f.level == "one step"))
    rows = [["", *COLUMNS, "same-top-1", "mean KL", "verdict"]]
    for candidate in candidates:
        own = [f for f in findings if f.candidate.split(",")[0] == candidate]
        cells = []
        for column in COLUMNS:
            found = [f for f in own if f.level.startswith(column)]
            worst = max(
                found, key=lambda f: (not f.passed, f.measures.largest if f.measures else 0.0), default=None
            )
            cells.append("" if worst is None else worst.summary + ("" if worst.passed else " !"))
        chained = next((f.measures for f in own if f.level.startswith("chained")), None)
        top = chained.same_top_1 if chained else None
        kl = chained.mean_kl if chained else None
        cells += ["" if top is None else f"{top:.2%}", "" if kl is None else f"{abs(kl):.1e}"]
        rows.append([candidate, *cells, "passed" if all(f.passed for f in own) else "FAILED"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    for level in ("structure", "transform"):
        lines += [
            f"{level}: {f.summary}{'' if f.passed else ' FAILED'}" for f in findings if f.level == level
        ]
    mutants = [f for f in findings if f.level == "sensitivity"]
    if mutants:
        kinds = list(dict.fromkeys(f.candidate.split(", ", 1)[1] for f in mutants))
        missed = [f for f in mutants if not f.passed]
        verdict = "each was rejected" if not missed else f"{len(missed)} NOT REJECTED"
        lines.append(f"sensitivity: {', '.join(kinds)}: {verdict}")
    return lines
