"""The runs of the reference that all candidates of a model are judged against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steprnn.runtime.bundle.vocabulary import Vocabulary
from steprnn.runtime.errors import ExportError, UsageError
from steprnn.runtime.parity.levels import LONG as LONG_KIND
from steprnn.runtime.parity.levels import Greedy
from steprnn.runtime.parity.mutants import Mistake
from steprnn.runtime.parity.reference import Arrays, Reference
from steprnn.runtime.parity.reference import chain as chained_run
from steprnn.runtime.spec import NEXT

from ..step.contract import Step
from .audit import Weight, weights_of
from .mistakes import mutated
from .reference import BEYOND, Oracle, constant, input_run, own_text

STEPS, SEEDS = 1024, 8
LONG, LONG_SEEDS = 10_240, 2
GREEDY_STEPS, PROMPT = 256, 4
SATURATED = {"saturated states": 1.0, "states of twice that": 2.0}  # times the largest reached
Say = Callable[[str], None]


@dataclass(frozen=True)
class Runs:
    """What all candidates of a model are judged against, made once."""

    chained: dict[str, Reference]  # kind of input -> run of all seeds; the first is the one in use
    saturated: dict[str, Reference]  # by what they are called; those where the model is finite
    greedy: Greedy | None
    graphs: dict[Mistake, Arrays] = field(default_factory=dict)  # with a mistake in their weights: results
    weights: list[Weight] = field(default_factory=list)  # the model's own
    step: Step | None = None  # of the model
    in_use: Arrays = field(default_factory=dict)  # inputs of the longest run in use, also where it is cut

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
    given: dict[str, Arrays] | None = None,
    long: int = 0,
    say: Say = lambda line: None,
) -> Runs:
    """The oracle's runs: `seeds` streams of `steps` steps of each kind of input, or of the first `kinds`.

    Inputs that are `given`, `[steps, rows, ...]` by name, by what they are called, come first and are the
    ones in use; `long` adds so many streams of LONG steps of what is in use otherwise. `say` is told each as
    it is made. Raises `UsageError` where there is a text and no vocabulary for it, or too little of it.
    """
    oracle = Oracle(step)
    chained: dict[str, Reference] = {}
    made = islice(_inputs(oracle, text, vocabulary, steps, seeds), kinds)
    longer = islice(_inputs(oracle, text, vocabulary, LONG, long), 1 if long else 0)
    every = chain(
        ((kind, inputs, None) for kind, inputs in (given or {}).items()),
        made,
        ((f"{kind}{LONG_KIND}", inputs, tensorflow) for kind, inputs, tensorflow in longer),
    )
    in_use: Arrays = {}
    for kind, inputs, tensorflow in every:
        if not in_use or (kind.endswith(LONG_KIND) and not given):
            in_use = constant(step, inputs)
        try:
            chained[kind] = oracle.run(constant(step, inputs), tensorflow=tensorflow)
        except ExportError as error:
            if not chained:
                raise
            say(f"no reference on {kind}: {error}")
            continue
        say(f"reference on {kind}")
    main = next(iter(chained.values()))
    greedy = None
    if step.spec.is_language_model:
        (tokens,) = main.inputs.values()
        greedy = oracle.greedy(tokens[:PROMPT].astype(np.int32), GREEDY_STEPS)
        say("reference, greedy")
    saturated: dict[str, Reference] = {}
    for called, times in SATURATED.items():
        try:
            saturated[called] = oracle.saturated(main, times)
        except ExportError as error:
            say(f"no reference from {called}: {error}")
    return Runs(chained, saturated, greedy, mutated(step, main), weights_of(step), step, in_use)


def visited(step: Step, inputs: Arrays) -> Arrays:
    """Inputs, and the states before them, `[rows, ...]` by name, of the first half of a run in float32.

    What is `[steps, rows, ...]`: the other half is for a judge that knows nothing of the first.
    """
    oracle = Oracle(step)
    half = {name: array[: -(-len(array) // 2)] for name, array in inputs.items()}
    rows = next(iter(half.values())).shape[1]
    begin = oracle.first_state(rows, half)
    run = chained_run(oracle.float32.runner(rows), {t.name: half[t.name] for t in step.spec.inputs}, begin)
    seen = {t.name: half[t.name] for t in step.spec.inputs}
    for t in step.spec.states:
        seen[t.name] = np.concatenate([begin[t.name][np.newaxis], run[NEXT + t.name][:-1]])
    return {name: array.reshape(-1, *array.shape[2:]) for name, array in seen.items()}


def _inputs(
    oracle: Oracle, text: str | None, vocabulary: Vocabulary | None, steps: int, seeds: int
) -> Iterator[tuple[str, Arrays, Arrays | None]]:
    """Kinds of inputs, and the float32 run over them where it was needed to make them."""
    step = oracle.step
    if step.spec.is_language_model:
        (x,) = step.spec.inputs
        if text is None:
            tokens, tensorflow = own_text(oracle, steps, seeds)
            yield "its own text", {x.name: tokens}, tensorflow
        else:
            yield "text", {x.name: _rows_of(text, vocabulary, steps, seeds)}, None
    uniform = input_run(step, steps, seeds)
    yield "uniform tokens" if step.spec.stepped[0].tokens else "noise", uniform, None
    one = {n: np.broadcast_to(a[:1], a.shape).copy() for n, a in uniform.items()}
    yield "one token repeated" if step.spec.stepped[0].tokens else "a constant signal", one, None
    if any(t.dtype != "int32" for t in step.spec.stepped):
        yield f"{BEYOND:.0f} times the noise", input_run(step, steps, seeds, beyond=BEYOND), None
    if not step.spec.stepped[0].tokens:
        yield "silence", {n: np.zeros_like(a) for n, a in uniform.items()}, None
        yield "steps", {n: np.repeat(a[::64], 64, axis=0)[:steps] for n, a in uniform.items()}, None
        yield "a swelling tone", {n: _tones(a) for n, a in uniform.items()}, None


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
