"""Timing in rounds, A B C A B C, so that what else the machine does hits all alike.

Time is that of the processor: a turn that another process interrupts takes no longer. What is measured
here never waits for anything else.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)
Workload = Callable[[int], object]  # takes so many steps
MOST_STEPS = 10_000  # of one turn
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


def time_rounds(
    workloads: Mapping[Name, Workload],
    rounds: int,
    seconds: float,
    say: Callable[[int], None] = lambda done: None,
    *,
    least: int = 1,
) -> dict[Name, list[float]]:
    """Microseconds a step of each workload in each round; a turn takes about `seconds`, and `least` steps.

    `say` is told how many rounds are done. Two workloads of one round ran next to each other: their ratio or
    difference is steadier than that of their medians.
    """
    lengths = {name: _length(workload, seconds, least) for name, workload in workloads.items()}
    times: dict[Name, list[float]] = {name: [] for name in workloads}
    for number in range(rounds):
        say(number)
        for name, workload in workloads.items():
            times[name].append(_seconds(workload, lengths[name]) / lengths[name] * 1e6)
    return times


def _length(workload: Workload, seconds: float, least: int) -> int:
    """How many steps take about so long; the tries also warm up."""
    workload(1)
    length = least
    while True:
        taken = _seconds(workload, length)
        if taken > seconds / 4 or length >= MOST_STEPS:
            return max(least, min(MOST_STEPS, round(length * seconds / taken)))
        length *= 4


def _seconds(workload: Workload, length: int) -> float:
    began = clock()
    workload(length)
    return max(clock() - began, 1e-9)
