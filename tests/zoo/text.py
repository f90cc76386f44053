"""Models of text: characters, words, and what else comes in tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

from .case import OneHot, Signal, State, Tokens, case

V = 13


def as_file(model: keras.Model, folder: Path) -> Path:
    """The model in Keras 3's own format."""
    path = folder / "model.keras"
    model.save(path)
    return path


@case(OneHot())
def characters_of_nietzsche() -> keras.Model:
    """Keras example, Character-level text generation with LSTM.

    LSTM over windows of 40 one-hot characters, Dense softmax.
    """
    return keras.Sequential([layers.Input((40, V)), layers.LSTM(8), layers.Dense(V, activation="softmax")])


@case(Tokens(V), refused="reads the sequence from both ends")
def imdb_bidirectional() -> keras.Model:
    """Keras example, Bidirectional LSTM on IMDB.

    Embedding, two Bidirectional LSTMs, Dense sigmoid.
    """
    x = keras.Input((None,), dtype="int32")
    y = layers.Embedding(V, 6)(x)
    y = layers.Bidirectional(layers.LSTM(5, return_sequences=True))(y)
    y = layers.Bidirectional(layers.LSTM(5))(y)
    return keras.Model(x, layers.Dense(1, activation="sigmoid")(y))


@case(Tokens(V))
def imdb_lstm() -> keras.Model:
    """Keras 2 example, imdb_lstm.

    Embedding, LSTM with dropout and recurrent dropout, Dense sigmoid.
    """
    x = keras.Input((None,), dtype="int32")
    y = layers.LSTM(8, dropout=0.2, recurrent_dropout=0.2)(layers.Embedding(V, 8)(x))
    return keras.Model(x, layers.Dense(1, activation="sigmoid")(y))


@case(Tokens(V), refused="shortens the sequence (padding='valid')")
def imdb_cnn_lstm() -> keras.Model:
    """Keras 2 example, imdb_cnn_lstm.

    Embedding, Conv1D valid, MaxPooling1D of 4, LSTM, Dense sigmoid.
    """
    return keras.Sequential(
        [
            layers.Input((100,), dtype="int32"),
            layers.Embedding(V, 6),
            layers.Dropout(0.25),
            layers.Conv1D(6, 5, padding="valid", activation="relu", strides=1),
            layers.MaxPooling1D(4),
            layers.LSTM(7),
            layers.Dense(1),
            layers.Activation("sigmoid"),
        ]
    )


class Tutorial(keras.Model):
    """A language model whose `call` takes and gives its state."""

    def __init__(self, units: int = 8) -> None:
        super().__init__()
        self.embedding = layers.Embedding(V, 6)
        self.gru = layers.GRU(units, return_sequences=True, return_state=True)
        self.dense = layers.Dense(V)

    def call(
        self, inputs: Any, states: Any = None, return_state: bool = False, training: bool = False
    ) -> Any:
        x = self.embedding(inputs)
        if states is None:
            states = self.gru.get_initial_state(batch_size=ops.shape(x)[0])
        x, states = self.gru(x, initial_state=states, training=training)
        x = self.dense(x)
        return (x, states) if return_state else x


@case(Tokens(V), refused="has no graph to read")
def text_generation_tutorial() -> keras.Model:
    """TensorFlow tutorial, Text generation with an RNN.

    A subclass: Embedding, GRU that gives its state, Dense.
    """
    model = Tutorial()
    model(ops.zeros((1, 4), "int32"))
    return model


@case(Tokens(V), State(1))
def text_generation_tutorial_made_functional() -> keras.Model:
    """TensorFlow tutorial, Text generation with an RNN.

    The same, called by name on symbolic inputs, as docs/supported-layers.md says.
    """
    tokens, h = keras.Input((None,), dtype="int32"), keras.Input((8,))
    return keras.Model([tokens, h], Tutorial().call(tokens, states=h, return_state=True))


@case(Tokens(V))
def text_generation_for_one_row() -> keras.Model:
    """TensorFlow 1 tutorial, Text generation with eager execution.

    Embedding, stateful GRU, Dense; built again for a batch of one to generate.
    """
    return keras.Sequential(
        [
            layers.Input(batch_shape=(1, None)),
            layers.Embedding(V, 6),
            layers.GRU(8, return_sequences=True, recurrent_initializer="glorot_uniform", stateful=True),
            layers.Dense(V),
        ]
    )


def char_rnn(rows: int, steps: int) -> keras.Model:
    """Three stateful LSTMs."""
    stack: list[Any] = [layers.Input(batch_shape=(rows, steps)), layers.Embedding(V, 6)]
    for _ in range(3):
        stack += [layers.LSTM(6, return_sequences=True, stateful=True), layers.Dropout(0.2)]
    return keras.Sequential([*stack, layers.TimeDistributed(layers.Dense(V)), layers.Activation("softmax")])


@case(Tokens(V))
def char_rnn_as_trained() -> keras.Model:
    """ekzhang/char-rnn-keras.

    Embedding, three stateful LSTMs with Dropout, TimeDistributed Dense, softmax; 16 rows of 64 steps.
    """
    return char_rnn(16, 64)


@case(Tokens(V))
def char_rnn_as_sampled() -> keras.Model:
    """ekzhang/char-rnn-keras.

    The same built for one row of one step.
    """
    return char_rnn(1, 1)


@case(OneHot())
def char_rnn_of_hands_on() -> keras.Model:
    """Hands-On Machine Learning 2, chapter 16.

    Two GRUs with dropout over one-hot characters, TimeDistributed Dense softmax.
    """
    return keras.Sequential(
        [
            layers.Input((None, V)),
            layers.GRU(7, return_sequences=True, dropout=0.2),
            layers.GRU(7, return_sequences=True, dropout=0.2),
            layers.TimeDistributed(layers.Dense(V, activation="softmax")),
        ]
    )


@case(OneHot())
def char_rnn_of_hands_on_stateful() -> keras.Model:
    """Hands-On Machine Learning 2, chapter 16.

    The same, stateful, for 32 rows.
    """
    return keras.Sequential(
        [
            layers.Input(batch_shape=(32, None, V)),
            layers.GRU(7, return_sequences=True, stateful=True, dropout=0.2),
            layers.GRU(7, return_sequences=True, stateful=True, dropout=0.2),
            layers.TimeDistributed(layers.Dense(V, activation="softmax")),
        ]
    )


@case(Tokens(V))
def mini_language_model() -> keras.Model:
    """Deep Learning with Python 3, chapter 15.

    Embedding, GRU, Dropout, Dense softmax over windows of 100 tokens of 64 bits.
    """
    x = keras.Input((100,), dtype="int64", name="token_ids")
    y = layers.GRU(8, return_sequences=True)(layers.Embedding(V, 6)(x))
    return keras.Model(x, layers.Dense(V, activation="softmax")(layers.Dropout(0.1)(y)))


@case(Tokens(V), State(1))
def mini_language_model_that_generates() -> keras.Model:
    """Deep Learning with Python 3, chapter 15.

    The same for one token, the state of its GRU an input and an output.
    """
    x, state = keras.Input((1,), dtype="int64", name="token_ids"), keras.Input((8,), name="state")
    y, after = layers.GRU(8, return_state=True)(layers.Embedding(V, 6)(x), initial_state=state)
    return keras.Model((x, state), (layers.Dense(V, activation="softmax")(y), after))


class AttentionWeightedAverage(layers.Layer):
    """An average over time, weighted by a softmax over time."""

    def build(self, shape: Any) -> None:
        self.weight = self.add_weight(shape=(shape[-1], 1), name="weight")

    def call(self, x: Any) -> Any:
        return ops.sum(x * ops.softmax(x @ self.weight, axis=1), axis=1)


@case(Tokens(V), refused="reads other time steps")
def textgenrnn() -> keras.Model:
    """minimaxir/textgenrnn.

    Embedding, two LSTMs, all three concatenated, an average over time weighted by attention, Dense softmax.
    """
    x = keras.Input((40,), dtype="int32", name="input")
    embedded = layers.SpatialDropout1D(0.1)(layers.Embedding(V, 6)(x))
    first = layers.LSTM(6, return_sequences=True, recurrent_activation="sigmoid", name="rnn_1")(embedded)
    second = layers.LSTM(6, return_sequences=True, recurrent_activation="sigmoid", name="rnn_2")(first)
    y = AttentionWeightedAverage(name="attention")(layers.concatenate([embedded, first, second]))
    return keras.Model(x, layers.Dense(V, activation="softmax", name="output")(y))


@case(Tokens(V), save=as_file, trust=True)
def one_hot_in_a_lambda() -> keras.Model:
    """offbit/char-models, the language model of its blog post.

    A Lambda that makes characters one-hot, LSTM, Dense softmax; a file that brings this code.
    """
    x = keras.Input((None,), dtype="int32", name="characters")
    y = layers.Lambda(lambda t: __import__("keras").ops.one_hot(t, 13), output_shape=(None, V))(x)
    y = layers.LSTM(8, return_sequences=True)(y)
    return keras.Model(x, layers.TimeDistributed(layers.Dense(V, activation="softmax"))(y))


@case(Tokens(V))
def one_hot_in_a_lambda_of_windows() -> keras.Model:
    """offbit/char-models, the language model of its blog post.

    The same over windows of 50 characters, in memory.
    """
    x = keras.Input((50,), dtype="int64", name="characters")
    y = layers.Lambda(lambda t: ops.one_hot(t, V), output_shape=(50, V))(x)
    return keras.Model(x, layers.Dense(V, activation="softmax")(layers.LSTM(8)(y)))


@case(OneHot())
def gru4rec() -> keras.Model:
    """GRU4Rec (Hidasi et al. 2016), its Keras version.

    Stateful GRU on one item at a time of 20 sessions, Dropout, Dense softmax.
    """
    x = keras.Input(batch_shape=(20, 1, V))
    y, _ = layers.GRU(7, stateful=True, return_state=True, name="GRU")(x)
    return keras.Model(x, layers.Dense(V, activation="softmax")(layers.Dropout(0.25)(y)))


@case(OneHot(), OneHot(), refused="begins from a state that is computed from other inputs")
def translation_of_characters() -> keras.Model:
    """Keras example, Character-level recurrent sequence-to-sequence model.

    An LSTM whose states begin a second one: the model that is trained.
    """
    source, target = keras.Input((None, V)), keras.Input((None, V))
    _, *states = layers.LSTM(6, return_state=True)(source)
    y, _, _ = layers.LSTM(6, return_sequences=True, return_state=True)(target, initial_state=states)
    return keras.Model([source, target], layers.Dense(V, activation="softmax")(y))


@case(OneHot(), State(1), State(2))
def translation_of_characters_decoder() -> keras.Model:
    """Keras example, Character-level recurrent sequence-to-sequence model.

    The decoder that its inference loop calls: states in, states out.
    """
    target, h, c = keras.Input((None, V)), keras.Input((6,)), keras.Input((6,))
    lstm = layers.LSTM(6, return_sequences=True, return_state=True)
    y, *after = lstm(target, initial_state=[h, c])
    return keras.Model([target, h, c], [layers.Dense(V, activation="softmax")(y), *after])


@case(OneHot(), refused="makes a sequence from one vector")
def addition() -> keras.Model:
    """Keras example, Sequence to sequence learning for performing number addition.

    LSTM, RepeatVector, LSTM, Dense softmax.
    """
    return keras.Sequential(
        [
            layers.Input((7, V)),
            layers.LSTM(7),
            layers.RepeatVector(4),
            layers.LSTM(7, return_sequences=True),
            layers.Dense(V, activation="softmax"),
        ]
    )


class Block(layers.Layer):
    """A transformer block: causal self-attention, then a feed-forward network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, width // 2)
        self.feed = keras.Sequential([layers.Dense(width, activation="relu"), layers.Dense(width)])
        self.first, self.second = (
            layers.LayerNormalization(epsilon=1e-6),
            layers.LayerNormalization(epsilon=1e-6),
        )

    def call(self, x: Any) -> Any:
        x = self.first(x + self.attention(x, x, use_causal_mask=True))
        return self.second(x + self.feed(x))


class Places(layers.Layer):
    """The embedding of a token and that of its place."""

    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        self.tokens, self.places = layers.Embedding(V, width), layers.Embedding(steps, width)

    def call(self, x: Any) -> Any:
        return self.tokens(x) + self.places(ops.arange(ops.shape(x)[-1]))


@case(Tokens(V), refused="depends on the index of the time step")
def miniature_gpt() -> keras.Model:
    """Keras example, Text generation with a miniature GPT.

    Embeddings of tokens and places, one transformer block with a causal mask, Dense.
    """
    x = keras.Input((20,), dtype="int32")
    return keras.Model(x, layers.Dense(V)(Block(8)(Places(20, 8)(x))))


@case(Tokens(V), refused="looks at other time steps")
def attention_over_an_lstm() -> keras.Model:
    """Keras documentation of the layer Attention, and the many models made after it.

    Embedding, LSTM, self-attention with a causal mask, Dense.
    """
    x = keras.Input((None,), dtype="int32")
    y = layers.LSTM(6, return_sequences=True)(layers.Embedding(V, 6)(x))
    y = layers.Attention()([y, y], use_causal_mask=True)
    return keras.Model(x, layers.Dense(V)(y))


@case(Tokens(V))
def padded_words() -> keras.Model:
    """Keras guide, Understanding masking and padding.

    Embedding that masks the padding, LSTM, Dense softmax.
    """
    x = keras.Input((None,), dtype="int32")
    y = layers.LSTM(7, return_sequences=True)(layers.Embedding(V, 6, mask_zero=True)(x))
    return keras.Model(x, layers.Dense(V, activation="softmax")(y))


@case(Tokens(V))
def sentiment_with_a_mask_by_hand() -> keras.Model:
    """Hands-On Machine Learning 2, chapter 16.

    A Lambda that tells the padding, given to two GRUs as their mask; Dense sigmoid.
    """
    x = keras.Input((None,), dtype="int32")
    mask = layers.Lambda(lambda t: ops.not_equal(t, 0), output_shape=(None,))(x)
    y = layers.GRU(6, return_sequences=True)(layers.Embedding(V, 6)(x), mask=mask)
    return keras.Model(x, layers.Dense(1, activation="sigmoid")(layers.GRU(6)(y, mask=mask)))


@case(Tokens(V))
def residual_stack() -> keras.Model:
    """Wu et al. 2016, Google's neural machine translation, its decoder without attention.

    Embedding, four LSTMs with residual connections from the third on, Dense.
    """
    x = keras.Input((None,), dtype="int32")
    y = layers.Embedding(V, 6)(x)
    for i in range(4):
        z = layers.LSTM(6, return_sequences=True)(y)
        y = layers.Add()([y, z]) if i > 1 else z
    return keras.Model(x, layers.Dense(V)(y))


@case(Tokens(V))
def highway_stack() -> keras.Model:
    """Zhang et al. 2016, Highway LSTM; Kim et al. 2016, Character-aware neural language models.

    Embedding, highway layer (a gate between a Dense and its input), LSTM, highway layer, Dense.
    """

    def highway(y: Any) -> Any:
        gate = layers.Dense(6, activation="sigmoid", bias_initializer=keras.initializers.Constant(-2.0))(y)
        carry = layers.Lambda(lambda t: 1.0 - t)(gate)
        return layers.Add()(
            [layers.Multiply()([gate, layers.Dense(6, activation="relu")(y)]), layers.Multiply()([carry, y])]
        )

    x = keras.Input((None,), dtype="int32")
    y = highway(layers.LSTM(6, return_sequences=True)(highway(layers.Embedding(V, 6)(x))))
    return keras.Model(x, layers.Dense(V)(y))


class Tied(layers.Layer):
    """Logits by the matrix of an Embedding, transposed."""

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.embedding = embedding

    def build(self, shape: Any) -> None:
        self.bias = self.add_weight(shape=(V,), name="bias")

    def call(self, x: Any) -> Any:
        return x @ ops.transpose(self.embedding.embeddings) + self.bias


@case(Tokens(V))
def tied_embedding() -> keras.Model:
    """Press and Wolf 2017, Using the output embedding to improve language models.

    Embedding, two LSTMs, a layer of one's own that multiplies by the Embedding's matrix.
    """
    x = keras.Input((None,), dtype="int32")
    embedding = layers.Embedding(V, 6)
    y = layers.LSTM(6, return_sequences=True)(layers.LSTM(7, return_sequences=True)(embedding(x)))
    return keras.Model(x, Tied(embedding)(y))


@case(Tokens(V))
def gated_convolutions() -> keras.Model:
    """Dauphin et al. 2017, Language modeling with gated convolutional networks; DingKe/nn_playground.

    Embedding, causal Conv1Ds multiplied by the sigmoid of another, residuals, Dense.
    """
    x = keras.Input((None,), dtype="int32")
    y = layers.Embedding(V, 6)(x)
    for _ in range(2):
        linear = layers.Conv1D(6, 4, padding="causal")(y)
        gate = layers.Conv1D(6, 4, padding="causal", activation="sigmoid")(y)
        y = layers.Add()([y, layers.Multiply()([linear, gate])])
    return keras.Model(x, layers.Dense(V)(y))


@case(Signal(masked=-1.0))
def knowledge_tracing() -> keras.Model:
    """Piech et al. 2015, Deep knowledge tracing, its Keras version.

    Masking, LSTM with dropout, TimeDistributed Dense sigmoid.
    """
    x = keras.Input((None, 8), name="inputs")
    y = layers.LSTM(6, return_sequences=True, dropout=0.2)(layers.Masking(-1.0)(x))
    return keras.Model(x, layers.TimeDistributed(layers.Dense(4, activation="sigmoid"), name="outputs")(y))


@case(Tokens(V), Signal(), refused="looks at other time steps")
def attention_decoder() -> keras.Model:
    """TensorFlow tutorial, Neural machine translation with attention; the decoder.

    Embedding, GRU, attention over the encoded source, Add, LayerNormalization, Dense.
    """
    target, context = (
        keras.Input((None,), dtype="int32", name="target"),
        keras.Input((None, 6), name="context"),
    )
    y = layers.GRU(6, return_sequences=True)(layers.Embedding(V, 6)(target))
    attended = layers.MultiHeadAttention(1, 6)(query=y, value=context)
    y = layers.LayerNormalization()(layers.Add()([y, attended]))
    return keras.Model([target, context], layers.Dense(V)(y))
