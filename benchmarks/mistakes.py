"""Which check catches which mistake: ours, and those of other tools at their defaults, side by side.

`python benchmarks/mistakes.py` makes each mistake on purpose in an ONNX graph of a trained character LSTM (or
of a signal GRU), in float32 or int8, and asks

- `steprnn check --reference`: every level of docs/parity.md;
- `polygraphy run` of the right graph against the mistaken one, both in onnxruntime (where `polygraphy` is
  installed beside, or its path is given);
- what Keras's own tests of its ONNX export do: one forward pass on random input, `assertAllClose`;
- what tf2onnx's own tests do: one pass on random input, rtol 1e-7 and atol 1e-5;
- what onnxruntime's `transformers.compare_bert_results` does: a hundred passes on random input, rtol 1e-3 and
  atol 1e-4.

Int8 is held against the float32 model by all but polygraphy, which is given the right int8 graph.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import onnx
import onnxruntime
import tables
import tensorflow as tf
from keras import layers, ops
from onnx import numpy_helper
from parity import Shape, train

from steprnn.export.check.candidates import artefact_candidate
from steprnn.export.check.judge import judge_candidate
from steprnn.export.check.runs import Runs, reference_runs
from steprnn.export.formats import onnx as writer
from steprnn.export.formats.frozen import frozen_once
from steprnn.export.step.contract import Step
from steprnn.export.step.derive import derive
from steprnn.runtime.bundle.manifest import Artefact
from steprnn.runtime.markdown import table
from steprnn.runtime.parity.findings import Verdict, overall
from steprnn.runtime.spec import NEXT

TOKENS, UNITS = 200, 64
Tensors = dict[str, Any]
Call = Callable[[Tensors], Tensors]
NAMES = ("steprnn", "polygraphy", "Keras", "tf2onnx", "onnxruntime")


def language_model(epsilon: float = 1e-3, gate: Any = "sigmoid") -> keras.Model:
    """A character LSTM with a normalisation."""
    keras.utils.set_random_seed(0)
    x = keras.Input((None,), dtype="int32")
    y = layers.LayerNormalization(epsilon=epsilon, name="norm")(layers.Embedding(TOKENS, 32)(x))
    y = layers.LSTM(UNITS, return_sequences=True, recurrent_activation=gate, name="lstm")(y)
    return keras.Model(x, layers.Dense(TOKENS, name="y")(y))


def signal_model(normalised: bool = True) -> keras.Model:
    """A GRU of normalised sensors, whose two outputs are of very different size."""
    keras.utils.set_random_seed(0)
    x = keras.Input((None, 2))
    normal = (
        {"mean": [20.0, 1000.0], "variance": [25.0, 1e4]} if normalised else {"mean": 0.0, "variance": 1.0}
    )
    y = layers.GRU(24, return_sequences=True, name="gru")(layers.Normalization(**normal)(x))
    return keras.Model(x, layers.Rescaling([1e4, 1e-3], name="scale")(layers.Dense(2, name="y")(y)))


WEIGHTS = ("table", "gamma", "beta", "kernel", "recurrent", "bias", "head", "last")


@dataclass(frozen=True)
class Mistake:
    """What is done: to the step, to the weights or the model before the graph is written, or to the graph."""

    words: str
    call: Callable[[Call], Call] | None = None
    weights: Callable[[dict[str, Any]], None] | None = None
    model: Callable[[], keras.Model] | None = None
    graph: Callable[[onnx.ModelProto], None] | None = None
    variant: str = "float32"
    signal: bool = False


def given(change: Callable[[Tensors], Tensors]) -> Callable[[Call], Call]:
    """The step on other inputs or states."""
    return lambda call: lambda t: call(t | change(t))


def gives(change: Callable[[Tensors, Tensors], Tensors]) -> Callable[[Call], Call]:
    """The step with other results; the change is given what came in, too."""

    def changed(call: Call) -> Call:
        def results(t: Tensors) -> Tensors:
            out = call(t)
            return out | change(t, out)

        return results

    return changed


def columns(order: str) -> Callable[[dict[str, Any]], None]:
    """The gates of all matrices and the bias in another order than i f c o."""

    def change(w: dict[str, Any]) -> None:
        for name in ("kernel", "recurrent", "bias"):
            gates = dict(zip("ifco", np.split(w[name], 4, axis=-1), strict=True))
            w[name] = np.concatenate([gates[g] for g in order], axis=-1)

    return change


def weight(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    """One array of weights changed."""
    return lambda w: w.update({name: np.asarray(change(w[name].copy()), np.float32)})


def put(place: Any, value: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """An array with one part of it changed."""

    def change(a: Any) -> Any:
        a[place] = value(a[place])
        return a

    return change


def bits(count: int) -> Callable[[Any], Any]:
    """Rounded to so many bits a column."""

    def change(a: Any) -> Any:
        step = np.abs(a).max(axis=0) / (2 ** (count - 1) - 1)
        return np.rint(a / step) * step

    return change


def transposed(a: Any) -> Any:
    """Each gate of a recurrent matrix."""
    return np.concatenate([gate.T for gate in np.split(a, 4, axis=1)], axis=1)


def stored(kind: str, change: Callable[[Any], Any]) -> Callable[[onnx.ModelProto], None]:
    """The largest initializer of a type changed in the file."""

    def edit(model: onnx.ModelProto) -> None:
        arrays = [(t, numpy_helper.to_array(t)) for t in model.graph.initializer]
        tensor, array = max(((t, a) for t, a in arrays if a.dtype == kind), key=lambda pair: pair[1].size)
        tensor.CopyFrom(numpy_helper.from_array(change(array.copy()).astype(kind), tensor.name))

    return edit


def rows(t: Tensors) -> Any:
    """How many there are in a batch."""
    return tf.shape(next(iter(t.values())))[0]


def mixed(least: int) -> Callable[[Tensors, Tensors], Tensors]:
    """The states of each row given to the next one, in batches of so many."""

    def change(t: Tensors, out: Tensors) -> Tensors:
        states = {n: a for n, a in out.items() if n.startswith(NEXT)}
        return {n: tf.where(rows(t) >= least, tf.concat([a[-1:], a[:-1]], 0), a) for n, a in states.items()}

    return change


def keep(t: Tensors, token: int) -> Any:
    """Zero where the token is read, else one: `[rows, 1]`."""
    return tf.cast(t["x"] != token, "float32")[:, None]


def same(t: Tensors, out: Tensors, name: str) -> Any:
    """A state as it was where token 199 is read."""
    return tf.where((t["x"] == 199)[:, None], t[name], out[NEXT + name])


def last_lost(y: Any) -> Any:
    """Zero in the last class."""
    return y * tf.constant([1.0] * (TOKENS - 1) + [0.0])


def tenth_off(v: Any) -> Any:
    """A tenth more."""
    return v * 1.1


def turned(v: Any) -> Any:
    """In the other order."""
    return v[::-1]


def hard_sigmoid(x: Any) -> Any:
    """That of Keras 2."""
    return ops.clip(0.2 * x + 0.5, 0, 1)


def clipped(x: Any, deviations: float) -> Any:
    """The input of the signal model within so many deviations of its mean."""
    mean, deviation = np.array([20.0, 1000.0], "f4"), np.array([5.0, 100.0], "f4")
    return tf.clip_by_value(x, mean - deviations * deviation, mean + deviations * deviation)


def silent(t: Tensors, out: Tensors) -> Any:
    """The state as it was where the input is zero."""
    return tf.where(tf.reduce_all(t["x"] == 0, axis=-1, keepdims=True), t["h"], out[H])


def scales(model: onnx.ModelProto) -> None:
    """Those of the largest matrix of 8 bits."""
    node = max(
        (n for n in model.graph.node if n.op_type == "MatMulNBits"),
        key=lambda n: next(a.i for a in n.attribute if a.name == "N"),
    )
    (tensor,) = [t for t in model.graph.initializer if t.name == node.input[2]]
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((array * 1.01).astype(array.dtype), tensor.name))


H, C = "next_h", "next_c"
FLOAT = [
    Mistake("h and c swapped", gives(lambda t, o: {H: o[C], C: o[H]})),
    Mistake("the state one step stale", gives(lambda t, o: {H: t["h"], C: t["c"]})),
    Mistake("the state zeroed", gives(lambda t, o: {H: 0 * o[H], C: 0 * o[C]})),
    Mistake("c zeroed", gives(lambda t, o: {C: 0 * o[C]})),
    Mistake("h in 12 bits", gives(lambda t, o: {H: tf.round(o[H] * 2047) / 2047})),
    Mistake("c clipped to 3", gives(lambda t, o: {C: tf.clip_by_value(o[C], -3, 3)})),
    Mistake("c that leaks 1e-4 a step", gives(lambda t, o: {C: o[C] * (1 - 1e-4)})),
    Mistake("token 7 resets the state", gives(lambda t, o: {n: o[n] * keep(t, 7) for n in (H, C)})),
    Mistake("token 199 leaves the state", gives(lambda t, o: {H: same(t, o, "h"), C: same(t, o, "c")})),
    Mistake("tokens shifted by one", given(lambda t: {"x": (t["x"] + 1) % TOKENS})),
    Mistake("tokens in 7 bits", given(lambda t: {"x": tf.minimum(t["x"], 127)})),
    Mistake("token 150 read as 151", given(lambda t: {"x": t["x"] + tf.cast(t["x"] == 150, "int32")})),
    Mistake("probabilities for logits", gives(lambda t, o: {"y": tf.nn.softmax(o["y"])})),
    Mistake("log-probabilities for logits", gives(lambda t, o: {"y": tf.nn.log_softmax(o["y"])})),
    Mistake("a temperature of 0.99", gives(lambda t, o: {"y": o["y"] / 0.99})),
    Mistake("logits rounded to 1e-3", gives(lambda t, o: {"y": tf.round(o["y"] * 1e3) / 1e3})),
    Mistake("the last logit lost", gives(lambda t, o: {"y": last_lost(o["y"])})),
    Mistake("states mixed in batches of 2", gives(mixed(2))),
    Mistake("states mixed in batches above 3", gives(mixed(4))),
    Mistake("one weight off by 1 %", weights=weight("recurrent", put((3, 5), lambda v: v * 1.01))),
    Mistake(
        "one weight of a rare token's row off by 10 %",
        weights=weight("table", put((150, 3), tenth_off)),
    ),
    Mistake("the row of a token zeroed", weights=weight("table", put(150, lambda v: 0 * v))),
    Mistake("the rows of two tokens exchanged", weights=weight("table", put([150, 151], lambda v: v[::-1]))),
    Mistake("a recurrent column zeroed", weights=weight("recurrent", put((slice(None), 9), lambda v: 0 * v))),
    Mistake("a bias off by 1e-4", weights=weight("bias", put(80, lambda v: v + 1e-4))),
    Mistake("the forget bias lost", weights=weight("bias", put(slice(64, 128), lambda v: v - 1))),
    Mistake("a bias lost", weights=weight("bias", lambda v: 0 * v)),
    Mistake("gates as i o f c", weights=columns("iofc")),
    Mistake("gates as f i c o", weights=columns("fico")),
    Mistake("the recurrent matrix transposed", weights=weight("recurrent", transposed)),
    Mistake("classes shifted by one", weights=weight("head", lambda v: np.roll(v, 1, axis=1))),
    Mistake("weights in half precision", weights=weight("recurrent", lambda v: v.astype("f2"))),
    Mistake("weights in bfloat16", weights=weight("recurrent", lambda v: (v.view("i4") & -65536).view("f4"))),
    Mistake("an epsilon of 1e-5 for 1e-3", model=partial(language_model, 1e-5)),
    Mistake(
        "the hard sigmoid of Keras 2",
        model=partial(language_model, gate=hard_sigmoid),
    ),
]
SIGNAL = [
    Mistake("inputs clipped to eight deviations", given(lambda t: {"x": clipped(t["x"], 8)}), signal=True),
    Mistake("inputs not normalised", model=partial(signal_model, False), signal=True),
    Mistake("the small output negated", gives(lambda t, o: {"y": o["y"] * [1.0, -1.0]}), signal=True),
    Mistake("the small output zero", gives(lambda t, o: {"y": o["y"] * [1.0, 0.0]}), signal=True),
    Mistake("silence keeps the state", gives(lambda t, o: {H: silent(t, o)}), signal=True),
]
INT8 = [
    Mistake("int8: a column zeroed", graph=stored("uint8", put((5,), lambda v: 0 * v + 128)), variant="int8"),
    Mistake("int8: weights of 6 bits", graph=stored("uint8", lambda v: (v // 4) * 4), variant="int8"),
    Mistake("int8: scales 1 % off", graph=scales, variant="int8"),
    Mistake(
        "int8: rows of 100 tokens reversed",
        graph=stored("int8", put(slice(50, 150), turned)),
        variant="int8",
    ),
    Mistake("int8: a gate's bias off by 1", weights=weight("bias", put(3, lambda v: v + 1)), variant="int8"),
    Mistake("int8: the state in 4 bits", given(lambda t: {"h": tf.round(t["h"] * 7) / 7}), variant="int8"),
    Mistake("int8: h and c swapped", gives(lambda t, o: {H: o[C], C: o[H]}), variant="int8"),
]


class Judges:
    """The right model of a kind, what each tool makes of it, and what each says of a mistaken graph."""

    def __init__(self, model: keras.Model, folder: Path, polygraphy: str | None) -> None:
        self.model, self.folder, self.step = model, folder, derive(model)
        self.runs: Runs = reference_runs(self.step, steps=512, seeds=4)
        self.right = {}
        for variant in ("float32", "int8"):
            self.right[variant] = folder / f"right.{variant}.onnx"
            writer.write(self.step, self.right[variant], variant)
        self._session = onnxruntime.InferenceSession(str(self.right["float32"]))
        self._polygraphy = polygraphy

    def write(self, mistake: Mistake, path: Path) -> None:
        """The graph with the mistake."""
        model = mistake.model() if mistake.model else self.model
        before = [w.numpy() for w in self.model.weights]
        if mistake.model:
            for own, array in zip(model.trainable_weights, self.model.trainable_weights, strict=True):
                own.assign(array)
        if mistake.weights:
            named = dict(zip(WEIGHTS, before, strict=True))
            mistake.weights(named)
            model.set_weights([*named.values()])
        step: Step = derive(model)
        if mistake.call:
            step = replace(step, call=mistake.call(step.call))
        writer.write(step, path, mistake.variant)
        if mistake.weights:
            model.set_weights(before)
        if mistake.graph:
            graph = onnx.load(path)
            mistake.graph(graph)
            onnx.save(graph, path)

    def verdicts(self, path: Path, variant: str) -> list[str]:
        """Of each tool: "caught", or what it says else."""
        passes = [self._pass(path, seed) for seed in range(100)]
        one = passes[0]
        caught = [
            self._ours(path, variant),
            self._theirs(path, variant),
            not all(np.allclose(a, b, rtol=1e-6, atol=1e-6) for a, b in one),
            not all(np.allclose(a, b, rtol=1e-7, atol=1e-5) for a, b in one),
            any(not np.allclose(a, b, rtol=1e-3, atol=1e-4) for pair in passes for a, b in pair),
        ]
        return ["-" if c is None else c if isinstance(c, str) else "caught" if c else "" for c in caught]

    def _ours(self, path: Path, variant: str) -> bool | str:
        artefact = Artefact(path.name, "onnx", variant, "", path.name)
        candidate = artefact_candidate(path, artefact, self.step.spec)
        verdict = overall(judge_candidate(candidate, self.runs))
        return "cannot tell" if verdict is Verdict.VOID else verdict is Verdict.FAILED

    def _pass(self, path: Path, seed: int) -> list[tuple[Any, Any]]:
        """The results of the right model and of a graph for the same random input."""
        draw = np.random.default_rng(seed)
        spec, feeds = self.step.spec, {}
        for t in (*spec.inputs, *spec.states):
            shape = t.array_shape(1)
            feeds[t.name] = (
                draw.integers(0, t.tokens, shape).astype("i4") if t.tokens else draw.random(shape, "f4")
            )
        session = onnxruntime.InferenceSession(str(path)) if seed == 0 else self._last
        self._last = session
        names = list(spec.result_names)
        return list(zip(self._session.run(names, feeds), session.run(names, feeds), strict=True))

    def _theirs(self, path: Path, variant: str) -> bool | None:
        if self._polygraphy is None:
            return None
        outputs = self.folder / "right.json"
        run = [self._polygraphy, "run", "--onnxrt", "--silent"]
        subprocess.run([*run, str(self.right[variant]), "--save-outputs", str(outputs)], check=True)
        done = subprocess.run([*run, str(path), "--load-outputs", str(outputs)], check=False)
        return done.returncode != 0


def main() -> None:
    """A row for each mistake; how many each catches, and what each says of what is right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--polygraphy", default=shutil.which("polygraphy"), help="the command, where it is not on the path"
    )
    tables.add_argument(parser)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    language = language_model()
    train(language, replace(Shape.draw(0), vocabulary=TOKENS, updates=60))
    cells: list[list[str]] = []
    with tempfile.TemporaryDirectory() as name, frozen_once():
        folder = Path(name)
        for model, mistakes in ((language, [*FLOAT, *INT8]), (signal_model(), SIGNAL)):
            judges = Judges(model, folder, arguments.polygraphy)
            for variant, right in judges.right.items():
                kind = "signal" if mistakes is SIGNAL else "language"
                said = judges.verdicts(right, variant)
                alarms = ["false alarm" if told == "caught" else told for told in said]
                cells.append([f"(right: {kind}, {variant})", *alarms])
            for i, mistake in enumerate(mistakes):
                path = folder / f"{i}.onnx"
                judges.write(mistake, path)
                cells.append([mistake.words, *judges.verdicts(path, mistake.variant)])
                sys.stderr.write(f"{cells[-1]}\n")
    wrong = [row for row in cells if not row[0].startswith("(right")]
    counts = (str(sum(row[i] == "caught" for row in wrong)) for i in range(1, len(NAMES) + 1))
    cells.append([f"caught, of {len(wrong)}", *counts])
    lines = list(table(["mistake", *NAMES], cells, words=range(len(NAMES) + 1)))
    print("\n".join(lines))
    tables.put(arguments.tables, {"mistakes": lines})


if __name__ == "__main__":
    main()
