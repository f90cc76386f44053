"""A check that cannot fail is void: candidates with a known mistake, each of which must be rejected."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..engines import Engine, Runner, Tensors
from ..errors import OutOfRange
from ..spec import StepSpec
from .findings import Finding, Level, Words, attempt
from .levels import Candidate, as_computed, judge, run_chained
from .reference import Arrays, Reference, chain

STEPS = 256


class Mistake(Words):
    """A mistake that people make, as a person reads it."""

    SWAPPED = "two states swapped"
    STALE = "state one step stale"
    ZEROED = "state zeroed"
    SHIFTED = "vocabulary shifted by one"
    ONE_PERCENT = "one weight off by 1 %"
    PERMUTED = "gates permuted"

    @property
    def is_coarse(self) -> bool:
        """Whether it changes more than weights of 8 bits do, so that every profile must see it."""
        return self is not Mistake.ONE_PERCENT


class Mutant:
    """A runner that makes one mistake with its states or its tokens; everything else is the real one's."""

    def __init__(
        self, runner: Runner, mistake: Mistake, spec: StepSpec, swap: tuple[str, str] | None = None
    ) -> None:
        self._runner = runner
        self._mistake = mistake
        self._swap = swap or swappable(spec)
        self._tokens = spec.inputs[0].tokens
        self._before = runner.get_state()
        self.inputs = runner.inputs
        self.outputs = runner.outputs

    def run(self) -> None:
        """Take one time step, with the mistake."""
        if self._mistake is Mistake.SHIFTED and self._tokens:
            (x,) = self.inputs.values()
            x[...] = (x + 1) % self._tokens
        state = self._runner.get_state()
        if self._mistake is Mistake.ZEROED:
            self._runner.set_state({n: np.zeros_like(a) for n, a in state.items()})
        elif self._mistake is Mistake.STALE:
            self._runner.set_state(self._before)
            self._before = state
        self._runner.run()
        if self._mistake is Mistake.SWAPPED and self._swap:
            state, (a, b) = self._runner.get_state(), self._swap
            self._runner.set_state(state | {a: state[b], b: state[a]})

    def set_state(self, state: Tensors) -> None:
        """Copy states in, by name."""
        self._before = {n: np.array(a, np.float32) for n, a in state.items()}
        self._runner.set_state(state)

    def get_state(self) -> Arrays:
        """Copies of the states, by name."""
        return self._runner.get_state()


def swappable(spec: StepSpec) -> tuple[str, str] | None:
    """Two states of one shape, which could be swapped without an error."""
    pairs = (
        (a.name, b.name)
        for i, a in enumerate(spec.states)
        for b in spec.states[i + 1 :]
        if a.shape == b.shape
    )
    return next(pairs, None)


def mistakes(spec: StepSpec) -> list[Mistake]:
    """The mistakes that a model of this contract can suffer."""
    found = [Mistake.STALE, Mistake.ZEROED] if spec.states else []
    if swappable(spec):
        found.insert(0, Mistake.SWAPPED)
    if spec.is_language_model:
        found.append(Mistake.SHIFTED)
    return found


def judged_part(reference: Reference) -> Reference:
    """The part of a run on which every mistake must be rejected."""
    return reference.part(slice(0, STEPS), slice(0, 1))


@dataclass(frozen=True)
class Own:
    """The oracle of an artefact's own weights: a run of short chains, and mistakes in a graph of these."""

    run: Reference
    mutated: Callable[[Mistake], Arrays | None] = lambda mistake: None  # what a mistaken graph gives over it


def sensitivity(
    candidate: Candidate,
    engine: Engine,
    reference: Reference,
    graphs: Mapping[Mistake, Arrays] | None = None,
    own: Own | None = None,
) -> Iterator[Finding]:
    """Each mistake must be rejected by the very judgement that passes the candidate; else that cannot tell.

    `graphs` are what graphs with a mistake in their weights give over `judged_part`. What changes less than
    the profile of a quantized candidate may be off is asked of the oracle of its `own` weights too.
    """
    part = judged_part(reference)

    def finding(mistake: Mistake) -> Finding:
        results = (graphs or {}).get(mistake)
        if results is None:
            try:
                results = chain(Mutant(engine.runner(1), mistake, candidate.spec), part.inputs, part.state)
            except OutOfRange as error:  # no state of the model is that large
                return Finding(
                    Level.SENSITIVITY, candidate.label, True, f"{error.name}: out", case=str(mistake)
                )
        found = judge(Level.SENSITIVITY, candidate, part, results, case=str(mistake))
        if found.passed and own is not None:
            results = own.mutated(mistake) if mistake in (graphs or {}) else own_results(mistake, own.run)
            if results is not None:
                closely = as_computed(candidate)
                found = judge(Level.SENSITIVITY, closely, own.run, results, own.run.rows, str(mistake))
        units = found.measures.largest if found.measures else math.inf
        failure = (
            f"{mistake}: not rejected ({units:.3g} units off): over this run the mistake changes nothing "
            "that is judged"
        )
        return replace(
            found,
            passed=not found.passed,
            void=found.passed,
            summary=f"{units:.1e} u",
            failure=failure if found.passed else "",
            measures=None,
        )

    def own_results(mistake: Mistake, run: Reference) -> Arrays:
        return run_chained(candidate, lambda rows: Mutant(engine.runner(rows), mistake, candidate.spec), run)

    for mistake in [*mistakes(candidate.spec), *(graphs or {})]:
        yield attempt(Level.SENSITIVITY, candidate.label, partial(finding, mistake), str(mistake))
