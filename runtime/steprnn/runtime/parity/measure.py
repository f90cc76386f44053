"""Parity: whether a step says what the reference says, over a long chained run.

Its numbers are judged by how far they are off, and what a language model says by what it decides.
docs/parity.md is the specification.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..spec import NEXT, StepSpec
from .decisions import Decisions
from .deviations import Deviations, Place, p99
from .profiles import Profile
from .reference import Arrays, Reference

NOT_JUDGED = ", not judged"


@dataclass(frozen=True)
class Measures:
    """How far a candidate is from the reference over a run."""

    steps: int
    units: dict[str, float]  # result name -> largest error over the run, in units
    worst: Place | None  # the largest of all; None where a result had another shape
    errors: dict[str, float] = field(default_factory=dict)  # the largest in the result's own numbers
    breach: Place | None = None  # the largest at the first step that is beyond the profile's units
    p99: float = 0.0  # 99th percentile over the steps of the largest error at a step, in units
    growth: float = 1.0  # that of the last quarter of the steps over that of the first
    drift: tuple[float, float] | None = None  # units a thousand steps, and its standard error; of long runs
    relative: dict[str, float] = field(default_factory=dict)  # result name -> rms error over its rms
    spread: dict[str, float] = field(default_factory=dict)  # result name -> mean error over its deviation
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)  # what each state reached
    series: list[float] = field(default_factory=list, repr=False)  # the largest error at each step, in units
    kl: list[float] = field(default_factory=list, repr=False)  # of each step and row, in nats
    mean_kl: float | None = None
    max_kl: float | None = None
    p99_kl: float | None = None
    same_top_1: float | None = None
    agreement: float | None = None  # same-top-1 but for ties
    perplexity: float | None = None  # relative change
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing the profile judges is beyond its limit."""
        return not self.failures

    @property
    def largest(self) -> float:
        """The largest error of any tensor, in units."""
        return max(self.units.values())

    def told(self, spec: StepSpec, profile: Profile) -> str:
        """The figure that the profile judges it by beside its limit, in a few words."""
        outputs = [] if spec.is_language_model else [self.relative.get(t.name, 0.0) for t in spec.outputs]
        if profile.units is not None:
            return f"{self.largest:.2g} u of {profile.units:g}"
        if profile.spread is not None and self.spread:
            mean = max(self.spread[t.name] for t in spec.outputs)
            return f"mean {mean:.2%} of {profile.spread:.1%}"
        if profile.mean_kl is not None and self.mean_kl is not None:
            return f"KL {abs(self.mean_kl):.1e} of {profile.mean_kl:g}"
        if profile.signal is not None and outputs:
            return f"rms {max(outputs):.2%} of {profile.signal:.1%}"
        return f"{self.largest:.2g} u{NOT_JUDGED}"

    def to_record(self) -> dict[str, Any]:
        """As it stands in parity.json; without the series, which are for plots."""
        record = {name: value for name, value in vars(self).items() if name not in ("series", "kl")}
        for name in ("worst", "breach"):
            place = record[name]
            record[name] = None if place is None else vars(place)
        return record | {"passed": self.passed}


def measure(
    spec: StepSpec,
    reference: Reference,
    candidate: Arrays,
    profile: Profile,
    rows: Sequence[str] | None = None,
) -> Measures:
    """Compare a chained run of a candidate with the reference, and judge it by a profile.

    A result that is missing, of another shape or not finite fails, and is never broadcast. `rows` is
    what the rows of the run are called in words.
    """
    for name, expected in reference.results.items():
        got = candidate.get(name)
        if got is None or got.shape != expected.shape:
            found = "nothing" if got is None else f"shape {got.shape}"
            failure = f"{name}: got {found}, expected shape {expected.shape}"
            return Measures(0, {name: math.inf}, None, failures=[failure])
    called = list(rows or (f"row {r}" for r in range(reference.batch)))
    measures = _deviations(spec, Deviations.of(reference, candidate, called), profile)
    if spec.is_language_model:
        measures = _decisions(spec, reference, candidate, profile, called, measures)
    failures = [
        *measures.failures,
        *_relative_failures(spec, measures.relative, profile),
        *_spread_failures(spec, measures.spread, profile),
    ]
    return replace(measures, failures=failures)


def _deviations(spec: StepSpec, deviations: Deviations, profile: Profile) -> Measures:
    """What the numbers are off."""
    series = deviations.series
    states = {t.name: deviations.candidate[NEXT + t.name] for t in spec.states}
    measures = Measures(
        deviations.reference.steps,
        deviations.largest,
        deviations.worst,
        breach=deviations.breach(profile.units),
        p99=p99(series),
        growth=deviations.growth,
        drift=deviations.drift,
        errors=deviations.absolute,
        relative=deviations.relative,
        spread=deviations.spread,
        ranges={name: (float(array.min()), float(array.max())) for name, array in states.items()},
        series=series.tolist(),
    )
    return replace(measures, failures=list(_failures(measures, profile)))


def _decisions(
    spec: StepSpec,
    reference: Reference,
    candidate: Arrays,
    profile: Profile,
    rows: list[str],
    measures: Measures,
) -> Measures:
    """And what a language model says otherwise."""
    y, (x,) = spec.outputs[0].name, reference.inputs.values()
    decisions = Decisions.of(reference.results[y], candidate[y], x)
    failures = [*measures.failures, *decisions.failures(profile, rows)]
    return replace(measures, **decisions.figures(), kl=decisions.kl.ravel().tolist(), failures=failures)


def _failures(measures: Measures, profile: Profile) -> Iterator[str]:
    first, worst = measures.breach, measures.worst
    assert worst is not None
    if first is not None and not math.isfinite(first.units):
        yield f"{first.tensor} is not finite, first at step {first.step} of {first.row}"
    elif first is not None:
        largest = "" if worst == first else f"; the largest: {worst}"
        yield f"{first}, at most {profile.units:g}{largest}"
    if profile.growth is not None and not measures.growth <= profile.growth:
        yield f"the error grows {measures.growth:.3g}-fold, expected at most {profile.growth:g}-fold"


def _spread_failures(spec: StepSpec, spread: dict[str, float], profile: Profile) -> Iterator[str]:
    for t in spec.outputs:
        if profile.spread is not None and not spread[t.name] <= profile.spread:
            yield (
                f"{t.name} is {spread[t.name]:.2%} of its spread off in the mean, "
                f"expected at most {profile.spread:.1%}"
            )


def _relative_failures(spec: StepSpec, relative: dict[str, float], profile: Profile) -> Iterator[str]:
    limits = {NEXT + t.name: profile.relative for t in spec.states}
    if not spec.is_language_model:  # logits are judged by what they decide
        limits |= {t.name: profile.signal for t in spec.outputs}
    for name, limit in limits.items():
        if limit is not None and not relative[name] <= limit:
            yield f"{name} is {relative[name]:.2%} off in rms, expected at most {limit:.1%}"
