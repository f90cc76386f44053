"""Streams are what they seem: nothing of one shows in another, nor in itself after a reset."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engines import Engine, Tensors
from ..spec import NEXT
from .findings import Finding, Level
from .levels import BATCH, Candidate, begin, judge, run_chained
from .reference import Arrays, Reference, chain

STEPS = 48
TWICE, TWO_THREADS = "run twice", "two threads"


def semantics(candidate: Candidate, engine: Engine, reference: Reference) -> Finding:
    """Streams are what they seem: reset, interleaving, batch rows and snapshots, bit for bit."""
    part = reference.part(slice(0, STEPS), slice(0, 1))
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
    if candidate.batched:
        same("beside other rows", *_beside_rows(engine, part, other))
    return Finding(
        Level.SEMANTICS,
        candidate.label,
        not failures,
        "ok" if not failures else "FAILED",
        "; ".join(failures),
    )


def two_threads(candidate: Candidate, reference: Reference) -> Finding:
    """One stream on an engine of two threads, which may add in another order."""
    part = reference.part(slice(0, STEPS), slice(0, 1))
    results = chain(candidate.open(2).runner(1), part.inputs, part.state)
    return judge(Level.SEMANTICS, candidate, part, results, ["seed 0"], TWO_THREADS)


def run_twice(candidate: Candidate, reference: Reference, first: Arrays) -> Finding:
    """The whole run once more, on an engine that is opened anew: bit for bit what it gave `first`.

    What differs and is within the limits is chance, of which so many steps tell only so much.
    """
    again = run_chained(candidate, candidate.open(1).runner, reference)
    number = reference.steps * reference.batch
    others = np.zeros((reference.steps, reference.batch), bool)
    for name, array in first.items():
        others |= (array != again[name]).reshape(*others.shape, -1).any(axis=-1)
    label, count = candidate.label, int(others.sum())
    # With 95 % confidence a chance of p a step shows in 3 / p steps.
    figures: dict[str, Any] = {"steps": number, "differ": count, "unseen_below": 3 / number}
    if not count:
        return Finding(Level.SEMANTICS, label, True, "same bits", figures=figures, case=TWICE)
    step, row = (int(i) for i in np.argwhere(others)[0])
    words = (
        f"of {number:,} steps {count:,} differ from the run before, the first is step {step} of seed {row}: "
        f"it is chance, of which a run this long shows no more than 1 in {number // 3:,}; a fault of 1 in "
        "100,000 steps needs 300,000 of them (--steps, --seeds)"
    )
    return Finding(Level.SEMANTICS, label, False, "chance", words, figures, case=TWICE, void=True)


def _slice(results: Arrays, steps: slice) -> Arrays:
    return {n: a[steps] for n, a in results.items()}


def _interleaved(engine: Engine, part: Reference, other: Tensors) -> Arrays:
    """The part's stream, stepped in turn with another one on its own runner."""
    runners = engine.runner(1), engine.runner(1)
    for runner in runners:
        begin(runner, part.state)
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
