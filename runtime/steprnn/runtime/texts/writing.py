"""One text: its prompt is read and it is written, by the engine itself or step by step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from ..engines import Runner, Writer
from ..errors import NotFinite
from ..sampling.batch import sampler_for
from ..sampling.sampler import Sampling
from ..session import Steppable
from .hooks import Chooser

# Operations in one call of an engine that writes by itself: a few milliseconds, so that an interrupt is seen,
# and of what is streamed about a tenth of one, so that it comes as it is written.
AT_ONCE, STREAMED = 2**29, 2**23


@contextmanager
def from_start(model: Steppable) -> Iterator[Runner]:
    """A runner of one row at the beginning of a stream."""
    with model.runner() as runner:
        runner.set_state(model.initial_state)
        yield runner


def read(runner: Runner, tokens: Iterable[int]) -> int:
    """Read tokens; returns how many they were."""
    if isinstance(tokens, list) and isinstance(runner, Writer):
        runner.many(np.array(tokens, np.int32), None)
        return len(tokens)
    (x,), steps = runner.inputs.values(), 0
    for token in tokens:
        x[0] = token
        runner.run()
        steps += 1
    return steps


def write(
    model: Steppable, prompt: list[int], length: int, sampling: Sampling, seed: int, at_once: int
) -> Iterator[int]:
    """`length` tokens that follow a prompt; an engine that writes by itself does `at_once` operations a call.

    Raises `NotFinite` where there is no next token.
    """
    with from_start(model) as runner:
        text = runner.text(sampling, seed, prompt, length) if isinstance(runner, Writer) else None
        (y,) = runner.outputs.values()
        if text is not None:
            steps = read(runner, prompt)
            try:
                while tokens := text.write(at_once):
                    steps += len(tokens)
                    yield from tokens
            except NotFinite as error:
                raise error.at(model.manifest.model, steps) from None
    if text is None:
        sampler = sampler_for(sampling, seed, prompt, y.shape[-1], length)
        yield from follow(model, prompt, length, sampler)


def follow(model: Steppable, prompt: Iterable[int], length: int, sampler: Chooser) -> Iterator[int]:
    """The same step by step, so that each step can be hooked into. The prompt may end early."""
    with from_start(model) as runner:
        (x,), (y,) = runner.inputs.values(), runner.outputs.values()
        steps = read(runner, prompt)
        logits, left = y[0], length
        try:
            for left in range(length, 0, -1):
                token = sampler.choose(logits)
                yield token
                if left > 1:
                    x[0] = token
                    runner.run()
        except NotFinite as error:
            raise error.at(model.manifest.model, steps + length - left) from None
