"""Which of a model's inputs are sequences, as symbols that have a free time axis where they are one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import keras

from .graph import flat_sequence, is_window, token_count

BATCH = 3  # a batch that is told apart from the time axis, which alone is None


def symbols_of(graph: Any, states: Collection[int]) -> tuple[list[Any], dict[int, int]]:
    """A symbol for each input; and of those that are a whole sequence in a row, by position, its time steps.

    `states` are the positions of the inputs that hold states.
    """
    symbols = [_symbol(graph, t, i not in states) for i, t in enumerate(graph.inputs)]
    _stop_what_is_not_stepped(graph, symbols)
    flat: dict[int, int] = {}
    if not any(None in symbol.shape for symbol in symbols):
        for i, tensor in enumerate(graph.inputs):  # one that is made into a sequence is read step by step
            if (laid_out := flat_sequence(graph, tensor)) is not None:
                flat[i], features = laid_out
                symbols[i] = keras.KerasTensor((BATCH, None, features), tensor.dtype)
    return symbols, flat


def _symbol(graph: Any, tensor: Any, may_be_sequence: bool) -> Any:
    rank = len(tensor.shape)
    is_token = token_count(graph, tensor) is not None
    # Beside a sequence one number a row, whatever axes it is given, is no sequence of one.
    is_condition = tensor.shape[1:] == (1,) and any(len(t.shape) > 2 for t in graph.inputs)
    has_time = rank > 2 or (
        rank == 2 and (tensor.shape[1] is None or is_token or (is_window(graph, tensor) and not is_condition))
    )
    timed = may_be_sequence and has_time
    shape = (BATCH, None, *tensor.shape[2:]) if timed else (BATCH, *tensor.shape[1:])
    return keras.KerasTensor(shape, tensor.dtype)


def _stop_what_is_not_stepped(graph: Any, symbols: list[Any]) -> None:
    """Beside a sequence an input of another length is none: an image, or all that an encoder reads.

    The sequence is the one of any length, or the one that is as long as what the model returns.
    """
    pairs = enumerate(zip(graph.inputs, symbols, strict=True))
    lengths = {i: tensor.shape[1] for i, (tensor, symbol) in pairs if None in symbol.shape}
    length = None
    if None not in lengths.values():
        returned = {t.shape[1] for t in graph.outputs if len(t.shape) > 2} & {*lengths.values()}
        if len(returned) != 1:
            return
        (length,) = returned
    for i in (i for i, other in lengths.items() if other != length):
        symbols[i] = keras.KerasTensor((BATCH, *graph.inputs[i].shape[1:]), graph.inputs[i].dtype)
