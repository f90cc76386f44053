"""How far the numbers of a candidate are off, in units, and where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .reference import Arrays, Reference

LONG, BLOCKS = 1024, 32  # time steps of a run whose drift is told, and the blocks that it is told by


@dataclass(frozen=True)
class Place:
    """One number of a run: which tensor, at which step of which row, and how far it is off."""

    tensor: str
    step: int
    row: str
    got: float
    expected: float
    units: float

    def __str__(self) -> str:
        """In words."""
        return (
            f"{self.tensor} is {self.units:.3g} units off at step {self.step} of {self.row} "
            f"(got {self.got:.7g}, expected {self.expected:.7g})"
        )


@dataclass(frozen=True)
class Deviations:
    """Of each result of a run, how far every number is off, in units; infinite where it is not finite.

    `rows` is what the rows of the run are called in words.
    """

    reference: Reference
    candidate: Arrays
    rows: Sequence[str]
    units: dict[str, NDArray[np.float64]]  # result name -> [steps, rows, ...]

    @classmethod
    def of(cls, reference: Reference, candidate: Arrays, rows: Sequence[str]) -> Deviations:
        """Of results that all have the shapes of the reference's."""
        units = {}
        for name, expected in reference.results.items():
            got = candidate[name]
            with np.errstate(all="ignore"):
                error = np.abs(got.astype(np.float64) - expected)
                units[name] = np.where(np.isfinite(got), error, np.inf) / reference.units[name]
        return cls(reference, candidate, rows, units)

    @property
    def largest(self) -> dict[str, float]:
        """The largest of each result over the run."""
        return {name: float(error.max()) for name, error in self.units.items()}

    @property
    def absolute(self) -> dict[str, float]:
        """The largest of each result in its own numbers."""
        units = self.reference.units
        with np.errstate(invalid="ignore"):  # of what is infinitely far off
            return {name: float(np.max(error * units[name])) for name, error in self.units.items()}

    @property
    def series(self) -> NDArray[np.float64]:
        """The largest of any result at each step."""
        largest: NDArray[np.float64] = np.max(list(self._by_step.values()), axis=0)
        return largest

    @property
    def worst(self) -> Place:
        """Where the largest of all is."""
        largest = self.largest
        return self._place(max(largest, key=largest.__getitem__))

    def breach(self, limit: float | None) -> Place | None:
        """The largest at the first step that has any beyond the limit or, without one, not finite."""
        # Not `>`: what is no number is beyond every limit.
        beyond = ~(self.series <= (np.finfo(float).max if limit is None else limit))
        if not beyond.any():
            return None
        step, by_step = int(beyond.argmax()), self._by_step
        return self._place(max(by_step, key=lambda name: by_step[name][step]), step)

    @property
    def growth(self) -> float:
        """The 99th percentile over the last quarter of the steps to that over the first."""
        series = self.series
        quarter = max(1, len(series) // 4)
        begin, end = p99(series[:quarter]), p99(series[-quarter:])
        return end / begin if begin and math.isfinite(begin) else 1.0

    @property
    def drift(self) -> tuple[float, float] | None:
        """The slope of the error in units a thousand steps, and its standard error; None of a run too short.

        Least squares through the medians of blocks of steps, which are nearly independent where single steps
        are not.
        """
        if self.reference.steps < LONG:
            return None
        blocks = np.array_split(self.series, BLOCKS)
        y = np.array([float(np.median(block)) for block in blocks])
        if not np.isfinite(y).all():
            return None
        x = (np.arange(BLOCKS) - (BLOCKS - 1) / 2) * self.reference.steps / BLOCKS / 1000
        slope = float((x * y).sum() / (x * x).sum())
        rest = y - y.mean() - slope * x
        return slope, math.sqrt(float((rest * rest).sum()) / (BLOCKS - 2) / float((x * x).sum()))

    @property
    def relative(self) -> dict[str, float]:
        """The root mean square error of each result to its own root mean square."""
        return {name: _relative(a, self.candidate[name]) for name, a in self.reference.results.items()}

    @property
    def spread(self) -> dict[str, float]:
        """The mean error of each result over its standard deviation about the mean of each channel."""
        return {name: _spread(a, self.candidate[name]) for name, a in self.reference.results.items()}

    @property
    def _by_step(self) -> dict[str, NDArray[np.float64]]:
        return {n: error.reshape(self.reference.steps, -1).max(axis=1) for n, error in self.units.items()}

    def _place(self, name: str, step: int | None = None) -> Place:
        """The largest of a result, over the run or at one step."""
        errors = self.units[name]
        part = errors if step is None else errors[step : step + 1]
        t, row, *rest = (int(i) for i in np.unravel_index(int(part.argmax()), part.shape))
        at = (t + (step or 0), row, *rest)
        got, expected = float(self.candidate[name][at]), float(self.reference.results[name][at])
        return Place(name, at[0], self.rows[row], got, expected, float(errors[at]))


def p99(errors: NDArray[np.float64]) -> float:
    """The 99th percentile, of numbers that may be infinite."""
    return float(np.quantile(errors, 0.99, method="higher"))


def _spread(expected: NDArray[Any], got: NDArray[Any]) -> float:
    with np.errstate(all="ignore"):
        error = float(np.abs(got.astype(np.float64) - expected).mean())
        deviation = math.sqrt(float(np.var(expected, axis=(0, 1), dtype=np.float64).mean()))
        return error / (deviation or 1.0)


def _relative(expected: NDArray[Any], got: NDArray[Any]) -> float:
    with np.errstate(all="ignore"):
        difference = got.astype(np.float64) - expected
        scale = math.sqrt(float(np.square(expected, dtype=np.float64).mean()))
        return math.sqrt(float(np.square(difference).mean())) / (scale or 1.0)
