"""The whole contract: every artefact of a bundle, or one that another tool made, against the Keras model."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from steprnn.runtime import contract, engines
from steprnn.runtime.contract import Candidate, Finding, Greedy, judge, run_chained
from steprnn.runtime.engines import Engine, open_engine
from steprnn.runtime.errors import UsageError
from steprnn.runtime.manifest import Artefact, Manifest
from steprnn.runtime.parity import PROFILES, Arrays, Profile, Reference
from steprnn.runtime.spec import StepSpec
from steprnn.runtime.vocabulary import Vocabulary

from . import saved_model
from .derive import Step
from .proofs import prove
from .reference import FunctionEngine, Oracle, input_run, mutated, own_text

STEPS, SEEDS = 1024, 8
GREEDY_STEPS, PROMPT = 256, 4


@dataclass(frozen=True)
class Runs:
    """What all candidates of a model are judged against, made once."""

    chained: dict[str, Reference]  # kind of input -> run of all seeds; the first is the one in use
    saturated: Reference
    greedy: Greedy | None
    graphs: dict[str, FunctionEngine] = field(default_factory=dict)  # with a mistake in their weights

    @property
    def main(self) -> Reference:
        """The run on text, or on noise for a signal."""
        return next(iter(self.chained.values()))


def reference_runs(
    step: Step,
    *,
    text: str | None = None,
    vocabulary: Vocabulary | None = None,
    steps: int = STEPS,
    seeds: int = SEEDS,
    kinds: int | None = None,
) -> Iterator[tuple[str, Runs]]:
    """The runs of the oracle, one kind of input after another; yields what was made and all so far.

    `kinds` stops after so many kinds of input.
    """
    oracle = Oracle(step)
    chained: dict[str, Reference] = {}
    for kind, inputs in islice(_inputs(oracle, text, vocabulary, steps, seeds), kinds):
        chained[kind] = oracle.run(inputs)
        saturated = oracle.saturated(next(iter(chained.values())))
        yield f"reference on {kind}", Runs(chained, saturated, None)
    greedy = None
    if step.spec.is_language_model:
        (tokens,) = next(iter(chained.values())).inputs.values()
        greedy = oracle.greedy(tokens[:PROMPT].astype(np.int32), min(GREEDY_STEPS, steps))
    yield "reference, greedy", Runs(chained, saturated, greedy, mutated(step))


def _inputs(
    oracle: Oracle, text: str | None, vocabulary: Vocabulary | None, steps: int, seeds: int
) -> Iterator[tuple[str, Arrays]]:
    step = oracle.step
    if step.spec.is_language_model:
        (x,) = step.spec.inputs
        tokens = own_text(oracle, steps, seeds) if text is None else _rows_of(text, vocabulary, steps, seeds)
        yield "text" if text else "its own text", {x.name: tokens}
    uniform = input_run(step, steps, seeds)
    yield "uniform tokens" if step.spec.inputs[0].tokens else "noise", uniform
    one = {n: np.broadcast_to(a[:1], a.shape).copy() for n, a in uniform.items()}
    yield "one token repeated" if step.spec.inputs[0].tokens else "a constant signal", one
    if not step.spec.inputs[0].tokens:
        yield "silence", {n: np.zeros_like(a) for n, a in uniform.items()}
        yield "steps", {n: np.repeat(a[::64], 64, axis=0)[:steps] for n, a in uniform.items()}
        yield "a swelling tone", {n: _tones(a) for n, a in uniform.items()}


def _rows_of(text: str, vocabulary: Vocabulary | None, steps: int, seeds: int) -> NDArray[np.int32]:
    if vocabulary is None:
        raise UsageError(
            "a text needs a vocabulary, and a bare Keras file has none; give the checkpoint folder"
        )
    tokens = vocabulary.encode(text, unknown="skip")
    if len(tokens) < steps:
        raise UsageError(f"the text has {len(tokens):,} known characters; expected at least {steps:,}")
    starts = np.linspace(0, len(tokens) - steps, seeds).astype(int)
    return np.stack([np.array(tokens[s : s + steps], np.int32) for s in starts], axis=1)


def _tones(like: NDArray[Any]) -> NDArray[Any]:
    """Two tones that swell and fade, with a little noise: what a recording looks like to a model."""
    if like.dtype.kind != "f":
        return like
    t = np.arange(len(like)).reshape(-1, *(1,) * (like.ndim - 1))
    wave = np.sin(t / 9.0) + 0.5 * np.sin(t / 2.3)
    envelope = 0.5 * (1 - np.cos(2 * np.pi * t / 256))
    return (wave * envelope + 0.05 * like).astype(np.float32)


def judge_candidate(candidate: Candidate, runs: Runs, *, mistakes: bool = True) -> Iterator[Finding]:
    """Every level of one candidate, in the order of docs/parity.md."""
    engine = candidate.open(1)
    yield contract.one_step(candidate, engine, runs.main, runs.saturated)
    chained: dict[str, Finding] = {}
    for kind, reference in runs.chained.items():
        judged = candidate
        if chained and candidate.profile.units is None:
            # Quantized weights are judged on the inputs in use. Others drive the states where nobody
            # goes; there they must stay finite, and what they cost is reported.
            judged = replace(candidate, profile=Profile())
        chained[kind] = judge(
            f"chained, {kind}", judged, reference, run_chained(candidate, engine.runner, reference)
        )
        yield chained[kind]
    yield contract.batch(candidate, engine, runs.main)
    if runs.greedy is not None:
        main = next(iter(chained.values())).measures
        y = candidate.spec.outputs[0].name
        error = (main.units[y] * runs.main.units[y]) if main else 0.0
        yield contract.free_run(candidate, engine, runs.greedy, error)
    yield contract.semantics(candidate, engine, runs.main)
    if mistakes:
        # A weight that is 1 % off changes less than 8 bits do: only float32 profiles must see it.
        graphs = {m: g for m, g in runs.graphs.items() if candidate.profile.units is not None or "%" not in m}
        yield from contract.sensitivity(candidate, engine, runs.main, dict(graphs))


def transform(step: Step) -> Finding:
    """The chained step in TensorFlow against the original whole-sequence Keras model, and causality."""
    proofs = prove(step)
    if proofs is None:
        return Finding("transform", "the step", True, "not compared: no whole-sequence model was given")
    return Finding("transform", "the step", True, f"{proofs.transform:.2g} u", figures=vars(proofs))


def bundle_candidates(folder: Path, manifest: Manifest, profile: str | None = None) -> list[Candidate]:
    """The artefacts of a bundle, each in its engine."""
    return [artefact_candidate(folder / a.path, a, manifest.step, profile) for a in manifest.artefacts]


def artefact_candidate(
    path: Path, artefact: Artefact, spec: StepSpec, profile: str | None = None
) -> Candidate:
    """One artefact as a candidate, judged by the profile of its variant unless another is named."""
    judged = PROFILES[profile or artefact.variant]
    if artefact.format == "saved_model":
        return Candidate(
            artefact.name, "tensorflow", spec, judged, lambda _: _open_saved_model(path, spec), wide=True
        )
    name = next(name for name, format in engines.ENGINES.items() if format == artefact.format)
    return Candidate(
        artefact.name, name, spec, judged, lambda threads: open_engine(name, path, spec, threads)
    )


def _open_saved_model(path: Path, spec: StepSpec) -> Engine:
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures[saved_model.SIGNATURE]
    signature.owner = loaded  # TensorFlow frees the graph with the object that loaded it
    return FunctionEngine(signature, spec)


def conditions() -> dict[str, Any]:
    """Where and with what artefacts were made and judged."""
    packages = ("steprnn", "tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert", "numpy")
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu_flags": _cpu_flags(),
        "threads": 1,
        "onnxruntime_optimization": "ORT_ENABLE_ALL",
    }


def _cpu_flags() -> list[str]:
    """What the processor has that changes how an engine computes (Linux)."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    flags = next(
        (line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), []
    )
    told = ("avx", "fma", "f16c", "sse4", "amx", "asimd", "sve", "i8mm", "bf16")
    return sorted(flag for flag in flags if flag.startswith(told))


Say = Callable[[str], None]


def judge_all(
    step: Step,
    candidates: Sequence[Candidate],
    *,
    text: str | None = None,
    vocabulary: Vocabulary | None = None,
    steps: int = STEPS,
    seeds: int = SEEDS,
    say: Say = lambda line: None,
) -> list[Finding]:
    """The whole contract over all candidates; `say` is told each stage as it comes."""
    findings = [transform(step)]
    say(f"transform: {findings[0].summary}")
    *_, (_, runs) = _told(
        reference_runs(step, text=text, vocabulary=vocabulary, steps=steps, seeds=seeds), say
    )
    for candidate in candidates:
        found = list(judge_candidate(candidate, runs))
        findings += found
        failed = sum(not f.passed for f in found)
        say(f"{candidate.label}: {len(found)} checks, {f'{failed} FAILED' if failed else 'all passed'}")
    return findings


def _told(stages: Iterator[tuple[str, Runs]], say: Say) -> Iterator[tuple[str, Runs]]:
    """The stages as they come, each told."""
    for name, runs in stages:
        say(name)
        yield name, runs


def record(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings as parity.json holds them; docs/parity-report.schema.json is its schema."""
    return {
        "format": "steprnn.parity",
        "version": 1,
        "passed": all(f.passed for f in findings),
        "conditions": conditions(),
        "findings": [
            {
                "level": f.level,
                "candidate": f.candidate,
                "passed": f.passed,
                "summary": f.summary,
                "failure": f.failure,
                "figures": f.figures,
            }
            for f in findings
        ],
    }
