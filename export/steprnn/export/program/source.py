"""The ONNX graph of a step at batch 1, where all shapes are known and what depends on them is constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from steprnn.runtime.errors import ExportError

SHAPES = ("Shape", "Size")  # operators whose result is known when shapes are
DTYPES = {"float32": False, "int32": True, "int64": True, "bool": True, "uint8": True, "int8": True}


@dataclass(frozen=True)
class Source:
    """Nodes in their order; of each tensor its shape and NumPy dtype, and its value where it is constant."""

    nodes: list[Any]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, np.dtype[Any]]
    constants: dict[str, NDArray[Any]]


def read(model: onnx.ModelProto) -> Source:
    """Run the graph once at batch 1 with every tensor as an output, to see shapes, dtypes and constants."""
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    for value in (*seen.graph.input, *seen.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    made = [name for node in seen.graph.node for name in node.output if name]
    declared = {value.name for value in seen.graph.output}
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made if name not in declared)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        seen.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {}
    for value in seen.graph.input:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        feeds[value.name] = np.zeros(shape, dtype)
    results = dict(zip(made, session.run(made, feeds), strict=True))
    constants = {t.name: numpy_helper.to_array(t) for t in seen.graph.initializer}
    arrays = feeds | constants | results
    for node in seen.graph.node:
        if node.op_type in SHAPES or all(name in constants for name in node.input if name):
            constants |= {name: results[name] for name in node.output if name}
    for name, array in arrays.items():
        if array.dtype.name not in DTYPES:
            raise ExportError(f"the step computes {name!r} in {array.dtype}, which a step program has not")
        if array.size == 0 and name not in constants:
            raise ExportError(f"the step computes {name!r} of no elements, which a step program has not")
    nodes = [node for node in seen.graph.node if not all(name in constants for name in node.output if name)]
    return Source(
        nodes,
        {name: array.shape for name, array in arrays.items()},
        {name: array.dtype for name, array in arrays.items()},
        constants,
    )
