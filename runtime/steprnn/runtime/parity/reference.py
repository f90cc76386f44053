"""A recorded run of the reference, its unit of error, and how a candidate is run over the same inputs.

"Equal" is defined by a float64 oracle, the same step with float64 weights. The unit of error is
TensorFlow's own: how far its float32 step is from the oracle. docs/parity.md is the specification.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.arrays import Shape, read_arrays
from ..bundle.packed import Place
from ..engines import Runner, Tensors
from ..errors import BundleError
from ..spec import NEXT

Arrays = dict[str, NDArray[Any]]
# Of a recorded run that is read: one of 256 steps is written, 130 MB for a vocabulary of 60,000 tokens.
MOST_STEPS, MOST_GOLDEN = 2**16, 2**29
SINGLES = 128  # of them, before those of every token
LEAST_SHARE = 1e-3  # of the largest unit of a tensor, below which that of a channel is not taken
MOST_USUAL = 4.0  # times what the median channel is off
CHAOS = 1e-5  # of the largest value: a hundred roundings


@dataclass(frozen=True)
class Reference:
    """A chained run of the oracle: inputs `[steps, batch, ...]`, results by name likewise, and units.

    The results are the outputs and the next states, float64 rounded to float32. `units[name]` is of each
    channel, `[size...]`, the largest error of TensorFlow's float32 step over the run (`units_of`). `state` is
    what the run begins with, `[batch, size...]` by name; zero if None. `of` is the number of time steps that
    were run, where the chain was cut because it is chaotic; 0 where it was not. `singles` are single steps
    from states all along the run (`single_places`), each a row, with units of their own; behind them, from
    the same states, those of every token. `rows` is what the rows are called in words. `stepped` gives one
    step of the oracle from any inputs and states, `[rows, ...]` by name, where there is an oracle.
    """

    inputs: Arrays
    results: Arrays
    units: Arrays
    state: Arrays | None = None
    of: int = 0
    singles: Reference | None = None
    rows: tuple[str, ...] = ()
    stepped: Callable[[Arrays, Arrays], Arrays] | None = field(default=None, repr=False)

    @property
    def steps(self) -> int:
        """Time steps of the run."""
        return len(next(iter(self.inputs.values())))

    @property
    def batch(self) -> int:
        """Rows of the run."""
        return int(next(iter(self.inputs.values())).shape[1])

    @property
    def next_states(self) -> Arrays:
        """The states after each step, by the name of the state."""
        return {n.removeprefix(NEXT): a for n, a in self.results.items() if n.startswith(NEXT)}

    def part(self, steps: slice, rows: slice = slice(None)) -> Reference:
        """Some steps of some rows, beginning at the states that the run had reached there."""
        begin = steps.start or 0
        state = None if self.state is None else {n: a[rows] for n, a in self.state.items()}
        if begin:
            state = {n: a[begin - 1, rows] for n, a in self.next_states.items()}
        return replace(
            self,
            inputs={n: a[steps, rows] for n, a in self.inputs.items()},
            results={n: a[steps, rows] for n, a in self.results.items()},
            state=state,
            rows=self.rows[rows],
        )

    @staticmethod
    def beside(parts: Sequence[Reference], rows: tuple[str, ...] = ()) -> Reference:
        """Parts of one run, of as many time steps each, as the rows of one."""

        def joined(arrays: Sequence[Arrays], axis: int) -> Arrays:
            return {n: np.concatenate([a[n] for a in arrays], axis=axis) for n in arrays[0]}

        return replace(
            parts[0],
            inputs=joined([p.inputs for p in parts], 1),
            results=joined([p.results for p in parts], 1),
            state=joined([p.begin for p in parts], 0),
            rows=rows,
        )

    @property
    def begin(self) -> Arrays:
        """What the run begins with, `[batch, size...]` by name."""
        return self.state or {n: np.zeros_like(a[0]) for n, a in self.next_states.items()}

    def write(self, path: Path) -> None:
        """Write golden.npz; see docs/bundle-format.md."""
        parts: Arrays = {f"input/{n}": a for n, a in self.inputs.items()}
        parts |= {f"result/{n}": a.astype(np.float32) for n, a in self.results.items()}
        parts |= {f"unit/{n}": np.asarray(u) for n, u in self.units.items()}
        parts |= {f"state/{n}": a.astype(np.float32) for n, a in (self.state or {}).items()}
        rows = {name: np.asarray(array, order="C") for name, array in parts.items()}
        np.savez(path, **rows)  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: Place) -> Reference:
        """Read golden.npz; raises `BundleError` where it is not one."""
        try:
            with path.open("rb") as file:
                parts = read_arrays(file, _judge, MOST_GOLDEN)
            for name, array in parts.items():
                if not np.isfinite(array).all():
                    raise ValueError(f"{name!r} is not finite")
        except Exception as error:  # a damaged zip raises what the zip and npy readers think of it
            raise BundleError(f"{path} is not a golden trajectory ({error}); export again") from None

        def group(prefix: str) -> Arrays:
            return {n.removeprefix(prefix): a for n, a in parts.items() if n.startswith(prefix)}

        return cls(group("input/"), group("result/"), group("unit/"), group("state/") or None)


def _judge(name: str, dtype: np.dtype[Any], shape: Shape) -> str | None:
    kind = name.partition("/")[0]
    if kind == "unit":
        return None if dtype.kind == "f" else "numbers, one a channel"
    if kind not in ("input", "result", "state"):
        return "input/, result/, unit/ or state/ and a name"
    fits = dtype.kind in "fiub" and (kind == "state" or (len(shape) >= 2 and 0 < shape[0] <= MOST_STEPS))
    return None if fits else f"numbers, [steps, rows, ...] of at most {MOST_STEPS:,} steps"


def largest_of(results: Mapping[str, NDArray[Any]]) -> Arrays:
    """The largest absolute value of each channel over a run, `[size...]`."""
    return {name: np.abs(array).max(axis=(0, 1)) for name, array in results.items()}


def errors_of(oracle: Mapping[str, NDArray[Any]], float32: Mapping[str, NDArray[Any]]) -> Arrays:
    """How far each number of a float32 run is off."""
    return {name: np.abs(float32[name] - exact) for name, exact in oracle.items()}


def units_of(
    oracle: Mapping[str, NDArray[Any]],
    errors: Mapping[str, NDArray[Any]],
    reached: Mapping[str, NDArray[Any]] | None = None,
) -> Arrays:
    """What rounding costs: of each channel, `[size...]`, the largest error over a run `[steps, batch, ...]`.

    Which last digits happen to be right is chance, and of one channel in hundreds it is so at every step. So
    a unit is never less than what is usual: as many half spacings of the channel's largest value as all but a
    hundredth of the channels are off, but no more than four times the median, and a thousandth of what the
    worst one is. `reached` are the largest values of
    another run, where a value near zero is a difference of what was rounded, and an input that stays the same
    gives one such value for all its steps.
    """
    units, largest = {}, largest_of(oracle)
    for name in oracle:
        error = errors[name].max(axis=(0, 1))
        scale = np.maximum(largest[name], (reached or largest)[name])
        spacing = np.spacing(scale.astype(np.float32)).astype(np.float64) / 2
        usual, median = np.quantile(error / spacing, (0.99, 0.5), method="lower")
        usual = max(1.0, min(usual, MOST_USUAL * median))
        units[name] = np.maximum(np.maximum(error, usual * spacing), LEAST_SHARE * error.max(initial=0.0))
    return units


def single_rows(places: Sequence[tuple[int, int]]) -> tuple[str, ...]:
    """What the states before these steps are called."""
    return tuple(f"the state before step {t} of seed {row}" for t, row in places)


def single_places(steps: int, rows: int) -> list[tuple[int, int]]:
    """Time steps and rows of a run from which single steps are taken: the first, and others all along."""
    return [(int(t), i % rows) for i, t in enumerate(np.linspace(0, steps - 1, min(steps, SINGLES)))]


def chaotic_from(oracle: Mapping[str, NDArray[Any]], errors: Mapping[str, NDArray[Any]]) -> int:
    """The first time step at which rounding costs more than CHAOS of a tensor's largest value.

    From there on a chain tells the rounding of one engine from that of another, and nothing of the model. The
    number of steps where there is none.
    """
    first = [len(next(iter(oracle.values())))]
    for name, exact in oracle.items():
        error = errors[name].reshape(len(exact), -1).max(axis=1)
        beyond = ~(error <= CHAOS * np.abs(exact).max())
        if beyond.any():
            first.append(int(beyond.argmax()))
    return min(first)


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
