"""Choosing the next token from logits.

The order is llama.cpp's: repetition penalty, top-k, top-p, min-p, temperature, draw. docs/sampling.md
specifies it, so that another language can give the same text for the same seed.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import NotFinite, UsageError
from .recent import LARGEST, Recent

multiply, exp, isfinite = np.multiply, np.exp, math.isfinite  # looked up once
LOWEST, ONE = np.float32(-np.inf), np.array(1.0, np.float32)

# Beyond them nothing changes but the rounding: at 1000 a draw is even, a penalty of 100 is a ban, and a count
# of two thousand million is all there are. 1 / penalty and logit * penalty stay far from float32's ends.
LARGEST_TEMPERATURE = 1000.0
LEAST_PENALTY, LARGEST_PENALTY = 0.01, 100.0
LARGEST_COUNT = 2**31 - 1
# Below it float32 logits over the temperature overflow, and the draw is greedy but for exact ties.
LEAST_TEMPERATURE = 1e-6
FIRST_LOOK = 16  # how many of the likeliest are looked at first, where no filter says how many
# exp(logit / temperature) is taken as it is while the largest exponent is no larger: far from where float32
# overflows, and rounded by less than 1e-5 of itself. A draw is the likeliest token for certain where u times
# the sum is below NEARLY times its weight; what is nearer to that boundary is looked at more closely.
LARGEST_EXPONENT = 60.0
NEARLY = 0.9999
ROUNDED = 1e-4  # of itself, by which a sum of float32 weights is off at most


@dataclass(frozen=True)
class Parameter:
    """What a parameter of sampling may be, and what a command says of it."""

    default: float
    least: float
    most: float
    above: bool  # whether the least itself is too little
    text: str
    letter: str  # that stands for a value

    @property
    def is_whole(self) -> bool:
        """Whether it is a whole number."""
        return isinstance(self.default, int)


def _parameter(
    default: float, least: float, most: float, text: str, letter: str = "N", above: bool = False
) -> Any:
    told = {"parameter": Parameter(default, least, most, above, text, letter)}
    return field(default=default, metadata=told)


@dataclass(frozen=True)
class Sampling:
    """How to choose a token; the defaults choose the likeliest one (greedy).

    Raises `UsageError` where a value is outside its range.
    """

    # 0 is greedy; below 1 sharper, above 1 flatter
    temperature: float = _parameter(
        0.0, 0.0, LARGEST_TEMPERATURE, "temperature; 0 takes the likeliest (greedy)", "TEMP"
    )
    # keep the k likeliest; 0 keeps all
    top_k: int = _parameter(0, 0, LARGEST_COUNT, "draw from the N likeliest; 0 is off")
    # keep the likeliest that together reach this probability; 1 keeps all
    top_p: float = _parameter(1.0, 0.0, 1.0, "draw from the likeliest that sum to P", "P", above=True)
    # keep those at least this fraction as likely as the likeliest; 0 keeps all
    min_p: float = _parameter(0.0, 0.0, 1.0, "leave out those below P times the likeliest", "P")
    # divide (or multiply, if negative) the logits of recent tokens; 1 is off
    repeat_penalty: float = _parameter(
        1.0, LEAST_PENALTY, LARGEST_PENALTY, "make recent characters less likely; 1 is off", "X"
    )
    # how many of the latest tokens count as recent
    repeat_last_n: int = _parameter(64, 0, LARGEST_COUNT, "how many characters are recent")

    def __post_init__(self) -> None:
        for name, parameter in PARAMETERS.items():
            _check(name, getattr(self, name), parameter)


PARAMETERS: dict[str, Parameter] = {f.name: f.metadata["parameter"] for f in fields(Sampling)}


def _check(name: str, value: Any, parameter: Parameter) -> None:
    least, most, above = parameter.least, parameter.most, parameter.above
    kind = Integral if parameter.is_whole else Real
    if not (_is(value, kind) and least <= value <= most and not (above and value == least)):
        what = "a whole number" if parameter.is_whole else "a number"
        between = f"above {least:g} and at most {most:g}" if above else f"from {least:g} to {most:.10g}"
        raise UsageError(f"{name} is {value!r}; expected {what} {between}")


class Sampler:
    """Chooses the tokens of one stream; holds its random generator and its recent tokens.

    A draw goes through the tokens from the likeliest down, and all but a few are never looked at: they
    are found by a cut below the best logit, which is exact, since whatever is above a cut comes first.
    """

    def __init__(self, sampling: Sampling, seed: int, recent: Iterable[int] = ()) -> None:
        check_seed(seed)
        self._sampling = sampling
        self._greedy = sampling.temperature < LEAST_TEMPERATURE
        self._temperature = max(sampling.temperature, LEAST_TEMPERATURE)
        self._inverse = 1.0 / self._temperature
        self._sharpness = np.array(self._inverse, np.float32)  # without axes: less to convert than a scalar
        self._largest = 0.0  # logit whose exponent is small enough; none is before there is room for weights
        self._min_p = -math.log(sampling.min_p) if sampling.min_p else math.inf
        self._filtered = sampling.top_k > 0 or sampling.top_p < 1.0 or sampling.min_p > 0.0
        # Python promises the same numbers for the same seed in every version (random, "Notes on
        # Reproducibility"), and the Mersenne Twister is short to write in any language.
        self.generator = random.Random(seed)
        self._next_random = self.generator.random
        penalised = sampling.repeat_penalty != 1.0 and sampling.repeat_last_n > 0
        self._recent = Recent(sampling.repeat_penalty, sampling.repeat_last_n, recent) if penalised else None
        self._size = 0
        self._weights = np.empty(0, np.float32)

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The next token for logits `[vocabulary]`, which are left as they are.

        Raises `NotFinite` where the largest is none that a text could go on with: NaN, which `argmax` puts
        before all others, infinity, or -inf, by which a graph bans a token, where it bans all.
        """
        recent = self._recent
        if recent is not None:
            logits = recent.penalise(logits)
        token = int(logits.argmax())
        if recent is not None:
            token = self._likeliest(logits, token)
        elif self._greedy and not isfinite(logits.item(token)):
            raise not_finite(logits.item(token))
        if not self._greedy:
            u, weights, total = self._next_random(), self._weights, None
            if -self._largest < logits.item(token) < self._largest:
                multiply(logits, self._sharpness, weights)
                exp(weights, weights)
                total = float(weights.dot(self._ones)) / weights.item(token)
            if total is None or u * total >= NEARLY:
                token = self._draw(logits, token, u, total)
        if recent is not None:
            recent.remember(token)
        return token

    def _likeliest(self, logits: NDArray[np.float32], best: int) -> int:
        """The likeliest of penalised logits; `best` is it where no other is equal in float32."""
        if self._recent is not None and self._recent.most < logits.item(best) < LARGEST:
            return best
        return self.settle(logits)

    def settle(self, logits: NDArray[np.float32]) -> int:
        """The likeliest of penalised logits as they were before they were rounded.

        Raises `NotFinite` as `choose` does.
        """
        exact = logits if self._recent is None else self._recent.exact(logits)
        best = int(exact.argmax())
        if not isfinite(exact.item(best)):
            raise not_finite(exact.item(best))
        return best

    def _allocate(self, size: int) -> None:
        self._size = size
        self._largest = LARGEST_EXPONENT / self._inverse
        self._weights, self._ones = np.empty(size, np.float32), np.ones(size, np.float32)
        self._above = np.empty(size, np.bool_)

    def _draw(self, logits: NDArray[np.float32], best: int, u: float, total: float | None) -> int:
        """A draw, of which `best` is the likeliest token, and `total` the sum of all weights beside its own.

        Float32 decides only what it is sure of; the rest is float64, as docs/sampling.md has it.
        """
        if len(logits) != self._size:
            self._allocate(len(logits))
        exact = logits if self._recent is None else self._recent.exact(logits)
        top = float(exact[best])
        if not isfinite(top):
            raise not_finite(top)
        # A penalised logit was rounded, which is much where it is large and the temperature is low.
        if total is None and (self._recent is None or abs(top) < self._largest):
            total = self._total(logits, best, self._sharpness)
            if u * total < NEARLY:
                return best  # it comes first, and a filter would only make the total smaller
        if self._filtered:
            values, indices = self._kept(logits, exact, best)
        else:
            wanted = FIRST_LOOK
            while total is not None and wanted < self._size:
                values, indices = self._head(logits, exact, self._cut(logits, wanted))
                cumulative = np.exp((values - top) / self._temperature).cumsum()
                place = int(cumulative.searchsorted(u * total * (1 - ROUNDED), "right"))
                if place < len(indices) and cumulative.item(place) > u * total * (1 + ROUNDED):
                    return int(indices[place])
                if place < len(indices):
                    break  # too near to a boundary
                wanted *= 4
            values, indices = self._head(logits, exact, LOWEST)
        cumulative = np.exp((values - top) / self._temperature).cumsum()
        return int(indices[cumulative.searchsorted(u * cumulative.item(-1), "right")])

    def _total(self, logits: NDArray[np.float32], best: int, sharpness: NDArray[np.float32]) -> float:
        """The sum of all weights, that of the likeliest being 1, to within ROUNDED."""
        np.subtract(logits, logits[best], self._weights)
        multiply(self._weights, sharpness, self._weights)
        exp(self._weights, self._weights)
        return float(self._weights.sum(dtype=np.float64))

    def _kept(
        self, logits: NDArray[np.float32], exact: NDArray[Any], best: int
    ) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """What top-k, top-p and min-p leave: their logits and their indices, likeliest first."""
        sampling, size, top = self._sampling, self._size, float(exact[best])
        most = min(sampling.top_k or size, size)
        if sampling.top_p == 1.0 and sampling.min_p > 0.0:
            cut = np.nextafter(np.float32(top - self._min_p), LOWEST)  # rounded, it is not above any kept one
            values, indices = self._head(logits, exact, cut)
            keep = min(most, int((top - values).searchsorted(self._min_p, "right")))
            return values[:keep], indices[:keep]
        total = None  # of the weights before temperature
        if sampling.top_p < 1.0 and most == size and (self._recent is None or abs(top) < LARGEST_EXPONENT):
            total = self._total(logits, best, ONE)
        wanted = most if most < size or (sampling.top_p < 1.0 and total is None) else FIRST_LOOK
        while True:
            cut = self._cut(logits, wanted) if wanted < size else LOWEST
            values, indices = self._head(logits, exact, cut)
            keep, complete = min(len(indices), most), len(indices) >= most
            if sampling.top_p < 1.0 and (complete or total is not None):
                cumulative = np.exp(values[:keep] - top).cumsum()
                whole, off = (cumulative[-1], 0.0) if complete or total is None else (total, ROUNDED)
                share = sampling.top_p * whole
                place = int(cumulative.searchsorted(share * (1 - off)))
                if place < keep:
                    complete = complete or cumulative.item(place) >= share * (1 + off)
                    keep = place + 1
            if complete:
                break
            wanted *= 4
        if sampling.min_p > 0.0:
            keep = min(keep, int((top - values[:keep]).searchsorted(self._min_p, "right")))
        return values[:keep], indices[:keep]

    def _cut(self, logits: NDArray[np.float32], wanted: int) -> np.float32:
        """A logit that about twice as many as `wanted` reach, guessed from every eighth of them."""
        sample = logits[::8].copy()
        rank = wanted // 5 + 4
        if rank >= len(sample):
            return LOWEST
        sample.sort()
        return sample[-rank]  # type: ignore[no-any-return]

    def _head(
        self, logits: NDArray[np.float32], exact: NDArray[Any], cut: np.float32
    ) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """All tokens that reach the cut: their logits in float64 and their indices, likeliest first.

        Rounding keeps the order, so that none that comes first is missing.
        """
        np.greater_equal(logits, cut, self._above)
        (indices,) = self._above.nonzero()
        values = exact.take(indices).astype(np.float64)
        order = (-values).argsort(kind="stable")  # equals stay in the order of their indices
        return values.take(order), indices.take(order)


def new_seed() -> int:
    """One of 32 random bits, for texts that were given none."""
    return int.from_bytes(os.urandom(4), "little")


def check_seed(seed: int) -> None:
    """Raise `UsageError` where it is none: Python would take the absolute value or the hash."""
    if not _is(seed, Integral) or seed < 0:
        raise UsageError(f"seed is {seed!r}; expected a whole number, at least 0")


def _is(value: object, kind: type) -> bool:
    """Whether a value is of a kind of number, of Python or NumPy; a truth value is none."""
    return isinstance(value, kind) and not isinstance(value, bool)


def not_finite(top: float) -> NotFinite:
    """What to raise where the largest of some logits is none, or is none once the penalty is on it."""
    return NotFinite(f"the largest logit is {top}{' before the penalty' if isfinite(top) else ''}")
