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

import keras  # noqa: E402
from keras import layers  # noqa: E402

from steprnn.export.check import mistakes, proofs, runs  # noqa: E402
from steprnn.export.check.proofs import Proofs, prove  # noqa: E402
from steprnn.export.check.reference import input_run  # noqa: E402
from steprnn.export.step.contract import Reading, Step  # noqa: E402
from steprnn.export.step.derive import derive  # noqa: E402
from steprnn.runtime.errors import ExportError  # noqa: E402
from steprnn.runtime.parity.reference import Arrays, errors_of, units_of  # noqa: E402
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
    exact = {"y": leaky(x)}
    unit = units_of(exact, errors_of(exact, {"y": leaky(x, np.float32)}))["y"]
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


@pytest.fixture
def no_louder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial at ten times the size of a signal is one at its size."""
    monkeypatch.setattr(proofs, "BEYOND", 1.0)


@pytest.mark.usefixtures("no_louder")
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


@pytest.mark.usefixtures("no_louder")
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
    assert {*lengths} == {6}


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


def tokens_of(model: Callable[[Any], Any], **options: Any) -> Step:
    """The mean of token numbers modulo 13, and a model of it that takes some tokens otherwise."""

    def call(t: Arrays) -> Arrays:
        h = 0.5 * t["h"] + 0.5 * tf.cast(t["x"] % 13, t["h"].dtype)[:, None]
        return {"y": h, "next_h": h}

    one = (TensorSpec("h", "float32", (1,)),)
    spec = StepSpec((TensorSpec("x", "int32", (), 5000),), one, (TensorSpec("y", "float32", (1,)),))
    return Step(spec, call, on_sequences=lambda a: {"y": leaky(model(a["x"])[..., None])}, **options)


def test_a_masked_token_is_met_though_it_is_one_of_5_000() -> None:
    def masks(x: Any) -> Any:
        return np.where(x == 0, 100, x % 13)

    assert prove(tokens_of(masks)) is not None, "it is never drawn"
    assert refused(tokens_of(masks, reading=Reading(compared=(0.0,)))).startswith("the chained step is not")


def test_a_number_that_a_signal_is_compared_with_is_met() -> None:
    def cut(x: Any) -> Any:
        return np.where(np.abs(x) > 200.0, 0.0, x)

    assert prove(step_of(cut)) is not None, "no noise is so loud, nor ten times it"
    words = refused(step_of(cut, reading=Reading(compared=(200.0,))))
    assert words.startswith("the chained step is not the model: 'y' is ")
    assert prove(step_of(reading=Reading(compared=(200.0,)))) is not None


def test_a_signal_is_met_at_ten_times_its_size() -> None:
    """Which no number in the graph tells: the step halves what it is given, so its size is two."""
    assert refused(step_of(lambda x: np.clip(x, -16, 16))).startswith("the chained step is not the model: ")
    assert prove(step_of(lambda x: np.clip(x, -200, 200))) is not None


@pytest.mark.parametrize("compared", [0.0, 3.0, 4999.0])
def test_where_numbers_are_met(compared: float) -> None:
    """In a third of the steps, at the beginning of one row and at the end of another; those beside it too."""
    step = tokens_of(lambda x: x, reading=Reading(compared=(compared,)))
    drawn = input_run(step, 256, 3)
    (x,) = proofs.meeting(step, drawn, "int32").values()
    near = np.abs(x - compared) <= 1
    assert 0.25 < near.mean() < 0.45
    assert near[:2, 1].all()
    assert near[-2:, 2].all()
    assert {*x[near].tolist()} == {n for n in (compared - 1, compared, compared + 1) if 0 <= n < 5000}
    np.testing.assert_array_equal(x[~near], drawn["x"][~near])


def test_a_number_too_large_to_be_one_is_not_met() -> None:
    step = step_of(reading=Reading(compared=(-1e9, float("inf"))))
    assert proofs.meeting(step, input_run(step, 256, 3), "float32") == {}


def test_a_model_that_rounds_worse_than_its_step_is_judged_in_float64() -> None:
    step = step_of()
    assert step.on_sequences is not None
    whole = step.on_sequences

    def rough(arrays: Arrays) -> Arrays:
        return {"y": whole(arrays)["y"] * (1 + 1e-4)}

    assert refused(replace(step, on_sequences=rough)).startswith("the chained step is not the model")
    proved = prove(replace(step, on_sequences=rough, exactly=whole))
    assert proved is not None
    assert proved.transform == 0
    wrong = replace(step, on_sequences=rough, exactly=rough)
    assert refused(wrong).startswith("the chained step is not the model")


def test_a_layer_normalization_over_one_feature() -> None:
    """It is exact in the step, and 30 units off in the model."""
    keras.utils.set_random_seed(0)
    stack = [layers.LSTM(4, return_sequences=True), layers.Dense(1), layers.LayerNormalization()]
    model = keras.Sequential([layers.Input((None, 1)), *stack, layers.Dense(2)])
    for variable in model.variables:
        variable.assign(variable + 0.2 * np.random.default_rng(0).standard_normal(variable.shape))
    proved = prove(derive(model))
    assert proved is not None
    assert proved.transform <= 8


def test_a_long_reach_is_tried_twice_over() -> None:
    proved = prove(step_of(reading=Reading(reach=200)))
    assert proved is not None
    assert proved.steps == 400


def test_a_model_that_takes_no_single_time_step() -> None:
    def two(x: Any) -> Any:
        if x.shape[1] < 2:
            raise ValueError("two at least")
        return x

    assert refused(step_of(two)) == (
        "the model does not run on a sequence of 1 time step (two at least), and its step is one; "
        "let it take any number of them"
    )
    assert prove(step_of(two, reading=Reading(shortest=2))) is not None


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
