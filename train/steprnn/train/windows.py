"""Consecutive sampling: how a text is cut into the windows that training reads one after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from .corpus import check_held_out, check_length

HELD_OUT_WINDOW = 1024  # characters read at once: bounds the memory of the logits, changes no number


class Windows:
    """Windows of a text, such that row r of a window continues row r of the window before.

    From an offset below `window`, drawn anew for each epoch out of `(seed, epoch)` alone, the text is
    laid into `batch` rows of equal length, and these are cut into windows of `window` characters.

    Source: `seq_data_iter_sequential` of Dive into Deep Learning, 8.3. Unlike there, an epoch has the same
    number of windows for every offset.
    Raises `CorpusError` for a text that does not fill one window.
    """

    def __init__(self, tokens: list[int], *, batch: int, window: int, seed: int = 0) -> None:
        check_length(len(tokens), batch, window)
        self.tokens = np.asarray(tokens, np.int32)
        self.batch, self.window, self.seed = batch, window, seed

    def __len__(self) -> int:
        """Windows in an epoch."""
        return (len(self.tokens) - self.window) // self.batch // self.window

    @property
    def characters(self) -> int:
        """Characters predicted in an epoch."""
        return len(self) * self.batch * self.window

    def offset(self, epoch: int) -> int:
        """Where the rows of an epoch begin, in characters, below `window`."""
        return int(np.random.default_rng([self.seed, epoch]).integers(self.window))

    def dataset(self, epochs: range, skip: int = 0) -> Any:
        """The windows of these epochs in order: pairs `(x, y)`, each int32 `[batch, window]`.

        y is x one character later. The first `skip` windows are left out.
        """
        # Not from_generator: it sets malloc to give memory back at once, which costs a fifth of the speed.
        offsets = tf.data.Dataset.from_tensor_slices([self.offset(epoch) for epoch in epochs])
        indices = tf.data.Dataset.range(len(self), output_type=tf.int32)
        every = offsets.flat_map(lambda offset: indices.map(lambda index: (offset, index)))
        return every.skip(skip).map(self._cut).prefetch(2)

    def _cut(self, offset: Any, index: Any) -> tuple[Any, Any]:
        row_length = (len(self.tokens) - 1 - offset) // self.batch
        rows = offset + index * self.window + row_length * np.arange(self.batch, dtype=np.int32)[:, None]
        at = rows + np.arange(self.window, dtype=np.int32)
        return tf.gather(self.tokens, at), tf.gather(self.tokens, at + 1)


def held_out(tokens: list[int]) -> Any:
    """The held-out text as one row, read from its first character to its last with the state carried.

    A tf.data.Dataset of `(x, y, weight)`, each `[1, window]`. Padding weighs 0 and every character the
    same, so that the mean loss of the windows is the mean over the characters: each but the first is
    predicted once. Raises `CorpusError` for fewer than two characters.
    """
    check_held_out(len(tokens))
    predicted = len(tokens) - 1
    window = min(predicted, HELD_OUT_WINDOW)
    windows = -(-predicted // window)
    x, y = np.zeros((2, windows, 1, window), np.int32)
    weight = np.zeros((windows, 1, window), np.float32)
    x.flat[:predicted], y.flat[:predicted] = tokens[:-1], tokens[1:]
    # Keras divides a window's loss by its size, padding included, and then averages the windows.
    weight.flat[:predicted] = windows * window / predicted
    return tf.data.Dataset.from_tensor_slices((x, y, weight))
