"""Files of Keras 2 mean what Keras 2 meant: written and judged by tf_keras, stepped as a bundle is."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tf_keras")
pytest.importorskip("tf2onnx")

import h5py
import keras
import tensorflow as tf
import tf_keras
from tf_keras import layers

from steprnn.export.check.functions import FunctionEngine
from steprnn.export.formats.frozen import freeze
from steprnn.export.keras2 import comparison
from steprnn.export.keras2 import files as keras2
from steprnn.export.source import open_source
from steprnn.export.step.derive import derive
from steprnn.runtime.errors import CheckpointError, ExportError
from steprnn.runtime.parity.reference import chain

FEATURES, TOKENS, STEPS = 4, 11, 9
Build = Callable[[], Any]
BUILDS: list[Build] = []
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def kept(build: Build) -> Build:
    """One more model that has a step."""
    BUILDS.append(build)
    return build


def signal(*stack: Any, batch: int | None = None) -> Any:
    return tf_keras.Sequential([layers.Input((None, FEATURES), batch_size=batch), *stack])


@kept
def hard_sigmoid_lstm() -> Any:
    return signal(layers.LSTM(5, recurrent_activation="hard_sigmoid", return_sequences=True), layers.Dense(3))


@kept
def hard_sigmoid_gru_before_reset() -> Any:
    gru = layers.GRU(5, recurrent_activation="hard_sigmoid", reset_after=False, return_sequences=True)
    return signal(gru, layers.Dense(3, activation="hard_sigmoid"), layers.Activation("hard_sigmoid"))


@kept
def cells_of_a_list() -> Any:
    cells = [layers.GRUCell(5, recurrent_activation="hard_sigmoid"), layers.LSTMCell(4)]
    return signal(layers.RNN(cells, return_sequences=True), layers.Dense(2))


@kept
def what_keras_3_does_not_take() -> Any:
    clip = tf_keras.constraints.MaxNorm(2)
    return signal(
        layers.SpatialDropout1D(0.2),
        layers.TimeDistributed(layers.Dense(6, kernel_constraint=clip, name="inner")),
        layers.LeakyReLU(alpha=0.1),
        layers.BatchNormalization(),
        layers.DepthwiseConv1D(1),
        layers.LSTM(5, kernel_regularizer="l2", implementation=1, return_sequences=True),
        layers.ELU(0.7),
        layers.PReLU(shared_axes=[1]),
    )


@kept
def normalised() -> Any:
    scale = layers.Normalization()
    scale.adapt(np.random.default_rng(1).normal(3.0, 2.0, (64, 10, FEATURES)))
    return signal(scale, layers.GRU(5, return_sequences=True))


@kept
def names_with_slashes() -> Any:
    x = layers.Input((None, FEATURES), name="in")
    y = layers.LSTM(5, return_sequences=True, name="block/lstm")(x)
    return tf_keras.Model(x, layers.Dense(3, name="block/out")(y))


@kept
def embedding_in_a_functional_model() -> Any:
    x = layers.Input((None,))
    y = layers.Embedding(TOKENS, 6, input_length=None)(x)
    return tf_keras.Model(x, layers.Dense(TOKENS)(layers.GRU(5, return_sequences=True)(y)))


@kept
def embedding_of_one_row() -> Any:
    return tf_keras.Sequential(
        [
            layers.Embedding(TOKENS, 6, batch_input_shape=[1, None]),
            layers.GRU(5, return_sequences=True, stateful=True, recurrent_activation="hard_sigmoid"),
            layers.Dense(TOKENS),
        ]
    )


@kept
def plain_operations() -> Any:
    x = layers.Input((None, FEATURES))
    y = layers.LSTM(6, return_sequences=True)(x)
    y = tf.concat([y * 2.0 - 1.0, 0.5 + tf.nn.relu(y)], axis=-1)
    y = tf.math.tanh(y)[:, :, 2:]
    return tf_keras.Model(x, layers.Dense(3)(1.0 - y))


@kept
def nested_models() -> Any:
    inner = tf_keras.Sequential(
        [layers.Input((None, 5)), layers.GRU(4, return_sequences=True), layers.Dense(5)]
    )
    x = layers.Input((None, FEATURES))
    y = layers.SimpleRNN(5, return_sequences=True)(x)
    return tf_keras.Model(x, layers.Add()([inner(y), y]))


@kept
def nested_functional_model() -> Any:
    i = layers.Input((None, FEATURES))
    inner = tf_keras.Model(i, layers.LSTM(5, return_sequences=True)(i))
    x = layers.Input((None, FEATURES))
    return tf_keras.Model(x, layers.Dense(2)(inner(x)))


@kept
def the_same_layer_twice() -> Any:
    x, shared = layers.Input((None, FEATURES)), layers.Dense(FEATURES, activation="hard_sigmoid")
    return tf_keras.Model(x, layers.LSTM(5, return_sequences=True)(shared(shared(x))))


@kept
def several_outputs() -> Any:
    x = layers.Input((None, FEATURES))
    y = layers.LSTM(5, return_sequences=True)(x)
    return tf_keras.Model(x, [layers.Dense(2, name="b")(y), layers.Dense(3, name="a")(y)])


def shaken(model: Any, seed: int = 0) -> Any:
    """No weight left at zero or one, so that nothing can be left out unnoticed."""
    generator = np.random.default_rng(seed)
    for variable in (v for v in model.weights if "int" not in v.dtype.name):
        value = variable.numpy() + 0.4 * generator.standard_normal(variable.shape)
        variable.assign(np.abs(value) + 0.1 if "variance" in variable.name else value)
    for layer in model.layers:
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()
    return model


def drawn(model: Any, rows: int) -> Any:
    generator = np.random.default_rng(1)
    if len(model.input_shape) == 2:
        return generator.integers(0, TOKENS, (rows, STEPS)).astype(np.int32)
    return generator.standard_normal((rows, STEPS, FEATURES)).astype(np.float32)


def stepped(model: keras.Model, x: Any) -> list[Any]:
    """The outputs of the frozen step, chained over `[rows, steps, ...]`."""
    step = derive(model)
    runner = FunctionEngine(freeze(step), step.spec).runner(len(x))
    results = chain(runner, {step.spec.inputs[0].name: np.moveaxis(x, 0, 1)})
    return [np.moveaxis(results[t.name], 0, 1) for t in step.spec.outputs]


@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_a_file_says_in_the_step_what_tf_keras_says(build: Build, suffix: str, tmp_path: Path) -> None:
    model = shaken(build())
    path = tmp_path / f"model.{suffix}"
    model.save(path)
    source = open_source(path)
    assert source.about["keras"] == tf_keras.__version__
    told = source.about["compared"]
    assert (told["tf_keras"], told["steps"]) == (tf_keras.__version__, 12)
    assert told["difference"] <= 1e-6
    rows = model.input_shape[0] or 2
    x = drawn(model, rows)
    model.reset_states()
    expected = model(x, training=False)
    for one, other in zip(tf.nest.flatten(expected), stepped(source.model, x), strict=True):
        np.testing.assert_allclose(other, np.asarray(one), rtol=0, atol=2e-6)


def test_sixteen_bits_are_a_policy_of_the_layers(tmp_path: Path) -> None:
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = shaken(signal(layers.LSTM(5, return_sequences=True), layers.Dense(3)))
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    for name in ("m.h5", "m.keras"):
        model.save(tmp_path / name)
        source = open_source(tmp_path / name)
        assert {layer.dtype_policy.name for layer in source.model.layers} == {"mixed_float16"}
        assert source.about["compared"]["difference"] < 5e-3


def test_initial_states_come_behind_the_sequence(tmp_path: Path) -> None:
    x, h, c = layers.Input((None, FEATURES)), layers.Input((5,)), layers.Input((5,))
    model = shaken(tf_keras.Model([x, h, c], layers.LSTM(5, return_sequences=True)(x, initial_state=[h, c])))
    for name in ("m.h5", "m.keras"):
        model.save(tmp_path / name)
        source = open_source(tmp_path / name)
        assert source.about["compared"]["difference"] <= 1e-6
        assert [t.name for t in derive(source.model).spec.states] == ["h", "c"]


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Change the configuration of every recurrent layer in a file."""

    def apply(config: dict[str, Any]) -> None:
        for entry in config["config"]["layers"]:
            if entry["class_name"] in ("LSTM", "GRU", "CuDNNLSTM", "CuDNNGRU"):
                change(entry)

    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            apply(config)
            file.attrs["model_config"] = json.dumps(config)
        return path
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    apply(config)
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_a_gru_that_does_not_say_resets_before(suffix: str, tmp_path: Path) -> None:
    """Keras before 2.2 had no `reset_after`; Keras 3's default is True."""
    model = shaken(signal(layers.GRU(5, reset_after=False, use_bias=False, return_sequences=True)))
    path = tmp_path / f"m.{suffix}"
    model.save(path)
    edited(path, lambda entry: entry["config"].pop("reset_after"))
    x = drawn(model, 2)
    opened = keras2.load(path, trust=False)
    assert opened.layers[0].reset_after is False
    np.testing.assert_allclose(stepped(opened, x)[0], np.asarray(model(x)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_time_before_the_batch_is_refused_by_name(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m.{suffix}"
    signal(layers.LSTM(5, return_sequences=True, name="first")).save(path)
    edited(path, lambda entry: entry["config"].update(time_major=True))
    with pytest.raises(
        ExportError, match=r"^layer 'first' \(LSTM\) has time before the batch \(time_major=True\)"
    ):
        open_source(path)


@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.parametrize("kind", ["Dropout", "GaussianNoise", "BatchNormalization"])
def test_a_call_that_is_always_training_is_refused_without_tf_keras_too(
    kind: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras 2 keeps training=True when it predicts, and Keras 3 forgets it: another model."""
    layer = (
        layers.BatchNormalization(name="odd") if kind[0] == "B" else getattr(layers, kind)(0.5, name="odd")
    )
    x = layers.Input((None, FEATURES))
    y = layer(x, training=True)
    path = tmp_path / f"m.{suffix}"
    tf_keras.Model(x, layers.LSTM(3, return_sequences=True)(y)).save(path)
    monkeypatch.setattr(comparison.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match=rf"^layer 'odd' \({kind}\) is called with training=True"):
        open_source(path)


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_an_option_that_would_be_lost_is_refused_by_name(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m.{suffix}"
    signal(layers.LSTM(5, return_sequences=True, name="first")).save(path)
    edited(path, lambda entry: entry["config"].update(forgetful=True))
    with pytest.raises(
        ExportError, match=r"^layer 'first' \(LSTM\) has forgetful=True, which Keras 3's does not"
    ):
        open_source(path)


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3)])
def test_the_layers_of_cudnn(kind: str, gates: int, tmp_path: Path) -> None:
    """Their kernels lie transposed gate by gate, with a bias for each of both products."""
    model = shaken(signal(getattr(layers, kind)(5, return_sequences=True, name="rnn")))
    path = tmp_path / "m.h5"
    model.save(path)
    edited(path, lambda entry: entry.update(class_name=f"CuDNN{kind}"))
    with h5py.File(path, "r+") as file:
        group = file["model_weights/rnn"]
        names = [n.decode() if isinstance(n, bytes) else n for n in group.attrs["weight_names"]]
        kernel, recurrent, bias = (np.asarray(group[name]) for name in names)
        turned = [k.T.reshape(k.shape) for k in np.hsplit(kernel, gates)]
        both = bias.ravel() if kind == "GRU" else np.concatenate([0.25 * bias, 0.75 * bias])
        for name, value in zip(
            names,
            (np.hstack(turned), np.hstack([r.T for r in np.hsplit(recurrent, gates)]), both),
            strict=True,
        ):
            del group[name]
            group[name] = value.astype(np.float32)
    x = drawn(model, 2)
    opened = keras2.load(path, trust=False)
    assert type(opened.layers[0]).__name__ == kind
    np.testing.assert_allclose(stepped(opened, x)[0], np.asarray(model(x)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_a_lambda_runs_where_it_is_trusted(suffix: str, tmp_path: Path) -> None:
    model = shaken(signal(layers.Lambda(lambda x: 2.0 * x), layers.GRU(5, return_sequences=True)))
    path = tmp_path / f"m.{suffix}"
    model.save(path)
    with pytest.raises(ExportError, match=r"holds Python code \(a Lambda layer\).*run again with --trust"):
        open_source(path)
    source = open_source(path, trust=True)
    x = drawn(model, 2)
    np.testing.assert_allclose(stepped(source.model, x)[0], np.asarray(model(x)), rtol=0, atol=1e-6)


def test_an_operation_that_does_more_than_compute_is_refused(tmp_path: Path) -> None:
    x = layers.Input((None, FEATURES))
    y = layers.LSTM(3, return_sequences=True)(x)
    path = tmp_path / "m.h5"
    tf_keras.Model(x, tf.debugging.check_numerics(y, "no")).save(path)
    with pytest.raises(
        ExportError, match=r"calls tf\.debugging\.check_numerics, which is no plain operation"
    ):
        open_source(path)


def test_what_is_misread_is_found_by_the_files_own_framework(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every such file was before: with Keras 3's hard_sigmoid."""
    path = tmp_path / "m.h5"
    shaken(hard_sigmoid_lstm()).save(path)
    monkeypatch.setitem(keras2.OWN, "keras2_hard_sigmoid", keras.activations.hard_sigmoid)
    with pytest.raises(
        CheckpointError, match=r"means another thing in Keras .* than in tf_keras .* largest value off"
    ):
        open_source(path)


def test_without_its_own_framework_a_file_is_read_and_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.h5"
    shaken(hard_sigmoid_lstm()).save(path)
    monkeypatch.setattr(comparison.importlib.util, "find_spec", lambda name: None)
    assert open_source(path).about["compared"] is None


def test_a_file_of_keras_1_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    hard_sigmoid_lstm().save(path)
    with h5py.File(path, "r+") as file:
        file.attrs["keras_version"] = b"1.2.2"
    with pytest.raises(
        CheckpointError, match=r"is of Keras 1\.2\.2; open it in Keras 2\.2\.4 and save it there"
    ):
        open_source(path)


def test_weights_alone_are_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    shaken(hard_sigmoid_lstm()).save_weights(path, save_format="h5")
    with pytest.raises(CheckpointError, match="holds weights alone, without the model; build it in Python"):
        open_source(path)


def begun_behind_a_mask() -> Any:
    x, h, c = tf_keras.Input((None,)), tf_keras.Input((6,)), tf_keras.Input((6,))
    embedded = layers.Embedding(1000, 4, mask_zero=True)(x)
    y = layers.LSTM(6, return_sequences=True)(embedded, initial_state=[h, c])
    return tf_keras.Model([x, h, c], layers.Dense(5)(y))


def joined_with_what_has_no_mask() -> Any:
    x, other = tf_keras.Input((None, 3)), tf_keras.Input((None, 2))
    y = layers.Concatenate()([layers.Masking(-1.0)(x), other])
    return tf_keras.Model([x, other], layers.LSTM(6, return_sequences=True)(y))


def scaled_behind_a_mask() -> Any:
    y = x = tf_keras.Input((None,))
    for layer in (layers.Embedding(1000, 4, mask_zero=True), layers.Rescaling(0.5), layers.GRU(6)):
        y = layer(y)
    return tf_keras.Model(x, y)


def joined_with_other_tokens() -> Any:
    both = [tf_keras.Input((None,)), tf_keras.Input((None,))]
    y = layers.Concatenate()([layers.Embedding(9, 4, mask_zero=True)(x) for x in both])
    return tf_keras.Model(both, layers.LSTM(6, return_sequences=True)(y))


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (begun_behind_a_mask, "(LSTM)"),
        (joined_with_what_has_no_mask, "(Concatenate)"),
        (joined_with_other_tokens, "(Concatenate)"),
        (scaled_behind_a_mask, "(Rescaling)"),
    ],
)
def test_a_mask_that_is_handed_on_in_another_way_is_refused(
    build: Build, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token of a thousand is rarely the one that masks: masked steps are planted."""
    shaken(build()).save(tmp_path / "model.h5")
    with pytest.raises(CheckpointError, match=r"means another thing in Keras 3\.\S+ than in tf_keras"):
        open_source(tmp_path / "model.h5")
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    monkeypatch.setattr(comparison.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="masks time steps before layer") as raised:
        open_source(tmp_path / "model.h5")
    assert named in str(raised.value)
    assert str(raised.value).endswith("pip install tf_keras to have it compared")


def masked_words() -> Any:
    y = x = tf_keras.Input((None,))
    masking = layers.Embedding(9, 4, mask_zero=True), layers.SpatialDropout1D(0.4)
    for layer in (*masking, layers.LSTM(6, return_sequences=True), layers.GRU(6)):
        y = layer(y)
    return tf_keras.Model(x, y)


def joined_with_what_the_same_tokens_mask() -> Any:
    x = tf_keras.Input((None,))
    both = [layers.Dropout(0.1)(layers.Embedding(9, size, mask_zero=True)(x)) for size in (4, 3)]
    return tf_keras.Model(x, layers.LSTM(6, return_sequences=True)(layers.Concatenate()(both)))


@pytest.mark.parametrize("build", [masked_words, joined_with_what_the_same_tokens_mask])
def test_a_mask_that_is_handed_on_in_the_same_way_is_read(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tf_keras says that it is the same, and where it is not installed nobody is sent to install it."""
    shaken(build()).save(tmp_path / "model.h5")
    assert " tf_keras " in open_source(tmp_path / "model.h5").how_it_was_read
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    monkeypatch.setattr(comparison.importlib.util, "find_spec", lambda name: None)
    assert "not compared" in open_source(tmp_path / "model.h5").how_it_was_read
