"""Models that are told something once: an image, a speaker, a style; and music, which is told a style too."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from .case import OneHot, Signal, State, Static, Tokens, case
from .text import AttentionWeightedAverage

V = 11


@case(Signal(), Static())
def sketch_rnn() -> keras.Model:
    """Ha and Eck 2017, sketch-rnn; eyalzk/sketch_rnn_keras: the decoder.

    A latent vector: Dense tanh that is cut into h and c, and repeated beside every pen stroke; LSTM, Dense
    of mixtures.
    """
    stroke, z = keras.Input((40, 5), name="decoder_input"), keras.Input((6,), name="z")
    begin = layers.Dense(16, activation="tanh", name="dec_initial_state")(z)
    y = layers.Concatenate()([stroke, layers.RepeatVector(40)(z)])
    lstm = layers.LSTM(8, recurrent_dropout=0.1, return_sequences=True, return_state=True)
    y, _, _ = lstm(y, initial_state=[begin[:, :8], begin[:, 8:]])
    return keras.Model([stroke, z], layers.Dense(3 + 6 * 2, name="output")(y))


@case(Signal(), Static(), State(1), State(2))
def sketch_rnn_that_draws() -> keras.Model:
    """Ha and Eck 2017, sketch-rnn; eyalzk/sketch_rnn_keras: its model for sampling.

    One stroke, the latent vector repeated once, h and c as inputs and outputs.
    """
    stroke, z = keras.Input((1, 5), name="decoder_input"), keras.Input((6,), name="z")
    h, c = keras.Input((8,), name="h_in"), keras.Input((8,), name="c_in")
    y = layers.Concatenate()([stroke, layers.RepeatVector(1)(z)])
    y, *after = layers.LSTM(8, return_sequences=True, return_state=True)(y, initial_state=[h, c])
    return keras.Model([stroke, z, h, c], [layers.Dense(3 + 6 * 2, name="output")(y), *after])


@case(Static(), Tokens(V))
def caption_merged() -> keras.Model:
    """Tanti et al. 2017, Where to put the image in an image caption generator: merge; Keras tutorials after
    it.

    Dropout and Dense of the image, added to what an LSTM makes of the masked words; Dense, Dense softmax.
    """
    image, words = keras.Input((9,), name="image"), keras.Input((None,), dtype="int32", name="words")
    seen = layers.Dense(8, activation="relu")(layers.Dropout(0.5)(image))
    read = layers.LSTM(8)(layers.Dropout(0.5)(layers.Embedding(V, 6, mask_zero=True)(words)))
    y = layers.Dense(8, activation="relu")(layers.add([seen, read]))
    return keras.Model([image, words], layers.Dense(V, activation="softmax")(y))


@case(Static(), Tokens(V))
def caption_merged_of_fixed_length() -> keras.Model:
    """Tanti et al. 2017, Where to put the image in an image caption generator: merge; Keras tutorials after
    it.

    The same with Input((34,)) of 32 bits of float, as written there.
    """
    image, words = keras.Input((9,), name="image"), keras.Input((34,), name="words")
    seen = layers.Dense(8, activation="relu")(layers.Dropout(0.5)(image))
    read = layers.LSTM(8)(layers.Dropout(0.5)(layers.Embedding(V, 6, mask_zero=True)(words)))
    y = layers.Dense(8, activation="relu")(layers.add([seen, read]))
    return keras.Model([image, words], layers.Dense(V, activation="softmax")(y))


@case(Static(), Tokens(V))
def caption_begun() -> keras.Model:
    """Tanti et al. 2017, Where to put the image in an image caption generator: init-inject.

    A Dense of the image is the state that an LSTM begins from; Embedding, Dense softmax.
    """
    image, words = keras.Input((9,), name="image"), keras.Input((None,), dtype="int32", name="words")
    h, c = layers.Dense(8, activation="tanh")(image), layers.Dense(8)(image)
    y = layers.LSTM(8, return_sequences=True)(layers.Embedding(V, 6)(words), initial_state=[h, c])
    return keras.Model([image, words], layers.Dense(V, activation="softmax")(y))


@case(Static(), Tokens(V), refused="so it has no step")
def caption_prepended() -> keras.Model:
    """Vinyals et al. 2015, Show and Tell: pre-inject.

    The image is the first word: Reshape to one step, Concatenate over time, LSTM, Dense softmax.
    """
    image, words = keras.Input((9,), name="image"), keras.Input((12,), dtype="int32", name="words")
    first = layers.Reshape((1, 6))(layers.Dense(6)(image))
    y = layers.Concatenate(axis=1)([first, layers.Embedding(V, 6)(words)])
    return keras.Model(
        [image, words], layers.Dense(V, activation="softmax")(layers.LSTM(8, return_sequences=True)(y))
    )


@case(Static(), Tokens(V))
def caption_beside_each_word() -> keras.Model:
    """Tanti et al. 2017, par-inject; the first Keras captioning examples.

    RepeatVector of a Dense of the image beside the Embedding of each word, two LSTMs, Dense softmax.
    """
    image, words = keras.Input((9,), name="image"), keras.Input((12,), dtype="int32", name="words")
    seen = layers.RepeatVector(12)(layers.Dense(6, activation="relu")(image))
    y = layers.Concatenate()([seen, layers.Embedding(V, 6)(words)])
    y = layers.LSTM(7, return_sequences=True)(layers.LSTM(8, return_sequences=True)(y))
    return keras.Model([image, words], layers.Dense(V, activation="softmax")(y))


@case(Static(), Tokens(V), State(1))
def caption_by_attention() -> keras.Model:
    """Xu et al. 2015, Show, attend and tell; TensorFlow tutorial of 2019, Image captioning: the decoder.

    One word; the state of its GRU, an input, chooses among the regions of the image by additive attention.
    """
    image, word = keras.Input((24,), name="image"), keras.Input((1,), dtype="int32", name="word")
    hidden = keras.Input((8,), name="hidden")
    regions = layers.Reshape((4, 6))(image)
    scores = layers.Dense(1)(ops.tanh(layers.Dense(7)(regions) + ops.expand_dims(layers.Dense(7)(hidden), 1)))
    seen = ops.sum(ops.softmax(scores, axis=1) * regions, axis=1)
    y = layers.Concatenate()([layers.Embedding(V, 6)(word), ops.expand_dims(seen, 1)])
    y, after = layers.GRU(8, return_state=True)(y, initial_state=hidden)
    return keras.Model([image, word, hidden], [layers.Dense(V, activation="softmax")(y), after])


@case(Signal(), Static())
def cond_rnn() -> keras.Model:
    """philipperemy/cond_rnn, one condition.

    A Dense of the condition is h and c of an LSTM; Dense.
    """
    x, condition = keras.Input((10, 3), name="x"), keras.Input((4,), name="condition")
    begin = layers.Dense(8)(condition)
    return keras.Model([x, condition], layers.Dense(1)(layers.LSTM(8)(x, initial_state=[begin, begin])))


@case(Signal(), Static(), Static())
def cond_rnn_of_two() -> keras.Model:
    """philipperemy/cond_rnn, several conditions.

    A Dense of each condition, stacked, mixed by a Dense of one, the state of a GRU.
    """
    x, first, second = keras.Input((10, 3)), keras.Input((5,)), keras.Input((1,))
    stacked = ops.stack([layers.Dense(6)(first), layers.Dense(6)(second)], axis=-1)
    begin = ops.squeeze(layers.Dense(1)(stacked), axis=-1)
    y = layers.GRU(6)(x, initial_state=begin)
    return keras.Model([x, first, second], layers.Dense(1)(y))


class ConditionalRecurrent(layers.Layer):
    """A wrapper that begins its layer from a Dense of the condition."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer, self.dense = layer, layers.Dense(layer.units)

    def build(self, shapes: Any) -> None:
        self.layer.build(shapes[0])
        self.dense.build(shapes[1])

    def call(self, inputs: Any) -> Any:
        return self.layer(inputs[0], initial_state=self.dense(inputs[1]))


@case(Signal(), Static(), refused="reads other time steps")
def cond_rnn_as_a_wrapper() -> keras.Model:
    """philipperemy/cond_rnn, as its package has it.

    A wrapper of one's own around a GRU; Dense.
    """
    x, condition = keras.Input((10, 3)), keras.Input((4,))
    y = ConditionalRecurrent(layers.GRU(6))([x, condition])
    return keras.Model([x, condition], layers.Dense(1)(y))


@case(Tokens(V), Static(), refused="reads other time steps")
def textgenrnn_with_context() -> keras.Model:
    """minimaxir/textgenrnn, with a context.

    Embedding, LSTM, an average over time, the context beside it; two outputs.
    """
    x, context = keras.Input((None,), dtype="int32", name="input"), keras.Input((4,), name="context_input")
    embedded = layers.Embedding(V, 6)(x)
    y = layers.concatenate([embedded, layers.LSTM(6, return_sequences=True)(embedded)])
    y = AttentionWeightedAverage(name="attention")(y)
    merged = layers.concatenate([y, layers.Reshape((4,), name="context_reshape")(context)])
    outputs = [layers.Dense(V, activation="softmax")(t) for t in (merged, y)]
    return keras.Model([x, context], outputs)


@case(Tokens(V), Static())
def context_of_a_review() -> keras.Model:
    """Lipton et al. 2015, Generative concatenative nets, its input of what a review is about, joined late.

    Embedding, LSTM that speaks at the end, a vector of 6 concatenated before the Dense softmax.
    """
    x, about = keras.Input((None,), dtype="int32", name="text"), keras.Input((6,), name="about")
    y = layers.LSTM(8)(layers.Embedding(V, 6)(x))
    return keras.Model([x, about], layers.Dense(V, activation="softmax")(layers.Concatenate()([y, about])))


@case(Signal(), Static())
def amplifier_with_knobs() -> keras.Model:
    """Wright et al. 2020, Real-time guitar amplifier emulation: knobs.

    Two settings repeated beside each sample, LSTM, Dense, the sample added.
    """
    x, knobs = keras.Input((64, 1), name="samples"), keras.Input((2,), name="knobs")
    y = layers.Concatenate()([x, layers.RepeatVector(64)(knobs)])
    return keras.Model(
        [x, knobs], layers.Add()([x, layers.Dense(1)(layers.LSTM(8, return_sequences=True)(y))])
    )


@case(Signal(), Static())
def steerable_tcn() -> keras.Model:
    """Steinmetz and Reiss 2022, Efficient neural networks for audio effects: FiLM.

    Causal dilated Conv1Ds, each multiplied and shifted by Dense layers of the settings; residuals.
    """
    x, settings = keras.Input((None, 1), name="samples"), keras.Input((2,), name="settings")
    told = layers.Dense(6, activation="relu")(settings)
    y = layers.Conv1D(5, 1)(x)
    for dilation in (1, 4):
        z = layers.Conv1D(5, 3, padding="causal", dilation_rate=dilation, use_bias=False)(y)
        scale, shift = (ops.expand_dims(layers.Dense(5)(told), 1) for _ in range(2))
        y = layers.Add()([y, layers.PReLU(shared_axes=[1])(z * scale + shift)])
    return keras.Model([x, settings], layers.Conv1D(1, 1)(y))


@case(Signal(), Signal())
def compressor() -> keras.Model:
    """Simionato and Fasciani 2022, Deep learning conditioned modelling of optical compression.

    Settings that are given at each sample: LSTM, FiLM by them (a Dense cut in two), LSTM, Dense tanh.
    """
    x, settings = keras.Input((None, 1), name="input"), keras.Input((None, 2), name="cond")
    y = layers.LSTM(6, return_sequences=True)(x)
    scale, shift = ops.split(layers.Dense(12)(settings), 2, axis=-1)
    y = layers.Activation("softsign")(y * scale + shift)
    y = layers.LSTM(6, return_sequences=True)(y)
    return keras.Model([x, settings], layers.Dense(1, activation="tanh")(y))


@case(Tokens(V), Static())
def sentence_vae() -> keras.Model:
    """Bowman et al. 2016, Generating sentences from a continuous space: the decoder.

    The latent vector begins a GRU by a Dense and stands beside every word by RepeatVector.
    """
    words, z = keras.Input((15,), dtype="int32", name="words"), keras.Input((4,), name="z")
    y = layers.Concatenate()([layers.Embedding(V, 6)(words), layers.RepeatVector(15)(z)])
    y = layers.GRU(8, return_sequences=True)(y, initial_state=layers.Dense(8, activation="tanh")(z))
    return keras.Model([words, z], layers.Dense(V)(y))


@case(Signal(), Static(count=5))
def speaker() -> keras.Model:
    """Arik et al. 2017, Deep Voice 2: speaker embeddings.

    An Embedding of the speaker through Dense softsign, added to each frame before a GRU; Dense.
    """
    x, who = keras.Input((None, 6), name="frames"), keras.Input((), dtype="int32", name="speaker")
    told = layers.Dense(6, activation="softsign")(layers.Embedding(5, 4)(who))
    y = layers.GRU(8, return_sequences=True)(x + ops.expand_dims(told, 1))
    return keras.Model([x, who], layers.Dense(6)(y))


@case(Signal(), Static(count=5))
def speaker_in_a_row_of_one() -> keras.Model:
    """Ping et al. 2018, Deep Voice 3: speaker embeddings; as Keras programs give an index, Input((1,)).

    An Embedding of one index, which is broadcast over the frames, GRU, Dense.
    """
    x, who = keras.Input((None, 6), name="frames"), keras.Input((1,), dtype="int32", name="speaker")
    told = layers.Dense(6, activation="softsign")(layers.Embedding(5, 4)(who))
    return keras.Model(
        [x, who], layers.Dense(6)(layers.GRU(8, return_sequences=True)(layers.Add()([x, told])))
    )


class Sampling(layers.Layer):
    """A number of a normal distribution, drawn anew at each call."""

    def call(self, mean: Any, log_variance: Any) -> Any:
        return mean + ops.exp(log_variance / 2) * keras.random.normal(ops.shape(mean))


@case(Signal(), refused="so it has no step")
def variational_rnn() -> keras.Model:
    """Chung et al. 2015, A recurrent latent variable model; the Sampling layer of the Keras guides.

    Dense of a mean and a variance, a layer that draws, LSTM, Dense.
    """
    x = keras.Input((None, 6))
    z = Sampling()(layers.Dense(4)(x), layers.Dense(4)(x))
    return keras.Model(x, layers.Dense(6)(layers.LSTM(8, return_sequences=True)(z)))


@case(Signal())
def music_generation() -> keras.Model:
    """TensorFlow tutorial, Generate music with an RNN.

    LSTM over windows of 25 notes; pitch, step and duration by name.
    """
    x = keras.Input((25, 3))
    y = layers.LSTM(8)(x)
    heads = {"pitch": 12, "step": 1, "duration": 1}
    return keras.Model(x, {name: layers.Dense(units, name=name)(y) for name, units in heads.items()})


@case(OneHot(), Signal())
def performance_rnn() -> keras.Model:
    """Simon and Oore 2017, Performance RNN; magenta/magenta, with control.

    One-hot events and control signals at each, three LSTM cells with Dropout, Dense.
    """
    event, control = keras.Input((None, V), name="event"), keras.Input((None, 3), name="control")
    y = layers.Concatenate()([control, event])
    for _ in range(3):
        y = layers.Dropout(0.1)(layers.RNN(layers.LSTMCell(6), return_sequences=True)(y))
    return keras.Model([event, control], layers.Dense(V)(y))


@case(Signal(), State(0), State(0), refused="so it has no step")
def jazz() -> keras.Model:
    """deeplearning.ai, Sequence Models, Improvise a jazz solo.

    One LSTM called for each of 6 steps that are cut out of the sequence, as many outputs.
    """
    x, a, c = keras.Input((6, 9), name="x"), keras.Input((6,), name="a0"), keras.Input((6,), name="c0")
    reshape, dense = layers.Reshape((1, 9)), layers.Dense(9, activation="softmax")
    lstm = layers.LSTM(6, return_state=True)
    states, outputs = [a, c], []
    for t in range(6):
        _, *states = lstm(reshape(x[:, t, :]), initial_state=states)
        outputs.append(dense(states[0]))
    return keras.Model([x, a, c], outputs)


@case(Signal(), Signal(), refused="moves the time axis")
def deep_j() -> keras.Model:
    """Mao et al. 2018, DeepJ; calclavia/DeepJ: the model of the time axis.

    TimeDistributed Conv1D over the notes, Permute, a style added, a TimeDistributed LSTM over time, Permute.
    """
    notes, style = keras.Input((8, 6, 3), name="notes"), keras.Input((8, 4), name="style")
    y = layers.Activation("tanh")(layers.TimeDistributed(layers.Conv1D(5, 4, padding="same"))(notes))
    y = layers.Permute((2, 1, 3))(layers.Dropout(0.5)(y))
    told = layers.Permute((2, 1, 3))(layers.TimeDistributed(layers.RepeatVector(6))(layers.Dense(5)(style)))
    y = layers.TimeDistributed(layers.LSTM(6, return_sequences=True))(
        layers.Add()([y, layers.Activation("tanh")(told)])
    )
    return keras.Model([notes, style], layers.Permute((2, 1, 3))(y))
