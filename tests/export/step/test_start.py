"""States that are computed from what stays the same over a stream: a graph of their own, proved and run."""

from __future__ import annotations

import json
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

from steprnn.export import export
from steprnn.export.check.candidates import candidates_of
from steprnn.export.check.judge import judge_all
from steprnn.export.check.proofs import prove
from steprnn.export.formats import onnx
from steprnn.export.step.contract import Step
from steprnn.export.step.derive import derive
from steprnn.runtime import ExportError, UsageError, load
from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.bundle.vocabulary import Vocabulary
from steprnn.runtime.cli import main
from steprnn.runtime.package import web
from steprnn.runtime.package.card import card
from steprnn.runtime.package.contents import write_contents

from ..models import QUICK, shaken

STEPS, FEATURES, TOKENS = 12, 4, 11


def sketch() -> keras.Model:
    """A latent vector that begins an LSTM and stands beside each step."""
    x, z = keras.Input((STEPS, FEATURES), name="stroke"), keras.Input((6,), name="z")
    begin = layers.Dense(10, activation="tanh")(z)
    y = layers.Concatenate()([x, layers.RepeatVector(STEPS)(z)])
    y = layers.LSTM(5, return_sequences=True)(y, initial_state=[begin[:, :5], begin[:, 5:]])
    return keras.Model([x, z], layers.Dense(2)(y))


def caption() -> keras.Model:
    """An image that begins the writing, and is not looked at again."""
    image, words = keras.Input((6,), name="image"), keras.Input((None,), dtype="int32", name="words")
    h, c = layers.Dense(5, activation="tanh")(image), layers.Dense(5)(image)
    y = layers.LSTM(5, return_sequences=True)(layers.Embedding(TOKENS, 4)(words), initial_state=[h, c])
    return keras.Model([image, words], layers.Dense(TOKENS)(y))


def attention(steps: int | None) -> keras.Model:
    """A decoder whose state, an input, is read by other layers too."""
    x, hidden = keras.Input((steps, FEATURES), name="x"), keras.Input((5,), name="hidden")
    y = layers.Add()([layers.Dense(5)(x), ops.expand_dims(layers.Dense(5)(hidden), 1)])
    y, after = layers.GRU(5, return_sequences=True, return_state=True)(y, initial_state=hidden)
    return keras.Model([x, hidden], [layers.Dense(2)(y), after])


def packed() -> keras.Model:
    """All states in one tensor, in and out, as the TFLite files of DTLN are made; for one row alone."""
    x, states = keras.Input(batch_shape=(1, 1, FEATURES)), keras.Input(batch_shape=(1, 2, 5, 2))
    y, after = x, []
    for i in range(2):
        y, h, c = layers.LSTM(5, return_sequences=True, return_state=True)(
            y, initial_state=[states[:, i, :, 0], states[:, i, :, 1]]
        )
        after.append(ops.stack([h, c], axis=-1))
    return keras.Model([x, states], [layers.Dense(2)(y), ops.reshape(ops.stack(after, 1), (1, 2, 5, 2))])


def drawn(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("engine", ["onnx", "litert"])
def test_a_session_begins_where_the_model_does(engine: str, tmp_path: Path) -> None:
    model = shaken(sketch())
    manifest = export(model, tmp_path / "b", **QUICK)
    assert manifest.start is not None
    assert [t.name for t in manifest.start.spec.inputs] == ["z"]
    assert [t.name for t in manifest.start.spec.outputs] == ["h", "c"]
    assert [(t.name, t.static) for t in manifest.step.inputs] == [("stroke", False), ("z", True)]
    assert Manifest.read(tmp_path / "b") == manifest
    x, z = drawn(3, STEPS, FEATURES), drawn(3, 6)
    loaded = load(tmp_path / "b", engine=engine)
    session = loaded.session(batch=3, static={"z": z})
    expected = np.asarray(model([x, z]))
    for _ in range(2):
        got = [session.step(x[:, t]) for t in range(STEPS)]
        np.testing.assert_allclose(np.stack(got, 1), expected, rtol=0, atol=2e-6)
        session.reset()
    twin = loaded.session(static={"z": z[1]})
    np.testing.assert_allclose(twin.step(x[1, 0]), expected[1:2, 0], rtol=0, atol=2e-6)
    np.testing.assert_array_equal(twin.fork().step(x[1, 1]), twin.step(x[1, 1]))


def test_what_only_begins_a_stream_is_no_input_of_the_step(tmp_path: Path) -> None:
    """Text cannot be written without it, and a page or a server would begin at zero."""
    model, vocabulary = shaken(caption()), Vocabulary("abcdefghijk")
    manifest = export(model, tmp_path / "b", vocabulary=vocabulary, **QUICK)
    assert [t.name for t in manifest.step.inputs] == ["x"]
    assert [t.name for t in manifest.static] == ["image"]
    loaded = load(tmp_path / "b")
    with pytest.raises(UsageError, match=r"^got inputs \[\], expected \['image'\]; give session\(static="):
        loaded.session()
    words = r"^the states of this model begin from image: step session\(static=\{\.\.\.\}\)$"
    for call in (loaded.generate, loaded.score, loaded.embed):
        with pytest.raises(UsageError, match=words):
            call("ab")
    with pytest.raises(UsageError, match="is not of a language model"):
        web.write(tmp_path / "b", tmp_path / "site")
    image, tokens = drawn(2, 6), np.array([[1, 2, 3], [4, 5, 6]])
    session = loaded.session(batch=2, static={"image": image})
    got = np.stack([session.step(tokens[:, t]) for t in range(3)], 1)
    np.testing.assert_allclose(got, np.asarray(model([image, tokens])), rtol=0, atol=2e-6)


def test_every_format_has_its_own_start_and_the_check_judges_it(tmp_path: Path) -> None:
    model = shaken(sketch())
    export(model, tmp_path / "b", **QUICK)
    record = json.loads((tmp_path / "b/manifest.json").read_text())
    assert record["version"] == 2
    assert sorted(record["positions"]["tflite-start"]["outputs"]) == ["c", "h"]
    assert [g["path"] for g in record["start"]["artefacts"]] == ["start", "start.tflite", "start.onnx"]
    step = derive(model)
    same, candidates = candidates_of(tmp_path / "b", step, {}, None)
    assert [c.name for c in candidates[3:]] == ["saved_model-start", "tflite-start", "onnx-start"]
    found = judge_all(step, candidates, steps=32, seeds=1)
    assert all(f.passed for f in [*same, *found])
    told = {f.candidate.artefact for f in found if f.level == "sensitivity" and "1 %" in f.case}
    assert {"saved_model-start", "tflite-start", "onnx-start"} <= told
    other = derive(shaken(sketch(), seed=1)).start
    assert other is not None
    onnx.write(other, tmp_path / "b/start.onnx")  # of a model with other weights
    broken = [c for c in candidates if c.name == "onnx-start"]
    failed = [str(f) for f in judge_all(step, broken, steps=32, seeds=1) if not f.passed]
    assert failed[0].startswith("onnx-start in onnx fails at the level 'weights'")


def test_the_bundle_is_checked_on_its_own_with_its_start(tmp_path: Path, capsys: Any) -> None:
    export(shaken(sketch()), tmp_path / "b", formats=("onnx", "tflite"), **QUICK)
    assert main(["check", str(tmp_path / "b")]) == 0
    assert "onnx-start" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "b")]) == 0
    words = "a stream begins with h, c as the start graphs compute them from z"
    assert words in " ".join(capsys.readouterr().out.split())
    (tmp_path / "b/start.onnx").unlink()
    assert main(["check", str(tmp_path / "b")]) == 1
    assert "start.onnx is missing; copy the bundle again" in capsys.readouterr().err


def test_a_package_has_the_start_of_its_formats(tmp_path: Path) -> None:
    export(shaken(sketch()), tmp_path / "b", **QUICK)
    manifest = write_contents(tmp_path / "b", tmp_path / "out", ["onnx"])
    assert manifest.start is not None
    assert [a.name for a in manifest.start.artefacts] == ["onnx-start"]
    assert manifest.positions == {}
    assert not (tmp_path / "out/start.tflite").exists()
    assert Manifest.read(tmp_path / "out") == manifest
    text = card(tmp_path / "out", manifest, "sketch", "sketch", "onnx", None)
    assert 'session = model.session(static={"z": z})' in text


def test_two_starts_make_two_models(tmp_path: Path) -> None:
    """A state belongs to the weights that it was begun by, too."""
    model = shaken(caption())
    first = export(model, tmp_path / "a", formats=("onnx",), **QUICK)
    dense = next(m for m in model.layers if isinstance(m, layers.Dense))
    dense.bias.assign_add(keras.ops.ones(5))
    assert export(model, tmp_path / "b", formats=("onnx",), **QUICK).model != first.model


def test_a_state_that_is_read_elsewhere_is_a_state_at_one_step_a_call(tmp_path: Path) -> None:
    model = shaken(attention(1))
    manifest = export(model, tmp_path / "b", formats=("onnx",), **QUICK)
    assert manifest.start is None
    assert manifest.about["proofs"]["steps"] > 1  # called again and again with what it gave
    x, session = drawn(2, STEPS, FEATURES), load(tmp_path / "b").session(batch=2)
    hidden = np.zeros((2, 5), np.float32)
    for t in range(STEPS):
        expected, hidden = (np.asarray(a) for a in model([x[:, t : t + 1], hidden]))
        np.testing.assert_allclose(session.step(x[:, t]), expected[:, 0], rtol=0, atol=2e-6)


def test_a_state_that_is_read_elsewhere_is_static_on_a_sequence(tmp_path: Path) -> None:
    """The other layers read what the stream began with, at every step."""
    model = shaken(attention(None))
    manifest = export(model, tmp_path / "b", formats=("onnx",), **QUICK)
    assert [t.name for t in manifest.static] == ["hidden"]
    x, hidden = drawn(2, STEPS, FEATURES), drawn(2, 5)
    session = load(tmp_path / "b").session(batch=2, static={"hidden": hidden})
    got = np.stack([session.step(x[:, t]) for t in range(STEPS)], 1)
    np.testing.assert_allclose(got, np.asarray(model([x, hidden])[0]), rtol=0, atol=2e-6)


def test_packed_states_are_states(tmp_path: Path) -> None:
    model = shaken(packed())
    manifest = export(model, tmp_path / "b", formats=("onnx",), **QUICK)
    assert [t.name for t in manifest.step.states] == ["lstm_h", "lstm_c", "lstm_1_h", "lstm_1_c"]
    assert [t.name for t in manifest.step.outputs] == ["y"]
    assert manifest.about["proofs"]["steps"] > 1
    x, session = drawn(1, STEPS, FEATURES), load(tmp_path / "b").session()
    states = np.zeros((1, 2, 5, 2), np.float32)
    for t in range(STEPS):
        expected, states = (np.asarray(a) for a in model([x[:, t : t + 1], states]))
        np.testing.assert_allclose(session.step(x[:, t]), expected[:, 0], rtol=0, atol=2e-6)


def swapped(step: Step) -> Step:
    """The step with h and c exchanged, which no shape tells."""

    def call(tensors: Any) -> Any:
        results = step.call(tensors)
        return results | {"next_h": results["next_c"], "next_c": results["next_h"]}

    return replace(step, call=call)


@pytest.mark.parametrize("stateful", [True, False])
def test_a_model_of_one_step_is_proved_over_many(stateful: bool) -> None:
    """One call from zero would not tell h from c."""
    x = keras.Input(batch_shape=(2, 1, FEATURES))
    y = layers.LSTM(5, stateful=stateful)(x)
    step = derive(shaken(keras.Model(x, layers.Dense(2)(y))))
    proofs = prove(step)
    assert proofs is not None
    assert proofs.steps > 1
    with pytest.raises(ExportError, match="the chained step is not the model"):
        prove(swapped(step))


def test_a_start_that_is_wrong_is_not_the_model() -> None:
    step = derive(shaken(sketch()))
    assert step.start is not None
    begin = step.start.call
    wrong = replace(step.start, call=lambda t: {n: tf.reverse(a, [1]) for n, a in begin(t).items()})
    assert prove(step) is not None
    with pytest.raises(ExportError, match="the chained step is not the model"):
        prove(replace(step, start=wrong))


def test_what_begins_from_another_sequence_has_no_step() -> None:
    past, x = keras.Input((None, 3)), keras.Input((None, FEATURES))
    _, state = layers.GRU(5, return_state=True)(past)
    y = layers.GRU(5, name="decoder")(x, initial_state=state)
    with pytest.raises(ExportError, match=r"^layer 'decoder' \(GRU\) begins from a state that is computed"):
        derive(keras.Model([past, x], y))


def test_a_part_of_an_input_is_no_state_where_other_layers_read_it() -> None:
    x, states = keras.Input((1, FEATURES)), keras.Input((10,))
    y = layers.LSTM(5)(x, initial_state=[states[:, :5], states[:, 5:]])
    model = keras.Model([x, states], layers.Concatenate()([y, states]))
    with pytest.raises(ExportError, match="begins from a part of an input that other layers read too"):
        derive(model)


def test_sequences_of_two_lengths_are_not_stepped_together() -> None:
    a, b = keras.Input((8, 3), name="a"), keras.Input((12, 3), name="b")
    model = keras.Model([a, b], layers.Concatenate()([layers.GRU(5)(a), layers.GRU(5)(b)]))
    with pytest.raises(ExportError, match=r"sequences of different lengths \(a 8, b 12\)"):
        derive(model)


def captioned_image() -> keras.Model:
    words, image = keras.Input((None,), dtype="int32", name="words"), keras.Input((8, 8, 3), name="image")
    seen = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(image))
    begin = [layers.Dense(5)(seen), layers.Dense(5)(seen)]
    y = layers.LSTM(5, return_sequences=True)(layers.Embedding(TOKENS, 4)(words), initial_state=begin)
    return keras.Model([words, image], layers.Dense(TOKENS)(y))


def translation() -> keras.Model:
    """An encoder of ten steps, both ways, begins a decoder that looks at all of them at each step."""
    x, source = keras.Input((None, 5), name="x"), keras.Input((10, 6), name="source")
    read = layers.Bidirectional(layers.GRU(4, return_sequences=True))(source)
    _, h, c = layers.LSTM(5, return_state=True)(read)
    y = layers.LSTM(5, return_sequences=True)(x, initial_state=[h, c])
    seen = layers.MultiHeadAttention(2, 4)(y, read)
    seen = layers.Concatenate()([seen, layers.AdditiveAttention()([y, layers.Dense(5)(read)])])
    return keras.Model([x, source], layers.Dense(2)(seen))


def repeated_image() -> keras.Model:
    """Of a fixed length, which what is returned tells."""
    x, image = keras.Input((STEPS, 5), name="x"), keras.Input((8, 8, 3), name="image")
    seen = layers.RepeatVector(STEPS)(layers.Dense(3)(layers.Flatten()(image)))
    y = layers.GRU(5, return_sequences=True)(layers.Concatenate()([x, seen]))
    return keras.Model([x, image], layers.Dense(2)(y))


@pytest.mark.parametrize("build", [captioned_image, translation, repeated_image])
def test_an_image_or_all_that_an_encoder_reads_stays_the_same(build: Any, tmp_path: Path) -> None:
    model = shaken(build())
    export(model, tmp_path / "b", formats=("onnx",), variants=("float32",), chained_steps=64)
    sequence, still = model.inputs
    given = drawn(3, *still.shape[1:])
    x = drawn(3, STEPS, 5) if sequence.dtype == "float32" else np.arange(3 * STEPS).reshape(3, -1) % TOKENS
    session = load(tmp_path / "b").session(batch=3, static={still.name: given})
    got = np.stack([session.step(x[:, t]) for t in range(STEPS)], 1)
    np.testing.assert_allclose(got, np.asarray(model([x, given])), rtol=0, atol=2e-6)


def test_an_encoder_of_any_length_is_refused_by_name() -> None:
    x, source = keras.Input((None, 5)), keras.Input((200, 6))
    _, h = layers.GRU(5, return_state=True, name="encoder")(source)
    model = keras.Model([x, source], layers.GRU(5, return_sequences=True)(x, initial_state=h))
    words = r"^layer 'encoder' \(GRU\) runs a recurrence of 200 steps over what stays the same, so it has no "
    with pytest.raises(ExportError, match=words + r"step; give it a fixed length of at most 128$"):
        derive(model)


@pytest.mark.parametrize("stateful", [False, True])
def test_a_recurrence_over_what_has_no_time_is_refused(stateful: bool) -> None:
    """Its one time step stays the same, and a state that it keeps is not the step's."""
    still = keras.Input(batch_shape=(1, 6))
    y = layers.LSTM(5, stateful=stateful, name="kept")(layers.Reshape((1, 4))(layers.Dense(4)(still)))
    words = r"model 'functional\w*' has no input with a time axis; a step reads one at every time step"
    if stateful:
        words = (
            r"layer 'kept' \(LSTM\) keeps a state \(stateful=True\) of what has no input with a time axis, "
            r"so it has no step; let its Input be \[batch, time, features\], or leave stateful=True out"
        )
    with pytest.raises(ExportError, match=f"^{words}$"):
        derive(keras.Model(still, layers.Dense(2)(y)))
    x = keras.Input(batch_shape=(1, None, 3))
    beside = keras.Model([x, still], layers.GRU(5, return_sequences=True)(x, initial_state=y))
    if stateful:
        with pytest.raises(ExportError, match=f"^{words}$"):
            derive(beside)
    else:
        start = derive(beside).start
        assert start is not None
        assert [t.shape for t in start.spec.inputs] == [(6,)]


def test_a_model_of_16_bits_is_told_that_its_step_is_not(tmp_path: Path) -> None:
    x = keras.Input((None, FEATURES))
    policy = keras.DTypePolicy("mixed_bfloat16")
    model = keras.Model(x, layers.LSTM(5, return_sequences=True, dtype=policy)(x))
    assert "layers compute in bfloat16; the step computes in float32" in derive(model).notes
    assert not derive(keras.Model(x, layers.LSTM(5, return_sequences=True)(x))).notes
