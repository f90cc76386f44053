"""The whole contract: every artefact of a bundle, or one that another tool made, against the Keras model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from steprnn.runtime import engines
from steprnn.runtime.bundle.manifest import Artefact, Manifest
from steprnn.runtime.bundle.vocabulary import Vocabulary
from steprnn.runtime.engines import Engine, open_engine
from steprnn.runtime.errors import ExportError, UsageError
from steprnn.runtime.files import MANIFEST
from steprnn.runtime.parity import levels
from steprnn.runtime.parity.findings import BUNDLE, STEP, Finding, Level, Verdict, attempt
from steprnn.runtime.parity.levels import Candidate
from steprnn.runtime.parity.mutants import Own, sensitivity
from steprnn.runtime.parity.profiles import PROFILES, Profile
from steprnn.runtime.parity.reference import Arrays, Reference
from steprnn.runtime.parity.streams import TWICE, run_twice, semantics
from steprnn.runtime.spec import StepSpec

from ..formats import operators, saved_model
from ..formats.frozen import frozen_once, node_names
from ..report.table import told
from ..step.contract import Step
from .audit import Audit
from .diagnosis import diagnosis
from .functions import FunctionEngine
from .mistakes import own_mutated
from .own_weights import holding, own_run
from .proofs import prove
from .runs import SEEDS, STEPS, Runs, Say, reference_runs
from .structure import strange_file, strange_tensors


def judge_candidate(candidate: Candidate, runs: Runs, *, mistakes: bool = True) -> Iterator[Finding]:
    """Every level of one candidate, in the order of docs/parity.md.

    One whose structure is wrong, or that does not open, ends there.
    """
    label = candidate.label
    found = attempt(Level.STRUCTURE, label, partial(levels.structure, candidate))
    yield found
    if not found.passed:
        return
    path = candidate.path if isinstance(candidate.path, Path) else None
    audit = cache(partial(Audit.of, path, runs.weights)) if path else None
    if audit:
        yield attempt(Level.WEIGHTS, label, lambda: weights(candidate, audit()))
    engine = candidate.open(1)
    own, computed = None, None
    if audit and candidate.own and candidate.profile.own is not None:
        made = cache(lambda: own_oracle(candidate, runs, audit()))
        computed = attempt(Level.OWN_WEIGHTS, label, lambda: own_weights(candidate, engine, made()))
        own = made() if computed.measures else None
    is_computed_right = own is not None and computed is not None and computed.passed
    found = attempt(Level.ONE_STEP, label, partial(levels.one_step, candidate, engine, runs.main))
    diagnosed = not found.passed
    found = _diagnosed(found, candidate, engine, runs) if diagnosed else found
    yield _cost(found) if is_computed_right else found
    for called, far in runs.saturated.items():
        saturated = partial(levels.saturated, candidate, engine, far, called)
        yield attempt(Level.ONE_STEP, label, saturated, called)
    if computed:
        yield computed
    ran = cache(partial(levels.run_chained, candidate, engine.runner, runs.main))
    for kind, reference in runs.chained.items():
        # Quantized weights are judged on the inputs in use. Others drive the states where nobody goes;
        # there they must stay finite, and what they cost is label.
        judged = candidate.profile.units is not None or reference is runs.main
        one = candidate if judged else replace(candidate, profile=Profile())
        results = ran if reference is runs.main else None
        chained = partial(levels.chained, one, engine, reference, kind, results)
        found = attempt(Level.CHAINED, label, chained, kind)
        found = _unless_chaotic(found, one, reference)
        if reference is runs.main and found.verdict is Verdict.FAILED and not diagnosed:
            found = _diagnosed(found, candidate, engine, runs)
        yield _cost(found) if is_computed_right else found
    if candidate.batched:
        found = attempt(Level.BATCH, label, partial(levels.batch, candidate, engine, runs.main))
        yield _unless_chaotic(found, candidate, runs.main)
    if runs.greedy is not None:
        free_run = partial(levels.free_run, candidate, engine, runs.greedy)
        yield attempt(Level.FREE_RUN, label, free_run)
    found = attempt(Level.SEMANTICS, label, partial(semantics, candidate, engine, runs.main))
    yield _unless_chaotic(found, candidate, runs.main)
    yield attempt(Level.SEMANTICS, label, lambda: run_twice(candidate, runs.main, ran()), TWICE)
    if mistakes:
        judged_closely = candidate.profile.units is not None
        graphs = {m: g for m, g in runs.graphs.items() if judged_closely or m.is_coarse}
        yield from sensitivity(candidate, engine, runs.main, graphs, own)


def _cost(finding: Finding) -> Finding:
    """A failure of what is computed as it should be: rounding the weights is what costs too much."""
    if finding.verdict is not Verdict.FAILED or finding.measures is None:
        return finding
    words = "rounding costs this model too much, and it is computed as its weights say"
    return replace(finding, failure=f"{words}: {finding.failure}")


def own_oracle(candidate: Candidate, runs: Runs, audit: Audit) -> Own | None:
    """The oracle of a quantized artefact's own weights; None where they are not all known."""
    if audit.held is None or runs.step is None or not audit.held.keys() <= node_names(runs.step):
        return None
    run = own_run(runs.step, runs.main, audit.held, candidate.profile.rounds)
    return Own(run, partial(own_mutated, runs.step, run, holding(audit.held)))


def own_weights(candidate: Candidate, engine: Engine, own: Own | None) -> Finding:
    """Whether a quantized artefact computes as its own weights say."""
    if own is None:
        return Finding(Level.OWN_WEIGHTS, candidate.label, True, "not known")
    return levels.own_weights(candidate, engine, own.run)


def _unless_chaotic(finding: Finding, candidate: Candidate, reference: Reference) -> Finding:
    """What 8 bits move, a chaotic chain carries anywhere: it tells nothing of a quantized candidate."""
    if not reference.of or candidate.profile.units is not None or finding.passed:
        return finding
    moved = finding.measures is not None and math.isfinite(finding.measures.largest)
    if not moved and not finding.failure.startswith("with two threads: "):
        return finding
    words = f"the model is chaotic from step {reference.steps}, single steps are judged"
    return replace(finding, void=True, failure=f"{words}; {finding.failure}")


def _diagnosed(finding: Finding, candidate: Candidate, engine: Engine, runs: Runs) -> Finding:
    """The failure, and what is wrong with the candidate where that is a usual mistake."""
    if runs.step is None:
        return finding
    try:
        words = diagnosis(runs.step, runs.main, levels.run_chained(candidate, engine.runner, runs.main))
    except Exception:  # it has been told already that it does not run
        return finding
    return replace(finding, failure=f"it looks as if {words}: {finding.failure}") if words else finding


def weights(candidate: Candidate, audit: Audit) -> Finding:
    """Every weight of the model in what the artefact holds; of a graph of another tool it is only told."""
    matches = audit.matches
    found = {v: [m for m in matches if m.verdict == v] for v in dict.fromkeys(m.verdict for m in matches)}
    summary = f"{sum(m.is_right for m in matches)} of {len(matches)}"
    told = {m.weight: f"{m.weight} is {m.verdict}{f': {m.words}' if m.words else ''}" for m in matches}
    failure = "; ".join(told[m.weight] for m in matches if m.is_wrong and candidate.own)
    words = "; ".join(told[m.weight] for m in matches if not m.is_right)
    figures = {verdict: [m.weight for m in some] for verdict, some in found.items()} | {"words": words}
    return Finding(Level.WEIGHTS, candidate.label, not failure, summary, failure, figures)


def transform(step: Step) -> Finding:
    """The chained step in TensorFlow against the original whole-sequence Keras model, and causality."""
    proofs = prove(step)
    if proofs is None:
        return Finding(Level.TRANSFORM, STEP, True, "not compared: no whole-sequence model was given")
    summary = f"{proofs.transform:.2g} u, {proofs.read} layers read"
    if proofs.by_test_only:
        summary += f", shown by test only: {', '.join(proofs.by_test_only)}"
    figures = vars(proofs) | {"by_test_only": [*proofs.by_test_only]}  # as it is read back
    return Finding(Level.TRANSFORM, STEP, True, summary, figures=figures)


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
        if manifest.start is not None:
            spec = manifest.start.spec
            candidates += [artefact_candidate(path / a.path, a, spec) for a in manifest.start.artefacts]
        same = same_contract(manifest, step)
        return [same], candidates if same.passed else []
    from .renamed import foreign_candidate

    return [], [foreign_candidate(path, step.spec, names, PROFILES[profile or "float32"])]


def same_contract(manifest: Manifest, step: Step) -> Finding:
    """Whether the bundle's step has the names, shapes and dtypes of the reference's."""
    pairs = [("its ", manifest.step, step.spec)]
    if manifest.start or step.start:
        none = StepSpec((), (), ())
        start, own = manifest.start.spec if manifest.start else none, step.start.spec if step.start else none
        pairs.append(("its start's ", start, own))
    differences = [
        f"{whose}{part} are {got}, expected {expected}"
        for whose, spec, own_spec in pairs
        for part, expected in own_spec.to_record().items()
        if (got := spec.to_record()[part]) != expected
    ]
    summary = f"{len(manifest.files)} files as listed"
    return Finding(Level.STRUCTURE, BUNDLE, not differences, summary, "; ".join(differences))


def artefact_candidate(
    path: Path, artefact: Artefact, spec: StepSpec, profile: str | None = None
) -> Candidate:
    """One artefact as a candidate, judged by the profile of its variant unless another is named."""
    judged = PROFILES[profile or artefact.variant]
    if artefact.format == "saved_model":
        loaded = cache(partial(saved_model.signature, path))
        return Candidate(
            artefact.name,
            "tensorflow",
            spec,
            judged,
            # TensorFlow's threads are the process's.
            cache(lambda threads: FunctionEngine(loaded(), spec)),
            wide=True,
            look=lambda: _strange_saved_model(loaded(), spec),
            path=path,
        )
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


def _strange_saved_model(function: Any, spec: StepSpec) -> list[str]:
    problems = strange_tensors(*saved_model.declared(function), spec)
    try:
        operators.check_tensorflow(function.graph.as_graph_def())
    except ExportError as error:
        problems.append(str(error))
    return problems


@frozen_once()
def judge_all(
    step: Step,
    candidates: Sequence[Candidate],
    *,
    text: str | None = None,
    vocabulary: Vocabulary | None = None,
    steps: int = STEPS,
    seeds: int = SEEDS,
    given: dict[str, Arrays] | None = None,
    long: bool = False,
    say: Say = lambda line: None,
) -> list[Finding]:
    """The whole contract over all candidates; `say` is told each stage as it comes."""
    findings = [transform(step)]
    say(f"transform: {findings[0].summary}")
    if not candidates:
        return findings
    made = reference_runs(
        step,
        text=text,
        vocabulary=vocabulary,
        steps=steps,
        seeds=seeds,
        given=given,
        long=long,
        say=say,
    )
    runs = {step.spec: made}
    if step.start:
        runs[step.start.spec] = reference_runs(step.start, steps=steps, seeds=1, kinds=1)
    for candidate in candidates:
        found = list(judge_candidate(candidate, runs[candidate.spec]))
        findings += found
        say(told(candidate.label, found))
    return findings
