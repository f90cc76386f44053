"""The operators a step may hold, in each format: no loop, no branch, no hidden variable, nothing custom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from steprnn.runtime.engines import flatbuffer
from steprnn.runtime.errors import ExportError

if TYPE_CHECKING:  # `steprnn check` looks at operators where neither may be installed
    import onnx
    import tensorflow as tf

TENSORFLOW = frozenset(
    """
    Abs Add AddV2 All Any ArgMax ArgMin AvgPool BatchMatMulV2 BatchToSpaceND BiasAdd BroadcastTo Cast Ceil
    ConcatV2 Const Conv2D Conv2DBackpropInput Cos Cumsum
    DepthwiseConv2dNative Einsum Elu Equal Erf Erfc Exp ExpandDims
    Expm1 Fill Floor FloorDiv FloorMod GatherNd GatherV2 Greater GreaterEqual Identity IdentityN
    LeakyRelu Less LessEqual Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul Max MaxPool
    Maximum Mean Min Minimum Mul Neg NoOp NotEqual OneHot OnesLike Pack Pad PadV2 PartitionedCall Placeholder
    Pow Prod Range RealDiv Reciprocal Relu Relu6 Reshape ReverseV2 Round Rsqrt Select SelectV2 Selu Shape
    Sigmoid Sign Sin Slice Softmax Softplus Softsign SpaceToBatchND Split SplitV Sqrt Square
    SquaredDifference Squeeze StopGradient StridedSlice Sub Sum Tanh Tile TopKV2 Transpose Unpack
    ZerosLike
    """.split()
)
TFLITE = frozenset(name for name, _ in flatbuffer.OPERATORS.values())
ONNX = frozenset(
    """
    Abs Add And ArgMax ArgMin AveragePool Cast Ceil Celu Clip Concat Constant ConstantOfShape Conv
    ConvTranspose Cos CumSum DepthToSpace Div Einsum Elu Equal Erf Exp Expand Flatten Floor Gather
    GatherElements GatherND Gelu Gemm Greater GreaterOrEqual HardSigmoid HardSwish Identity LayerNormalization
    LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not OneHot Or
    PRelu Pad Pow
    Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape
    Round Selu Shape Sigmoid Sign Sin Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze
    Sub Sum Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze Where com.microsoft.MatMulNBits
    """.split()
)


def check_tensorflow(graph: tf.compat.v1.GraphDef) -> None:
    """Raise `ExportError` where the graph, or a function it calls, holds an operator that is not listed.

    TensorFlow names a node after the layer that made it, and so does the message.
    """
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    _check("TensorFlow", {n.op for n in nodes}, TENSORFLOW, {n.op: n.name for n in reversed(nodes)})


def check_tflite(flatbuffer: bytes) -> None:
    """Raise `ExportError` where a flatbuffer holds an operator that is not listed, or a second subgraph."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(flatbuffer, 0))
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    _check("TFLite", {names[code] for code in codes}, TFLITE)
    if len(model.subgraphs) != 1:
        raise ExportError(f"the TFLite file has {len(model.subgraphs)} subgraphs; a step has one")


def check_onnx(model: onnx.ModelProto) -> None:
    """Raise `ExportError` where a model holds an operator that is not listed."""
    found = {f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in model.graph.node}
    _check("ONNX", found, ONNX)


def _check(
    format: str, found: Iterable[str], allowed: frozenset[str], places: Mapping[str, str] | None = None
) -> None:
    strangers = sorted(set(found) - allowed)
    if strangers:
        where = f" (the first in {places[strangers[0]]})" if places else ""
        raise ExportError(
            f"the {format} graph of the step holds {', '.join(strangers)}{where}, and a step may hold no "
            "loop, branch, variable or custom operator; replace the layer or function it comes from"
        )
