"""The levels of parity that a candidate is put through, each ending in a finding in words.

docs/parity.md is the specification. Nothing here needs TensorFlow: the reference is a run that was
recorded, or is being made, by whoever calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .engines import Engine, Runner, Tensors
from .parity import Arrays, Measures, Profile, Reference, chain, measure
from .spec import NEXT, StepSpec

BATCH, BATCH_STEPS = 3, 128
SEMANTIC_STEPS = 48
MUTANT_STEPS = 256


@dataclass(frozen=True)
class Candidate:
    """A graph in an engine, to be judged by a profile.

    `open` makes the engine anew with a number of threads. `wide` says that a run of many rows is stepped
    as one batch, which is quicker where a call costs more than its arithmetic.
    """

    name: str  # the artefact
    engine: str
    spec: StepSpec
    profile: Profile
    open: Callable[[int], Engine]
    wide: bool = False

    @property
    def label(self) -> str:
        """As a person would call it."""
        return f"{self.name} in {self.engine}"


@dataclass(frozen=True)
class Finding:
    """What one level found of one candidate."""

    level: str
    candidate: str
    passed: bool
    summary: str  # a few words
    failure: str = ""  # the first breach in words; empty if passed
    figures: dict[str, Any] = field(default_factory=dict)
    measures: Measures | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Greedy:
    """The reference's own greedy text: tokens `[steps, rows]`, and how far its best is before its second.

    The first `prompt` tokens are given; token t + 1 is the likeliest after token t from there on.
    """

    tokens: NDArray[np.int32]
    gaps: NDArray[np.float32]  # [steps, rows]: the best logit less the second best, after token t
    prompt: int


def run_chained(candidate: Candidate, runner: Callable[[int], Runner], reference: Reference) -> Arrays:
    """The candidate's results over the reference's inputs, row by row unless it is `wide`."""
    if candidate.wide or reference.batch == 1:
        return chain(runner(reference.batch), reference.inputs, reference.state)
    one = runner(1)
    rows = [reference.part(slice(0, None), slice(r, r + 1)) for r in range(reference.batch)]
    results = [chain(one, row.inputs, row.state) for row in rows]
    return {name: np.concatenate([r[name] for r in results], axis=1) for name in results[0]}


def judge(level: str, candidate: Candidate, reference: Reference, results: Arrays) -> Finding:
    """Measure results against the reference by the candidate's profile."""
    measures = measure(candidate.spec, reference, results, candidate.profile)
    failure = "; ".join(measures.failures)
    summary = f"{measures.largest:.2g} u"
    return Finding(level, candidate.label, measures.passed, summary, failure, measures.to_record(), measures)


def one_step(
    candidate: Candidate, engine: Engine, reference: Reference, saturated: Reference | None
) -> Finding:
    """Single steps: from the beginning, from sixteen states reached in a run, and from saturated ones."""
    runner = engine.runner(1)
    starts = sorted({int(t) for t in np.linspace(0, reference.steps - 1, 17)})
    parts = [reference.part(slice(t, t + 1), slice(0, 1)) for t in starts]
    results = [chain(runner, part.inputs, part.state) for part in parts]
    joined = Reference(
        {n: np.concatenate([p.inputs[n] for p in parts], axis=1) for n in reference.inputs},
        {n: np.concatenate([p.results[n] for p in parts], axis=1) for n in reference.results},
        reference.units,
    )
    together = {n: np.concatenate([r[n] for r in results], axis=1) for n in results[0]}
    found = judge("one step", candidate, joined, together)
    if saturated is None or not found.passed:
        return found
    far = judge("one step", candidate, saturated, run_chained(candidate, engine.runner, saturated))
    worse = max(found, far, key=lambda f: f.measures.largest if f.measures else 0.0)
    return worse if far.passed else far


def batch(candidate: Candidate, engine: Engine, reference: Reference) -> Finding:
    """Three rows cut from one run at different steps, stepped together."""
    length = min(BATCH_STEPS, (reference.steps - 1) // BATCH)
    parts = [reference.part(slice(1 + r * length, 1 + (r + 1) * length), slice(0, 1)) for r in range(BATCH)]
    rows = Reference(
        {n: np.concatenate([p.inputs[n] for p in parts], axis=1) for n in reference.inputs},
        {n: np.concatenate([p.results[n] for p in parts], axis=1) for n in reference.results},
        reference.units,
        {n: np.concatenate([(p.state or {})[n] for p in parts]) for n in parts[0].state or {}},
    )
    return judge("batch", candidate, rows, chain(engine.runner(BATCH), rows.inputs, rows.state))


def free_run(candidate: Candidate, engine: Engine, greedy: Greedy, error: float) -> Finding:
    """Where the candidate's greedy text leaves the reference's, and whether the two best were that close.

    `error` is the largest error of a logit in the chained run. A departure is excused where the
    reference's gap between its two best is below twice that.
    """
    departures: list[int | None] = []
    failure = ""
    for row in range(greedy.tokens.shape[1]):
        tokens = greedy.tokens[:, row]
        step = _departure(engine.runner(1), tokens, greedy.prompt)
        departures.append(step)
        if step is not None and not failure and not greedy.gaps[step, row] < 2 * error:
            failure = (
                f"the greedy text departs at step {step} of row {row}, where the reference's best is "
                f"{greedy.gaps[step, row]:.3g} before its second, and the error of a logit is {error:.3g}"
            )
    left = [d for d in departures if d is not None]
    summary = "same" if not left else f"leaves at {min(left)}"
    figures = {"departures": departures, "steps": len(greedy.tokens), "error": error}
    return Finding("free run", candidate.label, not failure, summary, failure, figures)


def _departure(runner: Runner, tokens: NDArray[np.int32], prompt: int) -> int | None:
    _begin(runner)
    (x,), (y,) = runner.inputs.values(), runner.outputs.values()
    for t in range(len(tokens) - 1):
        x[0] = tokens[t]
        runner.run()
        if t + 1 >= prompt and int(y[0].argmax()) != tokens[t + 1]:
            return t
    return None


def semantics(candidate: Candidate, engine: Engine, reference: Reference) -> Finding:
    """Streams are what they seem: reset, interleaving, batch rows, snapshots, and two threads."""
    part = reference.part(slice(0, SEMANTIC_STEPS), slice(0, 1))
    runner = engine.runner(1)
    first = chain(runner, part.inputs, part.state)
    failures = []

    def same(what: str, got: Arrays, expected: Arrays) -> None:
        different = [n for n in expected if not np.array_equal(got[n], expected[n])]
        if different:
            failures.append(f"{what}: {', '.join(different)} not bit for bit the same")

    same("after a reset", chain(runner, part.inputs, part.state), first)
    half = part.steps // 2
    begin, end = part.part(slice(0, half)), part.part(slice(half, part.steps))
    chain(runner, begin.inputs, begin.state)
    snapshot = runner.get_state()
    other = {n: a[::-1] for n, a in part.inputs.items()}
    chain(runner, other)
    same("restored from a snapshot", chain(runner, end.inputs, snapshot), _slice(first, slice(half, None)))
    same("interleaved with another stream", _interleaved(engine, part, other), first)
    same("beside other rows", *_beside_rows(engine, part, other))
    two = judge("semantics", candidate, part, chain(candidate.open(2).runner(1), part.inputs, part.state))
    if not two.passed:
        failures.append(f"with two threads: {two.failure}")
    return Finding(
        "semantics", candidate.label, not failures, "ok" if not failures else "FAILED", "; ".join(failures)
    )


def _slice(results: Arrays, steps: slice) -> Arrays:
    return {n: a[steps] for n, a in results.items()}


def _interleaved(engine: Engine, part: Reference, other: Tensors) -> Arrays:
    """The part's stream, stepped in turn with another one on its own runner."""
    runners = engine.runner(1), engine.runner(1)
    for runner in runners:
        _begin(runner, part.state)
    rows = []
    for t in range(part.steps):
        for runner, inputs in zip(runners, (part.inputs, other), strict=True):
            for name, array in inputs.items():
                runner.inputs[name][...] = array[t]
            runner.run()
        state = {NEXT + n: a for n, a in runners[0].get_state().items()}
        rows.append({n: a.copy() for n, a in runners[0].outputs.items()} | state)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _beside_rows(engine: Engine, part: Reference, other: Tensors) -> tuple[Arrays, Arrays]:
    """Row 0 of a batch, with two kinds of neighbours."""
    runner = engine.runner(BATCH)
    state = None if part.state is None else {n: np.repeat(a, BATCH, axis=0) for n, a in part.state.items()}
    results = []
    for neighbour in (part.inputs, other):
        inputs = {n: np.concatenate([a, neighbour[n], neighbour[n]], axis=1) for n, a in part.inputs.items()}
        results.append({n: a[:, :1] for n, a in chain(runner, inputs, state).items()})
    return results[0], results[1]


def _begin(runner: Runner, state: Tensors | None = None) -> None:
    runner.set_state(state or {n: np.zeros_like(a) for n, a in runner.get_state().items()})


class Mutant:
    """A runner that makes one mistake with its states or its tokens; everything else is the real one's."""

    def __init__(self, runner: Runner, mistake: str, spec: StepSpec) -> None:
        self._runner = runner
        self._mistake = mistake
        self._swap = swappable(spec)
        self._tokens = spec.inputs[0].tokens
        self._before = runner.get_state()
        self.inputs = runner.inputs
        self.outputs = runner.outputs

    def run(self) -> None:
        """Take one time step, with the mistake."""
        if self._mistake == "vocabulary shifted by one" and self._tokens:
            (x,) = self.inputs.values()
            x[...] = (x + 1) % self._tokens
        state = self._runner.get_state()
        if self._mistake == "state zeroed":
            self._runner.set_state({n: np.zeros_like(a) for n, a in state.items()})
        elif self._mistake == "state one step stale":
            self._runner.set_state(self._before)
            self._before = state
        self._runner.run()
        if self._mistake == "two states swapped" and self._swap:
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


def mistakes(spec: StepSpec) -> list[str]:
    """The mistakes that a model of this contract can suffer."""
    found = ["state one step stale", "state zeroed"]
    if swappable(spec):
        found.insert(0, "two states swapped")
    if spec.is_language_model:
        found.append("vocabulary shifted by one")
    return found


def sensitivity(
    candidate: Candidate, engine: Engine, reference: Reference, graphs: dict[str, Engine] | None = None
) -> Iterator[Finding]:
    """Each mistake must be rejected by the very judgement that passes the candidate; else it is void.

    `graphs` are engines of graphs with a mistake in their weights.
    """
    part = reference.part(slice(0, MUTANT_STEPS), slice(0, 1))
    runners: dict[str, Runner] = {
        m: Mutant(engine.runner(1), m, candidate.spec) for m in mistakes(candidate.spec)
    }
    runners |= {mistake: graph.runner(1) for mistake, graph in (graphs or {}).items()}
    for mistake, runner in runners.items():
        measures = measure(candidate.spec, part, chain(runner, part.inputs, part.state), candidate.profile)
        rejected = not measures.passed
        failure = (
            ""
            if rejected
            else f"{mistake}: not rejected ({measures.largest:.3g} units), so the check is void"
        )
        yield Finding(
            "sensitivity",
            f"{candidate.label}, {mistake}",
            rejected,
            f"{measures.largest:.1e} u",
            failure,
            measures.to_record(),
        )
