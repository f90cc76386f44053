"""Small models of every supported kind, and what the tests of export hold them against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers, ops
from onnxruntime import InferenceSession

from steprnn.export import Step
from steprnn.export.check.proofs import prove
from steprnn.export.formats import onnx, saved_model, tflite
from steprnn.export.formats.frozen import freeze, frozen_once
from steprnn.export.step.derive import derive
from steprnn.runtime.parity.profiles import PROFILES

FEATURES, TOKENS = 4, 11


def sequence(*stack: Any, time: int | None = None, batch: int | None = None) -> keras.Model:
    """A Sequential model that reads a signal `[batch, time, FEATURES]`."""
    return keras.Sequential([layers.Input((time, FEATURES), batch_size=batch), *stack])


def tokens(*stack: Any) -> keras.Model:
    """A functional model that reads token indices `[batch, time]`."""
    x = y = keras.Input((None,), dtype="int32", name="tokens")
    for layer in stack:
        y = layer(y)
    return keras.Model(x, y)


def functional(body: Callable[[Any], Any]) -> keras.Model:
    """A functional model of one signal."""
    x = keras.Input((None, FEATURES), name="signal")
    return keras.Model(x, body(x))


def shaken(model: keras.Model, seed: int = 0) -> keras.Model:
    """The model with no weight left at zero or one, so that nothing can be left out unnoticed."""
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        if "float" in variable.dtype:
            value = ops.convert_to_numpy(variable) + 0.2 * generator.standard_normal(variable.shape)
            variable.assign(np.abs(value) + 0.1 if "variance" in variable.name else value)
    return model


# Of an export whose figures nobody reads.
QUICK: dict[str, Any] = {"variants": ("float32",), "chained_steps": 64, "golden_steps": 16}
Arrays = dict[str, Any]
Stepper = Callable[[Arrays], Arrays]


def write_all(step: Step, folder: Path) -> dict[str, Callable[[int], Stepper]]:
    """Write the step in float32 in all three formats; for each, what steps it for a batch size.

    Each is opened by its vendor's own API, at its signature: not by way of the runtime.
    """
    saved_model.write(step, folder / "saved_model", "float32")
    tflite.write(step, folder / "step.tflite", "float32")
    onnx.write(step, folder / "step.onnx", "float32")
    return {
        "saved_model": lambda batch: saved_model_stepper(folder / "saved_model"),
        "tflite": lambda batch: tflite_stepper(folder / "step.tflite", batch),
        "onnx": lambda batch: onnx_stepper(folder / "step.onnx"),
    }


def function_stepper(function: Any) -> Stepper:
    """Steps a TensorFlow function of named tensors."""
    return lambda arrays: {
        n: t.numpy() for n, t in function(**{n: tf.constant(a) for n, a in arrays.items()}).items()
    }


def saved_model_stepper(path: Path) -> Stepper:
    """Steps the signature `step` of a SavedModel."""
    loaded = tf.saved_model.load(str(path))
    step = loaded.signatures["step"]
    step.owner = loaded  # TensorFlow frees the graph with the object that loaded it
    return function_stepper(step)


def tflite_stepper(path: Path, batch: int) -> Stepper:
    """Steps the signature `step` of a TFLite file."""
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    for detail in interpreter.get_input_details():
        interpreter.resize_tensor_input(detail["index"], [batch, *detail["shape"][1:]])
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner("step")
    return lambda arrays: runner(**arrays)


def onnx_stepper(path: Path) -> Stepper:
    """Steps an ONNX file."""
    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return lambda arrays: dict(zip(names, session.run(names, arrays), strict=True))


def chained(step: Step, stepper: Stepper, inputs: Arrays, state: Arrays, dtype: str = "float32") -> Arrays:
    """Feed each next state back; every result stacked to `[steps, rows, ...]`."""
    state = {n: a.astype(dtype) for n, a in state.items()}
    rows = []
    for t in range(len(next(iter(inputs.values())))):
        given = {n: a[t].astype(dtype) if a.dtype == np.float32 else a[t] for n, a in inputs.items()}
        row = stepper(given | state)
        state = {n: row[f"next_{n}"] for n in state}
        rows.append(row)
    return {name: np.stack([row[name] for row in rows]) for name in step.spec.result_names}


def drawn(step: Step, steps: int, rows: int, mask_value: float | None = None) -> Arrays:
    """Arrays `[steps, rows, ...]` for the inputs of a step, a third of the time steps silent."""
    generator = np.random.default_rng(5)
    arrays: Arrays = {}
    for t in step.spec.inputs:
        shape = (steps, rows, *t.shape)
        if t.dtype == "int32":
            arrays[t.name] = generator.integers(0, t.tokens or 2, shape, np.int32)
        else:
            arrays[t.name] = generator.standard_normal(shape).astype(np.float32)
            if mask_value is not None:
                arrays[t.name][generator.random((steps, rows)) < 1 / 3] = mask_value
    return arrays


def first_state(step: Step, rows: int) -> Arrays:
    """The states a stream begins with."""
    zero = {t.name: np.zeros(t.shape, np.float32) for t in step.spec.states}
    return {n: np.repeat(a[None], rows, axis=0) for n, a in (zero | step.initial).items()}


def largest_error(step: Step, steppers: Any, inputs: Arrays, state: Arrays) -> dict[str, float]:
    """By format, the largest error of any output or state over a chained run, in units.

    The unit is the error of TensorFlow's own float32 step against the step in float64, as
    docs/parity.md has it.
    """
    exact = chained(step, function_stepper(freeze(step, "float64")), inputs, state, "float64")
    float32 = chained(step, function_stepper(freeze(step)), inputs, state)
    errors = {}
    for name, open_stepper in steppers.items():
        got = chained(step, open_stepper(len(next(iter(state.values())))), inputs, state)
        errors[name] = 0.0
        for result, expected in exact.items():
            assert got[result].dtype == np.float32
            assert got[result].shape == expected.shape
            assert np.isfinite(got[result]).all(), f"{name}: {result}"
            assert np.ptp(expected) > 0, f"{result} never changes, so nothing is compared"
            spacing = float(np.spacing(np.float32(np.abs(expected).max()))) / 2
            unit = max(float(np.abs(float32[result] - expected).max()), spacing)
            errors[name] = max(errors[name], float(np.abs(got[result] - expected).max()) / unit)
    return errors


@frozen_once()
def derived(model: keras.Model, folder: Path) -> tuple[Step, dict[str, Callable[[int], Stepper]]]:
    """Derive the step, prove it, write it, and compare 50 chained steps of batch 1 and 3 in every format."""
    step = derive(model)
    assert prove(step) is not None
    steppers = write_all(step, folder)
    for rows in (1, 3):
        inputs = drawn(step, 50, rows, step.mask_value)
        errors = largest_error(step, steppers, inputs, first_state(step, rows))
        assert max(errors.values()) <= PROFILES["float32"].units, errors
    return step, steppers


def same_as_keras(
    model: keras.Model,
    step: Step,
    steppers: Any,
    inputs: Arrays,
    state: Arrays | None = None,
    given: Sequence[Any] = (),
    atol: float = 1e-5,
) -> None:
    """Compare steps chained through `inputs`, `[steps, rows, ...]`, with one call of the whole model.

    `given` are inputs of the model that are no sequences: what the step has as states, `state`.
    """
    sequences = [np.moveaxis(a, 0, 1) for a in inputs.values()]
    called = model([*sequences, *given] if len(model.inputs) > 1 else sequences[0])
    rows = len(sequences[0])
    begin = first_state(step, rows) | (state or {})
    for name, open_stepper in steppers.items():
        results = chained(step, open_stepper(rows), inputs, begin)
        for output, tensor in zip(step.spec.outputs, keras.tree.flatten(called), strict=False):
            expected = ops.convert_to_numpy(tensor)
            got = np.moveaxis(results[output.name], 0, 1)
            got = got if got.ndim == expected.ndim else got[:, -1]
            np.testing.assert_allclose(got, expected, rtol=atol, atol=atol, err_msg=f"{name}: {output.name}")


@keras.saving.register_keras_serializable("steprnn_tests")
class Leaky(layers.Layer):
    """A custom cell of one state, whose output is not its state."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = self.state_size = self.output_size = units

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.recurrent = self.add_weight(shape=(self.units, self.units), name="recurrent")

    def call(self, inputs: Any, states: Any) -> Any:
        h = 0.7 * states[0] + 0.3 * ops.tanh(inputs @ self.kernel + states[0] @ self.recurrent)
        return h * 2, [h]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"units": self.units}


@keras.saving.register_keras_serializable("steprnn_tests")
class Ran(layers.Layer):
    """A custom cell of two states of different sizes, output of a third."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.state_size = [3, 2]
        self.output_size = 5

    def build(self, shape: Any) -> None:
        self.wide = self.add_weight(shape=(shape[-1] + 2, 3), name="wide")
        self.narrow = self.add_weight(shape=(3, 2), name="narrow")

    def call(self, inputs: Any, states: Any) -> Any:
        wide, narrow = states
        wide = 0.5 * wide + ops.sigmoid(ops.concatenate([inputs, narrow], axis=-1) @ self.wide)
        narrow = ops.tanh(wide @ self.narrow)
        return ops.concatenate([wide, narrow], axis=-1), [wide, narrow]


@dataclass(frozen=True)
class Case:
    """A supported model: how it is built, and the names of its states in order."""

    name: str
    build: Callable[[], keras.Model]
    states: str
    mask_value: float | None = None  # the value of a masked time step


CASES: list[Case] = []


def case(states: str, mask_value: float | None = None) -> Callable[[Any], Any]:
    """Add a function that builds a model to CASES."""

    def add(build: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
        CASES.append(Case(build.__name__, build, states, mask_value))
        return build

    return add


# The recurrent layers themselves.


@case("h c")
def lstm() -> keras.Model:
    return sequence(layers.LSTM(5, return_sequences=True), layers.Dense(3))


@case("a_h a_c b_h c_h d_h")
def without_bias_and_both_resets() -> keras.Model:
    return sequence(
        layers.LSTM(4, use_bias=False, unit_forget_bias=False, return_sequences=True, name="a"),
        layers.GRU(4, use_bias=False, reset_after=True, return_sequences=True, name="b"),
        layers.GRU(4, reset_after=False, return_sequences=True, name="c"),
        layers.SimpleRNN(3, use_bias=False, return_sequences=True, name="d"),
    )


@case("a_h a_c b_h c_h")
def the_older_implementation_and_dropout() -> keras.Model:
    return sequence(
        layers.LSTM(4, implementation=1, dropout=0.4, return_sequences=True, name="a"),
        layers.GRU(4, implementation=1, recurrent_dropout=0.4, return_sequences=True, name="b"),
        layers.SimpleRNN(4, dropout=0.3, recurrent_dropout=0.3, return_sequences=True, name="c"),
    )


@case("a_h a_c b_h b_c c_h d_h")
def gates_of_other_activations() -> keras.Model:
    def body(x: Any) -> Any:
        a = layers.LSTM(3, "softsign", "hard_sigmoid", return_sequences=True, name="a")(x)
        b = layers.LSTM(3, "tanh", "hard_silu", return_sequences=True, name="b")(x)
        c = layers.GRU(3, "elu", "hard_sigmoid", return_sequences=True, name="c")(x)
        d = layers.GRU(3, "relu", "softmax", reset_after=False, return_sequences=True, name="d")(x)
        return layers.Concatenate()([a, b, c, d])

    return functional(body)


ALIASES = {"hard_swish": "hard_silu", "swish": "silu"}
NO_ACTIVATIONS = {"deserialize", "get", "serialize", *ALIASES}
# No layer takes these by name: one halves the width, one needs arguments. `keras_ops` has them.
FUNCTIONS = {"glu", "threshold"}
ACTIVATIONS = sorted({n for n in dir(keras.activations) if n[0] != "_"} - NO_ACTIVATIONS - FUNCTIONS)


def activations(names: Sequence[str]) -> keras.Model:
    """Each activation in a cell (LSTM, GRU and SimpleRNN in turn) and in a Dense layer, side by side."""
    kinds = (layers.SimpleRNN, layers.LSTM, layers.GRU)
    options: dict[str, Any] = {  # small, as not every activation is bounded
        "kernel_initializer": keras.initializers.RandomNormal(stddev=0.3),
        "recurrent_initializer": keras.initializers.Orthogonal(0.1),
        "bias_initializer": "random_normal",
        "return_sequences": True,
    }

    def kind(i: int, name: str) -> Any:
        return layers.SimpleRNN if name == "exponential" else kinds[i % 3]  # the gated ones overflow

    def body(x: Any) -> Any:
        return [
            layers.Dense(3, activation=name, bias_initializer="random_normal", name=f"y_{name}")(
                kind(i, name)(3, activation=name, name=name, **options)(x)
            )
            for i, name in enumerate(names)
        ]

    return functional(body)


@case("h c")
def the_head_speaks_at_each_step() -> keras.Model:
    return sequence(layers.LSTM(5, return_sequences=False), layers.Dense(3, activation="softmax"))


@case("first_h second_h second_c")
def the_last_step_of_a_sequence() -> keras.Model:
    def body(x: Any) -> Any:
        x = layers.GRU(4, return_sequences=True, name="first")(x)
        return layers.Dense(2)(layers.LSTM(3, return_sequences=True, name="second")(x)[:, -1])

    return functional(body)


@case("h c")
def returned_states() -> keras.Model:
    def body(x: Any) -> Any:
        y, h, c = layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")(x)
        return [layers.Dense(2, name="logits")(y), h, c]

    return functional(body)


@case("a_h a_c b_h")
def final_states_that_are_read() -> keras.Model:
    """A classifier on the last h and c: what the layer returns as its state is an output at each step."""

    def body(x: Any) -> Any:
        _, h, c = layers.LSTM(4, return_state=True, name="a")(x)
        _, g = layers.GRU(3, return_state=True, name="b")(x)
        return layers.Dense(2)(layers.Concatenate()([h, c, g]))

    return functional(body)


@case("a_h a_c b_h")
def unrolled_of_fixed_length() -> keras.Model:
    return sequence(
        layers.LSTM(4, unroll=True, return_sequences=True, name="a"),
        layers.GRU(3, unroll=True, return_sequences=True, name="b"),
        time=9,
    )


@case("a_h a_c b_h")
def stateful_of_fixed_batch() -> keras.Model:
    return sequence(
        layers.LSTM(4, stateful=True, return_sequences=True, name="a"),
        layers.GRU(4, stateful=True, return_sequences=True, name="b"),
        layers.Dense(2),
        batch=7,
    )


@case("h c")
def begins_from_constants() -> keras.Model:
    return functional(
        lambda x: layers.LSTM(3, return_sequences=True)(
            x, initial_state=[ops.ones((1, 3)) * 0.5, ops.ones((1, 3)) * -2.0]
        )
    )


@case("deep_cell_0_h deep_cell_1_h deep_cell_1_c one_h two_h two_c")
def rnn_of_cells() -> keras.Model:
    return sequence(
        layers.RNN([layers.GRUCell(3), layers.LSTMCell(4)], return_sequences=True, name="deep"),
        layers.RNN(layers.SimpleRNNCell(3), return_sequences=True, name="one"),
        layers.RNN(layers.LSTMCell(3), return_sequences=True, name="two"),
    )


@case("leaky_s ran_s0 ran_s1 both_cell_0_s both_cell_1_s0 both_cell_1_s1")
def custom_cells() -> keras.Model:
    return sequence(
        layers.RNN(Leaky(3), return_sequences=True, name="leaky"),
        layers.RNN(Ran(), return_sequences=True, name="ran"),
        layers.RNN(layers.StackedRNNCells([Leaky(3), Ran()]), return_sequences=True, name="both"),
    )


# What stands around them.


@case("h c")
def embedding() -> keras.Model:
    return tokens(layers.Embedding(TOKENS, 4), layers.LSTM(5, return_sequences=True), layers.Dense(TOKENS))


@case("h")
def one_hot() -> keras.Model:
    return tokens(
        lambda x: ops.one_hot(x, TOKENS), layers.GRU(5, return_sequences=True), layers.Dense(TOKENS)
    )


@case("h")
def category_encoding() -> keras.Model:
    return tokens(
        layers.CategoryEncoding(TOKENS, output_mode="one_hot"),
        layers.SimpleRNN(5, return_sequences=True),
        layers.Dense(TOKENS),
    )


@case("h c")
def noise_and_dropout_are_off() -> keras.Model:
    return sequence(
        layers.GaussianNoise(0.5),
        layers.Dropout(0.5),
        layers.SpatialDropout1D(0.5),
        layers.LSTM(4, return_sequences=True),
        layers.GaussianDropout(0.5),
        layers.AlphaDropout(0.5),
        layers.ActivityRegularization(0.1),
        layers.Dense(2),
    )


@case("h")
def normalisations() -> keras.Model:
    return sequence(
        layers.Normalization(mean=[0.0, 1, 2, 3], variance=[1.0, 2, 3, 4]),
        layers.Rescaling(0.5, offset=0.1),
        layers.BatchNormalization(),
        layers.GRU(4, return_sequences=True),
        layers.LayerNormalization(),
        layers.Dense(4),
        layers.RMSNormalization(),
        layers.UnitNormalization(),
        layers.SpectralNormalization(layers.Dense(3)),
    )


@case("h")
def activation_layers() -> keras.Model:
    return sequence(
        layers.PReLU(shared_axes=[1]),
        layers.SimpleRNN(4, return_sequences=True),
        layers.LeakyReLU(0.1),
        layers.Dense(4),
        layers.ELU(),
        layers.Dense(4),
        layers.ReLU(max_value=2.0, negative_slope=0.1, threshold=0.2),
        layers.Activation("gelu"),
        layers.Softmax(),
        layers.Identity(),
    )


@case("a_h a_c b_h")
def merges_residuals_and_skips() -> keras.Model:
    def body(x: Any) -> Any:
        a = layers.LSTM(FEATURES, return_sequences=True, name="a")(x)
        b = layers.LayerNormalization()(layers.Add()([a, x]))
        c = layers.Multiply()([b, layers.Dense(FEATURES, activation="sigmoid")(x)])
        c = layers.Maximum()([c, layers.Minimum()([a, x])])
        c = layers.Average()([layers.Subtract()([c, x]), b])
        d = layers.GRU(3, return_sequences=True, name="b")(layers.Concatenate()([c, x]))
        return layers.Dense(2)(layers.Concatenate()([d, x]))

    return functional(body)


@case("h")
def keras_ops() -> keras.Model:
    def body(x: Any) -> Any:
        x = ops.clip(ops.tanh(x) * 2 + 0.1, -1.5, 1.5)
        left, right = ops.split(x, 2, axis=-1)
        x = ops.concatenate([ops.sqrt(ops.abs(left) + 0.5), ops.where(right > 0, right, -0.1 * right)], -1)
        y = layers.GRU(6, return_sequences=True)(x)
        y = ops.threshold(ops.glu(y, axis=-1), 0.05, 0.1)
        y = y / (1 + ops.sum(ops.square(y), axis=-1, keepdims=True))
        y = ops.stack([y, ops.exp(y)], axis=-1)
        return ops.max(y, axis=-1) @ ops.ones((3, 2)) - ops.mean(y, axis=(2, 3), keepdims=False)[..., None]

    return functional(body)


@case("h c")
def time_distributed() -> keras.Model:
    x = keras.Input((None, 8, 3))
    y = layers.TimeDistributed(layers.Conv1D(4, 3, strides=2, activation="relu"))(x)
    y = layers.TimeDistributed(layers.MaxPooling1D(2))(y)
    y = layers.TimeDistributed(layers.Flatten())(y)
    y = layers.LSTM(4, return_sequences=True)(y)
    return keras.Model(x, layers.TimeDistributed(layers.Dense(3))(y))


@case("h")
def dense_layers_of_other_shapes() -> keras.Model:
    return sequence(
        layers.EinsumDense("btf,fg->btg", (None, 6), bias_axes="g"),
        layers.Reshape((-1, 2, 3)),
        layers.TimeDistributed(layers.Permute((2, 1))),
        layers.Reshape((-1, 6)),
        layers.GRU(4, return_sequences=True),
    )


# Memory of a time step that is no recurrence.


@case("conv_past grouped_past lstm_h lstm_c")
def causal_convolutions() -> keras.Model:
    return sequence(
        layers.Conv1D(6, 3, padding="causal", dilation_rate=2, activation="relu", name="conv"),
        layers.Conv1D(6, 2, padding="causal", groups=3, use_bias=False, name="grouped"),
        layers.Conv1D(4, 1, name="pointwise"),
        layers.LSTM(3, return_sequences=True, name="lstm"),
    )


@case("depth_past wide_past gru_h")
def padding_on_the_left() -> keras.Model:
    return sequence(
        layers.ZeroPadding1D((6, 0)),
        layers.DepthwiseConv1D(3, dilation_rate=3, depth_multiplier=2, activation="tanh", name="depth"),
        layers.ZeroPadding1D((3, 0)),
        layers.Conv1D(4, 4, name="wide"),
        layers.GRU(3, return_sequences=True, name="gru"),
    )


@case("h c")
def dilated_kernels_of_one() -> keras.Model:
    """They remember nothing, though TensorFlow cuts the sequence into blocks for them."""
    return sequence(
        layers.DepthwiseConv1D(1, dilation_rate=3),
        layers.Conv1D(4, 1, padding="causal", dilation_rate=2, activation="tanh"),
        layers.LSTM(4, return_sequences=True),
    )


@case("past")
def a_convolution_alone() -> keras.Model:
    return sequence(layers.Conv1D(6, 5, padding="causal"), layers.Dense(2))


@case("a_past b_past")
def dilated_residuals() -> keras.Model:
    def body(x: Any) -> Any:
        for name, dilation in (("a", 1), ("b", 4)):
            y = layers.Conv1D(FEATURES, 2, padding="causal", dilation_rate=dilation, name=name)(x)
            x = layers.Add()([layers.Activation("relu")(y), x])
        return layers.Dense(2)(x)

    return functional(body)


# Masks.


@case("a_h a_c b_h c_h", mask_value=-1.0)
def masking() -> keras.Model:
    return sequence(
        layers.Masking(-1.0),
        layers.LSTM(4, return_sequences=True, name="a"),
        layers.GRU(4, return_sequences=True, name="b"),
        layers.SimpleRNN(3, name="c"),
    )


@case("a_cell_0_h a_cell_1_h a_cell_1_c b_s b_last", mask_value=0.0)
def masking_of_any_cell() -> keras.Model:
    return sequence(
        layers.Masking(),
        layers.RNN([layers.GRUCell(3), layers.LSTMCell(4)], return_sequences=True, name="a"),
        layers.RNN(Leaky(3), return_sequences=True, name="b"),
    )


@case("a_h a_c b_h b_c b_last c_h c_c", mask_value=0.0)
def masking_and_zero_output_and_initial_state() -> keras.Model:
    """At a masked step before any other Keras puts out zeros, and not the initial state."""

    def body(x: Any) -> Any:
        x = layers.Masking()(x)
        a = layers.LSTM(3, return_sequences=True, zero_output_for_mask=True, name="a")(x)
        begin = [ops.ones((1, 3)) * 0.5, ops.ones((1, 3)) * -2.0]
        told = ops.any(x != 0, axis=-1)
        b = layers.LSTM(3, return_sequences=True, name="b")(x, mask=told, initial_state=begin)
        # Keras drops the mask of a call with an initial state, unless it is told.
        c = layers.LSTM(3, return_sequences=True, name="c")(x, initial_state=begin)
        return layers.Concatenate()([a, b, c])

    return functional(body)


@case("h c")
def embedding_that_masks() -> keras.Model:
    return tokens(
        layers.Embedding(TOKENS, 4, mask_zero=True),
        layers.LSTM(5, return_sequences=True),
        layers.Dense(TOKENS),
    )


@case("conv_past lstm_h lstm_c")
def a_mask_beside_a_convolution() -> keras.Model:
    return tokens(
        layers.Embedding(TOKENS, 4, mask_zero=True),
        layers.Dropout(0.5),
        layers.Conv1D(4, 2, padding="causal", name="conv"),
        layers.LSTM(5, return_sequences=True, name="lstm"),
    )


# Models of models, of several inputs and outputs, and of other precisions.


@case("inner_h inner_c inner_2_h inner_2_c outer_h")
def nested_and_shared() -> keras.Model:
    inner = sequence(layers.LSTM(4, return_sequences=True, name="inner"), layers.Dense(FEATURES))
    return functional(lambda x: layers.GRU(3, return_sequences=True, name="outer")(inner(inner(x))))


@case("h c")
def nested_embedding() -> keras.Model:
    """A mask that is made in one nested model and used in another."""
    read = tokens(layers.Embedding(TOKENS, 4, mask_zero=True), layers.Dense(4))
    x = keras.Input((None, 4))
    speak = keras.Model(x, layers.Dense(TOKENS)(layers.LSTM(4, return_sequences=True, name="a")(x)))
    i = keras.Input((None,), dtype="int32", name="tokens")
    return keras.Model(i, speak(read(i)))


@case("h")
def two_inputs() -> keras.Model:
    audio = keras.Input((None, 3), name="audio")
    phone = keras.Input((None,), dtype="int32", name="phone")
    x = layers.Concatenate()([audio, layers.Embedding(7, 3)(phone)])
    return keras.Model([audio, phone], layers.GRU(4, return_sequences=True)(x))


@case("trunk_h side_h side_c")
def three_outputs() -> keras.Model:
    def body(x: Any) -> Any:
        y = layers.GRU(4, return_sequences=True, name="trunk")(x)
        last = layers.Dense(2, name="last")(layers.LSTM(3, name="side")(y))
        return [layers.Dense(2, name="logits")(y), layers.Dense(1, name="value")(x), last]

    return functional(body)


def picture(*stack: Any) -> keras.Model:
    """A Sequential model that reads a spectrogram `[batch, time, 6, 2]`."""
    return keras.Sequential([layers.Input((None, 6, 2)), *stack])


@case("h")
def convolution_over_frequency_alone() -> keras.Model:
    return picture(
        layers.Conv2D(3, (1, 3), padding="same", activation="relu"),
        layers.MaxPooling2D((1, 2)),
        layers.AveragePooling2D((1, 2), strides=(1, 1), padding="same"),
        layers.Conv2DTranspose(2, (1, 3), strides=(1, 2), padding="same"),
        layers.SeparableConv2D(2, (1, 3)),
        layers.Reshape((-1, 8)),
        layers.GRU(4, return_sequences=True),
    )


@case("first_past second_past")
def causal_convolutions_of_two_dimensions() -> keras.Model:
    """As convolutional recurrent networks for speech have them; nothing else remembers."""
    return picture(
        layers.ZeroPadding2D(((1, 0), (1, 1))),
        layers.Conv2D(4, (2, 3), strides=(1, 2), activation="elu", name="first"),
        layers.ZeroPadding2D(((4, 0), (0, 0))),
        layers.DepthwiseConv2D((3, 1), dilation_rate=(2, 1), name="second"),
        layers.Conv2D(2, 1),
        layers.TimeDistributed(layers.Flatten()),
        layers.Dense(3),
    )


@case("down_past up_past")
def transposed_convolution() -> keras.Model:
    """The decoder of a convolutional recurrent network: what is made beyond the sequence is cropped."""
    return picture(
        layers.ZeroPadding2D(((1, 0), (0, 0))),
        layers.Conv2D(4, (2, 2), strides=(1, 2), name="down"),
        layers.Conv2DTranspose(3, (3, 3), strides=(1, 2), activation="elu", name="up"),
        layers.Cropping2D(((0, 2), (1, 0))),
        layers.TimeDistributed(layers.Flatten()),
        layers.Dense(3),
    )


class Block(layers.Layer):
    """A block that hands its mask to the layer within it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gru = layers.GRU(4, return_sequences=True, name="inner")

    def call(self, x: Any, mask: Any = None) -> Any:
        return ops.tanh(self.gru(x, mask=mask))

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:2], 4)


@case("h", mask_value=0.0)
def masked_block() -> keras.Model:
    return sequence(layers.Masking(0.0), Block(), layers.Dense(2))


class Padded(layers.Conv1D):
    """A convolution that pads its input by itself, as programs of before `causal` have it."""

    def call(self, x: Any) -> Any:
        left = self.dilation_rate[0] * (self.kernel_size[0] - 1)
        return super().call(ops.pad(x, [[0, 0], [left, 0], [0, 0]]))

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:2], self.filters)


@case("a_past b_past")
def convolutions_that_pad() -> keras.Model:
    def body(x: Any) -> Any:
        y = Padded(5, 2, dilation_rate=3, activation="tanh", name="a")(x)
        y = layers.Conv1D(4, 3, name="b")(ops.pad(y, [[0, 0], [2, 0], [1, 1]]))
        return layers.Dense(2)(y)

    return functional(body)


@case("linear_past narrow_past")
def gated_convolutions() -> keras.Model:
    """Two convolutions of one reach read the same sequence, and remember it once; a third reads less."""

    def body(x: Any) -> Any:
        linear = layers.Conv1D(6, 4, padding="causal", name="linear")(x)
        gate = layers.Conv1D(6, 4, padding="causal", activation="sigmoid", name="gate")(x)
        return linear * gate + layers.Conv1D(6, 3, padding="causal", name="narrow")(x)

    return functional(body)


@case("h c")
def letters_of_words() -> keras.Model:
    """A recurrence within each time step, both ways, is unrolled."""
    inner = layers.Bidirectional(layers.GRU(3))
    words = layers.Input((None, 2, 2))  # of two letters: the proof unrolls them at every step
    return keras.Sequential([words, layers.TimeDistributed(inner), layers.LSTM(4, return_sequences=True)])


class Residual(layers.Layer):
    """A block of a temporal convolutional network, made of layers."""

    def __init__(self, filters: int, dilation: int, **options: Any) -> None:
        super().__init__(**options)
        shape = {"padding": "causal", "dilation_rate": dilation, "activation": "relu"}
        self.stack = [layers.Conv1D(filters, 2, name=f"{self.name}_{i}", **shape) for i in range(2)]
        self.match = layers.Conv1D(filters, 1)

    def call(self, inputs: Any) -> Any:
        x = inputs
        for layer in self.stack:
            x = layer(x)
        return ops.relu(x + self.match(inputs))


class Network(layers.Layer):
    """Blocks in a layer of one's own, as keras-tcn has them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.blocks = [Residual(3, 2**i, name=f"block{i}") for i in range(2)]

    def call(self, inputs: Any) -> Any:
        skips = []
        for block in self.blocks:
            inputs = block(inputs)
            skips.append(inputs)
        return skips[0] + skips[1]


@case("block0_0_past block0_1_past block1_0_past block1_1_past")
def layer_of_layers() -> keras.Model:
    return functional(lambda x: layers.Dense(2)(Network()(x)))


@case("h c")
def several_steps_ahead() -> keras.Model:
    """The head of TensorFlow's tutorial on time series: all of the future from the last state."""
    return sequence(layers.LSTM(6), layers.Dense(6), layers.Reshape((3, 2)))


@case("h")
def flattened_head() -> keras.Model:
    return sequence(
        layers.GRU(6), layers.Dense(6), layers.Reshape((-1, 2)), layers.Flatten(), layers.Dense(2)
    )


class Doubled(layers.LSTMCell):
    """An LSTM cell whose output is not its state h."""

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        h, following = super().call(inputs, states, training=training)
        return 2.0 * h, following


@case("a_h a_c a_last b_h", mask_value=0.0)
def masked_cell_of_an_output_of_its_own() -> keras.Model:
    return sequence(
        layers.Masking(0.0),
        layers.RNN(Doubled(4), return_sequences=True, name="a"),
        layers.GRU(3, return_sequences=True, name="b"),
    )


@case("h c")
def stateful_of_one_row() -> keras.Model:
    return sequence(layers.LSTM(5, return_sequences=True, stateful=True), layers.Dense(2), batch=1)


@case("a_h b_h")
def of_two_rows() -> keras.Model:
    stack = (layers.GRU(4, return_sequences=True, name=name) for name in "ab")
    return sequence(*stack, layers.Dense(2), batch=2)


@case("h c")
def mixed_float16() -> keras.Model:
    return of_policy("mixed_float16")


@case("h c")
def float64() -> keras.Model:
    return of_policy("float64")


def of_policy(name: str) -> keras.Model:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        return sequence(layers.LSTM(8, return_sequences=True), layers.Dense(2, dtype="float32"))
    finally:
        keras.config.set_dtype_policy(policy)


def with_initial_states(masked: bool = False) -> keras.Model:
    """A decoder whose states the caller gives: as inputs `h` and `c` of the model."""
    x, h, c = keras.Input((None, FEATURES)), keras.Input((3,)), keras.Input((3,))
    lstm = layers.LSTM(3, return_sequences=True, return_state=True, name="lstm")
    mask = ops.any(x != 0, axis=-1) if masked else None
    y, *after = lstm(x, mask=mask, initial_state=[h, c])
    return keras.Model([x, h, c], [layers.Dense(2, name="logits")(y), *after])
