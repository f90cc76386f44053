"""The engine native against LiteRT, in turn in one process, as ratios of one thread's time.

    python benchmarks/program.py [HIDDEN ...] [--tables FILE ...]

An Embedding of 64, an LSTM and a Dense with a vocabulary of 969, with random weights, of which those of the
first and the last are large, so that logits are as far apart as a trained model's. A round writes up to 1,000
tokens with each engine and variant in turn, as `Model.generate` does; the ratio is that of their medians.
The floor is the time to read the weights once, as a share of LiteRT's time. Wheels are compiled with
`CC="python -m ziglang cc"`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from tables import add_argument, put

from steprnn.export.formats import program, tflite
from steprnn.export.formats.frozen import frozen_once
from steprnn.export.step.derive import derive
from steprnn.runtime.bench.machine import read_seconds
from steprnn.runtime.bench.workloads import BATCH, FILTERS, TEMPERATURE
from steprnn.runtime.engines import Engine, Runner, open_engine
from steprnn.runtime.sampling.batch import RowSampler
from steprnn.runtime.sampling.sampler import Sampling
from steprnn.runtime.spec import StepSpec
from steprnn.runtime.texts.writing import AT_ONCE, write

VOCABULARY, EMBEDDED, ROUNDS, SECONDS, MOST = 969, 64, 15, 0.03, 1000
SHARPER = 60
FORMATS = {"litert": (tflite, "tflite"), "native": (program, "program")}
DRAWS: dict[str, dict[str, Any]] = {"greedy": {}, "temperature": TEMPERATURE, "filters": FILTERS}
Key = tuple[str, str, str]  # engine, variant, what is done


def main() -> None:
    """One row a size and variant: native's share of LiteRT's time, and what drawing adds to native's own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sizes", nargs="*", type=int, default=[32, 128, 256, 512, 1024], metavar="HIDDEN")
    add_argument(parser)
    arguments = parser.parse_args()
    ratios = ["| hidden units | int8 | floor | float32 | floor |", f"| ---: |{' ---: |' * 4}"]
    names = "1 row | floor | temperature adds | all filters add | 64 rows"
    full = [f"| hidden | variant | us, native / LiteRT | {names} |", f"| ---: | --- |{' ---: |' * 6}"]
    print("\n".join(full))
    for hidden in arguments.sizes:
        times, floors = measured(hidden)
        short = [f"{hidden:,}"]
        for variant in ("int8", "float32"):
            ours, theirs = (partial(_time, times, engine, variant) for engine in ("native", "litert"))
            share = f"{ours('greedy') / theirs('greedy'):.2f}"
            floor = f"{floors[variant] / theirs('greedy'):.2f}"
            short += [share, floor]
            cells = [f"{ours('greedy'):.1f} / {theirs('greedy'):.1f}", share, floor]
            cells += [f"{ours(draw) / ours('greedy') - 1:+.0%}" for draw in ("temperature", "filters")]
            cells += [f"{ours('rows') / theirs('rows'):.2f}"]
            full.append(f"| {hidden:,} | {variant} | {' | '.join(cells)} |")
            print(full[-1], flush=True)
        ratios.append(f"| {' | '.join(short)} |")
    put(arguments.tables, {"native": full, "native-ratios": ratios})


def _time(times: Mapping[Key, float], engine: str, variant: str, what: str) -> float:
    return times[engine, variant, what]


@dataclass
class Weights:
    """What `writing.write` needs of a model."""

    manifest: Any
    initial_state: dict[str, Any]
    engine: Engine
    held: Runner

    @contextmanager
    def runner(self, batch: int = 1) -> Iterator[Runner]:
        """The runner of one row."""
        yield self.held


@frozen_once()
def measured(hidden: int) -> tuple[dict[Key, float], dict[str, float]]:
    """Microseconds a step by engine, variant and what is done; the floor by variant."""
    keras.utils.set_random_seed(0)
    x = keras.Input((None,), dtype="int32")
    embedding = keras.layers.Embedding(VOCABULARY, EMBEDDED, keras.initializers.RandomNormal(stddev=1.0))
    h = keras.layers.LSTM(hidden, return_sequences=True)(embedding(x))
    dense = keras.layers.Dense(VOCABULARY)
    model = keras.Model(x, dense(h))
    kernel, bias = dense.get_weights()
    dense.set_weights([SHARPER * kernel, bias])
    step = derive(model)
    with tempfile.TemporaryDirectory() as folder:
        work: dict[Key, Callable[[int], None]] = {}
        for engine, (module, suffix) in FORMATS.items():
            for variant in ("float32", "int8"):
                path = Path(folder) / f"{variant}.{suffix}"
                module.write(step, path, variant)
                opened = open_engine(engine, path, step.spec)
                work |= {(engine, variant, what): call for what, call in workloads(opened, step.spec)}
        steps = {
            key: min(MOST, max(20, int(SECONDS / _seconds(call, 50) * 50))) for key, call in work.items()
        }
        rounds: dict[Key, list[float]] = {key: [] for key in work}
        for _ in range(ROUNDS):
            for key, call in work.items():
                rounds[key].append(_seconds(call, steps[key]) / steps[key] * 1e6)
    weights = (EMBEDDED + hidden) * 4 * hidden + hidden * VOCABULARY
    floors = {"float32": read_seconds(4 * weights) * 1e6, "int8": read_seconds(weights) * 1e6}
    return {key: median(values) for key, values in rounds.items()}, floors


def workloads(engine: Engine, spec: StepSpec) -> Iterator[tuple[str, Callable[[int], None]]]:
    """Texts of one row by how they are drawn, and greedy text of many rows."""
    states = {t.name: np.zeros(t.array_shape(1), np.float32) for t in spec.states}
    model = Weights(None, states, engine, engine.runner(1))
    for name, options in DRAWS.items():
        given = {key: value for key, value in options.items() if key != "seed"}
        yield name, partial(_text, model, Sampling(**given))
    yield "rows", partial(_rows, engine.runner(BATCH))


def _text(model: Any, sampling: Sampling, length: int) -> None:
    for _ in write(model, [1], length, sampling, 7, AT_ONCE):
        pass


def _rows(runner: Runner, length: int) -> None:
    (x,), (y,) = runner.inputs.values(), runner.outputs.values()
    sampler = RowSampler(Sampling(), range(7, 7 + BATCH), [[i] for i in range(BATCH)], VOCABULARY)
    rows = np.arange(BATCH)
    x[...] = rows
    for _ in range(length):
        runner.run()
        x[...] = sampler.choose(rows, y)


def _seconds(call: Callable[[int], None], length: int) -> float:
    began = time.process_time()
    call(length)
    return time.process_time() - began


if __name__ == "__main__":
    main()
