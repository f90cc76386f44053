"""Small ONNX steps, one an operator or two, that are to be lowered to step programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from steprnn.runtime.spec import StepSpec, TensorSpec

RANDOM = np.random.default_rng(14)
Node = tuple[str, list[Any], dict[str, Any]]  # operator; inputs: names, or arrays; attributes
X = (2, 3, 4)  # of x, without the batch


def weights(*shape: int) -> Any:
    """Float32 numbers of both signs."""
    return RANDOM.standard_normal(shape).astype(np.float32)


def whole(*numbers: int) -> Any:
    """An int64 vector."""
    return np.array(numbers, np.int64)


def graph(
    nodes: Sequence[Node], shape: Sequence[int] = X, dtype: str = "float32", tokens: int | None = None
) -> tuple[onnx.ModelProto, StepSpec]:
    """A step `x -> y` of nodes in a row: "@" is what one before gave, "@1" its second, "x" the input."""
    made, constants = [], []
    for i, (operator, inputs, attributes) in enumerate(nodes):
        names = []
        for j, value in enumerate(inputs):
            if isinstance(value, str):
                names.append({"@": f"t{i - 1}", "@1": f"u{i - 1}"}.get(value, value))
            else:
                constants.append(numpy_helper.from_array(np.asarray(value), f"c{i}_{j}"))
                names.append(f"c{i}_{j}")
        results = [f"t{i}", f"u{i}"] if operator == "TopK" else [f"t{i}"]
        made.append(helper.make_node(operator, names, results, f"n{i}", **attributes))
    made.append(helper.make_node("Cast", [f"t{len(nodes) - 1}"], ["y"], to=TensorProto.FLOAT))
    kind = TensorProto.INT32 if dtype == "int32" else TensorProto.FLOAT
    inner = helper.make_graph(
        made,
        "step",
        [helper.make_tensor_value_info("x", kind, ["batch", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(inner, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    found = inferred.graph.output[0].type.tensor_type.shape.dim
    model.graph.output[0].CopyFrom(inferred.graph.output[0])
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    spec = StepSpec(
        (TensorSpec("x", dtype, tuple(shape), tokens),),
        (),
        (TensorSpec("y", "float32", tuple(d.dim_value for d in found[1:])),),
    )
    return model, spec


def unary(operator: str, **attributes: Any) -> list[Node]:
    """The operator on x."""
    return [(operator, ["x"], attributes)]


POSITIVE: list[Node] = [("Abs", ["x"], {}), ("Add", ["@", np.float32(0.1)], {})]
CASES: dict[str, Any] = {
    **{
        name: [(name, ["x"], {})]
        for name in (
            "Abs Ceil Celu Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity LeakyRelu Mish Neg "
            "Reciprocal Relu Round Selu Sigmoid Sign Softplus Softsign Tanh ThresholdedRelu"
        ).split()
        if name not in ("Gelu",)  # of a later opset, below what tf2onnx writes
    },
    "Sqrt": [*POSITIVE, ("Sqrt", ["@"], {})],
    "Log": [*POSITIVE, ("Log", ["@"], {})],
    "PowSquare": [("Pow", ["x", np.float32(2)], {})],
    "PowHalves": [*POSITIVE, ("Pow", ["@", np.float32(-1.5)], {})],
    **{
        name: [(name, ["x", weights(1, 3, 1)], {})]
        for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum")
    },
    "Mean": [("Mean", ["x", weights(1, 3, 1), weights(1, 1, 1, 4)], {})],
    "PRelu": [("PRelu", ["x", weights(1, 1, 1, 4)], {})],
    "Clip": [("Clip", ["x", np.float32(-0.5), np.float32(0.7)], {})],
    **{
        name: [(name, ["x", weights(1, 1, 1, 4)], {}), ("Not", ["@"], {})]
        for name in ("Less", "LessOrEqual", "Greater", "GreaterOrEqual")
    },
    "Equal": [("Round", ["x"], {}), ("Equal", ["@", np.array([0, 1, -1, 0], np.float32)], {})],
    "And": [("Greater", ["x", np.float32(0)], {}), ("And", ["@", np.array([True, False, True, True])], {})],
    "Or": [("Greater", ["x", np.float32(0)], {}), ("Or", ["@", np.array([True, False, False, False])], {})],
    "Where": [("Less", ["x", np.float32(0)], {}), ("Where", ["@", weights(4), "x"], {})],
    "CastBool": [("Relu", ["x"], {}), ("Cast", ["@"], {"to": TensorProto.BOOL})],
    "CastInt": [("Mul", ["x", np.float32(5)], {}), ("Cast", ["@"], {"to": TensorProto.INT32})],
    **{
        f"{name}Int": [
            ("Mul", ["x", np.float32(5)], {}),
            ("Cast", ["@"], {"to": TensorProto.INT64}),
            (name, ["@", whole(3, -2, 1, 7)], {}),
        ]
        for name in ("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min", "Less", "Equal")
    },
    "Softmax": unary("Softmax", axis=-1),
    "SoftmaxMiddle": unary("Softmax", axis=2),
    "LogSoftmax": unary("LogSoftmax", axis=1),
    "LayerNormalization": [
        ("LayerNormalization", ["x", weights(4), weights(4)], {"axis": -1, "epsilon": 1e-3})
    ],
    "Transpose": unary("Transpose", perm=[0, 3, 1, 2]),
    "TransposeAdded": [*unary("Transpose", perm=[0, 3, 1, 2]), ("Add", ["@", weights(2, 3)], {})],
    "TransposeReshaped": [*unary("Transpose", perm=[0, 2, 1, 3]), ("Reshape", ["@", whole(-1, 24)], {})],
    "Slice": [("Slice", ["x", whole(0, 2), whole(2, -9), whole(2, 3), whole(1, -1)], {})],
    "Concat": [("Slice", ["x", whole(1), whole(3), whole(3)], {}), ("Concat", ["x", "@"], {"axis": 3})],
    "Tile": [("Tile", ["x", whole(1, 2, 1, 3)], {})],
    "Expand": [
        ("Slice", ["x", whole(0), whole(1), whole(2)], {}),
        ("Expand", ["@", whole(1, 2, 5, 4)], {}),
    ],
    "Pad": [("Pad", ["x", whole(0, 1, 0, 2, 0, 0, 3, -1), np.float32(2)], {})],
    "GatherFixed": [("Gather", ["x", whole(2, 0, 0)], {"axis": 2})],
    "GatherStepped": [("Gather", ["x", whole(3, 1)], {"axis": 3})],
    "Squeeze": [("Slice", ["x", whole(1), whole(2), whole(1)], {}), ("Squeeze", ["@", whole(1)], {})],
    "Unsqueeze": [("Unsqueeze", ["x", whole(2)], {})],
    "CumSum": [("CumSum", ["x", np.int64(2)], {})],
    **{
        name: [(name, ["x", whole(1, 3)], {"keepdims": 1})]
        for name in ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare")
    },
    "ReduceLast": [("ReduceSum", ["x", whole(3)], {"keepdims": 0})],
    "ReduceInt": [
        ("Greater", ["x", np.float32(0)], {}),
        ("Cast", ["@"], {"to": TensorProto.INT32}),
        ("ReduceMin", ["@", whole(2)], {"keepdims": 1}),
    ],
    "ArgMax": unary("ArgMax", axis=3, keepdims=1),
    "ArgMin": unary("ArgMin", axis=2, keepdims=0),
    "MatMul": [("MatMul", ["x", weights(4, 37)], {})],
    "MatMulAdded": [("MatMul", ["x", weights(4, 37)], {}), ("Add", ["@", weights(37)], {})],
    "MatMulOfOne": [("MatMul", ["x", weights(4, 1)], {}), ("Add", ["@", weights(1)], {})],
    "MatMulVector": [("MatMul", ["x", weights(4)], {})],
    "MatMulItself": [*unary("Transpose", perm=[0, 1, 3, 2]), ("MatMul", ["x", "@"], {})],
    "Gemm": [
        ("Reshape", ["x", whole(-1, 24)], {}),
        ("Gemm", ["@", weights(19, 24), weights(19)], {"transB": 1, "alpha": 0.5}),
    ],
    "Einsum": [("Einsum", ["x", weights(3, 4, 5)], {"equation": "bhtd,tdk->bhk"})],
    "EinsumDynamic": [("Einsum", ["x", "x"], {"equation": "bhtd,bhsd->bhts"})],
    "Conv": [("Conv", ["x", weights(5, 2, 2, 3), weights(5)], {"pads": [1, 2, 0, 0], "dilations": [1, 1]})],
    "ConvStrided": [("Conv", ["x", weights(5, 2, 2, 2)], {"strides": [1, 2], "dilations": [2, 1]})],
    "ConvDepthwise": [("Conv", ["x", weights(6, 1, 2, 2), weights(6)], {"group": 2})],
    "ConvGroups": [
        ("Reshape", ["x", whole(-1, 6, 2, 2)], {}),
        ("Conv", ["@", weights(9, 2, 2, 1), weights(9)], {"group": 3, "pads": [1, 0, 0, 0]}),
    ],
    "Sin": [("Mul", ["x", np.float32(40)], {}), ("Sin", ["@"], {})],
    "Cos": [("Mul", ["x", np.float32(40)], {}), ("Cos", ["@"], {})],
    **{
        f"DepthToSpace{mode}": [
            ("Reshape", ["x", whole(-1, 8, 1, 3)], {}),
            ("DepthToSpace", ["@"], {"blocksize": 2, "mode": mode}),
        ]
        for mode in ("DCR", "CRD")
    },
    "SpaceToDepth": [
        ("Reshape", ["x", whole(-1, 1, 4, 6)], {}),
        ("SpaceToDepth", ["@"], {"blocksize": 2}),
    ],
    "TopK": [("TopK", ["x", whole(3)], {"axis": -1})],
    "TopKMiddle": [("TopK", ["x", whole(2)], {"axis": 2, "largest": 0})],
    "TopKPlaces": [
        ("TopK", ["x", whole(3)], {"axis": 3}),
        ("Add", ["@1", whole(1)], {}),
    ],
    "GatherElements": [
        ("ArgMax", ["x"], {"axis": 2, "keepdims": 1}),
        ("GatherElements", ["x", "@"], {"axis": 2}),
    ],
    "GatherND": [
        ("ArgMax", ["x"], {"axis": 3, "keepdims": 1}),
        ("Sub", ["@", whole(2)], {}),
        ("Slice", ["@", whole(0), whole(1), whole(1)], {}),
        ("Mul", ["@", np.int64(1)], {}),
        ("GatherND", ["x", "@"], {"batch_dims": 1}),
    ],
    "ConvTranspose": [
        ("ConvTranspose", ["x", weights(2, 3, 2, 3), weights(3)], {"strides": [1, 2], "pads": [0, 1, 1, 0]})
    ],
    "MaxPool": [("MaxPool", ["x"], {"kernel_shape": [2, 2], "strides": [1, 2], "pads": [0, 1, 1, 0]})],
    "AveragePool": [("AveragePool", ["x"], {"kernel_shape": [2, 2], "strides": [1, 2]})],
}
LONG: Node = ("Cast", ["x"], {"to": TensorProto.INT64})
TOKENS: dict[str, list[Node]] = {
    "Gather": [("Gather", [weights(9, 33), "x"], {})],
    "OneHot": [
        ("Cast", ["x"], {"to": TensorProto.INT64}),
        ("OneHot", ["@", whole(9), np.array([0, 1], np.float32)], {"axis": -1}),
    ],
    "OneHotFirst": [
        ("Cast", ["x"], {"to": TensorProto.INT64}),
        ("OneHot", ["@", whole(9), np.array([-1, 2], np.float32)], {"axis": 1}),
    ],
    "GatherOfInput": [("Cast", ["x"], {"to": TensorProto.FLOAT}), ("Gather", [weights(9, 4), "x"], {})],
}
REFUSED: dict[str, list[Node]] = {
    "Tan": unary("Tan"),
    "Pow": [("Pow", ["x", np.float32(2.3)], {})],
    "Conv": [
        ("Reshape", ["x", whole(-1, 24, 1, 1)], {}),
        ("Tile", ["@", whole(1, 6, 1, 1)], {}),
        ("Conv", ["@", weights(72, 2, 1, 1)], {"group": 72}),
    ],
    "TopK": [("Tile", ["x", whole(1, 1, 1, 20)], {}), ("TopK", ["@", whole(70)], {})],
    "CumSum": [("CumSum", ["x", np.int64(2)], {"reverse": 1})],
    "Abs": [("Cast", ["x"], {"to": TensorProto.INT32}), ("Abs", ["@"], {})],
}


def step(name: str) -> tuple[onnx.ModelProto, StepSpec]:
    """One of the cases."""
    if name in TOKENS:
        return graph(TOKENS[name], (3,), "int32", 9)
    return graph(CASES[name])
