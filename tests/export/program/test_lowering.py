"""Each operator as a step program says what onnxruntime says, or is refused by its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from steprnn.export.program import encoding, fusing, lowering, source  # noqa: E402
from steprnn.runtime.engines.native.library import Streams, aligned  # noqa: E402
from steprnn.runtime.errors import ExportError  # noqa: E402
from steprnn.runtime.spec import StepSpec  # noqa: E402

from .cases import CASES, REFUSED, TOKENS, graph, step  # noqa: E402


def streams(model: Any, spec: StepSpec, variant: str = "float32", fuse: bool = True) -> Streams:
    low = lowering.lower(source.read(model), spec)
    operations = fusing.fused(low.operations) if fuse else low.operations
    block = encoding.program(low, operations, spec, variant, "for a test", {})
    words = aligned(len(block) // 4)
    words.view(np.uint8)[:] = np.frombuffer(block, np.uint8)
    return Streams(words)


@pytest.mark.parametrize("name", [*CASES, *TOKENS])
def test_an_operator_says_what_onnxruntime_says(name: str) -> None:
    model, spec = step(name)
    opened, generator = streams(model, spec), np.random.default_rng(1)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (x,), (y,) = opened.inputs, opened.outputs
    seen = []
    for _ in range(9):
        given = generator.standard_normal((1, *x.shape)).astype(np.float32)
        if x.tokens:
            given = generator.integers(0, x.tokens, (1, *x.shape)).astype(np.int32)
        (expected,) = session.run(None, {"x": given})
        opened.array(x)[...] = given
        opened.step()
        np.testing.assert_allclose(opened.array(y), expected, rtol=2e-6, atol=2e-6)
        seen.append(expected)
    assert np.ptp(seen) > 0


@pytest.mark.parametrize(("name", "exact"), [("Sin", np.sin), ("Cos", np.cos)])
def test_a_sine_is_right_up_to_30_000_and_nan_beyond(name: str, exact: Any) -> None:
    opened = streams(*graph([(name, ["x"], {})]))
    (x,), (y,) = opened.inputs, opened.outputs
    for size in (1e-20, 1e-3, 1.0, 100.0, 29_999.0):
        given = np.random.default_rng(2).uniform(-size, size, (1, *x.shape)).astype(np.float32)
        given[0, 0, 0, :2] = 0.0, -size
        opened.array(x)[...] = given
        opened.step()
        np.testing.assert_allclose(opened.array(y), exact(given.astype(np.float64)), rtol=0, atol=1e-6)
    opened.array(x)[...] = 30_001.0
    opened.step()
    assert np.isnan(opened.array(y)).all()


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_operation_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(ExportError, match=rf"holds {name}\b.*which a step program has not"):
        streams(*graph(REFUSED[name]))


def recurrent(cell: str, n: int = 23, features: int = 5) -> tuple[Any, StepSpec]:
    """An LSTM or GRU as Keras has it, by onnx.parser's text."""
    from .cells import cell_graph

    return cell_graph(cell, n, features)


@pytest.mark.parametrize(("cell", "kinds"), [("lstm", 4), ("gru", 4)])
def test_fused_operations_give_the_same_bits(cell: str, kinds: int) -> None:
    model, spec = recurrent(cell)
    fused, plain = streams(model, spec), streams(model, spec, fuse=False)
    assert fused.hash(100) == plain.hash(100)
    low = lowering.lower(source.read(model), spec)
    assert len(fusing.fused(low.operations)) == kinds


@pytest.mark.parametrize("variant", ["int8", "int8-weights", "int8-fixed"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_eight_bits_are_near(cell: str, variant: str) -> None:
    model, spec = recurrent(cell, 37, 19)
    exact, near = streams(model, spec), streams(model, spec, variant)
    generator = np.random.default_rng(3)
    for _ in range(50):
        x = generator.standard_normal((1, 19)).astype(np.float32)
        for opened in (exact, near):
            opened.array(opened.inputs[0])[...] = x
            opened.step()
    h = [opened.array(opened.states[0]) for opened in (exact, near)]
    assert 1e-5 < np.abs(h[0] - h[1]).max() < 0.1
