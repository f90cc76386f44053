"""What a step with one mistake in its weights gives, each of which a check must reject."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from steprnn.runtime.parity.mutants import Mistake, judged_part
from steprnn.runtime.parity.profiles import PROFILES
from steprnn.runtime.parity.reference import Arrays, Reference, chain
from steprnn.runtime.spec import NEXT

from ..formats.frozen import Edit, freeze
from ..step.contract import Step
from .functions import FunctionEngine

PLAIN = 4 * (PROFILES["float32"].units or 0.0)  # units at which nobody takes a mistake for rounding
STEPS = 64


def mutated(step: Step, run: Reference) -> dict[Mistake, Arrays]:
    """Results over the judged part of a run, by mistake; without those that the step has no weights for."""
    found = {Mistake.ONE_PERCENT: _one_percent(step, run), Mistake.PERMUTED: _permuted(step, run)}
    part = judged_part(run)
    return {
        mistake: chain(engine.runner(1), part.inputs, part.state)
        for mistake, engine in found.items()
        if engine is not None
    }


def _one_percent(step: Step, run: Reference) -> FunctionEngine | None:
    """The weight of the largest share in a sum, in the first matrix where that is more than rounding.

    Recurrent matrices come first. In a model that was never trained their part of a gate may be no more
    than the gate's last digits; then it is a weight of another matrix.
    """
    matrices: list[tuple[bool, int]] = []

    def collect(weights: NDArray[Any], factor: str | None) -> None:
        if weights.ndim == 2 and weights.dtype == np.float32 and weights.any():
            matrices.append((factor is None, len(matrices)))

    freeze(step, change=collect)
    part = run.part(slice(0, STEPS), slice(0, 1))
    best: tuple[float, FunctionEngine | None] = (0.0, None)
    for _, chosen in sorted(matrices):
        count = -1

        def change(weights: NDArray[Any], factor: str | None, chosen: int = chosen) -> NDArray[Any] | None:
            nonlocal count
            if weights.ndim != 2 or weights.dtype != np.float32 or not weights.any():
                return None
            count += 1
            if count != chosen:
                return None
            share = np.abs(weights)
            if f"{NEXT}{factor}" in run.results:
                share = share * np.abs(run.results[f"{NEXT}{factor}"]).mean(axis=(0, 1))[:, None]
            weights = weights.copy()
            weights[np.unravel_index(int(share.argmax()), weights.shape)] *= 1.01
            return weights

        engine = FunctionEngine(freeze(step, change=change), step.spec)
        results = chain(engine.runner(1), part.inputs, part.state)
        units = max(
            float((np.abs(results[n] - expected) / part.units[n]).max())
            for n, expected in part.results.items()
        )
        best = max(best, (units, engine), key=lambda found: found[0])
        if units > PLAIN:
            break
    return best[1]


def own_mutated(step: Step, run: Reference, edit: Edit, mistake: Mistake) -> Arrays | None:
    """The same mistake in the step with other weights, over all of a run; None of one that 8 bits hide."""
    engine = _permuted(step, run, edit) if mistake is Mistake.PERMUTED else None
    return chain(engine.runner(run.batch), run.inputs, run.state) if engine else None


def _permuted(step: Step, run: Reference, edit: Edit | None = None) -> FunctionEngine | None:
    """The gates of the first recurrent matrix `[size, gates * size]`, each in the place of the next."""
    changed = False

    def change(weights: NDArray[Any], factor: str | None) -> NDArray[Any] | None:
        nonlocal changed
        recurrent = factor is not None and f"{NEXT}{factor}" in run.results and weights.ndim == 2
        if changed or not recurrent or weights.shape[1] % len(weights) or weights.shape[1] == len(weights):
            return None
        changed = True
        return np.roll(weights, len(weights), axis=1)

    function = freeze(step, change=change, edit=edit)
    return FunctionEngine(function, step.spec) if changed else None
