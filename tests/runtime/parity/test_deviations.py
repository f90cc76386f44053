"""How far numbers are off, in units, where, and what is said of it: by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from steprnn.runtime.parity.deviations import Deviations, Place, p99
from steprnn.runtime.parity.reference import Reference

ROWS = ["seed 0", "seed 1"]
UNITS = {"y": 0.5, "next_h": 0.25}
STEPS = 8


def deviations(**off: Any) -> Deviations:
    """Two rows of zeros over eight steps, but for what is said: `y={(step, row, place): value}`."""
    results = {"y": np.zeros((STEPS, 2, 3), np.float32), "next_h": np.zeros((STEPS, 2, 2), np.float32)}
    reference = Reference({"x": np.zeros((STEPS, 2))}, results, UNITS)
    candidate = {name: array.copy() for name, array in results.items()}
    for name, values in off.items():
        for place, value in values.items():
            candidate[name][place] = value
    return Deviations.of(reference, candidate, ROWS)


def test_errors_are_counted_in_the_unit_of_their_tensor() -> None:
    found = deviations(y={(2, 1, 0): -3.0, (2, 0, 1): 1.0}, next_h={(5, 0, 1): 2.0})
    assert found.largest == {"y": 6.0, "next_h": 8.0}
    assert found.series.tolist() == [0, 0, 6, 0, 0, 8, 0, 0]
    assert found.units["y"][2].tolist() == [[0, 2, 0], [6, 0, 0]]
    assert found.units["y"].dtype == np.float64


def test_the_worst_is_told_with_its_place() -> None:
    found = deviations(y={(2, 1, 0): -3.0}, next_h={(5, 0, 1): 2.0, (6, 1, 0): 2.0})
    assert found.worst == Place("next_h", 5, "seed 0", 2.0, 0.0, 8.0)
    assert str(found.worst) == "next_h is 8 units off at step 5 of seed 0 (got 2, expected 0)"
    assert deviations(y={(7, 1, 2): 0.125}).worst == Place("y", 7, "seed 1", 0.125, 0.0, 0.25)


def test_places_have_three_digits_of_units_and_seven_of_values() -> None:
    place = Place("y", 3, "row 0", 0.123456789, -12345.6789, 1234.5)
    assert str(place) == "y is 1.23e+03 units off at step 3 of row 0 (got 0.1234568, expected -12345.68)"


def test_a_breach_is_the_largest_at_the_first_step_that_has_any() -> None:
    found = deviations(
        y={(2, 0, 0): 4.0, (4, 1, 2): 4.5, (4, 0, 1): 4.0}, next_h={(4, 0, 0): 2.0, (6, 0, 0): 99.0}
    )
    assert found.breach(8.0) == Place("y", 4, "seed 1", 4.5, 0.0, 9.0)
    assert found.breach(9.0) == Place("next_h", 6, "seed 0", 99.0, 0.0, 396.0)
    assert found.breach(396.0) is None
    assert found.breach(0.0) == Place("y", 2, "seed 0", 4.0, 0.0, 8.0)
    assert found.breach(None) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_infinitely_far_off_and_a_breach_of_any_limit(value: float) -> None:
    found = deviations(y={(1, 0, 0): 100.0}, next_h={(3, 1, 0): value})
    assert found.largest == {"y": 200.0, "next_h": math.inf}
    for limit in (None, 1e9):
        breach = found.breach(limit)
        assert breach is not None
        assert (breach.tensor, breach.step, breach.row, breach.units) == ("next_h", 3, "seed 1", math.inf)


def test_what_is_infinite_in_both_is_no_agreement_and_no_warning() -> None:
    results = {"y": np.full((1, 1, 1), math.inf)}
    reference = Reference({"x": np.zeros((1, 1))}, results, {"y": 1.0})
    found = Deviations.of(reference, results, ["row 0"])
    assert found.largest == {"y": math.inf}
    assert math.isnan(found.relative["y"])


def test_growth_is_that_of_the_last_quarter_over_the_first() -> None:
    """Steps 0 and 1 over steps 6 and 7; what is between counts for nothing."""
    assert deviations(y={(1, 0, 0): 1.0, (3, 0, 0): 50.0, (6, 1, 1): 3.0}).growth == 3.0
    assert deviations(y={(0, 0, 0): 2.0, (2, 0, 0): 1.0, (5, 0, 0): 1.0, (7, 0, 0): 1.0}).growth == 0.5
    assert deviations(y={(7, 0, 0): 1.0}).growth == 1.0, "from nothing, nothing is told"
    assert deviations(y={(0, 0, 0): math.inf, (7, 0, 0): 1.0}).growth == 1.0
    assert deviations(y={(0, 0, 0): 1.0, (7, 0, 0): math.inf}).growth == math.inf


def test_growth_of_fewer_than_four_steps_is_that_of_the_last_over_the_first() -> None:
    reference = Reference({"x": np.zeros((3, 1))}, {"y": np.zeros((3, 1, 1))}, {"y": 1.0})
    candidate = {"y": np.array([1.0, 9.0, 4.0]).reshape(3, 1, 1)}
    assert Deviations.of(reference, candidate, ["row 0"]).growth == 4.0


def test_relative_is_the_rms_of_the_error_over_that_of_the_tensor() -> None:
    results = {"y": np.array([3.0, 4.0, 0.0, 0.0]).reshape(2, 1, 2), "next_h": np.zeros((2, 1, 1))}
    reference = Reference({"x": np.zeros((2, 1))}, results, UNITS)
    candidate = {"y": np.array([3.0, 4.0, 0.0, 0.5]).reshape(2, 1, 2), "next_h": np.full((2, 1, 1), 0.25)}
    found = Deviations.of(reference, candidate, ROWS)
    assert found.relative == {"y": pytest.approx(0.1), "next_h": 0.25}, "of a tensor that is zero, the error"
    candidate["y"][0] = np.nan
    assert math.isnan(Deviations.of(reference, candidate, ROWS).relative["y"])


def test_relative_does_not_overflow_in_float32() -> None:
    results = {"y": np.full((1, 1, 1), 1e30, np.float32)}
    reference = Reference({"x": np.zeros((1, 1))}, results, {"y": 1.0})
    found = Deviations.of(reference, {"y": np.full((1, 1, 1), 2e30, np.float32)}, ["row 0"])
    assert found.relative == {"y": pytest.approx(1.0)}


def test_the_99th_percentile_is_one_of_the_numbers_and_not_below() -> None:
    assert p99(np.arange(1.0, 101.0)) == 100.0
    assert p99(np.arange(1.0, 202.0)) == 199.0
    assert p99(np.array([1.0, math.inf])) == math.inf


@pytest.mark.parametrize("slope", [0.0, 2.5, -1.0])
def test_drift_is_the_slope_of_the_error_and_how_sure_it_is(slope: float) -> None:
    """Of noise around a line, in units a thousand steps; nothing is said of a short run."""
    steps, draw = 4096, np.random.default_rng(0)
    error = 20 + slope * np.arange(steps) / 1000 + draw.standard_normal(steps)
    reference = Reference({"x": np.zeros((steps, 1))}, {"y": np.zeros((steps, 1, 1))}, {"y": 1.0})
    drift = Deviations.of(reference, {"y": error[:, None, None]}, ["row 0"]).drift
    assert drift is not None
    assert abs(drift[0] - slope) < 3 * drift[1]
    assert 0.005 < drift[1] < 0.05, "32 medians of 128 of a spread of one, over four thousand steps"
    exact = Deviations.of(reference, {"y": (20 + slope * np.arange(steps) / 1000)[:, None, None]}, ["row 0"])
    assert exact.drift == (pytest.approx(slope, abs=1e-9), pytest.approx(0, abs=1e-9))
    assert deviations().drift is None
