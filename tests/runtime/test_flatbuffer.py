"""What a TFLite file of a bundle has to be: each rule on a file that breaks it, and no other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import BundleError
from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.engines import flatbuffer, open_engine

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
flatbuffers = pytest.importorskip("flatbuffers")


def packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def first(model: Any, name: str) -> Any:
    """The first operator of a name."""
    number = getattr(schema.BuiltinOperator, name)
    return next(
        operator
        for operator in model.subgraphs[0].operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode == number
    )


def test_numbers_and_types_are_the_schemas() -> None:
    for number, (name, _) in flatbuffer.OPERATORS.items():
        assert getattr(schema.BuiltinOperator, name) == number, name
    assert len(flatbuffer.OPERATORS) == sum(text.count(",") + 1 for text in flatbuffer.NEEDED.values())
    counted = {"SPLIT": "SplitOptions", "SPLIT_V": "SplitVOptions", "UNPACK": "UnpackOptions"}
    counted["PACK"] = "PackOptions"
    assert {n: getattr(schema.BuiltinOptions, o) for n, o in counted.items()} == {
        name: kind for name, (kind, _) in flatbuffer.COUNTED.items()
    }
    assert {*flatbuffer.BIASED, *flatbuffer.OUTPUTS, *flatbuffer.COUNTED, *flatbuffer.DIVIDING} <= {
        name for name, _ in flatbuffer.OPERATORS.values()
    }


Damage = Callable[[Any], object]


def operator(name: str, **values: Any) -> Damage:
    return lambda model: vars(first(model, name)).update(values)


def options(name: str, **values: Any) -> Damage:
    return lambda model: vars(first(model, name).builtinOptions).update(values)


def inputs(name: str, *indices: int) -> Damage:
    return operator(name, inputs=np.array(indices, np.int32))


def another_graph(model: Any) -> None:
    model.subgraphs.append(copy.deepcopy(model.subgraphs[0]))


DAMAGES: dict[str, tuple[Damage, str]] = {
    "an operator of no step": (
        lambda model: vars(model.operatorCodes[0]).update(builtinCode=119, deprecatedBuiltinCode=119),
        "it holds the operator 119, and no step that is exported does",
    ),
    "two graphs": (another_graph, "it holds 2 graphs, and a step is one"),
    "a variable": (
        lambda model: vars(model.subgraphs[0].tensors[20]).update(isVariable=True),
        "a tensor of it is kept from step to step, and no caller has it",
    ),
    "an output of the graph": (
        lambda model: vars(model.subgraphs[0]).update(outputs=np.array([26, 25, -1], np.int32)),
        "the graph has a tensor that is none of its 27",
    ),
    "a signature of another graph": (
        lambda model: vars(model.signatureDefs[0]).update(subgraphIndex=1),
        "a signature is of another graph than there is",
    ),
    "a signature's tensor": (
        lambda model: vars(model.signatureDefs[0].outputs[0]).update(tensorIndex=27),
        "a signature has a tensor that is none of its 27",
    ),
    "two inputs of one tensor": (
        lambda model: vars(model.signatureDefs[0].inputs[0]).update(
            tensorIndex=model.signatureDefs[0].inputs[1].tensorIndex
        ),
        "two inputs of a signature are one tensor",
    ),
    "a kind that is not listed": (
        operator("TANH", opcodeIndex=7),
        "an operator is of no kind that it lists",
    ),
    "too few inputs": (inputs("SPLIT", 5), "SPLIT has 1 inputs and 4 outputs, which are too few"),
    "no output": (
        operator("TANH", outputs=np.zeros(0, np.int32)),
        "TANH has 1 inputs and 0 outputs, which are too few",
    ),
    "an input left out": (inputs("MUL", 18, -1), "MUL has a tensor that is none of its 27"),
    "an output left out": (
        operator("LOGISTIC", outputs=np.array([-1], np.int32)),
        "LOGISTIC has a tensor that is none of its 27",
    ),
    "no options": (operator("SPLIT", builtinOptions=None), "SPLIT does not say that it has 4 tensors"),
    "others' options": (
        operator("SPLIT", builtinOptionsType=36, builtinOptions=schema.LogSoftmaxOptionsT()),
        "SPLIT does not say that it has 4 tensors",
    ),
    "a count": (options("SPLIT", numSplits=3), "SPLIT does not say that it has 4 tensors"),
    "a tensor that nobody makes": (
        lambda model: vars(model.buffers[5]).update(data=None),
        "FULLY_CONNECTED reads a tensor that is not made yet, or makes one that is there",
    ),
    "a tensor that is made later": (
        inputs("LOGISTIC", 21),
        "LOGISTIC reads a tensor that is not made yet, or makes one that is there",
    ),
    "an input that is made": (
        operator("TANH", outputs=np.array([2], np.int32)),
        "TANH reads a tensor that is not made yet, or makes one that is there",
    ),
    "one tensor made twice": (
        operator("SPLIT", outputs=np.array([13, 14, 15, 15], np.int32)),
        "SPLIT reads a tensor that is not made yet, or makes one that is there",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_lite_rt_takes_for_given_is_looked_at(tiny: Path, tmp_path: Path, damage: str) -> None:
    model = schema.ModelT.InitFromPackedBuf((tiny / "step.tflite").read_bytes(), 0)
    flatbuffer.check(packed(model))
    change, words = DAMAGES[damage]
    change(model)
    (tmp_path / "step.tflite").write_bytes(packed(model))
    with pytest.raises(BundleError) as raised:
        open_engine("litert", tmp_path / "step.tflite", Manifest.read(tiny).step)
    path = tmp_path / "step.tflite"
    assert str(raised.value) == f"steprnn refuses {path}: {words}; do not trust it, or export again"


def alone(name: str, given: int, option: str, values: dict[str, int]) -> Any:
    """A model of one operator, whose inputs but the first are constants."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.operatorCodes = [schema.OperatorCodeT()]
    model.operatorCodes[0].builtinCode = getattr(schema.BuiltinOperator, name)
    model.buffers = [schema.BufferT(), schema.BufferT()]
    model.buffers[1].data = np.zeros(4, np.uint8)
    model.subgraphs = [graph]
    graph.tensors = [schema.TensorT() for _ in range(given + 1)]
    for tensor in graph.tensors:
        tensor.shape = np.array([1], np.int32)
    for tensor in graph.tensors[1:given]:
        tensor.buffer = 1
    graph.inputs, graph.outputs = np.array([0], np.int32), np.array([given], np.int32)
    made = schema.OperatorT()
    made.inputs, made.outputs = np.arange(given, dtype=np.int32), graph.outputs
    if option:
        made.builtinOptionsType = getattr(schema.BuiltinOptions, option)
        made.builtinOptions = getattr(schema, option + "T")()
        vars(made.builtinOptions).update(values)
    graph.operators = [made]
    return model


STRIDES = {"strideW": 1, "strideH": 1}
POOL = ("Pool2DOptions", STRIDES | {"filterWidth": 1, "filterHeight": 1})
DIVIDED = {
    "AVERAGE_POOL_2D": (1, *POOL),
    "MAX_POOL_2D": (1, *POOL),
    "CONV_2D": (2, "Conv2DOptions", STRIDES),
    "DEPTHWISE_CONV_2D": (2, "DepthwiseConv2DOptions", STRIDES),
    "TRANSPOSE_CONV": (3, "TransposeConvOptions", STRIDES),
}


@pytest.mark.parametrize("name", flatbuffer.DIVIDING)
def test_nothing_is_divided_by_zero(name: str) -> None:
    given, option, values = DIVIDED[name]
    flatbuffer.check(packed(alone(name, given, option, values)))
    for field in values:
        with pytest.raises(ValueError, match=f"{name} has a stride or a size that is not positive"):
            flatbuffer.check(packed(alone(name, given, option, values | {field: 0})))


def test_a_tensor_keeps_its_shape_when_it_is_widened() -> None:
    model = alone("DEQUANTIZE", 1, "", {})
    flatbuffer.check(packed(model))
    model.subgraphs[0].tensors[1].shape = np.array([2], np.int32)
    with pytest.raises(ValueError, match="DEQUANTIZE makes a tensor of another shape than it reads"):
        flatbuffer.check(packed(model))


def test_a_bias_may_be_left_out_and_nothing_else() -> None:
    model = alone("FULLY_CONNECTED", 3, "", {})
    model.subgraphs[0].operators[0].inputs[2] = -1
    flatbuffer.check(packed(model))
    model.subgraphs[0].operators[0].inputs[1:] = -1, 1
    with pytest.raises(ValueError, match="FULLY_CONNECTED has a tensor that is none of its 4"):
        flatbuffer.check(packed(model))


def test_every_end_of_a_file_is_damage(tiny: Path) -> None:
    data = (tiny / "step.tflite").read_bytes()
    flatbuffer.check(data)
    damaged = 0
    for end in range(0, len(data), 7):
        try:
            flatbuffer.check(data[:end])
        except ValueError:
            damaged += 1
    assert damaged > len(data) // 7 * 0.9  # the weights come last, and nobody counts their bytes here
    with pytest.raises(ValueError, match="it is damaged"):
        flatbuffer.check(b"")
