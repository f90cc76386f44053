"""One model shared by threads, each with a text of its own: `python benchmarks/threads.py BUNDLE`.

The same texts are written by 1, 2, 4 and 8 threads at once, by 8 of the engine's bare loop, and by one thread
as a batch of 8; all take turns. The clock is that on the wall. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tables import add_argument, put

from steprnn.runtime import Model, load
from steprnn.runtime.bench.measure import runnable
from steprnn.runtime.bench.workloads import workloads_of
from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.markdown import table

THREADS = (1, 2, 4, 8)
MOST = THREADS[-1]
BARE, BATCH = f"engine alone, {MOST} threads", f"one batch of {MOST}"
ROUNDS, LENGTH = 15, 2000  # characters of a text


def main() -> None:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    add_argument(parser)
    arguments = parser.parse_args()
    candidates, _ = runnable(Manifest.read(arguments.bundle))
    rows = []
    for name, (engine, artefact) in candidates.items():
        print(name, file=sys.stderr, flush=True)
        model = load(arguments.bundle, engine=engine, variant=artefact.variant)
        rows.append(row(name, rates(workloads(model))))
    lines = [
        f"Characters a second of all texts together, greedy, {os.cpu_count()} cores; "
        f"in brackets, times one thread. Medians of {ROUNDS} rounds taken in turn.",
        "",
        *table(["", "one thread", *(f"{n} threads" for n in THREADS[1:]), BARE, BATCH], rows),
    ]
    print("\n".join(lines))
    put(arguments.tables, {"threads": lines})


def workloads(model: Model) -> dict[str, tuple[int, Callable[[], object]]]:
    """How many texts each workload writes, and the workload."""
    assert model.vocabulary is not None
    prompt = model.vocabulary.tokens[0]
    write, bare = partial(model.generate, prompt, LENGTH), partial(workloads_of(model)["raw"], LENGTH)
    found: dict[str, tuple[int, Callable[[], object]]] = {
        str(n): (n, partial(at_once, n, write)) for n in THREADS
    }
    return found | {
        BARE: (MOST, partial(at_once, MOST, bare)),
        BATCH: (MOST, partial(write, n=MOST)),
    }


def at_once(count: int, workload: Callable[[], object]) -> None:
    """Do it in so many threads."""
    threads = [threading.Thread(target=workload) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def rates(workloads: dict[str, tuple[int, Callable[[], object]]]) -> dict[str, float]:
    """Characters a second of all threads together; medians."""
    found: dict[str, list[float]] = {name: [] for name in workloads}
    for number in range(ROUNDS + 1):
        for name, (texts, workload) in workloads.items():
            began = time.perf_counter()
            workload()
            if number:  # the first round makes the runners
                found[name].append(texts * LENGTH / (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in found.items()}


def row(name: str, rates: dict[str, float]) -> list[str]:
    """Rates, and their ratio to that of one thread."""
    one = rates["1"]
    rest = [f"{rate:,.0f} ({rate / one:.2f} x)" for label, rate in rates.items() if label != "1"]
    return [name, f"{one:,.0f}", *rest]


if __name__ == "__main__":
    main()
