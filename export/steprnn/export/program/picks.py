"""Rules of ONNX operators that pick elements by indices which are computed at each step."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from .lowering import Lowering, Rule, attributes, refuse
from .values import Function as F  # noqa: N817 (named in nearly every line)
from .values import Gather, Reduction, View, row_strides

MOST = 64  # operations of one operator


def _top(low: Lowering, node: Any) -> None:
    """The k largest, or least, one after the other: each is then out of the running."""
    a, x = attributes(node), low.view(node.input[0])
    k, axis = int(low.needed(node, 1).reshape(-1)[0]), attributes(node).get("axis", -1) % len(x.shape)
    if k > MOST or x.integer:
        raise refuse(node, "of whole numbers" if x.integer else f"of {k}")
    moved = x.permuted([*(i for i in range(len(x.shape)) if i != axis), axis])
    if a.get("largest", 1):
        where, which, out_of_it = Reduction.WHERE_LARGEST, Reduction.LARGEST, -np.inf
    else:
        where, which, out_of_it = Reduction.WHERE_LEAST, Reduction.LEAST, np.inf
    outs = [low.out(node, i) if name else None for i, name in enumerate(node.output)]
    counted = low.constant(np.arange(moved.shape[-1], dtype=np.int32))
    for i in range(k):
        best, place = low.reduce(which, [moved], 1), low.reduce(where, [moved], 1)
        for out, found in zip(outs, (best, place), strict=False):
            if out is not None:
                last = out.sliced(axis, i, 1).permuted([*(j for j in range(len(x.shape)) if j != axis), axis])
                low.map(F.COPY, [_along(found, last.shape)], last)
        taken = low.map(F.EQUAL_INT, [counted, _along(place, moved.shape)])
        moved = low.map(F.SELECT, [taken, out_of_it, moved])


def _along(view: View, shape: tuple[int, ...]) -> View:
    """A view with another axis at its end, broadcast."""
    return View(view.buffer, view.offset, (*view.shape, 1), (*view.strides, 0)).broadcast(shape)


def _gather_elements(low: Lowering, node: Any) -> None:
    data, index = low.view(node.input[0]), low.view(node.input[1])
    axis = attributes(node).get("axis", 0) % len(data.shape)
    order = [*(i for i in range(len(data.shape)) if i != axis), axis]
    data, index = (low.compact(view.permuted(order)) for view in (data, index))
    rows, count = data.shape[-1], index.shape[-1]
    if data.shape[:-1] != index.shape[:-1] or prod(data.shape[:-1]) > MOST:
        raise refuse(node, "of this shape")
    made = low.new(index.shape, data.integer)
    for i in range(prod(data.shape[:-1])):  # each row has indices of its own
        low.operations.append(
            Gather(
                View(index.buffer, index.offset + i * count, (count,), (1,)),
                View(data.buffer, data.offset + i * rows, (rows,), (1,)),
                None,
                1,
                rows,
                1,
                View(made.buffer, made.offset + i * count, (count,), (1,)),
            )
        )
    low.alias(node.output[0], made.permuted([order.index(i) for i in range(len(order))]))


def _gather_nd(low: Lowering, node: Any) -> None:
    data, index = low.view(node.input[0]), low.view(node.input[1])
    batched, depth = attributes(node).get("batch_dims", 0), index.shape[-1]
    if prod(index.shape[:batched]) != 1 or prod(data.shape[:batched]) != 1:
        raise refuse(node, "with more than one batch")
    picked = data.shape[batched : batched + depth]
    place: View | None = None
    for i, (size, stride) in enumerate(zip(picked, row_strides(picked), strict=True)):
        part = index.sliced(len(index.shape) - 1, i, 1)
        below = low.map(F.LESS_INT, [part, low.constant(np.int32(0))])
        counted = low.map(F.SELECT, [below, low.map(F.ADD_INT, [part, low.constant(np.int32(size))]), part])
        term = low.map(F.MULTIPLY_INT, [counted, low.constant(np.int32(stride))])
        place = term if place is None else low.map(F.ADD_INT, [place, term])
    assert place is not None
    places = low.compact(place)
    low.operations.append(
        Gather(
            View(places.buffer, places.offset, (places.size,), (1,)),
            low.compact(data),
            None,
            1,
            prod(picked),
            prod(data.shape[batched + depth :]),
            low.out(node),
        )
    )


RULES: dict[str, Rule] = {"GatherElements": _gather_elements, "GatherND": _gather_nd, "TopK": _top}
