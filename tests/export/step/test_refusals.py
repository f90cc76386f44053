"""Every refusal: the layer by its name, the reason, and what to do instead; and the document of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("keras")
pytest.importorskip("tensorflow")

import keras
from keras import layers, ops

from steprnn.export.check.proofs import prove
from steprnn.export.step.derive import derive
from steprnn.export.step.layers import PAD, PAD_2D, REFUSED, REFUSED_WITHOUT_TIME
from steprnn.runtime.errors import ExportError

from ..models import ACTIVATIONS, CASES, functional, sequence

# A convolution drops the mask of its input, and Keras says so each time.
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")

DOCUMENT = Path(__file__).parents[3] / "docs" / "supported-layers.md"


def lstm(units: int = 4, **options: Any) -> Any:
    return layers.LSTM(units, return_sequences=True, **options)


def refused(model: Any) -> str:
    """The words with which a model is refused, by the derivation or by a proof."""
    with pytest.raises(ExportError) as raised:
        prove(derive(model))
    words = str(raised.value)
    assert "\n" not in words
    return words


def twice(layer: Any) -> Callable[[], Any]:
    """A model that gives the layer the same sequence twice."""

    def body(x: Any) -> Any:
        y = lstm()(x)
        return layer([y, y])

    return lambda: functional(body)


def behind(layer: Any, time: int | None = None) -> Callable[[], Any]:
    return lambda: sequence(lstm(), layer, time=time)


def images(layer: Any, rank: int) -> Callable[[], Any]:
    """A layer that reads images `[time, 8, ...]`, before an LSTM of what is left of them."""

    def build() -> Any:
        x = keras.Input((6, *[8] * rank, 2))
        y = layer(x)
        return keras.Model(x, layers.LSTM(2)(layers.TimeDistributed(layers.Flatten())(y)))

    return build


def behind_transposed(layer: Any) -> Callable[[], Any]:
    """A layer behind a transposed convolution that is longer than the sequence."""
    up = layers.Conv2DTranspose(3, (2, 3))
    return lambda: keras.Sequential([layers.Input((None, 6, 2)), up, layer])


def padded(widths: Any, constant_values: Any = None, **options: Any) -> Callable[[], Any]:
    """`ops.pad` before a convolution that would take it up."""

    def body(x: Any) -> Any:
        y = ops.pad(x, widths, constant_values=constant_values, **options)
        return layers.Conv1D(4, 3)(y)

    return lambda: functional(body)


def behind_letters(length: int | None) -> Callable[[], Any]:
    """An LSTM over the letters of each word."""

    def build() -> Any:
        x = keras.Input((None, length, 3))
        return keras.Model(x, lstm()(layers.TimeDistributed(layers.LSTM(2), name="odd")(x)))

    return build


def words_of_letters() -> Any:
    """A mask of letters in words, which is one of words and letters to Keras."""
    x = keras.Input((None, 5, 3))
    inner = layers.TimeDistributed(layers.LSTM(4))(layers.Masking()(x))
    return keras.Model(x, layers.LSTM(3)(inner))


class Counting(layers.Layer):
    """A cell that counts its calls in a variable."""

    def __init__(self) -> None:
        super().__init__()
        self.state_size = self.output_size = 4
        self.calls = self.add_weight(shape=(), trainable=False)

    def call(self, x: Any, states: Any) -> Any:
        self.calls.assign_add(1.0)
        h = ops.tanh(x + states[0])
        return h, [h]


class Noise(layers.Layer):
    """Drawn anew at each call, in use too."""

    def call(self, x: Any) -> Any:
        return x + keras.random.normal(ops.shape(x))


def pooled(layer: Any) -> Callable[[], Any]:
    """A layer that makes one vector of a spectrogram, beside an LSTM."""

    def build() -> Any:
        x = keras.Input((6, 8, 2))
        last = layers.LSTM(2)(layers.TimeDistributed(layers.Flatten())(x))
        return keras.Model(x, layers.Concatenate()([layer(x), last]))

    return build


# By class: a model that has this layer, named "odd", where it cannot be.
ODD: dict[str, Callable[[], Any]] = {
    "Bidirectional": lambda: sequence(layers.Bidirectional(lstm(), name="odd")),
    "Attention": twice(layers.Attention(name="odd")),
    "AdditiveAttention": twice(layers.AdditiveAttention(name="odd")),
    "MultiHeadAttention": lambda: functional(
        lambda x: lstm()(layers.MultiHeadAttention(2, 4, name="odd")(x, x))
    ),
    "GroupedQueryAttention": lambda: functional(
        lambda x: lstm()(layers.GroupQueryAttention(4, 2, 1, name="odd")(x, x))
    ),
    "AveragePooling1D": behind(layers.AveragePooling1D(2, name="odd")),
    "MaxPooling1D": behind(layers.MaxPooling1D(1, name="odd")),
    "GlobalAveragePooling1D": behind(layers.GlobalAveragePooling1D(name="odd")),
    "GlobalMaxPooling1D": behind(layers.GlobalMaxPooling1D(name="odd")),
    "Flatten": behind(layers.Flatten(name="odd"), 6),
    "Permute": behind(layers.Permute((2, 1), name="odd"), 6),
    "Dot": twice(layers.Dot(2, name="odd")),
    "UpSampling1D": behind(layers.UpSampling1D(name="odd")),
    "Cropping1D": behind(layers.Cropping1D((1, 0), name="odd")),
    "Conv1DTranspose": behind(layers.Conv1DTranspose(4, 2, name="odd")),
    "GlobalAveragePooling2D": pooled(layers.GlobalAveragePooling2D(name="odd")),
    "GlobalMaxPooling2D": pooled(layers.GlobalMaxPooling2D(name="odd")),
    "Conv3D": images(layers.Conv3D(3, 3, padding="same", name="odd"), 2),
    "ConvLSTM1D": images(layers.ConvLSTM1D(3, 3, return_sequences=True, name="odd"), 1),
    "ConvLSTM2D": images(layers.ConvLSTM2D(3, 3, return_sequences=True, name="odd"), 2),
    "ConvLSTM3D": images(layers.ConvLSTM3D(3, 3, return_sequences=True, name="odd"), 3),
    "GroupNormalization": behind(layers.GroupNormalization(2, name="odd")),
    "RepeatVector": lambda: sequence(layers.LSTM(4), layers.RepeatVector(3, name="odd"), lstm(2)),
}
ADAPTIVE = {"AdaptiveAveragePooling1D", "AdaptiveMaxPooling1D"}  # which Keras 3.12 does not have
for pooling in ADAPTIVE & {*dir(layers)}:
    ODD[pooling] = behind(getattr(layers, pooling)(2, name="odd"), 6)


def test_every_kind_that_is_refused_is_tried() -> None:
    assert {*REFUSED, *REFUSED_WITHOUT_TIME} - ADAPTIVE == {*ODD} - ADAPTIVE


@pytest.mark.parametrize("kind", [k for k in (*REFUSED, *REFUSED_WITHOUT_TIME) if k in ODD])
def test_a_layer_that_has_no_step(kind: str) -> None:
    reason, instead = (REFUSED | REFUSED_WITHOUT_TIME)[kind]
    assert refused(ODD[kind]()) == f"layer 'odd' ({kind}) {reason}, so it has no step; {instead}"


def conv(**options: Any) -> Any:
    return layers.Conv1D(4, 3, name="odd", **options)


def transposed() -> Any:
    x = keras.Input((6, 4))
    return keras.Model(x, layers.LSTM(3)(ops.transpose(lstm()(x), (0, 2, 1))))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: sequence(lstm(go_backwards=True, name="odd")),
            "layer 'odd' (LSTM) reads the sequence backwards (go_backwards=True), so it has no step; "
            "train it forwards",
        ),
        (
            lambda: sequence(conv(padding="causal", strides=2), lstm()),
            "layer 'odd' (Conv1D) strides over time (by 2), so it has no step; "
            "use strides=1, or let one step of the model be a block of 2 time steps",
        ),
        (
            images(layers.Conv2D(3, (1, 3), strides=(3, 1), name="odd"), 1),
            "layer 'odd' (Conv2D) strides over time (by 3), so it has no step; "
            "use (1, ...), or let one step of the model be a block of 3 time steps",
        ),
        (
            images(layers.MaxPooling2D(2, name="odd"), 1),
            "layer 'odd' (MaxPooling2D) pools over time (by 2), so it has no step; "
            "use (1, ...), or let one step of the model be a block of 2 time steps",
        ),
        (
            images(layers.Conv2D(3, 3, padding="same", name="odd"), 1),
            f"layer 'odd' (Conv2D) sees the future (padding='same'), so it has no step; {PAD_2D}",
        ),
        (
            images(layers.Conv2DTranspose(3, (2, 3), padding="same", name="odd"), 1),
            "layer 'odd' (Conv2DTranspose) sees the future (padding='same'), so it has no step; "
            "use padding='valid', and crop the last kernel - 1 time steps: Cropping2D(((0, k - 1), (0, 0)))",
        ),
        (
            behind_transposed(layers.ELU(name="odd")),
            "layer 'odd' (ELU) reads 1 more time steps of a Conv2DTranspose than there are, so it has no "
            "step; crop them just behind it: Cropping2D(((0, 1), (0, 0)))",
        ),
        (
            behind_transposed(layers.Cropping2D(((1, 0), (0, 0)), name="odd")),
            "layer 'odd' (Cropping2D) reads 1 more time steps of a Conv2DTranspose than there are, so it has "
            "no step; crop them just behind it: Cropping2D(((0, 1), (0, 0)))",
        ),
        (
            behind(layers.ZeroPadding1D((2, 0), data_format="channels_first", name="odd")),
            "layer 'odd' (ZeroPadding1D) has the time axis last (channels_first), so it has no step; "
            "use channels_last",
        ),
        (
            lambda: functional(lambda x: layers.RNN(Counting(), return_sequences=True, name="odd")(x)),
            "layer 'odd' (RNN) changes a variable at every call, as drawing at random does, so it has no "
            "step; draw outside the model, and give it what was drawn as an Input",
        ),
        (
            padded([[0, 0], [0, 2], [0, 0]]),
            "layer 'pad' (Pad) pads the future, so it has no step; pad on the left alone",
        ),
        (
            padded([[0, 0], [2, 0], [0, 0]], mode="reflect"),
            "layer 'pad' (Pad) pads with something other than zeros, so it has no step; pad with zeros",
        ),
        (
            padded([[0, 0], [2, 0], [0, 0]], constant_values=1.0),
            "layer 'pad' (Pad) pads with something other than zeros, so it has no step; pad with zeros",
        ),
        (
            padded(1),
            "layer 'pad' (Pad) pads the batch, so it has no step; "
            "pad the features alone, or before the first time step",
        ),
        (
            behind_letters(None),
            "layer 'odd' (TimeDistributed) runs a recurrence of no fixed length within each time step, so it "
            "has no step; give it a fixed length of at most 128",
        ),
        (
            behind_letters(200),
            "layer 'odd' (TimeDistributed) runs a recurrence of 200 steps within each time step, so it has "
            "no step; give it a fixed length of at most 128",
        ),
        (
            lambda: functional(lambda x: layers.BatchNormalization(name="odd")(lstm()(x), training=True)),
            "layer 'odd' (BatchNormalization) normalises over the batch (training=True), so it has no step; "
            "call it without, so that it normalises by what it learnt",
        ),
        (
            lambda: functional(lambda x: lstm()(layers.Concatenate(axis=1, name="odd")([x, x]))),
            "layer 'odd' (Concatenate) joins sequences one after the other, so it has no step; "
            "step through the first, then the second",
        ),
        (
            lambda: functional(lambda x: lstm()(Noise(name="odd")(x))),
            "layer 'odd' (Noise) changes a variable at every call, as drawing at random does, so it has no "
            "step; draw outside the model, and give it what was drawn as an Input",
        ),
        (
            images(layers.ZeroPadding2D(((1, 1), (0, 0)), name="odd"), 1),
            "layer 'odd' (ZeroPadding2D) pads the future, so it has no step; pad on the left alone",
        ),
        (
            images(layers.UpSampling2D(2, name="odd"), 1),
            "layer 'odd' (UpSampling2D) makes more time steps than it reads, so it has no step; "
            "repeat in the caller, or size=(1, ...)",
        ),
        (
            images(layers.Cropping2D(((1, 0), (0, 0)), name="odd"), 1),
            "layer 'odd' (Cropping2D) drops time steps, so it has no step; crop in the caller",
        ),
        (
            lambda: sequence(conv(padding="valid"), lstm()),
            "layer 'odd' (Conv1D) shortens the sequence (padding='valid'), so it has no step; "
            "use padding='causal'",
        ),
        (
            lambda: sequence(conv(padding="same"), lstm()),
            "layer 'odd' (Conv1D) sees the future (padding='same'), so it has no step; use padding='causal'",
        ),
        (
            lambda: sequence(layers.DepthwiseConv1D(3, padding="same", name="odd"), lstm()),
            f"layer 'odd' (DepthwiseConv1D) sees the future (padding='same'), so it has no step; {PAD}",
        ),
        (
            lambda: sequence(layers.SeparableConv1D(4, 3, padding="same", name="odd"), lstm()),
            "layer 'odd' (SeparableConv1D) has no causal form in Keras, so it has no step; "
            f"{PAD}, a DepthwiseConv1D and a Conv1D of size 1",
        ),
        (
            lambda: sequence(layers.ZeroPadding1D((1, 1), name="odd"), layers.Conv1D(4, 3), lstm()),
            "layer 'odd' (ZeroPadding1D) pads the future, so it has no step; pad on the left alone",
        ),
        (
            lambda: sequence(layers.ZeroPadding1D((3, 0)), conv(), lstm()),
            "layer 'odd' (Conv1D) follows a padding of 3 time steps that no convolution takes up, so it has "
            "no step; pad just before it",
        ),
        (
            lambda: sequence(lstm(), layers.LayerNormalization(axis=[1, 2], name="odd"), time=6),
            "layer 'odd' (LayerNormalization) normalises over time (axis 1), so it has no step; "
            "normalise over the features, axis=-1",
        ),
        (
            lambda: sequence(lstm(), layers.BatchNormalization(axis=1, name="odd"), time=6),
            "layer 'odd' (BatchNormalization) normalises over time (axis 1), so it has no step; "
            "normalise over the features, axis=-1",
        ),
        (
            lambda: sequence(lstm(), layers.Reshape((3, 8), name="odd"), time=6),
            "layer 'odd' (Reshape) reshapes time into the features, so it has no step; "
            "keep time at axis 1: Reshape((-1, ...))",
        ),
        (
            transposed,
            "(Transpose) moves the time axis, so it has no step; keep time at axis 1",
        ),
    ],
    ids=lambda value: "" if callable(value) else re.sub(r"\W+", "_", value)[:60],
)
def test_an_option_that_has_no_step(build: Callable[[], Any], words: str) -> None:
    assert refused(build()).endswith(words)


def test_channels_first() -> None:
    x = keras.Input((4, 6))
    y = layers.Conv1D(6, 1, data_format="channels_first", name="odd")(x)
    assert refused(keras.Model(x, layers.LSTM(3)(y))) == (
        "layer 'odd' (Conv1D) has the time axis last (channels_first), so it has no step; use channels_last"
    )


def test_counting_tokens_over_time() -> None:
    x = keras.Input((None,), dtype="int32")
    y = layers.CategoryEncoding(5, output_mode="count", name="odd")(x)
    y = layers.Concatenate()([y, layers.LSTM(3)(ops.one_hot(x, 5))])
    assert refused(keras.Model(x, y)) == (
        "layer 'odd' (CategoryEncoding) counts the tokens of all time steps, so it has no step; "
        "use output_mode='one_hot'"
    )


def test_a_state_that_is_computed_from_another_sequence() -> None:
    x, d = keras.Input((None, 4)), keras.Input((None, 2))
    _, h, c = layers.LSTM(4, return_state=True)(x)
    model = keras.Model([x, d], lstm(name="decoder")(d, initial_state=[h, c]))
    assert refused(model) == (
        "layer 'decoder' (LSTM) begins from a state that is computed from other inputs, so it has no step; "
        "export it as a model of its own whose initial_state is an Input"
    )


def test_nothing_to_remember() -> None:
    assert refused(keras.Sequential([layers.Input((6, 4)), layers.Dense(3)], name="plain")) == (
        "model 'plain' has no recurrent layer; a step needs something to remember"
    )


def test_states_alone() -> None:
    x = keras.Input((None, 4))
    _, h, c = layers.LSTM(4, return_state=True)(x)
    assert refused(keras.Model(x, [h, c], name="encoder")) == (
        "model 'encoder' returns only states; a step needs an output"
    )


def test_an_input_with_the_name_of_a_state() -> None:
    x, c = keras.Input((None, 4), name="x"), keras.Input((None, 2), name="c")
    assert refused(keras.Model([x, c], lstm()(layers.Concatenate()([x, c])))) == (
        "the step has two tensors named 'c'; rename that input or output of the model"
    )


class Subclassed(keras.Model):
    def call(self, x: Any) -> Any:
        return x


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (lambda: Subclassed(name="mine"), "Subclassed"),
        (lambda: keras.Sequential([layers.LSTM(3)], name="mine"), "Sequential"),
    ],
    ids=["subclassed", "not built"],
)
def test_no_graph_to_read(model: Callable[[], Any], kind: str) -> None:
    words = refused(model())
    assert words.startswith(f"model 'mine' ({kind}) has no graph to read: it is not functional, or a ")
    assert words.endswith("write its step as a function and pass steprnn.export.Step(spec, call)")


# The document.


def rows(title: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    section = DOCUMENT.read_text(encoding="utf-8").split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def names(cell: str) -> list[str]:
    return re.findall(r"`([\w.]+)", cell)


def operations(model: Any) -> set[str]:
    found = set()
    for op in model._operations if hasattr(model, "_operations") else model.layers:
        found.add(type(op).__name__)
        for inner in (getattr(op, "layer", None), getattr(op, "cell", None)):
            found |= {type(inner).__name__} if inner is not None else set()
        if hasattr(op, "layers"):
            found |= operations(op)
    return found


def flat_frames() -> Any:
    """A Reshape that keeps seven time steps, on sequences of any length."""
    return functional(lambda x: layers.LSTM(3)(layers.Reshape((7, 2))(x[..., :2])))


@pytest.mark.parametrize("build", [flat_frames, words_of_letters])
def test_what_does_not_run_is_refused_in_a_line(build: Callable[[], Any]) -> None:
    words = "the model, or its step, does not run on sequences of 256 time steps: "
    assert refused(build()).startswith(words)


def test_a_layer_named_as_the_second_call_of_another_is_told_apart() -> None:
    x = keras.Input((None, 4))
    shared = lstm(name="lstm")
    step = derive(keras.Model(x, lstm(3, name="lstm_2")(shared(shared(x)))))
    names = ["lstm_h", "lstm_c", "lstm_3_h", "lstm_3_c", "lstm_2_h", "lstm_2_c"]
    assert [t.name for t in step.spec.states] == names


def test_the_document_has_every_refusal_in_its_own_words() -> None:
    table = {name: (reason, instead) for cell, reason, instead in rows("Refused") for name in names(cell)}
    assert table == {
        k: (reason, instead) for k, (reason, instead) in (REFUSED | REFUSED_WITHOUT_TIME).items()
    }


def test_the_document_has_every_layer_that_the_tests_export_and_no_other() -> None:
    exported = set().union(*(operations(case.build()) for case in CASES))
    documented = {name for cell, *_ in rows("Supported") for name in names(cell)}
    documented_layers = {name for name in documented if hasattr(layers, name)}
    assert documented_layers == {name for name in exported if hasattr(layers, name)} - {"InputLayer"}
    assert documented >= set(ACTIVATIONS), "every activation is listed"
