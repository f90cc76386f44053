"""Rules of ONNX operators that add up: matrix products, convolutions, reductions, pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steprnn.runtime.errors import ExportError

from .lowering import Lowering, Rule, attributes
from .values import Function as F  # noqa: N817 (named in nearly every line)
from .values import Product, Reduction, View

MOST_GROUPS = 64  # of a convolution, each a product of its own


def padded(low: Lowering, view: View, pads: Sequence[int], value: View | float = 0.0) -> View:
    """A copy with elements of a value around it: `pads` has those before each axis, then those after."""
    rank = len(view.shape)
    if not any(pads):
        return view
    for axis in range(rank):  # a negative pad takes elements away
        before, after = (min(n, 0) for n in (pads[axis], pads[rank + axis]))
        view = view.sliced(axis, -before, view.shape[axis] + before + after)
    pads = [max(n, 0) for n in pads]
    shape = [n + pads[i] + pads[rank + i] for i, n in enumerate(view.shape)]
    fill = value if isinstance(value, View) else low.constant(value)
    out = low.map(F.COPY, [fill], low.new(shape, view.integer))
    inside = out
    for axis in range(rank):
        inside = inside.sliced(axis, pads[axis], view.shape[axis])
    low.map(F.COPY, [view], inside)
    return out


def _multiplied(low: Lowering, x: View, weights: NDArray[Any], y: View) -> None:
    """`y = x @ weights`, of one row or more."""
    low.operations.append(Product(x, len(x.shape) - 1, np.asarray(weights, np.float32), y))


def _matmul(low: Lowering, node: Any) -> None:
    a, b = low.inputs(node)
    left, right = (low.fixed(name) for name in node.input)
    out = low.out(node)
    if right is not None and right.ndim == 2:
        _multiplied(low, a, right, out)
        return
    if right is not None and right.ndim == 1:
        _multiplied(low, a, right[:, None], View(out.buffer, out.offset, (*out.shape, 1), (*out.strides, 0)))
        return
    if left is not None and left.ndim == 2 and len(b.shape) == 2:
        _multiplied(low, b.permuted((1, 0)), left.T, out.permuted((1, 0)))
        return
    if len(a.shape) < 2 or len(b.shape) < 2:
        raise ExportError("the step holds MatMul of a vector, which a step program has not")
    batch, (m, k), n = out.shape[:-2], a.shape[-2:], b.shape[-1]
    a = a.broadcast((*batch, m, k))
    b = b.broadcast((*batch, k, n))
    shape = (*batch, m, n, k)
    rows = View(a.buffer, a.offset, shape, (*a.strides[:-1], 0, a.strides[-1]))
    columns = View(b.buffer, b.offset, shape, (*b.strides[:-2], 0, b.strides[-1], b.strides[-2]))
    low.reduce(Reduction.DOT, [rows, columns], 1, out)


def _gemm(low: Lowering, node: Any) -> None:
    a = attributes(node)
    x, weights = low.view(node.input[0]), low.needed(node, 1)
    x = x.permuted((1, 0)) if a.get("transA", 0) else x
    weights = (weights.T if a.get("transB", 0) else weights) * np.float32(a.get("alpha", 1.0))
    out = low.out(node)
    if len(node.input) < 3 or not node.input[2]:
        _multiplied(low, x, weights, out)
        return
    product = low.new(out.shape)
    _multiplied(low, x, weights, product)
    added, beta = low.view(node.input[2]), a.get("beta", 1.0)
    low.map(F.ADD, [product, added if beta == 1.0 else low.map(F.MULTIPLY, [added, beta])], out)


def _einsum(low: Lowering, node: Any) -> None:
    equation = attributes(node)["equation"].replace(" ", "")
    given, _, result = equation.partition("->")
    labels = given.split(",")
    if not result or "." in equation or any(len(set(part)) < len(part) for part in labels) or len(labels) > 2:
        raise ExportError(f"the step holds Einsum {equation!r}, which a step program has not")
    views, out = low.inputs(node), low.out(node)
    inner = [c for c in dict.fromkeys("".join(labels)) if c not in result]
    sizes = {
        c: n for part, view in zip(labels, views, strict=True) for c, n in zip(part, view.shape, strict=True)
    }
    weights = low.fixed(node.input[-1]) if len(labels) == 2 else None
    columns = [c for c in labels[-1] if c not in labels[0]]
    summed = [c for c in labels[-1] if c in labels[0]]
    if weights is not None and summed and set(summed) == set(inner) and result.endswith("".join(columns)):
        rows = [c for c in result if c not in columns]
        x = views[0].permuted([labels[0].index(c) for c in (*rows, *summed)])
        matrix = weights.transpose([labels[1].index(c) for c in (*summed, *columns)])
        matrix = matrix.reshape(prod(sizes[c] for c in summed), -1)
        shape = (*(sizes[c] for c in rows), matrix.shape[1])
        y = View(out.buffer, out.offset, shape, (*out.strides[: len(rows)], 1))
        low.operations.append(Product(x, len(rows), matrix, y))
        return
    order = [*result, *inner]
    seen = []
    for part, view in zip(labels, views, strict=True):
        strides = [view.strides[part.index(c)] if c in part else 0 for c in order]
        seen.append(View(view.buffer, view.offset, tuple(sizes[c] for c in order), tuple(strides)))
    if len(seen) == 1 and not inner:
        low.map(F.COPY, seen, out)
    elif not inner:
        low.map(F.MULTIPLY, seen, out)
    else:
        low.reduce(Reduction.DOT if len(seen) == 2 else Reduction.SUM, seen, len(inner), out)


def _windows(view: View, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> View:
    """`[outer..., places..., kernel...]` of the last axes, without copying."""
    lead = len(view.shape) - len(kernel)
    places, place_strides, inner = [], [], []
    for i, (size, step, dilation) in enumerate(zip(kernel, strides, dilations, strict=True)):
        places.append((view.shape[lead + i] - dilation * (size - 1) - 1) // step + 1)
        place_strides.append(view.strides[lead + i] * step)
        inner.append(view.strides[lead + i] * dilation)
    shape = (*view.shape[:lead], *places, *kernel)
    return View(view.buffer, view.offset, shape, (*view.strides[:lead], *place_strides, *inner))


def _geometry(node: Any, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Strides, dilations and pads of a convolution or a pool."""
    a, rank = attributes(node), len(kernel)
    if a.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or a.get("ceil_mode", 0):
        raise ExportError(f"the step holds {node.op_type} that pads by itself, which a step program has not")
    pads = list(a.get("pads", [0] * 2 * rank))
    return list(a.get("strides", [1] * rank)), list(a.get("dilations", [1] * rank)), pads


def _convolved(
    low: Lowering,
    x: View,
    weights: NDArray[Any],
    strides: list[int],
    dilations: list[int],
    groups: int,
    out: View,
    turned: bool,
) -> None:
    """A convolution of `[channels, space...]` with `[made, channels / groups, kernel...]` into `out`.

    `turned` is the kernel from its end to its beginning, by the strides of x: weights stay as they are.
    """
    kernel, rank = weights.shape[2:], weights.ndim - 2
    seen = _windows(x, kernel, strides, dilations)  # [channels, places..., kernel...]
    for axis in range(1 + rank, 1 + 2 * rank) if turned else ():
        seen = seen.sliced(axis, seen.shape[axis] - 1, seen.shape[axis], -1)
    made, each = weights.shape[0] // groups, weights.shape[1]
    spread = [*range(1, 1 + rank), 0, *range(1 + rank, 1 + 2 * rank)]  # [places..., channels, kernel...]
    if groups > 1 and each == 1:  # one dot for each channel and place
        shape = (groups, made, *seen.shape[1:])
        view = View(seen.buffer, seen.offset, shape, (seen.strides[0], 0, *seen.strides[1:]))
        kernels = low.constant(weights)
        steps = (*(kernels.strides[0] * n for n in (made, 1)), *[0] * rank, *kernels.strides[2:])
        result = View(out.buffer, out.offset, shape[: 2 + rank], (out.strides[0] * made, *out.strides))
        low.reduce(Reduction.DOT, [view, View(kernels.buffer, 0, shape, steps)], rank, result)
        return
    if groups > MOST_GROUPS:
        raise ExportError(f"the step holds Conv of {groups} groups, which a step program has not")
    for i in range(groups):
        matrix = np.ascontiguousarray(weights[i * made :][:made].reshape(made, -1).T, np.float32)
        y = out.sliced(0, i * made, made).permuted([*range(1, 1 + rank), 0])
        x = seen.sliced(0, i * each, each).permuted(spread)
        low.operations.append(Product(x, rank, matrix, y))


def _conv(low: Lowering, node: Any) -> None:
    x, weights = low.view(node.input[0]), low.needed(node, 1)
    strides, dilations, pads = _geometry(node, weights.shape[2:])
    x = padded(low, x.sliced(0, 0, 1), [0, 0, *pads[: len(pads) // 2], 0, 0, *pads[len(pads) // 2 :]])
    _with_bias(low, node, x, weights, strides, dilations, attributes(node).get("group", 1), False)


def _with_bias(
    low: Lowering,
    node: Any,
    x: View,
    weights: NDArray[Any],
    strides: list[int],
    dilations: list[int],
    groups: int,
    turned: bool,
) -> None:
    out = low.out(node)
    if out.shape[0] != 1:
        raise ExportError(f"the step holds {node.op_type} over other axes, which a step program has not")
    biased = len(node.input) > 2 and node.input[2]
    made = low.new(out.shape) if biased else out
    x, target = (View(v.buffer, v.offset, v.shape[1:], v.strides[1:]) for v in (x, made))
    _convolved(low, x, weights, strides, dilations, groups, target, turned)
    if biased:
        bias, axes = low.view(node.input[2]), len(out.shape) - 2
        shape, steps = (1, bias.size, *[1] * axes), (0, *bias.strides, *[0] * axes)
        low.map(F.ADD, [made, View(bias.buffer, bias.offset, shape, steps)], out)


def _conv_transpose(low: Lowering, node: Any) -> None:
    """The convolution, with the kernel turned round, of x with zeros between its elements."""
    x, weights = low.view(node.input[0]), low.needed(node, 1)
    a, kernel = attributes(node), weights.shape[2:]
    strides, dilations, pads = _geometry(node, kernel)
    rank = len(kernel)
    if a.get("group", 1) != 1 or "output_shape" in a:
        raise ExportError("the step holds ConvTranspose of groups, which a step program has not")
    extra = a.get("output_padding", [0] * rank)
    shape = [*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], strides, strict=True))]
    spread = low.filled(shape, 0.0)
    inside = spread
    for i, step in enumerate(strides):
        inside = inside.sliced(2 + i, 0, x.shape[2 + i], step)
    low.map(F.COPY, [x], inside)
    reach = [d * (n - 1) for d, n in zip(dilations, kernel, strict=True)]
    before = [r - p for r, p in zip(reach, pads[:rank], strict=True)]
    after = [r - p + e for r, p, e in zip(reach, pads[rank:], extra, strict=True)]
    wide = padded(low, spread, [0, 0, *before, 0, 0, *after])
    _with_bias(low, node, wide, weights.swapaxes(0, 1), [1] * rank, dilations, 1, True)


def _pool(low: Lowering, node: Any) -> None:
    kernel = attributes(node)["kernel_shape"]
    strides, dilations, pads = _geometry(node, kernel)
    x, largest = low.view(node.input[0]), node.op_type == "MaxPool"
    if len(node.output) > 1 or (any(pads) and not largest):
        raise ExportError(f"the step holds {node.op_type} of this kind, which a step program has not")
    half = len(pads) // 2
    x = padded(low, x, [0, 0, *pads[:half], 0, 0, *pads[half:]], -np.inf)
    seen = _windows(x, kernel, strides, dilations)
    if largest:
        low.reduce(Reduction.LARGEST, [seen], len(kernel), low.out(node))
    else:
        total = low.reduce(Reduction.SUM, [seen], len(kernel))
        low.map(F.DIVIDE, [total, float(prod(kernel))], low.out(node))


def _axes(low: Lowering, node: Any, rank: int) -> list[int]:
    a = attributes(node)
    if "axes" in a:
        axes = a["axes"]
    elif len(node.input) > 1 and node.input[1]:
        axes = low.needed(node, 1).ravel().tolist()
    else:
        axes = [] if a.get("noop_with_empty_axes", 0) else range(rank)
    return sorted(int(n) % rank for n in axes)


def _reduce(function: Reduction) -> Rule:
    def rule(low: Lowering, node: Any) -> None:
        view, integer = low.view(node.input[0]), low.view(node.input[0]).integer
        axes, view = _axes(low, node, len(view.shape)), low.floats(view)
        if not axes:
            low.alias(node.output[0], low.view(node.input[0]))
            return
        outer = [i for i in range(len(view.shape)) if i not in axes]
        moved = view.permuted([*outer, *axes])
        square = node.op_type == "ReduceSumSquare"
        total = low.reduce(function, [moved, moved] if square else [moved], len(axes))
        if node.op_type == "ReduceMean":
            total = low.map(F.DIVIDE, [total, float(prod(view.shape[i] for i in axes))])
        # Whole numbers are exact in float32 up to 2^24, and of truth values there are fewer.
        low.alias(node.output[0], low.map(F.INT_OF_FLOAT, [total]) if integer else total)

    return rule


def _where(function: Reduction) -> Rule:
    def rule(low: Lowering, node: Any) -> None:
        view, a = low.floats(low.view(node.input[0])), attributes(node)
        axis = a.get("axis", 0) % len(view.shape)
        if a.get("select_last_index", 0):
            raise ExportError(
                f"the step holds {node.op_type} of the last of equals, which a step program has not"
            )
        order = [i for i in range(len(view.shape)) if i != axis] + [axis]
        low.alias(node.output[0], low.reduce(function, [view.permuted(order)], 1))

    return rule


def _layer_normalization(low: Lowering, node: Any) -> None:
    x, a = low.view(node.input[0]), attributes(node)
    rank = len(x.shape)
    first = a.get("axis", -1) % rank
    if len(node.output) > 1:
        raise ExportError("the step holds LayerNormalization with statistics, which a step program has not")
    inner = rank - first
    count = float(prod(x.shape[first:]))

    def mean(*views: View) -> View:
        total = low.reduce(Reduction.DOT if len(views) == 2 else Reduction.SUM, views, inner)
        value = low.map(F.DIVIDE, [total, count])
        shape = (*value.shape, *[1] * inner)
        return replace(value, shape=shape, strides=(*value.strides, *[0] * inner))

    centred = low.map(F.SUBTRACT, [x, mean(x)])
    spread = low.map(F.ROOT, [low.map(F.ADD, [mean(centred, centred), a.get("epsilon", 1e-5)])])
    result = low.map(F.MULTIPLY, [low.map(F.DIVIDE, [centred, spread]), low.view(node.input[1])])
    if len(node.input) > 2 and node.input[2]:
        result = low.map(F.ADD, [result, low.view(node.input[2])])
    low.alias(node.output[0], result)


RULES: dict[str, Rule] = {
    "ArgMax": _where(Reduction.WHERE_LARGEST),
    "ArgMin": _where(Reduction.WHERE_LEAST),
    "AveragePool": _pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "LayerNormalization": _layer_normalization,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "ReduceMax": _reduce(Reduction.LARGEST),
    "ReduceMean": _reduce(Reduction.SUM),
    "ReduceMin": _reduce(Reduction.LEAST),
    "ReduceProd": _reduce(Reduction.PROD),
    "ReduceSum": _reduce(Reduction.SUM),
    "ReduceSumSquare": _reduce(Reduction.DOT),
}
