"""The float32 TFLite step in TensorFlow Lite Micro, which binds by position and knows no names."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    micro = pytest.importorskip(
        "tflite_micro", reason="pip install tflite-micro (Linux, some Pythons)"
    ).runtime

from steprnn.export.bundle import export  # noqa: E402
from steprnn.export.check.reference import input_run  # noqa: E402
from steprnn.export.check.runs import visited  # noqa: E402
from steprnn.export.formats import tflite  # noqa: E402
from steprnn.export.inspect import inspect  # noqa: E402
from steprnn.export.step.derive import derive  # noqa: E402
from steprnn.runtime import load  # noqa: E402
from steprnn.runtime.bundle.manifest import Manifest  # noqa: E402
from steprnn.runtime.engines import litert  # noqa: E402
from steprnn.runtime.parity.reference import chain  # noqa: E402

STEPS, UNITS, FEATURES = 1024, 12, 3
CELLS = {
    "LSTM": "c, x, h -> y, next_h, next_c",
    "GRU": "x, h -> y, next_h",
    "SimpleRNN": "x, h -> y, next_h",
}


def bundle(cell: str, out: Path) -> Path:
    keras.utils.set_random_seed(4)
    layer = getattr(keras.layers, cell)(UNITS, return_sequences=True)
    model = keras.Sequential([keras.Input((None, FEATURES)), layer, keras.layers.Dense(2)])
    export(model, out, formats=("tflite",), variants=("float32",), chained_steps=64)
    return out


def chained(graph: Path, inputs: list[str], outputs: list[str], frames: Any) -> Any:
    """Steps whose tensors are bound by position, in this order."""
    interpreter = micro.Interpreter.from_bytes(graph.read_bytes())
    states = {name: np.zeros((1, UNITS), np.float32) for name in inputs if name != "x"}
    results = []
    for frame in frames:
        for i, name in enumerate(inputs):
            interpreter.set_input(states[name] if name != "x" else frame[None], i)
        interpreter.invoke()
        got = {name: interpreter.get_output(i) for i, name in enumerate(outputs)}
        states = {name: got[f"next_{name}"] for name in states}
        results.append(got["y"])
    return np.concatenate(results)


@pytest.mark.parametrize("cell", CELLS)
def test_each_cell_by_the_order_of_the_manifest(cell: str, tmp_path: Path) -> None:
    out = bundle(cell, tmp_path / "b")
    notes = inspect(out / "step.tflite").notes
    (order,) = (n.removeprefix("by position: ") for n in notes if n.startswith("by position: "))
    assert order == CELLS[cell]
    positions = Manifest.read(out).positions["tflite-float32"]
    assert " -> ".join(", ".join(positions[side]) for side in ("inputs", "outputs")) == order
    frames = np.random.default_rng(0).normal(0, 1, (STEPS, FEATURES)).astype(np.float32)
    session = load(out, engine="litert").session()
    expected = np.concatenate([np.reshape(session.step(frame), (1, 2)) for frame in frames])
    np.testing.assert_allclose(
        chained(out / "step.tflite", **positions, frames=frames), expected, rtol=0, atol=2e-6
    )
    if cell == "LSTM":  # another order raises no error: only the numbers tell
        mistaken = ["y", "next_c", "next_h"]
        swapped = chained(out / "step.tflite", positions["inputs"], mistaken, frames)
        assert np.abs(swapped - expected).max() > 0.01


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_each_cell_in_integers(cell: str, embedded: bool, tmp_path: Path, capfd: Any) -> None:
    """int16 in and out, each state fed back as the integer that it is."""
    keras.utils.set_random_seed(4)
    read = keras.Input((None,), dtype="int32") if embedded else keras.Input((None, FEATURES))
    first = [keras.layers.Embedding(11, 6)] if embedded else []
    layer = getattr(keras.layers, cell)(UNITS, return_sequences=True)
    step = derive(keras.Sequential([read, *first, layer, keras.layers.Dense(2)]))
    inputs = input_run(step, STEPS, 1)
    tflite.write(step, tmp_path / "step.tflite", "int16x8", visited(step, inputs))
    expected = chain(litert.load(tmp_path / "step.tflite", step.spec).runner(1), inputs)
    found = inspect(tmp_path / "step.tflite")
    scales = {t.name: t.scale[0] for t in (*found.inputs, *found.outputs) if t.scale}
    interpreter = micro.Interpreter.from_bytes((tmp_path / "step.tflite").read_bytes())
    held = {t.name: np.zeros((1, UNITS), np.int16) for t in step.spec.states}
    results = []
    for x in inputs["x"]:
        given = held | {"x": x if embedded else np.rint(x / np.float32(scales["x"])).astype(np.int16)}
        for i, t in enumerate(found.inputs):
            interpreter.set_input(given[t.name], i)
        interpreter.invoke()
        got = {t.name: interpreter.get_output(i) for i, t in enumerate(found.outputs)}
        held = {name: got[f"next_{name}"] for name in held}
        results.append(got["y"] * scales["y"])
    assert {a.dtype for a in (*held.values(), *got.values())} == {np.dtype("int16")}
    error = np.abs(np.stack(results) - expected["y"])
    assert error.mean() < 2e-3 * expected["y"].std()
    assert error[-256:].mean() < 2 * error[:256].mean() + scales["y"]
    told = next(note for note in found.notes if note.startswith("arena of TensorFlow Lite Micro: about"))
    whole, tensors = (int(n.replace(",", "")) for n in re.findall(r"([\d,]+)(?= bytes| of tensors)", told))
    capfd.readouterr()
    interpreter.print_allocations()
    log = "".join(capfd.readouterr())
    real, head = (int(re.search(rf"{word} (\d+) bytes", log)[1]) for word in ("total", "head"))
    assert head - 16 <= tensors <= head
    assert real <= whole <= 1.17 * real
