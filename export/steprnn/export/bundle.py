"""Export: from a Keras model to a bundle whose every artefact was shown to say the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from steprnn.runtime.atomic import new_folder
from steprnn.runtime.bundle.manifest import VARIANTS, Artefact, FileRecord, Manifest, Start
from steprnn.runtime.bundle.vocabulary import Vocabulary
from steprnn.runtime.errors import ExportError, ParityError, UsageError
from steprnn.runtime.files import (
    GOLDEN,
    GOLDEN_START,
    INITIAL,
    MANIFEST,
    PARITY,
    PARITY_FORMAT,
    VOCABULARY,
    write_record,
)
from steprnn.runtime.log import logger
from steprnn.runtime.parity.findings import Finding, Level, Verdict
from steprnn.runtime.parity.measure import Measures
from steprnn.runtime.parity.reference import CHAOS, Arrays

from .check.candidates import artefact_candidate
from .check.inputs import read_inputs
from .check.judge import judge_candidate, transform
from .check.runs import Runs, reference_runs, visited
from .formats import onnx, program, saved_model, tflite
from .formats.frozen import freeze, frozen_once
from .inspect import inspect
from .report.record import conditions, record
from .silence import errors_alone
from .source import Source, open_source
from .step.contract import Step
from .step.derive import derive

FORMATS: dict[str, tuple[Any, str]] = {
    "saved_model": (saved_model, "saved_model"),
    "tflite": (tflite, "step{}.tflite"),
    "onnx": (onnx, "step{}.onnx"),
    "program": (program, "step{}.program"),
}
STARTS = {"saved_model": "start", "tflite": "start.tflite", "onnx": "start.onnx", "program": "start.program"}
DEFAULT_FORMATS = ("saved_model", "tflite", "onnx")
DEFAULT_VARIANTS = ("float32", "int8")
CHAINED_STEPS = 1024
START_ROWS = 64  # of what stays the same, drawn to judge what begins from it
GOLDEN_STEPS = 256  # what a bundle carries to be checked elsewhere: 1.6 MB of the book's model


def _logged(line: str) -> None:
    if log := logger("steprnn.export"):
        log.info(line)


@errors_alone()
@frozen_once()
def export(
    source: Path | str | keras.Model | Step | Source,
    out: Path | str,
    *,
    formats: Sequence[str] = DEFAULT_FORMATS,
    variants: Sequence[str] | None = None,
    vocabulary: Vocabulary | None = None,
    text: str | None = None,
    inputs: Path | None = None,
    trust: bool = False,
    chained_steps: int = CHAINED_STEPS,
    golden_steps: int = GOLDEN_STEPS,
    say: Callable[[str], None] = _logged,
) -> Manifest:
    """Write the step graphs of a model to the folder `out`, each shown to be right first.

    `source` is a checkpoint folder, a `.keras` or `.h5` file, a Keras model, or a `Step` written by
    hand. `variants` are those that have to pass; without it float32 has to, and int8 is written where it
    passes, and told as left out where it does not. `text` is what the chained run of `chained_steps`
    reads; without it, one that the model writes itself; `inputs` is an .npz file to run on instead, as
    `steprnn check --inputs` takes it. int16x8 takes its ranges from there too. `trust` lets a file bring
    its own Python code. `say` is told each stage; without it, the logger `steprnn.export` is.

    Raises `ExportError` where the model has no step, `ParityError` where an artefact does not say the
    same, and then nothing is written at all; `CheckpointError` and `UsageError` as their names say.
    """
    out = Path(out)
    required = DEFAULT_VARIANTS[:1] if variants is None else variants
    variants = DEFAULT_VARIANTS if variants is None else variants
    _check(out, formats, variants)
    if words := _left_beside(source):
        say(words)
    source = _opened(source, vocabulary, trust)
    if words := source.how_it_was_read:
        say(words)
    step = source.model if isinstance(source.model, Step) else derive(source.model)
    taken = (t.name for t in (*step.spec.inputs, *step.spec.states))
    say(f"step: {', '.join(taken)} -> {', '.join(step.spec.result_names)}")
    for note in step.notes:
        say(note)
    proved = transform(step)
    say(f"the chained step is the whole model, which is causal: {proved.summary}")
    given = read_inputs(inputs, step) if inputs else None
    runs = reference_runs(
        step,
        text=text,
        vocabulary=source.vocabulary,
        steps=chained_steps,
        seeds=1,
        kinds=0 if given else 1,
        given=given,
        long=1 if "int16x8" in variants and not given else 0,
    )
    seen = cache(lambda: visited(step, runs.in_use))
    if runs.main.of:
        say(
            f"the model is chaotic: from step {runs.main.steps} on rounding alone moves it by more than "
            f"{CHAOS:g} of its largest value; it is judged step by step from there"
        )
    findings = [proved]
    left_out: dict[str, str] = {}  # artefact -> why
    with new_folder(out) as folder:
        artefacts = []
        for variant in variants:
            for format in formats:
                if variant not in FORMATS[format][0].METHODS:
                    continue
                try:
                    artefact = _write_artefact(step, folder, format, variant, seen)
                    found = _judge_artefact(step, folder, artefact, runs, say)
                except (ExportError, ParityError) as error:
                    # What a program has no operations for, other formats have.
                    spare = format == "program" and isinstance(error, ExportError) and len(formats) > 1
                    if variant in required and not spare:
                        advice = f"; to export without it, leave {variant} out of --quantize"
                        raise type(error)(f"{error}{'' if variant == 'float32' else advice}") from None
                    left_out[f"{format}-{variant}"] = str(error)
                    (folder / _path(format, variant)).unlink(missing_ok=True)
                    say(f"left out {format}-{variant}: {error}")
                    continue
                findings += found
                artefacts.append(artefact)
                chained = next(f.measures for f in found if f.level is Level.CHAINED)
                say(f"{artefact.name}: {summary(chained)}, {len(found)} checks")
        starts = []
        if step.start is not None:
            static = reference_runs(step.start, steps=START_ROWS, seeds=1, kinds=1)
            for format in dict.fromkeys(a.format for a in artefacts):
                starts.append(_write_start(step.start, folder, format))
                findings += _judge_artefact(step.start, folder, starts[-1], static, say)
                say(f"{starts[-1].name}: begins {', '.join(step.start.spec.result_names)}")
            static.main.write(folder / GOLDEN_START)
        runs.main.part(slice(0, golden_steps)).write(folder / GOLDEN)
        about = source.about | ({"left_out": left_out} if left_out else {})
        return _write_bundle(folder, step, replace(source, about=about), artefacts, starts, findings)


def _check(out: Path, formats: Sequence[str], variants: Sequence[str]) -> None:
    """Refuse what cannot be meant before anything is opened."""
    for given, known in ((formats, tuple(FORMATS)), (variants, VARIANTS)):
        for name in given:
            if name not in known:
                raise UsageError(f"{name!r} is unknown; expected one of: {', '.join(known)}")
    if out.exists() and not (out / MANIFEST).is_file():
        raise UsageError(f"{out} exists and is not a bundle; choose another --out, nothing was changed")


def _opened(
    source: Path | str | keras.Model | Step | Source, vocabulary: Vocabulary | None, trust: bool
) -> Source:
    if isinstance(source, Path | str):
        return open_source(Path(source), trust=trust)
    return source if isinstance(source, Source) else Source(source, vocabulary)


def _left_beside(source: object) -> str:
    """What a model of a checkpoint is without, where its file alone was given."""
    path = Path(source) if isinstance(source, Path | str) else None
    if path is None or not path.is_file() or not (path.parent / VOCABULARY).is_file():
        return ""
    return f"without {path.parent / VOCABULARY}, so that it writes no text: give the folder to take it along"


def _write_artefact(
    step: Step, folder: Path, format: str, variant: str, seen: Callable[[], Arrays]
) -> Artefact:
    module, path = FORMATS[format][0], _path(format, variant)
    ranges = {"seen": seen()} if variant == "int16x8" else {}
    module.write(step, folder / path, variant, **ranges)
    return Artefact(f"{format}-{variant}", format, variant, module.METHODS[variant], path)


def _write_start(start: Step, folder: Path, format: str) -> Artefact:
    """What computes the first states, in float32 for every variant: it runs once a stream."""
    module, path = FORMATS[format][0], STARTS[format]
    module.write(start, folder / path)
    return Artefact(f"{format}-start", format, "float32", module.METHODS["float32"], path)


def _path(format: str, variant: str) -> str:
    """Where a graph is in the bundle."""
    return FORMATS[format][1].format("" if variant == "float32" else f".{variant}")


def _judge_artefact(
    step: Step, folder: Path, artefact: Artefact, runs: Runs, say: Callable[[str], None]
) -> list[Finding]:
    """Every level; `say` is told what cannot be told. Raises `ParityError` where one fails."""
    found = list(judge_candidate(artefact_candidate(folder / artefact.path, artefact, step.spec), runs))
    for finding in found:
        if finding.verdict is Verdict.FAILED:
            raise ParityError(str(finding))
    for finding in (f for f in found if f.void):
        say(str(finding))
    return found


def _write_bundle(
    folder: Path,
    step: Step,
    source: Source,
    artefacts: Sequence[Artefact],
    starts: Sequence[Artefact],
    findings: Sequence[Finding],
) -> Manifest:
    """The files beside the graphs and the golden run, and at last the manifest."""
    if source.vocabulary:
        source.vocabulary.write(folder / VOCABULARY)
    if step.initial:
        np.savez(folder / INITIAL, **step.initial)  # type: ignore[arg-type]
    write_record(folder / PARITY, PARITY_FORMAT, record(findings))
    files = {p.relative_to(folder).as_posix(): FileRecord.of(p) for p in folder.rglob("*") if p.is_file()}
    proofs = next(f.figures for f in findings if f.level is Level.TRANSFORM)
    about = source.about | {"versions": conditions()["versions"], "proofs": proofs or None}
    found = {a.name: inspect(folder / a.path) for a in (*artefacts, *starts)}
    read = {a.name: weights.per_step for a in artefacts if (weights := found[a.name].weights)}
    counted = {name: size for name, size in read.items() if size is not None}
    positions = {
        a.name: {
            "inputs": [t.name for t in found[a.name].inputs],
            "outputs": [t.name for t in found[a.name].outputs],
        }
        for a in (*artefacts, *starts)
        if a.format == "tflite"
    }
    integers = {
        a.name: {t.name: t.scale[0] for t in (*found[a.name].inputs, *found[a.name].outputs) if t.scale}
        for a in artefacts
    }
    scales = {name: held for name, held in integers.items() if held}
    start = Start(step.start.spec, tuple(starts)) if step.start else None
    manifest = Manifest(
        weights_hash(step), step.spec, tuple(artefacts), files, about, counted, start, positions, scales
    )
    manifest.write(folder)
    return manifest


def weights_hash(step: Step) -> str:
    """sha256 over the contract and all float constants in the order the step uses them; names are free.

    Those of its start follow.
    """
    digest = hashlib.sha256()
    for part in (step, step.start) if step.start else (step,):
        graph = freeze(part).graph.as_graph_def()
        nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
        digest.update(json.dumps(part.spec.to_record(), sort_keys=True).encode())
        for tensor in (tf.make_ndarray(n.attr["value"].tensor) for n in nodes if n.op == "Const"):
            if tensor.dtype == np.float32:
                digest.update(tensor.tobytes())
    return digest.hexdigest()


def summary(measures: Measures | None) -> str:
    """One line for a person."""
    if measures is None:
        return ""
    line = f"{measures.largest:.3g} units over {measures.steps:,} steps"
    if measures.mean_kl is None:
        return f"{line}, {max(measures.relative.values()):.1e} off in rms"
    return (
        f"{line}, same-top-1 {measures.same_top_1:.2%}, mean KL {abs(measures.mean_kl):.1e}, "
        f"perplexity {measures.perplexity:+.3%}"
    )
