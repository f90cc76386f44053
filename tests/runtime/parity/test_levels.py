"""Every level on real engines: a right graph passes, and each wrong one is caught with its words."""

from __future__ import annotations

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
from steprnn.runtime.engines import ENGINES, Engine, Runner, open_engine
from steprnn.runtime.parity import levels
from steprnn.runtime.parity.findings import Finding, Level, attempt
from steprnn.runtime.parity.levels import Candidate, Greedy
from steprnn.runtime.parity.mutants import Mistake, Mutant, mistakes, sensitivity, swappable
from steprnn.runtime.parity.profiles import PROFILES, Profile
from steprnn.runtime.parity.reference import Reference, chain
from steprnn.runtime.parity.streams import semantics
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
    return Greedy(tokens, gaps, 1)


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
    saturated = reference.part(slice(0, 1))
    return [
        levels.structure(candidate),
        levels.one_step(candidate, engine, reference, saturated),
        levels.chained(candidate, engine, reference),
        levels.batch(candidate, engine, reference),
        levels.free_run(candidate, engine, greedy, 1e-5),
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


def test_a_wide_candidate_is_stepped_as_one_batch(tiny: Path, spec: StepSpec, reference: Reference) -> None:
    wide = candidate_of(tiny / "step.onnx", "onnx", spec, wide=True)
    narrow = replace(wide, wide=False)
    both = [levels.run_chained(c, c.open(1).runner, reference) for c in (wide, narrow)]
    for name, array in both[0].items():
        assert array.shape[:2] == (STEPS, SEEDS)
        np.testing.assert_allclose(array, both[1][name], rtol=0, atol=1e-4)


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
    transposed_gates: ("one step", r"\w+ is \S+ units off at step 0 of the state before step \d+ of seed 0"),
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
    finding = levels.chained(candidate, candidate.open(1), spoilt)
    assert finding.measures is not None
    breach = finding.measures.breach
    assert breach is not None
    assert (breach.tensor, breach.step, breach.row) == ("next_c", 40, "seed 1")
    assert breach.expected == results["next_c"][40, 1, 3]
    assert finding.failure.startswith("next_c is ")
    assert " units off at step 40 of seed 1 (got " in finding.failure
    assert "), at most 8; the largest: y is 5e+03 units off at step 50 of seed 0" in finding.failure


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
    with pytest.raises(RuntimeError, match="next_h"):
        levels.structure(candidate)
    finding = attempt(Level.STRUCTURE, candidate.label, partial(levels.structure, candidate))
    assert not finding.passed
    assert finding.failure.startswith("it does not run: ")
    assert "next_h" in finding.failure


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


def test_a_departure_is_excused_only_by_the_error_of_the_chained_run(
    tiny: Path, spec: StepSpec, greedy: Greedy
) -> None:
    candidate = candidate_of(tiny / "step.onnx", "onnx", spec)
    engine = candidate.open(1)
    assert levels.free_run(candidate, engine, greedy, 0.0).summary == "same"
    other = greedy.tokens.copy()
    other[60, 1] = (other[60, 1] + 1) % 21
    departed = replace(greedy, tokens=other)
    found = levels.free_run(candidate, engine, departed, 1e-5)
    assert not found.passed
    assert found.summary == "leaves at 59"
    assert found.failure.startswith(
        f"the greedy text departs at step 59 of seed 1 (expected token {other[60, 1]}), where the "
    )
    close = greedy.gaps.copy()
    close[59, 1] = 1.9e-5
    assert levels.free_run(candidate, engine, replace(departed, gaps=close), 1e-5).passed
    assert not levels.free_run(candidate, engine, replace(departed, gaps=close), 0.9e-5).passed
    quantized = replace(candidate, profile=PROFILES["int8"])
    told = levels.free_run(quantized, engine, departed, 1e-5)
    assert (told.passed, told.summary) == (True, "leaves at 59"), "told, and judged by same-top-1"


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
    assert "so this check is void" in found[2].failure


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
