"""The weights of an artefact, one by one: what no run reads is seen too."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
onnx = pytest.importorskip("onnx")
pytest.importorskip("tf2onnx")
pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema  # noqa: E402
from keras import layers  # noqa: E402
from onnx import numpy_helper  # noqa: E402

from steprnn.export.check.audit import Weight, audited, weights_of  # noqa: E402
from steprnn.export.check.constants import Constant, constants_of  # noqa: E402
from steprnn.export.formats import onnx as onnx_writer  # noqa: E402
from steprnn.export.formats import saved_model, tflite  # noqa: E402
from steprnn.export.step.contract import Step  # noqa: E402
from steprnn.export.step.derive import derive  # noqa: E402

from ..models import shaken  # noqa: E402

TOKENS, EMBEDDED, UNITS = 300, 24, 40
Array = Any


@pytest.fixture(scope="module")
def step() -> Step:
    keras.utils.set_random_seed(0)
    x = keras.Input((None,), dtype="int32")
    y = layers.LayerNormalization()(layers.Embedding(TOKENS, EMBEDDED)(x))
    y = layers.BatchNormalization()(layers.LSTM(UNITS, return_sequences=True)(y))
    return derive(shaken(keras.Model(x, layers.Dense(TOKENS)(y))))


VARIANTS = [
    *(("saved_model", "float32"), ("tflite", "float32"), ("tflite", "float16"), ("tflite", "int8")),
    *(("onnx", v) for v in ("float32", "float16", "int8", "int8-weights")),
]
WRITERS: dict[str, Any] = {"saved_model": saved_model, "tflite": tflite, "onnx": onnx_writer}
SUFFIX = {"saved_model": "", "tflite": ".tflite", "onnx": ".onnx"}


@pytest.fixture(scope="module")
def written(step: Step, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    folder, paths = tmp_path_factory.mktemp("written"), {}
    for format, variant in VARIANTS:
        paths[format, variant] = folder / f"{variant}{SUFFIX[format]}"
        WRITERS[format].write(step, paths[format, variant], variant)
    return paths


def verdicts(step: Step, path: Path) -> dict[str, str]:
    return {m.weight: m.verdict for m in audited(weights_of(step), constants_of(path))}


def wrong(step: Step, path: Path) -> list[str]:
    found = audited(weights_of(step), constants_of(path))
    return [f"{m.weight} {m.verdict} {m.words}" for m in found if m.is_wrong]


def changed_onnx(path: Path, out: Path, shape: tuple[int, ...], change: Callable[[Array], Array]) -> Path:
    """The graph with one initializer of this shape changed."""
    model = onnx.load(path)
    (tensor,) = [t for t in model.graph.initializer if tuple(t.dims) == shape]
    array = change(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, out)
    return out


def changed_tflite(path: Path, out: Path, shape: tuple[int, ...], change: Callable[[Array], Array]) -> Path:
    import flatbuffers

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    (tensor,) = [t for t in model.subgraphs[0].tensors if t.shape is not None and tuple(t.shape) == shape]
    kind = {schema.TensorType.FLOAT32: "<f4", schema.TensorType.INT8: "<i1"}[tensor.type]
    buffer = model.buffers[tensor.buffer]
    array = np.frombuffer(bytes(buffer.data), kind).reshape(shape).copy()
    buffer.data = np.frombuffer(change(array).tobytes(), np.uint8)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    out.write_bytes(bytes(builder.Output()))
    return out


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_what_export_writes_holds_every_weight(
    step: Step, written: dict[tuple[str, str], Path], variant: tuple[str, str]
) -> None:
    found = verdicts(step, written[variant])
    assert len(found) >= 7
    assert set(found.values()) <= {"matched", "folded"}


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_another_model_of_the_same_shapes_is_not_this_one(
    step: Step, written: dict[tuple[str, str], Path], variant: tuple[str, str]
) -> None:
    keras.utils.set_random_seed(1)
    x = keras.Input((None,), dtype="int32")
    y = layers.LayerNormalization()(layers.Embedding(TOKENS, EMBEDDED)(x))
    y = layers.BatchNormalization()(layers.LSTM(UNITS, return_sequences=True)(y))
    other = derive(shaken(keras.Model(x, layers.Dense(TOKENS)(y)), seed=1))
    assert len(wrong(other, written[variant])) >= 4


def rows_reversed(array: Array) -> Array:
    array[100:200] = array[100:200][::-1].copy()
    return array


def one_element(array: Array) -> Array:
    array[250, 3] += 1e-3
    return array


def a_little(array: Array) -> Array:
    return array + np.float32(1e-4)


def gates_exchanged(array: Array) -> Array:
    return np.roll(array, UNITS, axis=1)


def column_lost(array: Array) -> Array:
    array[:, 5] = 0
    return array


TABLE, RECURRENT, BIAS = (TOKENS, EMBEDDED), (UNITS, 4 * UNITS), (4 * UNITS,)


@pytest.mark.parametrize(
    ("shape", "change", "words"),
    [
        (TABLE, rows_reversed, r"embedding.* \[300, 24\] permuted .* has its elements in another order"),
        (TABLE, one_element, r"\[300, 24\] changed .* in 1 of 7,200 elements, the first at \[250, 3\]: got "),
        (BIAS, a_little, r"\[160\] changed .* in 160 of 160 elements, the first at \[0\]: got "),
        (RECURRENT, gates_exchanged, r"\[40, 160\] permuted "),
        (RECURRENT, column_lost, r"\[40, 160\] changed .* in 40 of 6,400 elements, the first at \[0, 5\]"),
    ],
)
def test_a_float32_weight_is_the_same_to_the_bit(
    step: Step,
    written: dict[tuple[str, str], Path],
    tmp_path: Path,
    shape: tuple[int, ...],
    change: Callable[[Array], Array],
    words: str,
) -> None:
    path = changed_onnx(written["onnx", "float32"], tmp_path / "wrong.onnx", shape, change)
    (told,) = wrong(step, path)
    assert re.search(words, told), told
    laid = (4 * UNITS, UNITS) if shape == RECURRENT else shape  # as TFLite has it
    turned = (lambda a: change(a.T).T) if shape == RECURRENT else change
    path = changed_tflite(written["tflite", "float32"], tmp_path / "wrong.tflite", laid, turned)
    assert len(wrong(step, path)) == 1


def six_bits(array: Array) -> Array:
    return (np.round(array.astype(np.int16) / 4) * 4).clip(-128, 127).astype(array.dtype)


def off_by_one(array: Array) -> Array:
    array[3, 3] += 1 if array[3, 3] < 100 else -1
    return array


@pytest.mark.parametrize("change", [rows_reversed, six_bits, off_by_one, column_lost])
def test_a_weight_of_eight_bits_is_the_nearest(
    step: Step, written: dict[tuple[str, str], Path], tmp_path: Path, change: Callable[[Array], Array]
) -> None:
    out = tmp_path / "wrong.tflite"
    path = changed_tflite(written["tflite", "int8"], out, TABLE, change)
    (told,) = wrong(step, path)
    assert "[300, 24] " in told
    for variant in ("int8", "int8-weights"):
        out = tmp_path / f"{variant}.onnx"
        (told,) = wrong(step, changed_onnx(written["onnx", variant], out, TABLE, change))
        assert "[300, 24] " in told


def test_a_scale_that_is_coarser_than_needed(
    step: Step, written: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    """Seven bits, with a scale to fit: each element is as near as it says."""
    model = onnx.load(written["onnx", "int8-weights"])
    (stored,) = [t for t in model.graph.initializer if tuple(t.dims) == TABLE]
    (scale,) = [t for t in model.graph.initializer if tuple(t.dims) == (TOKENS, 1)]
    units = numpy_helper.to_array(scale)
    table = next(w.values for w in weights_of(step) if w.values.shape == TABLE)
    halved = np.rint(table / (units * 2)).astype(np.int8)
    stored.CopyFrom(numpy_helper.from_array(halved, stored.name))
    scale.CopyFrom(numpy_helper.from_array(units * 2, scale.name))
    onnx.save(model, tmp_path / "coarse.onnx")
    (told,) = wrong(step, tmp_path / "coarse.onnx")
    assert "has a step of" in told


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_what_is_held_of_a_folded_weight_is_what_would_give_it(bits: int) -> None:
    """A normalisation that went into the matrix before it, rounded behind that."""
    draw = np.random.default_rng(0)
    matrix, bias = draw.normal(size=(6, 5)).astype("f4"), draw.normal(size=5).astype("f4")
    scale, shift = draw.uniform(0.5, 2, 5).astype("f4"), draw.normal(size=5).astype("f4")
    weights = [Weight(n, v, node=n) for n, v in zip("wbst", (matrix, bias, scale, shift), strict=True)]
    product = (matrix * scale).T  # as TFLite has it
    step = np.full_like(product, np.abs(product).max() / 127)
    stored = {8: np.rint(product / step) * step, 16: product.astype("f2").astype("f4"), 32: product}[bits]
    constants = [
        Constant("product", stored.astype("f4"), step if bits == 8 else None, bits=max(bits, 16)),
        Constant("sum", bias * scale + shift),
        *(Constant(n, v) for n, v in (("s", scale), ("t", shift))),
    ]
    found = {m.weight: m for m in audited(weights, constants)}
    assert [found[n].verdict for n in "wbst"] == ["folded", "folded", "matched", "matched"]
    (held,) = found["w"].held
    np.testing.assert_allclose(held.values * scale, stored.T, rtol=1e-6)
    assert held.is_int8 == (bits == 8)
    (held,) = found["b"].held
    np.testing.assert_allclose(held.values, bias, rtol=1e-5)


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_what_is_lost_or_negated_is_not_folded(
    step: Step, written: dict[tuple[str, str], Path], tmp_path: Path, factor: float
) -> None:
    """Though the graph of a step holds such numbers, which a converter may have multiplied by others."""
    weights = [*weights_of(step), Weight("number", np.float32(factor))]
    path = changed_onnx(written["onnx", "float32"], tmp_path / "wrong.onnx", BIAS, lambda a: a * factor)
    found = {m.weight: m.verdict for m in audited(weights, constants_of(path))}
    assert [v for w, v in found.items() if w.endswith("[160]")] == ["not found"]
    path = changed_onnx(written["onnx", "float32"], tmp_path / "wrong.onnx", TABLE, lambda a: a * factor)
    found = {m.weight: m.verdict for m in audited(weights, constants_of(path))}
    assert [v for w, v in found.items() if w.endswith("[300, 24]")] == ["missing"]


def test_blocks_of_eight_bits_are_multiplied_out_as_the_engine_does(tmp_path: Path) -> None:
    """A product with a unit matrix gives the weights back."""
    from onnxruntime import InferenceSession

    keras.utils.set_random_seed(0)
    x = keras.Input((None, 64))
    model = shaken(
        keras.Model(x, layers.Dense(48, use_bias=False)(layers.LSTM(64, return_sequences=True)(x)))
    )
    onnx_writer.write(derive(model), tmp_path / "a.onnx", "int8")
    graph = onnx.load(tmp_path / "a.onnx")
    node = next(n for n in graph.graph.node if n.op_type == "MatMulNBits" and n.output[0] == "y")
    for n in graph.graph.node:
        if n is node:
            n.input[0] = "rows"
    rows = onnx.helper.make_tensor_value_info("rows", onnx.TensorProto.FLOAT, [64, 64])
    graph.graph.input.append(rows)
    graph.graph.output.append(onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [64, 48]))
    node.output[0] = "out"
    del graph.graph.output[0]
    onnx.save(graph, tmp_path / "b.onnx")
    session = InferenceSession(str(tmp_path / "b.onnx"))
    feeds = {
        i.name: np.zeros([n if isinstance(n, int) else 1 for n in i.shape], np.float32)
        for i in session.get_inputs()
    }
    (expected,) = session.run(["out"], feeds | {"rows": np.eye(64, dtype=np.float32)})
    constants = {c.name: c for c in constants_of(tmp_path / "b.onnx")}
    np.testing.assert_allclose(constants[node.input[1]].values, expected, rtol=0, atol=1e-2)
