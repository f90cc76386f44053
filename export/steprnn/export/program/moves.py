"""Rules of ONNX operators that only move elements: views where strides can say it, else copies."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from . import sums
from .lowering import Lowering, Rule, attributes, refuse
from .values import Function as F  # noqa: N817 (named in nearly every line)
from .values import Gather, View

MOST_COPIES = 64  # of one operator, where each is an operation


def _alias(low: Lowering, node: Any) -> None:
    low.alias(node.output[0], low.view(node.input[0]))


def _transpose(low: Lowering, node: Any) -> None:
    view = low.view(node.input[0])
    low.alias(node.output[0], view.permuted(attributes(node).get("perm", range(len(view.shape))[::-1])))


def _split(low: Lowering, node: Any) -> None:
    view = low.view(node.input[0])
    axis, start = attributes(node).get("axis", 0) % len(view.shape), 0
    for name in node.output:
        count = low.shape(name)[axis]
        low.alias(name, view.sliced(axis, start, count))
        start += count


def _slice(low: Lowering, node: Any) -> None:
    view = low.view(node.input[0])
    starts = [int(n) for n in low.needed(node, 1)]
    ends = [int(n) for n in low.needed(node, 2)]
    there = [len(node.input) > i and node.input[i] != "" for i in (3, 4)]
    axes = [int(n) for n in low.needed(node, 3)] if there[0] else [*range(len(starts))]
    steps = [int(n) for n in low.needed(node, 4)] if there[1] else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        picked = range(view.shape[axis])[start:end:step]
        view = view.sliced(axis % len(view.shape), picked.start, len(picked), step)
    low.alias(node.output[0], view)


def _concat(low: Lowering, node: Any) -> None:
    views, out = low.inputs(node), low.out(node)
    axis, start = attributes(node)["axis"] % len(out.shape), 0
    for view in views:
        low.map(F.COPY, [view], out.sliced(axis, start, view.shape[axis]))
        start += view.shape[axis]


def _expand(low: Lowering, node: Any) -> None:
    low.alias(node.output[0], low.view(node.input[0]).broadcast(low.shape(node.output[0])))


def _tile(low: Lowering, node: Any) -> None:
    view, repeats = low.view(node.input[0]), [int(n) for n in low.needed(node, 1)]
    shape = [n for pair in zip(repeats, view.shape, strict=True) for n in pair]
    strides = [n for stride in view.strides for n in (0, stride)]
    low.alias(node.output[0], replace(view, shape=tuple(shape), strides=tuple(strides)))


def _pad(low: Lowering, node: Any) -> None:
    view, pads = low.view(node.input[0]), [int(n) for n in low.needed(node, 1)]
    if (mode := attributes(node).get("mode", "constant")) != "constant" or len(node.input) > 3:
        raise refuse(node, f"in mode {mode}")
    value = low.view(node.input[2]) if len(node.input) > 2 and node.input[2] else 0.0
    low.alias(node.output[0], sums.padded(low, view, pads, value))


def _gather(low: Lowering, node: Any) -> None:
    data, index = low.view(node.input[0]), low.fixed(node.input[1])
    axis = attributes(node).get("axis", 0) % len(data.shape)
    if index is not None:
        _gather_fixed(low, node, data, axis, [int(i) % data.shape[axis] for i in index.ravel()])
        return
    places, out = low.compact(low.view(node.input[1])), low.out(node)
    shape = data.shape
    table = None
    if data.buffer.data is not None and not data.integer and data.in_a_row and axis == 0:
        table = low.needed(node, 0).reshape(shape[0], -1).astype(np.float32)
    low.operations.append(
        Gather(
            View(places.buffer, places.offset, (places.size,), (1,)),
            None if table is not None else low.compact(data),
            table,
            prod(shape[:axis]),
            shape[axis],
            prod(shape[axis + 1 :]),
            out,
        )
    )


def _gather_fixed(low: Lowering, node: Any, data: View, axis: int, places: list[int]) -> None:
    steps = {b - a for a, b in zip(places, places[1:], strict=False)} or {1}
    if len(steps) == 1 and 0 not in steps:
        low.alias(node.output[0], data.sliced(axis, places[0], len(places), steps.pop()))
        return
    if len(places) > MOST_COPIES:
        raise refuse(node, f"of {len(places)} constant indices")
    shape = (*data.shape[:axis], len(places), *data.shape[axis + 1 :])
    made = low.new(shape, data.integer)
    for i, place in enumerate(places):
        low.map(F.COPY, [data.sliced(axis, place, 1)], made.sliced(axis, i, 1))
    low.alias(node.output[0], made)


def _one_hot(low: Lowering, node: Any) -> None:
    index, depth = low.view(node.input[0]), int(low.needed(node, 1).reshape(-1)[0])
    off, on = low.needed(node, 2)
    axis = attributes(node).get("axis", -1) % (len(index.shape) + 1)
    shape = (*index.shape[:axis], depth, *index.shape[axis:])
    strides = (*index.strides[:axis], 0, *index.strides[axis:])
    counted = low.constant(np.arange(depth, dtype=np.int32).reshape(-1, *[1] * (len(index.shape) - axis)))
    index = index if index.integer else low.map(F.INT_OF_FLOAT, [index])
    hit = low.map(F.EQUAL_INT, [counted, View(index.buffer, index.offset, shape, strides)])
    low.map(F.SELECT, [hit, low.constant(np.asarray(on)), low.constant(np.asarray(off))], low.out(node))


def _cumulative(low: Lowering, node: Any) -> None:
    view, axis = low.view(node.input[0]), int(low.needed(node, 1).reshape(-1)[0])
    axis %= len(view.shape)
    a, count = attributes(node), view.shape[axis]
    if a.get("exclusive", 0) or a.get("reverse", 0) or count > MOST_COPIES or view.integer:
        raise refuse(node, f"over {count} elements" if count > MOST_COPIES else "of this kind")
    out = low.out(node)
    low.map(F.COPY, [view.sliced(axis, 0, 1)], out.sliced(axis, 0, 1))
    for i in range(1, count):
        pair = [out.sliced(axis, i - 1, 1), view.sliced(axis, i, 1)]
        low.map(F.ADD, pair, out.sliced(axis, i, 1))


def _depth_to_space(low: Lowering, node: Any) -> None:
    a, view = attributes(node), low.view(node.input[0])
    size, (batch, depth, height, width) = a["blocksize"], view.shape
    if a.get("mode", "DCR") == "DCR":
        shape, order = (batch, size, size, depth // size**2, height, width), (0, 3, 4, 1, 5, 2)
    else:
        shape, order = (batch, depth // size**2, size, size, height, width), (0, 1, 4, 2, 5, 3)
    low.alias(node.output[0], low.reshaped(view, shape).permuted(order))


def _space_to_depth(low: Lowering, node: Any) -> None:
    size, view = attributes(node)["blocksize"], low.view(node.input[0])
    batch, depth, height, width = view.shape
    split = low.reshaped(view, (batch, depth, height // size, size, width // size, size))
    low.alias(node.output[0], split.permuted((0, 3, 5, 1, 2, 4)))


RULES: dict[str, Rule] = {
    "Concat": _concat,
    "CumSum": _cumulative,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _alias,
    "Gather": _gather,
    "Identity": _alias,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Reshape": _alias,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _alias,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _alias,
}
