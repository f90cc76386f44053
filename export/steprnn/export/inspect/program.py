"""Reading step programs; nothing is run."""

from __future__ import annotations

from collections import Counter

from steprnn.runtime.bundle.packed import Place
from steprnn.runtime.pairing import Declared, Pair

from ..program.encoding import VERSION
from ..program.reading import Program
from .report import Inspection, Weights

FORMAT = "step program"


def read(path: Place, trust: bool = False) -> Inspection:
    """Inspect a step program; raises `BundleError` where it is not one."""
    program = Program(path)
    held = list(program.constants())
    nexts = tuple(Declared(f"next_{t.name}", t.dtype, t.shape) for t in program.states)
    steps = int(program.words[17])
    test = f"self-test of {steps} steps" if steps else "no self-test"
    return Inspection(
        str(path),
        FORMAT,
        f"version {VERSION}, {program.variant}",
        (*program.inputs, *program.states),
        (*program.outputs, *nexts),
        tuple(Pair(t.name, n.name, "the file's format") for t, n in zip(program.states, nexts, strict=True)),
        dict(Counter(name for name, _ in program.operations())),
        Weights.of(
            (
                "float32" if h.step is None else "int8",
                h.values.size * (4 if h.step is None else 1),
                h.read_bytes,
            )
            for h in held
        ),
        (),
        (f"{4 * len(program.words):,} bytes, an arena of {program.arena_bytes:,} for each stream, {test}",),
    )
