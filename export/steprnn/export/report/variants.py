"""Size and speed of what was judged, measured on the spot."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from steprnn.runtime.bundle.packed import Packed
from steprnn.runtime.engines import Runner
from steprnn.runtime.parity.findings import Label
from steprnn.runtime.parity.levels import Candidate, begin

SECONDS, BLOCK, BLOCKS = 0.5, 100, 21


@dataclass(frozen=True)
class Variant:
    """One artefact in one engine; None where it could not be measured."""

    label: Label
    bytes: int | None
    microseconds: float | None  # a step at batch 1 with one thread, greedy where it writes text


def measured(candidates: Sequence[Candidate]) -> list[Variant]:
    """All of them, some tenths of a second each."""
    return [Variant(c.label, _bytes(c), _microseconds(c)) for c in candidates]


def _bytes(candidate: Candidate) -> int | None:
    path = candidate.path
    if path is None or not path.exists():
        return None
    if isinstance(path, Packed):
        return len(path.read_bytes())
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files)


def _microseconds(candidate: Candidate) -> float | None:
    """The median block of steps, for as long as there is time."""
    try:
        runner = candidate.open(1).runner(1)
        begin(runner)
        _steps(runner, candidate.spec.is_language_model)  # warms up
        times: list[float] = []
        ends = time.perf_counter() + SECONDS
        while len(times) < BLOCKS and (not times or time.perf_counter() < ends):
            started = time.perf_counter()
            _steps(runner, candidate.spec.is_language_model)
            times.append(time.perf_counter() - started)
    except Exception:  # what does not run was judged, and has no speed
        return None
    return statistics.median(times) / BLOCK * 1e6


def _steps(runner: Runner, greedy: bool) -> None:
    x, y = next(iter(runner.inputs.values())), next(iter(runner.outputs.values()), None)
    for _ in range(BLOCK):
        runner.run()
        if greedy and y is not None:
            x[0] = y[0].argmax()
