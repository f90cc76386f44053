"""Models that act: policies, world models, and video they look at."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from .case import Flags, OneHot, Signal, State, Static, Tokens, case


@case(
    Signal(),
    Static(count=8),
    State(2),
    State(3),
    refused="so it has no step",
)
def rllib_lstm() -> keras.Model:
    """ray-project/ray, RLlib's custom recurrent model.

    Dense, LSTM masked by the length of each sequence, its states inputs and outputs; logits and values.
    """

    class UpTo(layers.Layer):
        def call(self, length: Any, x: Any) -> Any:
            return ops.arange(ops.shape(x)[1]) < length[:, None]

        def compute_output_spec(self, length: Any, x: Any) -> Any:
            return keras.KerasTensor(x.shape[:2], "bool")

    x, length = keras.Input((None, 5), name="inputs"), keras.Input((), dtype="int32", name="seq_in")
    h, c = keras.Input((6,), name="h"), keras.Input((6,), name="c")
    y = layers.Dense(7, activation="relu", name="dense1")(x)
    lstm = layers.LSTM(6, return_sequences=True, return_state=True, name="lstm")
    y, *after = lstm(y, mask=UpTo(name="up_to")(length, x), initial_state=[h, c])
    logits, values = layers.Dense(4, name="logits")(y), layers.Dense(1, name="values")(y)
    return keras.Model([x, length, h, c], [logits, values, *after])


@case(Signal())
def mdn_rnn_as_trained() -> keras.Model:
    """Ha and Schmidhuber 2018, World Models; AppliedDataSciencePartners/WorldModels.

    LSTM over latent, action and reward, Dense of the parameters of a mixture.
    """
    x = keras.Input((None, 6))
    y, _, _ = layers.LSTM(8, return_sequences=True, return_state=True)(x)
    return keras.Model(x, layers.Dense(3 * 3 * 4 + 1)(y))


@case(Signal(), State(1), State(2))
def mdn_rnn_that_dreams() -> keras.Model:
    """Ha and Schmidhuber 2018, World Models; AppliedDataSciencePartners/WorldModels.

    The same with its states as inputs and outputs.
    """
    x, h, c = keras.Input((None, 6)), keras.Input((8,)), keras.Input((8,))
    y, *after = layers.LSTM(8, return_sequences=True, return_state=True)(x, initial_state=[h, c])
    return keras.Model([x, h, c], [layers.Dense(3 * 3 * 4 + 1)(y), *after])


@case(Signal())
def drqn() -> keras.Model:
    """Hausknecht and Stone 2015, Deep recurrent Q-learning.

    TimeDistributed Conv2Ds and Flatten over frames, LSTM, Dense.
    """
    x = keras.Input((None, 16, 16, 1))
    y = layers.TimeDistributed(layers.Conv2D(3, 4, strides=2, activation="relu"))(x)
    y = layers.TimeDistributed(layers.Conv2D(4, 3, strides=2, activation="relu"))(y)
    y = layers.LSTM(8, return_sequences=True)(layers.TimeDistributed(layers.Flatten())(y))
    return keras.Model(x, layers.Dense(4)(y))


@case(Signal(), Tokens(4), Signal())
def r2d2() -> keras.Model:
    """Kapturowski et al. 2019, R2D2: recurrent replay, its network.

    Observation, last action one-hot and last reward concatenated, LSTM, a dueling head of value and
    advantage.
    """
    x, action = keras.Input((None, 5), name="observation"), keras.Input((None,), dtype="int32", name="action")
    reward = keras.Input((None, 1), name="reward")
    y = layers.Concatenate()([layers.Dense(6, activation="relu")(x), ops.one_hot(action, 4), reward])
    y = layers.LSTM(8, return_sequences=True)(y)
    value = layers.Dense(1)(layers.Dense(6, activation="relu")(y))
    advantage = layers.Dense(4)(layers.Dense(6, activation="relu")(y))
    return keras.Model([x, action, reward], value + advantage - ops.mean(advantage, axis=-1, keepdims=True))


@case(Signal())
def actor_critic() -> keras.Model:
    """Schulman et al. 2017, PPO with a recurrent policy.

    Dense tanh, GRU, a mean in bounds, a deviation that does not depend on the input, a value.
    """

    class Deviation(layers.Layer):
        def build(self, shape: Any) -> None:
            self.log = self.add_weight(shape=(shape[-1],), name="log")

        def call(self, mean: Any) -> Any:
            return ops.concatenate([mean, ops.zeros_like(mean) + ops.exp(self.log)], axis=-1)

    x = keras.Input((None, 6))
    y = layers.GRU(8, return_sequences=True)(layers.Dense(7, activation="tanh")(x))
    policy = Deviation(name="policy")(layers.Dense(2, activation="tanh")(y))
    return keras.Model(x, [policy, layers.Dense(1, name="value")(y)])


@case(Signal(), Flags())
def video_classification() -> keras.Model:
    """Keras example, Video classification with a CNN-RNN architecture.

    Features of frames and a mask of truth values, GRU with this mask, GRU, Dropout, Dense softmax.
    """
    x, mask = keras.Input((20, 10), name="features"), keras.Input((20,), dtype="bool", name="mask")
    y = layers.GRU(6)(layers.GRU(8, return_sequences=True)(x, mask=mask))
    y = layers.Dense(6, activation="relu")(layers.Dropout(0.4)(y))
    return keras.Model([x, mask], layers.Dense(5, activation="softmax")(y))


@case(Signal(), Flags())
def video_of_any_length() -> keras.Model:
    """Keras example, Video classification with a CNN-RNN architecture.

    The same over sequences of any length.
    """
    x, mask = keras.Input((None, 10), name="features"), keras.Input((None,), dtype="bool", name="mask")
    y = layers.GRU(6)(layers.GRU(8, return_sequences=True)(x, mask=mask))
    return keras.Model([x, mask], layers.Dense(5, activation="softmax")(y))


@case(Signal())
def captcha_in_columns() -> keras.Model:
    """Keras example, OCR model for reading Captchas, read in columns by forward LSTMs.

    TimeDistributed Conv1Ds of each column, Reshape, Dense, LSTMs, Dense softmax.
    """
    x = keras.Input((None, 12, 1), name="image")
    y = layers.TimeDistributed(layers.Conv1D(4, 3, activation="relu", padding="same"))(x)
    y = layers.Dense(8, activation="relu")(layers.Reshape((-1, 48))(y))
    y = layers.LSTM(7, return_sequences=True, dropout=0.25)(y)
    return keras.Model(x, layers.Dense(6, activation="softmax")(layers.LSTM(6, return_sequences=True)(y)))


@case(Signal(), refused="so it has no step")
def captcha() -> keras.Model:
    """Keras example, OCR model for reading Captchas.

    Conv2Ds and MaxPooling2Ds over the image, Reshape to columns, Bidirectional LSTMs, Dense softmax.
    """
    x = keras.Input((24, 12, 1), name="image")
    y = layers.MaxPooling2D(2)(layers.Conv2D(4, 3, activation="relu", padding="same")(x))
    y = layers.MaxPooling2D(2)(layers.Conv2D(5, 3, activation="relu", padding="same")(y))
    y = layers.Dense(8, activation="relu")(layers.Reshape((6, 15))(y))
    y = layers.Bidirectional(layers.LSTM(6, return_sequences=True, dropout=0.25))(y)
    return keras.Model(x, layers.Dense(6, activation="softmax")(y))


@case(Signal(), OneHot())
def robot_arm() -> keras.Model:
    """Levine-style recurrent controllers; the LSTM policies of robomimic.

    Joint angles and a one-hot task a step, Dense, two LSTMs of cells, a mixture of means, deviations and
    weights.
    """
    x, task = keras.Input((None, 7), name="joints"), keras.Input((None, 3), name="task")
    y = layers.Dense(8, activation="relu")(layers.Concatenate()([x, task]))
    y = layers.RNN([layers.LSTMCell(7), layers.LSTMCell(7)], return_sequences=True)(y)
    means = layers.Dense(6, name="means")(y)
    deviations = layers.Dense(6, activation="softplus", name="deviations")(y)
    return keras.Model(
        [x, task], [means, deviations, layers.Dense(3, activation="softmax", name="weights")(y)]
    )
