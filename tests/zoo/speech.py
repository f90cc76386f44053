"""Models of sound: speech enhancement, keywords, recognition, synthesis, amplifiers."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from .case import Frame, Signal, State, Tokens, case

BINS = 9  # of a spectrum


class InstantLayerNormalization(layers.Layer):
    """The mean and variance of each frame alone, as DTLN has it."""

    def build(self, shape: Any) -> None:
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(shape[-1],), initializer="zeros", name="beta")

    def call(self, x: Any) -> Any:
        mean = ops.mean(x, axis=[-1], keepdims=True)
        variance = ops.mean(ops.square(x - mean), axis=[-1], keepdims=True)
        return (x - mean) / ops.sqrt(variance + 1e-7) * self.gamma + self.beta


def separation(x: Any, size: int, stateful: bool = False) -> Any:
    """DTLN's kernel: two LSTMs and a mask of this size."""
    for i in range(2):
        x = layers.LSTM(6, return_sequences=True, stateful=stateful)(x)
        x = layers.Dropout(0.25)(x) if i == 0 else x
    return layers.Activation("sigmoid")(layers.Dense(size)(x))


def separation_with_states(x: Any, size: int, states: Any) -> tuple[Any, Any]:
    """The same with its states in one tensor `[1, layers, units, 2]`, in and out."""
    after = []
    for i in range(2):
        begin = [states[:, i, :, 0], states[:, i, :, 1]]
        x, h, c = layers.LSTM(6, return_sequences=True, unroll=True, return_state=True)(
            x, initial_state=begin
        )
        x = layers.Dropout(0.25)(x) if i == 0 else x
        after.append((h, c))
    mask = layers.Activation("sigmoid")(layers.Dense(size)(x))
    h = ops.reshape(ops.stack([h for h, _ in after], axis=0), (1, 2, 6))
    c = ops.reshape(ops.stack([c for _, c in after], axis=0), (1, 2, 6))
    return mask, ops.stack([h, c], axis=-1)


@case(Signal(mean=2.0), State(1))
def dtln_first_core() -> keras.Model:
    """breizhn/DTLN, as its TFLite files are made: the first core.

    One frame of magnitudes, two unrolled LSTMs whose states are slices of one input, Dense sigmoid mask.
    """
    x, states = keras.Input(batch_shape=(1, 1, BINS)), keras.Input(batch_shape=(1, 2, 6, 2))
    return keras.Model([x, states], list(separation_with_states(x, BINS, states)))


@case(Signal(), State(1))
def dtln_second_core() -> keras.Model:
    """breizhn/DTLN, as its TFLite files are made: the second core.

    Conv1D of 1 as a learned transform, instant layer normalisation, the kernel, Multiply, causal Conv1D of 1.
    """
    x, states = keras.Input(batch_shape=(1, 1, 16)), keras.Input(batch_shape=(1, 2, 6, 2))
    encoded = layers.Conv1D(10, 1, strides=1, use_bias=False)(x)
    mask, after = separation_with_states(InstantLayerNormalization()(encoded), 10, states)
    y = layers.Conv1D(16, 1, padding="causal", use_bias=False)(layers.Multiply()([encoded, mask]))
    return keras.Model([x, states], [y, after])


@case(Signal(mean=2.0))
def dtln_first_core_normalised() -> keras.Model:
    """breizhn/DTLN, its models of normalised spectra, as trained.

    Logarithm, instant layer normalisation, two LSTMs with Dropout, Dense sigmoid, Multiply.
    """
    x = keras.Input((None, BINS))
    y = InstantLayerNormalization()(ops.log(ops.abs(x) + 1e-7))
    return keras.Model(x, layers.Multiply()([x, separation(y, BINS)]))


@case(Signal())
def dtln_second_core_stateful() -> keras.Model:
    """breizhn/DTLN, its model for real time: the second half.

    The same layers, stateful, one row of one frame.
    """
    x = keras.Input(batch_shape=(1, 1, 16))
    encoded = layers.Conv1D(10, 1, strides=1, use_bias=False)(x)
    mask = separation(InstantLayerNormalization()(encoded), 10, stateful=True)
    y = layers.Multiply()([encoded, mask])
    return keras.Model(x, layers.Conv1D(16, 1, padding="causal", use_bias=False)(y))


@case(Frame(), refused="has no input with a time axis")
def dtln_in_the_time_domain() -> keras.Model:
    """breizhn/DTLN, its model for real time, which is kept as a SavedModel.

    One frame of samples, real FFT, magnitude and phase, the kernel, inverse FFT, the second core.
    """
    import tensorflow as tf

    class Spectrum(layers.Layer):
        def call(self, x: Any) -> Any:
            spectrum = tf.signal.rfft(tf.expand_dims(x, axis=1))
            return tf.abs(spectrum), tf.math.angle(spectrum)

    class Frames(layers.Layer):
        def call(self, magnitude: Any, phase: Any) -> Any:
            return tf.signal.irfft(
                tf.cast(magnitude, tf.complex64) * tf.exp(1j * tf.cast(phase, tf.complex64))
            )

    x = keras.Input(batch_shape=(1, 16))
    magnitude, phase = Spectrum()(x)
    frames = Frames()(layers.Multiply()([magnitude, separation(magnitude, 9, stateful=True)]), phase)
    encoded = layers.Conv1D(10, 1, use_bias=False)(frames)
    mask = separation(InstantLayerNormalization()(encoded), 10, stateful=True)
    y = layers.Multiply()([encoded, mask])
    return keras.Model(x, layers.Conv1D(16, 1, padding="causal", use_bias=False)(y))


@case(Signal())
def rnnoise() -> keras.Model:
    """xiph/rnnoise, training/rnn_train.py, in Keras 3.

    Dense, GRUs of voice activity, noise and denoising that read each other by concatenation, two Dense
    outputs.
    """

    class WeightClip(keras.constraints.Constraint):
        def __call__(self, w: Any) -> Any:
            return ops.clip(w, -0.499, 0.499)

    def gru(units: int, name: str, activation: str = "tanh") -> Any:
        limits = dict.fromkeys(("kernel_constraint", "recurrent_constraint", "bias_constraint"), WeightClip())
        return layers.GRU(units, activation, "sigmoid", return_sequences=True, name=name, **limits)

    x = keras.Input((None, 10), name="main_input")
    dense = layers.Dense(5, activation="tanh", name="input_dense")(x)
    voice = gru(5, "vad_gru")(dense)
    noise = gru(6, "noise_gru", "relu")(layers.concatenate([dense, voice, x]))
    denoise = gru(8, "denoise_gru")(layers.concatenate([voice, noise, x]))
    gains = layers.Dense(6, activation="sigmoid", name="denoise_output")(denoise)
    return keras.Model(x, [gains, layers.Dense(1, activation="sigmoid", name="vad_output")(voice)])


@case(Signal())
def percepnet() -> keras.Model:
    """Valin et al. 2020, PercepNet, without its look-ahead.

    Dense, causal Conv1Ds of 5 and 3, three GRUs and one each for gains and pitch strengths, skips, two
    outputs.
    """
    x = keras.Input((None, 10), name="features")
    y = layers.Dense(6, activation="relu")(x)
    y = layers.Conv1D(8, 5, padding="causal", activation="relu")(y)
    y = layers.Conv1D(8, 3, padding="causal", activation="tanh")(y)
    first = layers.GRU(8, return_sequences=True)(y)
    second = layers.GRU(8, return_sequences=True)(first)
    third = layers.GRU(8, return_sequences=True)(second)
    gains = layers.GRU(8, return_sequences=True)(third)
    gains = layers.Dense(5, activation="sigmoid", name="gains")(
        layers.concatenate([y, first, second, third, gains])
    )
    pitch = layers.GRU(6, return_sequences=True)(layers.concatenate([third, y]))
    return keras.Model(x, [gains, layers.Dense(5, activation="sigmoid", name="strengths")(pitch)])


@case(Signal())
def nsnet2() -> keras.Model:
    """Braun and Tashev 2020, NSNet2, the baseline of the Deep Noise Suppression Challenge.

    Dense, two GRUs, two Dense with ReLU, Dense sigmoid mask.
    """
    return keras.Sequential(
        [
            layers.Input((None, BINS)),
            layers.Dense(8),
            layers.GRU(8, return_sequences=True),
            layers.GRU(8, return_sequences=True),
            layers.Dense(9, activation="relu"),
            layers.Dense(9, activation="relu"),
            layers.Dense(BINS, activation="sigmoid"),
        ]
    )


def causal_conv2d(x: Any, filters: int, kernel: tuple[int, int], stride: int) -> Any:
    """Conv2D over time and frequency that sees no later frame, as padding beside it makes it."""
    x = layers.ZeroPadding2D(((kernel[0] - 1, 0), (0, 0)))(x)
    return layers.Conv2D(filters, kernel, strides=(1, stride))(x)


@case(Signal())
def crn_encoder() -> keras.Model:
    """Tan and Wang 2018, A convolutional recurrent network for real-time speech enhancement; without its
    decoder.

    Causal Conv2Ds over time and frequency with BatchNormalization and ELU, Reshape, two LSTMs, Dense.
    """
    x = keras.Input((None, 16, 1))
    y = x
    for filters in (3, 4):
        y = causal_conv2d(y, filters, (2, 3), 2)
        y = layers.ELU()(layers.BatchNormalization()(y))
    y = layers.Reshape((-1, y.shape[2] * y.shape[3]))(y)
    y = layers.LSTM(6, return_sequences=True)(layers.LSTM(6, return_sequences=True)(y))
    return keras.Model(x, layers.Dense(16, activation="sigmoid")(y))


@case(Signal())
def crn() -> keras.Model:
    """Tan and Wang 2018, A convolutional recurrent network for real-time speech enhancement.

    The same with Conv2DTransposes that read the encoder by skips, and drop their last frame.
    """
    x = keras.Input((None, 15, 1))
    first = layers.ELU()(layers.BatchNormalization()(causal_conv2d(x, 3, (2, 3), 2)))
    second = layers.ELU()(layers.BatchNormalization()(causal_conv2d(first, 4, (2, 3), 2)))
    y = layers.Reshape((-1, 12))(second)
    y = layers.LSTM(12, return_sequences=True)(layers.LSTM(12, return_sequences=True)(y))
    y = layers.Reshape((-1, 3, 4))(y)
    for skip, filters in ((second, 3), (first, 1)):
        y = layers.Conv2DTranspose(filters, (2, 3), strides=(1, 2))(layers.Concatenate()([y, skip]))
        y = layers.ELU()(layers.BatchNormalization()(layers.Cropping2D(((0, 1), (0, 0)))(y)))
    return keras.Model(x, y)


@case(Signal(), refused="so it has no step")
def dpcrn() -> keras.Model:
    """Le et al. 2021, DPCRN; Le-Xiaohuai-speech/DPCRN_DNS3, one dual-path block.

    Causal Conv2D, BatchNormalization, PReLU shared over time and frequency; Bidirectional LSTM over the
    frequencies of each frame; LSTM over time for each frequency; LayerNormalization over frequency and
    channels; Conv2D of one frame.
    """
    x = keras.Input((20, 12, 2))
    y = layers.Conv2D(4, (2, 3), (1, 2))(layers.ZeroPadding2D(((1, 0), (0, 1)))(x))
    y = layers.PReLU(shared_axes=[1, 2])(layers.BatchNormalization()(y))
    z = layers.TimeDistributed(layers.Bidirectional(layers.LSTM(3, return_sequences=True)))(y)
    y = layers.Add()([y, layers.LayerNormalization(axis=[-1, -2])(layers.Dense(4)(z))])
    z = layers.TimeDistributed(layers.LSTM(6, return_sequences=True))(layers.Permute((2, 1, 3))(y))
    z = layers.Permute((2, 1, 3))(layers.Dense(4)(z))
    y = layers.Add()([y, layers.LayerNormalization(axis=[-1, -2])(z)])
    return keras.Model(x, layers.Conv2D(2, (1, 3), padding="same")(y))


@case(Signal(), refused="so it has no step")
def keywords_crnn() -> keras.Model:
    """Arik et al. 2017, Convolutional recurrent networks for keyword spotting; google-research/kws_streaming.

    One more axis, Conv2Ds over windows of frames without padding, Reshape, GRU, Flatten, Dense.
    """
    x = keras.Input(batch_shape=(1, 49, 10))
    y = ops.expand_dims(x, -1)
    y = layers.Conv2D(3, (3, 3), activation="relu")(y)
    y = layers.Conv2D(3, (5, 3), strides=(1, 2), activation="relu")(y)
    y = layers.GRU(6)(layers.Reshape((-1, y.shape[2] * y.shape[3]))(y))
    y = layers.Dropout(0.1)(layers.Flatten()(y))
    return keras.Model(x, layers.Dense(4)(layers.Dense(6, activation="relu")(y)))


@case(Signal())
def keywords_gru() -> keras.Model:
    """Zhang et al. 2017, Hello Edge; google-research/kws_streaming.

    GRU over a second of frames, Flatten, Dropout, Dense.
    """
    x = keras.Input((49, 10))
    y = layers.Dropout(0.1)(layers.Flatten()(layers.GRU(8)(x)))
    return keras.Model(x, layers.Dense(4)(y))


@case(Signal(), refused="so it has no step")
def keywords_ds_cnn() -> keras.Model:
    """Zhang et al. 2017, Hello Edge: depthwise-separable convolutions.

    Conv2D with strides, DepthwiseConv2D and Conv2D of 1, BatchNormalization, average over all, Dense.
    """
    x = keras.Input((49, 10, 1))
    y = layers.Conv2D(6, (10, 4), strides=(2, 2), padding="same")(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    for _ in range(2):
        y = layers.ReLU()(layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(y)))
        y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(6, 1)(y)))
    return keras.Model(x, layers.Dense(4)(layers.GlobalAveragePooling2D()(y)))


@case(Signal(), refused="sees the future (padding='same')")
def keywords_tc_resnet() -> keras.Model:
    """Choi et al. 2019, TC-ResNet8; hyperconnect/TC-ResNet.

    Conv1Ds over time with strides, BatchNormalization, residuals, average over time, Dense.
    """

    def convolved(y: Any, filters: int, kernel: int, strides: int = 1) -> Any:
        y = layers.Conv1D(filters, kernel, strides=strides, padding="same", use_bias=False)(y)
        return layers.BatchNormalization()(y)

    x = keras.Input((98, 10))
    y = layers.ReLU()(convolved(x, 4, 3))
    for filters in (6, 8):
        z = convolved(layers.ReLU()(convolved(y, filters, 9, 2)), filters, 9)
        y = layers.ReLU()(layers.Add()([z, layers.ReLU()(convolved(y, filters, 1, 2))]))
    return keras.Model(x, layers.Dense(4)(layers.GlobalAveragePooling1D()(y)))


@case(Signal())
def keywords_svdf() -> keras.Model:
    """Nakkiran et al. 2015, SVDF; google-research/kws_streaming, padded.

    Dense, DepthwiseConv1D over time behind ZeroPadding1D, ReLU, Dense; twice, then the head.
    """
    x = keras.Input((None, 10))
    y = x
    for _ in range(2):
        y = layers.ZeroPadding1D((4, 0))(layers.Dense(8, use_bias=False)(y))
        y = layers.Dense(6)(layers.ReLU()(layers.DepthwiseConv1D(5)(y)))
    return keras.Model(x, layers.Dense(4)(y))


@case(Signal(), refused="strides over time")
def trigger_word() -> keras.Model:
    """deeplearning.ai, Sequence Models, Trigger word detection.

    Conv1D of 15 with strides of 4, BatchNormalization, Dropout, two GRUs, TimeDistributed Dense sigmoid.
    """
    x = keras.Input((111, 10))
    y = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv1D(8, 15, strides=4)(x)))
    y = layers.Dropout(0.8)(y)
    for _ in range(2):
        y = layers.BatchNormalization()(layers.Dropout(0.8)(layers.GRU(6, return_sequences=True)(y)))
    return keras.Model(x, layers.TimeDistributed(layers.Dense(1, activation="sigmoid"))(y))


@case(Signal(), refused="sees the future (padding='same')")
def speech_recognition_ctc() -> keras.Model:
    """Keras example, Automatic speech recognition using CTC.

    Conv1Ds of 32, BatchNormalization, Bidirectional LSTMs, Permute, Dense softmax.
    """
    x = keras.Input((64, BINS), name="spectrogram")
    y = x
    for _ in range(2):
        y = layers.BatchNormalization()(layers.Conv1D(8, 32, activation="relu", padding="same")(y))
    y = layers.BatchNormalization()(layers.Bidirectional(layers.LSTM(6, return_sequences=True))(y))
    y = layers.Permute((2, 1))(layers.Dense(16, activation="relu")(layers.Permute((2, 1))(y)))
    return keras.Model(x, layers.Dense(5, activation="softmax")(y))


@case(Signal(), refused="reads the sequence from both ends")
def deep_speech_2() -> keras.Model:
    """robmsmt/KerasDeepSpeech, ds2_gru_model without its convolutions.

    BatchNormalization, TimeDistributed Dense, Bidirectional GRUs that are summed, Dense clipped at 20,
    softmax.
    """
    x = keras.Input((None, 10), name="the_input")
    y = layers.TimeDistributed(layers.Dense(8, activation="relu"))(layers.BatchNormalization()(x))
    y = layers.BatchNormalization()(y)
    y = layers.Bidirectional(layers.GRU(6, return_sequences=True, activation="relu"), merge_mode="sum")(y)
    y = layers.TimeDistributed(layers.Dense(8, activation="relu"))(layers.BatchNormalization()(y))
    return keras.Model(x, layers.TimeDistributed(layers.Dense(5, activation="softmax"))(y))


def clipped_relu(x: Any) -> Any:
    """Between 0 and 20."""
    return ops.minimum(ops.relu(x), 20.0)


@case(Signal())
def deep_speech_of_mozilla() -> keras.Model:
    """mozilla/DeepSpeech 0.6 and later, its acoustic model.

    Windows of 19 frames, three Dense clipped at 20 with Dropout, one LSTM, Dense clipped at 20, Dense.
    """
    x = keras.Input((None, 19, 4))
    y = layers.TimeDistributed(layers.Flatten())(x)
    for _ in range(3):
        y = layers.Dropout(0.05)(layers.Dense(8, activation=clipped_relu)(y))
    y = layers.LSTM(8, return_sequences=True)(y)
    return keras.Model(x, layers.Dense(6)(layers.Dense(8, activation=clipped_relu)(y)))


class MDense(layers.Layer):
    """Two Dense layers whose tanh is weighted and added, as LPCNet ends."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = units

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(self.units, shape[-1], 2), name="kernel")
        self.bias = self.add_weight(shape=(self.units, 2), name="bias")
        self.factor = self.add_weight(shape=(self.units, 2), name="factor")

    def call(self, x: Any) -> Any:
        y = ops.tanh(ops.einsum("bti,uic->btuc", x, self.kernel) + self.bias)
        return ops.sigmoid(ops.sum(y * self.factor, axis=-1))


def probabilities(p: Any) -> Any:
    """Of 8 levels, by the 7 decisions of a tree."""
    first, second, third = p[:, :, 1:2], p[:, :, 2:4], p[:, :, 4:8]
    result = 1.0
    for decisions in (first, second, third):
        both = ops.stack([1 - decisions, decisions], axis=-1)
        result = result * ops.reshape(
            ops.repeat(both, 4 // decisions.shape[2], axis=-1), (-1, ops.shape(p)[1], 8)
        )
    return result


@case(Tokens(8), Signal(), State(1), State(2))
def lpcnet_decoder() -> keras.Model:
    """xiph/LPCNet, training_tf2/lpcnet.py: the decoder.

    Three token indices a sample, Embedding, Reshape, features, two GRUs whose states are inputs, a layer of
    one's own, a Lambda that turns a tree into probabilities.
    """
    pcm, features = keras.Input((None, 3), name="pcm"), keras.Input((None, 6), name="features")
    first, second = keras.Input((10,), name="first"), keras.Input((6,), name="second")
    y = layers.Concatenate()([layers.Reshape((-1, 12))(layers.Embedding(8, 4)(pcm)), features])
    y, after = layers.GRU(10, return_sequences=True, return_state=True)(y, initial_state=first)
    y = layers.Concatenate()([y, features])
    y, last = layers.GRU(6, return_sequences=True, return_state=True)(y, initial_state=second)
    y = layers.Lambda(probabilities, output_shape=(None, 8))(MDense(8)(y))
    return keras.Model([pcm, features, first, second], [y, after, last])


class Gate(layers.Layer):
    """tanh of one half, multiplied by the sigmoid of the other."""

    def call(self, x: Any) -> Any:
        return ops.tanh(x[..., : x.shape[-1] // 2]) * ops.sigmoid(x[..., x.shape[-1] // 2 :])


@case(Signal())
def wavenet() -> keras.Model:
    """van den Oord et al. 2016, WaveNet; Hands-On Machine Learning 2, chapter 15.

    Causal Conv1Ds of 2 with doubling dilation, a gated activation, residuals, the sum of all skips, Conv1Ds
    of 1.
    """
    x = keras.Input((None, 1))
    y = layers.Conv1D(6, 2, padding="causal")(x)
    skips = []
    for dilation in (1, 2, 4, 8):
        z = Gate()(layers.Conv1D(12, 2, padding="causal", dilation_rate=dilation)(y))
        z = layers.Conv1D(6, 1)(z)
        y = layers.Add()([z, y])
        skips.append(z)
    y = layers.Conv1D(6, 1, activation="relu")(keras.activations.relu(layers.Add()(skips)))
    return keras.Model(x, layers.Conv1D(8, 1, activation="softmax")(y))


class CausalAtrousConvolution1D(layers.Conv1D):
    """A convolution that pads its input by itself."""

    def call(self, x: Any) -> Any:
        left = self.dilation_rate[0] * (self.kernel_size[0] - 1)
        return super().call(ops.pad(x, [[0, 0], [left, 0], [0, 0]]))

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:2], self.filters)


@case(Signal())
def wavenet_of_keras_2() -> keras.Model:
    """basveeling/wavenet.

    A subclass of Conv1D that pads on the left in its call, two of them multiplied, residuals, skips, softmax.
    """
    x = keras.Input((64, 8), name="input_part")
    y = CausalAtrousConvolution1D(6, 2, name="initial_causal_conv")(x)
    skips = []
    for dilation in (1, 2, 4):
        a = CausalAtrousConvolution1D(6, 2, dilation_rate=dilation, activation="tanh")(y)
        b = CausalAtrousConvolution1D(6, 2, dilation_rate=dilation, activation="sigmoid")(y)
        z = layers.Multiply()([a, b])
        skips.append(layers.Conv1D(6, 1, padding="same")(z))
        y = layers.Add()([y, layers.Conv1D(6, 1, padding="same")(z)])
    y = layers.Activation("relu")(layers.Add()(skips))
    y = layers.Conv1D(8, 1, padding="same")(layers.Activation("relu")(layers.Conv1D(8, 1, padding="same")(y)))
    return keras.Model(x, layers.Activation("softmax", name="output_softmax")(y))


@case(Tokens(8), refused="reshapes time into the features")
def sample_rnn() -> keras.Model:
    """Mehri et al. 2017, SampleRNN with two tiers.

    A GRU over frames of 4 samples, its output spread over them, added to the Embedding of each sample.
    """
    x = keras.Input((64,), dtype="int32")
    embedded = layers.Embedding(8, 6)(x)
    frames = layers.GRU(8, return_sequences=True)(layers.Reshape((16, 24))(embedded))
    spread = layers.Reshape((64, 6))(layers.Dense(24)(frames))
    y = layers.Dense(8, activation="relu")(layers.Add()([embedded, spread]))
    return keras.Model(x, layers.Dense(8, activation="softmax")(y))


@case(Signal(), Signal())
def tacotron_2_decoder() -> keras.Model:
    """Shen et al. 2018, Tacotron 2; TensorSpeech/TensorFlowTTS: the decoder, its context read as an input.

    Two Dense of the prenet with Dropout, attention LSTM, two stacked LSTM cells, Dense of the frame and of
    the stop.
    """
    frame, context = keras.Input((None, 8), name="frame"), keras.Input((None, 6), name="context")
    y = frame
    for _ in range(2):
        y = layers.Dropout(0.5)(layers.Dense(6, activation="relu")(y))
    y = layers.RNN(layers.LSTMCell(7), return_sequences=True)(layers.Concatenate()([y, context]))
    cells = layers.StackedRNNCells([layers.LSTMCell(7), layers.LSTMCell(7)])
    y = layers.RNN(cells, return_sequences=True)(layers.Concatenate()([y, context]))
    y = layers.Concatenate()([y, context])
    mel = layers.Dense(8, name="mel")(y)
    return keras.Model([frame, context], [mel, layers.Dense(1, name="stop")(layers.Concatenate()([y, mel]))])


@case(Signal())
def tacotron_2_prenet() -> keras.Model:
    """Shen et al. 2018, Tacotron 2; TensorSpeech/TensorFlowTTS: the prenet, which drops when it speaks too.

    Dense with a Dropout that is called with training=True, which Keras 3 forgets in predict; LSTM, Dense.
    """
    x = keras.Input((None, 8))
    y = layers.Dropout(0.5)(layers.Dense(6, activation="relu")(x), training=True)
    return keras.Model(x, layers.Dense(8)(layers.LSTM(7, return_sequences=True)(y)))


def stack(width: int) -> keras.Model:
    """DDSP's three times Dense, LayerNormalization and leaky ReLU."""
    return keras.Sequential(
        [
            layer
            for _ in range(3)
            for layer in (layers.Dense(width), layers.LayerNormalization(), layers.LeakyReLU())
        ]
    )


@case(Signal(), Signal(), Signal())
def ddsp_decoder() -> keras.Model:
    """Engel et al. 2020, DDSP; magenta/ddsp, RnnFcDecoder.

    A stack of Dense, LayerNormalization and leaky ReLU for each of three inputs, GRU, a stack, Dense split
    in two.
    """
    inputs = [keras.Input((None, 1), name="ld_scaled"), keras.Input((None, 1), name="f0_scaled")]
    inputs.append(keras.Input((None, 4), name="z"))
    read = [stack(6)(x) for x in inputs]
    y = layers.GRU(7, return_sequences=True)(ops.concatenate(read, axis=-1))
    y = layers.Dense(9)(stack(6)(ops.concatenate([*read, y], axis=-1)))
    return keras.Model(inputs, {"amps": y[..., :1], "harmonic_distribution": y[..., 1:]})


@case(Signal())
def guitar_amplifier() -> keras.Model:
    """Wright et al. 2019, Real-time black-box modelling with recurrent neural networks.

    LSTM on one sample, Dense, and the sample itself added.
    """
    x = keras.Input((None, 1))
    y = layers.Dense(1)(layers.LSTM(8, return_sequences=True)(x))
    return keras.Model(x, layers.Add()([x, y]))


@case(Signal(), refused="strides over time")
def guitar_lstm() -> keras.Model:
    """GuitarML/GuitarLSTM.

    Two Conv1Ds of 12 with strides, LSTM, Dense.
    """
    return keras.Sequential(
        [
            layers.Input((100, 1)),
            layers.Conv1D(6, 12, strides=4, padding="same"),
            layers.Conv1D(6, 12, strides=4, padding="same"),
            layers.LSTM(6),
            layers.Dense(1),
        ]
    )
