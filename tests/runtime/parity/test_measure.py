"""A check that cannot fail is void: every known way to be wrong must make it fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import BundleError, StepSpec
from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.engines import Runner, open_engine
from steprnn.runtime.parity.measure import Measures, measure
from steprnn.runtime.parity.profiles import PROFILES
from steprnn.runtime.parity.reference import Arrays, Reference, chain

onnx = pytest.importorskip("onnx")

STEPS = 300
FLOAT32, INT8 = PROFILES["float32"], PROFILES["int8"]


@pytest.fixture(scope="module")
def spec(tiny: Path) -> StepSpec:
    return Manifest.read(tiny).step


@pytest.fixture(scope="module")
def golden(tiny: Path) -> Reference:
    return Reference.read(tiny / "golden.npz")


@pytest.fixture(scope="module")
def reference(golden: Reference, lstm: Any) -> Reference:
    """A longer run than the bundle carries, by the textbook in float64, over arbitrary tokens."""
    tokens = np.random.default_rng(0).integers(0, 21, (STEPS, 1)).astype(np.int32)
    results = {name: array.astype(np.float32) for name, array in lstm.chain(tokens).items()}
    return Reference({"x": tokens}, results, golden.units)


class Altered:
    """A runner of a real engine with a fault between its steps."""

    def __init__(self, runner: Runner, fault: Callable[[int, Arrays, Arrays], Arrays]) -> None:
        self._runner, self._fault, self._step = runner, fault, 0
        self.inputs, self.outputs = runner.inputs, runner.outputs
        self.set_state, self.get_state = runner.set_state, runner.get_state

    def run(self) -> None:
        """Take a step, and let the fault decide with which states the next one begins."""
        before = self.get_state()
        self._runner.run()
        self.set_state(self._fault(self._step, before, self.get_state()))
        self._step += 1


FAULTS: dict[str, Callable[[int, Arrays, Arrays], Arrays]] = {
    "h and c swapped at every step": lambda t, before, after: {"h": after["c"], "c": after["h"]},
    "h and c swapped once": lambda t, b, after: {"h": after["c"], "c": after["h"]} if t == 200 else after,
    "state never kept": lambda t, before, after: before,
    "c never kept": lambda t, before, after: {"h": after["h"], "c": before["c"]},
    "stale once": lambda t, before, after: before if t == 200 else after,
    "zeroed once": lambda t, b, after: {n: a * (t != 200) for n, a in after.items()},
    "h zeroed once": lambda t, b, after: {"h": after["h"] * (t != 200), "c": after["c"]},
    "state kept in half precision": lambda t, b, after: {
        n: a.astype(np.float16).astype(np.float32) for n, a in after.items()
    },
}


@pytest.mark.parametrize("engine", ["litert", "onnx"])
@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_faults_of_the_state(
    tiny: Path, spec: StepSpec, reference: Reference, engine: str, fault: str | None
) -> None:
    path = tiny / {"litert": "step.tflite", "onnx": "step.onnx"}[engine]
    runner = open_engine(engine, path, spec).runner(1)
    if fault is None:
        measures = measure(spec, reference, chain(runner, reference.inputs), FLOAT32)
        assert measures.failures == []
        assert measures.passed
        assert measures.largest < 8
        assert measures.same_top_1 == 1.0
    else:
        measures = measure(spec, reference, chain(Altered(runner, FAULTS[fault]), reference.inputs), FLOAT32)
        assert not measures.passed
        assert measures.largest > 100
        if "once" in fault:
            assert measures.breach is not None
            assert (measures.breach.step, measures.breach.row) == (200, "row 0")
            assert " units off at step 200 of row 0 (got " in measures.failures[0]


def weights(model: Any) -> dict[str, np.ndarray]:
    names = {(21, 32): "kernel", (8, 32): "recurrent", (32,): "bias", (8, 21): "dense", (21,): "dense bias"}
    return {names[tuple(i.dims)]: onnx.numpy_helper.to_array(i).copy() for i in model.graph.initializer}


def run_with(
    path: Path, folder: Path, spec: StepSpec, inputs: Any, change: Callable[[Arrays], Any]
) -> Arrays:
    """The results of onnxruntime on a copy of the graph with other weights."""
    model = onnx.load(path)
    arrays = weights(model)
    names = list(arrays)
    change(arrays)
    for initializer, name in zip(model.graph.initializer, names, strict=True):
        initializer.CopyFrom(onnx.numpy_helper.from_array(arrays[name], initializer.name))
    onnx.save(model, folder / "changed.onnx")
    return chain(open_engine("onnx", folder / "changed.onnx", spec).runner(1), inputs)


def permute_gates(arrays: Arrays) -> None:
    """From Keras's order i, f, g, o to that of ONNX's own LSTM: i, o, f, g."""
    for name in ("kernel", "recurrent", "bias"):
        i, f, g, o = np.split(arrays[name], 4, axis=-1)
        arrays[name] = np.concatenate([i, o, f, g], axis=-1)


def swap_input_and_forget(arrays: Arrays) -> None:
    for name in ("kernel", "recurrent", "bias"):
        i, f, g, o = np.split(arrays[name], 4, axis=-1)
        arrays[name] = np.concatenate([f, i, g, o], axis=-1)


def off_by_one_percent(name: str) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[name].flat[np.abs(arrays[name]).argmax()] *= 1.01

    return change


CHANGES: dict[str, Callable[[Arrays], Any]] = {
    "gates in another order": permute_gates,
    "input and forget gate swapped": swap_input_and_forget,
    "rows of the kernel shifted": lambda arrays: arrays.update(kernel=np.roll(arrays["kernel"], 1, axis=0)),
    "columns of the head shifted": lambda arrays: arrays.update(
        {n: np.roll(arrays[n], 1, axis=-1) for n in ("dense", "dense bias")}
    ),
    "recurrent kernel transposed by gates": lambda arrays: arrays.update(
        recurrent=np.concatenate([gate.T for gate in np.split(arrays["recurrent"], 4, axis=1)], axis=1)
    ),
    "bias left out": lambda arrays: arrays["bias"].fill(0),
    "weights in half precision": lambda arrays: arrays.update(
        {n: a.astype(np.float16).astype(np.float32) for n, a in arrays.items()}
    ),
} | {
    f"one weight of the {name} off by 1 %": off_by_one_percent(name)
    for name in ("kernel", "recurrent", "bias", "dense", "dense bias")
}


@pytest.mark.parametrize("change", [None, *CHANGES])
def test_faults_of_the_weights(
    tiny: Path, tmp_path: Path, spec: StepSpec, reference: Reference, change: str | None
) -> None:
    apply = CHANGES[change] if change else lambda arrays: None
    candidate = run_with(tiny / "step.onnx", tmp_path, spec, reference.inputs, apply)
    measures = measure(spec, reference, candidate, FLOAT32)
    assert measures.passed == (change is None)
    assert change is None or measures.largest > 100


@pytest.mark.parametrize("change", list(CHANGES)[:6])
def test_gross_faults_fail_the_int8_profile_too(
    tiny: Path, tmp_path: Path, spec: StepSpec, reference: Reference, change: str
) -> None:
    candidate = run_with(tiny / "step.onnx", tmp_path, spec, reference.inputs, CHANGES[change])
    measures = measure(spec, reference, candidate, INT8)
    assert not measures.passed
    assert measures.mean_kl is not None
    assert measures.mean_kl > 0.05
    assert measures.failures[0].startswith("mean KL divergence is ")


def test_a_shifted_vocabulary_fails(tiny: Path, spec: StepSpec, reference: Reference) -> None:
    runner = open_engine("onnx", tiny / "step.onnx", spec).runner(1)
    shifted = {"x": (reference.inputs["x"] + 1) % 21}
    assert not measure(spec, reference, chain(runner, shifted), FLOAT32).passed
    candidate = chain(runner, reference.inputs)
    candidate["y"] = np.roll(candidate["y"], 1, axis=-1)
    measures = measure(spec, reference, candidate, FLOAT32)
    assert not measures.passed
    assert measures.units["next_h"] < 8, "only y is wrong"


def spoilt(reference: Reference, name: str, step: int, value: float) -> Arrays:
    results = {n: a.copy() for n, a in reference.results.items()}
    results[name][step, 0, 0] = value
    return results


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["y", "next_h", "next_c"])
@pytest.mark.parametrize("profile", ["float32", "int8"])
def test_what_is_not_finite_fails_in_any_tensor_at_any_step(
    spec: StepSpec, reference: Reference, profile: str, name: str, value: float
) -> None:
    for step in (0, STEPS - 1):
        measures = measure(spec, reference, spoilt(reference, name, step, value), PROFILES[profile])
        assert measures.failures[0] == f"{name} is not finite, first at step {step} of row 0"


def test_what_is_missing_or_of_another_shape_fails_and_is_never_broadcast(
    spec: StepSpec, reference: Reference
) -> None:
    good = reference.results
    for name in good:
        expected = good[name].shape
        missing = measure(spec, reference, {n: a for n, a in good.items() if n != name}, FLOAT32)
        assert missing.failures == [f"{name}: got nothing, expected shape {expected}"]
        for wrong in (good[name][:1], good[name][:, 0], good[name][..., :1], good[name][:-1]):
            measures = measure(spec, reference, good | {name: wrong}, FLOAT32)
            assert measures.failures == [f"{name}: got shape {wrong.shape}, expected shape {expected}"]
            assert not measures.passed


def test_what_has_another_shape_is_infinitely_far_off_and_nothing_else_is_told(
    spec: StepSpec, reference: Reference
) -> None:
    measures = measure(spec, reference, {}, FLOAT32)
    assert measures == Measures(
        0, {"y": np.inf}, None, failures=["y: got nothing, expected shape (300, 1, 21)"]
    )
    assert measures.largest == np.inf
    assert measures.to_record()["worst"] is None


def test_the_record_of_a_run_is_every_figure_but_the_series(spec: StepSpec, reference: Reference) -> None:
    exact = replace(reference, units=dict.fromkeys(reference.units, 0.25))
    candidate = {name: array.copy() for name, array in exact.results.items()}
    candidate["next_c"][100, 0, 2] += 3.0
    measures = measure(spec, exact, candidate, FLOAT32)
    assert len(measures.series) == len(measures.kl) == 300
    got, expected = (float(a["next_c"][100, 0, 2]) for a in (candidate, exact.results))
    place = {
        "tensor": "next_c",
        "step": 100,
        "row": "row 0",
        "got": got,
        "expected": expected,
        "units": (got - expected) / 0.25,
    }
    assert measures.to_record() == {
        "steps": 300,
        "units": {"y": 0.0, "next_h": 0.0, "next_c": place["units"]},
        "worst": place,
        "breach": place,
        "p99": 0.0,
        "growth": 1.0,
        "drift": None,
        "errors": {"y": 0.0, "next_h": 0.0, "next_c": pytest.approx(got - expected)},
        "relative": measures.relative,
        "spread": measures.spread,
        "ranges": {
            n: (float(a.min()), float(a.max())) for n, a in ((n, candidate[f"next_{n}"]) for n in "hc")
        },
        "mean_kl": 0.0,
        "max_kl": 0.0,
        "p99_kl": 0.0,
        "same_top_1": 1.0,
        "agreement": 1.0,
        "perplexity": 0.0,
        "failures": measures.failures,
        "passed": False,
    }
    assert list(measures.relative) == list(measures.spread) == ["y", "next_h", "next_c"]
    about = exact.results["next_c"] - exact.results["next_c"].mean(axis=(0, 1))
    mean = (got - expected) / exact.results["next_c"].size
    assert measures.spread == pytest.approx({"y": 0, "next_h": 0, "next_c": mean / about.std()})
    candidate["next_c"][:, 0, 2] += 1.0
    assert measure(spec, exact, candidate, FLOAT32).p99 == pytest.approx(4.0)


def test_the_limit_is_exact(spec: StepSpec, reference: Reference) -> None:
    """8 units pass, the next float does not; the words say where, what, and how much is allowed."""
    reference = replace(
        reference,
        results={n: np.zeros_like(a) for n, a in reference.results.items()},
        units=dict.fromkeys(reference.units, 0.25),
    )
    assert measure(spec, reference, spoilt(reference, "next_c", 7, 2.0), FLOAT32).passed
    beyond = float(np.nextafter(np.float32(2.0), np.float32(3.0)))
    assert not measure(spec, reference, spoilt(reference, "next_c", 7, beyond), FLOAT32).passed
    candidate = spoilt(reference, "next_c", 7, 3.0)
    candidate["next_c"][9, 0, 1] = -4.0
    assert measure(spec, reference, candidate, FLOAT32).failures == [
        "next_c is 12 units off at step 7 of row 0 (got 3, expected 0), at most 8; "
        "the largest: next_c is 16 units off at step 9 of row 0 (got -4, expected 0)"
    ]


def test_language_measures_by_hand(spec: StepSpec, reference: Reference) -> None:
    """Twenty-one even logits against ones where the token that follows is e times likelier."""
    x = reference.inputs["x"][:11]
    even = {n: np.zeros_like(a[:11]) for n, a in reference.results.items()}
    flat = Reference({"x": x}, even, dict.fromkeys(even, 1.0))
    candidate = {n: a.copy() for n, a in even.items()}
    for t in range(10):
        candidate["y"][t, 0, x[t + 1, 0]] = 1.0
    measures = measure(spec, flat, candidate, INT8)
    kl = np.log(20 + np.e) - 1 / 21 - np.log(21)
    assert measures.mean_kl == pytest.approx(kl * 10 / 11)
    assert measures.max_kl == pytest.approx(kl)
    assert measures.perplexity == pytest.approx((20 + np.e) / (21 * np.e) - 1)
    even_top = [t for t in range(10) if x[t + 1, 0] == 0]  # argmax of even logits is token 0
    assert measures.same_top_1 == pytest.approx((len(even_top) + 1) / 11)
    assert [failure.split(" is ")[0].split(" changes")[0] for failure in measures.failures] == [
        "mean KL divergence",
        "perplexity",
    ], "where all are equally likely, another likeliest one is no disagreement"


def test_another_likeliest_token_is_a_disagreement(spec: StepSpec, reference: Reference) -> None:
    results = {n: np.zeros_like(a[:10]) for n, a in reference.results.items()}
    results["y"][:, 0, 3] = 1.0
    sure = Reference({"x": reference.inputs["x"][:10]}, results, dict.fromkeys(results, 1.0))
    candidate = {n: a.copy() for n, a in results.items()}
    candidate["y"][6:, 0, 4] = 1.5
    measures = measure(spec, sure, candidate, INT8)
    assert measures.same_top_1 == 0.6
    words = [failure for failure in measures.failures if failure.startswith("same-top-1 is 0.6000")]
    assert len(words) == 1
    assert "expected at least 0.95" in words[0]
    assert "step 6 of row 0" in words[0]


def test_huge_logits_fail_and_do_not_overflow(spec: StepSpec, reference: Reference) -> None:
    measures = measure(spec, reference, spoilt(reference, "y", 3, 3e38), INT8)
    assert not measures.passed


def test_the_golden_trajectory_reads_back_equal(golden: Reference, tmp_path: Path) -> None:
    golden.write(tmp_path / "golden.npz")
    again = Reference.read(tmp_path / "golden.npz")
    assert {n: u.tolist() for n, u in again.units.items()} == {n: u.tolist() for n, u in golden.units.items()}
    for one, other in ((again.inputs, golden.inputs), (again.results, golden.results)):
        assert list(one) == list(other)
        for name in other:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])


def test_the_golden_trajectory_is_a_chained_run_of_the_textbook(golden: Reference, lstm: Any) -> None:
    assert golden.inputs["x"].shape == (16, 1)
    expected = lstm.chain(golden.inputs["x"])
    for name, array in golden.results.items():
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=float(np.spacing(np.float32(16))))


def test_a_part_of_a_run_begins_at_the_states_reached_there(
    tiny: Path, spec: StepSpec, reference: Reference, tmp_path: Path
) -> None:
    assert (reference.steps, reference.batch) == (STEPS, 1)
    begin = reference.part(slice(0, 5))
    assert (begin.steps, begin.state, begin.units) == (5, None, reference.units)
    np.testing.assert_array_equal(begin.results["y"], reference.results["y"][:5])
    middle = reference.part(slice(100, 150))
    assert middle.state is not None
    np.testing.assert_array_equal(middle.state["c"], reference.results["next_c"][99])
    middle.write(tmp_path / "golden.npz")
    again = Reference.read(tmp_path / "golden.npz")
    runner = open_engine("onnx", tiny / "step.onnx", spec).runner(1)
    assert measure(spec, again, chain(runner, again.inputs, again.state), FLOAT32).passed
    assert not measure(spec, again, chain(runner, again.inputs), FLOAT32).passed, "from zero"


def test_a_chain_goes_on_from_a_state(tiny: Path, spec: StepSpec, reference: Reference) -> None:
    runner = open_engine("onnx", tiny / "step.onnx", spec).runner(1)
    whole = chain(runner, reference.inputs)
    state = {t.name: whole[f"next_{t.name}"][99] for t in spec.states}
    rest = chain(runner, {"x": reference.inputs["x"][100:]}, state)
    for name, array in whole.items():
        np.testing.assert_array_equal(rest[name], array[100:])
    again = chain(runner, reference.inputs)
    np.testing.assert_array_equal(again["y"], whole["y"])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"golden"])
def test_a_file_that_is_no_golden_trajectory_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "golden.npz"
    path.write_bytes(content)
    with pytest.raises(BundleError) as raised:
        Reference.read(path)
    assert str(raised.value).startswith(f"{path} is not a golden trajectory (")


@pytest.mark.parametrize("unit", [float("nan"), float("inf")])
def test_a_unit_that_is_no_number_passes_nothing(spec: StepSpec, golden: Reference, unit: float) -> None:
    """Of a reference that overflowed: every comparison with it is false."""
    broken = Reference(golden.inputs, golden.results, golden.units | {"y": unit}, golden.state)
    results = {n: a.copy() for n, a in golden.results.items()}
    results["y"] = np.where(results["y"] > 0, np.nan, results["y"])
    assert not measure(spec, broken, results, FLOAT32).passed
    if np.isnan(unit):
        assert not measure(spec, broken, golden.results, FLOAT32).passed
