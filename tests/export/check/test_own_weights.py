"""A quantized artefact against the oracle of its own weights: how it computes, whatever rounding costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tf2onnx")
pytest.importorskip("ai_edge_litert")

from keras import layers  # noqa: E402

from steprnn.export.check.audit import Audit, weights_of  # noqa: E402
from steprnn.export.check.candidates import artefact_candidate  # noqa: E402
from steprnn.export.check.judge import Judgement, judge_candidate, own_oracle, own_weights  # noqa: E402
from steprnn.export.check.runs import Runs, reference_runs  # noqa: E402
from steprnn.export.formats import onnx, program, tflite  # noqa: E402
from steprnn.export.step.contract import Step  # noqa: E402
from steprnn.export.step.derive import derive  # noqa: E402
from steprnn.runtime.bundle.manifest import Artefact  # noqa: E402
from steprnn.runtime.parity import levels  # noqa: E402
from steprnn.runtime.parity.findings import Finding, Level, Verdict  # noqa: E402
from steprnn.runtime.parity.levels import Candidate  # noqa: E402
from steprnn.runtime.parity.profiles import PROFILES  # noqa: E402

from ..models import shaken  # noqa: E402

pytestmark = pytest.mark.usefixtures("traced_once")
TOKENS, UNITS = 90, 40
WRITERS: dict[str, Any] = {"onnx": onnx, "tflite": tflite, "program": program}
VARIANTS = [
    *(("onnx", v) for v in ("float16", "int8", "int8-weights")),
    *(("tflite", v) for v in ("float16", "int8")),
    *(("program", v) for v in ("int8", "int8-weights")),
]


def language_model(scale: float = 1.0) -> Any:
    keras.utils.set_random_seed(0)
    x = keras.Input((None,), dtype="int32")
    y = layers.LayerNormalization()(layers.Embedding(TOKENS, 48)(x))
    y = layers.GRU(UNITS, return_sequences=True)(layers.LSTM(UNITS, return_sequences=True)(y))
    model = shaken(keras.Model(x, layers.Dense(TOKENS)(layers.BatchNormalization()(y))))
    for layer in model.layers:
        if isinstance(layer, layers.RNN):
            recurrent = layer.cell.recurrent_kernel
            recurrent.assign(recurrent * scale)
    return model


@pytest.fixture(scope="module")
def step() -> Step:
    return derive(language_model())


@pytest.fixture(scope="module")
def runs(step: Step) -> Runs:
    return reference_runs(step, steps=256, seeds=1, kinds=1)


def written(step: Step, folder: Path, format: str, variant: str) -> Candidate:
    path = folder / f"{variant}.{format}"
    WRITERS[format].write(step, path, variant)
    return artefact_candidate(
        path, Artefact(f"{format}-{variant}", format, variant, "", path.name), step.spec
    )


def judged(candidate: Candidate, runs: Runs, audit: Audit | None = None) -> Finding:
    assert candidate.path is not None
    audit = audit or Audit.of(candidate.path, runs.weights)
    own = own_oracle(candidate, runs, audit)
    return own_weights(candidate, own, partial(levels.own_weights, candidate, candidate.open(1)))


def units(finding: Finding) -> float:
    assert finding.measures is not None
    return finding.measures.largest


@pytest.mark.parametrize(("format", "variant"), VARIANTS)
def test_a_right_artefact_computes_as_its_weights_say(
    step: Step, runs: Runs, tmp_path: Path, format: str, variant: str
) -> None:
    """Within float32's own rounding, or half of what rounding to 8 bits may cost; every token was read."""
    found = judged(written(step, tmp_path, format, variant), runs)
    assert found.passed, found.failure
    assert 0.2 < units(found) < (2 if variant == "int8" else 4)


class Moved:
    """A candidate's engine whose runner does something to a state before each step."""

    def __init__(self, engine: Any, change: Callable[[Any], Any]) -> None:
        self._engine, self._change = engine, change

    def runner(self, batch: int) -> Any:
        runner, change = self._engine.runner(batch), self._change

        class Runner:
            inputs, outputs = runner.inputs, runner.outputs
            set_state, get_state = runner.set_state, runner.get_state

            def run(self) -> None:
                runner.set_state({n: change(a).astype(np.float32) for n, a in runner.get_state().items()})
                runner.run()

        return Runner()


def with_steps(count: int) -> Callable[[Any], Any]:
    """Rounded to so many steps of the largest of a row."""

    def change(a: Any) -> Any:
        scale = np.maximum(np.abs(a).max(axis=1, keepdims=True), 1e-30) / count
        return np.round(a / scale) * scale

    return change


def moved(candidate: Candidate, change: Callable[[Any], Any]) -> Candidate:
    return replace(candidate, open=cache(lambda threads: Moved(candidate.open(threads), change)))


def test_an_engine_that_rounds_more_coarsely_than_8_bits_is_seen(
    step: Step, runs: Runs, tmp_path: Path
) -> None:
    candidate = written(step, tmp_path, "tflite", "int8")
    assert judged(candidate, runs).passed
    found = judged(moved(candidate, with_steps(15)), runs)
    assert not found.passed
    assert "units off" in found.failure
    weights_alone = written(step, tmp_path, "onnx", "int8-weights")
    assert not judged(moved(weights_alone, with_steps(127)), runs).passed, "it is said to compute in float32"
    profile = [
        f for f in judge_candidate(moved(candidate, with_steps(15)), runs, mistakes=False) if not f.passed
    ]
    assert {f.level for f in profile} == {Level.OWN_WEIGHTS}, "what it says is within the profile"


@pytest.mark.parametrize(("format", "variant"), [("onnx", "int8-weights"), ("onnx", "float16")])
def test_weights_of_one_half_step_are_seen_by_how_it_computes(
    step: Step, runs: Runs, tmp_path: Path, format: str, variant: str
) -> None:
    """An artefact that holds one weight and computes with another."""
    candidate = written(step, tmp_path, format, variant)
    assert candidate.path is not None
    audit = Audit.of(candidate.path, runs.weights)
    assert audit.held is not None
    node, held = max(audit.held.items(), key=lambda item: item[1].values.size)
    values = held.values.copy()
    values[7, :] *= 1.01
    found = judged(candidate, runs, Audit(audit.matches, audit.held | {node: replace(held, values=values)}))
    assert not found.passed


def test_weights_that_are_not_all_known_are_not_judged(step: Step, runs: Runs, tmp_path: Path) -> None:
    candidate = written(step, tmp_path, "onnx", "int8")
    found = judged(candidate, runs, Audit([], None))
    assert (found.passed, found.summary, found.measures) == (True, "not known", None)


@pytest.mark.parametrize("variant", ["int8", "int8-weights"])
def test_a_normalisation_that_a_converter_turned_over_is_known(tmp_path: Path, variant: str) -> None:
    """Division by the deviation becomes a product with what one over it is."""
    keras.utils.set_random_seed(0)
    x = keras.Input((None, 3))
    y = layers.Normalization(mean=[5.0, 100.0, -3.0], variance=[4.0, 1e4, 0.01])(x)
    step = derive(keras.Model(x, layers.Dense(2)(layers.GRU(48, return_sequences=True)(y))))
    found = judged(written(step, tmp_path, "onnx", variant), reference_runs(step, steps=64, seeds=1, kinds=1))
    assert found.passed, found.failure
    assert 0.2 < units(found) < 4


def test_an_epsilon_in_16_bits_is_a_weight_of_its_own(step: Step, runs: Runs, tmp_path: Path) -> None:
    candidate = written(step, tmp_path, "onnx", "float16")
    assert candidate.path is not None
    audit = Audit.of(candidate.path, runs.weights)
    assert audit.held is not None
    numbers = [held.values.item() for held in audit.held.values() if held.values.size == 1]
    assert float(np.float16(1e-3)) in numbers
    assert [w.values.item() for w in weights_of(step) if w.values.size == 1], "the model's own"


def test_mistakes_that_8_bits_hide_are_rejected_by_its_own_oracle(tmp_path: Path) -> None:
    """A model that hardly reads its states: zero or stale, they change less than the profile allows."""
    keras.utils.set_random_seed(0)
    x = keras.Input((None,), dtype="int32")
    y = layers.LSTM(UNITS, return_sequences=True)(layers.Embedding(TOKENS, 48)(x))
    model = keras.Model(x, layers.Dense(TOKENS)(y))
    for weight in model.trainable_weights:
        weight.assign(weight / 8)
    step = derive(model)
    runs = reference_runs(step, steps=256, seeds=1, kinds=1)
    candidate = written(step, tmp_path, "onnx", "int8")
    found = [f for f in judge_candidate(candidate, runs) if f.level is Level.SENSITIVITY]
    assert {f.verdict for f in found} == {Verdict.PASSED}, [str(f) for f in found if not f.passed]
    blind = replace(candidate, path=None)  # without its weights
    void = [f.case for f in judge_candidate(blind, runs) if f.verdict is Verdict.VOID]
    assert void, "the profile alone cannot tell"


def test_a_model_that_8_bits_cost_too_much_is_told_from_a_mistake(tmp_path: Path) -> None:
    """Four units with large weights: the artefact is right, and its text is not."""
    keras.utils.set_random_seed(3)
    x = keras.Input((None, 16))
    y = layers.LSTM(4, return_sequences=True)(layers.LSTM(4, return_sequences=True)(x))
    model = keras.Model(x, layers.Dense(8)(y))
    for weight in model.trainable_weights:
        weight.assign(weight * 4)
    step = derive(model)
    runs = reference_runs(step, steps=256, seeds=1, kinds=1)
    candidate = written(step, tmp_path, "onnx", "int8")
    strict = replace(candidate, profile=replace(candidate.profile, signal=1e-4, growth=None))
    failed = [f for f in judge_candidate(strict, runs, mistakes=False) if f.verdict is Verdict.FAILED]
    assert Level.ONE_STEP in {f.level for f in failed}
    words = "rounding costs this model too much, and it is computed as its weights say: y is "
    assert all(f.failure.startswith(words) for f in failed if f.level is Level.ONE_STEP)


class MovedRows(Moved):
    """Only in batches of more than two rows."""

    def runner(self, batch: int) -> Any:
        return super().runner(batch) if batch > 2 else self._engine.runner(batch)


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_a_mistake_in_batches_or_threads_alone_is_seen_by_the_weights(
    step: Step, runs: Runs, tmp_path: Path, format: str
) -> None:
    right = written(step, tmp_path, format, "int8")
    wrong_in_batches = replace(right, open=cache(lambda n: MovedRows(right.open(n), with_steps(15))))
    wrong_in_threads = replace(
        right, open=cache(lambda n: Moved(right.open(n), with_steps(15)) if n > 1 else right.open(n))
    )
    for candidate, in_batches, in_threads in (
        (right, True, True),
        (wrong_in_batches, False, True),
        (wrong_in_threads, True, False),
    ):
        judgement = Judgement(candidate, runs)
        assert judgement.computes()
        assert judgement.computes_in_batches() == in_batches
        assert judgement.computes_with_two_threads() == in_threads


def test_what_rounding_costs_in_batches_and_threads_is_told(step: Step, runs: Runs, tmp_path: Path) -> None:
    right = written(step, tmp_path, "onnx", "int8")
    strict = replace(right, profile=replace(PROFILES["int8"], relative=1e-6))
    found = judge_candidate(strict, replace(runs, saturated={}, greedy=None), mistakes=False)
    failed = {f.title: f.failure for f in found if f.failure}
    assert {"batch", "semantics, two threads", "one step"} <= failed.keys()
    costs = "rounding costs this model too much, and it is computed as its weights say"
    assert all(words.startswith(costs) for words in failed.values())
