"""A recorded run of the reference, its unit of error, and how a candidate is run over the same inputs.

"Equal" is defined by a float64 oracle, the same step with float64 weights. The unit of error is
TensorFlow's own: how far its float32 step is from the oracle. docs/parity.md is the specification.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.arrays import Shape, read_arrays
from ..engines import Runner, Tensors
from ..errors import BundleError
from ..spec import NEXT

Arrays = dict[str, NDArray[Any]]
# Of a recorded run that is read: one of 256 steps is written, 130 MB for a vocabulary of 60,000 tokens.
MOST_STEPS, MOST_GOLDEN = 2**16, 2**29


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
        rows = {name: np.asarray(array, order="C") for name, array in parts.items()}
        np.savez(path, **rows)  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: Path) -> Reference:
        """Read golden.npz; raises `BundleError` where it is not one."""
        try:
            parts = read_arrays(path, _judge, MOST_GOLDEN)
            for name, array in parts.items():
                if not np.isfinite(array).all():
                    raise ValueError(f"{name!r} is not finite")
        except Exception as error:  # a damaged zip raises what the zip and npy readers think of it
            raise BundleError(f"{path} is not a golden trajectory ({error}); export again") from None

        def group(prefix: str) -> Arrays:
            return {n.removeprefix(prefix): a for n, a in parts.items() if n.startswith(prefix)}

        units = {n: float(u) for n, u in group("unit/").items()}
        return cls(group("input/"), group("result/"), units, group("state/") or None)


def _judge(name: str, dtype: np.dtype[Any], shape: Shape) -> str | None:
    kind = name.partition("/")[0]
    if kind == "unit":
        return None if dtype.kind == "f" and shape == () else "one number"
    if kind not in ("input", "result", "state"):
        return "input/, result/, unit/ or state/ and a name"
    fits = dtype.kind in "fiub" and (kind == "state" or (len(shape) >= 2 and 0 < shape[0] <= MOST_STEPS))
    return None if fits else f"numbers, [steps, rows, ...] of at most {MOST_STEPS:,} steps"


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
