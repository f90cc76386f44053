"""What the tensors of a TFLite graph take at once, as TensorFlow Lite Micro lays them out in its arena."""

from __future__ import annotations

from math import prod
from typing import Any

ALIGNED = 16
SIZES = {"float32": 4, "float16": 2, "int32": 4, "int64": 8, "int16": 2, "int8": 1, "uint8": 1, "bool": 1}


def tensor_bytes(graph: Any, dtypes: dict[int, str]) -> int | None:
    """Bytes for one row: the largest tensors first, each at the first place that is free while it lives.

    None where a tensor has another type.
    """
    ends = len(graph.operators)
    lives = {int(i): (0, 0) for i in graph.inputs}
    for at, operator in enumerate(graph.operators):
        lives |= {int(i): (at, at) for i in operator.outputs}
        lives |= {int(i): (lives[int(i)][0], at) for i in operator.inputs if int(i) in lives}
    lives |= {int(i): (lives[int(i)][0], ends) for i in graph.outputs if int(i) in lives}
    if any(dtypes[graph.tensors[i].type] not in SIZES for i in lives):
        return None
    placed: list[tuple[int, int, int, int]] = []  # where it begins and ends, and when
    for i in sorted(lives, key=lambda i: (-_bytes(graph.tensors[i], dtypes), i)):
        size, (first, last) = _bytes(graph.tensors[i], dtypes), lives[i]
        place = 0
        for begin, end, since, until in sorted(placed):
            if since <= last and first <= until:
                if begin - place >= size:
                    break
                place = max(place, end)
        placed.append((place, place + size, first, last))
    return max((end for _, end, _, _ in placed), default=0)


def structure_bytes(graph: Any, channels: int) -> int:
    """About what stands beside the tensors on a machine of 64 bits, at most a sixth too much.

    A device of 32 bits has smaller pointers. Fitted to what the package tflite-micro told of five steps;
    `channels` is how many scales of weights there are in all, which have a multiplier each.
    """
    ends = len(graph.inputs) + len(graph.outputs)
    return 576 + 33 * len(graph.tensors) + 124 * len(graph.operators) + 96 * ends + 8 * channels


def _bytes(tensor: Any, dtypes: dict[int, str]) -> int:
    shape = [] if tensor.shape is None else [int(n) for n in tensor.shape]
    return -(-prod(shape) * SIZES[dtypes[tensor.type]] // ALIGNED) * ALIGNED
