"""Parity: whether a step says what the reference says, over a long chained run.

"Equal" is defined by a float64 oracle, the same step with float64 weights. The unit of error is
TensorFlow's own: how far its float32 step is from the oracle. docs/parity.md is the specification.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engines import Runner, Tensors
from ..errors import BundleError
from ..spec import NEXT, StepSpec
from .decisions import Decisions
from .profiles import PROFILES as PROFILES
from .profiles import Profile as Profile

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Reference:
    """A chained run of the oracle: inputs `[steps, batch, ...]`, results by name likewise, and units.

    The results are the outputs and the next states, float64 rounded to float32. `units[name]` is the
    largest error of TensorFlow's float32 step in that tensor over the run. `state` is what the run
    begins with, `[batch, size...]` by name; zero if None.
    """

    inputs: Arrays
    results: Arrays
    units: dict[str, float]
    state: Arrays | None = None

    @property
    def steps(self) -> int:
        """Time steps of the run."""
        return len(next(iter(self.inputs.values())))

    @property
    def batch(self) -> int:
        """Rows of the run."""
        return int(next(iter(self.inputs.values())).shape[1])

    def part(self, steps: slice, rows: slice = slice(None)) -> Reference:
        """Some steps of some rows, beginning at the states that the run had reached there."""
        begin = steps.start or 0
        state = None if self.state is None else {n: a[rows] for n, a in self.state.items()}
        if begin:
            names = [n for n in self.results if n.startswith(NEXT)]
            state = {n.removeprefix(NEXT): self.results[n][begin - 1, rows] for n in names}
        return Reference(
            {n: a[steps, rows] for n, a in self.inputs.items()},
            {n: a[steps, rows] for n, a in self.results.items()},
            self.units,
            state,
        )

    def write(self, path: Path) -> None:
        """Write golden.npz; see docs/bundle-format.md."""
        parts: Arrays = {f"input/{n}": a for n, a in self.inputs.items()}
        parts |= {f"result/{n}": a.astype(np.float32) for n, a in self.results.items()}
        parts |= {f"unit/{n}": np.array(u) for n, u in self.units.items()}
        parts |= {f"state/{n}": a.astype(np.float32) for n, a in (self.state or {}).items()}
        np.savez(path, **parts)  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: Path) -> Reference:
        """Read golden.npz; raises `BundleError` where it is not one."""
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                parts = {name: file[name] for name in file.files}
        except Exception as error:  # a damaged zip raises what the zip and npy readers think of it
            raise BundleError(f"{path} is not a golden trajectory ({error}); export again") from None

        def group(prefix: str) -> Arrays:
            return {n.removeprefix(prefix): a for n, a in parts.items() if n.startswith(prefix)}

        units = {n: float(u) for n, u in group("unit/").items()}
        return cls(group("input/"), group("result/"), units, group("state/") or None)


def units_of(oracle: Mapping[str, NDArray[Any]], float32: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """TensorFlow's own error: the largest |float32 - oracle| of each tensor over a run.

    Never less than half a float32 spacing of the largest value: rounding the result alone costs that.
    """
    spacing = {n: float(np.spacing(np.float32(np.abs(a).max()))) / 2 for n, a in oracle.items()}
    return {n: max(float(np.abs(float32[n] - a).max()), spacing[n]) for n, a in oracle.items()}


def steps_of(runner: Runner, inputs: Tensors) -> Iterator[Arrays]:
    """Step through inputs `[steps, batch, ...]`; yield every result by name, copied."""
    for t in range(len(next(iter(inputs.values())))):
        for name, array in inputs.items():
            runner.inputs[name][...] = array[t]
        runner.run()
        yield {name: array.copy() for name, array in runner.outputs.items()} | {
            NEXT + name: array for name, array in runner.get_state().items()
        }


def chain(runner: Runner, inputs: Tensors, state: Tensors | None = None) -> Arrays:
    """A chained run from `state` (zero if None): each result stacked to `[steps, batch, ...]`."""
    zero = {name: np.zeros_like(array) for name, array in runner.get_state().items()}
    runner.set_state(zero if state is None else state)
    rows = list(steps_of(runner, inputs))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


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
class Measures:
    """How far a candidate is from the reference over a run."""

    steps: int
    units: dict[str, float]  # result name -> largest error over the run, in units
    worst: Place | None  # the largest of all; None where a result had another shape
    breach: Place | None = None  # the largest at the first step that is beyond the profile's units
    p99: float = 0.0  # 99th percentile over the steps of the largest error at a step, in units
    growth: float = 1.0  # that of the last quarter of the steps over that of the first
    relative: dict[str, float] = field(default_factory=dict)  # result name -> rms error over its rms
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
    called = list(rows or (f"row {r}" for r in range(reference.batch)))
    errors: dict[str, NDArray[np.float64]] = {}
    for name, expected in reference.results.items():
        got = candidate.get(name)
        if got is None or got.shape != expected.shape:
            found = "nothing" if got is None else f"shape {got.shape}"
            failure = f"{name}: got {found}, expected shape {expected.shape}"
            return Measures(0, {name: math.inf}, None, failures=[failure])
        with np.errstate(all="ignore"):
            error = np.abs(got.astype(np.float64) - expected)
        errors[name] = np.where(np.isfinite(got), error, np.inf) / reference.units[name]

    def place(name: str, step: int | None = None) -> Place:
        part = errors[name] if step is None else errors[name][step : step + 1]
        t, row, *rest = (int(i) for i in np.unravel_index(int(part.argmax()), part.shape))
        at = (t + (step or 0), row, *rest)
        got, expected = float(candidate[name][at]), float(reference.results[name][at])
        return Place(name, at[0], called[row], got, expected, float(errors[name][at]))

    steps = reference.steps
    by_step = {n: error.reshape(steps, -1).max(axis=1) for n, error in errors.items()}
    at_step = np.max(list(by_step.values()), axis=0)
    quarter = max(1, steps // 4)
    begin, end = (_quantile(part) for part in (at_step[:quarter], at_step[-quarter:]))
    beyond = at_step > (np.finfo(float).max if profile.units is None else profile.units)
    first = int(beyond.argmax()) if beyond.any() else None
    units = {name: float(error.max()) for name, error in errors.items()}
    measures = Measures(
        steps,
        units,
        place(max(units, key=units.__getitem__)),
        None if first is None else place(max(by_step, key=lambda n: by_step[n][first]), first),
        p99=_quantile(at_step),
        growth=end / begin if begin and math.isfinite(begin) else 1.0,
        ranges={t.name: _range(candidate[NEXT + t.name]) for t in spec.states},
        series=at_step.tolist(),
    )
    relative = {n: _relative(expected, candidate[n]) for n, expected in reference.results.items()}
    measures = replace(measures, relative=relative)
    failures = list(_failures(measures, profile))
    if spec.is_language_model:
        y, (x,) = spec.outputs[0].name, reference.inputs.values()
        decisions = Decisions.of(reference.results[y], candidate[y], x)
        failures += decisions.failures(profile, called)
        measures = replace(measures, **decisions.figures(), kl=decisions.kl.ravel().tolist())
    return replace(measures, failures=[*failures, *_relative_failures(spec, relative, profile)])


def _quantile(errors: NDArray[np.float64]) -> float:
    """The 99th percentile, of numbers that may be infinite."""
    return float(np.quantile(errors, 0.99, method="higher"))


def _range(array: NDArray[Any]) -> tuple[float, float]:
    return float(array.min()), float(array.max())


def _relative(expected: NDArray[Any], got: NDArray[Any]) -> float:
    with np.errstate(all="ignore"):
        difference = got.astype(np.float64) - expected
        scale = math.sqrt(float(np.square(expected, dtype=np.float64).mean()))
        return math.sqrt(float(np.square(difference).mean())) / (scale or 1.0)


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


def _relative_failures(spec: StepSpec, relative: dict[str, float], profile: Profile) -> Iterator[str]:
    limits = {NEXT + t.name: profile.relative for t in spec.states}
    if not spec.is_language_model:  # logits are judged by what they decide
        limits |= {t.name: profile.signal for t in spec.outputs}
    for name, limit in limits.items():
        if limit is not None and not relative[name] <= limit:
            yield f"{name} is {relative[name]:.2%} off in rms, expected at most {limit:.1%}"
