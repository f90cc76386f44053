"""The graphs: nothing but listed operators, the same names everywhere, the same numbers in the reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tf2onnx")

import keras
import onnx
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers, ops
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from tensorflow.lite.tools import flatbuffer_utils

import steprnn.export.formats.onnx as onnx_format
from steprnn.export import Step, StepSpec, TensorSpec, export
from steprnn.export.formats import operators, saved_model, tflite
from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.errors import ExportError

from ..models import (
    CASES,
    chained,
    derive,
    drawn,
    first_state,
    onnx_stepper,
    saved_model_stepper,
    shaken,
    tflite_stepper,
)

# A convolution drops the mask of its input, and Keras says so each time.
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")

MODELS = (
    "embedding_that_masks",
    "rnn_of_cells",
    "causal_convolutions",
    "merges_residuals_and_skips",
    "time_distributed",
    "begins_from_constants",
)
LOOPS = ("While", "Loop", "Scan", "If", "Switch", "TensorList", "VarHandle", "ReadVariable", "Assign", "Flex")


@pytest.fixture(scope="module", params=MODELS)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Step, Path]:
    """A model's step, and a folder of every format and variant."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    model = shaken(next(c for c in CASES if c.name == request.param).build())
    step, folder = derive(model), tmp_path_factory.mktemp("graphs")
    saved_model.write(step, folder / "saved_model", "float32")
    for variant, infix in (("float32", ""), ("int8", ".int8")):
        tflite.write(step, folder / f"step{infix}.tflite", variant)
        onnx_format.write(step, folder / f"step{infix}.onnx", variant)
    onnx_format.write(step, folder / "step.int8-weights.onnx", "int8-weights")
    return step, folder


def flatbuffer(path: Path) -> Any:
    return flatbuffer_utils.read_model(str(path))


def nodes(graph: Any) -> list[Any]:
    return [*graph.node, *(n for f in graph.library.function for n in f.node_def)]


def test_the_saved_model_holds_listed_operators_alone(bundle: tuple[Step, Path]) -> None:
    step = tf.saved_model.load(str(bundle[1] / "saved_model")).signatures["step"]
    found = {n.op for n in nodes(step.graph.as_graph_def())}
    assert found <= operators.TENSORFLOW
    assert not [op for op in found if op.startswith(LOOPS)]
    assert step.variables == ()


@pytest.mark.parametrize("name", ["step.tflite", "step.int8.tflite"])
def test_tflite_holds_one_graph_of_listed_operators(bundle: tuple[Step, Path], name: str) -> None:
    model = flatbuffer(bundle[1] / name)
    assert len(model.subgraphs) == 1
    assert not [code.customCode for code in model.operatorCodes if code.customCode]
    interpreter = Interpreter(model_path=str(bundle[1] / name))
    found = {o["op_name"] for o in interpreter._get_ops_details()} - {"DELEGATE"}
    assert found <= operators.TFLITE
    assert not found & {"WHILE", "IF", "CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"}


@pytest.mark.parametrize("name", ["step.onnx", "step.int8.onnx", "step.int8-weights.onnx"])
def test_onnx_holds_listed_operators_and_inferred_shapes(bundle: tuple[Step, Path], name: str) -> None:
    model = onnx.load(bundle[1] / name)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    assert len(inferred.graph.output) == len(bundle[0].spec.result_names)
    operators.check_onnx(model)
    assert not model.functions
    assert not [a for n in model.graph.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH]
    assert {n.domain for n in model.graph.node} <= {"", *(["com.microsoft"] if ".int8." in name else [])}


def test_all_tell_the_same_names(bundle: tuple[Step, Path]) -> None:
    """ONNX's metadata and its own inputs, and both signatures."""
    step, folder = bundle
    record = step.spec.to_record()
    taken = {t["name"] for part in ("inputs", "states") for t in record[part]}
    given = {t["name"] for t in record["outputs"]} | {t["next"] for t in record["states"]}
    for name in ("step.onnx", "step.int8.onnx"):
        model = onnx.load(folder / name)
        properties = {p.key: p.value for p in model.metadata_props}
        assert json.loads(properties["steprnn.step"]) == record
        assert {i.name for i in model.graph.input} == taken
        assert [o.name for o in model.graph.output] == list(step.spec.result_names)
    for name in ("step.tflite", "step.int8.tflite"):
        signatures = Interpreter(model_path=str(folder / name)).get_signature_list()
        assert {k: {p: set(n) for p, n in v.items()} for k, v in signatures.items()} == {
            "step": {"inputs": taken, "outputs": given}
        }
    loaded = tf.saved_model.load(str(folder / "saved_model"))
    assert set(loaded.signatures) == {"step"}
    signature = loaded.signatures["step"]
    assert set(signature.structured_input_signature[1]) == taken
    assert set(signature.structured_outputs) == given


def test_the_manifest_tells_them_too(tmp_path: Path) -> None:
    keras.utils.clear_session(free_memory=False)
    model = shaken(next(c for c in CASES if c.name == "returned_states").build())
    export(model, tmp_path / "b", formats=("onnx",), variants=("float32",))
    assert Manifest.read(tmp_path / "b").step == derive(model).spec


def test_int8_weights_are_float32_arithmetic_on_rounded_weights(
    bundle: tuple[Step, Path], tmp_path: Path
) -> None:
    """Bit for bit, over 50 chained steps, what the float32 graph says of the weights rounded by hand."""
    step, folder = bundle
    model = onnx.load(folder / "step.onnx")
    axes = {n.input[0]: 1 for n in model.graph.node if n.op_type == "Gather"}
    axes |= {n.input[1]: 0 for n in model.graph.node if n.op_type == "MatMul"}
    for weights in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weights)
        if weights.name in axes and values.ndim == 2 and values.dtype == np.float32:
            unit = np.abs(values).max(axes[weights.name], keepdims=True) / np.float32(127)
            rounded = np.rint(values / unit).astype(np.int8) * unit
            assert not np.array_equal(rounded, values)
            weights.CopyFrom(onnx.numpy_helper.from_array(rounded, weights.name))
    onnx.save(model, tmp_path / "rounded.onnx")
    inputs, state = drawn(step, 50, 3), first_state(step, 3)
    expected = chained(step, onnx_stepper(tmp_path / "rounded.onnx"), inputs, state)
    for name, array in chained(step, onnx_stepper(folder / "step.int8-weights.onnx"), inputs, state).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_states_stay_in_float32_in_int8(bundle: tuple[Step, Path]) -> None:
    step, folder = bundle
    states = {n for t in step.spec.states for n in (t.name, f"next_{t.name}")}
    graph = onnx.load(folder / "step.int8.onnx").graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    assert {kinds[n] for n in states} == {TensorProto.FLOAT}
    runner = Interpreter(model_path=str(folder / "step.int8.tflite")).get_signature_runner("step")
    details = runner.get_input_details() | runner.get_output_details()
    assert {np.dtype(details[n]["dtype"]) for n in states} == {np.dtype(np.float32)}
    assert all(not details[n]["quantization"][0] for n in states)


def test_the_reference_evaluator_says_what_onnxruntime_says(bundle: tuple[Step, Path]) -> None:
    """50 chained steps in the operators as the standard defines them."""
    step, folder = bundle
    evaluator = ReferenceEvaluator(str(folder / "step.onnx"))
    inputs, state = drawn(step, 50, 3), first_state(step, 3)

    def reference(arrays: Any) -> Any:
        return dict(zip(evaluator.output_names, evaluator.run(None, arrays), strict=True))

    expected = chained(step, reference, inputs, state)
    for name, array in chained(step, onnx_stepper(folder / "step.onnx"), inputs, state).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("variant", ["", ".int8"])
def test_rows_of_a_batch_do_not_touch_each_other(bundle: tuple[Step, Path], variant: str) -> None:
    """At its signature, TFLite says for three rows what it says for each of them alone."""
    step, folder = bundle
    inputs, state = drawn(step, 20, 3), first_state(step, 3)
    path = folder / f"step{variant}.tflite"
    together = chained(step, tflite_stepper(path, 3), inputs, state)
    alone = tflite_stepper(path, 1)
    for row in range(3):
        cut = {n: a[:, row : row + 1] for n, a in inputs.items()}
        own = chained(step, alone, cut, first_state(step, 1))
        for name, array in own.items():
            np.testing.assert_allclose(together[name][:, row], array[:, 0], rtol=0, atol=2e-6, err_msg=name)


def test_a_saved_model_takes_any_batch(bundle: tuple[Step, Path]) -> None:
    step, folder = bundle
    stepper = saved_model_stepper(folder / "saved_model")
    for rows in (1, 3, 8):
        results = chained(step, stepper, drawn(step, 2, rows), first_state(step, rows))
        assert {a.shape[:2] for a in results.values()} == {(2, rows)}


# What the lists keep out.

SPEC = StepSpec(
    (TensorSpec("x", "float32", (4,)),),
    (TensorSpec("h", "float32", (4,)),),
    (TensorSpec("y", "float32", (4,)),),
)


def of(function: Callable[[Any], Any]) -> Step:
    def call(t: Any) -> Any:
        h = function(t["x"] + t["h"])
        return {"y": h * 2, "next_h": h}

    return Step(SPEC, call)


def halved(h: Any) -> Any:
    """Until every element is under 1."""
    return tf.while_loop(lambda h: tf.reduce_any(tf.abs(h) > 1), lambda h: [h / 2], [h])[0]


COUNTER = tf.Variable(tf.zeros([]), name="counter")


def counted(h: Any) -> Any:
    """A state that the graph keeps to itself."""
    return h + COUNTER.assign_add(1.0)


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (halved, "(LoopCond|While)"),
        (lambda h: tf.cond(tf.reduce_sum(h) > 0, lambda: h, lambda: -h), "(Switch|If)"),
        (lambda h: h + tf.random.normal([4]), "RandomStandardNormal"),
        (lambda h: tf.linalg.inv(h[:, None] * h[..., None] + tf.eye(4))[:, 0], "MatrixInverse"),
        (lambda h: tf.py_function(lambda a: a, [h], tf.float32), "EagerPyFunc"),
    ],
    ids=["loop", "branch", "random", "not builtin", "python"],
)
def test_a_graph_that_breaks_the_contract_is_refused(function: Any, found: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=rf"the TensorFlow graph of the step holds .*{found}.*, and a step"):
        saved_model.write(of(function), tmp_path / "saved_model")
    assert not list(tmp_path.iterdir())


def test_a_hidden_variable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"AssignAddVariableOp|resource"):
        saved_model.write(of(counted), tmp_path / "saved_model")
    assert not list(tmp_path.iterdir())


def test_tflite_of_a_loop_or_a_custom_operator_is_refused() -> None:
    x = tf.TensorSpec([4, 4], tf.float32)
    for options, function, found in (
        ([tf.lite.OpsSet.TFLITE_BUILTINS], halved, "WHILE"),
        ([tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS], tf.linalg.inv, "CUSTOM"),
    ):
        concrete = tf.function(function).get_concrete_function(x)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
        converter.target_spec.supported_ops = options
        with pytest.raises(ExportError, match=f"the TFLite graph of the step holds {found}, and a step may"):
            operators.check_tflite(converter.convert())


def test_what_the_tflite_converter_refuses_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as raised:
        tflite.write(of(lambda h: tf.math.erfc(h)), tmp_path / "step.tflite")
    assert str(raised.value).startswith("the TFLite converter refuses the step: ")
    assert "Erfc" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "domain", "words"), [("If", "", "holds If"), ("Gate", "their.own", "holds their.own.Gate")]
)
def test_onnx_of_a_branch_or_a_custom_operator_is_refused(kind: str, domain: str, words: str) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node(kind, ["x"], ["y"], domain=domain)], "g", [value], [])
    with pytest.raises(ExportError, match=f"the ONNX graph of the step {words}, and a step may hold no loop"):
        operators.check_onnx(helper.make_model(graph))


def test_an_operation_that_no_format_has_is_named(tmp_path: Path) -> None:
    x = keras.Input((None, 4))
    y = layers.GRU(4, return_sequences=True)(x)
    model = keras.Model(x, ops.fft((y, y))[0])
    with pytest.raises(ExportError, match="FFT"):
        export(model, tmp_path / "b")
    assert not list(tmp_path.iterdir())
