"""The whole contract: every artefact of a bundle, or one that another tool made, against the Keras model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steprnn.runtime import engines
from steprnn.runtime.bundle.manifest import Artefact, Manifest
from steprnn.runtime.bundle.vocabulary import Vocabulary
from steprnn.runtime.engines import Engine, open_engine
from steprnn.runtime.errors import ExportError, UsageError
from steprnn.runtime.files import MANIFEST
from steprnn.runtime.parity import levels
from steprnn.runtime.parity.levels import Candidate, Finding, Greedy, attempt
from steprnn.runtime.parity.measure import Arrays, Reference
from steprnn.runtime.parity.mutants import sensitivity
from steprnn.runtime.parity.profiles import PROFILES, Profile
from steprnn.runtime.parity.streams import semantics
from steprnn.runtime.spec import StepSpec

from ..formats import operators, saved_model
from ..report.table import told
from ..step.derive import Step
from .mistakes import mutated
from .proofs import prove
from .reference import FunctionEngine, Oracle, input_run, own_text
from .structure import strange_file, strange_tensors

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
    yield "reference, greedy", Runs(chained, saturated, greedy, mutated(step, next(iter(chained.values()))))


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
    """Every level of one candidate, in the order of docs/parity.md.

    One whose structure is wrong, or that does not open, ends there.
    """
    found = attempt("structure", candidate, partial(levels.structure, candidate))
    yield found
    if not found.passed:
        return
    engine = candidate.open(1)
    yield attempt(
        "one step",
        candidate,
        lambda: levels.one_step(candidate, engine, runs.main, runs.saturated),
    )
    error = 0.0
    for kind, reference in runs.chained.items():
        # Quantized weights are judged on the inputs in use. Others drive the states where nobody goes;
        # there they must stay finite, and what they cost is told.
        judged = candidate.profile.units is not None or reference is runs.main
        one = candidate if judged else replace(candidate, profile=Profile())
        found = attempt("chained", candidate, partial(levels.chained, one, engine, reference, kind), kind)
        if reference is runs.main and found.measures:
            y = candidate.spec.outputs[0].name
            error = found.measures.units.get(y, 0.0) * reference.units[y]
        yield found
    if candidate.batched:
        yield attempt("batch", candidate, lambda: levels.batch(candidate, engine, runs.main))
    greedy = runs.greedy
    if greedy is not None:
        yield attempt("free run", candidate, lambda: levels.free_run(candidate, engine, greedy, error))
    yield attempt("semantics", candidate, lambda: semantics(candidate, engine, runs.main))
    if mistakes:
        # A weight that is 1 % off changes less than 8 bits do: only float32 profiles must see it.
        graphs = {m: g for m, g in runs.graphs.items() if candidate.profile.units is not None or "%" not in m}
        yield from sensitivity(candidate, engine, runs.main, dict(graphs))


def transform(step: Step) -> Finding:
    """The chained step in TensorFlow against the original whole-sequence Keras model, and causality."""
    proofs = prove(step)
    if proofs is None:
        return Finding("transform", "the step", True, "not compared: no whole-sequence model was given")
    return Finding("transform", "the step", True, f"{proofs.transform:.2g} u", figures=vars(proofs))


def candidates_of(
    path: Path, step: Step, names: dict[str, str], profile: str | None
) -> tuple[list[Finding], list[Candidate]]:
    """The artefacts of a bundle, or a graph of another tool, to be judged; and what a bundle itself is."""
    if (path / MANIFEST).is_file():
        if names:
            raise UsageError("--map is for the graphs of other tools; a bundle tells its own names")
        manifest = Manifest.read(path)
        manifest.verify(path, list(manifest.files))
        artefacts = manifest.artefacts
        candidates = [artefact_candidate(path / a.path, a, manifest.step, profile) for a in artefacts]
        same = same_contract(manifest, step)
        return [same], candidates if same.passed else []
    from .renamed import foreign_candidate

    return [], [foreign_candidate(path, step.spec, names, PROFILES[profile or "float32"])]


def same_contract(manifest: Manifest, step: Step) -> Finding:
    """Whether the bundle's step has the names, shapes and dtypes of the reference's."""
    got, expected = manifest.step.to_record(), step.spec.to_record()
    differences = [
        f"its {part} are {got[part]}, expected {expected[part]}"
        for part in expected
        if got[part] != expected[part]
    ]
    summary = f"{len(manifest.files)} files as listed"
    return Finding("structure", "the bundle", not differences, summary, "; ".join(differences))


def artefact_candidate(
    path: Path, artefact: Artefact, spec: StepSpec, profile: str | None = None
) -> Candidate:
    """One artefact as a candidate, judged by the profile of its variant unless another is named."""
    judged = PROFILES[profile or artefact.variant]
    if artefact.format == "saved_model":
        opened = partial(_open_saved_model, path, spec)
        look = partial(_strange_saved_model, path, spec)
        return Candidate(artefact.name, "tensorflow", spec, judged, opened, wide=True, look=look, path=path)
    name = engines.ENGINE_OF[artefact.format]
    return Candidate(
        artefact.name,
        name,
        spec,
        judged,
        partial(open_engine, name, path, spec),
        look=partial(strange_file, name, path, spec),
        path=path,
    )


def _open_saved_model(path: Path, spec: StepSpec, threads: int) -> Engine:
    return FunctionEngine(saved_model.signature(path), spec)  # TensorFlow's threads are the process's


def _strange_saved_model(path: Path, spec: StepSpec) -> list[str]:
    function = saved_model.signature(path)
    problems = strange_tensors(*saved_model.declared(function), spec)
    try:
        operators.check_tensorflow(function.graph.as_graph_def())
    except ExportError as error:
        problems.append(str(error))
    return problems


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
    if not candidates:
        return findings
    stages = reference_runs(step, text=text, vocabulary=vocabulary, steps=steps, seeds=seeds)
    *_, (_, runs) = _told(stages, say)
    for candidate in candidates:
        found = list(judge_candidate(candidate, runs))
        findings += found
        say(told(candidate, found))
    return findings


def _told(stages: Iterator[tuple[str, Runs]], say: Say) -> Iterator[tuple[str, Runs]]:
    """The stages as they come, each told."""
    for name, runs in stages:
        say(name)
        yield name, runs
