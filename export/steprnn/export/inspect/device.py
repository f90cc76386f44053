"""What a step program takes of a device: bytes that are exact, and instructions from what was measured.

devices.json beside this file is written by tests/devices/table.py (`make devices`).
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from steprnn.runtime.bundle.open import read_bundle
from steprnn.runtime.errors import UsageError

from ..program.reading import Program
from .program import FORMAT as PROGRAM
from .report import Inspection

MEASURED = Path(__file__).with_name("devices.json")
FLOAT, INT8, INT8_WEIGHTS, INT8_FIXED = range(4)  # types of a product
COPY = 0  # of a map


def devices() -> dict[str, Any]:
    """What was measured of each device, by its name."""
    found: dict[str, Any] = json.loads(MEASURED.read_text(encoding="utf-8"))
    return found


def counts(program: Program, padded: bool) -> dict[str, int] | None:
    """How many weights of each type a step multiplies by, and units of gates; None where it does other work.

    Gathers and copies are not counted, as they are cheap beside them. `padded`: products in float32 compute
    whole panels, as kernels of registers do.
    """
    found: Counter[str] = Counter()
    for name, op in program.operations():
        if name == "product":
            kind, k, n, addends = op[1] & 255, op[2], op[3], op[1] >> 24
            inner, outer = op[1] >> 8 & 255, op[1] >> 16 & 255
            at = 9 + addends + 2 * inner
            rows = prod(op[at : at + outer])
            if kind in (INT8, INT8_FIXED):
                found["int8" if kind == INT8 else "int8-fixed"] += rows * -(-k // 4) * 4 * -(-n // 16) * 16
            elif kind == INT8_WEIGHTS:
                found["int8-weights"] += rows * k * n
            else:
                full, left = divmod(n, 32)
                rest = left if not padded or left <= 4 else (16 if left <= 16 else 32)
                found["float32"] += rows * k * (32 * full + rest)
        elif name in ("LSTM", "GRU", "LSTM fixed", "GRU fixed"):
            found[name] += op[1]
        elif name != "gather" and (name != "map" or op[1] & 255 != COPY):
            return None
    return dict(found)


def on_device(found: Inspection, path: Path, target: str) -> Inspection:
    """An inspection of a program, or of a bundle with programs, with what `notes` says of each.

    Raises `UsageError` where it holds no program, or nobody measured the device.
    """
    place = read_bundle(path)
    if found.format == PROGRAM:
        return replace(found, notes=(*found.notes, *notes(Program(place), target)))
    parts = tuple(
        replace(part, notes=(*part.notes, *notes(Program(place / Path(part.path).name), target)))
        if part.format == PROGRAM
        else part
        for part in found.parts
    )
    if not any(part.format == PROGRAM for part in parts):
        raise UsageError(
            f"{path} holds no step program; export with --formats program, or leave out --target"
        )
    return replace(found, parts=parts)


def notes(program: Program, target: str) -> tuple[str, ...]:
    """What the step takes of a device, a line each; raises `UsageError` where nobody measured it."""
    known = devices()
    if target not in known:
        raise UsageError(f"no device {target!r} was measured; choose one of {', '.join(known)}")
    device = known[target]
    size, arena = 4 * len(program.words), program.arena_bytes
    lines = [
        f"{target}: flash {size:,} bytes of program exactly, and about {device['code']:,} of code",
        f"{target}: RAM {arena:,} bytes of arena exactly, and about {device['stack']:,} of stack",
    ]
    counted = counts(program, device["padded"])
    if counted is None or not set(counted) <= set(device["each"]):
        lines.append(f"{target}: instructions are not estimated, as the step holds operations not measured")
    else:
        total = sum(device["each"][name] * count for name, count in counted.items())
        lines.append(
            f"{target}: about {round(total, -2):,.0f} {device['unit']} a step, estimated from measured ones; "
            f"the largest error seen is {device['error']:.0%}"
        )
    return tuple(lines)
