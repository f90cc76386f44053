"""What the artefacts are judged by: the Keras model itself, stepped in float32 and in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from steprnn.runtime.engines import Runner, Tensors
from steprnn.runtime.parity import Arrays, Reference, chain, units_of
from steprnn.runtime.sampling import Sampler, Sampling
from steprnn.runtime.spec import NEXT, StepSpec

from .derive import Step
from .frozen import freeze


class FunctionEngine:
    """An engine whose step is a TensorFlow function of the step's names: Keras's own, or a SavedModel's."""

    def __init__(self, function: Any, spec: StepSpec, dtype: str = "float32") -> None:
        self._function = function
        self._spec = spec
        self._dtype = dtype

    def runner(self, batch: int) -> Runner:
        """A new runner with zero states."""
        return FunctionRunner(self._function, self._spec, self._dtype, batch)


class FunctionRunner:
    """Calls the function with the inputs and the states, by name."""

    def __init__(self, function: Any, spec: StepSpec, dtype: str, batch: int) -> None:
        self.inputs = {
            t.name: np.zeros((batch, *t.shape), dtype if t.dtype.startswith("float") else t.dtype)
            for t in spec.inputs
        }
        self.outputs: dict[str, NDArray[Any]] = {
            t.name: np.zeros((batch, *t.shape), dtype) for t in spec.outputs
        }
        self._states: Arrays = {t.name: np.zeros((batch, *t.shape), dtype) for t in spec.states}
        self._function = function

    def run(self) -> None:
        """Take one time step."""
        tensors = {n: tf.constant(a) for n, a in (self.inputs | self._states).items()}
        results = self._function(**tensors)
        for name, array in self.outputs.items():
            array[...] = results[name].numpy()
        for name, array in self._states.items():
            array[...] = results[NEXT + name].numpy()

    def set_state(self, state: Tensors) -> None:
        """Copy states in, by name."""
        for name, array in self._states.items():
            array[...] = state[name]

    def get_state(self) -> Arrays:
        """Copies of the states, by name."""
        return {name: array.copy() for name, array in self._states.items()}


def reference_run(step: Step, inputs: Arrays) -> Reference:
    """The oracle's chained run over inputs `[steps, batch, ...]`; TensorFlow's float32 error is the unit."""
    batch = next(iter(inputs.values())).shape[1]
    oracle = FunctionEngine(freeze(step, "float64"), step.spec, "float64").runner(batch)
    float32 = FunctionEngine(freeze(step), step.spec).runner(batch)
    state = initial_state(step, batch)
    exact, tensorflow = chain(oracle, inputs, state), chain(float32, inputs, state)
    rounded = {name: array.astype(np.float32) for name, array in exact.items()}
    return Reference(inputs, rounded, units_of(exact, tensorflow))


def initial_state(step: Step, batch: int) -> Arrays:
    """The states a stream begins with, `[batch, size...]` by name."""
    return {
        t.name: np.broadcast_to(step.initial.get(t.name, np.zeros(t.shape, np.float32)), (batch, *t.shape))
        for t in step.spec.states
    }


def input_run(step: Step, steps: int, batch: int, seed: int = 0) -> Arrays:
    """Inputs `[steps, batch, ...]` drawn anew: uniform tokens, or a standard normal signal."""
    generator = np.random.default_rng(seed)
    return {
        t.name: (
            generator.integers(0, t.tokens or 2, (steps, batch, *t.shape), np.int32)
            if t.dtype == "int32"
            else generator.standard_normal((steps, batch, *t.shape)).astype(np.float32)
        )
        for t in step.spec.inputs
    }


def own_text(step: Step, steps: int, seed: int = 0) -> Arrays:
    """Inputs `[steps, 1]` for a language model: a text it writes itself, drawn at temperature 1.

    It visits the states that the model reaches in use, and needs no corpus.
    """
    runner = FunctionEngine(freeze(step), step.spec).runner(1)
    (x,), (y,) = runner.inputs.values(), runner.outputs.values()
    sampler = Sampler(Sampling(temperature=1.0), seed)
    tokens = np.zeros((steps, 1), np.int32)
    for t in range(1, steps):
        x[0] = tokens[t - 1, 0]
        runner.run()
        tokens[t, 0] = sampler.choose(y[0])
    return {step.spec.inputs[0].name: tokens}
