"""What the seed notebook shows, each a row that must stay true, and what it got wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from steprnn.runtime.bundle.vocabulary import Vocabulary
from steprnn.train import corpus
from steprnn.train.fit import train
from steprnn.train.model import build
from steprnn.train.sampler import Sampler
from steprnn.train.settings import Settings
from steprnn.train.windows import Windows


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.of(corpus.load().text)


@pytest.fixture(scope="module")
def model(vocabulary: Vocabulary) -> Any:
    keras.utils.set_random_seed(0)
    return build(len(vocabulary), Settings())


def test_the_zero_state_of_a_cell_is_h_and_c_of_batch_by_256() -> None:
    state = keras.layers.LSTMCell(256).get_initial_state(batch_size=2)
    assert [tuple(part.shape) for part in state] == [(2, 256), (2, 256)]
    assert not any(np.any(part) for part in state)


def test_the_last_output_is_h_and_not_c() -> None:
    x = np.random.default_rng(0).normal(size=(2, 35, 9)).astype(np.float32)
    outputs, h, c = keras.layers.LSTM(256, return_sequences=True, return_state=True)(x)
    assert outputs.shape == (2, 35, 256)
    assert np.array_equal(outputs[:, -1], h)
    assert not np.allclose(h, c, atol=1e-3)


def test_the_model_returns_logits_for_every_position_and_h_and_c(model: Any, vocabulary: Vocabulary) -> None:
    tokens = np.random.default_rng(0).integers(0, len(vocabulary), (2, 35))
    logits, h, c = model(tokens)
    assert logits.shape == (2, 35, len(vocabulary))
    assert h.shape == c.shape == (2, 256)
    shorter = model(tokens[:, :20])[0]  # a position's logits do not depend on what comes after it
    np.testing.assert_allclose(logits[:, :20], shorter, atol=1e-5)
    head = model.get_layer("logits")
    np.testing.assert_allclose(logits[:, -1], head(h), atol=1e-5)  # of [h, c], h is what the head reads
    assert np.abs(np.asarray(logits)).max() > 0
    assert not np.allclose(np.exp(logits).sum(-1), 1)  # logits, no softmax behind them


def test_an_untrained_model_continues_with_ten_arbitrary_characters(
    model: Any, vocabulary: Vocabulary
) -> None:
    text = Sampler(model, vocabulary)("分开", 10)
    assert text.startswith("分开")
    assert len(text) == 12
    assert set(text) <= set(vocabulary.tokens)
    keras.utils.set_random_seed(1)
    other = Sampler(build(len(vocabulary), Settings()), vocabulary)("分开", 10)
    assert text[2:] != other[2:], "arbitrary: other weights say something else"


def test_the_sampler_says_what_the_stock_model_says(model: Any, vocabulary: Vocabulary) -> None:
    tokens = vocabulary.encode("分开")
    for _ in range(5):
        tokens.append(int(np.argmax(model(np.array([tokens]))[0][0, -1])))
    assert Sampler(model, vocabulary)("分开", 5) == vocabulary.decode(tokens)


def test_250_epochs_with_samples_of_both_prompts_every_50(
    tmp_path: Path, text_file: Path, tiny: Settings
) -> None:
    said: list[str] = []
    settings = replace(tiny, epochs=250, units=32, learning_rate=1e-2)
    training = train(
        tmp_path / "c",
        source=text_file,
        settings=settings,
        prompts=["分开", "不分开"],
        sample_every=50,
        verbose=0,
        say=said.append,
    )
    heads = [f"epoch {epoch}: {prompt}" for epoch in range(50, 251, 50) for prompt in ("分开", "不分开")]
    assert len(said) == len(heads)
    for line, head in zip(said, heads, strict=True):
        assert line.startswith(head)
        assert len(line) == len(head) + 50
    perplexity = [entry["perplexity"] for entry in training.history]
    assert len(perplexity) == 250
    assert perplexity[0] > 10
    assert perplexity[0] > perplexity[9] > perplexity[49] > perplexity[-1]
    assert perplexity[-1] < 1.1
    verses = corpus.load(text_file).text
    assert all(line[-20:] in verses for line in said[-2:]), "by the end they are known by heart"
    assert said[-2].startswith("epoch 250: 分开的时候，山外有雨")


def notebook_losses(loss: Any, optimizer: Any, epochs: int) -> list[float]:
    """The notebook's loop; returns the true loss in nats a character, epoch by epoch."""
    verses = "分开的时候，山外有雨，雨外有山。 " * 30
    vocabulary = Vocabulary.of(verses)
    keras.utils.set_random_seed(0)
    model = build(len(vocabulary), Settings(units=24))
    windows = Windows(vocabulary.encode(verses), batch=4, window=8)
    truth = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(jit_compile=True)
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = model(x)[0]
            value = loss(y, logits)
        gradients, _ = tf.clip_by_global_norm(tape.gradient(value, model.trainable_variables), 1e-2)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return truth(y, logits)

    values = [float(step(x, y)) for x, y in windows.dataset(range(epochs))]
    return list(np.reshape(values, (epochs, -1)).mean(axis=1))


def test_the_notebook_s_loss_on_logits_does_not_learn_and_ours_does() -> None:
    """docs/decisions/0001: `from_logits` left False, and an SGD step of 1e-2 on gradients clipped to 1e-2."""
    epochs = 30
    theirs = notebook_losses(keras.losses.SparseCategoricalCrossentropy(), keras.optimizers.SGD(1e-2), epochs)
    only_loss_mended = notebook_losses(
        keras.losses.SparseCategoricalCrossentropy(from_logits=True), keras.optimizers.SGD(1e-2), epochs
    )
    ours = notebook_losses(
        keras.losses.SparseCategoricalCrossentropy(from_logits=True), keras.optimizers.Adam(1e-2), epochs
    )
    guessing = np.log(len(set("分开的时候，山外有雨，雨外有山。 ")))
    assert theirs[-1] > guessing - 0.3
    assert only_loss_mended[-1] > guessing - 0.3, "the step is too small as well"
    assert ours[-1] < 0.2
