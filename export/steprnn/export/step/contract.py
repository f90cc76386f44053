"""A step: its contract, the function that computes it, and the model that it must equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from steprnn.runtime.errors import ExportError
from steprnn.runtime.parity.reference import Arrays
from steprnn.runtime.spec import NEXT, StepSpec, TensorSpec

from .moment import Tensors


@dataclass(frozen=True)
class Reading:
    """What was read in the graph of a model, for a trial to try it on."""

    layers: int = 0  # so many were shown to act on each time step alone
    unread: tuple[str, ...] = ()  # of these a trial alone shows it
    compared: tuple[float, ...] = ()  # the numbers that what comes in is compared with
    reach: int = 0  # how far back convolutions look, one behind the other
    shortest: int = 1  # the shortest sequence that the layers take as one


@dataclass(frozen=True)
class Step:
    """The contract of a step and the function that computes it on the model's own variables.

    `call` maps tensors named as the inputs and states of `spec` to tensors named as its outputs and
    next states; the batch axis is free. `initial` holds the states that do not begin at zero, without
    the batch axis; `start` computes those that begin from what stays the same over a stream: it has no
    states, its outputs are named as the states. `on_sequences` is the model on whole sequences,
    `[batch, steps, ...]` by the same names: what the chained step is proved to equal. Without it there is
    nothing to prove it by.
    """

    spec: StepSpec
    call: Callable[[Tensors], Tensors]
    initial: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    on_sequences: Callable[[Arrays], Arrays] | None = None
    fixed_steps: int | None = None  # the only sequence length that `on_sequences` takes
    mask_value: float | None = None  # a time step of this value throughout is masked
    notes: tuple[str, ...] = ()  # what a person should know of the step
    start: Step | None = None
    name: str = "step"  # or "start": the signature in the formats that have names for it
    reading: Reading = Reading()
    exactly: Callable[[Arrays], Arrays] | None = None  # `on_sequences` in float64, where that can be had
    suspect: Callable[[Arrays], str] = lambda inputs: "no layer can be named"  # which layer mixes time steps

    def __post_init__(self) -> None:
        names = [t.name for t in (*self.taken, *self.spec.states)] + list(self.spec.result_names)
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ExportError(
                f"the step has two tensors named {twice[0]!r}; rename that input or output of the model"
            )

    @property
    def taken(self) -> tuple[TensorSpec, ...]:
        """The inputs of the step, and those of the start that the step has not."""
        own = {t.name for t in self.spec.inputs}
        begins = self.start.spec.inputs if self.start else ()
        return (*self.spec.inputs, *(replace(t, static=True) for t in begins if t.name not in own))

    def signature(self) -> Tensors:
        """TensorFlow's specification of the inputs and states, by name."""
        return {
            t.name: tf.TensorSpec([None, *t.shape], t.dtype, t.name)
            for t in (*self.spec.inputs, *self.spec.states)
        }

    def function(self) -> Any:
        """A concrete function of keyword arguments, traced for any batch size."""
        step = tf.function(lambda **tensors: self._checked(self.call(tensors)), autograph=False)
        return step.get_concrete_function(**self.signature())

    def _checked(self, results: Tensors) -> Tensors:
        """What `call` returned, if it is what the spec says; nothing is renamed, cast or broadcast."""
        expected = {t.name: t for t in self.spec.outputs} | {NEXT + t.name: t for t in self.spec.states}
        if set(results) != set(expected):
            raise ExportError(
                f"the step returns {', '.join(sorted(results))}; "
                f"its spec expects {', '.join(sorted(expected))}"
            )
        tensors = {name: tf.convert_to_tensor(result) for name, result in results.items()}
        for name, t in expected.items():
            shape, dtype = tensors[name].shape, tensors[name].dtype.name
            if dtype != t.dtype or not shape.is_compatible_with([None, *t.shape]):
                raise ExportError(
                    f"the step returns {name} as {dtype} {shape}; its spec expects {t.dtype} "
                    f"{tf.TensorShape([None, *t.shape])}"
                )
        return tensors
