"""Measure every engine and variant of a bundle, in rounds on one core."""

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
from ..bundle.open import read_bundle
from ..bundle.packed import Place
from ..errors import BundleError, UsageError
from ..files import MANIFEST
from ..loading import load
from ..origin import install
from . import process
from .machine import Machine, pinned, read_seconds
from .report import Report
from .rounds import Spread, Workload, time_rounds
from .workloads import BATCH, workloads_of

Times = dict[str, list[float]]  # workload -> microseconds a step in each round


@dataclass(frozen=True)
class Pace:
    """How long to measure."""

    rounds: int
    seconds: float  # of one turn
    processes: int  # that load and are thrown away, of each candidate


TEXT = 100  # characters: what a call costs once is shared by as many
FULL, QUICK = Pace(31, 0.02, 3), Pace(5, 0.002, 1)


def measure(bundle: str | Path, pace: Pace = FULL, say: Callable[[str], None] = lambda line: None) -> Report:
    """Measure a bundle; raises `UsageError` where nothing in it runs here, else as `load` does."""
    folder = read_bundle(bundle)
    manifest, machine = Manifest.read(folder), Machine.here()
    candidates, left_out = runnable(manifest)
    if not candidates:
        raise UsageError(f"nothing to measure: {'; '.join(left_out) or 'the bundle holds no graph'}")
    read = {name: read_per_step(folder, manifest, artefact) for name, (_, artefact) in candidates.items()}
    if None in read.values():
        left_out.append("what a step reads and its floor, which the manifest does not tell; export again")
    # Before an engine is loaded here, lest its pages count for the processes that start from this one.
    apart = {name: _in_own_process(bundle, *candidates[name], pace.processes, say) for name in candidates}
    with pinned() as core:
        workloads: dict[tuple[str, str], Workload] = {}  # by the name of the candidate and their own
        for name, (engine, artefact) in candidates.items():
            model = load(bundle, engine=engine, variant=artefact.variant)
            workloads |= {(name, kind): run for kind, run in workloads_of(model).items()}
        say(f"{len(workloads)} workloads in {pace.rounds} rounds")
        began, worked = time.perf_counter(), time.process_time()
        times = time_rounds(
            workloads,
            pace.rounds,
            pace.seconds,
            lambda n: say(f"round {n + 1} of {pace.rounds}"),
            least=TEXT,
        )
        share = (time.process_time() - worked) / (time.perf_counter() - began)
        rows = []
        for name, (engine, artefact) in candidates.items():
            row: dict[str, Any] = {"engine": engine, "variant": artefact.variant, "method": artefact.method}
            row |= {"bytes": manifest.size_of(artefact), **floor(read[name], machine)}
            row |= figures({kind: values for (owner, kind), values in times.items() if owner == name})
            rows.append(row | apart[name])
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
            left_out.append(f"{artefact.name} needs: {install(engine)}")
        else:
            candidates[f"{engine} {artefact.variant}"] = engine, artefact
    return candidates, left_out


def read_per_step(folder: Place, manifest: Manifest, artefact: Artefact) -> int | None:
    """Bytes of weights that a step reads; None where the manifest, which is an older one, does not tell."""
    read, size = manifest.read_bytes.get(artefact.name), manifest.size_of(artefact)
    if read is not None and not 0 < read <= size:  # as many are allocated to measure the floor
        raise BundleError(
            f"{folder / MANIFEST} says that a step of {artefact.name} reads {read:,} bytes, expected 1 to "
            f"{size:,}, its size; export again"
        )
    return read


def floor(read: int | None, machine: Machine) -> dict[str, Any]:
    """The bytes that a step reads, where they lie, and how long it takes to read them once."""
    if read is None:
        return {"read_bytes": None, "read_from": None, "floor_us": None}
    return {"read_bytes": read, "read_from": machine.level(read), "floor_us": read_seconds(read) * 1e6}


def figures(times: Times) -> dict[str, float | None]:
    """The figures of one candidate from the times of its workloads."""
    row: dict[str, float | None] = {}
    for kind in ("raw", "generate"):
        spread = Spread.of(times[kind]) if kind in times else None
        row[f"{kind}_us"] = spread.median if spread else None
        row[f"{kind}_us_min"] = spread.least if spread else None
        row[f"{kind}_us_p90"] = spread.p90 if spread else None
    for kind in ("generate", "stream"):  # those of one round met the same cache and the same noise
        row[f"{kind}_to_raw"] = _middle(times, kind, "raw", lambda ours, raw: ours / raw)
    for kind in ("temperature", "filters"):
        row[f"{kind}_adds_us"] = _middle(times, kind, "generate", lambda draw, greedy: draw - greedy)
    for kind in ("prompt", "session", "block"):
        row[f"{kind}_us"] = _middle(times, kind, kind, lambda us, _: us)
    row["session_adds_us"] = _middle(times, "session", "raw", lambda ours, raw: ours - raw)
    row["session_to_block"] = _middle(times, "session", "block", lambda singly, block: singly / block)
    row["tokens_per_second"] = 1e6 / row["generate_us"] if row["generate_us"] else None
    for kind in ("raw", "generate", "temperature", "filters"):
        name = f"{kind} {BATCH}"
        row[f"{kind}_{BATCH}_tokens_per_second"] = _middle(times, name, name, lambda us, _: BATCH * 1e6 / us)
    return row


def _middle(times: Times, one: str, other: str, of: Callable[[float, float], float]) -> float | None:
    """The median over the rounds of a figure of two workloads."""
    if one not in times:
        return None
    return statistics.median(of(a, b) for a, b in zip(times[one], times[other], strict=True))


def _in_own_process(
    bundle: str | Path, engine: str, artefact: Artefact, processes: int, say: Callable[[str], None]
) -> dict[str, float | None]:
    """Load time, and peak memory in a process of its own."""
    say(f"{engine} {artefact.variant} in a process of its own")
    command = [sys.executable, "-m", process.__name__, str(bundle), engine, artefact.variant]
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
