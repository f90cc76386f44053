"""The engine native against LiteRT, in turn in one process: greedy text at batch 1, as ratios.

    python benchmarks/program.py [HIDDEN ...]

An Embedding of 64, an LSTM and a Dense with a vocabulary of 969, with random weights. A round writes some
text with each engine and variant in turn; the ratio is that of the medians of the rounds.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from steprnn.export.formats import program, tflite
from steprnn.export.formats.frozen import frozen_once
from steprnn.export.step.derive import derive
from steprnn.runtime.engines import Runner, open_engine

VOCABULARY, ROUNDS, SECONDS = 969, 15, 0.05
FORMATS = {"litert": (tflite, "tflite"), "native": (program, "program")}


def main(sizes: list[int]) -> None:
    """One row a size: microseconds a step, and native's share of LiteRT's."""
    print("| hidden | int8 | float32 | int8, us | float32, us |\n| ---: | ---: | ---: | ---: | ---: |")
    for hidden in sizes:
        times = measured(hidden)
        ratio = {v: times["native", v] / times["litert", v] for v in ("int8", "float32")}
        told = {v: f"{times['native', v]:.1f} / {times['litert', v]:.1f}" for v in ratio}
        cells = [f"{ratio['int8']:.2f}", f"{ratio['float32']:.2f}", told["int8"], told["float32"]]
        print(f"| {hidden} | {' | '.join(cells)} |", flush=True)


@frozen_once()
def measured(hidden: int) -> dict[tuple[str, str], float]:
    """Microseconds a step by engine and variant."""
    keras.utils.set_random_seed(0)
    x = keras.Input((None,), dtype="int32")
    h = keras.layers.LSTM(hidden, return_sequences=True)(keras.layers.Embedding(VOCABULARY, 64)(x))
    step = derive(keras.Model(x, keras.layers.Dense(VOCABULARY)(h)))
    with tempfile.TemporaryDirectory() as folder:
        runners = {}
        for engine, (module, suffix) in FORMATS.items():
            for variant in ("float32", "int8"):
                path = Path(folder) / f"{variant}.{suffix}"
                module.write(step, path, variant)
                runners[engine, variant] = open_engine(engine, path, step.spec).runner(1)
        steps = {key: max(20, int(SECONDS / _seconds(runner, 50) * 50)) for key, runner in runners.items()}
        rounds: dict[tuple[str, str], list[float]] = {key: [] for key in runners}
        for _ in range(ROUNDS):
            for key, runner in runners.items():
                rounds[key].append(_seconds(runner, steps[key]) / steps[key] * 1e6)
    return {key: median(values) for key, values in rounds.items()}


def _seconds(runner: Runner, steps: int) -> float:
    (x,), (y,) = runner.inputs.values(), runner.outputs.values()
    logits: Any = y[0]
    began = time.perf_counter()
    for _ in range(steps):
        runner.run()
        x[0] = logits.argmax()
    return time.perf_counter() - began


if __name__ == "__main__":
    main([int(n) for n in sys.argv[1:]] or [32, 128, 256, 512, 1024])
