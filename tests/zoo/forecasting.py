"""Models of measurements: weather, prices, load, sensors, heartbeats."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from .case import Flat, Signal, State, case


@case(Signal())
def weather() -> keras.Model:
    """Keras example, Timeseries forecasting for weather prediction.

    LSTM over windows of 120 hours of 7 measurements, Dense.
    """
    x = keras.Input((120, 7))
    return keras.Model(x, layers.Dense(1)(layers.LSTM(8)(x)))


@case(Signal())
def weather_stacked() -> keras.Model:
    """Deep Learning with Python 2, chapter 10.

    Two GRUs with recurrent dropout over windows, Dropout, Dense.
    """
    x = keras.Input((120, 5))
    y = layers.GRU(7, recurrent_dropout=0.5)(layers.GRU(7, recurrent_dropout=0.5, return_sequences=True)(x))
    return keras.Model(x, layers.Dense(1)(layers.Dropout(0.5)(y)))


class GraphLSTM(layers.Layer):
    """A graph convolution of each time step, then one LSTM for all nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.dense = layers.LSTM(6, activation="relu"), layers.Dense(3)

    def build(self, shape: Any) -> None:
        self.nodes, features = shape[2:]
        self.neighbours = self.add_weight(shape=(self.nodes, self.nodes), name="neighbours")
        self.kernel = self.add_weight(shape=(features, 4), name="kernel")
        self.lstm.build((None, shape[1], 8))
        self.dense.build((None, 6))

    def call(self, x: Any) -> Any:
        own = x @ self.kernel
        others = ops.einsum("btnf,nm->btmf", own, self.neighbours)
        y = ops.transpose(ops.concatenate([own, others], axis=-1), (0, 2, 1, 3))
        y = self.dense(self.lstm(ops.reshape(y, (-1, *y.shape[2:]))))
        return ops.transpose(ops.reshape(y, (-1, self.nodes, 3)), (0, 2, 1))


@case(Signal(), refused="so it has no step")
def traffic() -> keras.Model:
    """Keras example, Traffic forecasting using graph neural networks and LSTM.

    A layer of one's own: a graph convolution, an LSTM that all nodes share, Dense.
    """
    x = keras.Input((12, 5, 1))
    return keras.Model(x, GraphLSTM()(x))


@case(Signal())
def single_step() -> keras.Model:
    """TensorFlow tutorial, Time series forecasting: lstm_model.

    LSTM that speaks at each hour, Dense.
    """
    return keras.Sequential([layers.Input((24, 6)), layers.LSTM(8, return_sequences=True), layers.Dense(6)])


@case(Signal())
def multi_step() -> keras.Model:
    """TensorFlow tutorial, Time series forecasting: multi_lstm_model.

    LSTM, Dense that begins at zero, Reshape to a forecast of 24 hours.
    """
    return keras.Sequential(
        [
            layers.Input((24, 6)),
            layers.LSTM(8, return_sequences=False),
            layers.Dense(24 * 6, kernel_initializer="zeros"),
            layers.Reshape([24, 6]),
        ]
    )


class ResidualWrapper(keras.Model):
    """What a model says, added to what it was told."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.model = model

    def call(self, x: Any) -> Any:
        return x + self.model(x)


@case(Signal(), refused="has no graph to read")
def residual_wrapper() -> keras.Model:
    """TensorFlow tutorial, Time series forecasting: residual_lstm.

    A subclass of Model around LSTM and Dense.
    """
    model = ResidualWrapper(single_step())
    model(ops.zeros((1, 24, 6)))
    return model


class FeedBack(keras.Model):
    """Warms up on a sequence, then reads its own forecasts."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.dense = layers.LSTMCell(6), layers.Dense(5)
        self.rnn = layers.RNN(self.cell, return_state=True)

    def call(self, x: Any) -> Any:
        y, *states = self.rnn(x)
        said = [self.dense(y)]
        for _ in range(3):
            y, states = self.cell(said[-1], states)
            said.append(self.dense(y))
        return ops.stack(said, axis=1)


@case(Signal(), refused="has no graph to read")
def feed_back() -> keras.Model:
    """TensorFlow tutorial, Time series forecasting: FeedBack.

    A subclass that steps an LSTMCell on its own forecasts.
    """
    model = FeedBack()
    model(ops.zeros((1, 24, 5)))
    return model


@case(Signal())
def shampoo_sales() -> keras.Model:
    """machinelearningmastery.com, Time series forecasting with the LSTM.

    Stateful LSTM with batch_input_shape=(1, 1, n), Dense.
    """
    return keras.Sequential(
        [layers.Input(batch_shape=(1, 1, 3)), layers.LSTM(6, stateful=True), layers.Dense(1)]
    )


@case(Signal())
def airline_passengers() -> keras.Model:
    """machinelearningmastery.com, Time series prediction with LSTM: the airline passengers.

    LSTM with input_shape=(1, look_back): the window is the features of a single time step; Dense.
    """
    return keras.Sequential([layers.Input((1, 3)), layers.LSTM(4), layers.Dense(1)])


@case(Signal())
def share_prices() -> keras.Model:
    """jaungiers/LSTM-Neural-Network-for-Time-Series-Prediction.

    Three LSTMs with Dropout over windows of 49 days, Dense linear.
    """
    return keras.Sequential(
        [
            layers.Input((49, 2)),
            layers.LSTM(7, return_sequences=True),
            layers.Dropout(0.2),
            layers.LSTM(7, return_sequences=True),
            layers.LSTM(7, return_sequences=False),
            layers.Dropout(0.2),
            layers.Dense(1, activation="linear"),
        ]
    )


@case(Signal())
def sunspots_in_lambdas() -> keras.Model:
    """deeplearning.ai, Sequences, time series and prediction, week 3.

    A Lambda that adds the feature axis to windows, two SimpleRNNs, Dense, a Lambda that multiplies.
    """
    return keras.Sequential(
        [
            layers.Input((20,)),
            layers.Lambda(lambda x: ops.expand_dims(x, axis=-1)),
            layers.SimpleRNN(8, return_sequences=True),
            layers.SimpleRNN(8),
            layers.Dense(1),
            layers.Lambda(lambda x: x * 100.0),
        ]
    )


@case(Signal())
def sunspots_of_any_length() -> keras.Model:
    """deeplearning.ai, Sequences, time series and prediction, week 3.

    The same with input_shape=[None].
    """
    x = keras.Input((None,))
    y = layers.SimpleRNN(8, return_sequences=True)(layers.Lambda(lambda t: ops.expand_dims(t, axis=-1))(x))
    return keras.Model(x, layers.Lambda(lambda t: t * 100.0)(layers.Dense(1)(layers.SimpleRNN(8)(y))))


@case(Signal(mean=1.0), shake=0.1)  # more, and a ReLU is silent throughout
def sunspots() -> keras.Model:
    """deeplearning.ai, Sequences, time series and prediction, week 4.

    Causal Conv1D of 5 with ReLU, two LSTMs, three Dense, a Lambda that multiplies by 400.
    """
    return keras.Sequential(
        [
            layers.Input((None, 1)),
            layers.Conv1D(6, 5, strides=1, padding="causal", activation="relu"),
            layers.LSTM(7, return_sequences=True),
            layers.LSTM(7, return_sequences=True),
            layers.Dense(6, activation="relu"),
            layers.Dense(5, activation="relu"),
            layers.Dense(1),
            layers.Lambda(lambda x: x * 400),
        ]
    )


@case(Signal())
def windows_reshaped() -> keras.Model:
    """tensorflow/tensorflow, TensorFlow Lite guide, Fusing LSTMs; the many models that read `(window,)`.

    Reshape of a window to one feature a step, LSTM, Dense.
    """
    return keras.Sequential([layers.Input((28,)), layers.Reshape((28, 1)), layers.LSTM(8), layers.Dense(1)])


@case(Signal())
def deep_rnn() -> keras.Model:
    """Hands-On Machine Learning 2, chapter 15.

    Two SimpleRNNs with BatchNormalization that forecast ten steps at each, TimeDistributed Dense.
    """
    return keras.Sequential(
        [
            layers.Input((None, 1)),
            layers.SimpleRNN(7, return_sequences=True),
            layers.BatchNormalization(),
            layers.SimpleRNN(7, return_sequences=True),
            layers.BatchNormalization(),
            layers.TimeDistributed(layers.Dense(10)),
        ]
    )


@case(Signal(), refused="strides over time")
def convolution_before_a_gru() -> keras.Model:
    """Hands-On Machine Learning 2, chapter 15.

    Conv1D of 4 with strides of 2, two GRUs, TimeDistributed Dense.
    """
    return keras.Sequential(
        [
            layers.Input((None, 1)),
            layers.Conv1D(6, 4, strides=2, padding="valid"),
            layers.GRU(6, return_sequences=True),
            layers.GRU(6, return_sequences=True),
            layers.TimeDistributed(layers.Dense(10)),
        ]
    )


@case(Signal())
def chorales() -> keras.Model:
    """Hands-On Machine Learning 2, chapter 15: Bach chorales.

    Causal Conv1Ds with doubling dilation and BatchNormalization, LSTM, Dense softmax; of measurements here.
    """
    stack: list[Any] = [layers.Input((None, 5))]
    for filters, dilation in ((5, 1), (6, 2), (7, 4), (8, 8)):
        stack.append(layers.Conv1D(filters, 2, padding="causal", activation="relu", dilation_rate=dilation))
        stack.append(layers.BatchNormalization())
    return keras.Sequential(
        [*stack, layers.LSTM(8, return_sequences=True), layers.Dense(6, activation="softmax")]
    )


class Gaussian(layers.Layer):
    """The mean and the deviation of what comes next."""

    def build(self, shape: Any) -> None:
        self.kernels = self.add_weight(shape=(2, shape[-1], 1), name="kernels")
        self.biases = self.add_weight(shape=(2, 1), name="biases")

    def call(self, x: Any) -> Any:
        mean = x @ self.kernels[0] + self.biases[0]
        return mean, ops.log(1 + ops.exp(x @ self.kernels[1] + self.biases[1])) + 1e-6


@case(Signal())
def deep_ar() -> keras.Model:
    """Salinas et al. 2020, DeepAR; arrigonialberto86/deepar.

    LSTM over windows of 20, Dense ReLU, a layer of one's own that gives mean and deviation.
    """
    x = keras.Input((20, 1))
    y = layers.Dense(6, activation="relu")(layers.LSTM(6, return_sequences=True)(x))
    return keras.Model(x, list(Gaussian(name="main_output")(y)))


@case(Signal(), refused="makes a sequence from one vector")
def autoencoder() -> keras.Model:
    """machinelearningmastery.com, A gentle introduction to LSTM autoencoders; used to find anomalies.

    LSTM, RepeatVector, LSTM, TimeDistributed Dense.
    """
    return keras.Sequential(
        [
            layers.Input((9, 2)),
            layers.LSTM(7, activation="relu"),
            layers.RepeatVector(9),
            layers.LSTM(7, activation="relu", return_sequences=True),
            layers.TimeDistributed(layers.Dense(2)),
        ]
    )


@case(Signal())
def activity() -> keras.Model:
    """machinelearningmastery.com, LSTMs for human activity recognition; guillaume-chevalier's model.

    Dense ReLU, two LSTMs over 128 samples of 9 sensors, Dropout, Dense softmax.
    """
    x = keras.Input((128, 9))
    y = layers.LSTM(7)(layers.LSTM(7, return_sequences=True)(layers.Dense(7, activation="relu")(x)))
    return keras.Model(x, layers.Dense(6, activation="softmax")(layers.Dropout(0.5)(y)))


@case(Signal())
def activity_cnn_lstm() -> keras.Model:
    """machinelearningmastery.com, the CNN-LSTM for human activity recognition.

    TimeDistributed Conv1Ds, MaxPooling1D and Flatten of 4 windows of 32 samples, LSTM, Dense softmax.
    """
    return keras.Sequential(
        [
            layers.Input((None, 32, 5)),
            layers.TimeDistributed(layers.Conv1D(4, 3, activation="relu")),
            layers.TimeDistributed(layers.Conv1D(4, 3, activation="relu")),
            layers.TimeDistributed(layers.Dropout(0.5)),
            layers.TimeDistributed(layers.MaxPooling1D(2)),
            layers.TimeDistributed(layers.Flatten()),
            layers.LSTM(7),
            layers.Dropout(0.5),
            layers.Dense(6, activation="softmax"),
        ]
    )


@case(Signal(), refused="shortens the sequence (padding='valid')")
def deep_conv_lstm() -> keras.Model:
    """Ordóñez and Roggen 2016, DeepConvLSTM.

    Conv1Ds of 5 over time without padding, two LSTMs, Dense softmax.
    """
    x = keras.Input((24, 9))
    y = x
    for _ in range(4):
        y = layers.Conv1D(6, 5, activation="relu")(y)
    y = layers.LSTM(6)(layers.LSTM(6, return_sequences=True)(y))
    return keras.Model(x, layers.Dense(6, activation="softmax")(y))


@case(Signal())
def heartbeats() -> keras.Model:
    """Lynn et al. 2019, A deep GRU network of ECG signals, its causal half.

    Two GRUs over single samples, Dropout, BatchNormalization, Dense softmax.
    """
    return keras.Sequential(
        [
            layers.Input((None, 1)),
            layers.GRU(7, return_sequences=True),
            layers.Dropout(0.2),
            layers.GRU(7),
            layers.BatchNormalization(),
            layers.Dense(5, activation="softmax"),
        ]
    )


@case(Signal(), refused="so it has no step")
def lstm_fcn() -> keras.Model:
    """Karim et al. 2018, LSTM fully convolutional networks; titu1994/LSTM-FCN.

    An LSTM over the transposed series beside Conv1Ds of padding same, their average over time; Concatenate,
    softmax.
    """
    x = keras.Input((16, 1))
    recurrent = layers.Dropout(0.8)(layers.LSTM(6)(layers.Permute((2, 1))(x)))
    y = x
    for kernel in (8, 5, 3):
        y = layers.Conv1D(6, kernel, padding="same", kernel_initializer="he_uniform")(y)
        y = layers.Activation("relu")(layers.BatchNormalization()(y))
    y = layers.concatenate([recurrent, layers.GlobalAveragePooling1D()(y)])
    return keras.Model(x, layers.Dense(4, activation="softmax")(y))


@case(Signal(), refused="moves the time axis")
def attention_before_an_lstm() -> keras.Model:
    """philipperemy/keras-attention-mechanism, in its first form.

    Permute, Dense softmax over time, Permute, Multiply, LSTM, Dense sigmoid.
    """
    x = keras.Input((20, 4))
    weights = layers.Dense(20, activation="softmax")(layers.Permute((2, 1))(x))
    y = layers.Multiply()([x, layers.Permute((2, 1))(weights)])
    return keras.Model(x, layers.Dense(1, activation="sigmoid")(layers.LSTM(6)(y)))


@case(Signal())
def pixels() -> keras.Model:
    """Le et al. 2015, IRNN; Keras 2 example, mnist_irnn.

    SimpleRNN with ReLU that begins as the identity, over single pixels, Dense softmax.
    """
    start = keras.initializers.RandomNormal(stddev=0.001)
    return keras.Sequential(
        [
            layers.Input((100, 1)),
            layers.SimpleRNN(8, "relu", kernel_initializer=start, recurrent_initializer="identity"),
            layers.Dense(10),
            layers.Activation("softmax"),
        ]
    )


@case(Signal())
def rows_of_pixels() -> keras.Model:
    """Keras guide, Working with RNNs; the TensorFlow Lite guide, Fusing LSTMs.

    LSTM over the rows of an image, BatchNormalization, Dense.
    """
    return keras.Sequential(
        [layers.Input((None, 28)), layers.LSTM(8), layers.BatchNormalization(), layers.Dense(10)]
    )


@case(Signal())
def rows_and_pixels() -> keras.Model:
    """Keras 2 example, mnist_hierarchical_rnn.

    A TimeDistributed LSTM over the pixels of a row, LSTM over the rows, Dense softmax.
    """
    x = keras.Input((12, 6, 1))
    y = layers.LSTM(7)(layers.TimeDistributed(layers.LSTM(6))(x))
    return keras.Model(x, layers.Dense(10, activation="softmax")(y))


@case(Flat(steps=8))
def rows_of_a_flat_image() -> keras.Model:
    """sagemaker and many course notebooks: MNIST as 784 numbers.

    Reshape to rows, LSTM, Dense softmax; the rows are the time steps.
    """
    return keras.Sequential(
        [layers.Input((48,)), layers.Reshape((8, 6)), layers.LSTM(8), layers.Dense(10, activation="softmax")]
    )


@case(Signal(), Signal(), refused="begins from a state that is computed from other inputs")
def encoder_and_decoder() -> keras.Model:
    """Time series with sequence-to-sequence learning; Keras example of translation, of measurements.

    A GRU over the past whose state begins a GRU over what is known of the future.
    """
    past, future = keras.Input((None, 4), name="past"), keras.Input((None, 2), name="future")
    _, state = layers.GRU(6, return_state=True)(past)
    y = layers.GRU(6, return_sequences=True)(future, initial_state=state)
    return keras.Model([past, future], layers.Dense(1)(y))


class Lag(layers.Layer):
    """The value of so many steps ago, zero before there is one."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def call(self, x: Any) -> Any:
        return ops.pad(x, [[0, 0], [self.steps, 0], [0, 0]])[:, : -self.steps]

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@case(
    Signal(),
    refused="layer 'lag' (Lag) depends on the index of the time step (StridedSlice <- Pad), so it has no ",
)
def seasonal_difference() -> keras.Model:
    """Salinas et al. 2020, DeepAR, whose lags GluonTS makes within the model; the one of a week ago.

    A layer of one's own that shifts by 84 steps, the difference to it, LSTM, Dense, and the week ago added
    again.
    """
    x = keras.Input((None, 1))
    ago = Lag(84)(x)
    y = layers.Dense(1)(layers.LSTM(6, return_sequences=True)(layers.Subtract()([x, ago])))
    return keras.Model(x, layers.Add()([y, ago]))


@case(Signal(), State(1), State(2))
def battery() -> keras.Model:
    """Chemali et al. 2018, LSTM networks for the state of charge of batteries, its states handed through.

    Current, voltage and temperature, LSTM whose states are inputs and outputs, Dense.
    """
    x, h, c = keras.Input((1, 3)), keras.Input((8,)), keras.Input((8,))
    y, *after = layers.LSTM(8, return_state=True)(x, initial_state=[h, c])
    return keras.Model([x, h, c], [layers.Dense(1, activation="sigmoid")(y), *after])


@case(Signal(), tolerance=4e-3)  # Keras computes it in 16 bits, the step in 32
def mixed_precision() -> keras.Model:
    """Keras guide, Mixed precision, of the weather model.

    LSTM in the policy mixed_float16, Dense in float32.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        x = keras.Input((None, 7))
        return keras.Model(x, layers.Dense(1, dtype="float32")(layers.LSTM(8, return_sequences=True)(x)))
    finally:
        keras.config.set_dtype_policy(policy)
