"""Streams that are not what they seem: each engine here has one fault, which one question alone finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.engines import Engine, Runner, Tensors, open_engine
from steprnn.runtime.parity.levels import Candidate
from steprnn.runtime.parity.profiles import PROFILES
from steprnn.runtime.parity.reference import Arrays, Reference
from steprnn.runtime.parity.streams import STEPS, semantics, two_threads

ENGINES = {"litert": "step.tflite", "onnx": "step.onnx"}


@pytest.fixture(params=ENGINES)
def candidate(request: pytest.FixtureRequest, tiny: Path) -> Candidate:
    engine, name = request.param, ENGINES[request.param]
    spec = Manifest.read(tiny).step
    opened = partial(open_engine, engine, tiny / name, spec)
    return Candidate(name, engine, spec, PROFILES["float32"], opened)


@pytest.fixture(scope="module")
def reference(tiny: Path, lstm: Any) -> Reference:
    """Longer than what is looked at, and two rows, of which one is."""
    tokens = np.random.default_rng(0).integers(0, 21, (60, 2)).astype(np.int32)
    results = {name: array.astype(np.float32) for name, array in lstm.chain(tokens).items()}
    return Reference({"x": tokens}, results, Reference.read(tiny / "golden.npz").units)


class Faulty:
    """A real engine whose runners are handed out by a function of their own."""

    def __init__(self, engine: Engine, runner: Callable[[Engine, int], Runner]) -> None:
        self._engine = engine
        self._hand_out = runner

    def runner(self, batch: int) -> Runner:
        return self._hand_out(self._engine, batch)


class Wrapped:
    """A real runner, which the classes below change in one thing."""

    def __init__(self, engine: Engine, batch: int) -> None:
        self._runner = engine.runner(batch)
        self._batch = batch
        self.inputs, self.outputs = self._runner.inputs, self._runner.outputs

    def run(self) -> None:
        self._runner.run()

    def set_state(self, state: Tensors) -> None:
        self._runner.set_state(state)

    def get_state(self) -> Arrays:
        return self._runner.get_state()


class Kept(Wrapped):
    """What it was before it was reset goes on: of the states, `c` is never set."""

    def set_state(self, state: Tensors) -> None:
        super().set_state(state | {"c": self.get_state()["c"]})


class Forgetful(Wrapped):
    """A snapshot is half lost: where it is no beginning, `c` stays what it is."""

    def set_state(self, state: Tensors) -> None:
        begins = not any(array.any() for array in state.values())
        super().set_state(state if begins else state | {"c": self.get_state()["c"]})


class Touching(Wrapped):
    """Of three rows, the first takes a little of the last one's state."""

    def run(self) -> None:
        super().run()
        if self._batch == 3:
            h = self.get_state()["h"]
            h[0] += 1e-6 * h[2]
            self.set_state(self.get_state() | {"h": h})


class TouchingLater(Touching):
    """The same, in a stream that goes on from somewhere."""

    def __init__(self, engine: Engine, batch: int) -> None:
        super().__init__(engine, batch)
        self._begins = True

    def set_state(self, state: Tensors) -> None:
        self._begins = not any(array.any() for array in state.values())
        super().set_state(state)

    def run(self) -> None:
        if self._begins:
            Wrapped.run(self)
        else:
            super().run()


class Late(Wrapped):
    """Half of `h` is what it was a step ago: what a second thread reads before the first has written."""

    def run(self) -> None:
        before = self.get_state()["h"]
        super().run()
        after = self.get_state()
        after["h"][:, 4:] = before[:, 4:]
        self.set_state(after)


def shared() -> Callable[[Engine, int], Runner]:
    """One runner for each batch size, made once: two streams are one."""
    runners: dict[int, Runner] = {}

    def hand_out(engine: Engine, batch: int) -> Runner:
        return runners.setdefault(batch, engine.runner(batch))

    return hand_out


def finding(candidate: Candidate, reference: Reference, runner: Callable[[Engine, int], Runner]) -> str:
    """What is wrong with an engine whose runners are these."""
    found = semantics(candidate, Faulty(candidate.open(1), runner), reference)
    assert (found.level, found.candidate, found.passed) == ("semantics", candidate.label, not found.failure)
    assert found.summary == ("ok" if found.passed else "FAILED")
    return found.failure


ALL = "y, next_h, next_c not bit for bit the same"


@pytest.mark.parametrize(
    ("runner", "failure"),
    [
        (Wrapped, ""),
        (shared(), f"interleaved with another stream: {ALL}"),
        (Forgetful, f"restored from a snapshot: {ALL}"),
        (Touching, f"beside other rows: {ALL}"),
    ],
    ids=["none", "streams are one", "a snapshot is half lost", "rows touch"],
)
def test_a_fault_is_found_by_the_one_question_that_can_find_it(
    candidate: Candidate, reference: Reference, runner: Callable[[Engine, int], Runner], failure: str
) -> None:
    assert finding(candidate, reference, runner) == failure


def test_rows_that_touch_only_in_a_stream_that_goes_on(candidate: Candidate, reference: Reference) -> None:
    later = reference.part(slice(5, None))
    assert finding(candidate, later, Wrapped) == ""
    assert finding(candidate, later, TouchingLater) == f"beside other rows: {ALL}"
    assert finding(candidate, reference, TouchingLater) == ""


def test_a_stream_that_goes_on_after_a_reset(candidate: Candidate, reference: Reference) -> None:
    assert finding(candidate, reference, Kept).startswith(f"after a reset: {ALL}; ")


@pytest.mark.parametrize("begins", [False, True])
def test_two_threads_are_judged_by_the_profile(
    candidate: Candidate, reference: Reference, begins: bool
) -> None:
    """From zero, and from the states that a run had reached."""
    begin = reference.part(slice(5, None)) if begins else reference
    asked: list[int] = []

    def opened(threads: int) -> Engine:
        asked.append(threads)
        engine = candidate.open(threads)
        return engine if threads == 1 else Faulty(engine, Late)

    right = two_threads(candidate, begin)
    assert (right.passed, right.failure, right.title) == (True, "", "semantics, two threads")
    wrong = two_threads(replace(candidate, open=opened), begin)
    assert asked == [2]
    assert not wrong.passed
    assert " units off at step 0 of seed 0 (got " in wrong.failure
    lax = replace(candidate, open=opened, profile=PROFILES["int8"])
    assert two_threads(lax, begin).failure.startswith("mean KL divergence ")


def test_a_graph_of_one_row_is_not_asked_about_others(candidate: Candidate, reference: Reference) -> None:
    assert finding(replace(candidate, batched=False), reference, Touching) == ""


def test_only_the_first_row_of_the_first_steps_is_looked_at(
    candidate: Candidate, reference: Reference
) -> None:
    spoilt = {name: array.copy() for name, array in reference.results.items()}
    for array in spoilt.values():
        array[STEPS:] = array[:, 1] = 1e30
    assert STEPS == 48
    assert finding(candidate, replace(reference, results=spoilt), Wrapped) == ""
