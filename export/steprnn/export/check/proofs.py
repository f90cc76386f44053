"""Two proofs before anything is written: the step is the model, and the model is causal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from steprnn.runtime.errors import ExportError
from steprnn.runtime.parity.profiles import PROFILES
from steprnn.runtime.parity.reference import Arrays, chain, units_of

from ..formats.frozen import freeze
from ..step.contract import Step
from .reference import FunctionEngine, constant, initial_state, input_run

STEPS, ROWS = 48, 3
LIMIT = PROFILES["float32"].units or 0.0


@dataclass(frozen=True)
class Proofs:
    """The largest error of each proof, in units of the model's own precision."""

    transform: float  # the chained step against the whole-sequence model
    causality: float | None  # the past before and after the future changed; None without a time axis
    steps: int
    rows: int


def prove(step: Step) -> Proofs | None:
    """Both proofs on random inputs; None where there is no whole-sequence model to compare with.

    Raises `ExportError` where the chained step is not the model, or the future changes the past.
    """
    if step.on_sequences is None:
        return None
    steps = step.fixed_steps or STEPS
    inputs = input_run(step, steps, ROWS)
    stepped = {t.name: inputs[t.name] for t in step.spec.inputs}
    oracle = FunctionEngine(freeze(step, "float64"), step.spec, "float64").runner(ROWS)
    exact = chain(oracle, stepped, initial_state(step, ROWS, inputs))
    # A model of 16 bits is allowed its own rounding: the unit is that of the step as the model runs it.
    native = FunctionEngine(step.function(), step.spec).runner(ROWS)
    units = units_of(exact, chain(native, stepped, initial_state(step, ROWS, inputs, "float32")))

    def together(arrays: Arrays) -> Arrays:
        """The model on whole sequences, `[steps, rows, ...]`; an output without time stays `[rows, ...]`."""
        assert step.on_sequences is not None
        outputs = step.on_sequences(_batch_first(arrays))
        return {n: np.moveaxis(o, 1, 0) if n in timed(outputs) else o for n, o in outputs.items()}

    def timed(outputs: Arrays) -> list[str]:
        return [t.name for t in step.spec.outputs if outputs[t.name].ndim == len(t.shape) + 2]

    transform = _transform(step, together, inputs, exact, units)
    half, causality = steps // 2, None
    other = input_run(step, steps, ROWS, seed=1)
    if half:
        changed = constant(step, {n: np.concatenate([a[:half], other[n][half:]]) for n, a in inputs.items()})
        before, after = together(inputs), together(changed)
        for t in (t for t in step.spec.outputs if before[t.name].ndim == len(t.shape) + 2):
            moved = float(np.abs(before[t.name][:half] - after[t.name][:half]).max()) / units[t.name]
            if not moved <= LIMIT:
                raise ExportError(
                    f"the future changes the past: {t.name!r} before step {half} moves by {moved:.3g} units "
                    f"(at most {LIMIT:g}) when later inputs change; {step.suspect(_batch_first(inputs))}"
                )
            causality = max(causality or 0.0, moved)
    return Proofs(transform, causality, steps, ROWS)


def _transform(
    step: Step, together: Callable[[Arrays], Arrays], inputs: Arrays, exact: Arrays, units: dict[str, float]
) -> float:
    largest = 0.0
    steps = len(next(iter(inputs.values())))
    # Not one step: some layers (CategoryEncoding) drop a time axis of length 1.
    for length in [steps] if step.fixed_steps else [2, 5, steps]:
        cut = {n: a[:length] for n, a in inputs.items()}
        for name, output in together(cut).items():
            sequence, last = exact[name][:length], exact[name][length - 1]
            expected = sequence if output.ndim == sequence.ndim else last
            if output.shape != expected.shape:
                raise ExportError(
                    f"{name!r} has shape {output.shape} over {length} steps, the step {expected.shape}: "
                    f"a layer changes the number of time steps; {step.suspect(_batch_first(cut))}"
                )
            error = float(np.abs(output - expected).max()) / units[name]
            if not error <= LIMIT:
                raise ExportError(
                    f"the chained step is not the model: {name!r} is {error:.3g} units off over {length} "
                    f"steps (at most {LIMIT:g}); {step.suspect(_batch_first(cut))}"
                )
            largest = max(largest, error)
    return largest


def _batch_first(arrays: Arrays) -> Arrays:
    """`[batch, steps, ...]` of `[steps, batch, ...]`."""
    return {name: np.moveaxis(array, 0, 1) for name, array in arrays.items()}
