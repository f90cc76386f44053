"""Weights as the kernels of a step program read them, in float32 or rounded to 8 bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def units(weights: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """What an integer of 8 bits counts, for each row or column along an axis, which is kept with size 1."""
    largest = np.abs(weights).max(axis=axis, keepdims=True)
    found: NDArray[np.float32] = np.maximum(largest, np.finfo(np.float32).tiny) / np.float32(127)
    return found


def rounded(weights: NDArray[np.float32], each: NDArray[np.float32]) -> NDArray[np.int8]:
    """The nearest multiples of these units, -127 to 127."""
    found: NDArray[np.int8] = np.clip(np.rint(weights / each), -127, 127).astype(np.int8)
    return found


def stored(weights: NDArray[np.float32], kind: int) -> tuple[NDArray[np.generic], NDArray[np.uint32] | None]:
    """Weights `[k, n]` in panels or blocks as a product of this type has them, and their scales."""
    k, n = weights.shape
    columns = np.zeros((k, -(-n // 16) * 16), np.float32)
    columns[:, :n] = weights
    if kind == 0:
        return _panels(columns), None
    scales = units(columns, axis=0)
    whole = rounded(columns, scales)
    if kind == 2:
        return _panels(whole), scales.ravel().view(np.uint32)
    deep = np.zeros((-(-k // 4) * 4, columns.shape[1]), np.int8)
    deep[:k] = whole
    blocks = deep.reshape(len(deep) // 4, 4, -1, 16).transpose(2, 0, 3, 1)
    sums = 128 * deep.astype(np.int32).sum(axis=0, dtype=np.int32)
    both = np.concatenate([scales.ravel().view(np.uint32), sums.view(np.uint32)])
    return np.ascontiguousarray(blocks), both


def _panels(columns: NDArray[np.generic]) -> NDArray[np.generic]:
    n = columns.shape[1]
    edges = [*range(0, n, 32), n]
    return np.concatenate(
        [np.ascontiguousarray(columns[:, a:b]).ravel() for a, b in zip(edges, edges[1:], strict=False)]
    )
