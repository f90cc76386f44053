"""Layers are read: what is local in time passes whatever it computes, and the rest is refused in words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tf2onnx")

import keras
import tensorflow as tf
from keras import layers, ops

from steprnn.export.check.proofs import prove
from steprnn.export.step.derive import derive
from steprnn.export.step.graph import functional_graph
from steprnn.export.step.layers import TIMELESS
from steprnn.runtime.errors import ExportError

from ..models import FEATURES, functional, sequence, shaken, tokens

Layer = Callable[[Any], Any]


class Custom(layers.Layer):
    """Somebody's own layer, which does what a function does."""

    def __init__(self, function: Layer, **options: Any) -> None:
        super().__init__(name="odd", **options)
        self.function = function

    def call(self, x: Any) -> Any:
        return self.function(x)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def lstm(units: int = 4, **options: Any) -> Any:
    return layers.LSTM(units, return_sequences=True, **options)


def refused(model: keras.Model) -> str:
    """The words with which the derivation refuses a model, before anything is tried."""
    with pytest.raises(ExportError) as raised:
        derive(model)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def steps_of(x: Any) -> Any:
    return ops.shape(x)[1]


def before(x: Any) -> Any:
    """The sample before, zero before the first."""
    return ops.pad(x[:, :-1], ((0, 0), (1, 0), *((0, 0),) * (len(x.shape) - 2)))


def positions(x: Any) -> Any:
    return ops.cast(ops.arange(steps_of(x)), "float32")[None, :, None]


def repaired(x: Any) -> Any:
    following = ops.concatenate([x[:, 1:], x[:, -1:]], 1)
    return ops.where(ops.abs(x) > 6.0, following, x)


# A trial of 48 steps passed each of these, and they were wrong in use.
SIGNALS: dict[str, tuple[Layer, str]] = {
    "a ramp that begins at step 100": (
        lambda x: x + ops.maximum(positions(x) - 100.0, 0.0),
        r"depends on the index of the time step \(AddV2 <- Maximum <- Sub <- StridedSlice <- Range\)",
    ),
    "positions in buckets of 64": (
        lambda x: x + ops.floor(positions(x) / 64.0),
        r"depends on the index of the time step \(.* <- Range\)",
    ),
    "no more than 60 steps": (
        lambda x: ops.where(positions(x) < 60, x, 0.0 * x),
        r"depends on the index of the time step \(SelectV2 <- Less <- StridedSlice <- Range\)",
    ),
    "a counter of rare alarms": (
        lambda x: x + ops.cumsum(ops.cast(ops.abs(x) > 5.5, "float32"), axis=1),
        r"reads other time steps \(step 1 reads step 0: AddV2 <- Cumsum\)",
    ),
    "a repair that looks ahead": (
        repaired,
        r"reads other time steps \(step 0 reads step 1: SelectV2 <- ConcatV2 <- StridedSlice\)",
    ),
    "a fill of NaN": (
        lambda x: ops.where(ops.isnan(x), before(x), x),
        r"reads other time steps \(step 1 reads step 0: SelectV2 <- Pad <- StridedSlice\)",
    ),
    "mute after step 100": (
        lambda x: ops.where(ops.cumsum(ops.ones_like(x), 1) > 100, 0.0 * x, x),
        r"depends on the index of the time step \(SelectV2 <- Greater <- Cumsum\)",
    ),
    "a week ago": (
        lambda x: x - ops.pad(x, ((0, 0), (84, 0), (0, 0)))[:, :-84],
        r"depends on the index of the time step \(Sub <- StridedSlice <- Pad\)",
    ),
    "a table of positions": (
        lambda x: x + ops.convert_to_tensor(np.zeros((1000, FEATURES), np.float32))[: steps_of(x)],
        r"depends on the index of the time step \(AddV2 <- StridedSlice\)",
    ),
    "another after step 300": (
        lambda x: ops.concatenate([x[:, :300], 0.5 * x[:, 300:]], axis=1),
        r"depends on the index of the time step \(ConcatV2 <- StridedSlice\)",
    ),
    "a share of the whole": (
        lambda x: x / ops.cast(steps_of(x), "float32"),
        r"depends on the length of the sequence \(RealDiv <- StridedSlice <- Shape\)",
    ),
    "squeeze and excite over time": (
        lambda x: x * ops.sigmoid(ops.mean(x, axis=1, keepdims=True)),
        r"reads other time steps \(step 0 reads step 8: Mul <- Sigmoid <- Mean\)",
    ),
    "a running maximum within a loop": (
        lambda x: tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 0.5), (0, x))[1],
        r"reads other time steps \(step 0 reads step 8: StatelessWhile \(no rule\)\)",
    ),
    "fewer time steps": (lambda x: x[:, 1:], r"changes the number of time steps \(StridedSlice\)"),
}
TOKENS: dict[str, tuple[Layer, str]] = {
    "segments": (
        lambda x: ops.cumsum(ops.cast(ops.equal(x, 1), "int32"), axis=1) % 2,
        r"reads other time steps \(step 1 reads step 0: FloorMod <- Cumsum\)",
    ),
    "blank after token 3": (
        lambda x: ops.where(ops.equal(before(x), 3), 0, x),
        r"reads other time steps \(step 1 reads step 0: SelectV2 <- Equal <- Pad <- StridedSlice\)",
    ),
}
WAYS_OUT = {
    "reads other": "use a recurrent layer or a causal Conv1D for what it remembers",
    "depends on the index": "let the caller give the index, or what lies that far back, as an input",
    "depends on the length": "leave it out, or let the caller give the length as an input",
    "changes the number": "keep them all",
}


@pytest.mark.parametrize("name", SIGNALS)
def test_what_is_not_local_in_time(name: str) -> None:
    function, words = SIGNALS[name]
    said = refused(functional(lambda x: lstm()(Custom(function)(x))))
    way_out = next(way for begins, way in WAYS_OUT.items() if words.startswith(begins))
    assert re.fullmatch(rf"layer 'odd' \(Custom\) {words}, so it has no step; {re.escape(way_out)}", said), (
        said
    )


@pytest.mark.parametrize("name", TOKENS)
def test_what_is_not_local_in_a_text(name: str) -> None:
    function, words = TOKENS[name]
    said = refused(tokens(Custom(function, dtype="int32"), layers.Embedding(5000, 4), lstm()))
    assert re.match(rf"layer 'odd' \(Custom\) {words}, so it has no step; use a recurrent", said), said


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        (lambda y: ops.mean(y, axis=1), "Mean"),
        (lambda y: ops.max(y, axis=1, keepdims=True) + y, "Max"),
        (lambda y: ops.cumsum(y, axis=1), "Cumsum"),
        (lambda y: ops.flip(y, axis=1), "Flip"),
        (lambda y: ops.softmax(y, axis=1), "Softmax"),
        (lambda y: y[:, 0], "GetItem"),
        (lambda y: y[:, ::-1], "GetItem"),
    ],
    ids=["mean", "max", "cumsum", "flip", "softmax", "first step", "reversed"],
)
def test_an_operation_that_mixes_time_steps(operation: Layer, kind: str) -> None:
    words = refused(functional(lambda x: layers.Dense(2)(operation(lstm()(x)))))
    assert re.match(rf"layer '\w+' \({kind}\) reads other time steps \(step \d reads step \d: ", words), words


def test_the_last_time_step_at_each_one() -> None:
    def body(x: Any) -> Any:
        y, h, _ = layers.LSTM(4, return_sequences=True, return_state=True)(x)
        return layers.Dense(2)(layers.Add(name="sum")([y, h[:, None]]))

    assert refused(functional(body)) == (
        "layer 'sum' (Add) takes the last time step of a sequence at each one, so it has no step; "
        "use return_sequences=True before it"
    )


class Times(layers.Layer):
    """Time2Vector as it is mostly written: a weight for each time step."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[1], 1), name="kernel")

    def call(self, x: Any) -> Any:
        return ops.concatenate([x, ops.sin(x * self.kernel)], axis=-1)

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:2], 2 * shape[2])


@pytest.mark.parametrize("length", [9, 20])
def test_a_weight_for_each_time_step(length: int) -> None:
    assert refused(sequence(Times(name="times"), lstm(), time=length)) == (
        f"layer 'times' (Times) takes sequences of {length} time steps alone, so it has no step; "
        "give it no weight for each step"
    )


def test_a_layer_that_writes_a_variable() -> None:
    class Counted(layers.Layer):
        def build(self, shape: Any) -> None:
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

        def call(self, x: Any) -> Any:
            self.calls.assign_add(1.0)
            return x / (1.0 + self.calls)

    assert refused(sequence(Counted(name="counted"), lstm())) == (
        "layer 'counted' (Counted) changes a variable at every call, as drawing at random does, so it has no "
        "step; draw outside the model, and give it what was drawn as an Input"
    )


def test_a_layer_that_needs_a_length_beforehand_is_shown_by_test_only() -> None:
    """It runs on sequences of any length, but not on one whose length is not known yet."""

    class Halves(layers.Layer):
        def call(self, x: Any) -> Any:
            return ops.concatenate(ops.unstack(ops.reshape(x, (-1, x.shape[1], 2, 2)), axis=3), axis=-1)

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    step = derive(sequence(Halves(name="halves"), lstm(), time=20))
    assert step.reading.unread == ("halves",)
    assert prove(step) is not None


def test_a_mask_that_counts() -> None:
    """A mask is read like any output."""

    class Ends(layers.Layer):
        def call(self, x: Any) -> Any:
            return 2.0 * x

        def compute_mask(self, x: Any, mask: Any = None) -> Any:
            return ops.cumsum(ops.cast(x[..., 0] > 3, "int32"), axis=1) == 0

    words = refused(functional(lambda x: lstm()(Ends(name="ends")(x))))
    assert re.match(r"layer 'ends' \(Ends\) reads other time steps", words), words


def attention_to_itself(x: Any) -> Any:
    scores = ops.softmax(ops.matmul(x, ops.transpose(x, (0, 1, 3, 2))))
    return ops.matmul(scores, x)


# Local in time, whatever they compute.
LOCAL: dict[str, Layer] = {
    "gate": lambda x: x * ops.sigmoid(ops.mean(x, axis=-1, keepdims=True)),
    "squeeze and excite over the features": lambda x: x * ops.softmax(x, axis=-1),
    "sort": lambda x: ops.sort(x, axis=-1),
    "best two": lambda x: ops.concatenate([ops.top_k(x, 2)[0], x[..., :2]], axis=-1),
    "threshold": lambda x: ops.where(ops.abs(x) > 6.0, ops.sign(x) * 6.0, x),
    "no NaN": lambda x: ops.where(ops.isnan(x), 0.0, x),
    "one-hot": lambda x: ops.one_hot(ops.argmax(x, axis=-1), FEATURES),
    "table": lambda x: ops.take(np.eye(7, FEATURES, dtype="float32"), ops.argmax(x, axis=-1), axis=0),
    "product": lambda x: ops.matmul(x, np.ones((FEATURES, FEATURES), "float32")),
    "einsum": lambda x: ops.einsum("btf,btg->btf", x, x),
    "norm": lambda x: (x - ops.mean(x, -1, keepdims=True)) / (ops.std(x, -1, keepdims=True) + 1e-3),
    "time to vector": lambda x: ops.concatenate([x[..., :1], ops.sin(2.0 * x[..., 1:])], axis=-1),
    "cumulative features": lambda x: ops.cumsum(x, axis=-1),
    "reversed features": lambda x: ops.flip(x, axis=-1),
    "noise of nothing": lambda x: x + 0.0 * tf.random.normal(tf.shape(x)),
    "zeros of the same length": lambda x: x + ops.zeros((1, steps_of(x), 1)),
    "heads": lambda x: ops.reshape(
        attention_to_itself(ops.reshape(x, (-1, steps_of(x), 2, FEATURES // 2))),
        (-1, steps_of(x), FEATURES),
    ),
    "rows as one batch": lambda x: ops.reshape(
        ops.tanh(ops.reshape(x, (-1, FEATURES))), (-1, steps_of(x), FEATURES)
    ),
    "convolved features": lambda x: ops.conv(x[..., None], np.ones((1, 3, 1, 1), "float32"), 1, "same")[
        ..., 0
    ],
    "pooled features": lambda x: ops.max_pool(x[..., None], (1, 3), 1, "same")[..., 0],
    "spectrum": lambda x: ops.fft((x, ops.zeros_like(x)))[0],
    "lower triangle": lambda x: ops.sum(ops.tril(x[..., None] * x[..., None, :]), axis=-1),
    "stacked and taken apart": lambda x: ops.unstack(ops.stack([x, 2.0 * x], axis=-1), axis=-1)[1],
}


@pytest.mark.parametrize("name", LOCAL)
def test_what_is_local_in_time_is_exported(name: str) -> None:
    step = derive(functional(lambda x: lstm()(Custom(LOCAL[name])(x))))
    assert step.reading.layers == 1
    assert step.reading.unread == step.notes == ()


def test_the_layers_that_are_run_without_a_time_axis_are_local() -> None:
    """Each of TIMELESS, as Keras has it."""
    one = {
        "Embedding": lambda t, x: layers.Embedding(5, FEATURES)(t),
        "OneHot": lambda t, x: ops.one_hot(t, FEATURES),
        "Dense": lambda t, x: layers.Dense(3)(x),
        "Activation": lambda t, x: layers.Activation("gelu")(x),
        "Divide": lambda t, x: ops.divide(x, 2.0),
        "Cast": lambda t, x: ops.cast(x, "float16"),
        "Negative": lambda t, x: -x,
    }
    drops = {"Dropout", "GaussianNoise", "GaussianDropout", "AlphaDropout"}
    for kind in sorted(TIMELESS):
        t, x = keras.Input((None,), dtype="int32"), keras.Input((None, FEATURES))
        if kind in one:
            y = one[kind](t, x)
        elif kind in drops:
            y = getattr(layers, kind)(0.5)(x)
        elif hasattr(layers, kind):
            merges = issubclass(getattr(layers, kind), layers.Add.__mro__[1])
            y = getattr(layers, kind)()([x, 2 * x] if merges else x)
        else:
            y = getattr(ops, kind.lower())(x)
        assert kind in {type(op).__name__ for op in keras.Model([t, x], y).operations}
        y = layers.Concatenate()([ops.cast(y, "float32"), ops.one_hot(t, 2)])
        step = derive(keras.Model([t, x], lstm()(y)))
        assert step.reading.layers >= 2, kind
        assert step.reading.unread == (), kind


# Subclasses of layers that remember.


class Wrapped(layers.LSTM):
    """An LSTM whose call does something with what it gave."""

    def __init__(self, *args: Any, function: Layer, **options: Any) -> None:
        super().__init__(*args, name="odd", **options)
        self.function = function

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        return self.function(super().call(sequences, initial_state, mask, training))


class Past(layers.Conv1D):
    """A causal convolution whose call does something with what it gave."""

    def __init__(self, *args: Any, function: Layer, **options: Any) -> None:
        super().__init__(*args, name="odd", padding="causal", **options)
        self.function = function

    def call(self, inputs: Any) -> Any:
        return self.function(super().call(inputs))


class Foreign(layers.Layer):
    """A layer that runs a function of another library."""

    def call(self, x: Any) -> Any:
        y = tf.numpy_function(np.tanh, [x], tf.float32)
        y.set_shape(x.shape)
        return y

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


UNFOLLOWED = "has a call of its own that cannot be followed, so it has no step; put what it does into a layer"


def muted(y: Any) -> Any:
    return ops.where(positions(y) < 100, y, ops.zeros_like(y))


@pytest.mark.parametrize("masked", [False, True])
def test_an_lstm_that_mutes_after_step_100(masked: bool) -> None:
    before = [layers.Masking()] if masked else []
    said = refused(sequence(*before, Wrapped(4, function=muted, return_sequences=True)))
    assert said.startswith(f"layer 'odd' (Wrapped) {UNFOLLOWED}"), said


def test_a_convolution_that_mutes_after_step_100() -> None:
    said = refused(sequence(Past(4, 3, function=muted), lstm()))
    assert said.startswith(f"layer 'odd' (Past) {UNFOLLOWED}"), said


def test_an_activation_of_a_convolution_that_mixes_time_steps() -> None:
    def odd(z: Any) -> Any:
        return ops.where(ops.abs(z) > 50.0, before(z), z)

    said = refused(sequence(layers.Conv1D(4, 3, padding="causal", activation=odd, name="odd"), lstm()))
    assert re.match(r"layer 'odd' \(Activation\) reads other time steps \(step 1 reads step 0: ", said), said


@pytest.mark.parametrize("options", [{"return_sequences": True}, {}, {"return_state": True}])
def test_a_subclass_that_changes_nothing_over_time(options: dict[str, Any]) -> None:
    def same(y: Any) -> Any:
        return y

    x = keras.Input((None, 4))
    y = Wrapped(4, function=same, **options)(x)
    model = shaken(keras.Model(x, layers.Dense(2)(y[0] if options.get("return_state") else y)))
    own = type(model.get_layer("odd"))
    step = derive(model)
    assert type(model.get_layer("odd")) is own is Wrapped
    assert step.reading.unread == ()
    assert prove(step) is not None


def test_what_a_subclass_does_besides_is_in_the_step() -> None:
    """It is opened: what comes before and behind its memory is read and stepped as layers are."""

    class Grandchild(Wrapped):
        pass

    def behind(y: Any) -> Any:
        return 2.0 * ops.clip(y, -0.5, 0.5)

    for own in (Wrapped, Grandchild):
        model = shaken(sequence(layers.Masking(), own(4, function=behind, return_sequences=True)))
        step = derive(model)
        assert step.mask_value == 0.0
        assert prove(step) is not None
        assert step.reading.layers >= 2
        said = refused(sequence(own(4, function=lambda y: ops.flip(y, axis=1), return_sequences=True)))
        assert re.match(r"layer 'flip(_\d)?' \(Flip\) reads other time steps", said), said


def test_a_model_whose_class_has_a_call_of_its_own_is_stepped_by_that() -> None:
    class Safe(keras.Sequential):
        def call(self, x: Any, **options: Any) -> Any:
            return super().call(ops.clip(x, -0.5, 0.5), **options)

    step = derive(shaken(Safe([layers.Input((None, 4)), layers.LSTM(4), layers.Dense(2)])))
    assert prove(step) is not None
    assert {
        op.__class__.__name__ for op in functional_graph(Safe([layers.Input((None, 4)), lstm()])).operations
    } >= {"Clip"}


def test_a_bound_that_the_length_may_pass_is_no_whole() -> None:
    """Over nine steps the last 512 of a sequence are all of it."""
    for name, function in {
        "the last 512": lambda v: v[:, tf.maximum(tf.shape(v)[1] - 512, 0) :],
        "the first 300": lambda v: v[:, : tf.minimum(tf.shape(v)[1], 300)],
        "padded beyond 300": lambda v: tf.pad(v, [[0, 0], [tf.maximum(tf.shape(v)[1] - 300, 0), 0], [0, 0]]),
        "step 300 at most": lambda v: v + tf.gather(v, tf.minimum(tf.shape(v)[1], 300) - 1, axis=1)[:, None],
    }.items():
        said = refused(functional(lambda x, f=function: lstm()(Custom(f)(x))))
        assert "so it has no step" in said, name
    whole = Custom(lambda v: v[:, : tf.shape(v)[1]])
    assert derive(functional(lambda x: lstm()(whole(x)))).reading.unread == ()


def test_a_layer_that_cannot_be_read_is_shown_by_test_only() -> None:
    step = derive(shaken(sequence(lstm(), Foreign(name="odd"), layers.Dense(2))))
    (note,) = step.notes
    assert note.startswith("layer 'odd' (Foreign) cannot be read (it is compiled, or in another language (")
    assert note.endswith("; that it acts on each time step alone is shown by test only")
    assert step.reading.unread == ("odd",)
    assert step.reading.layers == 1


# What the trial takes up from it.


def test_the_numbers_that_an_input_is_compared_with_are_met() -> None:
    step = derive(functional(lambda x: lstm()(Custom(LOCAL["threshold"])(x))))
    assert step.reading.compared == (6.0,)


def test_the_reach_is_that_of_the_convolutions_one_behind_the_other() -> None:
    def body(x: Any) -> Any:
        long = layers.Conv1D(4, 3, dilation_rate=50, padding="causal")(x)
        short = layers.Conv1D(4, 2, padding="causal")(x)
        return layers.Conv1D(4, 2, dilation_rate=40, padding="causal")(layers.Add()([long, short]))

    assert derive(functional(body)).reading.reach == 140


def test_a_category_encoding_takes_no_single_token_as_a_sequence() -> None:
    encoding = layers.CategoryEncoding(5, output_mode="one_hot")
    assert derive(tokens(encoding, lstm())).reading.shortest == 2
    assert derive(tokens(layers.Embedding(5, 3), lstm())).reading.shortest == 1


def test_a_layer_that_tells_the_length_of_its_windows() -> None:
    """Behind it the time axis is free again, and what reads it is read."""

    def windows(*stack: Any) -> keras.Model:
        x = keras.Input((20,), dtype="int32")
        y = layers.Lambda(lambda t: ops.one_hot(t, 5), output_shape=(20, 5))(x)
        for layer in stack:
            y = layer(y)
        return keras.Model(x, layers.LSTM(3)(y))

    step = derive(windows(layers.Dense(4)))
    assert step.reading.layers == 2
    assert prove(step) is not None
    words = refused(windows(Custom(lambda y: ops.cumsum(y, axis=1))))
    assert words.startswith("layer 'odd' (Custom) reads other time steps")
