"""The whole contract on small models of several kinds, and as one assertion for other people's suites."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from steprnn.runtime import Vocabulary, cli
from steprnn.runtime.bundle.manifest import Artefact
from steprnn.runtime.errors import ExportError, UsageError
from steprnn.runtime.parity import levels
from steprnn.runtime.parity.findings import Finding, Level, Verdict, overall
from steprnn.runtime.parity.levels import Candidate
from steprnn.runtime.parity.mutants import judged_part
from steprnn.runtime.parity.profiles import PROFILES
from steprnn.runtime.parity.reference import Reference, chain
from steprnn.runtime.spec import StepSpec, TensorSpec

keras = pytest.importorskip("keras")
onnx = pytest.importorskip("onnx")
tf = pytest.importorskip("tensorflow")

from keras import layers  # noqa: E402

import steprnn.export as package  # noqa: E402
from steprnn.export import assert_parity, export  # noqa: E402
from steprnn.export.check.candidates import artefact_candidate  # noqa: E402
from steprnn.export.check.functions import FunctionEngine  # noqa: E402
from steprnn.export.check.judge import judge_candidate  # noqa: E402
from steprnn.export.check.mistakes import mutated  # noqa: E402
from steprnn.export.check.reference import Oracle  # noqa: E402
from steprnn.export.check.runs import Runs, reference_runs  # noqa: E402
from steprnn.export.formats import onnx as onnx_format  # noqa: E402
from steprnn.export.formats import saved_model  # noqa: E402
from steprnn.export.formats.frozen import freeze  # noqa: E402
from steprnn.export.formats.splice import spliced  # noqa: E402
from steprnn.export.step.contract import Step  # noqa: E402
from steprnn.export.step.derive import derive  # noqa: E402

pytestmark = pytest.mark.usefixtures("traced_once")
TOKENS, FEATURES = 11, 4


def language_model(cell: Any = layers.LSTM, units: int = 12) -> Any:
    """Sure enough of itself that 8-bit weights are told from mistakes."""
    keras.utils.set_random_seed(3)
    wide = keras.initializers.RandomNormal(stddev=1.0, seed=4)
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(TOKENS, 6, embeddings_initializer=wide),
            cell(units, return_sequences=True, kernel_initializer=wide),
            layers.Dense(TOKENS, kernel_initializer=wide),
        ]
    )


def signal_model() -> Any:
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((None, FEATURES)),
            layers.GRU(8, return_sequences=True),
            layers.LSTM(5, return_sequences=True),
            layers.Dense(2),
        ]
    )


def runs_of(step: Step, **options: Any) -> tuple[list[str], Runs]:
    said: list[str] = []
    return said, reference_runs(step, steps=64, seeds=2, say=said.append, **options)


def written(step: Step, path: Path) -> Candidate:
    onnx_format.write(step, path)
    return artefact_candidate(path, Artefact("theirs", "onnx", "float32", "", path.name), step.spec)


@pytest.fixture(scope="module")
def model() -> Any:
    return language_model()


@pytest.fixture(scope="module")
def step(model: Any) -> Step:
    return derive(model)


@pytest.fixture(scope="module")
def runs(step: Step) -> Runs:
    return runs_of(step)[1]


@pytest.fixture(scope="module")
def graph(step: Step, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "step.onnx"
    onnx_format.write(step, path)
    return path


@pytest.mark.parametrize(
    "build", [lambda: language_model(layers.GRU), lambda: language_model(layers.SimpleRNN)]
)
def test_a_right_model_passes_every_level(tmp_path: Path, build: Callable[[], Any]) -> None:
    step = derive(build())
    stages, runs = runs_of(step)
    assert stages == [
        "reference on its own text",
        "reference on uniform tokens",
        "reference on one token repeated",
        "reference, greedy",
    ]
    findings = list(judge_candidate(written(step, tmp_path / "step.onnx"), runs))
    assert [str(f) for f in findings if not f.passed] == []
    assert [f.title for f in findings][:13] == [
        "structure",
        "weights",
        "one step",
        "one step, saturated states",
        "one step, states of twice that",
        "chained, its own text",
        "chained, uniform tokens",
        "chained, one token repeated",
        "batch",
        "free run",
        "semantics",
        "semantics, two threads",
        "semantics, run twice",
    ]
    assert {f.case for f in findings if f.level == "sensitivity"} >= {"state zeroed", "one weight off by 1 %"}


def test_a_signal_model_is_run_on_noise_silence_steps_and_a_recording(tmp_path: Path) -> None:
    step = derive(signal_model())
    _, runs = runs_of(step)
    kinds = ["noise", "a constant signal", "10 times the noise", "silence", "steps", "a swelling tone"]
    assert list(runs.chained) == kinds
    x = step.spec.inputs[0].name
    assert not runs.chained["silence"].inputs[x].any()
    constant = runs.chained["a constant signal"].inputs[x]
    np.testing.assert_array_equal(constant[0], constant[-1])
    assert np.abs(runs.chained["a swelling tone"].inputs[x]).max() > 0.5
    assert runs.greedy is None
    findings = list(judge_candidate(written(step, tmp_path / "step.onnx"), runs))
    assert [str(f) for f in findings if not f.passed] == []
    assert "free run" not in {f.level for f in findings}


def test_the_unit_is_never_zero_and_the_saturated_states_are_the_largest(step: Step, runs: Runs) -> None:
    assert list(runs.saturated) == ["saturated states", "states of twice that"]
    every = (*runs.chained.values(), *runs.saturated.values())
    assert all((u > 0).all() for r in every for u in r.units.values())
    for times, saturated in enumerate(runs.saturated.values(), start=1):
        assert saturated.state is not None
        for name, array in saturated.state.items():
            largest = np.abs(runs.main.results[f"next_{name}"]).max()
            np.testing.assert_array_equal(np.abs(array), np.full_like(array, times * largest))
            assert (saturated.units[f"next_{name}"] >= runs.main.units[f"next_{name}"]).all()


def test_the_greedy_text_is_the_models_own(step: Step, model: Any, runs: Runs) -> None:
    greedy = runs.greedy
    assert greedy is not None
    logits = model.predict(greedy.tokens.T, verbose=0)
    chosen = logits.argmax(axis=-1).T
    sure = greedy.gaps[:-1] > 1e-4
    later = np.arange(len(greedy.tokens) - 1)[:, None] + 1 >= greedy.prompt
    same = chosen[:-1] == greedy.tokens[1:]
    assert same[sure & later].all()


def test_mutated_graphs_differ_in_one_weight_or_in_their_gates(step: Step, runs: Runs) -> None:
    results = mutated(step, runs.main)
    assert list(results) == ["one weight off by 1 %", "gates permuted"]
    part = judged_part(runs.main)
    right = chain(Oracle(step).float32.runner(1), part.inputs, part.state)
    for wrong_results in results.values():
        assert not np.array_equal(wrong_results["y"], right["y"])


def wrong(step: Step, change: Callable[..., Any]) -> FunctionEngine:
    from steprnn.export.formats.frozen import freeze

    return FunctionEngine(freeze(step, change=change), step.spec)


def test_a_function_of_another_shape_is_a_finding(step: Step, runs: Runs) -> None:
    """TensorFlow would hand anything over; nothing is broadcast on the way."""
    right = step.function()

    def narrow(**tensors: Any) -> Any:
        results = dict(right(**tensors))
        return results | {"next_h": tf.reduce_mean(results["next_h"], axis=-1, keepdims=True)}

    engine = FunctionEngine(narrow, step.spec)
    candidate = Candidate("narrow", "tensorflow", step.spec, PROFILES["float32"], lambda threads: engine)
    (finding,) = judge_candidate(candidate, runs)
    assert (finding.level, finding.passed) == ("structure", False)
    assert "next_h came back with shape (1, 1), expected (1, 12)" in finding.failure


def test_a_model_that_raises_halfway_is_a_finding_of_each_level(step: Step, runs: Runs) -> None:
    right, calls = step.function(), 0

    def sometimes(**tensors: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise RuntimeError("out of memory")
        return right(**tensors)

    engine = FunctionEngine(sometimes, step.spec)
    candidate = Candidate("tired", "tensorflow", step.spec, PROFILES["float32"], lambda threads: engine)
    findings = [f for f in judge_candidate(candidate, runs) if f.level != "sensitivity"]
    assert [f.passed for f in findings] == [True] + [False] * (len(findings) - 1)
    assert {f.failure for f in findings[1:]} == {"it does not run: out of memory"}


def test_a_graph_that_is_wrong_at_saturated_states_alone(step: Step, runs: Runs) -> None:
    """It keeps each element of a state to what the runs had reached there."""
    right = step.function()
    reached = {
        t.name: [
            tf.constant(
                of([of(r.results[f"next_{t.name}"], axis=(0, 1)) for r in runs.chained.values()], axis=0)
            )
            for of in (np.min, np.max)
        ]
        for t in step.spec.states
    }

    def clipped(**tensors: Any) -> Any:
        ends = {n: (tf.minimum(low, 0), tf.maximum(high, 0)) for n, (low, high) in reached.items()}
        return right(**tensors | {n: tf.clip_by_value(tensors[n], *ends[n]) for n in ends})

    engine = FunctionEngine(clipped, step.spec)
    candidate = Candidate("clipped", "tensorflow", step.spec, PROFILES["float32"], lambda threads: engine)
    failed = {f.title: f.failure for f in judge_candidate(candidate, runs) if not f.passed}
    assert list(failed) == ["one step, saturated states", "one step, states of twice that"]
    for case in ("saturated states", "states of twice that"):
        assert re.match(
            rf"\w+ is \S+ units off at step 0 of row \d+ of {case} \(got ", failed[f"one step, {case}"]
        )


def counting_model() -> Any:
    """A cell that counts on token 0, which it nearly always writes, and forgets all on token 1."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(2, 2, embeddings_initializer="identity"),
            layers.LSTM(4, return_sequences=True, recurrent_initializer="zeros", unit_forget_bias=False),
            layers.Dense(2),
        ]
    )
    _, kernel, _, _, dense, bias = model.weights
    gates = [[8, 12, 3, 3], [-8, -30, 0.1, 3]]  # i, f, g and o of each token
    kernel.assign(np.repeat(np.array(gates, np.float32), 4, axis=1))
    dense.assign(dense * 1e-3)
    bias.assign([5, 0])
    return model


@pytest.mark.parametrize(("spacings", "passes"), [(1, True), (100, False)])
def test_a_gate_is_as_good_as_float32_at_saturated_states(spacings: int, passes: bool) -> None:
    """A cell state of hundreds shows what the sigmoid of an engine is off where it is near zero.

    TensorFlow's own is not off there, so that it is no measure of what others may be.
    """

    def off(graph: Any) -> None:
        for node in [n for n in graph.node if n.op == "Sigmoid"]:
            readers = [(n, i) for n in graph.node for i, name in enumerate(n.input) if name == node.name]
            moved = spliced(
                graph, f"{node.name}/off", node.name, tf.float32, lambda y: y + spacings * 2.0**-24
            )
            for reader, i in readers:
                reader.input[i] = moved

    step = derive(counting_model())
    _, runs = runs_of(step, kinds=1)
    assert runs.main.results["next_c"].max() > 30
    far = runs.saturated["states of twice that"]
    engine = FunctionEngine(freeze(step, edit=off), step.spec)
    candidate = Candidate("blunt", "tensorflow", step.spec, PROFILES["float32"], lambda threads: engine)
    errors = np.abs(chain(engine.runner(far.batch), far.inputs, far.state)["next_h"] - far.results["next_h"])
    tensorflow = chain(Oracle(step).float32.runner(far.batch), far.inputs, far.state)["next_h"]
    assert errors.max() > 32 * np.abs(tensorflow - far.results["next_h"]).max()
    found = levels.saturated(candidate, engine, far, "far states")
    assert found.passed is passes


def test_a_model_without_memory_of_its_states_is_void(tmp_path: Path) -> None:
    """Its recurrent weights and its forget gate are zero: no mistake with its states could be seen."""
    model = language_model(layers.SimpleRNN)
    recurrent = model.layers[1].cell.recurrent_kernel
    recurrent.assign(recurrent * 0)
    step = derive(model)
    _, runs = runs_of(step, kinds=1)
    findings = list(judge_candidate(written(step, tmp_path / "step.onnx"), runs))
    failed = {f.case: f.failure for f in findings if not f.passed}
    assert set(failed) >= {"state zeroed", "state one step stale"}
    assert "state zeroed: not rejected (" in failed["state zeroed"]
    assert all(f.passed for f in findings if f.level != "sensitivity")
    assert overall(findings) is Verdict.VOID


def test_what_cannot_be_told_is_no_failure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is exported, and each place says so; the command has an exit code for it."""
    model = language_model(layers.SimpleRNN)
    recurrent = model.layers[1].cell.recurrent_kernel
    recurrent.assign(recurrent * 0)
    model.save(tmp_path / "model.keras")
    said: list[str] = []
    options: dict[str, Any] = {"formats": ("onnx",), "variants": ("float32",), "chained_steps": 64}
    export(model, tmp_path / "b", say=said.append, **options)
    words = "onnx-float32 in onnx cannot be told from a mistake at the level 'sensitivity, state zeroed': "
    assert any(line.startswith(words) for line in said)
    told = json.loads((tmp_path / "b" / "parity.json").read_text())
    assert (told["passed"], told["verdict"]) == (True, "cannot tell")
    argv = ["check", str(tmp_path / "b"), "--reference", str(tmp_path / "model.keras"), "--steps", "64"]
    code = cli.main([*argv, "--seeds", "1", "--report", str(tmp_path / "report")])
    out, err = capfd.readouterr()
    assert code == 3
    assert out.splitlines()[1].endswith("cannot tell")
    assert " 2 cannot tell" in err
    assert "steprnn: onnx-float32 in onnx cannot be told from a mistake at the level 'sensitivity, " in err
    suite = ElementTree.parse(tmp_path / "report" / "junit.xml").getroot()
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "2")
    page = (tmp_path / "report" / "report.html").read_text()
    assert '<span class="verdict void">CANNOT TELL</span>' in page
    assert "2 of " in page
    assert assert_parity(model, tmp_path / "b", steps=64, seeds=1)


def test_a_model_that_overflows_is_refused_before_anything_is_judged() -> None:
    """Its unit would not be a number, and `nan > 8` is false: a halved kernel passed at "nan u"."""
    cell = layers.SimpleRNN(3, activation="linear", return_sequences=True)
    model = keras.Sequential([keras.Input((None, FEATURES)), cell])
    cell.cell.recurrent_kernel.assign(40 * np.eye(3))
    words = r"^the model itself is not finite: (y|next_h) overflows at step \d+ of its own run in float64"
    with pytest.raises(ExportError, match=words):
        reference_runs(derive(model), steps=64, seeds=1, kinds=1)


# assert_parity


def test_it_is_exposed_without_importing_tensorflow() -> None:
    assert package.assert_parity is assert_parity
    assert "assert_parity" in package.__all__


def test_a_right_graph(model: Any, graph: Path) -> None:
    findings = assert_parity(model, graph, steps=64)
    assert all(isinstance(f, Finding) and f.passed for f in findings)


def test_a_path_a_step_and_a_vocabulary(model: Any, step: Step, graph: Path, tmp_path: Path) -> None:
    model.save(tmp_path / "model.keras")
    assert_parity(str(tmp_path / "model.keras"), str(graph), steps=64, seeds=1)
    text = "abcdefghijk" * 8
    findings = assert_parity(step, graph, text=text, vocabulary=Vocabulary.of(text), steps=64, seeds=1)
    assert "chained, text" in {f.title for f in findings}


def test_another_model_raises_with_the_first_breach_in_words(graph: Path) -> None:
    keras.utils.set_random_seed(9)
    other = language_model()
    other.layers[1].cell.bias.assign(other.layers[1].cell.bias + 0.01)
    with pytest.raises(AssertionError) as raised:
        assert_parity(other, graph, steps=64, seeds=2)
    first = str(raised.value).splitlines()[0]
    assert first.startswith("step.onnx in onnx fails at the level 'one step': ")
    assert " units off at step 0 of the state before step " in first
    assert "), at most 8" in first


def test_names_and_a_profile(model: Any, graph: Path, tmp_path: Path) -> None:
    proto = onnx.load(graph)
    for node in proto.graph.node:
        node.output[:] = ["state_out" if n == "next_h" else n for n in node.output]
        node.input[:] = ["state_out" if n == "next_h" else n for n in node.input]
    next(o for o in proto.graph.output if o.name == "next_h").name = "state_out"
    onnx.save(proto, tmp_path / "theirs.onnx")
    with pytest.raises(UsageError, match="has no next_h; it has x, h, c, "):
        assert_parity(model, tmp_path / "theirs.onnx", steps=64)
    findings = assert_parity(
        model, tmp_path / "theirs.onnx", names={"next_h": "state_out"}, profile="int8", steps=128
    )
    assert any(f.level == "chained" for f in findings)
    with pytest.raises(UsageError, match="profile 'int3' is unknown; expected one of: float32, "):
        assert_parity(model, graph, profile="int3")


def test_a_text_too_short_for_the_run(step: Step, graph: Path) -> None:
    with pytest.raises(UsageError, match="the text has 3 known characters"):
        assert_parity(step, graph, text="abc", vocabulary=Vocabulary.of("abcdefghijk"), steps=64)
    with pytest.raises(UsageError, match="a text needs a vocabulary"):
        assert_parity(step, graph, text="abc", steps=64)


def test_runs_of_a_reference_are_recorded_whole(runs: Runs, tmp_path: Path) -> None:
    runs.main.write(tmp_path / "golden.npz")
    again = Reference.read(tmp_path / "golden.npz")
    assert {n: u.tolist() for n, u in again.units.items()} == {
        n: u.tolist() for n, u in runs.main.units.items()
    }
    assert again.units["y"].shape == (TOKENS,)
    assert again.batch == 2


def test_a_chaotic_model_is_judged_step_by_step(tmp_path: Path) -> None:
    """Rounding alone carries it away within 30 steps; right artefacts pass, and one percent is still seen."""
    keras.utils.set_random_seed(5)
    x = keras.Input((None,), dtype="int32")
    y = layers.SimpleRNN(60, return_sequences=True)(layers.Embedding(TOKENS, 8)(x))
    model = keras.Model(x, layers.Dense(TOKENS)(y))
    recurrent = model.layers[2].cell.recurrent_kernel
    recurrent.assign(recurrent * 3)
    said: list[str] = []
    options: dict[str, Any] = {"formats": ("onnx", "tflite"), "chained_steps": 256}
    manifest = export(model, tmp_path / "b", say=said.append, **options)
    assert {a.name for a in manifest.artefacts} >= {"onnx-float32", "tflite-float32"}
    words = r"^the model is chaotic: from step \d+ on rounding alone moves it by more than 1e-05 "
    assert any(re.match(words, line) for line in said)
    step = derive(model)
    _, runs = runs_of(step, kinds=1)
    assert 16 <= runs.main.steps < runs.main.of
    candidate = written(step, tmp_path / "step.onnx")
    assert overall(judge_candidate(candidate, runs, mistakes=False)) is Verdict.PASSED

    def nudged(weights: Any, factor: str | None) -> Any:
        """One recurrent weight."""
        if factor != "h" or weights.ndim != 2:
            return None
        weights = weights.copy()
        weights[0, 0] *= 1.01
        return weights

    engine = wrong(step, nudged)
    off = Candidate("off", "tensorflow", step.spec, PROFILES["float32"], lambda threads: engine)
    found = {f.level: f for f in judge_candidate(off, runs, mistakes=False)}
    assert found[Level.ONE_STEP].verdict is Verdict.FAILED


def test_a_function_that_branches_is_called_as_it_is(tmp_path: Path) -> None:
    """A graph of others may have branches, which the quick way to call a graph has not."""

    def step(x: Any, h: Any) -> dict[str, Any]:
        after = tf.cond(tf.reduce_sum(x) > 0.0, lambda: h + x, lambda: h - x)
        return {"y": after * 2.0, "next_h": after}

    shape = tf.TensorSpec([None, 3], tf.float32)
    module = tf.Module()
    function = tf.function(step, autograph=False).get_concrete_function(x=shape, h=shape)
    tf.saved_model.save(module, str(tmp_path / "s"), signatures={"step": function})
    signature = saved_model.signature(tmp_path / "s")
    state, x = (TensorSpec(name, "float32", (3,)) for name in ("h", "x"))
    spec = StepSpec((x,), (state,), (TensorSpec("y", "float32", (3,)),))
    for called in (function, signature):
        runner = FunctionEngine(called, spec).runner(2)
        for value, total in ((1.0, 1.0), (-2.0, 3.0)):
            runner.inputs["x"][...] = value
            runner.run()
            assert runner.outputs["y"].tolist() == [[2 * total] * 3] * 2
