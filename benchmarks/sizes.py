"""What a step costs against the size of the model: `python benchmarks/sizes.py --picture docs/cost.svg`.

Untrained models of every size are written with the exporters, without parity (which is the tests' task),
and their engines take turns on one core. Beside each time stands its floor: reading the weights once.
Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import ModuleType

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from cost import Cost, Size
from tables import add_argument, put

from steprnn.export.formats import onnx, tflite
from steprnn.export.inspect import inspect
from steprnn.export.step.derive import derive
from steprnn.runtime import engines
from steprnn.runtime.bench.machine import pinned, read_seconds
from steprnn.runtime.bench.rounds import Spread, time_rounds
from steprnn.runtime.engines import Runner
from steprnn.runtime.markdown import table
from steprnn.runtime.quiet import quiet
from steprnn.runtime.spec import StepSpec
from steprnn.train.model import build
from steprnn.train.settings import Settings

HIDDEN, LAYERS, VOCABULARY = (128, 256, 512, 1024), (1, 2, 3), (100, 300, 1027, 4000, 20000)
FORMATS: dict[str, ModuleType] = {"litert": tflite, "onnx": onnx}
VARIANTS = ("float32", "int8")


def sizes() -> list[Size]:
    """Each of the three alone, the others as in the book."""
    along = [Size(hidden=n) for n in HIDDEN]
    along += [Size(layers=n) for n in LAYERS]
    along += [Size(vocabulary=n) for n in VOCABULARY]
    return list(dict.fromkeys(along))


def costs(size: Size, folder: Path, rounds: int, seconds: float) -> Iterator[Cost]:
    """Write the graphs of an untrained model, and let their engines take turns."""
    keras.utils.set_random_seed(0)
    step = derive(build(size.vocabulary, Settings(units=size.hidden, layers=size.layers)))
    workloads, reads = {}, {}
    for engine, module in FORMATS.items():
        for variant in VARIANTS:
            path = folder / f"{variant}.{engines.ENGINES[engine]}"
            module.write(step, path, variant)
            runner = engines.open_engine(engine, path, step.spec).runner(1)
            workloads[engine, variant] = partial(greedy, runner, step.spec)
            reads[engine, variant] = inspect(path).weights.per_step
    times = time_rounds(workloads, rounds, seconds)
    for (engine, variant), read in reads.items():
        spread = Spread.of(times[engine, variant])
        yield Cost(size, engine, variant, read, read_seconds(read) * 1e6, spread)


def greedy(runner: Runner, spec: StepSpec, length: int) -> None:
    """The engine's loop: token in, step, token of the largest logit."""
    runner.set_state({t.name: np.zeros((1, *t.shape), np.float32) for t in spec.states})
    (x,), (y,) = runner.inputs.values(), runner.outputs.values()
    run, logits, token = runner.run, y[0], 0
    for _ in range(length):
        x[0] = token
        run()
        token = logits.argmax()


def lines(found: list[Cost]) -> list[str]:
    """A row for each size, a column for each engine and variant, with the floor in brackets."""
    names = [(engine, variant) for engine in FORMATS for variant in VARIANTS]
    rows = []
    for size in dict.fromkeys(cost.size for cost in found):
        of = {(c.engine, c.variant): c for c in found if c.size == size}
        cells = [f"{of[n].us.median:,.1f} ({of[n].floor_us:,.1f})" for n in names]
        rows.append([f"{size.hidden:,}", str(size.layers), f"{size.vocabulary:,}", *cells])
    return [
        "Microseconds a step, greedy, the engine alone; in brackets the floor, its weights read once.",
        "",
        *table(["hidden", "layers", "vocabulary", *map(" ".join, names)], rows, words=()),
    ]


def main() -> None:
    """Measure, print Markdown, and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few and short rounds")
    parser.add_argument("--picture", metavar="FILE", type=Path, help="an SVG to write")
    add_argument(parser)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures there")
    parser.add_argument("--read", metavar="FILE", type=Path, help="print and draw figures written before")
    arguments = parser.parse_args()
    if arguments.read:
        found = [
            Cost.from_record(record) for record in json.loads(arguments.read.read_text(encoding="utf-8"))
        ]
    else:
        found = []
        with pinned(), quiet() as terminal:
            for size in sizes():
                terminal.write(f"{size}\n")
                terminal.flush()
                with tempfile.TemporaryDirectory() as folder:
                    pace = (5, 0.002) if arguments.quick else (21, 0.02)
                    found += costs(size, Path(folder), *pace)
    print("\n".join(lines(found)))
    if arguments.json:
        text = json.dumps([asdict(cost) for cost in found], indent=1) + "\n"
        arguments.json.write_text(text, encoding="utf-8")
    put(arguments.tables, {"sizes": lines(found)})
    if arguments.picture:
        from picture import draw  # matplotlib, which nothing else here needs

        arguments.picture.write_text(draw(found, Size()), encoding="utf-8")


if __name__ == "__main__":
    main()
