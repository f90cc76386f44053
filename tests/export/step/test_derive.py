"""The derived step, run as TensorFlow runs it, against Keras on whole sequences: no file is written here."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tf2onnx")

import keras
import tensorflow as tf
from keras import layers, ops

from steprnn.export import Step
from steprnn.export.step.derive import derive
from steprnn.runtime.spec import StepSpec, TensorSpec

from ..models import (
    CASES,
    FEATURES,
    Arrays,
    Case,
    chained,
    drawn,
    first_state,
    shaken,
    with_initial_states,
)

# A convolution drops the mask of its input, and Keras says so each time.
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
STEPS = 5


def eager(step: Step) -> Any:
    """Calls the step as it is, without a graph."""

    def run(arrays: Arrays) -> Arrays:
        results = step.call({name: tf.constant(array) for name, array in arrays.items()})
        return {name: ops.convert_to_numpy(result) for name, result in results.items()}

    return run


def same(step: Step, inputs: Arrays, expected: Arrays, atol: float = 1e-5) -> None:
    """Each output of the chained step, `[batch, steps, ...]`; the last one of a model that gives no other."""
    results = chained(step, eager(step), inputs, first_state(step, len(next(iter(expected.values())))))
    for name, whole in expected.items():
        got = np.moveaxis(results[name], 0, 1)
        got = got if got.ndim == whole.ndim else got[:, -1]
        np.testing.assert_allclose(got, whole, rtol=atol, atol=atol, err_msg=name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_chained_step_is_the_model(case: Case) -> None:
    model = shaken(case.build())
    step = derive(model)
    rows = model.inputs[0].shape[0] or 2
    inputs = drawn(step, model.inputs[0].shape[1] or STEPS, rows, case.mask_value)
    called = [np.moveaxis(array, 0, 1) for array in inputs.values()]
    outputs = keras.tree.flatten(model(called if len(called) > 1 else called[0]))
    expected = {t.name: ops.convert_to_numpy(o) for t, o in zip(step.spec.outputs, outputs, strict=False)}
    same(step, inputs, expected, atol=4e-3 if case.name == "mixed_float16" else 1e-5)
    assert step.on_sequences is not None
    whole = step.on_sequences({name: np.moveaxis(array, 0, 1) for name, array in inputs.items()})
    assert list(whole) == [t.name for t in step.spec.outputs]
    for name, array in expected.items():
        np.testing.assert_allclose(whole[name], array, rtol=1e-5, atol=1e-5, err_msg=name)


def tensors(text: str) -> tuple[TensorSpec, ...]:
    """`x float32 [4], phone int32 [] of 7`: as many tensors."""
    found = []
    for name, dtype, shape, tokens in re.findall(r"(\w+) (\w+) \[([\d ]*)\](?: of (\d+))?", text):
        axes = tuple(int(n) for n in shape.split())
        found.append(TensorSpec(name, dtype, axes, int(tokens) if tokens else None))
    return tuple(found)


SPECS = {
    "lstm": ("x float32 [4]", "h float32 [5], c float32 [5]", "y float32 [3]"),
    "embedding": ("x int32 [] of 11", "h float32 [5], c float32 [5]", "y float32 [11]"),
    "one_hot": ("x int32 [] of 11", "h float32 [5]", "y float32 [11]"),
    "category_encoding": ("x int32 [] of 11", "h float32 [5]", "y float32 [11]"),
    "time_distributed": ("x float32 [8 3]", "h float32 [4], c float32 [4]", "y float32 [3]"),
    "two_inputs": ("audio float32 [3], phone int32 [] of 7", "h float32 [4]", "y float32 [4]"),
    "three_outputs": (
        "x float32 [4]",
        "trunk_h float32 [4], side_h float32 [3], side_c float32 [3]",
        "logits float32 [2], value float32 [1], last float32 [2]",
    ),
    "padding_on_the_left": (
        "x float32 [4]",
        "depth_past float32 [6 4], wide_past float32 [3 8], gru_h float32 [3]",
        "y float32 [3]",
    ),
    "custom_cells": (
        "x float32 [4]",
        "leaky_s float32 [3], ran_s0 float32 [3], ran_s1 float32 [2], both_cell_0_s float32 [3], "
        "both_cell_1_s0 float32 [3], both_cell_1_s1 float32 [2]",
        "y float32 [5]",
    ),
    "masking_of_any_cell": (
        "x float32 [4]",
        "a_cell_0_h float32 [3], a_cell_1_h float32 [4], a_cell_1_c float32 [4], b_s float32 [3], "
        "b_last float32 [3]",
        "y float32 [3]",
    ),
    "returned_states": ("x float32 [4]", "h float32 [4], c float32 [4]", "y float32 [2]"),
    "mixed_float16": ("x float32 [4]", "h float32 [8], c float32 [8]", "y float32 [2]"),
    "float64": ("x float32 [4]", "h float32 [8], c float32 [8]", "y float32 [2]"),
}


@pytest.mark.parametrize("name", SPECS)
def test_the_contract_is_literally_this(name: str) -> None:
    step = derive(next(case for case in CASES if case.name == name).build())
    assert step.spec == StepSpec(*map(tensors, SPECS[name]))
    assert (step.initial, step.fixed_steps, step.mask_value) == (
        {},
        None,
        0.0 if name == "masking_of_any_cell" else None,
    )


def test_names_that_no_format_takes_and_layers_that_are_called_twice() -> None:
    audio, phone = (
        keras.Input((None, 3), name="left-audio"),
        keras.Input((None,), dtype="int32", name="the.phone"),
    )
    x = layers.Concatenate()([audio, layers.Embedding(7, 3)(phone)])
    lstm, dense = layers.LSTM(4, return_sequences=True, name="my-lstm"), layers.Dense(2, name="out-1")
    once, again, more = lstm(x), lstm(x), lstm(x)
    model = keras.Model([audio, phone], [dense(once), dense(again), more])
    assert derive(model).spec == StepSpec(
        tensors("left_audio float32 [3], the_phone int32 [] of 7"),
        tensors(
            "my_lstm_h float32 [4], my_lstm_c float32 [4], my_lstm_2_h float32 [4], my_lstm_2_c float32 [4], "
            "my_lstm_3_h float32 [4], my_lstm_3_c float32 [4]"
        ),
        tensors("out_1 float32 [2], out_1_2 float32 [2], my_lstm float32 [4]"),
    )


def test_an_input_that_no_layer_reads_is_no_input_of_the_step() -> None:
    """A mask or a length that a model takes and ignores."""
    x, other = keras.Input((None, 4)), keras.Input((7,), name="other")
    model = shaken(keras.Model([x, other], layers.GRU(3, return_sequences=True)(x)))
    step = derive(model)
    assert step.spec == StepSpec(tensors("x float32 [4]"), tensors("h float32 [3]"), tensors("y float32 [3]"))
    inputs = drawn(step, STEPS, 2)
    same(step, inputs, {"y": model([np.moveaxis(inputs["x"], 0, 1), np.ones((2, 7))]).numpy()})


@pytest.mark.parametrize("masked", [False, True])
def test_states_that_the_caller_gives(masked: bool) -> None:
    """Inputs of the model that are initial states are states of the step, and zero where it is proved."""
    model = shaken(with_initial_states(masked))
    step = derive(model)
    assert step.spec == StepSpec(
        tensors("x float32 [4]"),
        tensors("h float32 [3], c float32 [3], last float32 [3]")[: 2 + masked],
        tensors("y float32 [2]"),
    )
    assert step.mask_value is None, "no Masking layer tells one"
    inputs = drawn(step, STEPS, 2, 0.0)
    x, zero = np.moveaxis(inputs["x"], 0, 1), np.zeros((2, 3), np.float32)
    expected = model([x, zero, zero])[0].numpy()
    assert step.on_sequences is not None
    np.testing.assert_allclose(step.on_sequences({"x": x})["y"], expected, rtol=1e-5, atol=1e-5)
    same(step, inputs, {"y": expected})


def test_a_model_of_so_many_rows_is_run_in_pieces() -> None:
    """Two pieces of three rows and one of a single row, whatever the others hold."""
    x = keras.Input((None, FEATURES), batch_size=3)
    model = shaken(keras.Model(x, layers.GRU(2, return_sequences=True)(x)))
    step = derive(model)
    assert step.on_sequences is not None
    inputs = np.random.default_rng(0).standard_normal((7, 4, FEATURES)).astype(np.float32)
    got = step.on_sequences({"x": inputs})["y"]
    assert got.shape == (7, 4, 2)
    assert got.dtype == np.float64
    for row in range(7):
        alone = model(np.repeat(inputs[row : row + 1], 3, axis=0)).numpy()[0]
        np.testing.assert_allclose(got[row], alone, rtol=1e-6, atol=1e-6)


def test_a_stateful_model_begins_anew_and_keeps_its_own_state() -> None:
    model = next(case for case in CASES if case.name == "stateful_of_fixed_batch").build()
    step = derive(model)
    assert step.on_sequences is not None
    inputs = np.random.default_rng(0).standard_normal((7, 3, FEATURES)).astype(np.float32)
    once = step.on_sequences({"x": inputs})["y"]
    model(inputs)
    kept = [s.numpy() for layer in model.layers[:2] for s in keras.tree.flatten(layer.states)]
    np.testing.assert_array_equal(step.on_sequences({"x": inputs})["y"], once)
    after = [s.numpy() for layer in model.layers[:2] for s in keras.tree.flatten(layer.states)]
    assert len(kept) == 3
    for before, now in zip(kept, after, strict=True):
        assert before.any()
        np.testing.assert_array_equal(now, before)


def test_the_dropout_of_a_cell_is_what_it_was_before_the_step() -> None:
    model = next(case for case in CASES if case.name == "the_older_implementation_and_dropout").build()
    step = derive(model)
    eager(step)(first_state(step, 1) | {"x": np.zeros((1, FEATURES), np.float32)})
    cell = model.layers[2].cell
    assert (cell.dropout, cell.recurrent_dropout) == (0.3, 0.3)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16"])
def test_small_whole_numbers_wrap_around_in_the_step_too(dtype: str) -> None:
    x = keras.Input((None, 2), dtype=dtype)
    y = ops.cast(x[..., :1] + x[..., 1:], "float32") / 255.0
    model = shaken(keras.Model(x, layers.Dense(2)(layers.LSTM(4, return_sequences=True)(y))))
    ends = np.iinfo(dtype)
    drawn = np.random.default_rng(0).integers(ends.min, ends.max + 1, (STEPS, 2, 2)).astype(np.int32)
    expected = ops.convert_to_numpy(model(np.moveaxis(drawn, 0, 1).astype(dtype)))
    same(derive(model), {"x": drawn}, {"y": expected})


def test_a_model_keeps_its_own_states_where_a_proof_breaks() -> None:
    model = next(case for case in CASES if case.name == "stateful_of_one_row").build()
    model(np.ones((1, 3, model.input_shape[-1]), np.float32))
    layer = model.layers[0]
    before = [ops.convert_to_numpy(state) for state in layer.states]
    sequences = derive(model).on_sequences
    assert sequences is not None
    with pytest.raises(Exception, match="incompatible"):
        sequences({"x": np.ones((1, 3, model.input_shape[-1] + 1), np.float32)})
    for state, kept in zip(layer.states, before, strict=True):
        assert kept.any()
        np.testing.assert_array_equal(ops.convert_to_numpy(state), kept)
