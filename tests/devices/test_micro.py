"""The float32 TFLite step in TensorFlow Lite Micro, which binds by position and knows no names."""

from __future__ import annotations

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
from steprnn.export.inspect import inspect  # noqa: E402
from steprnn.runtime import load  # noqa: E402
from steprnn.runtime.bundle.manifest import Manifest  # noqa: E402

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
