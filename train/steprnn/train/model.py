"""The model: stock Keras layers from characters to the logits of the next one."""

from __future__ import annotations

from typing import Any

import keras

from .settings import Settings

# Of a one-hot vector one element is not zero, so the rows of the first kernel are embeddings. Keras's default
# divides their variance by the size of the vocabulary, as if all elements were at work: learning then takes
# three times as many epochs.
ONE_HOT_STDDEV = 0.5

_LAYERS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}


def build(vocabulary: int, settings: Settings) -> Any:
    """A functional model from tokens to logits and states.

    In: `tokens` int32 `[batch, time]`, both free. Out: a list of the logits float32
    `[batch, time, vocabulary]` and every state float32 `[batch, units]` after the last step, layer by
    layer: h and c of an LSTM, h of a GRU or simple RNN. Not stateful: each call begins at zero states.

    A single recurrent layer is named `lstm`, `gru` or `rnn`, several `lstm_1`, `lstm_2`, ...; the head is
    `logits`. The weights follow Keras's random seed (`keras.utils.set_random_seed`).
    """
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    if settings.embedding:
        sequence = keras.layers.Embedding(vocabulary, settings.embedding, name="embedding")(tokens)
    else:
        sequence = keras.ops.one_hot(tokens, vocabulary)
    outputs = []
    for number in range(1, settings.layers + 1):
        name = settings.cell if settings.layers == 1 else f"{settings.cell}_{number}"
        options = {}
        if number == 1 and not settings.embedding:
            options["kernel_initializer"] = keras.initializers.RandomNormal(stddev=ONE_HOT_STDDEV)
        layer = _LAYERS[settings.cell](
            settings.units, return_sequences=True, return_state=True, name=name, **options
        )
        sequence, *states = layer(sequence)
        outputs += states
        if settings.dropout:
            sequence = keras.layers.Dropout(settings.dropout, name=f"dropout_{number}")(sequence)
    logits = keras.layers.Dense(vocabulary, name="logits")(sequence)
    return keras.Model(tokens, [logits, *outputs], name="steprnn")
