"""The latest tokens of a stream, and the repetition penalty that their logits get."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

LARGEST = float(np.finfo(np.float32).max)


class Penalty:
    """What divides positive logits and multiplies others: of both the smaller one, if it is above 1."""

    def __init__(self, penalty: float) -> None:
        self._penalty = np.array(penalty)  # without axes: less to convert than a number
        self._smaller: np.ufunc = np.minimum if penalty > 1.0 else np.maximum
        self._bound: np.ufunc = np.maximum if penalty > 1.0 else np.minimum
        self._end = np.array(-LARGEST if penalty > 1.0 else LARGEST)

    def of(self, logits: NDArray[np.float32], out: NDArray[np.float64]) -> NDArray[np.float64]:
        """The logits with the penalty, in float64."""
        wide = logits.astype(np.float64)
        np.divide(wide, self._penalty, out=out)
        np.multiply(wide, self._penalty, out=wide)
        self._smaller(out, wide, out=out)
        return out

    def rounded(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """The same in float32; what is beyond it is its largest number."""
        return self._bound(values, self._end).astype(np.float32)  # type: ignore[no-any-return]


class Recent:
    """The latest tokens of one stream, `most` of them at the most, and the penalty on their logits.

    A logit is divided by the penalty if it is positive and multiplied by it if not, in float64. What is
    rounded to float32 is for a first look; `exact` has what it was.
    """

    def __init__(self, penalty: float, most: int, tokens: Iterable[int]) -> None:
        self.penalty = Penalty(penalty)
        self._tokens = deque(tokens, maxlen=most)
        self._size = 0  # of the vocabulary; not known before the first logits
        self.count = 0  # different tokens
        self.most = -np.inf  # what the largest of them was rounded to

    def keep_in(self, slots: NDArray[np.intp], values: NDArray[np.float64], size: int) -> None:
        """Hold the different tokens of a vocabulary of this size in `slots`, and their logits in `values`.

        Both are `[width]`, where no more than `width` can be different; what is left of `slots` is `size`.
        """
        self._size, self._slots, self._values = size, slots, values
        self._slots[:] = size
        self._room = np.empty(size, np.float32)
        self._counts, self._places, self.count = [0] * size, [0] * size, 0
        tokens, self._tokens = self._tokens, deque(maxlen=self._tokens.maxlen)
        for token in tokens:
            self.remember(token)

    def width(self, size: int) -> int:
        """How many tokens of a vocabulary of this size may be recent and different."""
        return min(self._tokens.maxlen or 0, size)

    def penalise(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logits `[vocabulary]` with the penalty, in an array that the next call overwrites."""
        size = len(logits)
        if size != self._size:
            width = self.width(size)
            self.keep_in(np.empty(width, np.intp), np.empty(width), size)
        where = self._slots[: self.count]
        values = self.penalty.of(logits.take(where), self._values[: self.count])
        self._room[:] = logits
        self._room[where] = narrow = self.penalty.rounded(values)
        self.most = narrow.max(initial=-np.inf)
        return self._room

    def exact(self, narrow: NDArray[np.float32]) -> NDArray[np.float64]:
        """The logits that were penalised last and rounded to these, as they were before."""
        wide = narrow.astype(np.float64)
        wide[self._slots[: self.count]] = self._values[: self.count]
        return wide

    def remember(self, token: int) -> None:
        """The stream has this token next; the oldest is forgotten where there would be too many."""
        if len(self._tokens) == self._tokens.maxlen:
            self._forget(self._tokens[0])
        self._tokens.append(token)
        self._counts[token] += 1
        if self._counts[token] == 1:
            self._slots[self.count] = token
            self._places[token] = self.count
            self.count += 1

    def _forget(self, token: int) -> None:
        self._counts[token] -= 1
        if not self._counts[token]:
            self.count -= 1  # the last one comes to its place
            place, last = self._places[token], int(self._slots[self.count])
            self._slots[place], self._places[last] = last, place
            self._slots[self.count] = self._size


def penalise_rows(
    rows: NDArray[np.intp],
    recent: Sequence[Recent],
    logits: NDArray[np.float32],
    slots: NDArray[np.intp],
    values: NDArray[np.float64],
    room: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Of each of these rows what its `Recent` makes of its logits, `[len(rows), vocabulary]`, within `room`.

    `slots` and `values` `[all rows, width]` hold the tokens and logits of all; `room` has a column more than
    there are tokens, for those that a row has less than another.
    """
    size = logits.shape[1]
    widest = max((recent[row].count for row in rows.tolist()), default=0)
    where = slots[rows, :widest]
    room[:, :size] = logits
    room[:, size] = 0.0
    penalty = recent[0].penalty
    values[rows, :widest] = wide = penalty.of(np.take_along_axis(room, where, 1), np.empty(where.shape))
    np.put_along_axis(room, where, penalty.rounded(wide), 1)
    return room[:, :size]
