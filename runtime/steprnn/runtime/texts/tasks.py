"""What a model does with texts, one or many: score, embed and continue them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle.vocabulary import Vocabulary
from ..errors import UsageError, check_whole
from ..sampling.batch import rows_for
from ..sampling.sampler import Sampling
from ..session import Steppable
from . import reading, rows
from .batches import Encoded, Task
from .hooks import Cancel, HookedRows, LogitsProcessor, check_hooks
from .options import Filters
from .reading import Score
from .stops import checked_stops

if TYPE_CHECKING:
    from typing_extensions import Unpack  # of typing from Python 3.11 on; what is not run needs neither


class Readable(Steppable, Protocol):
    """What a task needs of a `Model`."""

    vocabulary: Vocabulary | None


def scoring(model: Readable, unknown: str = "error") -> Task[Score]:
    """The `Score` of each text, which has at least two characters."""
    vocabulary = vocabulary_of(model)
    encode = partial(encoded, vocabulary, unknown=unknown, what="text", least=2)
    return Task(encode, partial(reading.scores, model, vocabulary.tokens))


def embedding(
    model: Readable, pool: str = "last", normalize: bool = False, unknown: str = "error"
) -> Task[NDArray[np.float32]]:
    """The vector of each text, float32 `[units]`; raises `UsageError` where the model has none."""
    vocabulary = vocabulary_of(model)
    reading.pooled_state(model, pool)
    encode = partial(encoded, vocabulary, unknown=unknown, what="text")
    return Task(encode, partial(reading.vectors, model, pool=pool, normalize=normalize))


def generation(
    model: Readable,
    length: int,
    seed_of: Callable[[int], int],
    n: int = 1,
    *,
    stop: str | Sequence[str] = (),
    unknown: str = "error",
    logits_processor: LogitsProcessor | None = None,
    cancel: Cancel | None = None,
    **filters: Unpack[Filters],
) -> Task[str]:
    """Of each prompt n texts that begin with it; `seed_of` tells the seed by the place of a result."""
    sampling, stops = Sampling(**filters), checked_stops(stop)
    check_whole("length", length, 0)
    check_hooks(logits_processor, cancel)
    vocabulary = vocabulary_of(model)

    def write(batch: Sequence[Encoded]) -> list[str]:
        read = [one.tokens for one in batch]
        seeds = [seed_of(one.place) for one in batch]
        sampler = rows_for(sampling, seeds, read, len(vocabulary), length)
        chooser = HookedRows(sampler, logits_processor, read) if logits_processor else sampler
        written = rows.write(model, vocabulary, read, length, chooser, stops, cancel)
        return [one.text + text for one, text in zip(batch, written, strict=True)]

    return Task(partial(encoded, vocabulary, unknown=unknown), write, n)


def vocabulary_of(model: Readable) -> Vocabulary:
    """The characters of a model that reads text; raises `UsageError` where it has none."""
    if model.vocabulary is not None and model.manifest.step.is_language_model and model.manifest.start:
        static = ", ".join(t.name for t in model.manifest.static)
        raise UsageError(f"the states of this model begin from {static}: step session(static={{...}})")
    if model.vocabulary is None or not model.manifest.step.is_language_model:
        raise UsageError("the bundle has no vocabulary: step it with session().step(x)")
    return model.vocabulary


def encoded(
    vocabulary: Vocabulary, text: str, unknown: str, what: str = "prompt", least: int = 1
) -> list[int]:
    """The tokens of a text; raises `UsageError` where there are not so many of them."""
    tokens = vocabulary.encode(text, unknown=unknown)
    if not tokens:
        reason = "is empty" if not text else "has no character of the vocabulary"
        raise UsageError(f"the {what} {reason}; expected at least one character to begin with")
    if len(tokens) < least:
        one = "has one token" + (" of the vocabulary" if len(text) > 1 else "")
        raise UsageError(f"the text {one}; a score needs at least 2, as the first has no prediction")
    return tokens
