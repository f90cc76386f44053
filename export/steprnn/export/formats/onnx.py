"""ONNX: the step for any batch size, described by its own metadata."""

from __future__ import annotations

import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)

from steprnn.runtime.atomic import write_bytes

from ..step.contract import Step
from . import operators
from .frozen import freeze, made_once

METHODS = {
    "float32": "float32 weights",
    "float16": "float16 weights, cast to float32 when they are loaded",
    "int8": "MatMulNBits (8 bits, accuracy level 4) and int8 rows in gathered tables",
    "int8-weights": "int8 weights, multiplied out to float32 when they are loaded",
}
OPSET = 18  # the newest that tf2onnx 1.17 writes
LARGEST_BLOCK = 256  # weights that share a scale; the fastest of 32, 128 and 256 at hidden size 256


def write(step: Step, path: Path, variant: str = "float32") -> None:
    """Write one ONNX file that `onnx.checker` passes, with full shape inference.

    Raises `ExportError` where an operator is not on the list.
    """
    model = convert(step)
    if variant == "int8":
        model = _quantize(model)
    elif variant == "int8-weights":
        _narrow(model.graph)
    elif variant == "float16":
        _halve(model.graph)
    helper.set_model_props(
        model, {"steprnn.step": json.dumps(step.spec.to_record()), "steprnn.variant": METHODS[variant]}
    )
    operators.check_onnx(model)
    onnx.checker.check_model(model, full_check=True)
    write_bytes(path, model.SerializeToString())


def _expm1(context: Any, node: Any, name: str, arguments: Any) -> None:
    """exp(x) - 1, which ONNX has no operator for (celu)."""
    one = context.make_const(f"{name}/one", np.array(1, np.float32)).output[0]
    node.type = "Exp"
    exp = node.output[0]
    context.insert_new_node_on_output("Sub", exp, name=f"{name}/minus_one", inputs=[exp, one])


def _erfc(context: Any, node: Any, name: str, arguments: Any) -> None:
    """1 - erf(x), which ONNX has no operator for (gelu)."""
    one = context.make_const(f"{name}/one", np.array(1, np.float32)).output[0]
    node.type = "Erf"
    erf = node.output[0]
    context.insert_new_node_on_output("Sub", erf, name=f"{name}/one_minus", inputs=[one, erf])


def _reverse(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Axes from their ends, where tf2onnx would take an operator that asks for the length of each row."""
    axes = np.atleast_1d(node.inputs[1].get_tensor_value(as_list=False)).astype(np.int64)
    ends = {"starts": np.full_like(axes, -1), "ends": np.full_like(axes, np.iinfo(np.int64).min)}
    slices = ends | {"axes": axes, "steps": np.full_like(axes, -1)}
    made = [context.make_const(f"{name}/{what}", value).output[0] for what, value in slices.items()]
    node.type = "Slice"
    context.replace_inputs(node, [node.input[0], *made])


HANDLERS: dict[str, Any] = {"Expm1": (_expm1, []), "Erfc": (_erfc, []), "ReverseV2": (_reverse, [])}


def convert(step: Step) -> onnx.ModelProto:
    """The step in ONNX, float32, for any batch size; the caller's own to change."""
    model = onnx.ModelProto()
    model.CopyFrom(made_once(step, "onnx", lambda: _convert(step)))
    return model


def _convert(step: Step) -> onnx.ModelProto:
    frozen = freeze(step)
    signature = step.signature()

    def positional(*tensors: Any) -> Any:  # tf2onnx passes the signature by position; the names stay
        return frozen(**dict(zip(signature, tensors, strict=True)))

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    function = tf.function(positional, autograph=False)
    model, _ = tf2onnx.convert.from_function(
        function, list(signature.values()), opset=OPSET, custom_op_handlers=HANDLERS
    )
    model.producer_name, model.producer_version = "steprnn", version("steprnn")
    order = {name: i for i, name in enumerate(step.spec.result_names)}
    outputs = sorted(model.graph.output, key=lambda o: order[o.name])
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    for value in (*model.graph.input, *model.graph.output):  # one name for the batch axis everywhere
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def _halve(graph: onnx.GraphProto) -> None:
    """Keep float weights in half the bytes; onnxruntime folds the casts away when it loads them."""
    for i, weights in enumerate([t for t in graph.initializer if t.data_type == TensorProto.FLOAT]):
        halves = numpy_helper.from_array(
            numpy_helper.to_array(weights).astype(np.float16), f"{weights.name}/half"
        )
        graph.initializer.remove(weights)
        graph.initializer.append(halves)
        cast = helper.make_node("Cast", [halves.name], [weights.name], weights.name, to=TensorProto.FLOAT)
        graph.node.insert(i, cast)


def _quantize(model: onnx.ModelProto) -> onnx.ModelProto:
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.CRITICAL)
    weights = {i.name: i.dims[0] for i in model.graph.initializer if i.dims}
    depths = [
        weights[n.input[1]] for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in weights
    ]
    # A matrix is padded to whole blocks, so small models take smaller ones.
    block = min(LARGEST_BLOCK, max(16, 2 ** (min(depths, default=1) - 1).bit_length()))
    # Said this way, since the quantizer's own parameters differ from 1.23, the last for Python 3.10, to 1.24.
    config = DefaultWeightOnlyQuantConfig(block_size=block, is_symmetric=True, accuracy_level=4, bits=8)
    quantizer = MatMulNBitsQuantizer(model, algo_config=config)
    quantizer.process()
    model = quantizer.model.model
    for node in [n for n in model.graph.node if n.op_type == "Gather"]:
        _quantize_table(model.graph, node)
    return model


def _narrow(graph: onnx.GraphProto) -> None:
    """Keep matrices and tables as int8 with one scale a column or row, multiplied out when they are loaded.

    The arithmetic of a step is that of float32, for engines without a product of 8 bits such as onnxruntime's
    wasm.
    """
    axes = {n.input[0]: 1 for n in graph.node if n.op_type == "Gather"}
    axes |= {n.input[1]: 0 for n in graph.node if n.op_type == "MatMul"}
    for weights in [t for t in graph.initializer if t.name in axes and t.data_type == TensorProto.FLOAT]:
        if len(weights.dims) == 2:
            name = weights.name
            stored, scale, widened = f"{name}/int8", f"{name}/scale", f"{name}/float"
            _store_int8(graph, weights, stored, scale, axes[name])
            cast = helper.make_node("Cast", [stored], [widened], widened, to=TensorProto.FLOAT)
            graph.node.insert(0, cast)
            graph.node.insert(1, helper.make_node("Mul", [widened, scale], [name], name))


def _store_int8(graph: onnx.GraphProto, weights: onnx.TensorProto, name: str, scale: str, axis: int) -> None:
    """Replace a float initializer by int8, `name`, and by what 1 stands for along the axis, `scale`."""
    values = numpy_helper.to_array(weights)
    units = np.maximum(np.abs(values).max(axis=axis, keepdims=True), np.finfo(np.float32).tiny) / 127
    rounded = np.rint(values / units).astype(np.int8)
    graph.initializer.remove(weights)
    graph.initializer.extend([numpy_helper.from_array(rounded, name), numpy_helper.from_array(units, scale)])


def _quantize_table(graph: onnx.GraphProto, gather: onnx.NodeProto) -> None:
    """Keep a gathered float table as int8 rows with one scale a row: rows[x] * scale[x]."""
    table = next((i for i in graph.initializer if i.name == gather.input[0]), None)
    if table is None or table.data_type != TensorProto.FLOAT or len(table.dims) != 2:
        return
    name, indices, output = gather.name, gather.input[1], gather.output[0]
    _store_int8(graph, table, f"{name}/rows", f"{name}/scale", axis=1)
    position = list(graph.node).index(gather)
    graph.node.remove(gather)
    for offset, node in enumerate(
        [
            helper.make_node("Gather", [f"{name}/rows", indices], [f"{name}/row"], f"{name}/row", axis=0),
            helper.make_node("Gather", [f"{name}/scale", indices], [f"{name}/s"], f"{name}/s", axis=0),
            helper.make_node(
                "Cast", [f"{name}/row"], [f"{name}/float"], f"{name}/float", to=TensorProto.FLOAT
            ),
            helper.make_node("Mul", [f"{name}/float", f"{name}/s"], [output], name),
        ]
    ):
        graph.node.insert(position + offset, node)
