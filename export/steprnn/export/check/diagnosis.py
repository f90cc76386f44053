"""What is wrong with a candidate that fails: the usual mistakes are made on purpose, and one may fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import combinations, permutations
from typing import Any
from unittest.mock import patch

import keras
import numpy as np
import tensorflow as tf
from keras import tree
from numpy.typing import NDArray

from steprnn.runtime.engines import Runner
from steprnn.runtime.parity.mutants import Mistake, Mutant
from steprnn.runtime.parity.profiles import PROFILES
from steprnn.runtime.parity.reference import Arrays, Reference, chain
from steprnn.runtime.spec import NEXT, StepSpec

from ..formats.frozen import freeze
from ..formats.splice import spliced
from ..step.contract import Step
from .functions import FunctionEngine

STEPS = 64
NEAR = 4 * (PROFILES["float32"].units or 0.0)  # units from a mistake at which nobody takes it for another
EPSILONS = (1e-3, 1e-5, 1e-6, 1e-7, 1e-12)  # that frameworks have by default
GATES = {4: "ifco", 3: "zrh"}  # in Keras's order: LSTM, GRU
Weights = NDArray[Any]


def diagnosis(step: Step, run: Reference, results: Arrays) -> str:
    """The mistake that a candidate makes, in words; empty where none of the usual ones fits.

    `results` are the candidate's over the run. Each mistake is made in TensorFlow with the model itself, and
    fits where the outputs are what the candidate gave.
    """
    part = run.part(slice(0, STEPS), slice(0, 1))
    given = {name: array[:STEPS, :1] for name, array in results.items()}
    if any(array.shape != part.results[name].shape for name, array in given.items()):
        return ""

    def fits(made: Arrays, name: str, theirs: str = "") -> bool:
        near = NEAR * np.maximum(part.units[name], np.spacing(np.abs(made[name]).max(axis=(0, 1))))
        return bool((np.abs(made[name] - given[theirs or name]) <= near).all())

    outputs = [t.name for t in step.spec.outputs]
    if all(fits(part.results, name) for name in outputs):  # a state is wrong, and does no harm
        for a, b in _alike(step.spec):
            if fits(part.results, NEXT + a, NEXT + b) and fits(part.results, NEXT + b, NEXT + a):
                return f"{a} and {b} have each other's names, in and out (see --map)"
        return ""
    for words, runner in _mistaken(step):
        made = chain(runner, part.inputs, part.state)
        if all(fits(made, name) for name in outputs):
            return words
    return ""


def _alike(spec: StepSpec) -> list[tuple[str, str]]:
    """States of one shape, which could be taken for each other without an error."""
    return [(a.name, b.name) for a, b in combinations(spec.states, 2) if a.shape == b.shape]


def _mistaken(step: Step) -> Iterator[tuple[str, Runner]]:
    """Runners of one row that each make a mistake, and which."""
    spec, right = step.spec, FunctionEngine(freeze(step), step.spec)
    for a, b in _alike(spec):
        words = f"{a} and {b} are swapped (see --map, or it pairs states by their order)"
        yield words, Mutant(right.runner(1), Mistake.SWAPPED, spec, (a, b))
    yield "its states are those of the step before", Mutant(right.runner(1), Mistake.STALE, spec)
    yield "its states are zero at every step", Mutant(right.runner(1), Mistake.ZEROED, spec)
    if tokens := spec.stepped[0].tokens:
        for by in (1, -1):
            yield f"its tokens are shifted by {by}", Shifted(right.runner(1), spec, by, tokens)
    for words, change in _changes(step):
        yield words, FunctionEngine(freeze(step, change=change), spec).runner(1)
    for words, gate in GATE_FUNCTIONS.items():
        edited = freeze(step, edit=partial(_gated, gate=gate))
        yield f"its gates are {words}", FunctionEngine(edited, spec).runner(1)
    with patch.object(keras.layers.GRUCell, "call", _otherwise_reset):
        other = FunctionEngine(freeze(replace(step)), spec)  # traced anew
    yield "its GRU resets the other way (reset_after)", other.runner(1)


class Shifted:
    """A runner that reads another token than it is given."""

    def __init__(self, runner: Runner, spec: StepSpec, by: int, tokens: int) -> None:
        self._runner, self._by, self._tokens, self._name = runner, by, tokens, spec.stepped[0].name
        self.inputs, self.outputs = runner.inputs, runner.outputs
        self.set_state, self.get_state = runner.set_state, runner.get_state

    def run(self) -> None:
        """Take one time step."""
        x = self.inputs[self._name]
        x[...] = (x + self._by) % self._tokens
        self._runner.run()


def _hard_sigmoid_2(x: Any) -> Any:
    return tf.clip_by_value(0.2 * x + 0.5, 0.0, 1.0)


def _hard_sigmoid_3(x: Any) -> Any:
    return tf.nn.relu6(x + 3.0) / 6.0


GATE_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "the hard sigmoid of Keras 2, clip(0.2 x + 0.5)": _hard_sigmoid_2,
    "the hard sigmoid of Keras 3, relu6(x + 3) / 6": _hard_sigmoid_3,
    "sigmoids": tf.sigmoid,
}


def _gated(graph: tf.compat.v1.GraphDef, gate: Callable[[Any], Any]) -> None:
    """Put another function in place of each sigmoid, or hard sigmoid, of a graph."""
    nodes = {node.name: node for node in graph.node}

    def source(name: str) -> Any:
        return nodes[name.split(":")[0]]

    for node in list(nodes.values()):
        if node.op == "Sigmoid":
            x = node.input[0]
        elif node.op == "RealDiv" and source(node.input[0]).op == "Relu6":
            x = source(source(node.input[0]).input[0]).input[0]
        else:
            continue
        made = spliced(graph, f"{node.name}/other", x, tf.as_dtype(node.attr["T"].type), gate)
        node.op = "Identity"
        del node.input[:]
        node.input.append(made)


def _otherwise_reset(cell: Any, inputs: Any, states: Any, training: bool = False) -> tuple[Any, Any]:
    """A GRU cell whose reset gate acts before the recurrent product where it should behind, or vice versa."""
    (h,), size = tree.flatten(states), cell.units
    before, behind = tf.zeros(3 * size, h.dtype), tf.zeros(3 * size, h.dtype)
    if cell.use_bias:
        before, behind = tf.unstack(cell.bias) if cell.reset_after else (cell.bias, behind)
    given = tf.split(tf.matmul(inputs, cell.kernel) + before, 3, axis=-1)
    kernel, (*_, last) = cell.recurrent_kernel, tf.split(behind, 3)
    z, r = (
        cell.recurrent_activation(x + u)
        for x, u in zip(given, tf.split(tf.matmul(h, kernel) + behind, 3, axis=-1)[:2], strict=False)
    )
    product = kernel[:, 2 * size :]
    kept = tf.matmul(r * h, product) + last if cell.reset_after else r * (tf.matmul(h, product) + last)
    after = z * h + (1 - z) * cell.activation(given[2] + kept)
    return after, [after] if tree.is_nested(states) else after


Change = Callable[[Weights, str | None], Weights | None]


def _changes(step: Step) -> Iterator[tuple[str, Change]]:
    """Mistakes in the weights: what a constant becomes, None where it stays."""
    sizes = {t.shape[0] for t in step.spec.states if len(t.shape) == 1}
    for count, names in GATES.items():
        for order in permutations(range(count)):
            if order != tuple(range(count)):
                told = " ".join(names[i] for i in order)
                yield f"its gates stand as {told} where the model has {' '.join(names)}", _gates(sizes, order)
    yield "its recurrent matrices are transposed", _transposed(sizes)
    vectors: list[int] = []

    def count_vectors(weights: Weights, factor: str | None) -> None:
        if weights.ndim == 1 and weights.dtype == np.float32 and weights.any():
            vectors.append(len(weights))

    freeze(step, change=count_vectors)
    for i, size in enumerate(vectors):
        yield f"it has lost a bias of {size} elements", _lost(i)
    for epsilon in EPSILONS:
        yield f"its epsilon is {epsilon:g}", _epsilon(epsilon)


def _gates(sizes: set[int], order: tuple[int, ...]) -> Change:
    def change(weights: Weights, factor: str | None) -> Weights | None:
        size, rest = divmod(weights.shape[-1] if weights.ndim else 0, len(order))
        if weights.dtype != np.float32 or rest or size not in sizes:
            return None
        return np.concatenate([weights[..., i * size : (i + 1) * size] for i in order], axis=-1)

    return change


def _transposed(sizes: set[int]) -> Change:
    def change(weights: Weights, factor: str | None) -> Weights | None:
        size = weights.shape[0] if weights.ndim == 2 else 0
        if factor is None or weights.dtype != np.float32 or size not in sizes or weights.shape[1] % size:
            return None
        return np.concatenate(
            [gate.T for gate in np.split(weights, weights.shape[1] // size, axis=1)], axis=1
        )

    return change


def _lost(position: int) -> Change:
    seen = -1

    def change(weights: Weights, factor: str | None) -> Weights | None:
        nonlocal seen
        if weights.ndim != 1 or weights.dtype != np.float32 or not weights.any():
            return None
        seen += 1
        return np.zeros_like(weights) if seen == position else None

    return change


def _epsilon(epsilon: float) -> Change:
    def change(weights: Weights, factor: str | None) -> Weights | None:
        is_one = weights.ndim == 0 and weights.dtype == np.float32
        known = is_one and any(np.isclose(float(weights), e, rtol=1e-3, atol=0) for e in EPSILONS)
        return np.float32(epsilon) if known else None  # type: ignore[return-value]

    return change
