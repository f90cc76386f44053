"""TFLite: the step as the one signature, declared for batch 1 and resizable to any other."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from steprnn.runtime.atomic import write_bytes
from steprnn.runtime.claims import temporary_folder
from steprnn.runtime.errors import ExportError
from steprnn.runtime.parity.reference import Arrays

from ..step.contract import Step
from . import integers, operators, saved_model

METHODS = {
    "float32": "float32 weights",
    "float16": "float16 weights (float16 quantization)",
    "int8": "dynamic-range quantization (int8 weights)",
    "int16x8": "static quantization (int8 weights, int16 activations and states)",
}


def write(step: Step, path: Path, variant: str = "float32", seen: Arrays | None = None) -> None:
    """Write one flatbuffer of builtin operators; int16x8 takes its ranges from what was `seen`.

    That is inputs and states before a step, `[rows, ...]` by name.

    Raises `ExportError` where the converter refuses the step, or an operator is not on the list.
    """
    in_integers = variant == "int16x8"
    with temporary_folder() as folder:
        saved_model.write(step, folder, edit=integers.in_range if in_integers else None)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=[step.name])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if variant not in ("float32", "int16x8"):
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if variant == "float16":
            converter.target_spec.supported_types = [tf.float16]
        try:
            if in_integers:
                flatbuffer = integers.converted(converter, step, seen or {})
            else:
                flatbuffer = bytes(converter.convert())
        except ExportError:
            raise
        except Exception as error:  # the converter raises whatever MLIR gives it
            raise ExportError(f"the TFLite converter refuses the step: {_reason(error)}") from error
    operators.check_tflite(flatbuffer)
    write_bytes(path, flatbuffer)


def _reason(error: Exception) -> str:
    """The line of MLIR's pages that names the operator."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    marks = ("failed to legalize", "is neither a custom op", "ops:")
    named = [line for line in lines if any(mark in line for mark in marks)]
    return (named or lines or [type(error).__name__])[0]
