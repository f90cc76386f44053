"""Sessions of millions of steps: `python tests/hostile/steps.py tests/tiny/bundle --steps 5000000`.

In each engine a float32 and an int8 session read the same drawn tokens, step by step. The memory of the
process must not grow, no state may stop being a number, and int8 must be as far from float32 in the last
tenth of the steps as in the first.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
from pathlib import Path

import numpy as np

from steprnn.runtime import load

WINDOWS, WINDOW = 200, 200  # how often the two are compared, and over how many steps
MOST_GROWTH = 2**21  # bytes, after the first hundredth
MOST_DRIFT = 1.2  # of the mean distance in the last tenth to that in the first; a window differs by a tenth
BATCH = 1000  # tokens that are drawn at once


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def run(bundle: Path, engine: str, steps: int) -> tuple[bool, str]:
    """Whether both sessions bore it, and a row of the table."""
    models = [load(bundle, engine=engine, variant=variant) for variant in ("float32", "int8")]
    one, other = (model.session() for model in models)
    tokens = models[0].manifest.step.inputs[0].tokens
    assert tokens is not None
    chance = random.Random(1)
    every, distances = steps // WINDOWS, []
    before, peak = 0, 0
    began = time.monotonic()
    for first in range(0, steps, BATCH):
        if first >= steps // 100:
            before, peak = before or resident(), max(peak, resident())
        for number, token in enumerate(chance.choices(range(tokens), k=BATCH), first):
            y, rounded = one.step(token), other.step(token)
            if number % every < WINDOW:
                assert not isinstance(y, dict)
                assert not isinstance(rounded, dict)
                distances.append(float(np.abs(y - rounded).mean()))
    seconds = time.monotonic() - began
    one.state.to_bytes()  # refuses what is no number
    other.state.to_bytes()
    tenth = len(distances) // 10
    drift = float(np.mean(distances[-tenth:]) / (np.mean(distances[:tenth]) or 1)) if any(distances) else 1.0
    grown = peak - before
    fits = grown <= MOST_GROWTH and 1 / MOST_DRIFT < drift < MOST_DRIFT
    figures = f"{2 * steps:,} | {seconds / steps / 2 * 1e6:.1f} | {grown / 1000:,.0f} | {drift:.2f}"
    return fits, f"| {engine} | {figures} |"


def main() -> int:
    """Each engine; a table, and 1 where memory grew or int8 drifted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--steps", type=int, default=5_000_000, help="of each session")
    parser.add_argument("--engines", nargs="*", default=["litert", "onnx"])
    arguments = parser.parse_args()
    sys.stdout.write(
        "| engine | steps | us a step | grown, kB | int8 last / first |\n|" + " --- |" * 5 + "\n"
    )
    whole = True
    for engine in arguments.engines:
        fits, row = run(arguments.bundle, engine, arguments.steps)
        whole = whole and fits
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
