"""What is timed of a loaded model: the engine's loop alone, and what `generate` makes of it."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model import Model
from ..session import Session
from .rounds import MOST_STEPS, Workload

BATCH = BLOCK = 64
TEMPERATURE = {"temperature": 0.8, "seed": 7}
FILTERS = TEMPERATURE | {
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "repeat_penalty": 1.1,
    "repeat_last_n": 64,
}


def workloads_of(model: Model) -> dict[str, Workload]:
    """The workloads by name; a model that writes no text has the engine's loop and a session's alone.

    `raw` is the engine's loop: token in, step, token of the largest logit. `session` steps frames one by one,
    `block` in blocks of 64. `generate` and `stream` are the engine's loop through the model, `temperature`
    and `filters` draw, and `prompt` reads. What ends in 64 is of a batch.
    """
    loops: dict[str, Workload] = {"session": partial(_session, model), "block": partial(_block, model)}
    if model.vocabulary is None or not model.manifest.writes_text:
        return {"raw": partial(_step, model, 1), **loops, "raw 64": partial(_step, model, BATCH)}
    tokens = model.vocabulary.characters
    prompt = "".join(random.Random(0).choices(tokens, k=MOST_STEPS))
    workloads: dict[str, Workload] = {"raw": partial(_greedy, model), **loops}
    for name, options in (("generate", {}), ("temperature", TEMPERATURE), ("filters", FILTERS)):
        workloads[name] = partial(_generate, model, tokens[0], options)
    workloads["stream"] = partial(_stream, model, tokens[0])
    workloads["prompt"] = lambda length: model.generate(prompt[:length], 1)
    workloads["raw 64"] = partial(_greedy_rows, model, BATCH)
    for name, options in (("generate", {}), ("temperature", TEMPERATURE), ("filters", FILTERS)):
        workloads[f"{name} 64"] = partial(_generate, model, [tokens[0]] * BATCH, options)
    return workloads


def _step(model: Model, batch: int, length: int) -> None:
    with model.runner(batch) as runner:
        runner.set_state(model.initial_state)
        run = runner.run
        for _ in range(length):
            run()


def _session(model: Model, length: int) -> None:
    session, frames = _begun(model, 1)
    frame: Any = {name: array[0] for name, array in frames.items()}
    if len(frame) == 1:  # as most would give it
        (frame,) = frame.values()
    if model.manifest.step.is_language_model:
        frame = 0
    for _ in range(length):
        session.step(frame)


def _block(model: Model, length: int) -> None:
    session, frames = _begun(model, BLOCK)
    for _ in range(length // BLOCK):
        session.run(frames)
    if rest := length % BLOCK:
        session.run({name: array[:rest] for name, array in frames.items()})


def _begun(model: Model, steps: int) -> tuple[Session, dict[str, NDArray[Any]]]:
    """A session, and so many frames of zeros for each of its inputs."""
    static = {t.name: np.zeros(t.array_shape(1), t.dtype) for t in model.manifest.static}
    frames = {t.name: np.zeros((steps, *t.array_shape(1)), t.dtype) for t in model.manifest.step.stepped}
    return model.session(static=static), frames


def _greedy(model: Model, length: int) -> None:
    with model.runner() as runner:
        runner.set_state(model.initial_state)
        (x,), (y,) = runner.inputs.values(), runner.outputs.values()
        run, logits, token = runner.run, y[0], 0
        for _ in range(length):
            x[0] = token
            run()
            token = logits.argmax()


def _greedy_rows(model: Model, batch: int, length: int) -> None:
    with model.runner(batch) as runner:
        runner.set_state(model.initial_state)
        (x,), (y,) = runner.inputs.values(), runner.outputs.values()
        run = runner.run
        x[...] = 0
        for _ in range(length):
            run()
            x[...] = y.argmax(axis=1)


def _generate(model: Model, prompt: Any, options: dict[str, Any], length: int) -> None:
    model.generate(prompt, length, **options)


def _stream(model: Model, prompt: str, length: int) -> None:
    for _ in model.stream(prompt, length):
        pass
