"""Each engine runs the same step; states are paired by name."""

from __future__ import annotations

import gc
import importlib
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import BundleError, MissingExtra, UsageError, engines
from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.engines import Engine, Runner, open_engine
from steprnn.runtime.origin import install
from steprnn.runtime.parity.reference import chain

FILES = {("litert", "float32"): "step.tflite", ("onnx", "float32"): "step.onnx"}
INT8 = {("litert", "int8"): "step.int8.tflite", ("onnx", "int8"): "step.int8.onnx"}
TOKENS = {"x": np.random.default_rng(1).integers(0, 21, (200, 1)).astype(np.int32)}


@pytest.fixture(scope="module")
def opened(tiny: Path) -> dict[tuple[str, str], Engine]:
    spec = Manifest.read(tiny).step
    return {key: open_engine(key[0], tiny / name, spec) for key, name in (FILES | INT8).items()}


@pytest.fixture(params=FILES | INT8, ids="-".join)
def engine(request: pytest.FixtureRequest, opened: dict[tuple[str, str], Engine]) -> Engine:
    return opened[request.param]


def test_all_engines_are_installed_here() -> None:
    assert engines.installed() == ["litert", "onnx", "native"]


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_engines_give_the_same_numbers_over_200_steps(
    opened: dict[tuple[str, str], Engine], lstm: Any, batch: int
) -> None:
    inputs = {"x": np.random.default_rng(2).integers(0, 21, (200, batch)).astype(np.int32)}
    expected = lstm.chain(inputs["x"])
    results = [chain(opened[key].runner(batch), inputs) for key in FILES]
    for name in ("y", "next_h", "next_c"):
        np.testing.assert_allclose(results[0][name], results[1][name], rtol=0, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(results[0][name], expected[name], rtol=0, atol=1e-5, err_msg=name)


def test_int8_weights_keep_float_states(opened: dict[tuple[str, str], Engine], lstm: Any) -> None:
    expected = lstm.chain(TOKENS["x"])
    for key in INT8:
        got = chain(opened[key].runner(1), TOKENS)
        assert {name: array.dtype for name, array in got.items()} == dict.fromkeys(got, np.dtype(np.float32))
        assert 0 < np.abs(got["next_c"] - expected["next_c"]).max() < 0.1


def result(runner: Runner, state: dict[str, Any], x: int = 3) -> dict[str, Any]:
    runner.set_state(state)
    runner.inputs["x"][...] = x
    runner.run()
    return {"y": runner.outputs["y"].copy(), **runner.get_state()}


def test_states_are_set_by_name_and_not_by_position(engine: Engine) -> None:
    """h and c have the same shape, so nothing but the numbers would tell."""
    runner = engine.runner(1)
    h, c = np.linspace(-0.9, 0.9, 8, dtype=np.float32)[None], np.linspace(2, -1, 8, dtype=np.float32)[None]
    straight, reordered = result(runner, {"h": h, "c": c}), result(runner, {"c": c, "h": h})
    for name, array in straight.items():
        np.testing.assert_array_equal(reordered[name], array)
    swapped = result(runner, {"h": c, "c": h})
    for name, array in straight.items():
        assert np.abs(swapped[name] - array).max() > 0.01, name


def test_next_states_become_the_states(engine: Engine, lstm: Any) -> None:
    runner = engine.runner(1)
    first = result(runner, {"h": np.zeros((1, 8)), "c": np.zeros((1, 8))}, 3)
    runner.inputs["x"][...] = 5
    runner.run()
    _, h, c = lstm.step([5], first["h"], first["c"])
    assert np.abs(runner.get_state()["h"] - h).max() < 0.02
    assert np.abs(runner.get_state()["c"] - c).max() < 0.02


def test_a_new_runner_begins_at_zero_and_shares_nothing(engine: Engine) -> None:
    first, second = engine.runner(2), engine.runner(2)
    assert not any(array.any() for array in second.get_state().values())
    chain(first, {"x": np.full((5, 2), 4, np.int32)})
    assert not any(array.any() for array in second.get_state().values())
    assert not np.shares_memory(first.outputs["y"], second.outputs["y"])


def test_buffers_stay_where_they_are(engine: Engine) -> None:
    """Callers keep `inputs` and `outputs` and write and read in place."""
    runner = engine.runner(3)
    x, y = runner.inputs["x"], runner.outputs["y"]
    seen = []
    for token in (1, 2, 3):
        x[...] = token
        runner.run()
        assert runner.inputs["x"] is x
        assert runner.outputs["y"] is y
        seen.append(y.copy())
    assert not np.array_equal(seen[0], seen[1])
    kept = {name: array.copy() for name, array in runner.get_state().items()}
    runner.get_state()["h"][...] = 9
    np.testing.assert_array_equal(runner.get_state()["h"], kept["h"])


def test_buffers_that_nobody_else_holds_are_not_freed(opened: dict[tuple[str, str], Engine]) -> None:
    """onnxruntime is given their addresses, and would write to what the memory has become."""
    runner = opened["onnx", "float32"].runner(1)
    buffers = [weakref.ref(array) for array in (*runner.inputs.values(), *runner.outputs.values())]
    runner.inputs = runner.outputs = {}
    gc.collect()
    assert [buffer() is None for buffer in buffers] == [False, False]


def test_states_are_copied_in(engine: Engine) -> None:
    runner = engine.runner(1)
    state = {"h": np.full((1, 8), 0.5, np.float32), "c": np.full((1, 8), 0.5, np.float32)}
    result(runner, state)
    assert (state["h"] == 0.5).all()
    assert (state["c"] == 0.5).all()


def move_what_is_private(monkeypatch: pytest.MonkeyPatch, interpreter: Any) -> None:
    """Make a LiteRT whose public invoke() alone knows how to run a graph."""
    wrapper = type(interpreter._interpreter)
    invoke = wrapper.Invoke

    def public(self: Any) -> None:
        self._ensure_safe()
        invoke(self._interpreter)

    monkeypatch.setattr(type(interpreter), "invoke", public)
    monkeypatch.delattr(wrapper, "Invoke")


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ["step.tflite", "step.int8.tflite"])
def test_litert_without_what_is_private_gives_the_same_bits(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, name: str, batch: int
) -> None:
    litert = importlib.import_module("steprnn.runtime.engines.litert")
    engine = open_engine("litert", tiny / name, Manifest.read(tiny).step)
    inputs = {"x": np.random.default_rng(3).integers(0, 21, (200, batch)).astype(np.int32)}
    runner = engine.runner(batch)
    assert isinstance(runner, litert.LiteRTRunner)
    expected = chain(runner, inputs)
    move_what_is_private(monkeypatch, litert.Interpreter(str(tiny / name)))
    runner = engine.runner(batch)
    assert isinstance(runner, litert.DynamicRunner)
    results = chain(runner, inputs)
    for result_name, array in expected.items():
        np.testing.assert_array_equal(results[result_name], array, err_msg=result_name)


def test_an_unknown_engine_and_no_threads_are_refused(tiny: Path) -> None:
    spec = Manifest.read(tiny).step
    with pytest.raises(UsageError, match="engine 'torch' is unknown; expected one of: litert, onnx"):
        open_engine("torch", tiny / "step.onnx", spec)
    with pytest.raises(UsageError, match="threads is -1; expected at least 1"):
        open_engine("onnx", tiny / "step.onnx", spec, threads=-1)


def test_an_engine_that_is_not_installed_names_its_extra(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert engines.installed() == ["litert", "native"]
    with pytest.raises(MissingExtra) as raised:
        open_engine("onnx", tiny / "step.onnx", Manifest.read(tiny).step)
    assert str(raised.value) == f"the engine 'onnx' is not installed; run: {install('onnx')}"


@pytest.mark.parametrize(("name", "other"), [("litert", "step.onnx"), ("onnx", "step.tflite")])
def test_the_file_of_the_other_engine_is_refused(tiny: Path, name: str, other: str) -> None:
    with pytest.raises(BundleError, match="refuses"):
        open_engine(name, tiny / other, Manifest.read(tiny).step).runner(1)
