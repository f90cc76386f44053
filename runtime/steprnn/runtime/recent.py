"""The latest tokens of a stream, and the repetition penalty that their logits get."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

multiply = np.multiply  # looked up once


class Recent:
    """The latest tokens of one stream, `most` of them at the most, and what their logits are multiplied by.

    A logit is divided by the penalty if it is positive and multiplied by it if not: of both products that
    is the smaller one where the penalty is above 1, and the larger one where it is below.
    """

    def __init__(self, penalty: float, most: int, tokens: Iterable[int]) -> None:
        self.smaller = np.minimum if penalty > 1.0 else np.maximum
        self._penalty = penalty
        self._tokens = deque(tokens, maxlen=most)
        self._size = 0  # of the vocabulary; not known before the first logits

    def keep_in(self, divisors: NDArray[np.float32], factors: NDArray[np.float32]) -> None:
        """Take these arrays of ones, `[vocabulary]`, to hold what logits are multiplied by."""
        self._size = len(divisors)
        self._divisors, self._factors = divisors, factors
        self._divided, self._multiplied = np.empty((2, self._size), np.float32)
        self._counts = [0] * self._size
        tokens, self._tokens = self._tokens, deque(maxlen=self._tokens.maxlen)
        for token in tokens:
            self.remember(token)

    def penalise(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logits `[vocabulary]` with the penalty, in an array that the next call overwrites."""
        if len(logits) != self._size:
            self.keep_in(*np.ones((2, len(logits)), np.float32))
        multiply(logits, self._divisors, self._divided)
        multiply(logits, self._factors, self._multiplied)
        return self.smaller(self._divided, self._multiplied, out=self._multiplied)

    def remember(self, token: int) -> None:
        """The stream has this token next; the oldest is forgotten where there would be too many."""
        if len(self._tokens) == self._tokens.maxlen:
            oldest = self._tokens[0]
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                self._divisors[oldest] = self._factors[oldest] = 1.0
        self._tokens.append(token)
        self._counts[token] += 1
        if self._counts[token] == 1:
            self._divisors[token] = 1.0 / self._penalty
            self._factors[token] = self._penalty
