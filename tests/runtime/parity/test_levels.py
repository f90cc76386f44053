"""Every level on real engines: a right graph passes, and each wrong one is caught with its words."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import BundleError, StepSpec
from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.engines import ENGINES, Engine, Runner, Tensors, open_engine
from steprnn.runtime.parity import levels
from steprnn.runtime.parity.findings import Finding, Level, Verdict, attempt, overall
from steprnn.runtime.parity.levels import Candidate, Greedy
from steprnn.runtime.parity.measure import measure
from steprnn.runtime.parity.mutants import Mistake, Mutant, judged_part, mistakes, sensitivity, swappable
from steprnn.runtime.parity.profiles import PROFILES, Profile
from steprnn.runtime.parity.reference import Reference, chain, single_places, steps_of
from steprnn.runtime.parity.streams import run_twice, semantics
from steprnn.runtime.spec import TensorSpec

onnx = pytest.importorskip("onnx")

STEPS, SEEDS = 300, 2


@pytest.fixture(scope="module")
def spec(tiny: Path) -> StepSpec:
    return Manifest.read(tiny).step


@pytest.fixture(scope="module")
def reference(tiny: Path, lstm: Any) -> Reference:
    """Two seeds of arbitrary tokens, by the textbook in float64."""
    tokens = np.random.default_rng(0).integers(0, 21, (STEPS, SEEDS)).astype(np.int32)
    results = {name: array.astype(np.float32) for name, array in lstm.chain(tokens).items()}
    return Reference({"x": tokens}, results, Reference.read(tiny / "golden.npz").units)


@pytest.fixture(scope="module")
def greedy(lstm: Any) -> Greedy:
    """The textbook's own greedy text, two seeds."""
    tokens, gaps = np.zeros((120, 2), np.int32), np.full((120, 2), np.inf, np.float32)
    tokens[0] = (3, 9)
    h = c = np.zeros((2, 8))
    for t in range(len(tokens)):
        y, h, c = lstm.step(tokens[t], h, c)
        best = np.sort(y, axis=-1)[:, -2:]
        gaps[t] = best[:, 1] - best[:, 0]
        if t + 1 < len(tokens):
            tokens[t + 1] = y.argmax(axis=-1)
    return Greedy(tokens, gaps, 1e-5 / 8, 1)


def candidate_of(
    path: Path, engine: str, spec: StepSpec, profile: str = "float32", wide: bool = False
) -> Candidate:
    return Candidate(
        path.name, engine, spec, PROFILES[profile], partial(open_engine, engine, path, spec), wide
    )


@pytest.fixture(params=["step.onnx", "step.tflite", "step.int8.onnx"])
def candidate(request: pytest.FixtureRequest, tiny: Path, spec: StepSpec) -> Candidate:
    path = tiny / request.param
    engine = {f".{format}": engine for engine, format in ENGINES.items()}[path.suffix]
    return candidate_of(path, engine, spec, "int8" if "int8" in path.name else "float32")


def all_levels(candidate: Candidate, reference: Reference, greedy: Greedy) -> list[Finding]:
    engine = candidate.open(1)
    return [
        levels.structure(candidate),
        levels.one_step(candidate, engine, reference),
        levels.chained(candidate, engine, reference),
        levels.batch(candidate, engine, reference),
        levels.free_run(candidate, engine, greedy),
        semantics(candidate, engine, reference),
        *sensitivity(candidate, engine, reference),
    ]


def test_a_right_graph_passes_every_level(candidate: Candidate, reference: Reference, greedy: Greedy) -> None:
    findings = all_levels(candidate, reference, greedy)
    assert [str(f) for f in findings if not f.passed] == []
    assert [f.level for f in findings] == [
        "structure",
        "one step",
        "chained",
        "batch",
        "free run",
        "semantics",
        *["sensitivity"] * 4,
    ]
    chained = findings[2].measures
    assert chained is not None
    assert len(chained.series) == STEPS
    assert len(chained.kl) == STEPS * SEEDS
    assert set(chained.ranges) == {"h", "c"}


class Asked:
    """A real engine that keeps how many rows it was asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.rows: list[int] = []

    def runner(self, batch: int) -> Runner:
        self.rows.append(batch)
        return self._engine.runner(batch)


@pytest.mark.parametrize(("wide", "rows", "asked"), [(True, 2, [2]), (False, 2, [1]), (False, 1, [1])])
def test_a_wide_candidate_is_stepped_as_one_batch_and_others_row_by_row(
    tiny: Path, spec: StepSpec, reference: Reference, wide: bool, rows: int, asked: list[int]
) -> None:
    """From zero, and from the states that the run had reached."""
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec, wide=wide)
    for steps in (slice(0, None), slice(100, None)):
        engine, run = Asked(candidate.open(1)), reference.part(steps, slice(0, rows))
        results = levels.run_chained(candidate, engine.runner, run)
        assert engine.rows == asked
        for name, array in run.results.items():
            np.testing.assert_allclose(results[name], array, rtol=0, atol=1e-4, err_msg=name)


# Graphs that are wrong.


def changed(path: Path, folder: Path, change: Callable[[Any], None]) -> Path:
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, folder / "wrong.onnx")
    return folder / "wrong.onnx"


def rename(graph: Any, names: dict[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(n, n) for n in node.input]
        node.output[:] = [names.get(n, n) for n in node.output]


def weight(graph: Any, shape: tuple[int, ...], change: Callable[[Any], Any]) -> None:
    tensor = next(i for i in graph.initializer if tuple(i.dims) == shape)
    array = change(onnx.numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def swapped_outputs(graph: Any) -> None:
    rename(graph, {"next_h": "next_c", "next_c": "next_h"})


def transposed_gates(graph: Any) -> None:
    weight(graph, (8, 32), lambda w: np.concatenate([g.T for g in np.split(w, 4, axis=1)], axis=1))


def one_percent(graph: Any) -> None:
    def change(w: Any) -> Any:
        w.flat[np.abs(w).argmax()] *= 1.01
        return w

    weight(graph, (8, 32), change)


def stale_state(graph: Any) -> None:
    """It hands its state back as it came."""
    rename(graph, {"next_h": "unused"})
    graph.node.append(onnx.helper.make_node("Identity", ["h"], ["next_h"]))


def another_model(graph: Any) -> None:
    draw = np.random.default_rng(1)
    for shape in ((21, 32), (8, 32), (8, 21)):
        weight(graph, shape, lambda w: draw.standard_normal(w.shape).astype(np.float32))


def shifted_vocabulary(graph: Any) -> None:
    weight(graph, (21, 32), lambda w: np.roll(w, 1, axis=0))


def not_finite(graph: Any) -> None:
    def change(w: Any) -> Any:
        w[3] = np.nan
        return w

    weight(graph, (21, 32), change)


WRONG = {
    swapped_outputs: (
        "one step",
        r"next_[hc] is \S+ units off at step 0 of the state before step \d+ of",
    ),
    transposed_gates: (
        "one step",
        r"\w+ is \S+ units off at step 0 of the state before step \d+ of seed \d+",
    ),
    one_percent: ("one step", r"\w+ is \S+ units off at step 0 of .* \(got \S+, expected \S+\), at most 8"),
    stale_state: ("one step", r"next_h is \S+ units off"),
    another_model: ("one step", r"\w+ is \S+ units off"),
    shifted_vocabulary: ("one step", r"\w+ is \S+ units off"),
    not_finite: ("chained", r"\w+ is not finite, first at step \d+ of seed [01]"),
}


@pytest.mark.parametrize("change", WRONG)
def test_a_wrong_graph_is_caught_with_its_words(
    tiny: Path,
    tmp_path: Path,
    spec: StepSpec,
    reference: Reference,
    greedy: Greedy,
    change: Callable[[Any], None],
) -> None:
    candidate = candidate_of(changed(tiny / "step.onnx", tmp_path, change), "onnx", spec)
    findings = {f.level: f for f in all_levels(candidate, reference, greedy) if f.level != "sensitivity"}
    level, words = WRONG[change]
    assert not findings[level].passed
    assert not findings["chained"].passed
    assert findings["structure"].passed, "names and shapes are right, only numbers are not"
    assert str(findings[level]).startswith(f"wrong.onnx in onnx fails at the level '{level}': ")
    assert re.search(words, findings[level].failure)


def test_the_first_breach_is_told_with_its_seed(tiny: Path, spec: StepSpec, reference: Reference) -> None:
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    results = {n: a.copy() for n, a in reference.results.items()}
    results["next_c"][40, 1, 3] += 20 * reference.units["next_c"]
    results["y"][50, 0, 7] += 5000 * reference.units["y"]
    spoilt = replace(reference, results=results)
    finding = levels.chained(candidate, candidate.open(1), spoilt, "noise")
    assert finding.title == "chained, noise"
    assert finding.measures is not None
    breach = finding.measures.breach
    assert breach is not None
    assert (breach.tensor, breach.step, breach.row) == ("next_c", 40, "seed 1")
    assert breach.expected == results["next_c"][40, 1, 3]
    assert finding.failure.startswith("next_c is ")
    assert " units off at step 40 of seed 1 (got " in finding.failure
    assert "), at most 8; the largest: y is 5e+03 units off at step 50 of seed 0" in finding.failure


# One step.


class Clipped:
    """A real runner that keeps each element of a state to what a run had reached there."""

    def __init__(self, runner: Runner, run: Reference) -> None:
        self._runner = runner
        reached = {t: run.results[f"next_{t}"] for t in runner.get_state()}
        self._ends = {t: (a.min((0, 1), initial=0), a.max((0, 1), initial=0)) for t, a in reached.items()}
        self.inputs, self.outputs = runner.inputs, runner.outputs
        self.run, self.get_state = runner.run, runner.get_state

    def set_state(self, state: Tensors) -> None:
        self._runner.set_state({name: np.clip(array, *self._ends[name]) for name, array in state.items()})


class ClippedEngine:
    def __init__(self, engine: Engine, run: Reference) -> None:
        self._engine, self._run = engine, run

    def runner(self, batch: int) -> Runner:
        return Clipped(self._engine.runner(batch), self._run)


@pytest.fixture(scope="module")
def saturated(reference: Reference, lstm: Any) -> Reference:
    """One step of the textbook from 64 states at plus or minus the largest that any element reached."""
    draw = np.random.default_rng(1)
    largest = {name: np.abs(reference.results[f"next_{name}"]).max() for name in ("h", "c")}
    state = {n: (draw.choice([-1, 1], (64, 8)) * size).astype(np.float32) for n, size in largest.items()}
    tokens = draw.integers(0, 21, (1, 64)).astype(np.int32)
    results = {n: a.astype(np.float32) for n, a in lstm.chain(tokens, **state).items()}
    return Reference({"x": tokens}, results, reference.units, state)


def test_a_graph_that_is_wrong_at_saturated_states_alone(
    candidate: Candidate, reference: Reference, saturated: Reference
) -> None:
    engine = candidate.open(1)
    assert levels.saturated(candidate, engine, saturated, "far states").passed
    clipped = ClippedEngine(engine, reference)
    assert levels.one_step(candidate, clipped, reference).passed
    assert levels.chained(candidate, clipped, reference).passed
    found = levels.saturated(candidate, clipped, saturated, "far states")
    assert (found.level, found.case) == ("one step", "far states")
    if candidate.profile.units is None:
        assert found.passed, "quantized weights must only stay finite there, and what they are off is told"
        assert found.measures is not None
        assert re.fullmatch(r"row \d+ of far states", found.measures.worst.row)
    else:
        assert not found.passed
        assert re.fullmatch(
            r"(y|next_[hc]) is \S+ units off at step 0 of row \d+ of far states \(got \S+, expected \S+\), "
            r"at most 8(; the largest: .*)?",
            found.failure,
        )


Off = Callable[[Reference, int, float], Reference]


@pytest.fixture
def off(tiny: Path, spec: StepSpec) -> Off:
    """What a candidate says of a run, but for one number of its last step in a row, as many units off."""
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)

    def made(run: Reference, row: int, units: float) -> Reference:
        results = levels.run_chained(candidate, candidate.open(1).runner, run)
        results["next_c"][-1, row, 5] += 0.01 * units
        return replace(run, results=results, units=dict.fromkeys(run.units, 0.01))

    return made


def test_eight_units_are_allowed_at_saturated_states_and_elsewhere(
    tiny: Path, spec: StepSpec, reference: Reference, saturated: Reference, off: Off
) -> None:
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    engine = candidate.open(1)
    inside = levels.saturated(candidate, engine, off(saturated, 40, 7.9), "far states")
    assert (inside.passed, inside.failure, inside.summary) == (True, "", "7.9 u of 8")
    outside = levels.saturated(candidate, engine, off(saturated, 40, 8.1), "far states")
    assert re.fullmatch(
        r"next_c is 8\.1 units off at step 0 of row 40 of far states \(got \S+, expected \S+\), at most 8",
        outside.failure,
    )
    for found in (inside, outside):
        assert (found.level, found.case, found.candidate) == ("one step", "far states", candidate.label)
    wrong = levels.one_step(candidate, engine, off(reference, 1, 8.1))
    assert wrong.failure.startswith(
        "next_c is 8.1 units off at step 0 of the state before step 299 of seed 1 (got "
    )
    assert wrong.failure.endswith("), at most 8")


def test_what_is_not_finite_at_saturated_states_fails_whatever_the_profile(
    candidate: Candidate, reference: Reference, saturated: Reference
) -> None:
    class Overflowing(Clipped):
        def set_state(self, state: Tensors) -> None:
            beyond = any((np.clip(a, *self._ends[n]) != a).any() for n, a in state.items())
            self._runner.set_state({n: a * (np.inf if beyond else 1) for n, a in state.items()})

    class OverflowingEngine(ClippedEngine):
        def runner(self, batch: int) -> Runner:
            return Overflowing(self._engine.runner(batch), self._run)

    engine = OverflowingEngine(candidate.open(1), reference)
    assert levels.one_step(candidate, engine, reference).passed
    found = levels.saturated(candidate, engine, saturated, "far states")
    assert re.fullmatch(r"(y|next_[hc]) is not finite, first at step 0 of row 0 of far states", found.failure)


def test_single_steps_are_taken_from_the_beginning_and_all_along(
    tiny: Path, spec: StepSpec, reference: Reference
) -> None:
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    engine, judged = candidate.open(1), []
    for step, row in itertools.product(range(STEPS), range(2)):
        results = {name: array.copy() for name, array in reference.results.items()}
        results["y"][step, row] += 1
        found = levels.one_step(candidate, engine, replace(reference, results=results))
        if not found.passed:
            judged.append((step, row))
            assert f" at step 0 of the state before step {step} of seed {row} (got " in found.failure
    assert judged == single_places(STEPS, 2)
    assert (len(judged), judged[0], judged[-1]) == (128, (0, 0), (STEPS - 1, 1))


def test_single_steps_have_units_of_their_own(tiny: Path, spec: StepSpec, reference: Reference) -> None:
    """A chain's unit grows with the chain; what is wrong in one step is no less wrong for it."""
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    blunt = replace(reference, units=dict.fromkeys(reference.units, 1.0))
    inputs = {"x": reference.inputs["x"][4:5]}
    state = reference.part(slice(4, 5)).state
    assert state is not None
    results = chain(candidate.open(1).runner(2), inputs, state)
    results["y"][0, 1, 3] += 1e-3
    singles = Reference(inputs, results, dict.fromkeys(results, 1e-5), state)
    assert levels.one_step(candidate, candidate.open(1), blunt).passed
    found = levels.one_step(candidate, candidate.open(1), replace(blunt, singles=singles))
    assert found.failure.startswith("y is 100 units off at step 0 of ")


def test_a_chain_that_was_cut_says_so(tiny: Path, spec: StepSpec, reference: Reference) -> None:
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    cut = replace(reference.part(slice(0, 90)), of=300)
    found = levels.chained(candidate, candidate.open(1), cut)
    assert found.summary.endswith(" u of 8, chaotic from step 90 of 300")
    assert found.measures is not None
    assert found.measures.steps == 90


def test_a_judgement_has_all_figures_and_all_that_is_beyond(
    tiny: Path, spec: StepSpec, reference: Reference
) -> None:
    """Decisions are counted in steps of all rows: 100 steps of two rows are enough to tell a share."""
    profile = Profile(units=8.0, agreement=1.0)
    candidate = replace(candidate_of(tiny / "step.onnx", "onnx", spec), profile=profile)
    for steps, told in ((100, 2), (99, 1)):
        part = reference.part(slice(0, steps))
        results = {name: array.copy() for name, array in part.results.items()}
        results["y"] = -results["y"]
        found = levels.judge(Level.CHAINED, candidate, part, results, ["one", "other"], "noise")
        expected = measure(spec, part, results, profile.for_decisions(steps, 2), ["one", "other"])
        assert len(expected.failures) == told
        assert found.failure == "; ".join(expected.failures)
        assert (found.figures, found.measures) == (expected.to_record(), expected)
        assert (found.title, found.passed, found.summary) == (
            "chained, noise",
            False,
            f"{expected.largest:.2g} u of 8",
        )


# Batch.


@pytest.mark.parametrize(("steps", "length"), [(300, 128), (258, 128), (257, 128), (101, 50)])
def test_rows_of_one_run_are_stepped_together_and_named_after_where_they_begin(
    tiny: Path, spec: StepSpec, lstm: Any, steps: int, length: int
) -> None:
    """Which steps are judged is seen by spoiling them in the reference: two rows are the first to see it."""
    tokens = np.random.default_rng(2).integers(0, 21, (steps, 2)).astype(np.int32)
    results = {name: array.astype(np.float32) for name, array in lstm.chain(tokens).items()}
    reference = Reference({"x": tokens}, results, Reference.read(tiny / "golden.npz").units)
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    engine = candidate.open(1)
    assert levels.batch(candidate, engine, reference).passed

    def found(step: int, row: int = 0) -> Finding:
        y = results["y"].copy()
        y[step, row] += 1
        return levels.batch(candidate, engine, replace(reference, results=results | {"y": y}))

    for row, begin in enumerate((1, steps - length)):
        for step in (begin, begin + length - 1):
            at = f"units off at step {step - begin} of row {row} of 2, cut from step {begin} of seed 0 (got "
            assert at in found(step).failure
    assert found(0).passed
    assert found(1, row=1).passed, "all are cut from the first seed"


@pytest.mark.parametrize("wrong", [2, 3, 8, 64])
def test_a_graph_that_is_wrong_at_one_batch_alone_is_caught(
    tiny: Path, spec: StepSpec, reference: Reference, wrong: int
) -> None:
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)

    class Wrong:
        def runner(self, batch: int) -> Any:
            runner = candidate.open(1).runner(batch)
            if batch == wrong:
                own = runner.run

                def run() -> None:
                    own()
                    for array in runner.outputs.values():
                        array[-1] += 1

                runner.run = run  # type: ignore[method-assign]
            return runner

    found = levels.batch(candidate, Wrong(), reference)
    assert re.search(rf"y is \S+ units off at step 0 of row {wrong - 1} of {wrong}, cut from ", found.failure)


# Shapes.


def narrow_state(graph: Any) -> None:
    """next_h as its mean, [batch, 1], which would broadcast to every element of h."""
    rename(graph, {"next_h": "wide"})
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "axis"))
    graph.node.append(onnx.helper.make_node("ReduceMean", ["wide", "axis"], ["next_h"], keepdims=1))
    output = next(o for o in graph.output if o.name == "next_h")
    output.type.tensor_type.shape.dim[1].ClearField("dim_value")
    output.type.tensor_type.shape.dim[1].dim_param = "free"


def test_a_wrong_shape_is_refused_and_not_broadcast(tiny: Path, tmp_path: Path, spec: StepSpec) -> None:
    candidate = candidate_of(changed(tiny / "step.onnx", tmp_path, narrow_state), "onnx", spec)
    with pytest.raises(BundleError, match="next_h"):
        levels.structure(candidate)
    finding = attempt(Level.STRUCTURE, candidate.label, partial(levels.structure, candidate))
    assert not finding.passed
    assert finding.failure.startswith("it does not run: ")
    assert "next_h" in finding.failure


class Casting:
    """A real engine whose logits come as float64, and from several rows without the batch axis."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.asked: list[int] = []

    def runner(self, batch: int) -> Runner:
        self.asked.append(batch)
        runner = self._engine.runner(batch)
        y = runner.outputs["y"].astype(np.float64)
        runner.outputs = {"y": y if batch == 1 else y[0]}  # type: ignore[assignment]
        return runner


def test_results_of_another_dtype_or_shape_are_told_at_each_batch(tiny: Path, spec: StepSpec) -> None:
    right = candidate_of(tiny / "step.onnx", "onnx", spec)
    engine = Casting(right.open(1))
    asked: list[int] = []

    def opened(threads: int) -> Engine:
        asked.append(threads)
        return engine

    one = "y is float64 [1, 21] at batch 1, expected float32 [1, 21]"
    found = levels.structure(replace(right, open=opened))
    assert found == Finding(
        Level.STRUCTURE,
        right.label,
        False,
        "ok",
        f"{one}; y is float64 [21] at batch 3, expected float32 [3, 21]",
    )
    assert levels.structure(replace(right, open=opened, batched=False)).failure == one
    assert (asked, engine.asked) == ([1, 1], [1, 3, 1])
    assert levels.structure(right) == Finding(Level.STRUCTURE, right.label, True, "ok")


def test_what_a_file_declares_is_looked_at_before_it_is_run(tiny: Path, spec: StepSpec) -> None:
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    strange = replace(candidate, look=lambda: ["no x", "no h"], open=lambda threads: Raising())
    assert levels.structure(strange) == Finding(Level.STRUCTURE, candidate.label, False, "ok", "no x; no h")


@pytest.mark.parametrize("engine", ["litert", "onnx"])
@pytest.mark.parametrize("name", ["y", "c"])
def test_an_engine_refuses_a_spec_of_other_shapes(tiny: Path, spec: StepSpec, engine: str, name: str) -> None:
    def wrong(tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(replace(t, shape=(t.shape[0] * 2,)) if t.name == name else t for t in tensors)

    other = StepSpec(spec.inputs, wrong(spec.states), wrong(spec.outputs))
    path = tiny / f"step.{ENGINES[engine]}"
    with pytest.raises((BundleError, RuntimeError, ValueError)):
        chain(open_engine(engine, path, other).runner(1), {"x": np.zeros((1, 1), np.int32)})


# Engines that raise.


class Raising:
    """An engine that gives up at a step."""

    def runner(self, batch: int) -> Runner:
        raise ValueError("line one\n  and two")


def test_an_engine_that_raises_is_a_finding_and_no_traceback(
    tiny: Path, spec: StepSpec, reference: Reference
) -> None:
    candidate = Candidate("broken", "onnx", spec, PROFILES["float32"], lambda threads: Raising())
    chained = partial(levels.chained, candidate, Raising(), reference)
    finding = attempt(Level.CHAINED, candidate.label, chained, "text")
    assert (finding.passed, finding.title) == (False, "chained, text")
    assert str(finding) == (
        "broken in onnx fails at the level 'chained, text': it does not run: line one and two"
    )
    found = list(sensitivity(candidate, Raising(), reference))
    assert [f.passed for f in found] == [False] * 4, "what does not run was not rejected"


# Free run.


def test_a_departure_is_excused_only_by_what_a_logit_may_be_off(
    tiny: Path, spec: StepSpec, greedy: Greedy
) -> None:
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    engine = candidate.open(1)
    assert levels.free_run(candidate, engine, greedy).summary == "same"
    other = greedy.tokens.copy()
    other[60, 1] = (other[60, 1] + 1) % 21
    departed = replace(greedy, tokens=other)
    found = levels.free_run(candidate, engine, departed)
    assert not found.passed
    assert found.summary == "leaves at 59"
    assert found.failure.startswith(
        f"the greedy text departs at step 59 of seed 1 (expected token {other[60, 1]}), where the "
    )
    close = greedy.gaps.copy()
    close[59, 1] = 1.9e-5
    assert levels.free_run(candidate, engine, replace(departed, gaps=close)).passed
    assert not levels.free_run(candidate, engine, replace(departed, gaps=close, unit=0.9e-5 / 8)).passed
    quantized = replace(candidate, profile=PROFILES["int8"])
    told = levels.free_run(quantized, engine, departed)
    assert (told.passed, told.summary) == (True, "leaves at 59"), "told, and judged by same-top-1"


def test_what_is_told_of_a_free_run(tiny: Path, spec: StepSpec, greedy: Greedy) -> None:
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    engine = candidate.open(1)
    other = greedy.tokens.copy()
    other[90, 0] = (other[90, 0] + 1) % 21
    other[60, 1] = (other[60, 1] + 1) % 21
    greedy = replace(greedy, unit=0.25 / 8)
    found = levels.free_run(candidate, engine, replace(greedy, tokens=other))
    assert (found.level, found.candidate, found.case) == ("free run", candidate.label, "")
    assert found.summary == "leaves at 59"
    assert found.figures == {"departures": [89, 59], "steps": 120, "error": 0.25}
    assert found.failure == (
        f"the greedy text departs at step 89 of seed 0 (expected token {other[90, 0]}), where the "
        f"reference's best is {greedy.gaps[89, 0]:.3g} before its second, and a logit may be 0.25 off"
    ), "the first seed that departs"
    same = levels.free_run(candidate, engine, greedy)
    assert same == Finding(
        Level.FREE_RUN,
        candidate.label,
        True,
        "same",
        figures={"departures": [None, None], "steps": 120, "error": 0.25},
    )


def test_a_gap_of_twice_the_error_excuses_nothing(tiny: Path, spec: StepSpec, greedy: Greedy) -> None:
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    other, gaps = greedy.tokens.copy(), greedy.gaps.copy()
    other[60, 1] = (other[60, 1] + 1) % 21
    gaps[59, 1] = 0.5
    departed = replace(greedy, tokens=other, gaps=gaps, unit=0.25 / 8)
    assert not levels.free_run(candidate, candidate.open(1), departed).passed
    assert levels.free_run(candidate, candidate.open(1), replace(departed, unit=0.250001 / 8)).passed


def test_the_tokens_of_the_prompt_are_given_and_all_behind_them_judged(
    tiny: Path, spec: StepSpec, lstm: Any
) -> None:
    """Each token in turn is another one than the model would say, from its own state."""
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    state = {"h": np.full((1, 8), 0.3, np.float32), "c": np.full((1, 8), -0.4, np.float32)}

    def text(given: list[int], length: int) -> np.ndarray:
        tokens, (h, c) = list(given), state.values()
        for t in range(length - 1):
            y, h, c = lstm.step([tokens[t]], h, c)
            if t + 1 == len(tokens):
                tokens.append(int(y[0].argmax()))
        return np.array(tokens, np.int32)[:, np.newaxis]

    left = []
    for at in range(1, 8):
        tokens = text([4, 17, 9], 8)
        tokens[at] = (tokens[at] + 1) % 21
        greedy = Greedy(tokens, np.ones((8, 1), np.float32), 0.0, 3, state)
        (step,) = levels.free_run(candidate, candidate.open(1), greedy).figures["departures"]
        left.append(step)
    assert left[2:] == [2, 3, 4, 5, 6], "from the token after the prompt to the last"
    assert left[:2] != [0, 1], "what is given is not asked"
    right = Greedy(text([4, 17, 9], 8), np.ones((8, 1), np.float32), 0.0, 3, state)
    assert levels.free_run(candidate, candidate.open(1), right).summary == "same"
    assert levels.free_run(candidate, candidate.open(1), replace(right, state=None)).summary != "same"


# Semantics.


class Leaking:
    """Rows of a batch touch each other, and a runner keeps something of its last stream."""

    def __init__(self, engine: Engine, rows: bool) -> None:
        self._engine = engine
        self._rows = rows

    def runner(self, batch: int) -> Runner:
        return Leak(self._engine.runner(batch), self._rows)


class Leak:
    def __init__(self, runner: Runner, rows: bool) -> None:
        self._runner, self._rows, self._count = runner, rows, 0
        self.inputs, self.outputs = runner.inputs, runner.outputs
        self.set_state, self.get_state = runner.set_state, runner.get_state

    def run(self) -> None:
        self._runner.run()
        self._count += 1
        y = self.outputs["y"]
        if self._rows:
            y += 1e-3 * np.float32(self.inputs["x"].sum())
        else:
            y += np.float32(self._count)


@pytest.mark.parametrize(("rows", "words"), [(True, "beside other rows: y"), (False, "after a reset: y")])
def test_streams_that_touch_each_other(
    tiny: Path, spec: StepSpec, reference: Reference, rows: bool, words: str
) -> None:
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    finding = semantics(candidate, Leaking(candidate.open(1), rows), reference)
    assert not finding.passed
    assert f"{words} not bit for bit the same" in finding.failure


# Step by step.


def with_oracle(reference: Reference, lstm: Any, chained: float, single: float) -> Reference:
    """With the textbook as its oracle, and one unit for all of the chain and another for single steps."""

    def stepped(inputs: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
        y, h, c = lstm.step(inputs["x"], state["h"], state["c"])
        return {"y": y, "next_h": h, "next_c": c}

    units = {n: np.full(a.shape[2:], chained) for n, a in reference.results.items()}
    singles = replace(reference, units={n: np.full(u.shape, single) for n, u in units.items()})
    return replace(reference, units=units, singles=singles, stepped=stepped)


def test_a_chain_that_magnifies_what_is_right_at_every_step_passes(
    tiny: Path, spec: StepSpec, reference: Reference, lstm: Any
) -> None:
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    engine = candidate.open(1)
    sharp = with_oracle(reference, lstm, 1e-9, 2e-6)
    found = levels.chained(candidate, engine, sharp, "text")
    assert found.passed
    assert re.fullmatch(r"\S+ u, each step 0\.\d+ u of 8", found.summary)
    assert found.measures is not None
    assert found.measures.largest > 8, "the chain itself is beyond its limit"
    assert levels.batch(candidate, engine, sharp).passed
    assert semantics(candidate, engine, sharp).passed
    assert not levels.chained(candidate, engine, replace(sharp, stepped=None)).passed, "no oracle to ask"
    assert not levels.chained(candidate, engine, with_oracle(reference, lstm, 1e-9, 1e-10)).passed
    assert all(f.passed for f in sensitivity(candidate, engine, sharp)), "each mistake is one at every step"


def test_one_wrong_step_of_a_chain_is_no_magnified_rounding(
    tiny: Path, spec: StepSpec, reference: Reference, lstm: Any
) -> None:
    sharp = with_oracle(reference, lstm, 1e-9, 2e-6)
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    results = chain(candidate.open(1).runner(SEEDS), sharp.inputs, sharp.state)
    assert levels.judge(Level.CHAINED, candidate, sharp, results).passed
    results["next_c"][100, 1, 3] += 1e-4
    found = levels.judge(Level.CHAINED, candidate, sharp, results)
    assert not found.passed


# Chance.


class Sometimes:
    """A real engine whose runners are one spacing off in `h` once in so many steps."""

    def __init__(self, engine: Engine, every: int) -> None:
        self._engine, self._every = engine, every

    def runner(self, batch: int) -> Any:
        runner, every, count = self._engine.runner(batch), self._every, 0

        class Off:
            inputs, outputs = runner.inputs, runner.outputs
            set_state, get_state = runner.set_state, runner.get_state

            def run(self) -> None:
                nonlocal count
                runner.run()
                count += 1
                if count % every == 0:
                    state = runner.get_state()
                    runner.set_state(state | {"h": np.nextafter(state["h"], np.float32(2))})

        return Off()


def test_what_differs_between_two_runs_is_chance_and_said(
    tiny: Path, spec: StepSpec, reference: Reference
) -> None:
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    first = levels.run_chained(candidate, candidate.open(1).runner, reference)
    same = run_twice(candidate, reference, first)
    assert (same.passed, same.title, same.summary) == (True, "semantics, run twice", "same bits")
    assert same.figures == {"steps": 600, "differ": 0, "unseen_below": 0.005}
    tired = replace(candidate, open=lambda threads: Sometimes(candidate.open(threads), 250))
    found = run_twice(tired, reference, first)
    assert found.verdict is Verdict.VOID
    assert re.fullmatch(
        r"of 600 steps \d+ differ from the run before, the first is step 199 of seed 1: it is chance, of "
        r"which a run this long shows no more than 1 in 200; a fault of 1 in 100,000 steps needs 300,000 of "
        r"them \(--steps, --seeds\)",
        found.failure,
    )


# Sensitivity.


@pytest.mark.parametrize("profile", ["float32", "int8"])
def test_every_mistake_is_rejected(tiny: Path, spec: StepSpec, reference: Reference, profile: str) -> None:
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec, profile)
    found = {f.case: f for f in sensitivity(candidate, candidate.open(1), reference)}
    assert list(found) == [
        "two states swapped",
        "state one step stale",
        "state zeroed",
        "vocabulary shifted by one",
    ]
    assert all(f.passed for f in found.values())
    assert all(float(f.summary.split()[0]) > 1000 for f in found.values())


def test_a_mistake_that_passes_makes_the_check_void(tiny: Path, spec: StepSpec, reference: Reference) -> None:
    blind = replace(candidate_of(tiny / "step.onnx", "onnx", spec), profile=Profile())
    found = list(sensitivity(blind, blind.open(1), reference))
    assert not any(f.passed for f in found)
    assert "state zeroed: not rejected (" in found[2].failure
    assert found[2].void
    assert found[2].verdict is Verdict.VOID
    words = "step.onnx in onnx cannot be told from a mistake at the level 'sensitivity, state zeroed': "
    assert str(found[2]).startswith(words)
    assert overall(found) is Verdict.VOID


def test_what_is_told_of_a_mistake(tiny: Path, spec: StepSpec, reference: Reference) -> None:
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    engine, part = candidate.open(1), reference.part(slice(0, 256), slice(0, 1))
    for found, mistake in zip(sensitivity(candidate, engine, reference), mistakes(spec), strict=True):
        results = chain(Mutant(engine.runner(1), mistake, spec), part.inputs, part.state)
        measured = measure(spec, part, results, candidate.profile)
        assert found == Finding(
            Level.SENSITIVITY,
            candidate.label,
            True,
            f"{measured.largest:.1e} u",
            figures=measured.to_record(),
            case=str(mistake),
        )
        assert found.figures["steps"] == 256
    blind = replace(candidate, profile=Profile())
    (found, *_) = sensitivity(blind, engine, reference)
    assert re.fullmatch(
        r"two states swapped: not rejected \(\S+ units off\): over this run the mistake changes nothing that "
        r"is judged",
        found.failure,
    )
    (broken, *_) = sensitivity(candidate, Raising(), reference)
    words = "it does not run: line one and two"
    assert broken == Finding(
        Level.SENSITIVITY, candidate.label, False, "broke", words, case="two states swapped"
    )


def test_a_run_that_begins_at_a_state_is_begun_there(
    tiny: Path, spec: StepSpec, reference: Reference
) -> None:
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    engine, later = candidate.open(1), reference.part(slice(20, 100))
    part = later.part(slice(0, None), slice(0, 1))
    assert part.state is not None
    for found, mistake in zip(sensitivity(candidate, engine, later), mistakes(spec), strict=True):
        results = chain(Mutant(engine.runner(1), mistake, spec), part.inputs, part.state)
        assert found.summary == f"{measure(spec, part, results, candidate.profile).largest:.1e} u"


def test_what_graphs_with_a_mistake_in_their_weights_give_is_rejected(
    tiny: Path, tmp_path: Path, spec: StepSpec, reference: Reference
) -> None:
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    engine = candidate.open(1)
    part = judged_part(reference)
    assert (part.steps, part.batch) == (256, 1)
    graphs = {
        mistake: chain(
            open_engine("onnx", changed(tiny / "step.onnx", tmp_path, change), spec).runner(1), part.inputs
        )
        for mistake, change in ((Mistake.ONE_PERCENT, one_percent), (Mistake.PERMUTED, transposed_gates))
    }
    found = list(sensitivity(candidate, engine, reference, graphs))
    assert [f.case for f in found][4:] == ["one weight off by 1 %", "gates permuted"]
    assert all(f.passed for f in found)
    for one, mistake in zip(found[4:], graphs, strict=True):
        largest = measure(spec, part, graphs[mistake], candidate.profile).largest
        assert one.summary == f"{largest:.1e} u"
    right = dict.fromkeys(graphs, chain(engine.runner(1), part.inputs))
    assert not any(f.passed for f in list(sensitivity(candidate, engine, reference, right))[4:])


def test_one_weight_is_the_only_mistake_that_eight_bits_may_hide() -> None:
    assert [m for m in Mistake if not m.is_coarse] == [Mistake.ONE_PERCENT]


def test_a_run_that_moves_no_state_is_void(tiny: Path, tmp_path: Path, spec: StepSpec) -> None:
    """A model that ignores its states cannot be told from one whose states are mistaken."""

    def no_memory(graph: Any) -> None:
        for shape in ((8, 32), (21, 32), (32,)):
            weight(graph, shape, np.zeros_like)

    path = changed(tiny / "step.onnx", tmp_path, no_memory)
    candidate = candidate_of(path, "onnx", spec)
    inputs = {"x": np.zeros((60, 1), np.int32)}
    results = chain(candidate.open(1).runner(1), inputs)
    reference = Reference(inputs, results, dict.fromkeys(results, 1e-6))
    assert levels.chained(candidate, candidate.open(1), reference).passed
    found = {f.case: f.passed for f in sensitivity(candidate, candidate.open(1), reference)}
    assert found["state zeroed"] is False
    assert found["state one step stale"] is False


def test_mutants_make_their_mistake_and_nothing_else(tiny: Path, spec: StepSpec) -> None:
    engine = open_engine("onnx", tiny / "step.onnx", spec)
    inputs = {"x": np.arange(12, dtype=np.int32)[:, None]}
    right = chain(engine.runner(1), inputs)
    swapped = chain(Mutant(engine.runner(1), Mistake.SWAPPED, spec), inputs)
    np.testing.assert_array_equal(swapped["y"][0], right["y"][0])
    np.testing.assert_array_equal(swapped["next_h"][0], right["next_c"][0])
    zeroed = chain(Mutant(engine.runner(1), Mistake.ZEROED, spec), inputs)
    for t in range(12):
        alone = chain(engine.runner(1), {"x": inputs["x"][t : t + 1]})
        np.testing.assert_array_equal(zeroed["y"][t], alone["y"][0])
    stale = chain(Mutant(engine.runner(1), Mistake.STALE, spec), inputs)
    unset = Mutant(engine.runner(1), Mistake.STALE, spec)  # nobody has set its states
    rows = list(steps_of(unset, inputs))
    for name, array in stale.items():
        np.testing.assert_array_equal(np.stack([row[name] for row in rows]), array)
    state = {n: np.zeros((1, 8), np.float32) for n in ("h", "c")}
    before = state
    for t in range(12):  # each step begins at the states before the last ones
        right_step = chain(engine.runner(1), {"x": inputs["x"][t : t + 1]}, before)
        np.testing.assert_array_equal(stale["y"][t], right_step["y"][0])
        before, state = state, {n: right_step[f"next_{n}"][0] for n in state}
    shifted = chain(Mutant(engine.runner(1), Mistake.SHIFTED, spec), inputs)
    np.testing.assert_array_equal(
        shifted["y"], chain(engine.runner(1), {"x": np.arange(1, 13, dtype=np.int32)[:, None]})["y"]
    )


def test_mistakes_that_a_model_cannot_make_are_not_asked_of_it() -> None:
    x, y = TensorSpec("x", "float32", (4,)), TensorSpec("y", "float32", (2,))
    h, s = TensorSpec("h", "float32", (4,)), TensorSpec("s", "float32", (3,))
    assert mistakes(StepSpec((x,), (), (y,))) == []
    assert mistakes(StepSpec((x,), (h, s), (y,))) == ["state one step stale", "state zeroed"]
    assert swappable(StepSpec((x,), (h, s), (y,))) is None
    assert swappable(StepSpec((x,), (s, h, replace(h, name="c")), (y,))) == ("h", "c")
