"""TFLite: the step as the signature `step`, declared for batch 1 and resizable to any other."""

from __future__ import annotations

import tempfile
from pathlib import Path

import tensorflow as tf
from tensorflow.lite.tools import flatbuffer_utils

from steprnn.runtime.atomic import write_bytes
from steprnn.runtime.errors import ExportError

from . import saved_model
from .derive import Step

METHODS = {"float32": "float32 weights", "int8": "dynamic-range quantization (int8 weights)"}

# Converting for batch 1 lets the converter fold the batch axis away, and the file can no longer be
# resized; a free batch axis turns FULLY_CONNECTED into the slower BATCH_MATMUL. So the graph is
# converted for a batch size that is no other dimension of a model, and told to be 1 afterwards.
PLACEHOLDER_BATCH = 7919


def write(step: Step, path: Path, variant: str = "float32") -> None:
    """Write one flatbuffer of builtin operators; raises `ExportError` where an operator is not builtin."""
    if any(PLACEHOLDER_BATCH in t.shape for t in (*step.spec.inputs, *step.spec.states, *step.spec.outputs)):
        raise ExportError(f"a tensor of the step has a dimension of {PLACEHOLDER_BATCH}, kept for the batch")
    with tempfile.TemporaryDirectory() as folder:
        saved_model.write(step, Path(folder), batch=PLACEHOLDER_BATCH)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[saved_model.SIGNATURE])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if variant == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        try:
            flatbuffer = converter.convert()
        except Exception as error:  # the converter raises whatever MLIR gives it
            raise ExportError(f"the TFLite converter refuses the step: {error}") from error
    write_bytes(path, _with_batch_1(flatbuffer))


def _with_batch_1(flatbuffer: bytes) -> bytes:
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(flatbuffer))
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.shape is not None and len(tensor.shape) and tensor.shape[0] == PLACEHOLDER_BATCH:
                tensor.shape[0] = 1
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
