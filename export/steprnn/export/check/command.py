"""`steprnn check`: a bundle on this machine, or any artefact against the Keras model it came from."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from steprnn.runtime import engines
from steprnn.runtime.bundle.manifest import Artefact, Manifest
from steprnn.runtime.bundle.open import open_bundle, read_bundle
from steprnn.runtime.bundle.packed import Place
from steprnn.runtime.claims import temporary_files
from steprnn.runtime.errors import BundleError, MissingExtra, UsageError
from steprnn.runtime.files import GOLDEN, GOLDEN_START, PARITY, PARITY_FORMAT, read_record
from steprnn.runtime.heavy import heavy_imports
from steprnn.runtime.parity import levels
from steprnn.runtime.parity.findings import BUNDLE, Finding, Level, Verdict, attempt, overall
from steprnn.runtime.parity.levels import Candidate
from steprnn.runtime.parity.mutants import sensitivity
from steprnn.runtime.parity.profiles import PROFILES
from steprnn.runtime.parity.reference import Reference
from steprnn.runtime.parity.streams import TWICE, TWO_THREADS, run_twice, semantics, two_threads
from steprnn.runtime.quiet import quiet
from steprnn.runtime.spec import StepSpec

from ..paths import refuse_strangers
from ..report.table import table, told
from ..stages import stages
from ..text import read_text
from .structure import strange_file

HELP = "show that a bundle, or an artefact of any tool, says what TensorFlow says"
EXAMPLE = """  steprnn check lyrics.bundle
  steprnn check lyrics.bundle --reference lyrics.checkpoint --report report
  steprnn check theirs.onnx --reference model.keras --map h=state_in --map next_h=state_out"""
NEEDS: dict[str, str] = {}
Say = Callable[[str], None]
EXIT = {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.VOID: 3}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parser.add_argument(
        "candidate",
        type=Path,
        help="a bundle (folder, .zip or installed model), or a graph: .onnx, .tflite or a SavedModel folder",
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
        "--inputs",
        type=Path,
        metavar="NPZ",
        help="inputs to run on, by their names: arrays [steps, rows, ...], such as recorded signals",
    )
    parser.add_argument(
        "--profile", choices=tuple(PROFILES), help="limits to judge by (default: the variant's own)"
    )
    parser.add_argument("--steps", type=int, default=1024, metavar="N", help="length of the chained runs")
    parser.add_argument("--seeds", type=int, default=8, metavar="N", help="streams of each kind of input")
    parser.add_argument("--long", action="store_true", help="also two streams of 10,240 steps, for drift")
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="a name in the graph of another tool, with an index where it has more axes: h=h0[0]",
    )
    parser.add_argument("--trust", action="store_true", help="run the Python code that the reference brings")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="also write report.json, junit.xml and report.html"
    )


def run(arguments: argparse.Namespace) -> int:
    """Check, tell each stage on stderr, print a table; the exit code is the verdict's."""
    if arguments.report and importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("matplotlib", "export")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    name = arguments.candidate.name
    with (
        quiet() as terminal,
        stages(terminal) as say,
        warnings.catch_warnings(),
        contextlib.ExitStack() as files,
    ):
        warnings.simplefilter("ignore")
        if arguments.reference:  # TensorFlow reads and writes files
            files.enter_context(temporary_files())
            folder = files.enter_context(open_bundle(arguments.candidate))
            judged = _against_reference(arguments, folder, say)
        else:
            judged = _golden(arguments, read_bundle(arguments.candidate), say)
        if arguments.report:
            from ..report.files import write_report

            write_report(judged.findings, arguments.report, name, judged.candidates)
            say(f"wrote {arguments.report}")
    sys.stdout.write("\n".join(table(judged.findings)) + "\n")
    verdict = overall(judged.findings)
    bad = [f for f in judged.findings if not f.passed]
    sys.stderr.writelines(f"steprnn: {f}\n" for f in sorted(bad, key=lambda f: f.void))
    return EXIT[verdict]


@dataclass(frozen=True)
class Judged:
    """What was judged, and what was found."""

    findings: list[Finding]
    candidates: list[Candidate]


def _golden(arguments: argparse.Namespace, folder: Place, say: Say) -> Judged:
    """Every file's hash, and the recorded run on each engine that is installed here."""
    if folder.is_file() and folder.suffix.lower()[1:] not in engines.ENGINE_OF:
        raise UsageError(f"{folder} is no bundle and no graph; expected a folder, .zip, .onnx or .tflite")
    if folder.is_file():
        raise UsageError(f"{folder} is one graph; give the model it came from with --reference")
    given = [f"--{name}" for name in ("text", "inputs", "long", "map", "trust") if getattr(arguments, name)]
    if given:
        raise UsageError(f"{' and '.join(given)} only means something with --reference MODEL")
    manifest = Manifest.read(folder)
    manifest.verify(folder, list(manifest.files))
    say(f"{len(manifest.files)} files have the sizes and hashes of the manifest")
    recorded = {manifest.step: _recorded(folder / GOLDEN, manifest.step)}
    artefacts = [(a, manifest.step) for a in manifest.artefacts]
    if manifest.start is not None:
        recorded[manifest.start.spec] = _recorded(folder / GOLDEN_START, manifest.start.spec)
        artefacts += [(a, manifest.start.spec) for a in manifest.start.artefacts]
    installed = engines.installed()
    candidates = [
        artefact_in(name, folder, artefact, spec, arguments.profile)
        for name in installed
        for artefact, spec in artefacts
        if artefact.format == engines.ENGINES[name]
    ]
    if not candidates:
        if not engines.MODULES.keys() & {*installed}:  # native alone, which runs programs
            raise MissingExtra("an engine", "onnx")
        held = ", ".join(a.name for a in manifest.artefacts)
        raise UsageError(f"nothing to check: {folder} holds {held}, and installed is {', '.join(installed)}")
    findings = [Finding(Level.STRUCTURE, BUNDLE, True, f"{len(manifest.files)} files as listed")]
    audits = _audits(folder)
    for candidate in candidates:
        found = list(golden_levels(candidate, recorded[candidate.spec], audits.get(candidate.name, "")))
        findings += found
        say(told(candidate.label, found))
    return Judged(findings, candidates)


def _audits(folder: Place) -> dict[str, str]:
    """What export found of the weights of each artefact, whose hash says that it still is that file."""
    if not (folder / PARITY).is_file():
        return {}
    findings = read_record(folder / PARITY, PARITY_FORMAT, BundleError, "export again").get("findings", [])
    audits = (f for f in findings if isinstance(f, dict) and f.get("level") == Level.WEIGHTS)
    return {str(f["candidate"]).partition(" in ")[0]: str(f["summary"]) for f in audits if f.get("passed")}


def _recorded(path: Place, spec: StepSpec) -> Reference:
    """A golden run; raises `BundleError` where it is not one of this contract."""
    reference = Reference.read(path)
    names = set(spec.result_names)
    shapes = {n: ((), a.shape[2:]) for n, a in reference.results.items()}  # of a unit; one for all until 0.1
    fits = all(u.shape in shapes.get(n, ()) and (u > 0).all() for n, u in reference.units.items())
    if set(reference.results) != names or set(reference.units) != names or not fits:
        raise BundleError(f"{path} is not a run of this step; export again")
    return reference


def artefact_in(
    engine: str, folder: Place, artefact: Artefact, spec: StepSpec, profile: str | None
) -> Candidate:
    """An artefact of a bundle in an engine of this machine."""
    path = folder / artefact.path
    opened = partial(engines.open_engine, engine, path, spec)
    look = partial(strange_file, engine, path, spec)
    judged = PROFILES[profile or artefact.variant]
    return Candidate(artefact.name, engine, spec, judged, opened, look=look, path=path)


def golden_levels(candidate: Candidate, reference: Reference, audit: str = "") -> Iterator[Finding]:
    """The levels that need nothing but a recorded run; where the structure is wrong, that alone.

    `audit` is what the weights of the same file were found to be where the model was at hand.
    """
    found = attempt(Level.STRUCTURE, candidate.label, partial(levels.structure, candidate))
    yield found
    if not found.passed:
        return
    if audit:
        yield Finding(Level.WEIGHTS, candidate.label, True, f"{audit}, by hash")
    engine = candidate.open(1)
    ran = cache(partial(levels.run_chained, candidate, engine.runner, reference))
    judgements: dict[Level, Callable[[], Finding]] = {
        Level.ONE_STEP: lambda: levels.one_step(candidate, engine, reference),
        Level.CHAINED: lambda: levels.chained(candidate, engine, reference, ran=ran),
        Level.BATCH: lambda: levels.batch(candidate, engine, reference),
        Level.SEMANTICS: lambda: semantics(candidate, engine, reference),
    }
    for level, judged in judgements.items():
        yield attempt(level, candidate.label, judged)
    yield attempt(Level.SEMANTICS, candidate.label, lambda: two_threads(candidate, reference), TWO_THREADS)
    yield attempt(Level.SEMANTICS, candidate.label, lambda: run_twice(candidate, reference, ran()), TWICE)
    yield from sensitivity(candidate, engine, reference)


def _against_reference(arguments: argparse.Namespace, path: Path, say: Say) -> Judged:
    for module in ("tensorflow", "tf2onnx", "onnx"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(module, "export")
    if arguments.steps < 16 or arguments.seeds < 1:
        raise UsageError(
            f"--steps {arguments.steps} --seeds {arguments.seeds}: expected at least 16 steps and 1 seed"
        )
    refuse_strangers(arguments.reference)
    text = read_text(arguments.text) if arguments.text else None
    say("starting TensorFlow")
    with heavy_imports():
        from ..source import open_source
        from ..step.contract import Step
        from ..step.derive import derive
        from .candidates import candidates_of
        from .inputs import read_inputs
        from .judge import judge_all
        from .runs import LONG_SEEDS

    logging.disable(logging.WARNING)
    source = open_source(arguments.reference, trust=arguments.trust)
    step = source.model if isinstance(source.model, Step) else derive(source.model)
    structure, candidates = candidates_of(path, step, _names(arguments.map), arguments.profile)
    given = read_inputs(arguments.inputs, step) if arguments.inputs else None
    findings = judge_all(
        step,
        candidates,
        text=text,
        given=given,
        long=LONG_SEEDS if arguments.long else 0,
        vocabulary=source.vocabulary,
        steps=arguments.steps,
        seeds=arguments.seeds,
        say=say,
    )
    return Judged([*structure, *findings], candidates)


def _names(pairs: Sequence[str]) -> dict[str, str]:
    names = {}
    for pair in pairs:
        ours, separator, theirs = pair.partition("=")
        if not (ours and separator and theirs):
            raise UsageError(f"--map {pair!r} is not OURS=THEIRS, such as --map h=state_in")
        names[ours] = theirs
    return names
