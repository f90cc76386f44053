"""A runner of a graph in integers, as a caller sees it: floats in and out, and integers in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..errors import OutOfRange
from ..spec import StepSpec
from . import Runner, Tensors

LARGEST = 32767
# The scale that a tanh or a sigmoid always has: it reaches the largest number, and is never beyond it.
BOUNDED = 2.0**-15


def in_integers(spec: StepSpec, scales: Mapping[str, float]) -> StepSpec:
    """The spec as the graph itself has it."""
    inputs, states, outputs = (
        tuple(replace(t, dtype="int16") if t.name in scales else t for t in part)
        for part in (spec.inputs, spec.states, spec.outputs)
    )
    return StepSpec(inputs, states, outputs, spec.nexts)


class ScaledRunner:
    """Floats of the spec over a runner whose tensors are int16, each `scales[name]` times a whole number.

    A state goes from step to step as the integer that it is; `get_state` gives float32 from which `set_state`
    makes the same integer. What an integer cannot hold raises `OutOfRange`: an input or a state that is
    given, a next state or an output that reaches the end of its range. `scales` are those of the
    file, by name.
    """

    def __init__(self, runner: Runner, spec: StepSpec, scales: Mapping[str, float], batch: int) -> None:
        self._runner = runner
        self.scales = {name: np.float32(scale) for name, scale in scales.items()}
        floats = [t for t in spec.inputs if t.name in scales]
        self._given = {t.name: np.zeros(t.array_shape(batch), np.float32) for t in floats}
        self.inputs = {**runner.inputs, **self._given}
        self.outputs = {t.name: np.zeros(t.array_shape(batch), np.float32) for t in spec.outputs}
        self._states = [t.name for t in spec.states]

    def run(self) -> None:
        """Take one time step."""
        for name, array in self._given.items():
            self._runner.inputs[name][...] = self._integers("input", name, array)
        self._runner.run()
        for name, held in self._runner.get_state().items():
            self._check("state", name, held)
        for name, array in self.outputs.items():
            got = self._runner.outputs[name]
            self._check("output", name, got)
            np.multiply(got, self.scales[name], out=array)

    def set_state(self, state: Tensors) -> None:
        """Copy states in, by name: each the nearest of the integers."""
        self._runner.set_state({name: self._integers("state", name, state[name]) for name in self._states})

    def get_state(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the states, by name."""
        return {name: held * self.scales[name] for name, held in self._runner.get_state().items()}

    def _integers(self, what: str, name: str, array: NDArray[np.generic]) -> NDArray[np.int16]:
        scale = self.scales[name]
        steps = np.rint(np.divide(array, scale, dtype=np.float32))
        # Not `>`: what is no number is within no range.
        if not (np.abs(steps) <= (LARGEST + 1 if scale == BOUNDED else LARGEST)).all():
            self._refuse(what, name)
        clipped: NDArray[np.int16] = np.clip(steps, -LARGEST, LARGEST).astype(np.int16)
        return clipped

    def _check(self, what: str, name: str, held: NDArray[np.generic]) -> None:
        if self.scales[name] != BOUNDED and held.size and max(held.max(), -int(held.min())) >= LARGEST:
            self._refuse(what, name)

    def _refuse(self, what: str, name: str) -> None:
        raise OutOfRange(what, name, float(LARGEST * self.scales[name]))
