"""The whole contract: every artefact of a bundle, or one that another tool made, against the Keras model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import cast

from steprnn.runtime.bundle.vocabulary import Vocabulary
from steprnn.runtime.engines import Engine
from steprnn.runtime.errors import OutOfRange
from steprnn.runtime.parity import levels
from steprnn.runtime.parity.findings import STEP, Finding, Level, Verdict, attempt
from steprnn.runtime.parity.levels import LONG as LONG_KIND
from steprnn.runtime.parity.levels import Candidate
from steprnn.runtime.parity.mutants import Own, sensitivity
from steprnn.runtime.parity.profiles import Profile
from steprnn.runtime.parity.reference import Arrays, Reference
from steprnn.runtime.parity.streams import TWICE, TWO_THREADS, run_twice, semantics, two_threads

from ..formats.frozen import frozen_once, node_names
from ..report.table import told
from ..step.contract import Step
from .audit import Audit
from .diagnosis import diagnosis
from .mistakes import own_mutated
from .own_weights import holding, own_run
from .proofs import prove
from .runs import SEEDS, STEPS, Runs, Say, reference_runs


def judge_candidate(candidate: Candidate, runs: Runs, *, mistakes: bool = True) -> Iterator[Finding]:
    """Every level of one candidate, in the order of docs/parity.md.

    One whose structure is wrong, or that does not open, ends there. Without `mistakes` its sensitivity is
    not asked.
    """
    found = attempt(Level.STRUCTURE, candidate.label, partial(levels.structure, candidate))
    yield found
    if found.passed:
        yield from Judgement(candidate, runs).findings(mistakes)


class Judgement:
    """One candidate, and what its levels share, each made when the first of them asks for it."""

    def __init__(self, candidate: Candidate, runs: Runs) -> None:
        self.candidate = candidate
        self.runs = runs
        self.label = candidate.label
        self.engine = candidate.open(1)
        self.quantized = candidate.profile.units is None
        self.integers = candidate.profile.spread is not None  # which hold no state beyond those in use

    def findings(self, mistakes: bool) -> Iterator[Finding]:
        """What each level but the structure found."""
        candidate, engine, main = self.candidate, self.engine, self.runs.main
        if isinstance(candidate.path, Path):
            yield attempt(Level.WEIGHTS, self.label, lambda: weights(candidate, self.audit))
        yield self._one_step
        for called, far in ({} if self.integers else self.runs.saturated).items():
            saturated = partial(levels.saturated, candidate, engine, far, called)
            yield attempt(Level.ONE_STEP, self.label, saturated, called)
        if self._own_weights:
            yield self._own_weights
        for kind, reference in self.runs.chained.items():
            yield self._chained(kind, reference)
        if candidate.batched:
            found = attempt(Level.BATCH, self.label, partial(levels.batch, candidate, engine, main))
            yield self._unless_chaotic(self._costly(found, self.computes_in_batches), main)
        if self.runs.greedy is not None:
            free_run = partial(levels.free_run, candidate, engine, self.runs.greedy)
            yield attempt(Level.FREE_RUN, self.label, free_run)
        yield attempt(Level.SEMANTICS, self.label, partial(semantics, candidate, engine, main))
        found = attempt(Level.SEMANTICS, self.label, partial(two_threads, candidate, main), TWO_THREADS)
        yield self._unless_chaotic(self._costly(found, self.computes_with_two_threads), main)
        yield attempt(Level.SEMANTICS, self.label, lambda: run_twice(candidate, main, self.ran), TWICE)
        if mistakes:
            graphs = {m: g for m, g in self.runs.graphs.items() if m.is_coarse or not self.quantized}
            yield from sensitivity(candidate, engine, main, graphs, self._known)

    @cached_property
    def audit(self) -> Audit:
        """Every weight of the model in what the artefact holds, which is a file."""
        return Audit.of(cast(Path, self.candidate.path), self.runs.weights)

    @cached_property
    def own(self) -> Own | None:
        """The oracle of a quantized artefact's own weights; None where they are not all known."""
        return own_oracle(self.candidate, self.runs, self.audit)

    @cached_property
    def ran(self) -> Arrays:
        """What the candidate gives over the run in use."""
        return levels.run_chained(self.candidate, self.engine.runner, self.runs.main)

    @cached_property
    def _one_step(self) -> Finding:
        one_step = partial(levels.one_step, self.candidate, self.engine, self.runs.main)
        found = attempt(Level.ONE_STEP, self.label, one_step)
        return self._costly(self._diagnosed(found), self.computes)

    @cached_property
    def _own_weights(self) -> Finding | None:
        candidate = self.candidate
        if not (isinstance(candidate.path, Path) and candidate.own and candidate.profile.own is not None):
            return None
        judged = partial(levels.own_weights, candidate, self.engine)
        return attempt(Level.OWN_WEIGHTS, self.label, lambda: own_weights(candidate, self.own, judged))

    @property
    def _known(self) -> Own | None:
        """The oracle that the level of own weights was judged by, where it could be."""
        return self.own if self._own_weights and self._own_weights.measures else None

    def _chained(self, kind: str, reference: Reference) -> Finding:
        # Quantized weights are judged on the inputs in use. Others drive the states where nobody goes;
        # there they must stay finite, and what they cost is told.
        in_use = reference is self.runs.main
        long = self.integers and kind == f"{next(iter(self.runs.chained))}{LONG_KIND}"
        candidate = self.candidate
        if judged_apart := self.quantized and not in_use and not long:
            candidate = replace(candidate, profile=Profile())
        results = (lambda: self.ran) if in_use else None
        chained = partial(levels.chained, candidate, self.engine, reference, kind, results)
        if judged_apart:
            chained = partial(self._within_range, chained, kind)
        found = self._unless_chaotic(attempt(Level.CHAINED, self.label, chained, kind), reference)
        if in_use and not self._one_step.failure:
            found = self._diagnosed(found)
        return self._costly(found, self.computes)

    def _within_range(self, judged: Callable[[], Finding], kind: str) -> Finding:
        """A run on what is not in use; where it leaves the range of integers it ends, and that is told."""
        try:
            return judged()
        except OutOfRange as error:
            words = f"{error.what} {error.name} leaves its {error.limit:.3g}"
            return Finding(Level.CHAINED, self.label, True, words, case=kind)

    def computes(self) -> bool:
        """Whether a quantized candidate computes as its own weights say."""
        return self._known is not None and self._own_weights is not None and self._own_weights.passed

    def computes_in_batches(self) -> bool:
        """The same of several rows at once."""
        if not self.computes():
            return False
        own = own_oracle(self.candidate, self.runs, self.audit, shared=True)
        return self._passes_own(levels.own_weights_in_batches, self.engine, own)

    def computes_with_two_threads(self) -> bool:
        """The same on an engine of two threads."""
        return self.computes() and self._passes_own(levels.own_weights, self.candidate.open(2), self.own)

    def _passes_own(
        self, judged: Callable[[Candidate, Engine, Reference], Finding], engine: Engine, own: Own | None
    ) -> bool:
        found = partial(own_weights, self.candidate, own, partial(judged, self.candidate, engine))
        return attempt(Level.OWN_WEIGHTS, self.label, found).passed

    def _costly(self, finding: Finding, computes: Callable[[], bool]) -> Finding:
        """A breach of the profile by what `computes` as it should: rounding its weights costs too much."""
        if finding.verdict is not Verdict.FAILED or not self._moved(finding) or not computes():
            return finding
        words = "rounding costs this model too much, and it is computed as its weights say"
        return replace(finding, failure=f"{words}: {finding.failure}")

    def _unless_chaotic(self, finding: Finding, reference: Reference) -> Finding:
        """What 8 bits move, a chaotic chain carries anywhere: it tells nothing of a quantized candidate."""
        if not (
            reference.of and self.quantized and finding.verdict is Verdict.FAILED and self._moved(finding)
        ):
            return finding
        words = f"the model is chaotic from step {reference.steps}, single steps are judged"
        return replace(finding, void=True, failure=f"{words}; {finding.failure}")

    @staticmethod
    def _moved(finding: Finding) -> bool:
        """Whether it failed by figures that were measured, and nothing is infinite."""
        return finding.measures is not None and math.isfinite(finding.measures.largest)

    def _diagnosed(self, finding: Finding) -> Finding:
        """A failure, and what is wrong with the candidate where that is a usual mistake."""
        if finding.verdict is not Verdict.FAILED or self.runs.step is None:
            return finding
        try:
            words = diagnosis(self.runs.step, self.runs.main, self.ran)
        except Exception:  # it has been told already that it does not run
            return finding
        return replace(finding, failure=f"it looks as if {words}: {finding.failure}") if words else finding


def own_oracle(candidate: Candidate, runs: Runs, audit: Audit, shared: bool = False) -> Own | None:
    """The oracle of a quantized artefact's own weights; None where they are not all known.

    What it multiplies is rounded by row, or where `shared` by the largest of a batch.
    """
    if audit.held is None or runs.step is None or not audit.held.keys() <= node_names(runs.step):
        return None
    run = own_run(runs.step, runs.main, audit.held, candidate.profile.rounds, shared)
    return Own(run, partial(own_mutated, runs.step, run, holding(audit.held)))


def own_weights(candidate: Candidate, own: Own | None, judged: Callable[[Reference], Finding]) -> Finding:
    """What is `judged` of a quantized artefact over the run of its own weights."""
    return judged(own.run) if own else Finding(Level.OWN_WEIGHTS, candidate.label, True, "not known")


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
    long: int = 0,
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
