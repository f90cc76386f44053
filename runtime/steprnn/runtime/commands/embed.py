"""`steprnn embed`: a vector of each text, as JSON lines or as an array of NumPy."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .. import atomic
from ..bulk.records import digits
from ..errors import UsageError
from ..model import Model
from ..texts import reading, tasks
from ..texts.batches import Task
from . import _texts

HELP = "make a vector of each text, as JSON lines or .npy"
EXAMPLE = "  steprnn embed lyrics.bundle lines.txt --normalize --out vectors.npy"
NEEDS: dict[str, str] = {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the texts come from, what a vector is, and the engine."""
    _texts.add_arguments(parser)
    parser.add_argument(
        "--pool", choices=reading.POOLS, default="last", help="the state after the text, or the mean of all"
    )
    parser.add_argument("--normalize", action="store_true", help="make each vector's length 1")
    parser.add_argument(
        "--out", metavar="FILE", help="a .npy file, float32 [texts, units] (default: JSON lines to stdout)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Embed each text, to stdout or into a file that appears whole."""
    out = None if arguments.out is None else Path(arguments.out)
    if out is not None and out.suffix.lower() != ".npy":
        raise UsageError(f"--out {out} does not end in .npy; JSON lines go to stdout")
    with nullcontext() if out is None else atomic.new_file(out) as file:
        array = None if file is None else _Array(file)

        def task(model: Model) -> Task[NDArray[np.float32]]:
            if array is not None:
                array.begin(model.initial_state[reading.pooled_state(model, arguments.pool)].size)
            return tasks.embedding(model, arguments.pool, arguments.normalize, arguments.unknown)

        def write(fields: dict[str, Any], vector: NDArray[np.float32]) -> None:
            if array is None:
                _texts.put(fields, embedding=digits(vector.tolist()))
            else:
                array.add(vector)

        code = _texts.run(arguments, task, write, str)
        if array is not None:
            array.end()
    return code


class _Array:
    """A .npy file that grows by rows; its header is written again at the end, in the room it had."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rows = 0

    def begin(self, units: int) -> None:
        self._units = units
        self._header()

    def add(self, row: NDArray[np.float32]) -> None:
        self._file.write(row.astype("<f4").tobytes())
        self._rows += 1

    def end(self) -> None:
        self._file.seek(0)
        self._header()

    def _header(self) -> None:
        shape = (self._rows, self._units)
        record = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, record)
