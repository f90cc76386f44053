"""Texts are read, one a row of a batch: how likely each character is, and the vector of each text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..engines import Runner, Writer
from ..errors import NotFinite, UsageError
from ..sampling.sampler import not_finite
from ..session import Steppable, first_bad
from . import writing
from .batches import Encoded

STEPS_AT_ONCE = 128  # whose tokens, or outputs of one row, are in memory together
POOLS = ("last", "mean")


@dataclass(frozen=True)
class Score:
    """How likely a model finds a text, token by token: by character, or by byte where it reads bytes.

    The first has no prediction and is not counted.
    """

    log_probability: float  # natural logarithm, summed over the tokens
    perplexity: float  # exp(-mean log-probability of a token)
    characters: tuple[tuple[str, float], ...]  # each counted token, by its name, with its log-probability


def scores(model: Steppable, names: Sequence[str], texts: Sequence[Encoded]) -> list[Score]:
    """The score of each text; they come longest first, of at least two tokens each. Token i is `names[i]`.

    Raises `NotFinite` where a logit is none.
    """
    found = []
    for one, array in zip(texts, _log_probabilities(model, texts), strict=True):
        total = math.fsum(logs := array.tolist())
        each = zip(map(names.__getitem__, one.tokens[1:]), logs, strict=True)
        found.append(Score(total, perplexity(total, len(logs)), tuple(each)))
    return found


def perplexity(total: float, characters: int) -> float:
    """Of so many characters with this log-probability in all; infinite where float64 ends."""
    try:
        return math.exp(-total / characters)
    except OverflowError:
        return math.inf


def _log_probabilities(model: Steppable, texts: Sequence[Encoded]) -> list[NDArray[np.float64]]:
    """The log-probability of each token of each text but its first, float64 `[tokens - 1]`."""
    if len(texts) == 1:
        return [_read_alone(model, texts[0])]
    logs = [np.empty(len(one.tokens) - 1) for one in texts]
    following = [one.tokens[1:] for one in texts]
    block = np.empty((STEPS_AT_ONCE, len(texts)))  # of some steps, before each text has its own
    table, room = _columns(following, 0), np.empty((0, 0), np.float32)
    for time, live, runner in _steps(model, [one.tokens[:-1] for one in texts]):
        (y,) = runner.outputs.values()
        if room.shape != y.shape:
            room = np.empty_like(y)
        at = (time - 1) % STEPS_AT_ONCE
        values, bad = _log_softmax(y[:live], table[at, :live], room[:live])
        if bad is not None:
            raise not_finite(bad[1]).at(model.manifest.model, time)
        block[at, :live] = values
        if at == len(table) - 1:
            for found, column in zip(logs, block.T, strict=True):
                part = found[time - 1 - at : time]
                part[:] = column[: len(part)]
            if time < len(logs[0]):
                table = _columns(following, time)
    return logs


def vectors(
    model: Steppable, texts: Sequence[Encoded], pool: str, normalize: bool
) -> list[NDArray[np.float32]]:
    """The last recurrent layer's hidden state of each text, float32 `[units]`.

    The texts come longest first. `pool` "last" is the state after the last token, "mean" the mean of those
    after each; `normalize` divides by the Euclidean length. Raises `NotFinite` where a state is none.
    """
    name = pooled_state(model, pool)
    found: dict[int, NDArray[np.float32]] = {}
    if pool == "last" and len(texts) == 1:
        with writing.from_start(model) as runner:
            writing.read(runner, texts[0].tokens)
            found[0] = runner.get_state()[name][0]
    else:
        lengths = [len(one.tokens) for one in texts]
        sums: NDArray[np.float64] | None = None
        for time, live, runner in _steps(model, [one.tokens for one in texts]):
            if pool == "last" and lengths[live - 1] > time:  # none has ended
                continue
            h = runner.get_state()[name]
            if pool == "mean":
                sums = np.zeros((len(texts), *h.shape[1:])) if sums is None else sums
                sums[:live] += h[:live]
            for row in range(live - 1, -1, -1):
                if lengths[row] > time:
                    break
                found[row] = h[row] if sums is None else (sums[row] / time).astype(np.float32)
    for row, one in enumerate(texts):
        if (bad := first_bad(found[row])) is not None:
            raise NotFinite(f"state {name!r} holds {bad}", model.manifest.model, len(one.tokens))
    return [_unit(found[row]) if normalize else found[row] for row in range(len(texts))]


def pooled_state(model: Steppable, pool: str) -> str:
    """The name of the last recurrent layer's hidden state, which `pool` makes a vector of.

    Raises `UsageError` where there is none, or `pool` is unknown.
    """
    if pool not in POOLS:
        raise UsageError(f"pool is {pool!r}; expected 'last' or 'mean'")
    hidden = [t.name for t in model.manifest.step.states if t.name == "h" or t.name.endswith("_h")]
    if not hidden:
        raise UsageError("the model has no hidden state h, only its own kinds of state")
    return hidden[-1]


def _steps(model: Steppable, texts: Sequence[Sequence[int]]) -> Iterator[tuple[int, int, Runner]]:
    """Step through texts together, the longest first, each from the beginning of a stream.

    After each step: how many were taken, how many of the texts (the first ones) had a token in it, and the
    runner. Texts that are done stay in the batch until half are, as a smaller one is not free; then it
    shrinks to a power of two, so that an engine has few sizes to set up.
    """
    live = size = len(texts)
    state: Mapping[str, NDArray[np.float32]] = model.initial_state
    table, at, time = np.zeros((0, size), np.int32), 0, 0
    while live:
        with model.runner(size) as runner:
            runner.set_state(state)
            (x,) = runner.inputs.values()
            while 2 * live > size:
                if at == len(table):
                    table, at = _columns(texts[:size], time), 0
                x[...] = table[at]
                runner.run()
                at, time = at + 1, time + 1
                yield time, live, runner
                while live and len(texts[live - 1]) <= time:
                    live -= 1
            size = 1 << (live - 1).bit_length() if live else 0
            state = {name: array[:size] for name, array in runner.get_state().items()}
        table = table[:, :size]


def _columns(texts: Sequence[Sequence[int]], time: int) -> NDArray[np.int32]:
    """The tokens of some steps from `time` on, `[steps, texts]`; 0 where a text has none any more."""
    some = [text[time : time + STEPS_AT_ONCE] for text in texts]
    table = np.zeros((len(some[0]), len(some)), np.int32)
    for row, tokens in enumerate(some):
        table[: len(tokens), row] = tokens
    return table


def _read_alone(model: Steppable, one: Encoded) -> NDArray[np.float64]:
    """The same of one text: the outputs of many steps are taken together."""
    tokens, found = one.tokens, np.empty(len(one.tokens) - 1)
    with writing.from_start(model) as runner:
        (x,), (y,) = runner.inputs.values(), runner.outputs.values()
        for i in range(0, len(found), STEPS_AT_ONCE):
            some = tokens[i : min(i + STEPS_AT_ONCE, len(found))]
            logits = np.empty((len(some), *y.shape[1:]), np.float32)
            if isinstance(runner, Writer):
                runner.many(np.array(some, np.int32), logits)
            else:
                for token, row in zip(some, logits, strict=True):
                    x[0] = token
                    runner.run()
                    row[...] = y[0]
            values, bad = _log_softmax(logits, tokens[i + 1 : i + 1 + len(some)])
            if bad is not None:
                raise not_finite(bad[1]).at(model.manifest.model, i + bad[0] + 1)
            found[i : i + len(some)] = values
    return found


def _log_softmax(
    logits: NDArray[np.float32],
    following: Sequence[int] | NDArray[np.int32],
    room: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float64], tuple[int, float] | None]:
    """The log-probability of one token of each row of logits `[rows, vocabulary]`, to 1e-6.

    Beside it the first row whose largest logit is no number, and that. `room` is for the weights. The
    exponentials are float32, as the logits are: in float64 they took longer than a step in int8. The native
    library does it where that is there already, in a quarter of the time.
    """
    from ..engines import native  # most programs do without

    if native.is_ready():
        found = native.log_probabilities(logits, following)
    else:
        found = _log_softmax_here(logits, following, room)
    (bad,) = np.isnan(found).nonzero()
    return found, (int(bad[0]), float(logits[bad[0]].max())) if len(bad) else None


def _log_softmax_here(
    logits: NDArray[np.float32],
    following: Sequence[int] | NDArray[np.int32],
    room: NDArray[np.float32] | None,
) -> NDArray[np.float64]:
    tops = logits.max(axis=1)
    if not np.isfinite(tops).all():
        return np.where(np.isfinite(tops), 0.0, np.nan)
    chosen = logits[np.arange(len(logits)), following].astype(np.float64)
    weights = np.subtract(logits, tops[:, np.newaxis], out=room)
    totals = np.exp(weights, out=weights).sum(axis=1).astype(np.float64)
    found: NDArray[np.float64] = chosen - tops - np.log(totals)
    return found


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vector of length 1 in its direction; one of zeros as it is."""
    wide = vector.astype(np.float64)
    length = np.sqrt(np.square(wide).sum())
    return vector if length == 0 else (wide / length).astype(np.float32)
