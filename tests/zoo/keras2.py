"""Files of Keras 2, written and judged by it: what they meant there is what their step has to say.

They are exported where tf_keras cannot be found, as it is for most people, but for those that are told to be
`beside`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers

from .case import OneHot, Signal, State, TimeMajor, Tokens, case

V = 13


def h5(model: Any, folder: Path) -> Path:
    """The model as Keras 2 has long written it."""
    path = folder / "model.h5"
    model.save(path)
    return path


def keras_v3(model: Any, folder: Path) -> Path:
    """The model as Keras 2.15 writes it, in the format that Keras 3 has taken over."""
    written, path = folder / "written.keras", folder / "model.keras"
    model.save(written)
    with zipfile.ZipFile(written) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(".json"):
                content = content.replace(b"tf_keras.src", b"keras.src").replace(b'"2.21.0"', b'"2.15.0"')
            new.writestr(name, content)
    return path


def changed(change: Callable[[dict[str, Any]], None]) -> Callable[[Any, Path], Path]:
    """A file whose layers' configs were changed, to what an older version would have written."""

    def save(model: Any, folder: Path) -> Path:
        path = h5(model, folder)
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            for layer in config["config"]["layers"]:
                change(layer)
            file.attrs["model_config"] = json.dumps(config)
        return path

    return save


def functional(features: int, body: Callable[[Any], Any], **options: Any) -> Any:
    """A functional model of one signal."""
    x = tf_keras.Input((None, features), **options)
    return tf_keras.Model(x, body(x))


@case(Signal(), save=h5)
def rnnoise_file() -> Any:
    """xiph/rnnoise, training/rnn_train.py, with a constraint that Keras has.

    Dense, three GRUs of Keras 2.2 that read each other, two Dense outputs.
    """
    return _rnnoise(tf_keras.constraints.MinMaxNorm(0.0, 0.499))


class WeightClip(tf_keras.constraints.Constraint):
    """Weights between two bounds."""

    def __call__(self, w: Any) -> Any:
        return tf.clip_by_value(w, -0.499, 0.499)

    def get_config(self) -> dict[str, Any]:
        return {"name": "WeightClip", "c": 0.499}


@case(Signal(), save=h5)
def rnnoise_file_with_its_constraint() -> Any:
    """xiph/rnnoise, training/rnn_train.py, its weights.hdf5.

    The same with a constraint of the maker's own.
    """
    return _rnnoise(WeightClip())


def _rnnoise(limit: Any) -> Any:
    limits = dict.fromkeys(("kernel_constraint", "bias_constraint"), limit)

    def gru(units: int, name: str, activation: str = "tanh") -> Any:
        return layers.GRU(
            units,
            activation=activation,
            recurrent_activation="sigmoid",
            return_sequences=True,
            reset_after=False,
            name=name,
            recurrent_constraint=limit,
            kernel_regularizer=tf_keras.regularizers.l2(1e-6),
            **limits,
        )

    x = tf_keras.Input((None, 10), name="main_input")
    dense = layers.Dense(5, activation="tanh", name="input_dense", **limits)(x)
    voice = gru(5, "vad_gru")(dense)
    noise = gru(6, "noise_gru", "relu")(layers.concatenate([dense, voice, x]))
    denoise = gru(8, "denoise_gru")(layers.concatenate([voice, noise, x]))
    gains = layers.Dense(6, activation="sigmoid", name="denoise_output", **limits)(denoise)
    return tf_keras.Model(
        x, [gains, layers.Dense(1, activation="sigmoid", name="vad_output", **limits)(voice)]
    )


@case(OneHot(), save=h5)
def lstm_of_keras_2_2() -> Any:
    """Keras 2.2 and before, whose LSTM was made with hard_sigmoid unless told otherwise;
    lstm_text_generation.

    LSTM with hard_sigmoid over windows of 40 one-hot characters, Dense softmax.
    """
    x = tf_keras.Input((40, V))
    return tf_keras.Model(
        x, layers.Dense(V, activation="softmax")(layers.LSTM(8, recurrent_activation="hard_sigmoid")(x))
    )


@case(Signal(), save=h5)
def gru_of_keras_2_2() -> Any:
    """Keras 2.2 and before; Deep Learning with Python 1, chapter 6.

    Two GRUs with hard_sigmoid that reset before, Dense.
    """

    def body(x: Any) -> Any:
        for _ in range(2):
            options = {"recurrent_activation": "hard_sigmoid", "reset_after": False}
            x = layers.GRU(7, return_sequences=True, dropout=0.1, recurrent_dropout=0.5, **options)(x)
        return layers.Dense(1)(x)

    return functional(5, body)


@case(
    Signal(),
    save=changed(lambda layer: layer["config"].pop("reset_after", None)),
)
def gru_of_keras_2_0() -> Any:
    """Keras 2.0, before reset_after was thought of.

    GRU with sigmoid and no reset_after in its config, Dense.
    """
    return functional(
        5, lambda x: layers.Dense(3)(layers.GRU(7, return_sequences=True, reset_after=False)(x))
    )


@case(Signal(), save=keras_v3)
def hard_sigmoid_in_a_keras_file() -> Any:
    """Keras 2.15 and its `.keras` format.

    LSTM with hard_sigmoid, Dense with hard_sigmoid.
    """

    def body(x: Any) -> Any:
        y = layers.LSTM(7, recurrent_activation="hard_sigmoid", return_sequences=True)(x)
        return layers.Dense(3, activation="hard_sigmoid")(y)

    return functional(5, body)


@case(Signal(), save=h5)
def hard_sigmoid_as_a_layer() -> Any:
    """Keras 2, gates that people build of Dense layers; MobileNetV3-like squeeze-and-excitation over time.

    LSTM multiplied by the hard_sigmoid of a Dense and of an Activation.
    """

    def body(x: Any) -> Any:
        y = layers.LSTM(6, return_sequences=True)(x)
        y = layers.Multiply()([y, layers.Dense(6, activation="hard_sigmoid")(x)])
        return layers.Multiply()([y, layers.Activation("hard_sigmoid")(layers.Dense(6)(x))])

    return functional(5, body)


@case(Signal(), save=h5)
def gru_reset_after_file() -> Any:
    """TensorFlow 2, whose GRU resets after; any model of its tutorials as a file.

    GRU, LeakyReLU, GRU, BatchNormalization, Dense.
    """

    def body(x: Any) -> Any:
        y = layers.LeakyReLU(alpha=0.2)(layers.GRU(7, return_sequences=True)(x))
        return layers.Dense(3)(layers.BatchNormalization()(layers.GRU(6, return_sequences=True)(y)))

    return functional(5, body)


@case(Tokens(V), save=h5)
def char_rnn_file() -> Any:
    """ekzhang/char-rnn-keras, as a file.

    Embedding with batch_input_shape, stateful LSTMs, Dropout, TimeDistributed Dense, softmax; one row of
    one step.
    """
    model = tf_keras.Sequential([layers.Embedding(V, 6, batch_input_shape=(1, 1))])
    for _ in range(2):
        model.add(layers.LSTM(6, return_sequences=True, stateful=True))
        model.add(layers.Dropout(0.2))
    model.add(layers.TimeDistributed(layers.Dense(V)))
    model.add(layers.Activation("softmax"))
    return model


@case(Tokens(V), save=h5)
def words_file() -> Any:
    """Keras 2 example, pretrained word embeddings before an LSTM.

    Embedding with input_length that masks, SpatialDropout1D, LSTM with dropout, Dense softmax.
    """
    return tf_keras.Sequential(
        [
            layers.Embedding(V, 6, input_length=20, mask_zero=True),
            layers.SpatialDropout1D(0.4),
            layers.LSTM(8, dropout=0.2, recurrent_dropout=0.2),
            layers.Dense(2, activation="softmax"),
        ]
    )


@case(Signal(), save=h5)
def prices_file() -> Any:
    """machinelearningmastery.com, Time series forecasting with the LSTM, as a file.

    Stateful LSTM with batch_input_shape=(1, 1, n), Dense.
    """
    return tf_keras.Sequential([layers.LSTM(6, batch_input_shape=(1, 1, 3), stateful=True), layers.Dense(1)])


@case(OneHot(), State(1), State(2), save=h5)
def decoder_file() -> Any:
    """Keras 2 example, lstm_seq2seq_restore: the decoder.

    LSTM whose states are inputs and outputs, Dense softmax.
    """
    x, h, c = tf_keras.Input((None, V)), tf_keras.Input((6,)), tf_keras.Input((6,))
    y, *after = layers.LSTM(6, return_sequences=True, return_state=True)(x, initial_state=[h, c])
    return tf_keras.Model([x, h, c], [layers.Dense(V, activation="softmax")(y), *after])


@case(Tokens(V), save=h5, refused="reads the sequence from both ends")
def bidirectional_file() -> Any:
    """Keras 2 example, imdb_bidirectional_lstm.

    Embedding, Bidirectional LSTM, Dropout, Dense sigmoid.
    """
    return tf_keras.Sequential(
        [
            layers.Embedding(V, 6, input_length=20),
            layers.Bidirectional(layers.LSTM(5)),
            layers.Dropout(0.5),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def cudnn(model: Any, folder: Path) -> Path:
    """A file of the model whose recurrent layer is a CuDNN one, with its weights in CuDNN's layout."""
    path = h5(model, folder)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        layer = next(c for c in config["config"]["layers"] if c["class_name"] in ("LSTM", "GRU"))
        gates = {"LSTM": 4, "GRU": 3}[layer["class_name"]]
        layer["class_name"] = f"CuDNN{layer['class_name']}"
        left_out = {
            "unroll",
            "time_major",
            "activation",
            "recurrent_activation",
            "use_bias",
            "implementation",
        }
        left_out |= {"dropout", "recurrent_dropout", "reset_after"}
        layer["config"] = {k: v for k, v in layer["config"].items() if k not in left_out}
        file.attrs["model_config"] = json.dumps(config)
        names: list[str] = []
        file["model_weights"].visit(lambda n: names.append(n) if layer["name"] in n.split("/")[0] else None)
        for name in (f"model_weights/{n}" for n in names if n.endswith(":0")):
            value = file[name][...]
            if "bias" in name:  # one for each product, of which an LSTM sees the sum
                value = np.concatenate([0.25 * value, 0.75 * value]) if gates == 4 else value.reshape(-1)
            else:
                kernels = np.split(value, gates, axis=1)
                transposed = [k.T if "recurrent" in name else k.T.reshape(k.shape) for k in kernels]
                value = np.concatenate(transposed, axis=1)
            del file[name]
            file[name] = value
    return path


@case(Tokens(V), save=cudnn, beside=True)
def cudnn_lstm_file() -> Any:
    """Keras 2.0.9 to TensorFlow 2, CuDNNLSTM: the text generators that were trained on a GPU.

    Embedding, CuDNNLSTM, Dense softmax; its weights in CuDNN's layout.
    """
    x = tf_keras.Input((None,))
    y = layers.LSTM(7, return_sequences=True, name="cu_dnnlstm_1")(layers.Embedding(V, 5)(x))
    return tf_keras.Model(x, layers.Dense(V, activation="softmax")(y))


@case(Signal(), save=cudnn, beside=True)
def cudnn_gru_file() -> Any:
    """Keras 2.0.9 to TensorFlow 2, CuDNNGRU: LPCNet and medaka as they were trained.

    CuDNNGRU, Dense; its weights in CuDNN's layout.
    """
    return functional(
        5,
        lambda x: layers.Dense(3)(
            layers.GRU(7, return_sequences=True, reset_after=True, name="cu_dnngru_1")(x)
        ),
    )


@case(TimeMajor(), save=h5, refused="has time before the batch (time_major=True)")
def time_major_file() -> Any:
    """Dive into Deep Learning, Concise implementation of RNNs: time before rows.

    SimpleRNN and LSTM with time_major over 20 steps, Dense.
    """
    x = tf_keras.Input(batch_shape=(20, None, 4))
    y = layers.SimpleRNN(6, return_sequences=True, time_major=True)(x)
    return tf_keras.Model(x, layers.Dense(3)(layers.LSTM(6, return_sequences=True, time_major=True)(y)))


@case(Signal(), save=h5, refused="tf.compat.v1.transpose, which is no plain operation")
def time_major_between_transpositions() -> Any:
    """Dive into Deep Learning, Sequence-to-sequence learning, its decoder: time first within the model alone.

    tf.transpose, LSTM with time_major, tf.transpose, Dense.
    """

    def body(x: Any) -> Any:
        y = layers.LSTM(6, return_sequences=True, time_major=True)(tf.transpose(x, (1, 0, 2)))
        return layers.Dense(3)(tf.transpose(y, (1, 0, 2)))

    return functional(4, body)


@case(Signal(), save=h5)
def operators_file() -> Any:
    """Keras 2.4 and later, which keeps operators of TensorFlow as layers (TFOpLambda, SlicingOpLambda).

    A slice of the features, a sum with itself, tf.nn.relu, LSTM, Dense.
    """

    def body(x: Any) -> Any:
        y = layers.LSTM(6, return_sequences=True)(tf.nn.relu(x[:, :, :3] + 0.1 * x[:, :, 2:]))
        return layers.Dense(3)(y) * 0.5

    return functional(5, body)


@case(Tokens(V), save=h5)
def one_hot_file() -> Any:
    """Deep Learning with Python 2, chapter 11: tf.one_hot in a functional model.

    tf.one_hot, LSTM, Dropout, Dense sigmoid.
    """
    x = tf_keras.Input((None,), dtype="int64")
    y = layers.Dropout(0.5)(layers.LSTM(7)(tf.one_hot(x, depth=V)))
    return tf_keras.Model(x, layers.Dense(1, activation="sigmoid")(y))


@case(Signal(), save=h5)
def names_with_slashes() -> Any:
    """TensorFlow 1 models brought over, whose layers are named like scopes.

    LSTM `encoder/lstm`, Dense `decoder/dense`.
    """

    def body(x: Any) -> Any:
        y = layers.LSTM(6, return_sequences=True, name="encoder/lstm")(x)
        return layers.Dense(3, name="decoder/dense")(y)

    return functional(5, body)


@case(Signal(), save=h5, tolerance=4e-3)  # Keras computes it in 16 bits, the step in 32
def mixed_precision_file() -> Any:
    """TensorFlow guide, Mixed precision, as a file.

    LSTM in the policy mixed_float16, Dense in float32.
    """
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        return functional(
            5, lambda x: layers.Dense(3, dtype="float32")(layers.LSTM(7, return_sequences=True)(x))
        )
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")


@case(Signal(), save=h5)
def deep_speech_file() -> Any:
    """Mozilla's DeepSpeech in Keras 2: clipping by ReLU(max_value).

    TimeDistributed Dense, ReLU of at most 20, LSTM, TimeDistributed Dropout, Dense, Softmax.
    """

    def body(x: Any) -> Any:
        y = layers.ReLU(max_value=20)(layers.TimeDistributed(layers.Dense(7))(x))
        y = layers.TimeDistributed(layers.Dropout(0.1))(
            layers.LSTM(6, return_sequences=True, implementation=1)(y)
        )
        return layers.Softmax()(layers.Dense(5)(y))

    return functional(5, body)


@case(Signal(), save=h5)
def cells_file() -> Any:
    """Dive into Deep Learning, Deep recurrent neural networks, as a file.

    An RNN of a list of GRUCells and LSTMCells, Dense.
    """

    def body(x: Any) -> Any:
        y = layers.RNN([layers.GRUCell(6), layers.LSTMCell(5)], return_sequences=True)(x)
        return layers.Dense(3)(y)

    return functional(4, body)


@case(Signal(masked=0.0), save=h5)
def masked_file() -> Any:
    """Keras 2 documentation of Masking.

    Masking, LSTM, GRU, TimeDistributed Dense.
    """

    def body(x: Any) -> Any:
        y = layers.LSTM(6, return_sequences=True)(layers.Masking(0.0)(x))
        return layers.TimeDistributed(layers.Dense(3))(layers.GRU(5, return_sequences=True)(y))

    return functional(4, body)


@case(Signal(), save=keras_v3)
def wavenet_file() -> Any:
    """Keras 2.15 and its `.keras` format, of the WaveNet of Hands-On Machine Learning 2.

    Causal dilated Conv1Ds, residuals, Dense softmax.
    """

    def body(x: Any) -> Any:
        for dilation in (1, 2, 4):
            y = layers.Conv1D(5, 2, padding="causal", dilation_rate=dilation, activation="relu")(x)
            x = layers.Add()([x, y])
        return layers.Dense(4, activation="softmax")(x)

    return functional(5, body)


@case(Signal(), save=h5, trust=True)
def lambda_file() -> Any:
    """Keras 2, the many files with a Lambda.

    A Lambda that scales, LSTM, a Lambda that multiplies, Dense.
    """

    def body(x: Any) -> Any:
        y = layers.LSTM(6, return_sequences=True)(layers.Lambda(lambda t: t * 0.5)(x))
        return layers.Dense(3)(layers.Lambda(lambda t: t * 2.0)(y))

    return functional(4, body)


@case(Signal(), save=h5)
def statefully_unrolled_file() -> Any:
    """TensorFlow Lite's guide before 2.2, which wanted RNNs unrolled.

    Unrolled LSTM and unrolled GRU over windows of 10, Dense softmax.
    """
    x = tf_keras.Input((10, 4))
    y = layers.LSTM(6, unroll=True, return_sequences=True)(x)
    return tf_keras.Model(x, layers.Dense(3, activation="softmax")(layers.GRU(5, unroll=True)(y)))


@case(Signal(mean=3.0), save=h5)
def normalised_file() -> Any:
    """TensorFlow tutorials of regression and of time series, whose first layer is Normalization, adapted.

    Normalization, GRU, Dense.
    """
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(1).normal(3.0, 2.0, (64, 10, 4)))
    x = tf_keras.Input((None, 4))
    return tf_keras.Model(x, layers.Dense(1)(layers.GRU(6, return_sequences=True)(normalization(x))))


@case(
    Signal(),
    save=h5,
    refused="so it has no step",
)
def prenet_file() -> Any:
    """Shen et al. 2018, Tacotron 2: the prenet, as a file; dropout at inference, as Monte Carlo dropout has
    it too.

    Dense with a Dropout that is called with training=True, which Keras 2 keeps in predict; LSTM, Dense.
    """

    def body(x: Any) -> Any:
        y = layers.Dropout(0.5)(layers.Dense(6, activation="relu")(x), training=True)
        return layers.Dense(4)(layers.LSTM(7, return_sequences=True)(y))

    return functional(5, body)


@case(Tokens(V), save=h5)
def two_embeddings_file() -> Any:
    """Keras 2 models of words and their parts of speech, of items and their kinds: two Embeddings that mask.

    Two Embeddings of one input, Concatenate of them with their masks, LSTM, Dense softmax.
    """
    x = tf_keras.Input((None,), dtype="int32")
    both = [layers.Embedding(V, size, mask_zero=True)(x) for size in (4, 3)]
    y = layers.LSTM(7, return_sequences=True)(layers.Concatenate()(both))
    return tf_keras.Model(x, layers.Dense(V, activation="softmax")(y))


@case(
    Signal(),
    save=h5,
    refused="so it has no step",
)
def monte_carlo_file() -> Any:
    """Gal and Ghahramani 2016, dropout as Bayesian inference: forecasts with a spread.

    LSTM whose own dropout is on by training=True, Dense.
    """
    return functional(
        4, lambda x: layers.Dense(2)(layers.LSTM(7, return_sequences=True, dropout=0.3)(x, training=True))
    )
