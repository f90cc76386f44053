"""What the artefacts are judged by: the Keras model itself, stepped in float32 and in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from steprnn.runtime.engines import Runner
from steprnn.runtime.errors import ExportError
from steprnn.runtime.parity.levels import Greedy
from steprnn.runtime.parity.profiles import OWN, OWN_ROUNDED
from steprnn.runtime.parity.reference import (
    Arrays,
    Reference,
    chain,
    chaotic_from,
    errors_of,
    largest_of,
    single_places,
    single_rows,
    units_of,
)
from steprnn.runtime.sampling.sampler import Sampler, Sampling
from steprnn.runtime.spec import NEXT

from ..formats.frozen import Edit, freeze
from ..formats.splice import spliced
from ..step.contract import Step
from .functions import FunctionEngine
from .scales import scale_of

LEAST_CHAIN = 16  # time steps of a chain, however chaotic
MOVED = 3  # runs of the oracle whose states are moved
BELOW_ONE = 2.0**-24  # the spacing of float32 below 1
BEYOND = 10.0  # times the size that a signal has in use
AT_ONCE = 256  # rows of single steps
MOST_SINGLES = 2**24  # numbers in the results of all single steps


class Oracle:
    """The step in float64, and TensorFlow's own float32 beside it, each frozen once.

    `edit` is done to its graph before. What the edit `rounding`, which draws anew at each step, moves the
    step in float64 is a part of a unit.
    """

    def __init__(self, step: Step, edit: Edit | None = None, rounding: Edit | None = None) -> None:
        self.step = step
        self.exact = FunctionEngine(freeze(step, "float64", edit=edit), step.spec, "float64")
        self.float32 = FunctionEngine(freeze(step, edit=edit), step.spec)
        moved = freeze(step, "float64", edit=rounding) if rounding else None
        self.rounding = FunctionEngine(moved, step.spec, "float64") if moved else None
        self._blunt: FunctionEngine | None = None  # the step with what an activation may be off
        self._reached: Arrays | None = None  # the largest values of the first run, by name and channel

    def first_state(self, batch: int, inputs: Arrays | None = None) -> Arrays:
        """Where a stream of the model begins, in the precision that all candidates begin with."""
        state = initial_state(self.step, batch, inputs)
        return {name: array.astype(np.float32) for name, array in state.items()}

    def run(self, inputs: Arrays, state: Arrays | None = None, tensorflow: Arrays | None = None) -> Reference:
        """The chained run over inputs `[steps, batch, ...]`, with single steps from the states it reached.

        It begins at `state`, `[batch, size...]` by name, or where a stream of the model begins; `tensorflow`
        is that float32 run, where it was made already. A chain is cut where it becomes chaotic. Raises
        `ExportError` where either is not finite: nothing could be judged by it.
        """
        state = self.first_state(next(iter(inputs.values())).shape[1], inputs) if state is None else state
        whole, exact, errors = self._compared(inputs, state, tensorflow)
        return replace(self._cut(whole, exact, errors), singles=self.singles(whole))

    def _compared(
        self,
        inputs: Arrays,
        state: Arrays,
        tensorflow: Arrays | None = None,
        rounding: FunctionEngine | None = None,
    ) -> tuple[Reference, Arrays, Arrays]:
        """A run whose units are TensorFlow's float32 errors; it in float64, and these errors.

        With `rounding`, an error is the largest of TensorFlow's and of a few runs in which that draws.
        """
        rounding = rounding or self.rounding
        rows = next(iter(inputs.values())).shape[1]
        inputs = {t.name: inputs[t.name] for t in self.step.spec.inputs}
        exact = chain(self.exact.runner(rows), inputs, state)
        if tensorflow is None:
            tensorflow = chain(self.float32.runner(rows), inputs, state)
        for precision, run in (("float64", exact), ("float32", tensorflow)):
            _refuse_infinite(precision, run)
        errors = errors_of(exact, tensorflow)
        if rounding:
            if rounding is self.rounding:  # float32, which may be OWN of its units off, is a part of it
                errors = {n: e * (OWN / OWN_ROUNDED) for n, e in errors.items()}
            for _ in range(MOVED):
                moved = errors_of(exact, chain(rounding.runner(rows), inputs, state))
                errors = {n: np.maximum(e, moved[n]) for n, e in errors.items()}
        self._reached = self._reached or largest_of(exact)
        rounded = {name: array.astype(np.float32) for name, array in exact.items()}
        units = units_of(exact, errors, self._reached)
        return Reference(inputs, rounded, units, state, stepped=self.stepped), exact, errors

    def chain(self, inputs: Arrays, state: Arrays) -> Reference:
        """The chained run from a state, without single steps beside it."""
        return self._cut(*self._compared(inputs, state))

    def _cut(self, whole: Reference, exact: Arrays, errors: Arrays) -> Reference:
        """A chain up to where it is chaotic, whose units are what rounding costs in several runs."""
        if whole.state:
            moved = self._moved(exact, whole.inputs, whole.state)
            errors = {n: np.maximum(e, errors[n]) for n, e in moved.items()}
        kept = max(LEAST_CHAIN, chaotic_from(exact, errors))
        _refuse_infinite(
            "float64 with its states moved by a spacing", {n: a[:kept] for n, a in errors.items()}
        )
        exact, errors = ({n: a[:kept] for n, a in run.items()} for run in (exact, errors))
        cut = replace(whole.part(slice(0, kept)), units=units_of(exact, errors, self._reached))
        return cut if kept >= whole.steps else replace(cut, of=whole.steps)

    def stepped(self, inputs: Arrays, state: Arrays) -> Arrays:
        """One step from any states: `[rows, ...]` by name, in and out, computed in float64."""
        rows = len(next(iter(inputs.values())))
        found = []
        for begin in range(0, rows, AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            given = {n: a[np.newaxis, part] for n, a in inputs.items()}
            runner = self.exact.runner(min(AT_ONCE, rows - begin))
            results = chain(runner, given, {n: a[part] for n, a in state.items()})
            found.append({n: a[0].astype(np.float32) for n, a in results.items()})
        return {n: np.concatenate([f[n] for f in found]) for n in found[0]}

    def _moved(self, exact: Arrays, inputs: Arrays, state: Arrays) -> Arrays:
        """How far off the oracle is where all its states are moved by up to a float32 spacing at every step.

        The largest of a few such runs, `[steps, batch, ...]` by name. TensorFlow's float32 is one run, which
        may happen to be right where a model magnifies rounding for a while.
        """
        generator = np.random.default_rng(0)
        errors = {name: np.zeros_like(array) for name, array in exact.items()}
        runner = self.exact.runner(MOVED * next(iter(inputs.values())).shape[1])
        runner.set_state({n: np.concatenate([a] * MOVED) for n, a in state.items()})
        for t in range(len(next(iter(inputs.values())))):
            for name, array in inputs.items():
                runner.inputs[name][...] = np.concatenate([array[t]] * MOVED)
            runner.run()
            after = runner.get_state()
            results = runner.outputs | {NEXT + name: array for name, array in after.items()}
            for name, array in results.items():
                off = np.abs(array.reshape(MOVED, *exact[name][t].shape) - exact[name][t])
                errors[name][t] = off.max(axis=0)
            spacings = {n: np.spacing(np.abs(a).astype(np.float32)) for n, a in after.items()}
            moves = {n: s * generator.uniform(-1, 1, s.shape) for n, s in spacings.items()}
            runner.set_state({n: a + moves[n] for n, a in after.items()})
        return errors

    def singles(self, run: Reference) -> Reference:
        """Single steps from states all along a run, as float32 has them; and then of every token."""
        places = single_places(run.steps, run.batch)
        times, rows = (np.array(axis) for axis in zip(*places, strict=True))
        after = {n: np.concatenate([(run.state or {})[n][np.newaxis], a]) for n, a in run.next_states.items()}
        x = self.step.spec.stepped[0]
        # As many as there is room for; that each has its own row in the artefact is seen by the audit.
        size = sum(int(np.prod(t.shape)) for t in (*self.step.spec.outputs, *self.step.spec.states))
        every = np.arange(x.tokens if x.tokens and not x.shape else 0)
        every = every[:: max(1, -(-len(every) * size // MOST_SINGLES))]
        again = np.concatenate([np.arange(len(places)), np.arange(len(every)) % len(places)])
        inputs = {n: a[times, rows][again] for n, a in run.inputs.items()}
        if len(every):
            inputs[x.name][len(places) :] = every
        state = {n: a[times, rows][again] for n, a in after.items()}
        single, _, _ = self._compared({n: a[np.newaxis] for n, a in inputs.items()}, state)
        called = single_rows(places)
        tokens = (f"the token {t} in {called[i % len(places)]}" for i, t in enumerate(every.tolist()))
        return replace(single, rows=(*called, *tokens))

    def saturated(self, reached: Reference, times: float = 1.0, rows: int = 64) -> Reference:
        """One step from states at the ends of a run, or so many times that: plus or minus the largest.

        A unit is the largest of TensorFlow's error there, that in the run, and what it costs to move each
        sigmoid and tanh by up to a spacing below 1: a gate is as good as float32 there, where it is near
        zero too, and a large c magnifies what it is off.
        """
        if self._blunt is None:
            frozen = freeze(self.step, "float64", edit=blunted)
            self._blunt = FunctionEngine(frozen, self.step.spec, "float64")
        generator = np.random.default_rng(0)
        state = {}
        for t in self.step.spec.states:
            largest = float(np.abs(reached.results[NEXT + t.name]).max()) or 1.0
            signs = generator.choice([-1.0, 1.0], (rows, *t.shape))
            state[t.name] = (times * signs * largest).astype(np.float32)
        there, _, _ = self._compared(input_run(self.step, 1, rows), state, rounding=self._blunt)
        return replace(there, units={n: np.maximum(u, reached.units[n]) for n, u in there.units.items()})

    def greedy(self, prompts: NDArray[np.int32], steps: int) -> Greedy:
        """Its own greedy text from prompts `[prompt, rows]`, for a language model."""
        prompt, rows = prompts.shape
        runner = self.exact.runner(rows)
        state = self.first_state(1)
        runner.set_state(state)
        ((x_name, x),), ((y_name, y),) = runner.inputs.items(), runner.outputs.items()
        begin = self.first_state(rows)
        tokens = np.zeros((steps, rows), np.int32)
        tokens[:prompt] = prompts
        gaps = np.full((steps, rows), np.inf, np.float32)
        for t in range(steps):
            x[...] = tokens[t]
            runner.run()
            best = np.partition(y, -2, axis=-1)[:, -2:]
            gaps[t] = best[:, 1] - best[:, 0]
            if prompt <= t + 1 < steps:
                tokens[t + 1] = y.argmax(axis=-1)
        # Beyond the end of a chaotic chain greedy texts part by rounding alone.
        run = self.chain({x_name: tokens}, begin)
        return Greedy(tokens[: run.steps], gaps[: run.steps], float(run.units[y_name].max()), prompt, state)


def blunted(graph: tf.compat.v1.GraphDef) -> None:
    """Move what each sigmoid and tanh of a graph in float64 gives by up to a float32 spacing below 1."""
    for node in [n for n in graph.node if n.op in ("Sigmoid", "Tanh")]:
        readers = [n for n in graph.node if node.name in n.input or f"{node.name}:0" in n.input]
        moved = spliced(graph, f"{node.name}/blunt", f"{node.name}:0", tf.float64, _blunt)
        for reader in readers:
            for i, name in enumerate(reader.input):
                if name in (node.name, f"{node.name}:0"):
                    reader.input[i] = moved


def _blunt(y: Any) -> Any:
    return y + BELOW_ONE * tf.random.uniform(tf.shape(y), -1, 1, y.dtype, seed=1)


def _refuse_infinite(precision: str, results: Arrays) -> None:
    with np.errstate(over="ignore"):  # float64 is kept as float32
        wrong = {
            n: ~np.isfinite(a.astype(np.float32)).reshape(len(a), -1).all(axis=1) for n, a in results.items()
        }
    first = {name: int(steps.argmax()) for name, steps in wrong.items() if steps.any()}
    if first:
        name = min(first, key=first.__getitem__)
        raise ExportError(
            f"the model itself is not finite: {name} overflows at step {first[name]} of its own run in "
            f"{precision}, so nothing can be judged by it; give a --text it is made for, or bound its states"
        )


def initial_state(step: Step, batch: int, inputs: Arrays | None = None, precision: str = "float64") -> Arrays:
    """The states a stream begins with, `[batch, size...]` by name.

    Those that are computed from what stays the same are computed from `inputs`, `[steps, batch, ...]`; what
    these do not have is drawn.
    """
    states: Arrays = {
        t.name: np.broadcast_to(step.initial.get(t.name, np.zeros(t.shape, np.float32)), (batch, *t.shape))
        for t in step.spec.states
    }
    if step.start is None:
        return states
    given = input_run(step.start, 1, batch) | {n: a[:1] for n, a in (inputs or {}).items()}
    runner = FunctionEngine(freeze(step.start, precision), step.start.spec, precision).runner(batch)
    return states | begun(runner, given)


def begun(start: Runner, inputs: Arrays) -> Arrays:
    """What a graph `start` computes from the first of inputs `[steps, batch, ...]`."""
    for name, array in start.inputs.items():
        array[...] = inputs[name][0]
    start.run()
    return {name: array.copy() for name, array in start.outputs.items()}


def input_run(step: Step, steps: int, batch: int, seed: int = 0, beyond: float = 1.0) -> Arrays:
    """Inputs of the step and its start, `[steps, batch, ...]`, drawn anew.

    Uniform tokens, or a normal signal of the size that its first layers are made for, so many times `beyond`
    it; of which a third of the time steps are masked where the model masks any.
    """
    generator = np.random.default_rng(seed)
    inputs: Arrays = {}
    for t in step.taken:
        shape, scale = (steps, batch, *t.shape), scale_of(step, t)
        if t.dtype == "int32":
            least, most = (0, t.tokens - 1) if t.tokens else scale.integers
            inputs[t.name] = generator.integers(least, most, shape, np.int32, endpoint=True)
        else:
            inputs[t.name] = scale.drawn(generator.standard_normal(shape), beyond)
    for t in step.taken:
        if step.mask_value is not None and t.dtype != "int32" and not t.static:
            inputs[t.name][generator.random((steps, batch)) < 1 / 3] = step.mask_value
    return constant(step, inputs)


def constant(step: Step, inputs: Arrays) -> Arrays:
    """Inputs `[steps, batch, ...]`, of which static ones are at every step what they are at the first."""
    static = {t.name for t in step.taken if t.static}
    return {n: np.repeat(a[:1], len(a), axis=0) if n in static else a for n, a in inputs.items()}


def own_text(oracle: Oracle, steps: int, rows: int = 1) -> tuple[NDArray[np.int32], Arrays]:
    """Tokens `[steps, rows]` of texts that a language model writes itself, drawn at temperature 1.

    They visit the states that the model reaches in use, and need no corpus. What the float32 step gave while
    it wrote them comes with them, `[steps, rows, ...]` by name.
    """
    runner = oracle.float32.runner(rows)
    runner.set_state(oracle.first_state(rows))
    (x,) = runner.inputs.values()
    samplers = [Sampler(Sampling(temperature=1.0), seed) for seed in range(rows)]
    tokens = np.zeros((steps, rows), np.int32)
    tokens[0] = np.arange(rows) % (oracle.step.spec.inputs[0].tokens or 1)
    results: list[Arrays] = []
    for t in range(steps):
        x[...] = tokens[t]
        runner.run()
        results.append({n: a.copy() for n, a in runner.outputs.items()})
        results[-1] |= {NEXT + n: a for n, a in runner.get_state().items()}
        if t + 1 < steps:
            (y,) = runner.outputs.values()
            tokens[t + 1] = [sampler.choose(row) for sampler, row in zip(samplers, y, strict=True)]
    return tokens, {name: np.stack([step[name] for step in results]) for name in results[0]}
