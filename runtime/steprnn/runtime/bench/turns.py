"""Timing in turns: A B C A B C, so that what else the machine does hits all alike.

Time is that of the processor: a turn that another process interrupts takes no longer. What is measured
here never waits for anything else.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Work = Callable[[int], object]  # takes so many steps
LONGEST = 10_000  # steps of one turn
# Windows counts the processor's time in ticks of 16 ms.
FINE = time.get_clock_info("process_time").resolution <= 1e-6
clock = time.process_time if FINE else time.perf_counter


@dataclass(frozen=True)
class Spread:
    """The middle of several turns, the best, and what nine of ten are below."""

    median: float
    least: float
    p90: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[(9 * len(ordered) - 1) // 10])


def take_turns(
    works: Mapping[str, Work],
    rounds: int,
    seconds: float,
    say: Callable[[int], None] = lambda done: None,
    *,
    least: int = 1,
) -> dict[str, list[float]]:
    """Microseconds a step of each work in each round; a turn takes about `seconds`, and `least` steps.

    `say` is told how many rounds are done. Two works of one round ran next to each other: their ratio or
    difference is steadier than that of their medians.
    """
    lengths = {name: _length(work, seconds, least) for name, work in works.items()}
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        say(number)
        for name, work in works.items():
            times[name].append(_seconds(work, lengths[name]) / lengths[name] * 1e6)
    return times


def _length(work: Work, seconds: float, least: int) -> int:
    """How many steps take about so long; the tries also warm up."""
    work(1)
    length = least
    while True:
        taken = _seconds(work, length)
        if taken > seconds / 4 or length >= LONGEST:
            return max(least, min(LONGEST, round(length * seconds / taken)))
        length *= 4


def _seconds(work: Work, length: int) -> float:
    began = clock()
    work(length)
    return max(clock() - began, 1e-9)
