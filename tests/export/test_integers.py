"""int16x8: int8 weights, int16 activations and states, written by TensorFlow's converter, run in LiteRT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from steprnn.export.bundle import export
from steprnn.export.check.candidates import candidates_of
from steprnn.export.check.judge import judge_all
from steprnn.export.check.reference import Oracle, input_run
from steprnn.export.check.runs import visited
from steprnn.export.formats import integers, tflite
from steprnn.export.inspect import inspect
from steprnn.export.step.contract import Step
from steprnn.export.step.derive import derive
from steprnn.runtime import load
from steprnn.runtime.engines import litert
from steprnn.runtime.errors import BundleError, ExportError, OutOfRange, ParityError
from steprnn.runtime.parity.reference import Arrays, chain
from steprnn.runtime.session import State

from .models import sequence, shaken, tokens

STEPS = 512


def a_model(cell: str, embedded: bool) -> keras.Model:
    layer = getattr(layers, cell)(12, return_sequences=True)
    if embedded:
        return shaken(tokens(layers.Embedding(11, 6), layer, layers.Dense(11)))
    return shaken(sequence(layer, layers.Dense(2)))


def written(model: keras.Model, path: Path, steps: int = STEPS) -> tuple[Step, Arrays]:
    """The step, and a run of inputs on whose first half it was calibrated."""
    step = derive(model)
    inputs = input_run(step, steps, 2)
    tflite.write(step, path, "int16x8", visited(step, inputs))
    return step, inputs


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN"])
def test_each_cell_in_integers(cell: str, embedded: bool, tmp_path: Path) -> None:
    keras.utils.set_random_seed(2)
    step, inputs = written(a_model(cell, embedded), path := tmp_path / "step.tflite")
    oracle = Oracle(step)
    exact = chain(oracle.exact.runner(2), inputs, oracle.first_state(2))
    runner = litert.load(path, step.spec).runner(2)
    got = chain(runner, inputs)
    for name, expected in exact.items():
        limit = 0.02 if cell == "SimpleRNN" else 0.01  # whose weights magnify what 8 bits do to them
        assert np.abs(got[name] - expected).mean() < limit * expected.std(), name
    held = runner.get_state()
    runner.set_state(held)
    again = runner.get_state()
    assert all(np.array_equal(held[name], again[name]) for name in held), "a float of it is the same integer"
    model = integers._read(path.read_bytes())
    graph, places = model.subgraphs[0], integers._places(model)
    kinds = {name: graph.tensors[place].type for name, place in places.items()}
    token = {"x"} if embedded else set()
    assert {n for n, kind in kinds.items() if kind != integers.schema.TensorType.INT16} == token
    tables = [op for op in graph.operators if integers._name(model, op) == "GATHER"]
    assert [graph.tensors[op.inputs[0]].type for op in tables] == [integers.schema.TensorType.INT8] * embedded


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(2)
    out = tmp_path_factory.mktemp("integers") / "b"
    export(a_model("LSTM", False), out, formats=("tflite", "onnx"), variants=("float32", "int16x8"))
    return out


def test_the_manifest_has_the_scales_and_the_record_the_long_run(bundle: Path) -> None:
    record = json.loads((bundle / "manifest.json").read_text())
    assert [a["name"] for a in record["artefacts"]] == ["tflite-float32", "onnx-float32", "tflite-int16x8"]
    scales = record["scales"]["tflite-int16x8"]
    assert scales.keys() == {"x", "h", "c", "y", "next_h", "next_c"}
    assert (scales["h"], scales["c"]) == (scales["next_h"], scales["next_c"])
    found = inspect(bundle / "step.int16x8.tflite")
    assert {h.kind for h in found.hazards if not h.caution} == set()
    assert [h.words.partition(":")[0] for h in found.hazards if h.kind == "int8-state"] == [
        "state c is int16",
        "state h is int16",
    ]
    findings = json.loads((bundle / "parity.json").read_text())["findings"]
    ours = {f["case"]: f for f in findings if f["candidate"].startswith("tflite-int16x8")}
    long = ours["noise, long"]["figures"]
    assert long["steps"] == 10_240
    assert 0.0 < long["spread"]["y"] < 0.01
    assert long["growth"] < 1.5
    assert ours["noise, long"]["summary"].partition(",")[0].endswith("of 1.0%"), "it is judged"


def test_the_check_judges_what_is_in_use_and_tells_where_the_rest_leaves_its_range(bundle: Path) -> None:
    keras.utils.set_random_seed(2)
    step = derive(a_model("LSTM", False))
    _, candidates = candidates_of(bundle, step, {}, None)
    ours = [c for c in candidates if c.name == "tflite-int16x8"]
    found = judge_all(step, ours, steps=256, seeds=1)
    assert [str(f) for f in found if not f.passed] == []
    told = {f.case: f.summary for f in found if f.level == "chained"}
    assert "of 1.0%" in told["noise"]
    assert told["10 times the noise"].startswith("input x leaves its ")
    assert "not judged" in told["silence"]
    assert not any("states of twice that" in f.case or "saturated" in f.case for f in found)
    rejected = {f.case for f in found if f.level == "sensitivity"}
    assert {"two states swapped", "state zeroed", "state one step stale"} <= rejected


def test_a_stream_goes_on_as_floats_from_every_variant(bundle: Path) -> None:
    model, exact = load(bundle, variant="int16x8"), load(bundle, variant="float32", engine="onnx")
    assert load(bundle).artefact.variant == "float32", "auto takes the most exact"
    frames = np.random.default_rng(5).normal(0, 1, (40, 4)).astype(np.float32)
    session = model.session()
    first = [session.step(frame) for frame in frames[:20]]
    assert {a.dtype for a in session.state.tensors.values()} == {np.dtype("float32")}
    other = model.session(State.from_bytes(session.state.to_bytes()))
    twin = session.fork()
    np.testing.assert_array_equal(session.run(frames[20:]), other.run(frames[20:]))
    model.session().step(frames[0])  # another stream has the runner in between
    twin_results = np.stack([np.asarray(twin.step(frame)) for frame in frames[20:]])
    np.testing.assert_array_equal(other.state.tensors["c"], twin.state.tensors["c"])
    float32 = exact.session()
    expected = np.stack([np.asarray(float32.step(frame)) for frame in frames])
    np.testing.assert_allclose(np.concatenate([np.stack(first), twin_results]), expected, rtol=0, atol=0.05)
    on = model.session(float32.state)
    np.testing.assert_allclose(on.step(frames[0]), float32.step(frames[0]), rtol=0, atol=0.05)


def test_what_16_bits_cannot_hold_is_refused_by_name(bundle: Path) -> None:
    session = load(bundle, variant="int16x8").session()
    session.step(np.ones(4, np.float32))
    before = session.state
    with pytest.raises(OutOfRange, match=r"input 'x' is beyond the \S+ that its 16 bits hold; export again"):
        session.step(np.full(4, 1e3, np.float32))
    with pytest.raises(OutOfRange, match="input 'x' is beyond"):
        session.step(np.full(4, np.nan, np.float32))
    assert np.array_equal(session.state.tensors["c"], before.tensors["c"]), "the stream is where it was"
    large = {name: np.full_like(a, 99) for name, a in before.tensors.items()}
    with pytest.raises(OutOfRange, match=r"state '[hc]' is beyond the \S+ that"):
        load(bundle, variant="int16x8").session(State(before.model, large)).step(np.ones(4, np.float32))


def counting(growth: float) -> keras.Model:
    """h + x at each step, so many times h."""
    model = sequence(
        layers.SimpleRNN(4, activation="linear", use_bias=False, return_sequences=True), layers.Dense(1)
    )
    model.layers[0].set_weights([np.eye(4, dtype=np.float32), growth * np.eye(4, dtype=np.float32)])
    return model


def test_a_state_that_leaves_the_range_it_was_seen_in_is_told(tmp_path: Path) -> None:
    step, _ = written(counting(1.0), path := tmp_path / "step.tflite", steps=64)
    runner = litert.load(path, step.spec).runner(1)
    with pytest.raises(OutOfRange, match=r"(state 'h'|output 'y') is beyond the \S+ that its 16 bits"):
        chain(runner, {"x": np.ones((10_000, 1, 4), np.float32)})


def test_an_export_whose_states_leave_their_range_is_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "ones.npz", x=np.ones((256, 1, 4), np.float32))
    with pytest.raises(ParityError, match=r"(state 'h'|output 'y') is beyond the \S+ that its 16 bits"):
        export(
            counting(1.01), tmp_path / "b", formats=("tflite",), variants=("int16x8",),
            inputs=tmp_path / "ones.npz",
        )  # fmt: skip
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("layer", "named"),
    [(layers.LayerNormalization(), "MEAN"), (layers.Softmax(), "SOFTMAX"), (layers.ReLU(), "RELU")],
)
def test_another_layer_is_refused_by_its_operator(layer: Any, named: str, tmp_path: Path) -> None:
    model = sequence(layers.GRU(4, return_sequences=True), layer, layers.Dense(2))
    with pytest.raises(ExportError, match=rf"int16x8 has no [A-Z_, ]*\b{named}\b.*: it is for LSTM, GRU"):
        written(model, tmp_path / "step.tflite", steps=32)


def test_a_state_in_two_scales_is_refused(bundle: Path, tmp_path: Path) -> None:
    model = integers._read((bundle / "step.int16x8.tflite").read_bytes())
    tensor = model.subgraphs[0].tensors[integers._places(model)["next_c"]]
    tensor.quantization.scale = [2 * float(tensor.quantization.scale[0])]
    (tmp_path / "step.tflite").write_bytes(integers._packed(model))
    spec = load(bundle).manifest.step
    with pytest.raises(BundleError, match="c comes back in another scale"):
        litert.load(tmp_path / "step.tflite", spec).runner(1)


def test_other_scales_in_the_manifest_are_refused(bundle: Path, tmp_path: Path) -> None:
    """A program in another language binds by them."""
    for scale, words in ((0.5, "0.5"), (None, "nothing")):
        copy = tmp_path / words
        shutil.copytree(bundle, copy)
        record = json.loads((copy / "manifest.json").read_text())
        scales = record["scales"]["tflite-int16x8"]
        if scale is None:
            del record["scales"]
        else:
            scales["h"] = scales["next_h"] = scale
        (copy / "manifest.json").write_text(json.dumps(record))
        with pytest.raises(BundleError, match=rf"one of [hxcy] in .* and the manifest says {words}; export"):
            load(copy, variant="int16x8")
