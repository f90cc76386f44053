"""Many texts at once: one a row of a batch, which leaves when it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..bundle.vocabulary import Vocabulary
from ..errors import NotFinite
from ..session import Steppable
from .hooks import Cancel, RowChooser
from .stops import before_stop


def write(
    model: Steppable,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    length: int,
    sampler: RowChooser,
    stops: Sequence[str] = (),
    cancel: Cancel | None = None,
) -> list[str]:
    """The text of at most `length` tokens that follows each of the prompts, up to its first stop string.

    Rows read and write at their own pace. `prompts` are tokens, at least one in each; row i is the
    sampler's row i. Once `cancel` is set, each text ends with what it has by then.
    """
    begins = np.array([len(tokens) for tokens in prompts])
    ends = begins + length
    table = np.zeros((len(prompts), max(ends, default=0)), np.int32)  # row -> its prompt, then its text
    for row, tokens in enumerate(prompts):
        table[row, : len(tokens)] = tokens
    rows = np.arange(len(prompts)) if length else np.arange(0)  # the rows in the batch, in its order
    state: Mapping[str, NDArray[np.float32]] = model.initial_state
    time = 0
    while len(rows):
        with model.runner(len(rows)) as runner:
            runner.set_state(state)
            (x,), (y,) = runner.inputs.values(), runner.outputs.values()
            going = np.ones(len(rows), np.bool_)
            # A row that is done is stepped along until half are: a smaller batch is not free.
            while 2 * going.sum() > len(rows):
                x[...] = table[rows, time]
                runner.run()
                time += 1
                (speaking,) = (going & (begins[rows] <= time)).nonzero()
                if len(speaking):
                    logits = y if len(speaking) == len(rows) else y[speaking]
                    try:
                        table[rows[speaking], time] = sampler.choose(rows[speaking], logits)
                    except NotFinite as error:
                        raise error.at(model.manifest.model, time) from None
                    for row in rows[speaking] if stops else ():
                        if _has_stop(vocabulary, table[row, begins[row] : time + 1], stops):
                            ends[row] = time + 1
                going &= ends[rows] > time + 1
                if cancel is not None and cancel.is_set():
                    ends = np.minimum(ends, np.maximum(begins, time + 1))
                    going[:] = False
            state = {name: array[going] for name, array in runner.get_state().items()}
        rows = rows[going]
    texts = [vocabulary.decode(table[i, begins[i] : ends[i]].tolist()) for i in range(len(prompts))]
    return [before_stop(text, stops) for text in texts]


def _has_stop(vocabulary: Vocabulary, tokens: NDArray[np.int32], stops: Sequence[str]) -> bool:
    """Whether a stop string has come to its end among the latest of these tokens."""
    tail = vocabulary.tail(tokens, max(map(len, stops)))
    return any(stop in tail for stop in stops)
