"""The step program: a block of bytes that our own interpreter runs, for one row (docs/program-format.md)."""

from __future__ import annotations

from pathlib import Path

from steprnn.runtime.atomic import write_bytes

from ..program.encoding import program
from ..program.fusing import fused
from ..program.lowering import lower
from ..program.selftest import with_selftest
from ..program.simplifying import simplified
from ..program.source import read
from ..step.contract import Step
from . import onnx

METHODS = {
    "float32": "float32 weights",
    "int8": "int8 weights with a scale a column, activations rounded to 8 bits at each step",
    "int8-fixed": "as int8, with the gates of LSTM and GRU in integers",
    "int8-weights": "int8 weights with a scale a column, multiplied with float32 activations",
}


def write(step: Step, path: Path, variant: str = "float32") -> None:
    """Write one step program, lowered from the step's ONNX graph at batch 1.

    Raises `ExportError` with the operator's name where one is not in the format.
    """
    lowering = lower(read(onnx.convert(step)), step.spec)
    operations = fused(simplified(lowering, step.spec))
    block = program(lowering, operations, step.spec, variant, METHODS[variant], step.initial or {})
    write_bytes(path, with_selftest(block))
