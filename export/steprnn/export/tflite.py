"""TFLite: the step as the signature `step`, declared for batch 1 and, where possible, resizable."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from steprnn.runtime.atomic import write_bytes
from steprnn.runtime.errors import ExportError

from . import operators, saved_model
from .derive import Step

METHODS = {"float32": "float32 weights", "int8": "dynamic-range quantization (int8 weights)"}

# Converting for batch 1 lets the converter fold the batch axis away, and the file can no longer be
# resized; a free batch axis turns FULLY_CONNECTED into the slower BATCH_MATMUL. So the graph is
# converted for a batch size that is no other dimension of a model, and told to be 1 afterwards.
PLACEHOLDER_BATCH = 7919


def write(step: Step, path: Path, variant: str = "float32") -> int | None:
    """Write one flatbuffer of builtin operators; the only batch size it takes, None where any.

    Raises `ExportError` where the converter refuses the step, or an operator is not on the list.
    """
    flatbuffer = _free_batch(_convert(step, variant, PLACEHOLDER_BATCH))
    batch = None
    if flatbuffer is None or not _resizes(flatbuffer, step):
        batch, flatbuffer = 1, _convert(step, variant, 1)
    operators.check_tflite(flatbuffer)
    write_bytes(path, flatbuffer)
    return batch


def _convert(step: Step, variant: str, batch: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        saved_model.save(step, Path(folder), batch)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[saved_model.SIGNATURE])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if variant == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        try:
            return bytes(converter.convert())
        except Exception as error:  # the converter raises whatever MLIR gives it
            raise ExportError(f"the TFLite converter refuses the step: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The line of MLIR's pages that names the operator."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [
        line
        for line in lines
        if "failed to legalize" in line or "is neither a custom op" in line or "ops:" in line
    ]
    return (named or lines or [type(error).__name__])[0]


def _free_batch(flatbuffer: bytes) -> bytes | None:
    """Tell every tensor of the placeholder's batch to be 1; None where the batch is part of a constant."""
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(flatbuffer))
    for graph in model.subgraphs:
        for operator in graph.operators:
            if model.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.RESHAPE:
                _free_reshape(model, graph, operator)
        for tensor in graph.tensors:
            shape = tensor.shape if tensor.shape is not None else []
            data = model.buffers[tensor.buffer].data
            if data is None or len(data) == 0:
                if len(shape) and shape[0] == PLACEHOLDER_BATCH:
                    tensor.shape[0] = 1
            elif PLACEHOLDER_BATCH in list(shape) or (
                tensor.type == schema.TensorType.INT32
                and PLACEHOLDER_BATCH in np.frombuffer(bytes(data), np.int32)
            ):
                return None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _free_reshape(model: Any, graph: Any, operator: Any) -> None:
    """Let a RESHAPE infer the batch: -1 in place of the placeholder."""
    buffer = model.buffers[graph.tensors[operator.inputs[1]].buffer]
    shape = np.frombuffer(bytes(buffer.data), np.int32).copy() if buffer.data is not None else np.array([])
    if (shape == PLACEHOLDER_BATCH).sum() == 1 and not (shape == -1).any():
        shape[shape == PLACEHOLDER_BATCH] = -1
        buffer.data = np.frombuffer(shape.tobytes(), np.uint8)
        if operator.builtinOptions is not None:
            operator.builtinOptions.newShape = shape


def _resizes(flatbuffer: bytes, step: Step) -> bool:
    interpreter = Interpreter(model_content=flatbuffer, num_threads=1)
    details = {
        d["name"].split(":")[0].removeprefix(f"{saved_model.SIGNATURE}_"): d
        for d in interpreter.get_input_details()
    }
    try:
        for t in (*step.spec.inputs, *step.spec.states):
            interpreter.resize_tensor_input(details[t.name]["index"], [3, *t.shape])
        interpreter.allocate_tensors()
        for t in (*step.spec.inputs, *step.spec.states):  # a token left over in memory may be out of range
            interpreter.set_tensor(details[t.name]["index"], np.zeros((3, *t.shape), t.dtype))
        interpreter.invoke()
    except RuntimeError:  # an operator whose shapes the converter fixed in another way
        return False
    return True
