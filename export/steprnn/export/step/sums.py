"""Rules of the operators that make one element of many.

Along time they are told by LENGTH, or by INDEX, as well: a sum of what is the same at every step is a matter
of how many there are, and of a window over it of where that is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from .rules import INDEX, LENGTH, TIME, Bits, Node, along, either, gathered, mixed, rule, union


@rule("All Any ArgMax ArgMin EuclideanNorm Max Mean Min Prod Sum", data=(0,))
def _reduced(node: Node) -> list[Bits]:
    data = node.inputs[0]
    axes = [int(a) % data.value.ndim for a in np.atleast_1d(node.inputs[1].value)]
    return [gathered(data.bits, axes).reshape(node.shape) | along(data, axes, LENGTH)]


@rule("Softmax LogSoftmax FFT IFFT RFFT IRFFT TopKV2", data=(0,))
def _over_the_last_axis(node: Node) -> list[Bits]:
    data = node.inputs[0]
    bits = gathered(data.bits, [-1]) | along(data, [-1], LENGTH)
    return [np.broadcast_to(bits, o.value.shape) for o in node.outputs]


@rule("Cumsum Cumprod CumulativeLogsumexp", data=(0,))
def _accumulated(node: Node) -> list[Bits]:
    data, axis = node.inputs[0], int(node.inputs[1].value)
    backwards = node.attribute("reverse")
    bits = np.flip(data.bits, axis) if backwards else data.bits
    bits = np.bitwise_or.accumulate(bits, axis)
    return [(np.flip(bits, axis) if backwards else bits) | along(data, [axis], INDEX)]


@rule("MatrixBandPart", data=(0,))
def _band(node: Node) -> list[Bits]:
    return [node.inputs[0].bits | along(node.inputs[0], [-2, -1], INDEX)]


@rule("MatMul BatchMatMul BatchMatMulV2 BatchMatMulV3")
def _product(node: Node) -> list[Bits]:
    names = ("transpose_a", "transpose_b") if node.op.type == "MatMul" else ("adj_x", "adj_y")
    left = "...km" if node.attribute(names[0]) else "...mk"
    right = "...nk" if node.attribute(names[1]) else "...kn"
    return [_contracted(f"{left},{right}->...mn", node)]


@rule("Einsum")
def _einsum(node: Node) -> list[Bits]:
    equation = node.attribute("equation").decode()
    if any(len({*term}) != len(term) for term in equation.replace("...", "").replace("->", ",").split(",")):
        return mixed(node)  # a diagonal
    return [_contracted(equation, node)]


def _contracted(equation: str, node: Node) -> Bits:
    """A sum of products. What two operands have in common is a sum, or stays."""
    terms, result = equation.split("->")
    result = _spelt(result, len(node.shape))
    parts = []
    for term, seen in zip(terms.split(","), node.inputs, strict=True):
        labels = _spelt(term, seen.value.ndim)
        summed = [a for a, label in enumerate(labels) if label not in result]
        bit = along(seen, summed, LENGTH)
        kept = [label for label in labels if label in result]
        if not union(seen.bits):
            parts.append(np.full((1,) * len(result), bit))
            continue
        bits = gathered(seen.bits, summed).squeeze(tuple(summed)) | bit
        order = sorted(range(len(kept)), key=lambda a: result.index(kept[a]))
        sizes = dict(zip(kept, bits.shape, strict=True))
        parts.append(bits.transpose(order).reshape([sizes.get(label, 1) for label in result]))
    return either(parts, node.shape)


def _spelt(term: str, rank: int) -> str:
    """The labels of a term, with a digit for each axis of an ellipsis, counted from its end."""
    hidden = rank - len(term.replace("...", ""))
    return term.replace("...", "".join(str(i) for i in reversed(range(hidden))))


@rule("Conv2D DepthwiseConv2dNative Conv2DBackpropInput MaxPool AvgPool")
def _windows(node: Node) -> list[Bits]:
    """Windows that slide over the two axes in the middle: each bit by itself, as zeros and ones."""
    kind = node.op.type
    data = node.inputs[2] if kind == "Conv2DBackpropInput" else node.inputs[0]
    others = [s for s in node.inputs if s is not data]
    if node.attribute("data_format") != b"NHWC" or any(union(s.bits) & TIME for s in others):
        return mixed(node)
    bits = gathered(data.bits, [-1])  # all channels in one
    size = node.attribute("ksize")[1:3] if kind.endswith("Pool") else node.inputs[1].value.shape[:2]
    steps = node.attribute("strides")[1:3]
    found = np.zeros((*node.shape[:-1], 1), np.int64)
    for bit in _bits_of(union(bits)):
        slid = _slid(node, ((bits & bit) != 0).astype(np.float32), tuple(size))
        found |= np.where(slid > 0, bit, np.int64(0))
    wide = [a + 1 for a in range(2) if size[a] > 1 or steps[a] > 1]
    return [np.broadcast_to(found | along(data, wide, INDEX), node.shape)]


def _slid(node: Node, ones: Any, size: tuple[int, ...]) -> Any:
    """The same windows over one channel of zeros and ones: above zero where a window meets a one."""
    names = ("strides", "padding", "dilations", "explicit_paddings")
    options = {n: node.attribute(n) for n in names if n in node.op.node_def.attr}
    options["padding"] = options["padding"].decode()
    if node.op.type.endswith("Pool"):
        options = {n: options[n] for n in ("strides", "padding")} | {"ksize": node.attribute("ksize")}
        return tf.raw_ops.MaxPool(input=ones, **options).numpy()
    kernel = np.ones((*size, 1, 1), np.float32)
    if node.op.type == "Conv2DBackpropInput":
        sizes = [*node.shape[:-1], 1]
        return tf.raw_ops.Conv2DBackpropInput(
            input_sizes=sizes, filter=kernel, out_backprop=ones, **options
        ).numpy()
    return tf.raw_ops.Conv2D(input=ones, filter=kernel, **options).numpy()


def _bits_of(everything: np.int64) -> list[np.int64]:
    return [np.int64(1 << i) for i in range(63) if int(everything) >> i & 1]
