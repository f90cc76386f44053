"""What an application hangs into generation: a processor of logits, a cancel, and an event loop.

>>> def no_spaces(logits, tokens):
...     logits[model.vocabulary.encode(" ")] = -np.inf
>>> model.generate("分开", logits_processor=no_spaces)
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError, wrong_type
from ..sampling.sampler import Sampler, not_finite

T = TypeVar("T")

LogitsProcessor = Callable[[NDArray[np.float32], Sequence[int]], NDArray[np.float32] | None]
"""A function of the logits of one step, float32 `[vocabulary]`, and the tokens so far, with the prompt's.

It changes the logits in place and returns None, or returns others of the same shape. -inf bans a token;
one at least must stay finite. It is called before the repetition penalty and the filters, once for each
token of each text; with several texts at once, for one row after the other.
"""


class Cancel(Protocol):
    """What tells whether to stop, such as `threading.Event`."""

    def is_set(self) -> bool:
        """Whether to stop."""


def check_hooks(processor: object, cancel: object) -> None:
    """Raise `UsageError` where one of both is given and cannot be asked."""
    if processor is not None and not callable(processor):
        raise wrong_type("logits_processor", processor, "a function of the logits and the tokens")
    if cancel is not None and not hasattr(cancel, "is_set"):
        raise wrong_type("cancel", cancel, "a threading.Event, which another thread sets")


class Chooser(Protocol):
    """Chooses the tokens of one text."""

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The next token for logits `[vocabulary]`; raises `NotFinite` where there is none."""


class HookedSampler:
    """A `Sampler` that has a processor change the logits first."""

    def __init__(self, sampler: Sampler, processor: LogitsProcessor, tokens: Iterable[int]) -> None:
        self._sampler, self._processor, self._tokens = sampler, processor, [*tokens]

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The next token for logits `[vocabulary]`, which are left as they are."""
        token = self._sampler.choose(_processed(self._processor, logits.copy(), self._tokens))
        self._tokens.append(token)
        return token


class RowChooser(Protocol):
    """Chooses the tokens of many texts."""

    def choose(self, rows: NDArray[np.intp], logits: NDArray[np.float32]) -> NDArray[np.intp]:
        """The next token of each of these rows, for logits `[len(rows), vocabulary]`."""


class HookedRows:
    """A `RowSampler` that has a processor change the logits of each row first."""

    def __init__(
        self, sampler: RowChooser, processor: LogitsProcessor, tokens: Iterable[Iterable[int]]
    ) -> None:
        self._sampler, self._processor, self._tokens = sampler, processor, [[*row] for row in tokens]

    def choose(self, rows: NDArray[np.intp], logits: NDArray[np.float32]) -> NDArray[np.intp]:
        """The next token of each of these rows, for logits `[len(rows), vocabulary]`."""
        so_far = [self._tokens[row] for row in rows.tolist()]
        changed = [_processed(self._processor, y.copy(), t) for y, t in zip(logits, so_far, strict=True)]
        chosen = self._sampler.choose(rows, np.stack(changed))
        for tokens, token in zip(so_far, chosen.tolist(), strict=True):
            tokens.append(token)
        return chosen


def _processed(
    processor: LogitsProcessor, logits: NDArray[np.float32], tokens: Sequence[int]
) -> NDArray[np.float32]:
    if not np.isfinite(top := logits.max()):  # or the processor would be blamed for it
        raise not_finite(top)
    result = processor(logits, tokens)
    if result is not None:
        shape, logits = logits.shape, np.asarray(result, np.float32)
        if logits.shape != shape:
            raise UsageError(f"the logits processor gave shape {logits.shape}, expected {shape}")
    if not np.isfinite(logits.max()):  # of all the -inf, or where one is NaN or inf
        raise UsageError(
            f"the logits processor gave {logits.max()} as the largest logit after {len(tokens)} tokens; "
            "expected at least one finite logit, and otherwise -inf"
        )
    return logits


def until_cancelled(cancel: Cancel, items: Iterable[T]) -> Iterator[T]:
    """The items until `cancel` is set."""
    for item in items:
        if cancel.is_set():
            return
        yield item


class AnyOf:
    """A cancel that is set where one of several is."""

    def __init__(self, *cancels: Cancel) -> None:
        self._cancels = cancels

    def is_set(self) -> bool:
        """Whether to stop."""
        return any(cancel.is_set() for cancel in self._cancels)


async def for_event_loop(pieces: Iterator[str], left: threading.Event) -> AsyncIterator[str]:
    """The pieces for an event loop; `left` is set when nobody wants any more."""
    import asyncio  # it takes as long to import as the rest of the runtime

    try:
        piece = await asyncio.to_thread(next, pieces, None)  # it reads the prompt, which may be long
        while piece is not None:
            yield piece
            await asyncio.sleep(0)
            piece = next(pieces, None)
    finally:
        left.set()  # a thread that is still reading the prompt ends at its next step
