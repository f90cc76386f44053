"""The faster forward pass against the stock layers: the same values, the same gradients."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from steprnn.train import recurrence
from steprnn.train.model import build
from steprnn.train.settings import Settings

VOCABULARY, BATCH, TIME = 11, 3, 6

# float32 sums in another order: one part in 2**23 for each of a few dozen terms of size 1.
TOLERANCE = 5e-6


def stock(model: Any, tokens: Any, states: list[list[Any]]) -> Any:
    """The layers of the model, called as Keras calls them, from given states."""
    value, given = tokens, iter(states)
    after = []
    for operation in model.operations[1:]:
        if isinstance(operation, keras.layers.RNN):
            value, *last = operation(value, initial_state=next(given))
            after.append(last)
        else:
            value = operation(value)
    return value, after


def randomized(settings: Settings) -> Any:
    """A model without zeros: a bias of zeros would hide a bias that is left out."""
    model = build(VOCABULARY, settings)
    random = np.random.default_rng(0)
    model.set_weights(
        [random.normal(0, 0.5, weight.shape).astype(np.float32) for weight in model.get_weights()]
    )
    return model


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("embedding", [0, 5])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_values_and_gradients_are_those_of_the_stock_layers(
    cell: str, embedding: int, layers: int, jit: bool
) -> None:
    if jit and (embedding > 0) != (layers == 2):
        pytest.skip("two of the four are enough to see that XLA compiles it")
    model = randomized(Settings(cell=cell, layers=layers, units=7, embedding=embedding))
    random = np.random.default_rng(1)
    tokens = tf.constant(random.integers(0, VOCABULARY, (BATCH, TIME)), tf.int32)
    states = [
        [tf.constant(random.normal(size=(BATCH, units)), tf.float32) for units in layer]
        for layer in recurrence.sizes(model)
    ]
    weight = tf.constant(random.normal(size=(BATCH, TIME, VOCABULARY)), tf.float32)
    weights = [variable.value for variable in model.trainable_variables]

    def run(forward: Any) -> Any:
        with tf.GradientTape() as tape:
            logits, after = forward()
            loss = tf.reduce_sum(logits * weight)
        return logits, after, tape.gradient(loss, weights)

    logits, after, gradients = run(lambda: stock(model, tokens, states))
    ours = tf.function(run, jit_compile=jit, autograph=False)
    fast_logits, fast_after, fast_gradients = ours(
        lambda: recurrence.forward(model, tokens, states, training=False)
    )

    np.testing.assert_allclose(fast_logits, logits, atol=TOLERANCE)
    assert [len(layer) for layer in fast_after] == [2 if cell == "lstm" else 1] * layers
    for ours, theirs in zip(tf.nest.flatten(fast_after), tf.nest.flatten(after), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)
    for ours, theirs, variable in zip(fast_gradients, gradients, model.trainable_variables, strict=True):
        ours, theirs = tf.convert_to_tensor(ours), tf.convert_to_tensor(theirs)
        scale = float(tf.reduce_max(tf.abs(theirs)))
        assert scale > 0, variable.path
        np.testing.assert_allclose(ours / scale, theirs / scale, atol=TOLERANCE, err_msg=variable.path)


def test_two_windows_with_the_state_carried_are_one_long_window() -> None:
    model = randomized(Settings(units=7, layers=2))
    tokens = tf.constant(np.random.default_rng(2).integers(0, VOCABULARY, (BATCH, 2 * TIME)), tf.int32)
    zeros = [[tf.zeros((BATCH, units)) for units in layer] for layer in recurrence.sizes(model)]
    first, between = recurrence.forward(model, tokens[:, :TIME], zeros, training=False)
    second, last = recurrence.forward(model, tokens[:, TIME:], between, training=False)
    logits, *states = model(tokens)
    np.testing.assert_allclose(tf.concat([first, second], 1), logits, atol=TOLERANCE)
    for ours, theirs in zip(tf.nest.flatten(last), states, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


def test_the_gradient_of_the_one_hot_product_is_dense() -> None:
    # Adam squares a sparse gradient before it adds up what belongs to one row, and learns something else.
    model = randomized(Settings(units=7))
    tokens = tf.zeros((BATCH, TIME), tf.int32)
    zeros = [[tf.zeros((BATCH, units)) for units in layer] for layer in recurrence.sizes(model)]
    with tf.GradientTape() as tape:
        logits, _ = recurrence.forward(model, tokens, zeros, training=False)
    kernel = model.get_layer("lstm").cell.kernel.value
    assert isinstance(tape.gradient(logits, kernel), tf.Tensor)


def test_dropout_is_applied_in_training_alone() -> None:
    model = build(VOCABULARY, Settings(units=64, dropout=0.5))
    tokens = tf.zeros((1, 1), tf.int32)
    zeros = [[tf.zeros((1, 64)), tf.zeros((1, 64))]]
    calm, again = (recurrence.forward(model, tokens, zeros, training=False)[0] for _ in range(2))
    wild, other = (recurrence.forward(model, tokens, zeros, training=True)[0] for _ in range(2))
    assert np.array_equal(calm, again)
    assert not np.array_equal(wild, other)
