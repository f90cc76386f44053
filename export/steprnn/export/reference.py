"""What the artefacts are judged by: the Keras model itself, stepped in float32 and in float64."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from steprnn.runtime.engines import Runner, Tensors
from steprnn.runtime.parity import Arrays, Reference, chain, units_of
from steprnn.runtime.sampling import Sampler, Sampling
from steprnn.runtime.spec import NEXT, StepSpec

from .derive import Step, derive


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


def in_float64(model: keras.Model) -> keras.Model:
    """The same model with float64 weights and float64 arithmetic."""

    def widened(config: Any) -> Any:
        if isinstance(config, dict):
            return {key: widened(value) for key, value in config.items()}
        if isinstance(config, list | tuple):
            return type(config)(widened(value) for value in config)
        return "float64" if config == "float32" else config

    twin = type(model).from_config(widened(model.get_config()))
    twin.set_weights([weight.astype("float64") for weight in model.get_weights()])
    return twin


def reference_run(model: keras.Model, step: Step, inputs: Arrays) -> Reference:
    """The oracle's chained run over inputs `[steps, batch, ...]`; TensorFlow's float32 error is the unit."""
    batch = next(iter(inputs.values())).shape[1]
    oracle_step = derive(in_float64(model))
    oracle = FunctionEngine(oracle_step.function(None), step.spec, "float64").runner(batch)
    float32 = FunctionEngine(step.function(None), step.spec).runner(batch)
    exact, tensorflow = chain(oracle, inputs), chain(float32, inputs)
    rounded = {name: array.astype(np.float32) for name, array in exact.items()}
    return Reference(inputs, rounded, units_of(exact, tensorflow))


def own_text(step: Step, steps: int, seed: int = 0) -> Arrays:
    """Inputs `[steps, 1]` for a token model: a text it writes itself, drawn at temperature 1.

    It visits the states that the model reaches in use, and needs no corpus.
    """
    runner = FunctionEngine(step.function(None), step.spec).runner(1)
    (x,), (y,) = runner.inputs.values(), runner.outputs.values()
    sampler = Sampler(Sampling(temperature=1.0), seed)
    tokens = np.zeros((steps, 1), np.int32)
    for t in range(1, steps):
        x[0] = tokens[t - 1, 0]
        runner.run()
        tokens[t, 0] = sampler.choose(y[0])
    return {step.spec.inputs[0].name: tokens}
