"""Where a model comes from: files of Keras 3 and 2, a checkpoint, memory; and what is said of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tf2onnx")

import h5py
import keras
from keras import layers, ops

from steprnn.export import export
from steprnn.runtime import Vocabulary, cli, load
from steprnn.runtime.errors import CheckpointError, ExportError

from .models import FEATURES, TOKENS, sequence, shaken

QUICK: dict[str, Any] = {"formats": ("onnx",), "variants": ("float32",), "chained_steps": 157}
X = np.random.default_rng(0).standard_normal((3, 20, FEATURES)).astype(np.float32)
IDS = np.random.default_rng(0).integers(0, TOKENS, (4, 20), np.int32)


@pytest.fixture(autouse=True)
def _names_begin_anew() -> None:
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


def chained(bundle: Path, inputs: Any) -> Any:
    session = load(bundle, engine="onnx").session(batch=len(inputs))
    return np.stack([session.step(inputs[:, t]) for t in range(inputs.shape[1])], axis=1)


def small() -> keras.Model:
    return shaken(
        sequence(
            layers.Conv1D(4, 2, padding="causal", name="conv"),
            layers.LSTM(5, return_sequences=True, name="lstm"),
            layers.Dense(3, activation="softmax"),
        )
    )


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "memory"])
def test_keras_3(name: str, tmp_path: Path) -> None:
    model = small()
    if name != "memory":
        model.save(tmp_path / name)
    manifest = export(model if name == "memory" else str(tmp_path / name), tmp_path / "b", **QUICK)
    assert manifest.about.get("source") == (None if name == "memory" else name)
    assert [t.name for t in manifest.step.states] == ["conv_past", "lstm_h", "lstm_c"]
    np.testing.assert_allclose(chained(tmp_path / "b", X), model(X), rtol=0, atol=1e-5)


def test_a_compiled_model_with_an_optimizer(tmp_path: Path) -> None:
    model = sequence(layers.GRU(4, return_sequences=True), layers.Dense(2))
    model.compile("adam", "mse")
    model.fit(X, np.zeros((3, 20, 2)), verbose=0)
    model.save(tmp_path / "model.keras")
    export(tmp_path / "model.keras", tmp_path / "b", **QUICK)
    np.testing.assert_allclose(chained(tmp_path / "b", X), model(X), rtol=0, atol=1e-5)


def test_a_checkpoint_folder_brings_its_vocabulary(checkpoint: Path, tmp_path: Path) -> None:
    manifest = export(checkpoint, tmp_path / "b", **QUICK)
    assert manifest.about["source"] == checkpoint.name
    assert load(tmp_path / "b").vocabulary == Vocabulary.read(checkpoint / "vocabulary.json")


# Files of Keras 2, written by Keras 2.

LEGACY = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")


@LEGACY
def test_keras_2_sequential(tmp_path: Path) -> None:
    """Stateful, of a fixed batch, masked: `time_major` and `batch_input_shape` are in the file."""
    k2 = pytest.importorskip("tf_keras", reason="tf_keras, which is Keras 2, is not installed")
    model = k2.Sequential(
        [
            k2.layers.Embedding(TOKENS, 4, mask_zero=True, batch_input_shape=(4, None)),
            k2.layers.LSTM(5, return_sequences=True, stateful=True),
            k2.layers.GRU(4, return_sequences=True, reset_after=True),
            k2.layers.TimeDistributed(k2.layers.Dense(TOKENS)),
        ]
    )
    for weight in model.weights:
        weight.assign_add(np.random.default_rng(1).standard_normal(weight.shape) * 0.2)
    model.reset_states()
    expected = model.predict(IDS, verbose=0)
    model.save(str(tmp_path / "model.h5"))
    assert b"time_major" in (tmp_path / "model.h5").read_bytes()
    manifest = export(tmp_path / "model.h5", tmp_path / "b", **QUICK)
    assert [t.name for t in manifest.step.states] == ["lstm_h", "lstm_c", "gru_h"]
    assert (IDS == 0).any(), "nothing was masked"
    np.testing.assert_allclose(chained(tmp_path / "b", IDS), expected, rtol=0, atol=1e-5)


@LEGACY
def test_keras_2_functional(tmp_path: Path) -> None:
    k2 = pytest.importorskip("tf_keras", reason="tf_keras, which is Keras 2, is not installed")
    i = k2.Input((None, FEATURES))
    x = k2.layers.add([k2.layers.LSTM(FEATURES, return_sequences=True, name="lstm")(i), i])
    x = k2.layers.Conv1D(3, 2, padding="causal", dilation_rate=2, name="conv")(x)
    cells = [k2.layers.LSTMCell(3), k2.layers.GRUCell(4)]
    x = k2.layers.RNN(cells, return_sequences=True, name="rnn")(x)
    model = k2.Model(i, k2.layers.Dense(2, activation="softmax")(x))
    for weight in model.weights:
        weight.assign_add(np.random.default_rng(1).standard_normal(weight.shape) * 0.2)
    model.compile("adam", "mse")
    model.save(str(tmp_path / "model.h5"))
    manifest = export(tmp_path / "model.h5", tmp_path / "b", **QUICK)
    names = [t.name for t in manifest.step.states]
    assert names == ["lstm_h", "lstm_c", "conv_past", "rnn_cell_0_h", "rnn_cell_0_c", "rnn_cell_1_h"]
    expected = model.predict(X, verbose=0)
    np.testing.assert_allclose(chained(tmp_path / "b", X), expected, rtol=0, atol=1e-5)


# Files that bring Python code, and files that are none.


def double(x: Any) -> Any:
    return x * 2


def test_a_lambda_is_run_from_a_file_on_request_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = sequence(layers.Lambda(lambda x: x * 2), layers.LSTM(4, return_sequences=True))
    path, out = tmp_path / "model.keras", tmp_path / "b"
    model.save(path)
    with pytest.raises(ExportError) as raised:
        export(path, out)
    assert str(raised.value) == (
        f"{path} holds Python code (a Lambda layer), which is not run from a file; "
        "if you trust whoever made it, run again with --trust"
    )
    assert not out.exists()
    flags = ["--formats", "onnx", "--quantize", "none"]
    assert cli.main(["export", str(path), "--out", str(out), *flags]) == 1
    assert "run again with --trust" in capfd.readouterr().err
    assert cli.main(["export", str(path), "--out", str(out), *flags, "--trust"]) == 0
    np.testing.assert_allclose(chained(out, X), model(X), rtol=0, atol=1e-5)


def test_a_lambda_in_memory_is_a_layer_like_any_other(tmp_path: Path) -> None:
    model = sequence(layers.Lambda(double), layers.LSTM(4, return_sequences=True))
    export(model, tmp_path / "b", **QUICK)
    np.testing.assert_allclose(chained(tmp_path / "b", X), model(X), rtol=0, atol=1e-5)


def said(path: Path, out: Path) -> str:
    with pytest.raises(CheckpointError) as raised:
        export(path, out)
    assert not out.exists()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_an_h5_of_weights_alone(tmp_path: Path) -> None:
    small().save_weights(tmp_path / "model.weights.h5")
    assert said(tmp_path / "model.weights.h5", tmp_path / "b").endswith(
        "holds weights alone, without the model; build it in Python, load_weights() into it and call "
        "steprnn.export.export(model, out)"
    )


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_class_that_is_not_known(name: str, tmp_path: Path) -> None:
    class Mine(layers.Layer):
        def call(self, x: Any) -> Any:
            return ops.tanh(x)

    path = tmp_path / name
    sequence(Mine(), layers.LSTM(4)).save(path)
    assert said(path, tmp_path / "b") == (
        f"{path} needs the class 'Mine', which this program does not have; "
        "build the model in Python and call steprnn.export.export(model, out)"
    )


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_damaged_file(name: str, tmp_path: Path) -> None:
    small().save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    words = said(tmp_path / name, tmp_path / "b")
    assert words.startswith(f"Keras {keras.__version__} cannot open {tmp_path / name}: ")


def test_an_h5_without_a_model(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = np.zeros(3)
    assert "holds weights alone, without the model" in said(tmp_path / "data.h5", tmp_path / "b")


def test_nothing_there(tmp_path: Path) -> None:
    assert said(tmp_path / "no.keras", tmp_path / "b") == (
        f"{tmp_path / 'no.keras'} does not exist; expected a checkpoint folder, a .keras or an .h5 file"
    )
