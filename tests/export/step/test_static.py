"""Inputs that do not change over the sequence, and windows whose axis of time is told by a layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tf2onnx")

import keras
from keras import layers, ops

from steprnn.export import export
from steprnn.export.check.proofs import prove
from steprnn.export.step.derive import derive
from steprnn.runtime import ExportError, UsageError, load
from steprnn.runtime.bundle.manifest import Manifest

from ..models import QUICK, shaken

STEPS, FEATURES, TOKENS = 12, 4, 11


def late() -> keras.Model:
    """A conditioning vector beside the last state."""
    x, cond = keras.Input((None, FEATURES), name="x"), keras.Input((6,), name="cond")
    y = layers.Concatenate()([layers.LSTM(5)(x), layers.Dense(3, "relu")(cond)])
    return keras.Model([x, cond], layers.Dense(2)(y))


def repeated() -> keras.Model:
    """One that is repeated along the sequence, as image captioning and text to speech have it."""
    x, cond = keras.Input((STEPS,), dtype="int32", name="x"), keras.Input((6,), name="cond")
    z = layers.RepeatVector(STEPS)(layers.Dense(3)(cond))
    y = layers.Concatenate()([layers.Embedding(TOKENS, 4)(x), z])
    return keras.Model([x, cond], layers.Dense(TOKENS)(layers.GRU(5, return_sequences=True)(y)))


@pytest.mark.parametrize("build", [late, repeated], ids=lambda build: build.__name__)
@pytest.mark.parametrize("engine", ["onnx", "litert"])
def test_a_static_input_is_given_once(build: Any, engine: str, tmp_path: Path) -> None:
    model = shaken(build())
    manifest = export(model, tmp_path / "b", **QUICK)
    assert [(t.name, t.static) for t in manifest.step.inputs] == [("x", False), ("cond", True)]
    assert Manifest.read(tmp_path / "b").step == manifest.step
    generator = np.random.default_rng(0)
    cond = generator.standard_normal((3, 6)).astype(np.float32)
    x = (
        generator.integers(0, TOKENS, (3, STEPS)).astype(np.int32)
        if build is repeated
        else generator.standard_normal((3, STEPS, FEATURES)).astype(np.float32)
    )
    session = load(tmp_path / "b", engine=engine).session(batch=3, static={"cond": cond})
    twin, block = session.fork(), session.fork()
    got = [session.step(x[:, t]) for t in range(STEPS)]
    np.testing.assert_array_equal(block.run(np.swapaxes(x, 0, 1)), np.stack(got))
    expected = np.asarray(model([x, cond]))
    if build is repeated:
        np.testing.assert_allclose(np.stack(got, 1), expected, rtol=0, atol=2e-6)
    else:
        np.testing.assert_allclose(got[-1], expected, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(twin.step(x[:, 0]), got[0])


def test_a_session_without_its_static_input_is_refused(tmp_path: Path) -> None:
    export(shaken(late()), tmp_path / "b", formats=("onnx",), **QUICK)
    model = load(tmp_path / "b")
    with pytest.raises(
        UsageError, match=r"^got inputs \[\], expected \['cond'\]; give session\(static=\{...\}\) cond$"
    ):
        model.session()
    with pytest.raises(UsageError, match=r"'cond' has shape \(5,\), expected \(1, 6\)"):
        model.session(static={"cond": np.zeros(5)})
    session = model.session(static={"cond": np.zeros(6)})
    with pytest.raises(UsageError, match=r"^got inputs \['cond', 'x'\], expected \['x'\]$"):
        session.step({"x": np.zeros((1, FEATURES)), "cond": np.zeros((1, 6))})


@pytest.mark.parametrize("first", [True, False])
def test_one_number_a_row_beside_a_sequence_is_no_sequence_of_one(first: bool) -> None:
    """Whichever comes first; else the model would be one of a single step, of which nothing is read."""
    x, gain = keras.Input((None, FEATURES), name="x"), keras.Input((1,), name="gain")
    y = layers.LSTM(5, return_sequences=True)(layers.Multiply()([x, layers.Reshape((1, 1))(gain)]))
    model = keras.Model([gain, x] if first else [x, gain], layers.Dense(2)(y))
    step = derive(shaken(model))
    assert {t.name: t.static for t in step.spec.inputs} == {"gain": True, "x": False}
    proofs = prove(step)
    assert proofs is not None
    assert proofs.steps == 256
    centred = y - ops.mean(y, axis=1, keepdims=True)
    with pytest.raises(ExportError, match="reads other time steps"):
        derive(keras.Model([gain, x] if first else [x, gain], layers.Dense(2)(centred)))


def rows_of_an_image() -> keras.Model:
    """784 pixels, one after the other, as the sequential MNIST has them."""
    x = keras.Input((STEPS,), name="pixels")
    return keras.Model(x, layers.Dense(3)(layers.GRU(5)(layers.Reshape((STEPS, 1))(x))))


def expanded() -> keras.Model:
    x = keras.Input((STEPS,))
    return keras.Model(x, layers.Dense(3)(layers.LSTM(5, return_sequences=True)(ops.expand_dims(x, -1))))


def cast() -> keras.Model:
    x = keras.Input((STEPS,), dtype="float32")
    y = layers.Embedding(TOKENS, 4)(ops.cast(x, "int32"))
    return keras.Model(x, layers.Dense(TOKENS)(layers.GRU(5, return_sequences=True)(y)))


@pytest.mark.parametrize("build", [rows_of_an_image, expanded, cast], ids=lambda build: build.__name__)
def test_a_window_of_numbers_is_a_sequence(build: Any, tmp_path: Path) -> None:
    model = shaken(build())
    manifest = export(model, tmp_path / "b", **QUICK)
    (x,) = manifest.step.inputs
    assert (x.shape, x.static, x.tokens) == ((), False, TOKENS if build is cast else None)
    generator = np.random.default_rng(0)
    window = (
        generator.integers(0, TOKENS, (3, STEPS)) if build is cast else generator.standard_normal((3, STEPS))
    )
    window = window.astype(x.dtype)
    session = load(tmp_path / "b").session(batch=3)
    got = [session.step(window[:, t]) for t in range(STEPS)]
    expected = np.asarray(model(window.astype(np.float32)))
    np.testing.assert_allclose(
        np.stack(got, 1) if expected.ndim == 3 else got[-1], expected, rtol=0, atol=2e-6
    )


def test_what_is_repeated_must_be_the_same_at_every_step() -> None:
    """An autoencoder repeats the last state, which is known at the end alone."""
    x = keras.Input((STEPS, FEATURES))
    y = layers.RepeatVector(STEPS, name="again")(layers.LSTM(5)(x))
    with pytest.raises(ExportError, match=r"^layer 'again' \(RepeatVector\) makes a sequence"):
        derive(keras.Model(x, layers.LSTM(4, return_sequences=True)(y)))


def test_a_model_without_a_sequence_has_no_step() -> None:
    cond = keras.Input((6,))
    y = layers.LSTM(5, return_sequences=True)(layers.RepeatVector(STEPS)(cond))
    with pytest.raises(ExportError, match="has no input with a time axis; a step reads one at every"):
        derive(keras.Model(cond, y))
