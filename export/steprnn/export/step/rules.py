"""What each operator of TensorFlow does to time: the rules by which a traced layer is read.

An element is a set of bits, whatever its value: the time steps that it can depend on, and INDEX and LENGTH
where it depends on which step it is or on how many there are. A rule may tell too much, never too little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Bits = NDArray[np.int64]
INDEX, LENGTH = np.int64(1 << 61), np.int64(1 << 62)
TIME = INDEX - np.int64(1)  # the bits of the time steps, of which there are at most 61


@dataclass
class Seen:
    """A tensor of the trace in a run over some time steps, and in one over more of them."""

    value: NDArray[Any]
    longer: NDArray[Any]
    bits: Bits  # of the shape of `value`

    def runs_along_time(self, axis: int) -> bool:
        """Whether an axis grows with the sequence."""
        return bool(self.value.shape[axis] != self.longer.shape[axis])


@dataclass
class Node:
    """An operator of the trace with what it read, and what it gave but for its bits."""

    op: tf.Operation
    inputs: list[Seen]
    outputs: list[Seen]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first output."""
        return self.outputs[0].value.shape

    def attribute(self, name: str) -> Any:
        """An attribute of the operator."""
        return self.op.get_attr(name)


ELEMENTWISE = (
    "Abs Acos Acosh Add AddN AddV2 Angle Asin Asinh Atan Atan2 Atanh BesselI0e BesselI1e Betainc BiasAdd "
    "Bitcast BitwiseAnd BitwiseOr BitwiseXor BroadcastArgs Bucketize Cast Ceil CheckNumerics ClipByValue "
    "Complex ComplexAbs Conj Cos Cosh Digamma Div DivNoNan Elu EnsureShape Equal Erf Erfc Erfinv Exp "
    "Expm1 FakeQuantWithMinMaxArgs Floor FloorDiv FloorMod Greater GreaterEqual Identity Igamma Igammac "
    "Imag Inv Invert IsFinite IsInf IsNan LeakyRelu LeftShift Less LessEqual Lgamma Log Log1p LogicalAnd "
    "LogicalNot LogicalOr Maximum Minimum Mod Mul MulNoNan Ndtri Neg NextAfter NotEqual Pow "
    "PreventGradient Real RealDiv Reciprocal Relu Relu6 RightShift Rint Round Rsqrt SelectV2 Selu Sigmoid "
    "Sign Sin Sinh Snapshot Softplus Softsign Sqrt Square SquaredDifference StopGradient Sub Tan Tanh "
    "TruncateDiv TruncateMod Xdivy Xlog1py Xlogy Zeta"
).split()
# What they give comes of no time step; nor does what is drawn at random.
SOURCES = (
    "Const OnesLike RandomStandardNormal RandomUniform RandomUniformInt Rank ReadVariableOp "
    "StatelessRandomGetAlg StatelessRandomGetKeyCounter StatelessRandomNormalV2 StatelessRandomUniformIntV2 "
    "StatelessRandomUniformV2 StatelessTruncatedNormalV2 TruncatedNormal ZerosLike"
).split()

Rule = Callable[[Node], list[Bits]]
# operator -> its rule, and the inputs that are data; the others say where data goes. None: all are data.
RULES: dict[str, tuple[Rule, tuple[int, ...] | None]] = {}


def rule(operators: str, data: tuple[int, ...] | None = None) -> Callable[[Rule], Rule]:
    """Add the rule of these operators to RULES."""

    def add(function: Rule) -> Rule:
        for name in operators.split():
            RULES[name] = (function, data)
        return function

    return add


def apply(node: Node) -> list[Bits]:
    """The bits of each output, from those of the inputs."""
    function, data = RULES.get(node.op.type, (mixed, None))
    places = [] if data is None else [s for i, s in enumerate(node.inputs) if i not in data]
    if any(union(s.bits) & TIME for s in places):  # where data goes depends on data
        function = mixed
    return [np.asarray(b, np.int64) for b in function(node)]


def nothing(shape: Sequence[int]) -> Bits:
    """No dependence, in a view that takes no memory, as weights are large."""
    return np.broadcast_to(np.int64(0), tuple(shape))


def union(bits: Bits) -> np.int64:
    """What any element depends on."""
    if not bits.size or not any(bits.strides):
        return np.int64(bits.flat[0] if bits.size else 0)
    return np.int64(np.bitwise_or.reduce(bits, axis=None))


def either(parts: Sequence[Bits], shape: Sequence[int]) -> Bits:
    """Element by element, as TensorFlow broadcasts."""
    parts = [p for p in parts if union(p)]
    return np.broadcast_to(reduce(np.bitwise_or, parts), tuple(shape)) if parts else nothing(shape)


def gathered(bits: Bits, axes: Sequence[int]) -> Bits:
    """What any element along these axes depends on; they stay, of length 1."""
    return np.bitwise_or.reduce(bits, axis=tuple(axes), keepdims=True) if axes else bits


def along(seen: Seen, axes: Sequence[int], bit: np.int64) -> np.int64:
    """That bit where one of the axes runs along time."""
    return bit if any(seen.runs_along_time(a) for a in axes) else np.int64(0)


def mixed(node: Node) -> list[Bits]:
    """An operator without a rule: every element depends on all of what it read."""
    everything = reduce(np.bitwise_or, (union(s.bits) for s in node.inputs), np.int64(0))
    if everything or any(o.runs_along_time(a) for o in node.outputs for a in range(o.value.ndim)):
        everything |= INDEX
    return [np.full(o.value.shape, everything) for o in node.outputs]


@rule(" ".join(ELEMENTWISE))
def _elementwise(node: Node) -> list[Bits]:
    if node.op.type == "BiasAdd" and node.attribute("data_format") != b"NHWC":
        return mixed(node)
    if node.op.type == "Bitcast" and node.shape != node.inputs[0].value.shape:
        return mixed(node)
    return [either([s.bits for s in node.inputs], node.shape)]


@rule("IdentityN")
def _each(node: Node) -> list[Bits]:
    return [s.bits for s in node.inputs]


@rule("Select")
def _select(node: Node) -> list[Bits]:
    """Its condition may be one number a row."""
    condition, *choices = (s.bits for s in node.inputs)
    condition = condition.reshape(condition.shape + (1,) * (choices[0].ndim - condition.ndim))
    return [either([condition, *choices], node.shape)]


@rule(" ".join(SOURCES))
def _of_nothing(node: Node) -> list[Bits]:
    return [nothing(o.value.shape) for o in node.outputs]


@rule("Shape ShapeN Size")
def _shape(node: Node) -> list[Bits]:
    return [np.where(o.value != o.longer, LENGTH, np.int64(0)) for o in node.outputs]


@rule("Fill", data=(1,))
def _fill(node: Node) -> list[Bits]:
    return [either([node.inputs[1].bits], node.shape)]


@rule("Range LinSpace")
def _count(node: Node) -> list[Bits]:
    """A count of time steps is their index; what it was counted up to is not of interest."""
    bits = reduce(np.bitwise_or, (union(s.bits) for s in node.inputs))
    return [np.full(node.shape, (bits & ~LENGTH) | (INDEX if bits & LENGTH else np.int64(0)))]
