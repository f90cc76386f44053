"""A table of whole numbers in arrays of NumPy, which finds thousands at once.

A dict of a hundred thousand waits for the machine's memory several times a key, 0.4 us in all, which is as
long as a small step takes; an array has many of its reads under way together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

NONE, GONE = -1, -2  # in a place that never had a number, or has it no more
FACTOR = 0x9E3779B97F4A7C15  # 2**64 by the golden ratio: numbers in a row come far apart
WORD = 2**64 - 1


class Numbers:
    """Which slot each of at most `most` whole numbers of 64 bits has."""

    def __init__(self, most: int) -> None:
        self._bits = (2 * most + 8).bit_length()  # half full at most: few are far from their place
        self._clear()

    def find(self, numbers: NDArray[np.int64]) -> NDArray[np.intp]:
        """Their slots; `NONE` for those that have none."""
        places = ((numbers.view(np.uint64) * np.uint64(FACTOR)) >> np.uint64(64 - self._bits)).astype(np.intp)
        slots = self._slots[places]
        (far,) = ((slots != NONE) & ((self._numbers[places] != numbers) | (slots == GONE))).nonzero()
        while len(far):  # those that another number keeps from their place are in one that follows
            places[far] = after = (places[far] + 1) & (len(self._slots) - 1)
            slots[far] = now = self._slots[after]
            far = far[(now != NONE) & ((self._numbers[after] != numbers[far]) | (now == GONE))]
        return slots.astype(np.intp)

    def add(self, numbers: Iterable[int], slots: Iterable[int]) -> None:
        """Give numbers that have none their slots."""
        for number, slot in zip(numbers, slots, strict=True):
            if 4 * self._filled > 3 * len(self._slots):  # a look for a number ends at a place that is free
                self._sweep()
            place = self._place(number)
            while self._slots[place] != NONE:
                place = (place + 1) & (len(self._slots) - 1)
            self._numbers[place], self._slots[place] = number, slot
            self._filled += 1

    def remove(self, numbers: Sequence[int]) -> None:
        """Take their slots from numbers that have one."""
        for number in numbers:
            place = self._place(number)
            while self._numbers[place] != number or self._slots[place] == GONE:
                place = (place + 1) & (len(self._slots) - 1)
            self._slots[place] = GONE

    def _place(self, number: int) -> int:
        return ((number & WORD) * FACTOR & WORD) >> (64 - self._bits)

    def _clear(self) -> None:
        self._numbers = np.zeros(1 << self._bits, np.int64)
        self._slots = np.full(1 << self._bits, NONE, np.int32)
        self._filled = 0  # places that are not NONE

    def _sweep(self) -> None:
        """Leave out the places that are gone."""
        (there,) = (self._slots >= 0).nonzero()
        numbers, slots = self._numbers[there].tolist(), self._slots[there].tolist()
        self._clear()
        self.add(numbers, slots)
