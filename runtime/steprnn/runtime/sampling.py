"""Choosing the next token from logits.

The order is llama.cpp's: repetition penalty, top-k, top-p, min-p, temperature, draw. docs/sampling.md
specifies it, so that another language can give the same text for the same seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import NotFinite, UsageError
from .recent import Recent

multiply, exp, isfinite = np.multiply, np.exp, math.isfinite  # looked up once

# Beyond them nothing changes but the rounding: at 1000 a draw is even, a penalty of 100 is a ban, and a count
# of two thousand million is all there are. 1 / penalty and logit * penalty stay far from float32's ends.
LARGEST_TEMPERATURE = 1000.0
LEAST_PENALTY, LARGEST_PENALTY = 0.01, 100.0
LARGEST_COUNT = 2**31 - 1
NO_TOKEN = -1
# Below it float32 logits over the temperature overflow, and the draw is greedy but for exact ties.
LEAST_TEMPERATURE = 1e-6
FIRST_LOOK = 16  # how many of the likeliest are looked at first, where no filter says how many
# exp(logit / temperature) is taken as it is while the largest exponent is no larger: far from where float32
# overflows, and rounded by less than 1e-5 of itself. A draw is the likeliest token for certain where u times
# the sum is below NEARLY times its weight; what is nearer to that boundary is looked at more closely.
LARGEST_EXPONENT = 60.0
NEARLY = 0.9999


@dataclass(frozen=True)
class Sampling:
    """How to choose a token; the defaults choose the likeliest one (greedy).

    Raises `UsageError` where a value is outside its range.
    """

    temperature: float = 0.0  # 0 is greedy; below 1 sharper, above 1 flatter
    top_k: int = 0  # keep the k likeliest; 0 keeps all
    top_p: float = 1.0  # keep the likeliest that together reach this probability; 1 keeps all
    min_p: float = 0.0  # keep those at least this fraction as likely as the likeliest; 0 keeps all
    repeat_penalty: float = 1.0  # divide (or multiply, if negative) the logits of recent tokens; 1 is off
    repeat_last_n: int = 64  # how many of the latest tokens count as recent

    def __post_init__(self) -> None:
        _check(self, "temperature", Real, 0.0, LARGEST_TEMPERATURE)
        _check(self, "top_k", Integral, 0, LARGEST_COUNT)
        _check(self, "top_p", Real, 0.0, 1.0, above=True)
        _check(self, "min_p", Real, 0.0, 1.0)
        _check(self, "repeat_penalty", Real, LEAST_PENALTY, LARGEST_PENALTY)
        _check(self, "repeat_last_n", Integral, 0, LARGEST_COUNT)


def _check(sampling: Sampling, name: str, kind: type, least: float, most: float, above: bool = False) -> None:
    value: Any = getattr(sampling, name)
    if not (_is(value, kind) and least <= value <= most and not (above and value == least)):
        what = "a whole number" if kind is Integral else "a number"
        between = f"above {least:g} and at most {most:g}" if above else f"from {least:g} to {most:.10g}"
        raise UsageError(f"{name} is {value!r}; expected {what} {between}")


class Sampler:
    """Chooses the tokens of one stream; holds its random generator and its recent tokens.

    A draw goes through the tokens from the likeliest down, and all but a few are never looked at: they
    are found by a cut below the best logit, which is exact, since whatever is above a cut comes first.
    """

    def __init__(self, sampling: Sampling, seed: int, recent: Iterable[int] = ()) -> None:
        if not _is(seed, Integral) or seed < 0:  # Python would take the absolute value or the hash
            raise UsageError(f"seed is {seed!r}; expected a whole number, at least 0")
        self._sampling = sampling
        self._greedy = sampling.temperature < LEAST_TEMPERATURE
        self._inverse = 1.0 / max(sampling.temperature, LEAST_TEMPERATURE)
        self._sharpness = np.array(self._inverse, np.float32)  # without axes: less to convert than a scalar
        self._largest = 0.0  # logit whose exponent is small enough; none is before there is room for weights
        self._min_p = np.float32(-math.log(sampling.min_p) if sampling.min_p else math.inf)
        self._filtered = sampling.top_k > 0 or sampling.top_p < 1.0 or sampling.min_p > 0.0
        # Python promises the same numbers for the same seed in every version (random, "Notes on
        # Reproducibility"), and the Mersenne Twister is short to write in any language.
        self._next_random = random.Random(seed).random
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
        if self._greedy:
            if not isfinite(logits.item(token)):
                raise not_finite(logits[token])
        else:
            u, weights = self._next_random(), self._weights
            if -self._largest < logits.item(token) < self._largest:
                multiply(logits, self._sharpness, weights)
                exp(weights, weights)
                likeliest = u * weights.dot(self._ones) < NEARLY * weights.item(token)
            else:
                likeliest = False
            if not likeliest:
                token = self._draw(logits, token, u)
        if recent is not None:
            recent.remember(token)
        return token

    def _allocate(self, size: int) -> None:
        self._size = size
        self._largest = LARGEST_EXPONENT / self._inverse
        self._weights, self._ones = np.empty(size, np.float32), np.ones(size, np.float32)
        self._above = np.empty(size, np.bool_)

    def _draw(self, logits: NDArray[np.float32], best: int, u: float) -> int:
        """A draw with weights relative to that of the likeliest token, `best`, which is 1."""
        if len(logits) != self._size:
            self._allocate(len(logits))
        top, weights = logits[best], self._weights
        if not isfinite(top):
            raise not_finite(top)
        np.subtract(logits, top, weights)
        multiply(weights, self._sharpness, weights)
        exp(weights, weights)
        if u * float(weights.dot(self._ones)) < 1.0:
            return best  # it comes first, and a filter would only make the total smaller
        return self._draw_beyond(logits, top, weights, u)

    def _draw_beyond(
        self, logits: NDArray[np.float32], top: np.float32, weights: NDArray[np.float32], u: float
    ) -> int:
        """A draw that goes past the likeliest token, whose logit is `top`; the weights are all tokens'."""
        if len(logits) != self._size:
            self._allocate(len(logits))
        # From here on sums are float64: among the unlikely tokens, float32's rounding of a sum near 1 is
        # as large as their shares, and two engines would part at it.
        if self._filtered:
            distances, indices = self._kept(logits, top)
            cumulative = np.exp(distances * -self._sharpness).cumsum(dtype=np.float64)
            place = int(cumulative.searchsorted(u * cumulative[-1], "right"))
            return int(indices[min(place, len(indices) - 1)])
        target = u * float(weights.sum(dtype=np.float64))
        wanted = FIRST_LOOK
        while True:
            _, indices = self._head(logits, top, self._cut(logits, wanted))
            cumulative = weights.take(indices).cumsum(dtype=np.float64)
            place = int(cumulative.searchsorted(target, "right"))
            if place < len(indices) or len(indices) == self._size:
                return int(indices[min(place, len(indices) - 1)])
            wanted *= 4

    def _kept(
        self, logits: NDArray[np.float32], top: np.float32
    ) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """What top-k, top-p and min-p leave: how far below the best, and their indices, likeliest first."""
        sampling, size = self._sampling, self._size
        most = min(sampling.top_k or size, size)
        if sampling.top_p == 1.0 and sampling.min_p > 0.0:
            distances, indices = self._head(logits, top, top - self._min_p)
            return distances[:most], indices[:most]
        total = None
        if sampling.top_p < 1.0 and most == size:
            np.subtract(logits, top, self._weights)
            np.exp(self._weights, self._weights)
            total = self._weights.dot(self._ones)
        wanted = most if most < size else FIRST_LOOK
        while True:
            distances, indices = self._head(logits, top, self._cut(logits, wanted))
            keep, complete = min(len(indices), most), len(indices) >= most
            if sampling.top_p < 1.0 and (complete or total is not None):
                cumulative = np.exp(-distances[:keep]).cumsum()
                whole = cumulative[-1] if total is None else total
                reached = int(cumulative.searchsorted(np.float32(sampling.top_p) * whole)) + 1
                complete = complete or reached <= len(indices)
                keep = min(keep, reached)
            if complete:
                break
            wanted *= 4
        if sampling.min_p > 0.0:
            keep = min(keep, int(distances[:keep].searchsorted(self._min_p, "right")))
        return distances[:keep], indices[:keep]

    def _cut(self, logits: NDArray[np.float32], wanted: int) -> np.float32:
        """A logit that about twice as many as `wanted` reach, guessed from every eighth of them."""
        sample = logits[::8].copy()
        rank = wanted // 5 + 4
        if rank >= len(sample):
            return np.float32(-np.inf)
        sample.sort()
        return sample[-rank]  # type: ignore[no-any-return]

    def _head(
        self, logits: NDArray[np.float32], top: np.float32, cut: np.float32
    ) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """All tokens that reach the cut: how far below the best, and their indices, likeliest first."""
        np.greater_equal(logits, cut, self._above)
        (indices,) = self._above.nonzero()
        distances = top - logits.take(indices)
        order = distances.argsort(kind="stable")  # equals stay in the order of their indices
        return distances.take(order), indices.take(order)


class RowSampler:
    """Chooses the tokens of many streams at once: row i as `Sampler(sampling, seed + i)` does alone.

    The draws that end at the likeliest token, which are most, are made together.
    """

    def __init__(self, sampling: Sampling, seed: int, recent: Sequence[Sequence[int]], size: int) -> None:
        self._rows = [Sampler(sampling, seed + i, tokens) for i, tokens in enumerate(recent)]
        self._first = Sampler(sampling, seed)
        self._recent = [row._recent for row in self._rows if row._recent is not None]  # all of them or none
        if self._recent:
            self._divisors, self._factors = np.ones((2, len(recent), size), np.float32)
            for row, divisors, factors in zip(self._recent, self._divisors, self._factors, strict=True):
                row.keep_in(divisors, factors)
        # For the weights of a draw, and for penalised logits: made once, as large arrays are slow to make.
        self._weights, self._other = np.empty((2, len(recent), size), np.float32)

    def choose(self, rows: NDArray[np.intp], logits: NDArray[np.float32]) -> NDArray[np.intp]:
        """The next token of each of these rows, for logits `[len(rows), vocabulary]`.

        Raises `NotFinite` where one has no token, as `Sampler.choose` does.
        """
        first, samplers = self._first, [self._rows[row] for row in rows.tolist()]
        if self._recent:
            logits = self._penalise(rows, logits)
        tokens: NDArray[np.intp] = logits.argmax(axis=1)
        tops = logits[np.arange(len(tokens)), tokens]
        if not np.isfinite(tops).all():
            raise not_finite(tops[~np.isfinite(tops)][0])
        if not first._greedy:
            _draw_rows(samplers, logits, tokens, tops, first._sharpness, self._weights[: len(rows)])
        if self._recent:
            for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
                self._recent[row].remember(token)
        return tokens

    def _penalise(self, rows: NDArray[np.intp], logits: NDArray[np.float32]) -> NDArray[np.float32]:
        weights, other = self._weights[: len(rows)], self._other[: len(rows)]
        for into, values in ((weights, self._divisors), (other, self._factors)):
            np.multiply(logits, values if len(rows) == len(values) else values[rows], into)
        return self._recent[0].smaller(weights, other, out=other)


def _is(value: object, kind: type) -> bool:
    """Whether a value is of a kind of number, of Python or NumPy."""
    return isinstance(value, kind)


def choose_each(samplers: Sequence[Sampler], logits: NDArray[np.float32]) -> NDArray[np.intp]:
    """The next token of each row of logits `[len(samplers), vocabulary]`: row i as `samplers[i]` alone.

    A row has `NO_TOKEN` where its sampler alone raises `NotFinite`, and the others have theirs.
    """
    if len(samplers) == 1:  # less to set up
        try:
            return np.array([samplers[0].choose(logits[0])])
        except NotFinite:
            return np.array([NO_TOKEN])
    recent = [sampler._recent for sampler in samplers]
    if any(recent):
        logits = np.stack([r.penalise(row) if r else row for r, row in zip(recent, logits, strict=True)])
    tokens: NDArray[np.intp] = logits.argmax(axis=1)
    tops = logits[np.arange(len(tokens)), tokens]
    fit = np.isfinite(tops).tolist()
    if not all(fit):
        tokens[~np.isfinite(tops)] = NO_TOKEN
    drawn = [i for i, sampler in enumerate(samplers) if fit[i] and not sampler._greedy]
    if drawn:
        drawing = [samplers[i] for i in drawn]
        sharpness = np.array([[sampler._inverse] for sampler in drawing], np.float32)
        if len(drawn) == len(samplers):
            _draw_rows(drawing, logits, tokens, tops, sharpness)
        else:
            chosen = tokens[drawn]
            _draw_rows(drawing, logits[drawn], chosen, tops[drawn], sharpness)
            tokens[drawn] = chosen
    for one, token in zip(recent, tokens.tolist(), strict=True):
        if one and token != NO_TOKEN:
            one.remember(token)
    return tokens


def not_finite(top: np.floating[Any]) -> NotFinite:
    """What to raise where the largest of some logits is none, or is none once the penalty is on it."""
    return NotFinite(f"the largest logit is {top}{' before the penalty' if isfinite(top) else ''}")


def _draw_rows(
    samplers: Sequence[Sampler],
    logits: NDArray[np.float32],
    tokens: NDArray[np.intp],
    tops: NDArray[np.float32],
    sharpness: NDArray[np.float32],
    room: NDArray[np.float32] | None = None,
) -> None:
    """Put the draws of rows of penalised logits into `tokens`, which holds their likeliest.

    `tops` are the logits of those, all finite; `sharpness` is of all rows, or `[rows, 1]`; `room`
    `[rows, vocabulary]` is for the weights.
    """
    weights = np.subtract(logits, tops[:, np.newaxis], out=room)
    multiply(weights, sharpness, weights)
    exp(weights, weights)
    draws = np.array([sampler._next_random() for sampler in samplers])
    for i in np.flatnonzero(draws * weights.dot(np.ones(len(weights[0]), np.float32)) >= 1.0).tolist():
        tokens[i] = samplers[i]._draw_beyond(logits[i], tops[i], weights[i], float(draws[i]))
