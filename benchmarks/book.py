"""The book's model, and what all that runs it have in common: `benchmarks/steps.py` compares them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Write = Callable[[Sequence[int], int], list[int]]  # a prompt and a length -> the tokens that follow


@dataclass(frozen=True)
class Book:
    """One LSTM and one dense layer on one-hot tokens, in Keras's layout (gates i, f, g, o), and its graph."""

    model: Any  # keras.Model
    onnx: Path
    tflite: Path

    def __post_init__(self) -> None:
        shapes = [tuple(weight.shape) for weight in self.model.weights]
        tokens, units = shapes[0][0], shapes[1][0]
        gates = 4 * units
        if shapes != [(tokens, gates), (units, gates), (gates,), (units, tokens), (tokens,)]:
            raise SystemExit(
                "steps.py: the checkpoint is not of one LSTM on one-hot tokens; train it without --cell"
            )

    @property
    def units(self) -> int:
        """Hidden units."""
        return int(self.model.weights[1].shape[0])

    def arrays(self) -> list[NDArray[np.float32]]:
        """Kernel, recurrent kernel, bias, dense kernel, dense bias."""
        return [np.array(weight) for weight in self.model.weights]


def writer(reset: Callable[[], object], step: Callable[[int], int]) -> Write:
    """From a step that takes a token and gives the likeliest next one."""

    def write(prompt: Sequence[int], length: int) -> list[int]:
        reset()
        token, tokens = 0, []
        for known in prompt:
            token = step(known)
        for _ in range(length):
            tokens.append(token)
            token = step(token)
        return tokens

    return write
