"""What a case of the zoo is: a published model, how its inputs look, and what its maker would want of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, Any]


@dataclass(frozen=True)
class Input(ABC):
    """One input of a model, `[batch, time, ...]` unless it says otherwise."""

    timed = True

    @abstractmethod
    def draw(self, shape: Sequence[int], generator: np.random.Generator) -> Any:
        """An array of this shape, `[batch, steps, ...]`, or `[batch, ...]` where it has no time."""


@dataclass(frozen=True)
class Signal(Input):
    """Normal numbers around `mean`; a third of the time steps hold `masked` throughout, where it is given."""

    mean: float = 0.0
    masked: float | None = None

    def draw(self, shape: Sequence[int], generator: np.random.Generator) -> Any:
        """Independent of each other."""
        array = (self.mean + generator.standard_normal(shape)).astype(np.float32)
        if self.masked is not None:
            array[generator.random(shape[:2]) < 1 / 3] = self.masked
        return array


@dataclass(frozen=True)
class Tokens(Input):
    """Token indices below `count`."""

    count: int

    def draw(self, shape: Sequence[int], generator: np.random.Generator) -> Any:
        """Uniform."""
        return generator.integers(0, self.count, shape, np.int32)


@dataclass(frozen=True)
class OneHot(Input):
    """What the caller has made one-hot, as programs of before Embedding layers do."""

    def draw(self, shape: Sequence[int], generator: np.random.Generator) -> Any:
        """One 1 in each row of the last axis."""
        return np.eye(shape[-1], dtype=np.float32)[generator.integers(0, shape[-1], shape[:-1])]


@dataclass(frozen=True)
class Flags(Input):
    """Truth values, one a time step; the first ones are true."""

    def draw(self, shape: Sequence[int], generator: np.random.Generator) -> Any:
        """A third of them false."""
        flags = generator.random(shape) > 1 / 3
        flags[:, 0] = True
        return flags


@dataclass(frozen=True)
class Frame(Signal):
    """A signal whose model is called once a time step, without a time axis: `[batch, ...]`."""


@dataclass(frozen=True)
class TimeMajor(Signal):
    """A signal whose model puts time before rows, `[time, batch, ...]`, and says so too."""


@dataclass(frozen=True)
class Flat(Signal):
    """A window of so many time steps that the model is given as one row of numbers, `[batch, steps * n]`."""

    steps: int = 1


@dataclass(frozen=True)
class Static(Input):
    """What does not change over a stream: a speaker, an image, a style."""

    count: int | None = None  # of tokens; a vector of numbers where it is None
    timed = False

    def draw(self, shape: Sequence[int], generator: np.random.Generator) -> Any:
        """One a row."""
        if self.count is not None:
            return generator.integers(0, self.count, shape, np.int32)
        return generator.standard_normal(shape).astype(np.float32)


@dataclass(frozen=True)
class State(Input):
    """A state that the caller hands in, zero at first, and gets back as the output of this position."""

    output: int
    timed = False

    def draw(self, shape: Sequence[int], generator: np.random.Generator) -> Any:
        """Zero."""
        return np.zeros(shape, np.float32)


@dataclass(frozen=True)
class Case:
    """One architecture.

    `refused` are words of the refusal that its maker should read; without them it is to be exported.
    `not_yet` tells why that is not so yet. `save` writes the file that is exported in place of the model in
    memory.
    """

    name: str
    family: str
    source: str
    made_of: str
    build: Callable[[], Any]
    inputs: tuple[Input, ...]
    refused: str | None = None
    not_yet: str | None = None
    save: Callable[[Any, Path], Path] | None = None
    trust: bool = False  # the file brings code of its own, and its maker says so
    beside: bool = False  # tf_keras can be found when the file is exported
    shake: float = 0.2  # how far the weights are moved; less where a recurrence would grow without bound
    tolerance: float = 1e-5  # of the output's scale; more where the model itself computes in 16 bits

    @property
    def wanted(self) -> str:
        """The kind of outcome that its maker would want."""
        return "exported" if self.refused is None else "refused rightly"


CASES: list[Case] = []


def case(*inputs: Input, **options: Any) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Add a function that builds a model to CASES.

    The first paragraph of its docstring is where the model comes from, the second what it is made of.
    """

    def add(build: Callable[[], Any]) -> Callable[[], Any]:
        source, made_of = (" ".join(p.split()).rstrip(".") for p in (build.__doc__ or "").split("\n\n", 1))
        family = build.__module__.rpartition(".")[2]
        CASES.append(Case(build.__name__, family, source, made_of, build, inputs, **options))
        return build

    return add
