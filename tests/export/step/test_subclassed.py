"""Models without a graph: a step written by hand, and what is held against it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tf2onnx")

import keras
import tensorflow as tf
from keras import layers, ops

from steprnn.export import Step, StepSpec, TensorSpec, export
from steprnn.runtime import load
from steprnn.runtime.errors import ExportError

from ..models import shaken

V, UNITS = 11, 6


class RNNModel(layers.Layer):
    """The book's: `call(inputs, state)`, time-major inside, the output flat over time."""

    def __init__(self, rnn_layer: Any, vocab_size: int) -> None:
        super().__init__()
        self.rnn = rnn_layer
        self.vocab_size = vocab_size
        self.dense = layers.Dense(vocab_size)

    def call(self, inputs: Any, state: Any) -> Any:
        x = tf.one_hot(tf.transpose(inputs), self.vocab_size)
        y, *state = self.rnn(tf.transpose(x, (1, 0, 2)), initial_state=state)
        output = self.dense(tf.reshape(tf.transpose(y, (1, 0, 2)), (-1, y.shape[-1])))
        return output, state

    def begin_state(self, batch: int) -> Any:
        return self.rnn.cell.get_initial_state(batch_size=batch)


class Tutorial(keras.Model):
    """The model of TensorFlow's text generation tutorial, as it stands there."""

    def __init__(self, vocab_size: int, embedding_dim: int, rnn_units: int) -> None:
        super().__init__()
        self.embedding = layers.Embedding(vocab_size, embedding_dim)
        self.gru = layers.GRU(rnn_units, return_sequences=True, return_state=True)
        self.dense = layers.Dense(vocab_size)

    def call(
        self, inputs: Any, states: Any = None, return_state: bool = False, training: bool = False
    ) -> Any:
        x = inputs
        x = self.embedding(x, training=training)
        if states is None:
            states = self.gru.get_initial_state(tf.shape(x)[0])
        x, states = self.gru(x, initial_state=states, training=training)
        x = self.dense(x, training=training)
        return (x, states) if return_state else x


def book() -> tuple[RNNModel, Step]:
    net = RNNModel(layers.LSTM(UNITS, return_sequences=True, return_state=True), V)
    net(np.zeros((2, 3), np.int32), net_state(2))
    shaken(net)

    spec = StepSpec(
        inputs=(TensorSpec("x", "int32", (), tokens=V),),
        states=(TensorSpec("h", "float32", (UNITS,)), TensorSpec("c", "float32", (UNITS,))),
        outputs=(TensorSpec("y", "float32", (V,)),),
    )

    def step(t: Any) -> Any:
        y, (h, c) = net.rnn.cell(ops.one_hot(t["x"], V), [t["h"], t["c"]])
        return {"y": net.dense(y), "next_h": h, "next_c": c}

    def whole(arrays: Any) -> Any:
        rows, steps = arrays["x"].shape
        flat, _ = net(arrays["x"], net.begin_state(rows))
        return {"y": np.moveaxis(flat.numpy().reshape(steps, rows, V), 0, 1)}

    return net, Step(spec, step, on_sequences=whole)


def net_state(batch: int) -> Any:
    return [tf.zeros((batch, UNITS)), tf.zeros((batch, UNITS))]


def tutorial() -> tuple[Tutorial, Step]:
    model = Tutorial(V, 4, UNITS)
    model(np.zeros((2, 3), np.int32))
    shaken(model)

    spec = StepSpec(
        inputs=(TensorSpec("x", "int32", (), tokens=V),),
        states=(TensorSpec("h", "float32", (UNITS,)),),
        outputs=(TensorSpec("y", "float32", (V,)),),
    )

    def step(t: Any) -> Any:
        y, (h,) = model.gru.cell(model.embedding(t["x"]), [t["h"]])
        return {"y": model.dense(y), "next_h": h}

    return model, Step(spec, step, on_sequences=lambda arrays: {"y": model(arrays["x"]).numpy()})


def chained(bundle: Path, tokens: Any, engine: str) -> tuple[Any, Any]:
    """Logits `[rows, steps, V]` and the states after them."""
    session = load(bundle, engine=engine).session(batch=len(tokens))
    return np.stack([session.step(x) for x in tokens.T], axis=1), session.state.tensors


TOKENS = np.random.default_rng(0).integers(0, V, (3, 50), np.int32)


@pytest.mark.parametrize("engine", ["onnx", "litert"])
def test_the_books_model(engine: str, tmp_path: Path) -> None:
    net, step = book()
    manifest = export(step, tmp_path / "b", variants=("float32",))
    assert manifest.about["proofs"]["transform"] <= 8
    flat, (h, c) = net(TOKENS, net.begin_state(3))
    logits, states = chained(tmp_path / "b", TOKENS, engine)
    np.testing.assert_allclose(np.moveaxis(logits, 1, 0).reshape(-1, V), flat, rtol=0, atol=1e-5)
    np.testing.assert_allclose(states["h"], h, rtol=0, atol=1e-5)
    np.testing.assert_allclose(states["c"], c, rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", ["onnx", "litert"])
def test_the_tutorials_model(engine: str, tmp_path: Path) -> None:
    model, step = tutorial()
    manifest = export(step, tmp_path / "b", variants=("float32",))
    assert manifest.about["proofs"]["transform"] <= 8
    expected, h = model(TOKENS, return_state=True)
    logits, states = chained(tmp_path / "b", TOKENS, engine)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(states["h"], h, rtol=0, atol=1e-5)


def test_the_tutorials_model_made_functional(tmp_path: Path) -> None:
    """The other way of docs/supported-layers.md: no step is written at all."""
    model, _ = tutorial()
    tokens, h = keras.Input((None,), dtype="int32"), keras.Input((UNITS,))
    export(keras.Model([tokens, h], model.call(tokens, states=h)), tmp_path / "b", variants=("float32",))
    logits, _ = chained(tmp_path / "b", TOKENS, "onnx")
    np.testing.assert_allclose(logits, model(TOKENS), rtol=0, atol=1e-5)


def test_both_are_refused_as_they_are(tmp_path: Path) -> None:
    for model in (book()[0], tutorial()[0]):
        with pytest.raises(
            ExportError, match=r"has no graph to read: .* pass steprnn.export.Step\(spec, call\)"
        ):
            export(model, tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_a_wrong_step_is_found_by_the_proof(tmp_path: Path) -> None:
    _, step = book()

    def swapped(t: Any) -> Any:
        results = step.call(t)
        return results | {"next_h": results["next_c"], "next_c": results["next_h"]}

    with pytest.raises(
        ExportError, match=r"the chained step is not the model: 'y' is .* units off over 256 steps"
    ):
        export(replace(step, call=swapped), tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_without_the_whole_model_there_is_no_proof_and_export_says_so(tmp_path: Path) -> None:
    _, step = tutorial()
    said: list[str] = []
    manifest = export(
        replace(step, on_sequences=None),
        tmp_path / "b",
        formats=("onnx",),
        variants=("float32",),
        say=said.append,
    )
    assert manifest.about["proofs"] is None
    assert [line for line in said if "no whole-sequence model" in line], said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda r: {"y": r["y"], "next_h": r["next_h"]},
            "the step returns next_h, y; its spec expects next_c, next_h, y",
        ),
        (
            lambda r: r | {"y": r["y"][:, :1]},
            "the step returns y as float32 (None, 1); its spec expects float32 (None, 11)",
        ),
        (
            lambda r: r | {"next_c": ops.cast(r["next_c"], "float16")},
            "the step returns next_c as float16 (None, 6); its spec expects float32 (None, 6)",
        ),
    ],
    ids=["names", "shape", "dtype"],
)
def test_what_it_returns_is_held_against_the_spec(change: Any, words: str, tmp_path: Path) -> None:
    """Nothing is guessed: a row of one logit would otherwise be broadcast to all."""
    _, step = book()
    with pytest.raises(ExportError) as raised:
        export(replace(step, call=lambda t: change(step.call(t))), tmp_path / "b")
    assert str(raised.value) == words


def test_a_loop_in_the_step_is_refused(tmp_path: Path) -> None:
    """Calling the layer where the cell is meant: a loop over one time step."""
    net, step = book()

    def looping(t: Any) -> Any:
        y, h, c = net.rnn(ops.one_hot(t["x"], V)[:, None], initial_state=[t["h"], t["c"]])
        return {"y": net.dense(y[:, 0]), "next_h": h, "next_c": c}

    with pytest.raises(
        ExportError, match=r"holds Enter, Exit, LoopCond, .*TensorList.*, and a step may hold no loop"
    ):
        export(replace(step, call=looping), tmp_path / "b", formats=("saved_model",))
    assert not list(tmp_path.iterdir())
