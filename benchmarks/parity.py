"""How far right artefacts are off, over many models: where the limits of the profiles come from.

`python benchmarks/parity.py --models 64 --json parity.jsonl` builds models of every cell, some layers,
sizes and vocabularies, untrained and trained a little, exports each, judges it without ever stopping
at a limit, and prints the distributions as Markdown. `--read parity.jsonl` prints them again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

from steprnn.export.check.candidates import artefact_candidate
from steprnn.export.check.judge import judge_candidate
from steprnn.export.check.runs import Runs, reference_runs
from steprnn.export.formats import onnx, tflite
from steprnn.export.step.derive import derive
from steprnn.runtime.bundle.manifest import Artefact
from steprnn.runtime.markdown import table
from steprnn.runtime.parity.findings import Finding
from steprnn.runtime.parity.levels import Candidate
from steprnn.runtime.spec import NEXT

CELLS = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.SimpleRNN}
STEPS, SEEDS = 256, 2
VARIANTS = ("float32", "float16", "int8")
FEATURES = 16
SATURATED = ("saturated states", "states of twice that")  # cases of "one step", with units of their own
COSTS = "rounding costs this model too much"  # and the artefact is computed as its weights say
QUANTILES = {"median": 0.5, "90 %": 0.9, "99 %": 0.99, "largest": 1.0}
CALLED = {
    "mean_kl": "mean KL",
    "same_top_1": "1 - same-top-1",
    "agreement": "1 - same-top-1 but for ties",
    "perplexity": "change of perplexity",
    "relative": "rms error over rms of a state",
    "growth": "growth",
}


@dataclass(frozen=True)
class Shape:
    """One model of the sample."""

    seed: int
    cell: str
    depth: int
    hidden: int
    vocabulary: int  # 0: a signal model
    embedding: bool
    masked: bool  # token 0, or a frame of zeros
    skip: bool  # the head sees what the first layer saw
    head: str
    scale: float  # of all weights: tiny, usual, saturating, chaotic
    updates: int  # training steps on a text with some structure

    @classmethod
    def draw(cls, seed: int) -> Shape:
        """The model of this number; the same on every machine."""
        draw = np.random.default_rng(seed)

        def between(least: int, most: int) -> int:  # as many small ones as large ones
            return int(np.exp(draw.uniform(np.log(least), np.log(most + 0.99))))

        hidden = between(1, 700)
        vocabulary = 0 if seed % 4 == 3 else between(2, 5000)
        small = hidden < 300 and vocabulary < 1500
        return cls(
            seed,
            list(CELLS)[seed % 3],
            1 + int(draw.integers(3)),
            hidden,
            vocabulary,
            bool(draw.integers(2)),
            draw.random() < 0.25,
            draw.random() < 0.25,
            str(draw.choice(["Dense", "LayerNormalization", "ReLU"])),
            float(2.0 ** draw.choice([-6, -2, 0, 0, 0, 0, 1, 2, 3])),
            int(draw.choice([0, 60])) if small and draw.random() < 0.5 else 0,
        )


def build(shape: Shape) -> keras.Model:
    """A language model with logits, or a signal model with outputs of eight channels."""
    keras.utils.set_random_seed(shape.seed)
    if shape.vocabulary:
        x = keras.Input((None,), dtype="int32")
        if shape.embedding or shape.masked:
            y = layers.Embedding(shape.vocabulary, 64, mask_zero=shape.masked)(x)
        else:
            y = keras.ops.one_hot(x, shape.vocabulary)
    else:
        x = y = keras.Input((None, FEATURES))
        y = layers.Masking()(y) if shape.masked else y
    first = y
    for _ in range(shape.depth):
        y = CELLS[shape.cell](shape.hidden, return_sequences=True)(y)
    y = layers.Concatenate()([first, y]) if shape.skip else y
    if shape.head == "LayerNormalization":
        y = layers.LayerNormalization()(y)
    if shape.head == "ReLU":
        y = layers.Dense(32, activation="relu")(y)
    model = keras.Model(x, layers.Dense(shape.vocabulary or 8)(y))
    for weight in model.trainable_weights:
        weight.assign(weight * shape.scale)
    if shape.updates:
        train(model, shape)
    return model


def train(model: keras.Model, shape: Shape) -> None:
    """Some updates on a random chain of tokens, or on a signal delayed by three steps."""
    draw = np.random.default_rng(shape.seed)
    rows, steps = 16, 32
    if shape.vocabulary:
        follows = draw.integers(0, shape.vocabulary, (shape.vocabulary, 3))
        text = np.zeros((rows * shape.updates // 4, steps + 1), np.int32)
        text[:, 0] = draw.integers(0, shape.vocabulary, len(text))
        for t in range(steps):
            text[:, t + 1] = follows[text[:, t], draw.integers(0, 3, len(text))]
        data, loss = (text[:, :-1], text[:, 1:]), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    else:
        signal = draw.standard_normal((rows * shape.updates // 4, steps, FEATURES)).astype(np.float32)
        data, loss = (signal, np.roll(signal, 3, axis=1)[..., :8]), keras.losses.MeanSquaredError()
    model.compile(keras.optimizers.Adam(1e-2, clipnorm=1.0), loss)
    model.fit(*data, batch_size=rows, epochs=4, verbose=0)


def judged(shape: Shape, folder: Path) -> Iterator[dict[str, Any]]:
    """The figures of every level of every artefact of one model."""
    step = derive(build(shape))
    runs = reference_runs(step, steps=STEPS, seeds=SEEDS)
    candidates = []
    for format, module in (("onnx", onnx), ("tflite", tflite)):
        for variant in VARIANTS:
            path = folder / f"{variant}.{format}"
            module.write(step, path, variant)
            artefact = Artefact(f"{format}-{variant}", format, variant, "", path.name)
            candidates.append(artefact_candidate(path, artefact, step.spec))
    for candidate in candidates:
        for finding in levels(candidate, runs):
            yield {
                "shape": asdict(shape),
                "artefact": candidate.name,
                "level": finding.level,
                "case": finding.case,
                "passed": finding.passed,
                "verdict": str(finding.verdict),
                "failure": finding.failure,
                "figures": finding.figures,
            }


def levels(candidate: Candidate, runs: Runs) -> Iterator[Finding]:
    """Every level; the free run and the mistakes too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from judge_candidate(candidate, runs)


def report(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The distributions as Markdown."""
    seeds = {r["shape"]["seed"] for r in rows}
    yield f"{len(seeds)} models, {STEPS} steps, {SEEDS} seeds"
    yield ""
    cells = []
    verdicts = ["passed", "cannot tell", "FAILED", COSTS]
    for artefact in dict.fromkeys(r["artefact"] for r in rows):
        worst_of: dict[int, str] = {}
        for r in (r for r in rows if r["artefact"] == artefact):
            # Where single steps cost too much, batches and threads fail by it as well.
            verdict = COSTS if COSTS in r["failure"] else r["verdict"]
            seed = r["shape"]["seed"]
            worst_of[seed] = max(worst_of.get(seed, "passed"), verdict, key=verdicts.index)
        found = list(worst_of.values())
        cells.append([artefact, *(str(found.count(v)) for v in verdicts)])
    yield from table(["right artefacts", "passed", "cannot tell", "failed", COSTS], cells)
    yield ""
    cells = []
    for artefact in ("onnx-float32", "tflite-float32"):
        for kind in ("one step", *SATURATED, "chained", "batch"):
            worst = [
                max(r["figures"]["units"].values())
                for r in rows
                if r["artefact"] == artefact
                and kind == (r["case"] if r["case"] in SATURATED else r["level"])
                and r["figures"]
            ]
            if worst:
                cells.append([f"{artefact}, {kind}", str(len(worst)), *_quantiles(worst)])
    yield from table(["float32, units", "runs", *QUANTILES], cells)
    yield ""
    cells = []
    for artefact in ("onnx-float16", "tflite-float16", "onnx-int8", "tflite-int8"):
        worst = [
            max(r["figures"]["units"].values())
            for r in rows
            if (r["artefact"], r["level"]) == (artefact, "own weights") and r["figures"]
        ]
        if worst:
            cells.append([artefact, str(len(worst)), *_quantiles(worst)])
    yield from table(["from the oracle of its own weights, units", "models", *QUANTILES], cells)
    yield ""
    cells = []
    for artefact in ("onnx-float16", "tflite-float16", "onnx-int8", "tflite-int8"):
        for name in ("mean_kl", "same_top_1", "agreement", "perplexity", "relative", "growth"):
            values = [
                _number(r["figures"][name])
                for r in rows
                if r["artefact"] == artefact
                and r["level"] == "chained"
                and r["case"] in ("its own text", "noise")
                and r["figures"].get(name) is not None
            ]
            if name in ("same_top_1", "agreement"):
                values = [1 - v for v in values]
            if values:
                of = f"{artefact}, {CALLED[name]}"
                cells.append([of, str(len(values)), *_quantiles(np.abs(values))])
    yield from table(["on the input in use", "runs", *QUANTILES], cells)
    yield ""
    cells = []
    mutants = [r for r in rows if r["level"] == "sensitivity"]
    for mistake in dict.fromkeys(r["case"] for r in mutants):
        for variant in ("float32", "float16", "int8"):
            own = [r for r in mutants if r["case"] == mistake and r["artefact"].endswith(variant)]
            if own:
                units = [
                    max(u or np.inf for u in r["figures"]["units"].values()) for r in own if r["figures"]
                ]
                rejected = sum(r["passed"] for r in own)
                rms = min(_number(r["figures"]["relative"]) for r in own if r["figures"])
                counts = [str(len(own)), str(rejected)]
                cells.append([mistake, variant, *counts, f"{min(units):.3g}", f"{rms:.2g}"])
    head = ["mistake", "judged by", "models", "rejected", "smallest units", "smallest rms error of a state"]
    yield from table(head, cells, words=(0, 1))
    yield ""
    for r in rows:
        if not r["passed"]:
            yield f"- {r['artefact']}, {r['level']} {r['case']}: {r['failure']} ({r['shape']})"


def _number(value: Any) -> float:
    """The largest of the states, where there is one for each tensor."""
    if isinstance(value, dict):
        value = max(v for n, v in value.items() if n.startswith(NEXT))
    return float(value)


def _quantiles(values: Any) -> list[str]:
    return [f"{np.quantile(values, q):.2g}" for q in QUANTILES.values()]


def main() -> None:
    """Draw models, judge them, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--first", type=int, default=0, help="number of the first model")
    parser.add_argument("--json", type=Path, help="write every finding to this file, one a line")
    parser.add_argument("--read", type=Path, help="print what such a file holds")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    rows: list[dict[str, Any]] = []
    if arguments.read:
        rows = [json.loads(line) for line in arguments.read.read_text(encoding="utf-8").splitlines()]
    for seed in () if arguments.read else range(arguments.first, arguments.first + arguments.models):
        started, shape = time.monotonic(), Shape.draw(seed)
        with tempfile.TemporaryDirectory() as folder:
            found = list(judged(shape, Path(folder)))
        keras.backend.clear_session()
        rows += found
        if arguments.json:
            with arguments.json.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in found)
        sys.stderr.write(f"{time.monotonic() - started:.1f} s {shape}\n")
    print("\n".join(report(rows)))


if __name__ == "__main__":
    main()
