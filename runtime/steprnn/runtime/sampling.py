"""Choosing the next token from logits: every filter is a threshold on the logits.

The order is llama.cpp's: repetition penalty, top-k, top-p, min-p, temperature, draw. docs/sampling.md
specifies it, so that another language can give the same text for the same seed.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError

# Below it float32 logits over the temperature overflow, and the draw is greedy but for exact ties.
LEAST_TEMPERATURE = 1e-6


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
        ranges = {
            "temperature": (0.0 <= self.temperature < math.inf, "at least 0"),
            "top_k": (self.top_k >= 0, "at least 0"),
            "top_p": (0.0 < self.top_p <= 1.0, "above 0 and at most 1"),
            "min_p": (0.0 <= self.min_p <= 1.0, "between 0 and 1"),
            "repeat_penalty": (0.0 < self.repeat_penalty < math.inf, "above 0"),
            "repeat_last_n": (self.repeat_last_n >= 0, "at least 0"),
        }
        for name, (fits, expected) in ranges.items():
            if not fits:
                raise UsageError(f"{name} is {getattr(self, name)}; expected {expected}")


class Sampler:
    """Chooses the tokens of one stream; holds its random generator and its recent tokens."""

    def __init__(self, sampling: Sampling, seed: int, recent: Iterable[int] = ()) -> None:
        if seed < 0:  # Python would take its absolute value, and other languages would not
            raise UsageError(f"seed is {seed}; expected at least 0")
        self._sampling = sampling
        self._greedy = sampling.temperature < LEAST_TEMPERATURE
        self._temperature = np.float32(min(sampling.temperature, 1e38))  # float32 ends at 3.4e38
        # Python promises the same numbers for the same seed in every version (random, "Notes on
        # Reproducibility"), and the Mersenne Twister is short to write in any language.
        self._random = random.Random(seed)
        self._penalised = sampling.repeat_penalty != 1.0 and sampling.repeat_last_n > 0
        self._recent: deque[int] = deque(recent, maxlen=sampling.repeat_last_n)

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The next token for logits `[vocabulary]`, which are left as they are."""
        sampling = self._sampling
        if self._penalised:
            logits = logits.copy()
            recent = list(set(self._recent))
            values = logits[recent]
            penalty = np.float32(sampling.repeat_penalty)
            logits[recent] = np.where(values > 0, values / penalty, values * penalty)
        token = int(logits.argmax()) if self._greedy else self._draw(logits)
        if self._penalised:
            self._recent.append(token)
        return token

    def _draw(self, logits: NDArray[np.float32]) -> int:
        sampling = self._sampling
        kept = np.arange(len(logits))
        if 0 < sampling.top_k < len(logits):
            threshold = np.partition(logits, -sampling.top_k)[-sampling.top_k]
            kept = np.flatnonzero(logits >= threshold)
        if sampling.top_p < 1.0:
            values = np.sort(logits[kept])[::-1]
            cumulative = np.cumsum(np.exp(values - values[0]))
            last = int(np.searchsorted(cumulative, sampling.top_p * cumulative[-1]))
            kept = kept[logits[kept] >= values[min(last, len(values) - 1)]]
        values = logits[kept]
        values = values - values.max()
        if sampling.min_p > 0.0:
            likely = values >= math.log(sampling.min_p)
            kept, values = kept[likely], values[likely]
        cumulative = np.cumsum(np.exp(values / self._temperature))
        drawn = int(np.searchsorted(cumulative, self._random.random() * float(cumulative[-1]), side="right"))
        return int(kept[min(drawn, len(kept) - 1)])


def until(pieces: Iterable[str], stop: Sequence[str]) -> Iterator[str]:
    """The pieces up to the first of the stop strings, which is left out.

    Holds back what may turn out to be the beginning of a stop string.
    """
    held = ""
    end = None  # where the first stop string found in `held` begins
    for piece in pieces:
        held += piece
        end = min((i for s in stop if (i := held.find(s)) >= 0), default=None)
        keep = max((n for s in stop for n in range(1, len(s)) if held.endswith(s[:n])), default=0)
        certain = len(held) - keep
        if end is not None and end <= certain:  # else one that began before it may still be completed
            break
        if certain:
            yield held[:certain]
            held = held[certain:]
            end = None if end is None else end - certain
    if held[:end]:
        yield held[:end]
