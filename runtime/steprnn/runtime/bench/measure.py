"""Measure every engine and variant of a bundle, in turns on one core."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import engines
from ..bundle.manifest import Artefact, Manifest
from ..errors import BundleError, UsageError
from ..model import load
from . import alone
from .machine import Machine, pinned, read_seconds
from .turns import Spread, Work, take_turns
from .weights import read_per_step
from .works import BATCH, works_of

Times = dict[str, list[float]]  # work -> microseconds a step in each round


@dataclass(frozen=True)
class Pace:
    """How long to measure."""

    rounds: int
    seconds: float  # of one turn
    processes: int  # that load and are thrown away, of each candidate


TEXT = 100  # characters: what a call costs once is shared by as many
FULL, QUICK = Pace(31, 0.02, 3), Pace(5, 0.002, 1)


@dataclass(frozen=True)
class Report:
    """What was measured, where: a row of figures for each engine and variant.

    Times are microseconds, speeds are tokens a second; a figure that does not apply is None.
    """

    model: str  # sha256 of the weights, as in the manifest
    machine: Machine
    core: int | None  # the one that was measured on
    share: float | None  # of that core's time that was ours: the less, the less certain all of it
    rounds: int
    rows: list[dict[str, Any]]
    left_out: list[str]


def measure(folder: Path, pace: Pace = FULL, say: Callable[[str], None] = lambda line: None) -> Report:
    """Measure a bundle; raises `UsageError` where nothing in it runs here, else as `load` does."""
    manifest, machine = Manifest.read(folder), Machine.here()
    candidates, left_out = runnable(manifest)
    if not candidates:
        raise UsageError(f"nothing to measure: {'; '.join(left_out) or 'the bundle holds no graph'}")
    # Before an engine is loaded here, lest its pages count for the processes that start from this one.
    alones = {name: _alone(folder, *candidates[name], pace.processes, say) for name in candidates}
    with pinned() as core:
        works: dict[tuple[str, str], Work] = {}
        for name, (engine, artefact) in candidates.items():
            model = load(folder, engine=engine, variant=artefact.variant)
            works |= {(name, work): run for work, run in works_of(model).items()}
        say(f"{len(works)} works in {pace.rounds} rounds")
        flat = {f"{name}: {work}": run for (name, work), run in works.items()}
        began, worked = time.perf_counter(), time.process_time()
        timed = take_turns(
            flat,
            pace.rounds,
            pace.seconds,
            lambda n: say(f"round {n + 1} of {pace.rounds}"),
            least=TEXT,
        )
        share = (time.process_time() - worked) / (time.perf_counter() - began)
        rows = []
        for name, (engine, artefact) in candidates.items():
            read = read_per_step(folder / artefact.path, artefact.format)
            times = {work: timed[f"{name}: {work}"] for owner, work in works if owner == name}
            row: dict[str, Any] = {"engine": engine, "variant": artefact.variant, "method": artefact.method}
            row |= {"bytes": manifest.size_of(artefact), "read_bytes": read, "read_from": machine.level(read)}
            row |= {"floor_us": read_seconds(read) * 1e6, **figures(times), **alones[name]}
            rows.append(row)
    known = None if core is None else min(share, 1.0)
    return Report(manifest.model, machine, core, known, pace.rounds, rows, left_out)


def runnable(manifest: Manifest) -> tuple[dict[str, tuple[str, Artefact]], list[str]]:
    """The engine and artefact of each candidate by name, and why the other artefacts are left out."""
    installed, candidates, left_out = engines.installed(), {}, []
    for artefact in manifest.artefacts:
        engine = engines.ENGINE_OF.get(artefact.format)
        if engine is None:
            left_out.append(f"{artefact.name} runs in TensorFlow")
        elif engine not in installed:
            left_out.append(f"{artefact.name} needs: pip install 'steprnn[{engine}]'")
        else:
            candidates[f"{engine} {artefact.variant}"] = engine, artefact
    return candidates, left_out


def figures(times: Times) -> dict[str, float | None]:
    """The figures of one candidate from the times of its works."""
    row: dict[str, float | None] = {}
    for work in ("raw", "generate"):
        spread = Spread.of(times[work]) if work in times else None
        row[f"{work}_us"] = spread.median if spread else None
        row[f"{work}_us_min"] = spread.least if spread else None
        row[f"{work}_us_p90"] = spread.p90 if spread else None
    for work in ("generate", "stream"):  # those of one round met the same cache and the same noise
        row[f"{work}_to_raw"] = _middle(times, work, "raw", lambda ours, raw: ours / raw)
    for work in ("temperature", "filters"):
        row[f"{work}_adds_us"] = _middle(times, work, "generate", lambda draw, greedy: draw - greedy)
    row["prompt_us"] = _middle(times, "prompt", "prompt", lambda prompt, _: prompt)
    row["tokens_per_second"] = 1e6 / row["generate_us"] if row["generate_us"] else None
    for work in ("raw", "generate", "temperature", "filters"):
        name = f"{work} {BATCH}"
        row[f"{work}_{BATCH}_tokens_per_second"] = _middle(times, name, name, lambda us, _: BATCH * 1e6 / us)
    return row


def _middle(times: Times, one: str, other: str, of: Callable[[float, float], float]) -> float | None:
    """The median over the rounds of a figure of two works."""
    if one not in times:
        return None
    return statistics.median(of(a, b) for a, b in zip(times[one], times[other], strict=True))


def _alone(
    folder: Path, engine: str, artefact: Artefact, processes: int, say: Callable[[str], None]
) -> dict[str, float | None]:
    """Load time, and peak memory in a process of its own."""
    say(f"{engine} {artefact.variant} in a process of its own")
    command = [sys.executable, "-m", alone.__name__, str(folder), engine, artefact.variant]
    records = []
    for _ in range(processes):
        result = subprocess.run(command, capture_output=True, check=False, text=True)
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise BundleError(f"{engine} {artefact.variant} fails in a process of its own: {reason}")
        records.append(json.loads(result.stdout))
    peaks = [record["peak_bytes"] for record in records if record["peak_bytes"] is not None]
    return {
        "load_ms": statistics.median(record["load_ms"] for record in records),
        "peak_bytes": max(peaks, default=None),
    }
