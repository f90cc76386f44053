"""Two proofs before anything is written: the step is the model, and the model is causal.

That a layer acts on each time step alone was read from its graph, where that can be read. This is the trial.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steprnn.runtime.errors import ExportError, SteprnnError, brief
from steprnn.runtime.parity.profiles import PROFILES
from steprnn.runtime.parity.reference import Arrays, chain, errors_of, units_of

from ..formats.frozen import freeze, frozen_once
from ..step.contract import Step
from .functions import FunctionEngine
from .reference import BEYOND, constant, initial_state, input_run

STEPS, REACHES, ROWS = 256, 2, 3
LENGTHS = (1, 2, 5)  # besides the whole
LIMIT = PROFILES["float32"].units or 0.0
LARGEST = 1e4  # of the numbers that are met: a larger one is an infinity by another name


@dataclass(frozen=True)
class Proofs:
    """The largest error of each proof, in units of the model's own precision, and what was read."""

    transform: float  # the chained step against the whole-sequence model
    causality: float | None  # the past before and after the future changed; None without a time axis
    steps: int
    rows: int
    read: int = 0  # layers that act on each time step alone, as their graphs show
    by_test_only: tuple[str, ...] = ()  # layers of which the trial alone shows it


@frozen_once()
def prove(step: Step) -> Proofs | None:
    """Both proofs on random inputs; None where there is no whole-sequence model to compare with.

    Raises `ExportError` where the chained step is not the model, or the future changes the past.
    """
    if step.on_sequences is None:
        return None
    try:
        return _proved(step)
    except SteprnnError:
        raise
    except Exception as error:  # Keras and TensorFlow each have their own complaint
        words = brief(error)
        raise ExportError(
            f"the model, or its step, does not run on sequences of {_steps(step)} time steps: {words}"
        ) from error


def _steps(step: Step) -> int:
    return step.fixed_steps or max(STEPS, REACHES * step.reading.reach)


def _proved(step: Step) -> Proofs:
    steps = _steps(step)
    engines = (
        FunctionEngine(freeze(step, "float64"), step.spec, "float64"),
        # A model of 16 bits is allowed its own rounding: the unit is that of the step as the model runs it.
        FunctionEngine(freeze(step, "its own"), step.spec),
    )
    inputs, other = (input_run(step, steps, ROWS, seed) for seed in (0, 1))
    trials = [Trial(step, engines, inputs | meeting(step, inputs, "int32"), other)]
    if signals := meeting(step, inputs, "float32"):  # apart, as large numbers make large units
        trials.append(Trial(step, engines, inputs | signals, other))
    if any(t.dtype == "float32" for t in step.spec.stepped):  # and what a size that nobody meant gives
        beyond = Trial(step, engines, input_run(step, steps, ROWS, beyond=BEYOND), other)
        trials += [beyond] if beyond.is_finite else []
    transform = max(trial.transform() for trial in trials)
    return Proofs(transform, trials[0].causality(), steps, ROWS, step.reading.layers, step.reading.unread)


class Trial:
    """The step and the whole-sequence model on the same inputs, `[steps, rows, ...]` by name.

    The later half of `other` is what the inputs are exchanged for to see whether the past changes.
    """

    def __init__(
        self, step: Step, engines: tuple[FunctionEngine, FunctionEngine], inputs: Arrays, other: Arrays
    ) -> None:
        self._step = step
        self._inputs = constant(step, inputs)
        self._steps = len(next(iter(inputs.values())))
        self._half = self._steps // 2
        stepped = {t.name: self._inputs[t.name] for t in step.spec.inputs}
        self._exact, native = (
            chain(engine.runner(ROWS), stepped, initial_state(step, ROWS, self._inputs, precision))
            for engine, precision in zip(engines, ("float64", "float32"), strict=True)
        )
        with np.errstate(all="ignore"):
            self._units = units_of(self._exact, errors_of(self._exact, native))
        changed = {n: np.concatenate([a[: self._half], other[n][self._half :]]) for n, a in inputs.items()}
        both = zip(self._inputs.items(), constant(step, changed).values(), strict=True)
        rows = {n: np.concatenate([a, b], axis=1) for (n, a), b in both}  # one run of twice the rows
        split = {n: np.split(o, 2, self._rows_of(n, o)) for n, o in self._together(rows).items()}
        self._whole, self._changed = ({n: pair[i] for n, pair in split.items()} for i in (0, 1))

    @property
    def is_finite(self) -> bool:
        """Whether the step is, in both precisions: an exponential is not on what is ten times too loud."""
        return all(bool(np.isfinite(unit).all()) for unit in self._units.values())

    def transform(self) -> float:
        """The largest error of any output on sequences of several lengths; raises where it is too large."""
        largest = 0.0
        lengths = [] if self._step.fixed_steps else [n for n in LENGTHS if n >= self._step.reading.shortest]
        for length in [self._steps, *lengths]:
            cut = {n: a[:length] for n, a in self._inputs.items()}
            for name, output in (self._whole if length == self._steps else self._short(cut)).items():
                sequence, last = self._exact[name][:length], self._exact[name][length - 1]
                expected = sequence if output.ndim == sequence.ndim else last
                if output.shape != expected.shape:
                    raise ExportError(
                        f"{name!r} has shape {output.shape} over {length} steps, the step {expected.shape}: "
                        f"a layer changes the number of time steps; {self._suspect(cut)}"
                    )
                error = self._error(name, output, expected)
                if not error <= LIMIT:
                    error = self._error(name, self._in_float64(name, cut, output), expected)
                if not error <= LIMIT:
                    raise ExportError(
                        f"the chained step is not the model: {name!r} is {error:.3g} units off over {length} "
                        f"steps (at most {LIMIT:g}); {self._suspect(cut)}"
                    )
                largest = max(largest, error)
        return largest

    def causality(self) -> float | None:
        """How far the first half of the outputs moves when the later half of the inputs is another's."""
        timed = [n for n, output in self._whole.items() if self._rows_of(n, output) and self._half]
        for name in timed:
            moved = self._moved(name)
            if not moved <= LIMIT:
                raise ExportError(
                    f"the future changes the past: {name!r} before step {self._half} moves by {moved:.3g} "
                    f"units (at most {LIMIT:g}) when later inputs change; {self._suspect(self._inputs)}"
                )
        return max(map(self._moved, timed), default=None)

    def _short(self, inputs: Arrays) -> Arrays:
        try:
            return self._together(inputs)
        except Exception as error:  # each layer has its own complaint
            length = len(next(iter(inputs.values())))
            raise ExportError(
                f"the model does not run on a sequence of {length} time step{'s' * (length > 1)} "
                f"({brief(error, 200)}), and its step is one; let it take any number of them"
            ) from error

    def _moved(self, name: str) -> float:
        return self._error(name, self._whole[name][: self._half], self._changed[name][: self._half])

    def _rows_of(self, name: str, output: NDArray[np.float64]) -> int:
        """The axis of the rows: 1 behind the time steps, 0 of an output without them."""
        return next(output.ndim - len(t.shape) - 1 for t in self._step.spec.outputs if t.name == name)

    def _error(self, name: str, output: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
        return float((np.abs(output - expected) / self._units[name]).max())

    def _together(self, arrays: Arrays) -> Arrays:
        """The model on whole sequences, `[steps, rows, ...]`; an output without time stays `[rows, ...]`."""
        assert self._step.on_sequences is not None
        return self._time_first(self._step.on_sequences(_batch_first(arrays)))

    def _time_first(self, outputs: Arrays) -> Arrays:
        return {n: np.moveaxis(o, 1, 0) if self._rows_of(n, o) == 1 else o for n, o in outputs.items()}

    def _in_float64(self, name: str, inputs: Arrays, output: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same output of the model computed in float64; as it was where that cannot be had."""
        try:
            assert self._step.exactly is not None
            return self._time_first(self._step.exactly(_batch_first(inputs)))[name]
        except Exception:  # there is none, or it has an operator that float64 has not, or writes a variable
            return output

    def _suspect(self, inputs: Arrays) -> str:
        return self._step.suspect(_batch_first(inputs))


def meeting(step: Step, inputs: Arrays, dtype: str) -> Arrays:
    """The inputs of a type, where the model compares any with numbers: these, in a third of the time steps.

    Leading, trailing and in between; just above and below too; and of a signal half of the time in single
    features alone.
    """
    generator = np.random.default_rng(2)
    result: Arrays = {}
    for t in (t for t in step.spec.stepped if t.dtype == dtype):
        numbers = _numbers(step.reading.compared, dtype, t.tokens)
        if not len(numbers):
            continue
        array = result[t.name] = inputs[t.name].copy()
        steps, rows = array.shape[:2]
        places = generator.random((steps, rows)) < 1 / 3
        places[:2, 1 % rows] = places[-2:, 2 % rows] = True
        chosen = np.resize(generator.permutation(numbers), (int(places.sum()), *array.shape[2:]))
        whole = np.resize(generator.permutation(numbers), (len(chosen), *(1,) * (chosen.ndim - 1)))
        in_part = np.where(generator.random(chosen.shape) < 1 / 2, chosen, array[places])
        alone = generator.random((len(chosen), *(1,) * (chosen.ndim - 1))) < 1 / 2
        array[places] = np.where(alone, in_part, whole) if dtype == "float32" else whole
    return result


def _numbers(compared: tuple[float, ...], dtype: str, tokens: int | None) -> NDArray[np.float64]:
    numbers = np.array([c for c in compared if abs(c) <= LARGEST])
    beside = 1 if dtype == "int32" else 1e-3 * (1 + np.abs(numbers))
    numbers = np.unique(np.concatenate([numbers, numbers - beside, numbers + beside]))
    if dtype == "float32":
        return numbers
    return numbers[(numbers >= 0) & (numbers < (tokens or 2))].round()


def _batch_first(arrays: Arrays) -> Arrays:
    """`[batch, steps, ...]` of `[steps, batch, ...]`."""
    return {name: np.moveaxis(array, 0, 1) for name, array in arrays.items()}
