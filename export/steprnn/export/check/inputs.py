"""Inputs that a user gives to be checked on, such as recorded signals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steprnn.runtime.errors import UsageError
from steprnn.runtime.parity.reference import Arrays
from steprnn.runtime.spec import TensorSpec

from ..step.contract import Step

LEAST = 16  # time steps of a run


def read_inputs(path: Path, step: Step) -> dict[str, Arrays]:
    """Arrays `[steps, rows, ...]` by input name from an .npz file, under the name of the file.

    Raises `UsageError` where one is missing, of another shape or kind, or not finite.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
    except Exception as error:  # a damaged zip raises what the zip and npy readers think of it
        raise UsageError(f"--inputs {path} is not an .npz file of arrays ({error})") from None
    names = [t.name for t in step.taken]
    if sorted(held) != sorted(names):
        got = ", ".join(sorted(held)) or "nothing"
        raise UsageError(f"--inputs {path} holds {got}; expected the inputs of the step, {', '.join(names)}")
    arrays = {t.name: _judged(path, t, held[t.name]) for t in step.taken}
    sizes = {name: array.shape[:2] for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} [{s[0]}, {s[1]}]" for name, s in sizes.items())
        raise UsageError(f"--inputs {path}: expected as many steps and rows of each input, got {told}")
    return {path.name: arrays}


def _judged(path: Path, t: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    expected = ", ".join(["steps", "rows", *map(str, t.shape)])
    if array.ndim != 2 + len(t.shape) or array.shape[2:] != t.shape or array.shape[0] < LEAST:
        got = f"{list(array.shape)}"
        raise UsageError(
            f"--inputs {path}: {t.name} is {got}, expected [{expected}] of {LEAST} steps or more"
        )
    if array.dtype.kind not in ("iu" if t.dtype == "int32" else "iuf") or not array.shape[1]:
        raise UsageError(f"--inputs {path}: {t.name} is {array.dtype}, expected {t.dtype} of one row or more")
    if not np.isfinite(array).all():
        raise UsageError(f"--inputs {path}: {t.name} is not finite everywhere")
    if t.tokens is not None and not ((array >= 0) & (array < t.tokens)).all():
        raise UsageError(f"--inputs {path}: {t.name} has tokens that are not from 0 to {t.tokens - 1}")
    return array.astype(t.dtype)
