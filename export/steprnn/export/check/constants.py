"""The numbers that a graph file holds, of any format and precision, as what they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steprnn.runtime.engines import ENGINE_OF

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Constant:
    """A constant tensor of a graph: what its elements stand for, and how far each is rounded.

    `step` is the distance between two neighbouring values, as an array that broadcasts to `values`; None of
    a tensor of floats, whose `bits` are 32 or 16.
    """

    name: str
    values: Floats
    step: Floats | None = None
    bits: int = 32


def constants_of(path: Path) -> list[Constant]:
    """Those of an `.onnx`, `.tflite` or `.program` file, or of a SavedModel folder."""
    readers = {"onnx": _onnx, "litert": _tflite, "native": _program}
    reader = readers.get(ENGINE_OF.get(path.suffix[1:].lower(), ""), _saved_model)
    return [constant for constant in reader(path) if constant.values.size]


def _saved_model(path: Path) -> Iterator[Constant]:
    import tensorflow as tf

    from ..formats import saved_model

    function = saved_model.signature(path)
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    for node in (n for n in nodes if n.op == "Const"):
        values = tf.make_ndarray(node.attr["value"].tensor)
        if values.dtype == np.float32:
            yield Constant(node.name, values)
    for variable in function.owner.variables if hasattr(function.owner, "variables") else ():
        if variable.dtype == tf.float32:  # of another maker, whose graph is not frozen
            yield Constant(variable.name, variable.numpy())


def _onnx(path: Path) -> Iterator[Constant]:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for value in (a.t for a in node.attribute if a.name == "value"):
                arrays[node.output[0]] = numpy_helper.to_array(value)
    makers = {output: node for node in graph.node for output in node.output}
    taken: set[str] = set()

    def source(name: str) -> str:
        """The constant that a tensor is widened or looked up from."""
        while name in makers and makers[name].op_type in ("Cast", "Gather"):
            name = makers[name].input[0]
        return name

    for node in graph.node:
        if node.op_type == "MatMulNBits":
            taken |= {node.input[1], node.input[2]}
            yield _blocks(node, arrays)
        elif node.op_type == "Mul":
            pair = [source(name) for name in node.input]
            stored = next((n for n in pair if n in arrays and arrays[n].dtype == np.int8), None)
            scale = next((n for n in pair if n in arrays and arrays[n].dtype == np.float32), None)
            if stored and scale:
                taken |= {stored, scale}
                step = np.broadcast_to(arrays[scale], arrays[stored].shape)
                yield Constant(stored, arrays[stored].astype(np.float32) * step, step)
        elif node.op_type == "DequantizeLinear" and node.input[0] in arrays and node.input[1] in arrays:
            taken |= set(node.input)
            yield _dequantized(node, arrays)
    for name, array in arrays.items():
        if name not in taken and array.dtype in (np.float32, np.float16):
            yield Constant(name, array.astype(np.float32), bits=8 * array.dtype.itemsize)


def _blocks(node: Any, arrays: dict[str, NDArray[Any]]) -> Constant:
    """A `MatMulNBits` of 8 bits, `[rows, columns]`: symmetric around 128, a scale for each block of rows."""
    options = {a.name: a.i for a in node.attribute}
    stored = arrays[node.input[1]].astype(np.float32).reshape(options["N"], -1, options["block_size"])
    step = np.broadcast_to(arrays[node.input[2]].reshape(options["N"], -1, 1), stored.shape)
    # 128 steps go down and 127 up: what would be the 128th is cut off, and a whole step away.
    values, step = (stored - 128) * step, np.abs(step) * np.where(stored == 255, 2, 1)
    whole = (a.reshape(options["N"], -1)[:, : options["K"]].T for a in (values, step))
    return Constant(node.input[1], *whole)


def _dequantized(node: Any, arrays: dict[str, NDArray[Any]]) -> Constant:
    stored, scale = arrays[node.input[0]], arrays[node.input[1]]
    zero = arrays[node.input[2]] if len(node.input) > 2 else np.zeros_like(scale, stored.dtype)
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    shape = [1] * stored.ndim
    if scale.size > 1:
        shape[axis] = -1
    step = np.broadcast_to(scale.reshape(shape), stored.shape)
    return Constant(node.input[0], (stored.astype(np.float32) - zero.reshape(shape)) * step, step)


def _program(path: Path) -> Iterator[Constant]:
    from ..program.reading import Program

    for held in Program(path).constants():
        yield Constant(held.name, held.values, held.step)


def _tflite(path: Path) -> Iterator[Constant]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    kinds = {
        schema.TensorType.FLOAT32: "<f4",
        schema.TensorType.FLOAT16: "<f2",
        schema.TensorType.INT8: "<i1",
        schema.TensorType.INT16: "<i2",
    }
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            if data is None or not len(data) or tensor.type not in kinds:
                continue
            shape = tuple(tensor.shape) if tensor.shape is not None else ()
            array = np.frombuffer(bytes(data), kinds[tensor.type]).reshape(shape)
            name = tensor.name.decode()
            if array.dtype.kind == "f":
                yield Constant(name, array.astype(np.float32), bits=8 * array.dtype.itemsize)
            elif (quantization := tensor.quantization) is not None and quantization.scale is not None:
                scale = np.asarray(quantization.scale, np.float32)
                axes = [1] * array.ndim
                if scale.size > 1:
                    axes[quantization.quantizedDimension] = -1
                step = np.broadcast_to(scale.reshape(axes), array.shape)
                zero = np.asarray(quantization.zeroPoint, np.float32).reshape(axes)
                yield Constant(name, (array.astype(np.float32) - zero) * step, step)
