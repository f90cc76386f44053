"""The levels of parity that a candidate is put through, each ending in a finding in words.

docs/parity.md is the specification. Nothing here needs TensorFlow: the reference is a run that was
recorded, or is being made, by whoever calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..bundle.packed import Place
from ..engines import Engine, Runner, Tensors
from ..spec import NEXT, StepSpec
from .findings import Finding, Label, Level
from .measure import measure
from .profiles import Profile
from .reference import SINGLES, Arrays, Reference, chain, single_places, single_rows

BATCH, BATCH_STEPS = 3, 128
BATCHES = (2, BATCH, 8, 64)
TOKENS_AT_ONCE = 64
LONG = ", long"  # what the kind of an input ends in whose run is long


@dataclass(frozen=True)
class Candidate:
    """A graph in an engine, to be judged by a profile.

    `open` makes the engine anew with a number of threads. `wide` says that a run of many rows is stepped
    as one batch, which is quicker where a call costs more than its arithmetic. `look` tells what in the
    file itself, before it runs, is not as the spec says.
    """

    name: str  # the artefact
    engine: str
    spec: StepSpec
    profile: Profile
    open: Callable[[int], Engine]
    wide: bool = False
    look: Callable[[], list[str]] = list
    batched: bool = True  # takes several rows; a graph of another tool may be fixed at one
    path: Place | None = None  # the file or folder, for its size
    own: bool = True  # written by an export; of a graph of another tool some things are told, not judged

    @property
    def label(self) -> Label:
        """Who it is in findings."""
        return Label(self.name, self.engine)


@dataclass(frozen=True)
class Greedy:
    """The reference's own greedy text: tokens `[steps, rows]`, and how far its best is before its second.

    The first `prompt` tokens are given; token t + 1 is the likeliest after token t from there on. It
    begins at `state`, `[1, size...]` by name; zero if None.
    """

    tokens: NDArray[np.int32]
    gaps: NDArray[np.float32]  # [steps, rows]: the best logit less the second best, after token t
    unit: float  # the largest of any logit over this text
    prompt: int
    state: Arrays | None = None


def run_chained(candidate: Candidate, runner: Callable[[int], Runner], reference: Reference) -> Arrays:
    """The candidate's results over the reference's inputs, row by row unless it is `wide`."""
    if candidate.wide or reference.batch == 1:
        return chain(runner(reference.batch), reference.inputs, reference.state)
    one = runner(1)
    rows = [reference.part(slice(0, None), slice(r, r + 1)) for r in range(reference.batch)]
    results = [chain(one, row.inputs, row.state) for row in rows]
    return {name: np.concatenate([r[name] for r in results], axis=1) for name in results[0]}


def judge(
    level: Level,
    candidate: Candidate,
    reference: Reference,
    results: Arrays,
    rows: Sequence[str] | None = None,
    case: str = "",
) -> Finding:
    """Measure results against the reference by the candidate's profile; `rows` names its rows in words.

    Where a chain is beyond the units of the profile, each of its steps is judged alone, from the states that
    the candidate gave itself: a model may magnify what is right at every step.
    """
    profile = candidate.profile.for_decisions(reference.steps, reference.batch)
    measures = measure(candidate.spec, reference, results, profile, rows)
    summary = measures.told(candidate.spec, profile)
    if profile.units and measures.breach and reference.steps > 1 and (alone := _alone(reference, results)):
        closely = measure(candidate.spec, alone, results, profile, rows)
        if closely.passed:
            figures = measures.to_record() | {"alone": closely.units, "passed": True}
            words = f"{measures.largest:.2g} u, each step {closely.told(candidate.spec, profile)}"
            return Finding(level, candidate.label, True, words, "", figures, measures, case)
    failure = "; ".join(measures.failures)
    return Finding(
        level, candidate.label, measures.passed, summary, failure, measures.to_record(), measures, case
    )


def _alone(reference: Reference, results: Arrays) -> Reference | None:
    """What the oracle gives at each step of a candidate's run from the states that the candidate had then."""
    if not (reference.stepped and reference.singles):  # a run that was recorded
        return None
    reached = {n.removeprefix(NEXT): a for n, a in results.items() if n.startswith(NEXT)}
    before = {n: np.concatenate([begin[np.newaxis], reached[n][:-1]]) for n, begin in reference.begin.items()}
    flat = [{n: a.reshape(-1, *a.shape[2:]) for n, a in some.items()} for some in (reference.inputs, before)]
    exact = {n: a.reshape(reference.results[n].shape) for n, a in reference.stepped(*flat).items()}
    return replace(reference, results=exact, units=reference.singles.units)


def structure(candidate: Candidate) -> Finding:
    """What the file declares, and what one step gives: every name, its shape and dtype, at batch 1 and 3."""
    problems = candidate.look() or _strange_results(candidate)
    return Finding(Level.STRUCTURE, candidate.label, not problems, "ok", "; ".join(problems))


def _strange_results(candidate: Candidate) -> list[str]:
    """What a step on zeros gives back otherwise than the spec says."""
    spec, problems = candidate.spec, []
    engine = candidate.open(1)
    tensors = [*((t, t.name) for t in spec.outputs), *((t, NEXT + t.name) for t in spec.states)]
    for rows in (1, BATCH) if candidate.batched else (1,):
        inputs = {t.name: np.zeros((1, *t.array_shape(rows)), t.dtype) for t in spec.inputs}
        results = chain(engine.runner(rows), inputs)
        for tensor, name in tensors:
            got, expected = results[name][0], tensor.array_shape(rows)
            if (got.shape, got.dtype) != (expected, np.float32):
                given = f"{got.dtype} {list(got.shape)} at batch {rows}"
                problems.append(f"{name} is {given}, expected float32 {list(expected)}")
    return problems


def chained(
    candidate: Candidate,
    engine: Engine,
    reference: Reference,
    kind: str = "",
    ran: Callable[[], Arrays] | None = None,
) -> Finding:
    """The whole run, each seed fed with the candidate's own states; `ran` gives it where there is one."""
    results = ran() if ran else run_chained(candidate, engine.runner, reference)
    seeds = [f"seed {r}" for r in range(reference.batch)]
    found = judge(Level.CHAINED, candidate, reference, results, seeds, kind)
    words = found.summary
    if kind.endswith(LONG) and found.measures and found.measures.drift:
        words += ", drift {:+.2g} ± {:.2g} u a thousand steps".format(*found.measures.drift)
    if reference.of:
        words += f", chaotic from step {reference.steps} of {reference.of}"
    return replace(found, summary=words)


def one_step(candidate: Candidate, engine: Engine, reference: Reference) -> Finding:
    """Single steps: from the beginning, and from states reached all along a run.

    Each token alone must give numbers.
    """
    singles = reference.singles or _singles_of(reference)
    if candidate.profile.units is None:  # tokens that a text does not have are not in use
        singles = singles.part(slice(0, 1), slice(0, SINGLES))
    found = judge(
        Level.ONE_STEP, candidate, singles, run_chained(candidate, engine.runner, singles), singles.rows
    )
    if found.passed and (failure := _strange_tokens(candidate, engine)):
        return replace(found, passed=False, failure=failure)
    return found


def saturated(candidate: Candidate, engine: Engine, reference: Reference, called: str) -> Finding:
    """Single steps from states at the ends of what a run reached, or beyond, which are `called` so.

    Nobody goes there, so that quantized weights must only stay finite.
    """
    far = replace(candidate, profile=Profile(units=candidate.profile.units))
    rows = [f"row {r} of {called}" for r in range(reference.batch)]
    return judge(
        Level.ONE_STEP, far, reference, run_chained(candidate, engine.runner, reference), rows, called
    )


def own_weights(candidate: Candidate, engine: Engine, own: Reference) -> Finding:
    """Short chains, and single steps of every token, against the oracle of the artefact's own weights."""
    closely = as_computed(candidate)
    results = run_chained(candidate, engine.runner, own)
    found = judge(Level.OWN_WEIGHTS, closely, own, results, own.rows)
    if own.singles is None or not found.passed:
        return found
    results = run_chained(candidate, engine.runner, own.singles)
    singles = judge(Level.OWN_WEIGHTS, closely, own.singles, results, own.singles.rows)
    worse = max(found, singles, key=lambda f: f.measures.largest if f.measures else 0.0)
    return worse if singles.passed else singles


def own_weights_in_batches(candidate: Candidate, engine: Engine, own: Reference) -> Finding:
    """The short chains stepped in batches of every size; the first that is beyond the limit, or the last."""
    closely = as_computed(candidate)
    for rows in (min(size, own.batch) for size in BATCHES):
        runner = engine.runner(rows)
        for begin in range(0, own.batch - rows + 1, rows):
            cut = own.part(slice(0, None), slice(begin, begin + rows))
            results = chain(runner, cut.inputs, cut.begin)
            found = judge(Level.BATCH, closely, cut, results, cut.rows)
            if not found.passed:
                return found
    return found


def as_computed(candidate: Candidate) -> Candidate:
    """The candidate judged by how it computes with its own weights, whatever they cost."""
    return replace(candidate, profile=Profile(units=candidate.profile.own))


def _singles_of(reference: Reference) -> Reference:
    """Of a run that was recorded without them, whose units are those of the whole run."""
    places = single_places(reference.steps, reference.batch)
    parts = [reference.part(slice(t, t + 1), slice(row, row + 1)) for t, row in places]
    return Reference.beside(parts, single_rows(places))


def _strange_tokens(candidate: Candidate, engine: Engine) -> str:
    """What is no number after a token, alone and from the beginning: a run may never meet it."""
    spec = candidate.spec
    x = next((t for t in spec.inputs if t.tokens is not None and not t.shape), None)
    if x is None or x.tokens is None:
        return ""
    rows = min(TOKENS_AT_ONCE, x.tokens) if candidate.batched else 1
    runner = engine.runner(rows)
    inputs = {t.name: np.zeros((1, *t.array_shape(rows)), t.dtype) for t in spec.inputs}
    for begin in range(0, x.tokens, rows):
        tokens = np.minimum(np.arange(begin, begin + rows), x.tokens - 1)
        for name, result in chain(runner, inputs | {x.name: tokens[np.newaxis].astype(x.dtype)}).items():
            # An output may be infinite, as the logarithm of nothing is; no stream goes on from such a state.
            bad = np.isnan(result[0]) if name in runner.outputs else ~np.isfinite(result[0])
            if bad.any():
                token = tokens[bad.reshape(rows, -1).any(axis=1)][0]
                return f"{name} is not finite after the token {token} alone"
    return ""


def batch(candidate: Candidate, engine: Engine, reference: Reference) -> Finding:
    """Two, three, eight and 64 rows, cut from one run at different steps, stepped together."""
    found = [_batch_of(rows, candidate, engine, reference) for rows in BATCHES]
    failed = [f for f in found if not f.passed]
    return failed[0] if failed else max(found, key=lambda f: f.measures.largest if f.measures else 0.0)


def _batch_of(rows: int, candidate: Candidate, engine: Engine, reference: Reference) -> Finding:
    length = max(1, min(BATCH_STEPS if rows <= BATCH else BATCH_STEPS // 8, (reference.steps - 1) // 2))
    begins = [int(t) for t in np.linspace(1, max(1, reference.steps - length), rows)]
    cut = Reference.beside([reference.part(slice(t, t + length), slice(0, 1)) for t in begins])
    called = [f"row {r} of {rows}, cut from step {t} of seed 0" for r, t in enumerate(begins)]
    return judge(Level.BATCH, candidate, cut, chain(engine.runner(rows), cut.inputs, cut.state), called)


def free_run(candidate: Candidate, engine: Engine, greedy: Greedy) -> Finding:
    """Where the candidate's greedy text leaves the reference's, and whether the two best were that close.

    A float32 departure is excused where the reference's gap between its two best is below twice what the
    profile allows a logit to be off on this text. A quantized one is told and not judged: its largest error
    is as large as most gaps, and same-top-1 has asked the same question already.
    """
    error = (candidate.profile.units or 0.0) * greedy.unit
    departures: list[int | None] = []
    failure = ""
    for row in range(greedy.tokens.shape[1]):
        tokens = greedy.tokens[:, row]
        step = _departure(engine.runner(1), tokens, greedy)
        departures.append(step)
        judged = candidate.profile.units is not None and not failure
        if step is not None and judged and not greedy.gaps[step, row] < 2 * error:
            failure = (
                f"the greedy text departs at step {step} of seed {row} (expected token {tokens[step + 1]}), "
                f"where the reference's best is {greedy.gaps[step, row]:.3g} before its second, and a logit "
                f"may be {error:.3g} off"
            )
    left = [d for d in departures if d is not None]
    summary = "same" if not left else f"leaves at {min(left)}"
    figures = {"departures": departures, "steps": len(greedy.tokens), "error": error}
    return Finding(Level.FREE_RUN, candidate.label, not failure, summary, failure, figures)


def _departure(runner: Runner, tokens: NDArray[np.int32], greedy: Greedy) -> int | None:
    begin(runner, greedy.state)
    (x,), (y,) = runner.inputs.values(), runner.outputs.values()
    for t in range(len(tokens) - 1):
        x[0] = tokens[t]
        runner.run()
        if t + 1 >= greedy.prompt and int(y[0].argmax()) != tokens[t + 1]:
            return t
    return None


def begin(runner: Runner, state: Tensors | None = None) -> None:
    """Set the states a stream begins with; zero if None."""
    runner.set_state(state or {n: np.zeros_like(a) for n, a in runner.get_state().items()})
