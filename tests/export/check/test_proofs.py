"""The two proofs: each finds what the other cannot, and says by how much."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from steprnn.export.check import mistakes, proofs, runs  # noqa: E402
from steprnn.export.check.proofs import Proofs, prove  # noqa: E402
from steprnn.export.check.reference import input_run  # noqa: E402
from steprnn.export.step.contract import Step  # noqa: E402
from steprnn.runtime.errors import ExportError  # noqa: E402
from steprnn.runtime.parity.reference import Arrays, units_of  # noqa: E402
from steprnn.runtime.spec import StepSpec, TensorSpec  # noqa: E402

DOCUMENT = (Path(__file__).parents[3] / "docs" / "parity.md").read_text(encoding="utf-8")
H = TensorSpec("h", "float32", (4,))


def leaky(x: Any, dtype: Any = np.float64) -> Any:
    """A mean of what came so far that forgets half of it at each step: `[batch, steps, 4]` of as many."""
    h, rows = np.zeros_like(x[:, 0], dtype), []
    for t in range(x.shape[1]):
        h = dtype(0.5) * h + dtype(0.5) * x[:, t].astype(dtype)
        rows.append(h)
    return np.stack(rows, axis=1)


def step_of(change: Callable[[Any], Any] = lambda x: x, **options: Any) -> Step:
    """That mean, and a model of it that changes its whole input first."""

    def call(t: Arrays) -> Arrays:
        h = 0.5 * t["h"] + 0.5 * t["x"]
        return {"y": h, "next_h": h}

    spec = StepSpec((TensorSpec("x", "float32", (4,)),), (H,), (TensorSpec("y", "float32", (4,)),))
    return Step(spec, call, on_sequences=lambda arrays: {"y": leaky(change(arrays["x"]))}, **options)


def refused(step: Step) -> str:
    with pytest.raises(ExportError) as raised:
        prove(step)
    return str(raised.value)


def test_a_right_step() -> None:
    proved = prove(step_of())
    assert proved is not None
    assert 0 <= proved.transform <= 8
    assert replace(proved, transform=0.0) == Proofs(0.0, 0.0, 256, 3)


def test_how_far_it_is_off_is_told() -> None:
    """The unit is what float32 is off, here by the same arithmetic in NumPy."""
    x = np.moveaxis(input_run(step_of(), 256, 3)["x"], 0, 1)
    unit = units_of({"y": leaky(x)}, {"y": leaky(x, np.float32)})["y"]
    step = step_of()
    assert step.on_sequences is not None
    whole = step.on_sequences

    def off(units: float) -> Step:
        return replace(step, on_sequences=lambda arrays: {"y": whole(arrays)["y"] + units * unit})

    proved = prove(off(7.9))
    assert proved is not None
    assert proved.transform == pytest.approx(7.9, abs=0.01)
    assert refused(off(8.1)).startswith(
        "the chained step is not the model: 'y' is 8.1 units off over 256 steps (at "
    )


def test_without_the_model_nothing_is_proved() -> None:
    assert prove(replace(step_of(), on_sequences=None)) is None


def loudest(x: Any) -> Any:
    """Of one channel, row by row: `[batch, steps, 4]` -> `[batch, 1, 1]`."""
    return np.abs(x[..., 1:2]).max(axis=1, keepdims=True)


def test_a_future_that_shows_in_the_past_on_another_input_alone() -> None:
    """A recording that is louder than any that the first proof plays is turned down, all of it."""
    played, other = (np.moveaxis(input_run(step_of(), 256, 3, seed)["x"], 0, 1) for seed in (0, 1))
    limit = loudest(played)
    assert (loudest(other[:, 128:]) > limit).any()
    limit = np.concatenate([limit, limit])  # both recordings are played in one run

    def turned_down(x: Any) -> Any:
        return x * np.minimum(1.0, limit[: len(x)] / loudest(x))

    assert re.fullmatch(
        r"the future changes the past: 'y' before step 128 moves by \S+ units \(at most 8\) when later "
        r"inputs change; the volume",
        refused(step_of(turned_down, suspect=lambda inputs: "the volume")),
    )


def test_a_future_that_is_louder_changes_no_past_where_it_is_turned_down_from_there_on() -> None:
    limit = loudest(np.moveaxis(input_run(step_of(), 256, 3)["x"], 0, 1))
    limit = np.concatenate([limit, limit])

    def turned_down(x: Any) -> Any:
        so_far = np.maximum.accumulate(np.maximum(np.abs(x[..., 1:2]), 1), axis=1)
        return x * np.minimum(1, limit[: len(x)] / so_far)

    proved = prove(step_of(turned_down))
    assert proved is not None
    assert proved.causality == 0


@pytest.mark.parametrize(("steps", "told"), [(1, "1"), (2, "2"), (5, "5"), (256, "256")])
def test_the_step_is_held_against_the_model_on_sequences_of_several_lengths(steps: int, told: str) -> None:
    """Wrong on sequences of one length, and right on all others."""
    step = step_of(lambda x: x + (x.shape[1] == steps))
    assert f" units off over {told} steps (at most 8)" in refused(step)


def test_a_model_of_one_length_is_proved_on_that_alone() -> None:
    lengths: list[int] = []

    def seen(x: Any) -> Any:
        lengths.append(x.shape[1])
        return x

    assert prove(step_of(seen, fixed_steps=6)) == Proofs(pytest.approx(1, abs=8), 0.0, 6, 3)
    assert lengths == [6]


def test_a_model_of_a_single_time_step_has_no_future() -> None:
    proved = prove(step_of(fixed_steps=1))
    assert proved is not None
    assert (proved.causality, proved.steps) == (None, 1)


def test_an_output_without_time_is_held_against_the_last_step() -> None:
    step = step_of()
    assert step.on_sequences is not None
    whole = step.on_sequences
    last = prove(replace(step, on_sequences=lambda arrays: {"y": whole(arrays)["y"][:, -1]}))
    assert last is not None
    assert last.causality is None, "it has no past"
    first = replace(step, on_sequences=lambda arrays: {"y": whole(arrays)["y"][:, 0]})
    assert refused(first).startswith("the chained step is not the model: 'y' is ")


def test_a_model_that_drops_a_time_step() -> None:
    assert refused(step_of(lambda x: x[:, 1:])) == (
        "'y' has shape (255, 3, 4) over 256 steps, the step (256, 3, 4): a layer changes the number of time "
        "steps; no layer can be named"
    )


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (
            r"on whole sequences of (\d+), (\d+), (\d+) and at least (\d+) steps",
            (*proofs.LENGTHS, proofs.STEPS),
        ),
        (r"is changed \(causality\) \| (\d+) u \|", (proofs.LIMIT,)),
        (r"\| ([\d,]+) steps of (\d+) seeds, the candidate's own states", (runs.STEPS, runs.SEEDS)),
        (r"\| (\d+) steps of greedy text of each seed", (runs.GREEDY_STEPS,)),
        (r"in the first matrix \(recurrent ones first\) where that is more than (\d+) u", (mistakes.PLAIN,)),
    ],
)
def test_the_numbers_are_those_of_the_document(words: str, numbers: tuple[float, ...]) -> None:
    found = re.findall(words, DOCUMENT)
    assert len(found) == 1
    told = found[0] if isinstance(found[0], tuple) else found
    assert [float(n.replace(",", "")) for n in told] == list(numbers)
