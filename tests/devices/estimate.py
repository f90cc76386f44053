"""From measured steps to what each kind of work takes on a board, for `steprnn inspect --target`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steprnn.export.inspect.device import counts
from steprnn.export.program import encoding, fusing, lowering, source
from steprnn.export.program.reading import Program
from steprnn.export.program.selftest import with_selftest
from steprnn.runtime.engines.native.library import Streams, aligned
from steprnn.runtime.package import c

Floats = np.ndarray[Any, Any]
SIZES = ((16, 4), (40, 12), (64, 1))  # units, features
CELLS = ("lstm", "gru")


def cells(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Steps of single cells, each as a program and as C in a folder."""
    from export.program.cells import cell_graph

    for variant in encoding.VARIANTS:
        for cell in CELLS:
            for units, features in SIZES:
                model, spec = cell_graph(cell, units, features)
                low = lowering.lower(source.read(model), spec)
                block = encoding.program(low, fusing.fused(low.operations), spec, variant, "a test", {})
                out = folder / f"{cell}-{units}-{features}-{variant}"
                out.mkdir()
                path = out / "step.program"
                path.write_bytes(with_selftest(block))
                data = np.fromfile(path, np.uint32)
                words = aligned(len(data))
                words[:] = data
                c.write_program(out, words, Streams(words).arena_bytes)
                yield path, out


def fitted(steps: Sequence[tuple[Path, int]], padded: bool) -> dict[str, Any]:
    """What each kind of work takes, of programs and what a step of each took.

    `error` is the largest share by which a program was missed where it was left out of the fit.
    """
    found = [counts(Program(path), padded) or {} for path, _ in steps]
    names = sorted({name for each in found for name in each})
    work = np.array([[each.get(name, 0) for name in names] for each in found], float)
    took = np.array([n for _, n in steps], float)

    def solve(rows: Floats) -> Floats:
        """Least squares of shares, without what would take less than nothing."""
        used = work[rows].any(axis=0)
        while True:
            solved: Floats = np.zeros(len(names))
            shares = work[rows][:, used] / took[rows, None]
            solved[used] = np.linalg.lstsq(shares, np.ones(rows.sum()), rcond=None)[0]
            if (solved >= 0).all():
                return solved
            used &= solved > 0

    errors = []
    for i in range(len(steps)):
        rest = np.arange(len(steps)) != i
        errors.append(abs(work[i] @ solve(rest) / took[i] - 1))
    each = solve(np.ones(len(steps), bool))
    return {"each": {n: round(float(v), 3) for n, v in zip(names, each, strict=True)}, "error": max(errors)}
