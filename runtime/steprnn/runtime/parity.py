"""Parity: whether a step says what the reference says, over a long chained run.

"Equal" is defined by a float64 oracle, the same step with float64 weights. The unit of error is
TensorFlow's own: how far its float32 step is from the oracle. docs/parity.md is the specification.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .engines import Runner, Tensors
from .errors import BundleError
from .spec import NEXT, StepSpec

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Profile:
    """What an artefact of one variant may be off; None is not judged."""

    units: float | None = None  # largest error of any output or state, at any step
    mean_kl: float | None = None  # nats, reference to candidate, mean over the steps
    same_top_1: float | None = None  # share of the steps at which the likeliest token is the same
    perplexity: float | None = None  # relative change on the run's own text
    relative: float | None = None  # rms error of an output over its rms, where it is not logits
    growth: float | None = None  # p99 of the error in the last quarter of the steps over that in the first


PROFILES = {
    # Float32 engines differ from TensorFlow in the order of their sums and in how they approximate
    # sigmoid and tanh, which costs a few units (docs/parity.md has the distribution). A wrong weight,
    # a swapped state or a stale one is thousands of units off.
    "float32": Profile(units=8.0),
    # Weights of 8 bits move the logits by some hundredths; these limits are where generated text
    # starts to read differently, not where arithmetic does.
    "int8": Profile(mean_kl=1e-2, same_top_1=0.95, perplexity=0.01, relative=0.05, growth=4.0),
}


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
class Measures:
    """How far a candidate is from the reference over a run."""

    steps: int
    units: dict[str, float]  # result name -> largest error over the run, in units
    worst: tuple[str, int, float, float]  # the tensor and step of the largest, what it got and expected
    p99: float = 0.0  # 99th percentile over the steps of the largest error at a step, in units
    growth: float = 1.0  # that of the last quarter of the steps over that of the first
    first_breach: int | None = None  # the first step beyond the profile's units
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)  # what each state reached
    series: list[float] = field(default_factory=list, repr=False)  # the largest error at each step, in units
    mean_kl: float | None = None
    max_kl: float | None = None
    p99_kl: float | None = None
    same_top_1: float | None = None
    perplexity: float | None = None  # relative change
    relative: float | None = None  # rms error over rms of the output that is furthest off
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
        """As it stands in parity.json; without the series, which is for plots."""
        record = {name: value for name, value in vars(self).items() if name != "series"}
        return record | {"passed": self.passed}


def measure(spec: StepSpec, reference: Reference, candidate: Arrays, profile: Profile) -> Measures:
    """Compare a chained run of a candidate with the reference, and judge it by a profile.

    A result that is missing, of another shape or not finite fails, and is never broadcast.
    """
    errors: dict[str, NDArray[np.float64]] = {}
    for name, expected in reference.results.items():
        got = candidate.get(name)
        if got is None or got.shape != expected.shape:
            found = "nothing" if got is None else f"shape {got.shape}"
            return Measures(
                0,
                {name: math.inf},
                (name, 0, math.nan, math.nan),
                failures=[f"{name}: got {found}, expected shape {expected.shape}"],
            )
        error = np.abs(got.astype(np.float64) - expected)
        errors[name] = np.where(np.isfinite(got), error, np.inf) / reference.units[name]
    steps = len(next(iter(errors.values())))
    units = {name: float(error.max()) for name, error in errors.items()}
    worst = max(units, key=lambda name: units[name])
    place = np.unravel_index(int(errors[worst].argmax()), errors[worst].shape)
    at = (worst, int(place[0]), float(candidate[worst][place]), float(reference.results[worst][place]))
    at_step = np.max([error.reshape(steps, -1).max(axis=1) for error in errors.values()], axis=0)
    quarter = max(1, steps // 4)
    begin, end = (float(np.quantile(part, 0.99)) for part in (at_step[:quarter], at_step[-quarter:]))
    beyond = at_step > (math.inf if profile.units is None else profile.units)
    measures = Measures(
        steps,
        units,
        at,
        p99=float(np.quantile(at_step, 0.99)),
        growth=end / begin if begin else 1.0,
        first_breach=int(beyond.argmax()) if beyond.any() else None,
        ranges={t.name: _range(candidate[NEXT + t.name]) for t in spec.states},
        series=at_step.tolist(),
    )
    if spec.is_language_model:
        y, (x,) = spec.outputs[0].name, reference.inputs.values()
        with np.errstate(all="ignore"):  # a candidate may say anything; what is not finite fails below
            measures = replace(measures, **_decisions(reference.results[y], candidate[y], x))
    else:
        measures = replace(
            measures,
            relative=max(_relative(reference.results[t.name], candidate[t.name]) for t in spec.outputs),
        )
    return replace(measures, failures=list(_failures(measures, errors, profile)))


def _decisions(expected: NDArray[Any], got: NDArray[Any], x: NDArray[Any]) -> dict[str, Any]:
    """KL divergence, same-top-1 and change of perplexity, on logits `[steps, batch, vocabulary]`."""
    p, q = _log_softmax(expected), _log_softmax(got)
    kl = (np.exp(p) * (p - q)).sum(axis=-1)
    following = x[1:, :, None].astype(np.int64)
    change = 0.0
    if len(following):
        mean_p, mean_q = (float(np.take_along_axis(a[:-1], following, axis=-1).mean()) for a in (p, q))
        change = float(np.expm1(mean_p - mean_q))
    return {
        "mean_kl": float(kl.mean()),
        "max_kl": float(kl.max()),
        "p99_kl": float(np.quantile(kl, 0.99)),
        "same_top_1": float((p.argmax(axis=-1) == q.argmax(axis=-1)).mean()),
        "perplexity": change,
    }


def _range(array: NDArray[Any]) -> tuple[float, float]:
    return float(array.min()), float(array.max())


def _relative(expected: NDArray[Any], got: NDArray[Any]) -> float:
    difference = got.astype(np.float64) - expected
    scale = math.sqrt(float(np.square(expected, dtype=np.float64).mean()))
    return math.sqrt(float(np.square(difference).mean())) / (scale or 1.0)


def _log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _failures(measures: Measures, errors: dict[str, NDArray[np.float64]], profile: Profile) -> Iterator[str]:
    for name, units in measures.units.items():
        if units == math.inf:
            axes = tuple(range(1, errors[name].ndim))
            breach = int(np.isinf(errors[name].max(axis=axes)).argmax())
            yield f"{name} is not finite, first at step {breach}"
    if profile.units is not None and not measures.largest <= profile.units:
        name, step, got, expected = measures.worst
        yield (
            f"{name} is {measures.largest:.3g} units off at step {step} (got {got:.7g}, expected "
            f"{expected:.7g}; at most {profile.units:g}), first beyond at step {measures.first_breach}"
        )
    if profile.growth is not None and not measures.growth <= profile.growth:
        yield f"the error grows {measures.growth:.3g}-fold, expected at most {profile.growth:g}-fold"
    if (
        measures.relative is not None
        and profile.relative is not None
        and not measures.relative <= profile.relative
    ):
        yield f"an output is {measures.relative:.2%} off in rms, expected at most {profile.relative:.0%}"
    if measures.mean_kl is None:
        return
    if profile.mean_kl is not None and not measures.mean_kl <= profile.mean_kl:
        yield f"mean KL divergence is {measures.mean_kl:.3g}, expected at most {profile.mean_kl:g}"
    if profile.same_top_1 is not None and not (measures.same_top_1 or 0.0) >= profile.same_top_1:
        yield f"same-top-1 is {measures.same_top_1:.4f}, expected at least {profile.same_top_1:g}"
    if profile.perplexity is not None and not abs(measures.perplexity or 0.0) <= profile.perplexity:
        yield f"perplexity changes by {measures.perplexity:+.3%}, expected at most {profile.perplexity:.3%}"
