"""`steprnn inspect` on real files of every kind: what it says, in words and in values."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
import tf2onnx
from keras import layers
from onnx import TensorProto, helper, numpy_helper

from steprnn.export.formats import saved_model
from steprnn.export.inspect import Hazard, Inspection, inspect
from steprnn.export.step.derive import derive
from steprnn.runtime import BundleError, CheckpointError, UsageError, load
from steprnn.runtime.origin import install
from steprnn.runtime.pairing import Declared

Run = Callable[..., "subprocess.CompletedProcess[str]"]
FLOAT = TensorProto.FLOAT


def words(found: Inspection, caution: bool = False) -> dict[str, list[str]]:
    """Hazards in words, by kind."""
    kinds: dict[str, list[str]] = {}
    for hazard in found.hazards:
        if hazard.caution == caution:
            kinds.setdefault(hazard.kind, []).append(hazard.words)
    return kinds


def pairs(found: Inspection) -> list[tuple[str, str, str]]:
    return [(p.state, p.next, p.evidence) for p in found.pairs]


def made(
    path: Path,
    nodes: list[Any],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    weights: dict[str, Any] | None = None,
    kind: int = FLOAT,
) -> Inspection:
    """Write an ONNX file by hand and inspect it; every input and output of one dtype."""
    ins, outs = (
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in part.items()]
        for part in (inputs, outputs)
    )
    constants = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "graph", ins, outs, constants)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("their.own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="hand"), path)
    return inspect(path)


def passed_on(**names: str) -> list[Any]:
    """Nodes that copy each input to an output."""
    return [helper.make_node("Identity", [a], [b]) for a, b in names.items()]


# ONNX


def test_an_onnx_step_by_hand(tmp_path: Path) -> None:
    """Bytes by arithmetic: a table of 10 rows of 6 is read one row a step, the matrix whole."""
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["row"]),
        helper.make_node("MatMul", ["h", "recurrent"], ["product"]),
        helper.make_node("Add", ["row", "product"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["next_h"]),
        helper.make_node("Identity", ["next_h"], ["y"]),
    ]
    weights = {
        "table": np.zeros((10, 6), np.float32),
        "recurrent": np.zeros((6, 6), np.float32),
        "unused": np.zeros(3, np.float16),
        "axes": np.zeros(3, np.int64),
    }
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.INT64, ["batch"]),
        helper.make_tensor_value_info("h", FLOAT, ["batch", 6]),
    ]
    outputs = [helper.make_tensor_value_info(n, FLOAT, ["batch", 6]) for n in ("y", "next_h")]
    constants = [numpy_helper.from_array(a, n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], producer_name="hand")
    onnx.save(model, tmp_path / "step.onnx")
    found = inspect(tmp_path / "step.onnx")
    assert (found.format, found.maker) == ("ONNX", "opset 18, made by hand")
    assert found.inputs == (Declared("x", "int64", ("batch",)), Declared("h", "float32", ("batch", 6)))
    assert [t.name for t in found.outputs] == ["y", "next_h"]
    assert pairs(found) == [("h", "next_h", "rule * -> next_*")]
    assert found.operators == {"Gather": 1, "MatMul": 1, "Add": 1, "Tanh": 1, "Identity": 1}
    assert found.weights is not None
    assert found.weights.bytes == {"float32": 4 * (60 + 36), "float16": 6}
    assert found.weights.per_step == 4 * (6 + 36)
    assert found.hazards == ()


def test_a_table_that_is_also_multiplied_is_read_whole(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["h", "table"], ["next_h"]),
        helper.make_node("Identity", ["table"], ["same"]),
        helper.make_node("Gather", ["same", "zero"], ["y"]),
    ]
    weights = {"table": np.zeros((6, 6), np.float32), "zero": np.array([0])}
    found = made(tmp_path / "g.onnx", nodes, {"h": [1, 6]}, {"next_h": [1, 6], "y": [1, 6]}, weights)
    assert found.weights is not None
    assert found.weights.per_step == 4 * 36


def test_silero_like_names_with_a_constant(tmp_path: Path) -> None:
    ins = [
        helper.make_tensor_value_info("input", FLOAT, [None, 512]),
        helper.make_tensor_value_info("state", FLOAT, [2, None, 128]),
        helper.make_tensor_value_info("sr", TensorProto.INT64, []),
    ]
    outs = [
        helper.make_tensor_value_info("output", FLOAT, [None, 512]),
        helper.make_tensor_value_info("stateN", FLOAT, [None, None, None]),
    ]
    graph = helper.make_graph(passed_on(input="output", state="stateN"), "graph", ins, outs)
    onnx.save(helper.make_model(graph), tmp_path / "vad.onnx")
    found = inspect(tmp_path / "vad.onnx")
    assert pairs(found) == [("state", "stateN", "rule * -> *n")]
    assert found.hazards == ()
    table = found.table().splitlines()
    assert table[1:4] == [
        "inputs     input   float32  [?, 512]",
        "           sr      int64    []",
        "states     state   float32  [2, ?, 128]  -> stateN  rule * -> *n",
    ]


@pytest.mark.parametrize("op_type", ["Loop", "If", "Scan"])
def test_loops_and_branches_are_hazards_and_what_is_in_them_counts(tmp_path: Path, op_type: str) -> None:
    bools, info = TensorProto.BOOL, helper.make_tensor_value_info
    inside = helper.make_node("Tanh", ["h"] if op_type == "If" else ["state"], ["after"])
    result = info("after", FLOAT, [1, 4])
    if op_type == "Loop":
        body = helper.make_graph(
            [inside, helper.make_node("Identity", ["go"], ["on"])],
            "body",
            [info("i", TensorProto.INT64, []), info("go", bools, []), info("state", FLOAT, [1, 4])],
            [info("on", bools, []), result],
        )
        node = helper.make_node("Loop", ["", "true", "h"], ["next_h"], body=body)
    elif op_type == "If":
        branches = {k: helper.make_graph([inside], k, [], [result]) for k in ("then_branch", "else_branch")}
        node = helper.make_node("If", ["true"], ["next_h"], **branches)
    else:
        state = [info("state", FLOAT, [1, 4])]
        body = helper.make_graph([inside], "body", state, [result])
        node = helper.make_node("Scan", ["h"], ["next_h"], body=body, num_scan_inputs=0)
    found = made(tmp_path / "g.onnx", [node], {"h": [1, 4]}, {"next_h": [1, 4]}, {"true": np.array(True)})
    if op_type == "If":  # both sides are a step, as silero-vad has one for each sample rate
        branch = "1 If: of both sides, one runs; the weights of both are in the file"
        assert (words(found), words(found, caution=True)) == ({}, {"branch": [branch]})
    else:
        assert words(found) == {"loop": [f"1 {op_type}: it runs over a sequence, and is no step"]}
    assert found.operators["Tanh"] == (2 if op_type == "If" else 1)


def test_a_state_that_grows_is_a_hazard_as_load_refuses_it(tmp_path: Path) -> None:
    """A cache of all that was read: each step gives it back one longer."""
    node = helper.make_node("Concat", ["past", "x"], ["present"], axis=1)
    ins = [helper.make_tensor_value_info("x", FLOAT, [1, 1, 4])]
    ins.append(helper.make_tensor_value_info("past", FLOAT, [1, "read", 4]))
    outs = [helper.make_tensor_value_info("present", FLOAT, [1, "total", 4])]
    path = tmp_path / "g.onnx"
    model = helper.make_model(
        helper.make_graph([node], "g", ins, outs), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    onnx.save(model, path)
    assert words(inspect(path))["growing-state"] == [
        "state past [1, read, 4] comes back as present [1, total, 4]: it grows, and a state of a step has "
        "one shape"
    ]
    with pytest.raises(UsageError, match="it cannot come back as that"):
        load(path, states={"past": "present"})


def test_a_dtype_that_numpy_does_not_have_is_a_hazard_in_the_words_of_load(tmp_path: Path) -> None:
    kind = TensorProto.BFLOAT16
    ins, outs = ([helper.make_tensor_value_info(n, kind, [1, 4])] for n in ("h", "next_h"))
    graph = helper.make_graph([helper.make_node("Identity", ["h"], ["next_h"])], "g", ins, outs)
    path = tmp_path / "g.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    assert words(inspect(path))["dtype"][0] == "'h' is bfloat16, which is no array of numbers"
    with pytest.raises(UsageError, match=r"^'h' is bfloat16, which is no array of numbers$"):
        load(path, states={"h": "next_h"})


def test_custom_and_contrib_operators(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Swing", ["h"], ["middle"], domain="their.own"),
        helper.make_node("Gelu", ["middle"], ["next_h"], domain="com.microsoft"),
    ]
    found = made(tmp_path / "g.onnx", nodes, {"h": [1, 4]}, {"next_h": [1, 4]})
    assert words(found) == {"custom": ["1 their.own.Swing: runs only where somebody has registered them"]}
    assert words(found, caution=True) == {
        "contrib": ["Gelu of com.microsoft: onnxruntime has them, other engines may not"]
    }


def test_a_function_of_the_file_itself_is_not_custom(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("their.own", 1)]
    body = helper.make_function(
        "their.own", "Swing", ["a"], ["b"], [helper.make_node("Tanh", ["a"], ["b"])], opsets[:1]
    )
    ins, outs = ([helper.make_tensor_value_info(n, FLOAT, [1, 4])] for n in ("h", "next_h"))
    node = helper.make_node("Swing", ["h"], ["next_h"], domain="their.own")
    graph = helper.make_graph([node], "graph", ins, outs)
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=[body]), tmp_path / "g.onnx")
    found = inspect(tmp_path / "g.onnx")
    assert (found.hazards, found.operators) == ((), {"Tanh": 1})


def test_free_axes_beside_the_batch(tmp_path: Path) -> None:
    found = made(
        tmp_path / "g.onnx",
        passed_on(x="y", h="next_h"),
        {"x": ["batch", "time", 4], "h": [2, "batch", 8]},
        {"y": ["batch", "time", 4], "next_h": [2, "batch", 8]},
    )
    assert words(found) == {
        "dynamic-shape": ["x [batch, time, 4] is free in axis 1: a step has fixed shapes but for the batch"]
    }


def test_states_out_of_order_and_of_one_shape(tmp_path: Path) -> None:
    found = made(
        tmp_path / "g.onnx",
        passed_on(x="y", h="next_h", c="next_c"),
        {"x": [1, 4], "h": [1, 8], "c": [1, 8]},
        {"next_c": [1, 8], "y": [1, 4], "next_h": [1, 8]},
    )
    assert pairs(found) == [("h", "next_h", "rule * -> next_*"), ("c", "next_c", "rule * -> next_*")]
    assert words(found) == {}
    assert words(found, caution=True) == {
        "order": [
            "the states come in as h, c and out as next_c, next_h: bound by position they would be swapped"
        ],
        "equal-shapes": ["h, c are all float32 [1, 8]: a swap would raise no error"],
    }


def test_names_that_do_not_tell_are_never_guessed(tmp_path: Path) -> None:
    found = made(
        tmp_path / "g.onnx",
        passed_on(x="y", one="three", two="four"),
        {"x": [1, 4], "one": [1, 8], "two": [1, 8]},
        {"y": [1, 4], "three": [1, 8], "four": [1, 8]},
    )
    assert found.pairs == ()
    assert words(found) == {
        "unpaired": [
            "input one may be a state: could come back as three or four; its name does not say",
            "input two may be a state: could come back as three or four; its name does not say",
        ]
    }


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        (
            {"x": [1, 4], "h": [1, 8]},
            {"y": [1, 4], "next_h": [1, 9]},
            "input h may be a state: no output agrees with it; its name does not say",
        ),
        (
            {"x": [1, 4]},
            {"y": [1, 4], "state_out": [1, 9]},
            "output state_out sounds like a state, and no input takes it",
        ),
    ],
)
def test_a_state_without_a_partner(
    tmp_path: Path, inputs: dict[str, Any], outputs: dict[str, Any], said: str
) -> None:
    nodes = [helper.make_node("Made", [*inputs], [*outputs], domain="their.own")]
    assert words(made(tmp_path / "g.onnx", nodes, inputs, outputs))["unpaired"] == [said]


def test_a_state_of_8_bits(tmp_path: Path) -> None:
    found = made(
        tmp_path / "g.onnx",
        passed_on(x="y", h="next_h"),
        {"x": [1, 4], "h": [1, 8]},
        {"y": [1, 4], "next_h": [1, 8]},
        kind=TensorProto.INT8,
    )
    assert words(found) == {"int8-state": ["state h is int8: it rounds at every step, and errors add up"]}


@pytest.mark.parametrize("given", [True, False])
def test_a_recurrent_operator_must_be_given_its_state(tmp_path: Path, given: bool) -> None:
    """By way of a branch, as voice activity detectors have it; zeros of the state's shape are no state."""
    info, zero = helper.make_tensor_value_info, numpy_helper.from_array(np.zeros(1, np.float32))
    same = helper.make_graph(passed_on(h="kept"), "then", [], [info("kept", FLOAT, [1, 1, 8])])
    new = helper.make_graph(
        [
            helper.make_node("Shape", ["h"], ["shape"]),
            helper.make_node("ConstantOfShape", ["shape"], ["zeros"], value=zero),
        ],
        "else",
        [],
        [info("zeros", FLOAT, [1, 1, 8])],
    )
    then = same if given else new
    nodes = [
        helper.make_node("If", ["true"], ["begin"], then_branch=then, else_branch=new),
        helper.make_node("GRU", ["x", "W", "R", "", "", "begin"], ["", "hn"], hidden_size=8, name="gru"),
        *passed_on(x="y"),
    ]
    weights = {
        "true": np.array(True),
        "W": np.zeros((1, 24, 4), np.float32),
        "R": np.zeros((1, 24, 8), np.float32),
    }
    inputs = {"x": [1, 1, 4], "h": [1, 1, 8]}
    found = made(tmp_path / "g.onnx", nodes, inputs, {"y": [1, 1, 4], "hn": [1, 1, 8]}, weights)
    said = words(found).get("hidden-state", [])
    assert [w.split(" begins")[0] for w in said] == ([] if given else ["GRU 'gru'"])


def whole(layer: Any) -> Any:
    """A model of whole sequences, and its signature."""
    model = keras.Sequential([keras.Input((None, 4)), layer, layers.Dense(3)])
    function = tf.function(lambda x: model(x), autograph=False)
    return model, function, [tf.TensorSpec([None, None, 4], tf.float32, name="x")]


NO_STATE = "no output comes back as an input: nothing is remembered between two calls"


def test_a_whole_keras_model_by_tf2onnx(tmp_path: Path) -> None:
    cells = [layers.LSTMCell(8), layers.GRUCell(8)]
    for name, layer in (("loop", layers.RNN(cells, return_sequences=True)), ("lstm", layers.LSTM(8))):
        _, function, signature = whole(layer)
        path = str(tmp_path / f"{name}.onnx")
        tf2onnx.convert.from_function(function, signature, opset=18, output_path=path)
    loop, lstm = words(inspect(tmp_path / "loop.onnx")), words(inspect(tmp_path / "lstm.onnx"))
    assert loop["loop"] == ["1 Loop: it runs over a sequence, and is no step"]
    assert (loop["no-state"], lstm["no-state"]) == ([NO_STATE], [NO_STATE])
    assert lstm["hidden-state"][0].endswith(
        "begins at a state of its own at every call: the caller can neither give it nor take it on"
    )
    assert "is free in axis 1: a step has fixed shapes but for the batch" in loop["dynamic-shape"][0]


# TFLite


def test_a_whole_keras_model_in_tflite_with_flex(tmp_path: Path) -> None:
    model, _, _ = whole(layers.LSTM(8, return_sequences=True))
    model.export(str(tmp_path / "whole"), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "whole"))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    converter._experimental_lower_tensor_list_ops = False
    (tmp_path / "whole.tflite").write_bytes(converter.convert())
    found = inspect(tmp_path / "whole.tflite")
    assert found.maker == "signature 'serving_default'"
    assert found.weights is not None
    assert found.weights.bytes == {"float32": found.weights.per_step}
    assert found.weights.per_step is not None
    assert found.weights.per_step >= 4 * (4 * 32 + 8 * 32 + 8 * 3)
    said = words(found)
    assert said["loop"] == ["1 WHILE: it runs over a sequence, and is no step"]
    assert said["flex"][0].startswith("1 FlexTensorListReserve, ")
    assert said["flex"][0].endswith(": needs the Flex delegate, that is TensorFlow, to run")
    assert said["no-state"] == [NO_STATE]


@pytest.fixture(scope="module")
def stateful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel that keeps its state in variables, and a TFLite file made of it."""
    if keras.__version__.startswith("3.12."):  # it compares the batch size in the graph
        pytest.skip("Keras 3.12 cannot export a stateful model itself")
    folder = tmp_path_factory.mktemp("stateful")
    lstm = layers.LSTM(8, stateful=True, unroll=True)
    keras.Sequential([keras.Input((1, 4), batch_size=1), lstm]).export(str(folder / "saved"), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
    converter.experimental_enable_resource_variables = True
    (folder / "stateful.tflite").write_bytes(converter.convert())
    return folder


def test_hidden_variables_in_tflite(stateful: Path) -> None:
    (said,) = words(inspect(stateful / "stateful.tflite"))["hidden-variable"]
    for name in ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"):
        assert name in said
    assert said.endswith(": a state that the caller does not hold")


def converted(folder: Path, function: Any, change: Callable[[Any], None] = lambda converter: None) -> Path:
    """A TFLite file with the signature `theirs`."""
    tf.saved_model.save(tf.Module(), str(folder / "saved"), signatures={"theirs": function})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"), signature_keys=["theirs"])
    change(converter)
    (folder / "theirs.tflite").write_bytes(converter.convert())
    return folder / "theirs.tflite"


KERNEL = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
TABLE = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)


def test_a_tflite_step_by_hand(tmp_path: Path) -> None:
    """One row of the table is read; two names may stand for one tensor."""

    @tf.function
    def step(x: Any, h: Any) -> dict[str, Any]:
        h = tf.tanh(tf.gather(TABLE, x) + tf.matmul(h, KERNEL))
        return {"out": h, "hn": h}

    function = step.get_concrete_function(
        x=tf.TensorSpec([1], tf.int32, name="x"), h=tf.TensorSpec([1, 8], name="h")
    )
    found = inspect(converted(tmp_path, function))
    assert found.format == "TFLite"
    assert pairs(found) == [("h", "hn", "rule * -> *n")]
    assert {t.name for t in found.outputs} == {"out", "hn"}
    assert found.weights is not None
    assert found.weights.bytes["float32"] >= 4 * (50 * 8 + 8 * 8)
    assert found.weights.per_step == found.weights.bytes["float32"] - 4 * 49 * 8
    assert words(found) == {}


def test_a_state_of_8_bits_and_two_scales_is_a_hazard_and_refused_by_load(tmp_path: Path) -> None:
    @tf.function
    def step(x: Any, h: Any) -> dict[str, Any]:
        return {"y": x + h, "next_h": 0.5 * x + 3.0 * h}

    specs = {name: tf.TensorSpec([1, 8], name=name) for name in ("x", "h")}

    def quantize(converter: Any) -> None:
        generator = np.random.default_rng(0)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            ("theirs", {n: generator.normal(size=(1, 8)).astype(np.float32) for n in specs})
            for _ in range(20)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8

    path = converted(tmp_path, step.get_concrete_function(**specs), quantize)
    (said,) = words(inspect(path))["int8-state"]
    assert said.startswith("state h is int8: it rounds at every step, and errors add up; and its scale (0.0")
    assert said.endswith("so it cannot be fed back as it is")
    with pytest.raises(UsageError) as raised:
        load(path, states={"h": "next_h"})
    assert str(raised.value).startswith("state 'h' is quantized by (0.0")
    assert str(raised.value).endswith("fed back as it is, it would be another value")


# SavedModel


def test_a_saved_model_with_variables(stateful: Path) -> None:
    found = inspect(stateful / "saved")
    assert found.format == "SavedModel"
    assert found.maker == f"signature 'serving_default', made by TensorFlow {tf.__version__}"
    assert found.weights is not None
    assert found.weights.bytes == {"float32": 4 * (4 * 32 + 8 * 32 + 32 + 2 * 8)}
    assert words(found)["hidden-variable"] == [
        "2 operators assign variables: a state the caller does not hold",
        "5 variables are read: the weights are not frozen in the graph",
    ]


def test_a_saved_model_with_a_loop(tmp_path: Path) -> None:
    model, _, _ = whole(layers.LSTM(8, return_sequences=True))
    model.export(str(tmp_path / "whole"), verbose=False)
    found = inspect(tmp_path / "whole")
    assert words(found)["loop"] == ["1 While: it runs over a sequence, and is no step"]
    assert found.weights is not None
    assert found.weights.bytes == {"float32": 4 * (4 * 32 + 8 * 32 + 32 + 8 * 3 + 3) + 8}  # two scalars


def test_the_variables_of_an_embedding_count_one_row(tmp_path: Path) -> None:
    module = tf.Module()
    module.table, module.kernel = tf.Variable(TABLE), tf.Variable(KERNEL)

    @tf.function(input_signature=[tf.TensorSpec([1], tf.int32, "x"), tf.TensorSpec([1, 8], name="h")])
    def step(x: Any, h: Any) -> dict[str, Any]:
        h = tf.tanh(tf.gather(module.table, x) + tf.matmul(h, module.kernel))
        return {"y": h, "next_h": h}

    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"step": step})
    found = inspect(tmp_path / "saved")
    assert pairs(found) == [("h", "next_h", "rule * -> next_*")]
    assert found.weights is not None
    assert found.weights.bytes == {"float32": 4 * (50 * 8 + 8 * 8)}
    assert found.weights.per_step == 4 * (8 + 8 * 8)


def test_the_saved_model_of_a_step_is_no_hazard(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((None,), dtype="int32"), layers.Embedding(50, 8), layers.GRU(8), layers.Dense(5)]
    )
    saved_model.write(derive(model), tmp_path / "step")
    found = inspect(tmp_path / "step")
    assert found.maker.startswith("signature 'step', ")
    assert pairs(found) == [("h", "next_h", "rule * -> next_*")]
    assert found.hazards == ()
    assert found.weights is not None
    read = 4 * (model.count_params() - 49 * 8)
    assert found.weights.per_step is not None
    assert read <= found.weights.per_step <= read + 16


# Keras


def test_a_keras_file_shows_the_step_it_would_give(tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(100, 16),
            layers.GRU(8, return_sequences=True, name="gru"),
            layers.LSTM(8, return_sequences=True, name="lstm"),
            layers.Dense(100),
        ]
    )
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        found = inspect(tmp_path / name)
        assert [str(t) for t in found.inputs] == [
            "x int32 [batch]",
            *(f"{s} float32 [batch, 8]" for s in ("gru_h", "lstm_h", "lstm_c")),
        ]
        assert pairs(found) == [
            (name, f"next_{name}", "the step of the layer") for name in ("gru_h", "lstm_h", "lstm_c")
        ]
        assert found.weights is not None
        assert found.weights.bytes == {"float32": 4 * model.count_params()}
        read = 4 * (model.count_params() - 99 * 16)
        assert found.weights.per_step is not None
        assert read <= found.weights.per_step <= read + 16  # and a number or two of the cells
        assert words(found) == {}
        assert words(found, caution=True) == {
            "equal-shapes": ["gru_h, lstm_h, lstm_c are all float32 [batch, 8]: a swap would raise no error"]
        }
        assert found.notes == ("the step that `steprnn export` would write, before its proofs",)


def test_a_keras_file_that_has_no_step_names_every_layer(tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((None, 4)),
            layers.GRU(8, return_sequences=True),
            layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="both"),
            layers.GlobalMaxPooling1D(name="pool"),
            layers.Dense(3),
        ]
    )
    model.save(tmp_path / "model.keras")
    found = inspect(tmp_path / "model.keras")
    assert words(found) == {
        "refused": [
            "layer 'both' (Bidirectional) reads the sequence from both ends, so it has no step; "
            "train with the forward layer alone",
            "layer 'pool' (GlobalMaxPooling1D) pools over time, so it has no step; "
            "use return_sequences=False, or pool in the caller",
        ]
    }
    assert found.operators == {"GRU": 1, "Bidirectional": 1, "GlobalMaxPooling1D": 1, "Dense": 1}
    assert [t.shape for t in found.inputs] == [(None, None, 4)]
    assert "read per step" not in found.table()
    assert found.notes == ("it has no step; these are the inputs and outputs of the whole model",)


# Bundles


def test_a_bundle_shows_each_graph_and_which_one_load_takes(tiny: Path) -> None:
    found = inspect(tiny)
    assert found.format == "bundle"
    assert pairs(found) == [("h", "next_h", "the manifest"), ("c", "next_c", "the manifest")]
    assert found.notes[0] == (
        "load takes tflite-float32 on litert: the most exact unless told otherwise; litert comes first"
    )
    parts = {Path(part.path).name: part for part in found.parts}
    assert set(parts) == {"step.tflite", "step.onnx", "step.int8.tflite", "step.int8.onnx"}
    assert found.all_hazards()
    assert all(hazard.caution for hazard in found.all_hazards())
    assert pairs(parts["step.onnx"]) == [
        ("h", "next_h", "the file's metadata"),
        ("c", "next_c", "the file's metadata"),
    ]
    for name in ("step.onnx", "step.tflite"):
        weights = parts[name].weights
        assert weights is not None
        whole = 4 * (21 * 32 + 8 * 32 + 32 + 8 * 21 + 21)
        assert (weights.bytes, weights.per_step) == ({"float32": whole}, whole - 4 * 20 * 32)
    assert words(parts["step.int8.onnx"], caution=True)["contrib"] == [
        "MatMulNBits of com.microsoft: onnxruntime has them, other engines may not"
    ]


def test_a_bundle_without_the_first_engines_graph(
    tiny_copy: Path, edit_manifest: Callable[..., None]
) -> None:
    edit_manifest(tiny_copy, lambda record: record["artefacts"].pop(0))
    assert inspect(tiny_copy).notes[0] == (
        "load takes onnx-float32 on onnx: the most exact unless told otherwise; "
        "litert has no float32 graph here and onnx comes next"
    )


def test_a_bundle_with_the_runtime_alone(
    steprnn: Run, without: Callable[..., dict[str, str]], tiny: Path
) -> None:
    bare = without("tensorflow", "keras", "onnx", "onnxruntime", "ai_edge_litert")
    result = steprnn("inspect", tiny, environment=bare)
    assert (result.returncode, result.stderr) == (0, "")
    assert "states     h  float32  [batch, 8]  -> next_h  the manifest\n" in result.stdout
    assert (
        f"load takes none of them: the engine 'litert' is not installed; run: {install('litert')}"
        in result.stdout
    )
    assert (
        f"onnx-float32 was not read: onnx, which reads {tiny / 'step.onnx'}, is not installed; "
        f"run: {install('export')}" in result.stdout
    )


def test_a_graph_without_what_reads_it(
    steprnn: Run, without: Callable[..., dict[str, str]], tiny: Path
) -> None:
    result = steprnn("inspect", tiny / "step.tflite", environment=without("tensorflow", "ai_edge_litert"))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"steprnn: ai_edge_litert, which reads {tiny / 'step.tflite'}, is not installed; "
        f"run: {install('litert')}\n"
    )


# The command, and what cannot be read


def test_the_command_writes_a_table_or_json(steprnn: Run, tiny: Path) -> None:
    table = steprnn("inspect", tiny / "step.onnx")
    assert (table.returncode, table.stderr) == (0, "")
    assert table.stdout == inspect(tiny / "step.onnx").table() + "\n"
    record = json.loads(steprnn("inspect", tiny / "step.onnx", "--json").stdout)
    assert record["format"] == "ONNX"
    assert record["inputs"][0] == {"name": "x", "dtype": "int32", "shape": ["batch"], "scale": None}
    assert record["states"][0] == {"state": "h", "next": "next_h", "evidence": "the file's metadata"}
    assert record["weights"] == {"bytes": {"float32": 4596}, "per_step": 2036}
    assert record["hazards"] == [
        {
            "kind": "equal-shapes",
            "words": "h, c are all float32 [batch, 8]: a swap would raise no error",
            "caution": True,
        }
    ]


def test_strict_counts_hazards_and_not_cautions(steprnn: Run, tiny: Path, tmp_path: Path) -> None:
    made(tmp_path / "g.onnx", passed_on(x="y"), {"x": [1, 4]}, {"y": [1, 4]})
    assert steprnn("inspect", tmp_path / "g.onnx").returncode == 0
    result = steprnn("inspect", tmp_path / "g.onnx", "--strict")
    assert (result.returncode, result.stderr) == (1, "")
    assert f"hazards    no-state: {NO_STATE}\n" in result.stdout
    assert steprnn("inspect", tiny, "--strict").returncode == 0


@pytest.mark.parametrize(
    ("name", "data", "error", "said"),
    [
        ("g.onnx", b"broken" * 20, BundleError, "FILE is not an ONNX file"),
        ("g.onnx", b"", BundleError, "FILE is not an ONNX file: it declares no version or no outputs"),
        ("g.tflite", b"broken" * 20, BundleError, "FILE is not a TFLite file: it lacks the mark TFL3"),
        ("g.tflite", b"\xff\xff\xff\x00TFL3" + b"\xff" * 40, BundleError, "FILE is damaged ("),
        ("g.keras", b"broken", CheckpointError, "cannot open FILE"),
        ("g.h5", b"broken", CheckpointError, "cannot open FILE"),
        ("g.pt", b"", BundleError, "FILE is none of .onnx, .tflite, .program, .keras, .h5, .hdf5; expected"),
    ],
)
def test_a_file_that_cannot_be_read(
    tmp_path: Path, name: str, data: bytes, error: type[Exception], said: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(error) as raised:
        inspect(tmp_path / name)
    assert said.replace("FILE", str(tmp_path / name)) in str(raised.value)


def test_a_truncated_tflite_file(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "g.tflite").write_bytes((tiny / "step.tflite").read_bytes()[:3000])
    with pytest.raises(BundleError, match=r"g\.tflite is damaged \("):
        inspect(tmp_path / "g.tflite")


def test_what_is_not_there(tmp_path: Path, steprnn: Run) -> None:
    with pytest.raises(BundleError, match=r"g\.onnx does not exist; expected a model file or a folder"):
        inspect(tmp_path / "g.onnx")
    with pytest.raises(BundleError, match=r"holds none of manifest.json, saved_model.pb, model.keras"):
        inspect(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"broken" * 9)
    with pytest.raises(BundleError, match=r"saved_model.pb is damaged"):
        inspect(tmp_path)
    result = steprnn("inspect", tmp_path / "absent")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"steprnn: {tmp_path / 'absent'} does not exist; expected a model file or a folder\n"
    )


def test_the_table_says_none_where_there_is_nothing() -> None:
    found = Inspection("p", "ONNX", "", (), (Declared("y", "float32", (1,)),), (), {}, None, ())
    assert found.table().splitlines() == [
        "p: ONNX",
        "inputs     none",
        "states     none",
        "outputs    y  float32  [1]",
        "hazards    none",
    ]
    bundle = Inspection("p", "bundle", "", (), (), (), {}, None, (Hazard("loop", "words"),), parts=(found,))
    assert bundle.all_hazards() == [Hazard("loop", "words")]
    assert bundle.table().endswith("\nhazards    loop: words\n\n" + found.table())
