"""Prompts that were read before, and the states after them: read again, they cost nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

SHORTEST = 16  # tokens that are worth a place
MOST_BYTES = 2**24  # 4,000 prompts of 256 units and 500 tokens
TOKEN_BYTES = 8  # in a tuple

States = Mapping[str, NDArray[np.float32]]  # of one row, `[size...]` by name


class Prefixes:
    """The states after prompts but for their last token, of those that were asked for last; for one thread.

    A prompt is kept for the client who sent it: how soon another's answer comes would tell whether it was.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._kept: OrderedDict[tuple[str, tuple[int, ...]], States] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, client: str, prompt: Sequence[int]) -> States | None:
        """The states before the last token of a prompt; None where they are not known."""
        if len(prompt) <= SHORTEST:
            return None
        key = client, tuple(prompt[:-1])
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def keep(self, client: str, prompt: Sequence[int], states: States) -> None:
        """Keep states, which nobody changes any more; those that were not asked for in longest go."""
        key = client, tuple(prompt[:-1])
        if len(prompt) <= SHORTEST or key in self._kept:
            return
        self._kept[key] = states
        self._bytes += _size(key, states)
        while self._bytes > self._most:
            self._bytes -= _size(*self._kept.popitem(last=False))


def _size(key: tuple[str, tuple[int, ...]], states: States) -> int:
    return TOKEN_BYTES * len(key[1]) + sum(array.nbytes for array in states.values())
