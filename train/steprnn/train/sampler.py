"""Greedy continuation of a prompt through the model being trained: a look at how far it has come."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from steprnn.runtime.bundle.vocabulary import Vocabulary

from . import recurrence


class Sampler:
    """Continues prompts with the most likely character, step by step with the state carried."""

    def __init__(self, model: Any, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._sizes = recurrence.sizes(model)

        def step(token: Any, states: list[recurrence.States]) -> Any:
            logits, after = recurrence.forward(model, token, states, training=False)
            return tf.argmax(logits[:, -1], axis=-1, output_type=tf.int32), after

        self._step = tf.function(step)

    def __call__(self, prompt: str, length: int = 50) -> str:
        """The prompt and `length` characters after it; raises `UnknownToken` for a foreign character."""
        tokens = self._vocabulary.encode(prompt)
        states = [[tf.zeros((1, units)) for units in layer] for layer in self._sizes]
        following: list[int] = []
        for token in tokens:
            following_token, states = self._step(tf.constant([[token]], tf.int32), states)
        for _ in range(length):
            following.append(int(following_token[0]))
            following_token, states = self._step(tf.reshape(following_token, (1, 1)), states)
        return prompt + self._vocabulary.decode(following)
