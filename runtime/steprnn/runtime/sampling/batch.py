"""Choosing the next tokens of many streams at once, each as its `Sampler` does alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import NotFinite
from .recent import LARGEST, penalise_rows
from .sampler import LARGEST_EXPONENT, NEARLY, Sampler, Sampling, exp, multiply, not_finite

if TYPE_CHECKING:
    from ..engines.native.text import NativeRows, NativeSampler

NO_TOKEN = -1


class RowSampler:
    """Chooses the tokens of many streams at once: row i as `Sampler(sampling, seeds[i])` does alone.

    The draws that end at the likeliest token, which are most, are made together.
    """

    def __init__(
        self, sampling: Sampling, seeds: Sequence[int], recent: Sequence[Sequence[int]], size: int
    ) -> None:
        self._rows = [Sampler(sampling, one, tokens) for one, tokens in zip(seeds, recent, strict=True)]
        self._first = Sampler(sampling, 0)
        self._recent = [row._recent for row in self._rows if row._recent is not None]  # all of them or none
        # Made once, as large arrays are slow to make.
        self._weights = np.empty((len(recent), size), np.float32)
        if self._recent:
            width = self._recent[0].width(size)
            self._slots, self._values = (
                np.empty((len(recent), width), np.intp),
                np.empty((len(recent), width)),
            )
            self._room = np.empty((len(recent), size + 1), np.float32)
            for row, slots, values in zip(self._recent, self._slots, self._values, strict=True):
                row.keep_in(slots, values, size)

    def choose(self, rows: NDArray[np.intp], logits: NDArray[np.float32]) -> NDArray[np.intp]:
        """The next token of each of these rows, for logits `[len(rows), vocabulary]`.

        Raises `NotFinite` where one has no token, as `Sampler.choose` does.
        """
        first, samplers = self._first, [self._rows[row] for row in rows.tolist()]
        if self._recent:
            room = self._room[: len(rows)]
            logits = penalise_rows(rows, self._recent, logits, self._slots, self._values, room)
        tokens: NDArray[np.intp] = logits.argmax(axis=1)
        if self._recent:
            _settle(samplers, logits, tokens)
        tops = logits[np.arange(len(tokens)), tokens]
        if not self._recent and not np.isfinite(tops).all():
            raise not_finite(tops[~np.isfinite(tops)][0])
        if not first._greedy:
            _draw_rows(samplers, logits, tokens, tops, first._sharpness, self._weights[: len(rows)])
        if self._recent:
            for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
                self._recent[row].remember(token)
        return tokens


def sampler_for(
    sampling: Sampling, seed: int, tokens: Sequence[int], size: int, length: int
) -> Sampler | NativeSampler:
    """What chooses up to `length` tokens after these, from a vocabulary of this size.

    It is that of the native library where that is there, which chooses the same in a third of the time.
    """
    from ..engines import native  # most programs do without

    return native.sampler(sampling, seed, tokens, size, length) or Sampler(sampling, seed, tokens)


def rows_for(
    sampling: Sampling, seeds: Sequence[int], tokens: Sequence[Sequence[int]], size: int, length: int
) -> RowSampler | NativeRows:
    """The same for many texts."""
    from ..engines import native

    if sampling == Sampling():  # NumPy finds the likeliest of all rows as fast
        return RowSampler(sampling, seeds, tokens, size)
    found = native.row_sampler(sampling, seeds, tokens, size, length)
    return found or RowSampler(sampling, seeds, tokens, size)


def choose_each(samplers: Sequence[Sampler | NativeSampler], logits: NDArray[np.float32]) -> NDArray[np.intp]:
    """The next token of each row of logits `[len(samplers), vocabulary]`: row i as `samplers[i]` alone.

    A row has `NO_TOKEN` where its sampler alone raises `NotFinite`, and the others have theirs.
    """
    ours = [sampler for sampler in samplers if isinstance(sampler, Sampler)]
    if len(ours) == len(samplers):
        return _choose_here(ours, logits)
    from ..engines.native.text import sample_rows

    addresses = np.array([s.address for s in samplers if not isinstance(s, Sampler)], np.uintp)
    if not ours:
        return sample_rows(addresses, logits)
    here = np.array([isinstance(sampler, Sampler) for sampler in samplers])
    tokens = np.empty(len(samplers), np.intp)
    tokens[here], tokens[~here] = _choose_here(ours, logits[here]), sample_rows(addresses, logits[~here])
    return tokens


def _choose_here(samplers: Sequence[Sampler], logits: NDArray[np.float32]) -> NDArray[np.intp]:
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
    for i in (i for i, one in enumerate(recent) if one):
        try:
            tokens[i], fit[i] = samplers[i]._likeliest(logits[i], int(tokens[i])), True
        except NotFinite:
            fit[i] = False
    if not all(fit):
        tokens[np.logical_not(fit)] = NO_TOKEN
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
    totals = weights.dot(np.ones(len(weights[0]), np.float32))
    sure = np.abs(tops * np.ravel(sharpness)) < LARGEST_EXPONENT
    if not any(sampler._recent for sampler in samplers):  # nothing was rounded
        sure[:] = True
    for i in np.flatnonzero(~sure | (draws * totals >= NEARLY)).tolist():
        total = float(totals[i]) if sure[i] else None
        tokens[i] = samplers[i]._draw(logits[i], int(tokens[i]), float(draws[i]), total)


def _settle(samplers: Sequence[Sampler], logits: NDArray[np.float32], tokens: NDArray[np.intp]) -> None:
    """Put the likeliest of each row of penalised logits into `tokens`, where rounding made some equal."""
    tops = np.take_along_axis(logits, tokens[:, np.newaxis], 1)
    equal = np.count_nonzero(logits == tops, axis=1) != 1  # none is equal to NaN
    for i in np.flatnonzero(equal | ~(np.abs(tops[:, 0]) < LARGEST)).tolist():
        tokens[i] = samplers[i].settle(logits[i])
