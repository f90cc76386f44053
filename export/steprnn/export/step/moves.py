"""Rules of the operators that move elements, and of those that look them up.

Along time they are told by INDEX too, as where an element ends up is then a matter of its index: over the few
steps of a run a shift by 84 shows nothing of what it moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from .rules import INDEX, TIME, Bits, Node, Seen, along, either, gathered, nothing, rule, union

ADDITIONS = frozenset(
    "Add AddV2 Cast ConcatV2 ExpandDims GatherV2 Identity Neg Pack Reshape Squeeze StridedSlice Sub".split()
)


@rule("Reshape Squeeze ExpandDims", data=(0,))
def _reshaped(node: Node) -> list[Bits]:
    return [node.inputs[0].bits.reshape(node.shape)]


@rule("Transpose", data=(0,))
def _transposed(node: Node) -> list[Bits]:
    return [node.inputs[0].bits.transpose(node.inputs[1].value)]


@rule("BroadcastTo", data=(0,))
def _broadcast(node: Node) -> list[Bits]:
    return [np.broadcast_to(node.inputs[0].bits, node.shape)]


@rule("Tile", data=(0,))
def _tiled(node: Node) -> list[Bits]:
    data, times = node.inputs
    repeats = (a for a, n in enumerate(times.value) if n > 1 and data.value.shape[a] > 1)
    return [np.tile(data.bits, times.value) | along(node.outputs[0], list(repeats), INDEX)]


@rule("Pad PadV2 MirrorPad", data=(0, 2))
def _padded(node: Node) -> list[Bits]:
    data, widths = node.inputs[0], node.inputs[1].value
    moved = bool(union(node.inputs[1].bits))  # by the length: perhaps not in so short a run
    axes = [a for a, pair in enumerate(widths) if pair.any() or moved]
    if node.op.type == "MirrorPad":
        mode = "reflect" if node.attribute("mode") == b"REFLECT" else "symmetric"
        bits = np.pad(data.bits, widths, mode)  # type: ignore[call-overload]
    else:
        bits = np.pad(data.bits, widths)
    return [bits | along(node.outputs[0], axes, INDEX)]


@rule("ReverseV2", data=(0,))
def _reversed(node: Node) -> list[Bits]:
    data, axes = node.inputs[0], np.atleast_1d(node.inputs[1].value).tolist()
    return [np.flip(data.bits, axes) | along(data, axes, INDEX)]


@rule("Roll", data=(0,))
def _rolled(node: Node) -> list[Bits]:
    data, shifts, axes = node.inputs
    bits = np.roll(data.bits, shifts.value, tuple(np.atleast_1d(axes.value).tolist()))
    return [bits | along(data, np.atleast_1d(axes.value).tolist(), INDEX)]


@rule("StridedSlice", data=(0,))
def _sliced(node: Node) -> list[Bits]:
    data, *places = node.inputs
    masks = {n: node.attribute(n) for n in node.op.node_def.attr if n.endswith("_mask")}

    def index(run: Sequence[NDArray[Any]]) -> tuple[Any, ...]:
        begin, end, strides = run
        found: list[Any] = []
        for i in range(len(begin)):
            has = {name for name, mask in masks.items() if mask >> i & 1}
            if "ellipsis_mask" in has:
                found.append(Ellipsis)
            elif "new_axis_mask" in has:
                found.append(None)
            elif "shrink_axis_mask" in has:
                found.append(int(begin[i]))
            else:
                first = None if "begin_mask" in has else int(begin[i])
                last = None if "end_mask" in has else int(end[i])
                found.append(slice(first, last, int(strides[i])))
        return tuple(found)

    now, longer = index([p.value for p in places]), index([p.longer for p in places])
    return [data.bits[now] | _of_a_part(node, data, now, longer) | _bounded(node, range(1, 4))]


@rule("Slice", data=(0,))
def _cut(node: Node) -> list[Bits]:
    data, begin, size = node.inputs

    def index(begin: NDArray[Any], size: NDArray[Any]) -> tuple[Any, ...]:
        return tuple(slice(int(b), None if n < 0 else int(b + n)) for b, n in zip(begin, size, strict=True))

    now, longer = index(begin.value, size.value), index(begin.longer, size.longer)
    return [data.bits[now] | _of_a_part(node, data, now, longer) | _bounded(node, (1, 2))]


def _bounded(node: Node, bounds: Iterable[int]) -> np.int64:
    """INDEX where a bound is made of the length by more than adding: today the length may be below it."""
    follows = any(union(node.inputs[i].bits) and not _adds_alone(node.op.inputs[i].op) for i in bounds)
    return INDEX if follows else np.int64(0)


def _adds_alone(op: tf.Operation) -> bool:
    """Whether what it gives is a length, or a length and a number."""
    if op.type in ("Shape", "Const", "Placeholder"):
        return True
    return op.type in ADDITIONS and all(_adds_alone(i.op) for i in op.inputs)


def _of_a_part(node: Node, data: Seen, now: tuple[Any, ...], longer: tuple[Any, ...]) -> np.int64:
    """INDEX where a part of the time steps is taken that is not the last one, or as many rows of a table."""
    taken = sum(i is not None and i is not Ellipsis for i in now)
    axis = 0
    for one, other in zip(now, longer, strict=True):
        if one is None:
            continue
        if one is Ellipsis:
            axis += data.value.ndim - taken
            continue
        steps, more = data.value.shape[axis], data.longer.shape[axis]
        if steps != more:
            if not (_is_whole(one, other, steps, more) or _is_last(one, other, steps, more)):
                return INDEX
        elif one != other and node.outputs[0].value.shape != node.outputs[0].longer.shape:
            return INDEX
        axis += 1
    return np.int64(0)


def _is_whole(now: Any, longer: Any, steps: int, more: int) -> bool:
    """Whether all is taken whatever the length: an end that does not move with it may lie behind it today."""
    if not isinstance(now, slice) or now.start not in (None, 0) or now.step not in (None, 1):
        return False
    return now.stop is None or (now.stop == steps and longer.stop == more)


def _is_last(now: Any, longer: Any, steps: int, more: int) -> bool:
    return bool(np.atleast_1d(np.arange(steps)[now]).tolist() == [steps - 1]) and bool(
        np.atleast_1d(np.arange(more)[longer]).tolist() == [more - 1]
    )


@rule("SpaceToBatchND BatchToSpaceND", data=(0,))
def _blocks(node: Node) -> list[Bits]:
    """A dilated window takes every nth element."""
    data, sizes, edges = node.inputs
    name = node.op.op_def.input_arg[2].name
    call = getattr(tf.raw_ops, node.op.type)
    bits = call(input=np.array(data.bits), block_shape=sizes.value, **{name: edges.value}).numpy()
    axes = [a + 1 for a, n in enumerate(sizes.value) if n > 1 or edges.value[a].any()]
    return [bits | along(data, axes, INDEX)]


@rule("ConcatV2")
def _concatenated(node: Node) -> list[Bits]:
    *parts, axis = node.inputs
    bits = np.concatenate([p.bits for p in parts], int(axis.value))
    return [bits | along(node.outputs[0], [int(axis.value)] if len(parts) > 1 else [], INDEX)]


@rule("Pack")
def _stacked(node: Node) -> list[Bits]:
    return [np.stack([s.bits for s in node.inputs], node.attribute("axis"))]


@rule("Unpack")
def _unstacked(node: Node) -> list[Bits]:
    (data,), axis = node.inputs, node.attribute("axis")
    return [np.take(data.bits, i, axis) | along(data, [axis], INDEX) for i in range(len(node.outputs))]


@rule("Split", data=(1,))
def _split(node: Node) -> list[Bits]:
    return _in_parts(node, node.inputs[1], int(node.inputs[0].value))


@rule("SplitV", data=(0,))
def _split_unevenly(node: Node) -> list[Bits]:
    return _in_parts(node, node.inputs[0], int(node.inputs[2].value))


def _in_parts(node: Node, data: Seen, axis: int) -> list[Bits]:
    ends = np.cumsum([o.value.shape[axis] for o in node.outputs])
    parts = np.split(data.bits, ends[:-1], axis)
    return [p | along(data, [axis] if len(parts) > 1 else [], INDEX) for p in parts]


@rule("GatherV2")
def _looked_up(node: Node) -> list[Bits]:
    """The rows of a table, or elements of the data itself."""
    data, indices, where = node.inputs
    axis, batch = int(where.value) % data.value.ndim, node.attribute("batch_dims")
    before, after = data.value.shape[:axis], data.value.shape[axis + 1 :]
    steps, more = data.value.shape[axis], data.longer.shape[axis]
    if not batch and not union(indices.bits) & TIME and union(data.bits):
        bits = np.take(data.bits, indices.value, axis)
        is_last = steps != more and _is_last(indices.value, indices.longer, steps, more)
        if is_last and _adds_alone(node.op.inputs[1].op):
            return [bits]
    else:
        bits = gathered(data.bits, [axis]) if union(data.bits) else nothing((*before, 1, *after))
        bits = bits.reshape((*before, *(1,) * (indices.value.ndim - batch), *after))
    places = indices.bits.reshape(
        (
            *indices.value.shape[:batch],
            *(1,) * (axis - batch),
            *indices.value.shape[batch:],
            *(1,) * len(after),
        )
    )
    return [either([bits, places], node.shape) | along(data, [axis], INDEX)]


@rule("ResourceGather", data=(1,))
def _looked_up_in_a_variable(node: Node) -> list[Bits]:
    indices = node.inputs[1].bits
    rest = len(node.shape) - indices.ndim
    return [np.broadcast_to(indices.reshape(indices.shape + (1,) * rest), node.shape)]


@rule("OneHot", data=(0, 2, 3))
def _one_hot(node: Node) -> list[Bits]:
    indices, axis = node.inputs[0].bits, node.attribute("axis")
    return [np.broadcast_to(np.expand_dims(indices, axis), node.shape)]
