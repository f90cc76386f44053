"""A TFLite graph in integers: int8 weights, int16 activations and states, for devices that know no floats.

TensorFlow's quantizer gives each tensor the range that it was seen to have. A state goes out as one tensor
and comes in as another, so that both are given one range here, before it is asked; and all are widened.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from tensorflow.lite.python.optimize.calibrator import Calibrator

from steprnn.runtime.engines.scaled import BOUNDED
from steprnn.runtime.errors import ExportError
from steprnn.runtime.parity.reference import Arrays

from ..step.contract import Step

MARGIN = 1.5  # times what a tensor reached: half a bit
ROWS = 64  # that are calibrated on at once
# What TensorFlow Lite Micro has kernels of int16 for, of what a recurrent cell and a Dense head are made of.
OPERATORS = frozenset("ADD FULLY_CONNECTED GATHER LOGISTIC MUL QUANTIZE SPLIT STRIDED_SLICE SUB TANH".split())
ITSELF = ("TANH", "LOGISTIC")  # whose results have a range of their own, and a scale that is fixed
LARGEST = 32767
CODES = {number: name for name, number in vars(schema.BuiltinOperator).items()}


def converted(converter: Any, step: Step, seen: Arrays) -> bytes:
    """The flatbuffer of a step, calibrated on inputs and states that were `seen`, `[rows, ...]` by name.

    Raises `ExportError` where the step has an operator for which a device has no kernel.
    """
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    ]
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: _samples(step.name, seen)
    converter._experimental_calibrate_only = True  # what it has no public name for: to set ranges in between
    model = _read(bytes(converter.convert()))
    _check_operators(model)
    tables = dict(_tables(model))
    _widen(model, step, seen)
    quantizer = Calibrator(_packed(model))
    integers = quantizer.calibrate_and_quantize(
        lambda: iter(()), tf.int16, tf.int16, False, tf.int16, tf.int64
    )
    model = _read(bytes(integers))
    _narrow_tables(model, tables)
    _check_operators(model)
    _check_scales(model, step)
    return _packed(model)


def in_range(graph: tf.compat.v1.GraphDef) -> None:
    """Let tables be read at the token itself: Keras counts one below zero from the end, and there is none."""
    nodes = {node.name: node for node in graph.node}
    for gather in [node for node in graph.node if node.op == "GatherV2"]:
        chosen = nodes[gather.input[1].split(":")[0]]
        if chosen.op == "SelectV2" and nodes[chosen.input[0].split(":")[0]].op == "Less":
            gather.input[1] = chosen.input[2]


def _samples(signature: str, seen: Arrays) -> Iterator[tuple[str, Arrays]]:
    """So many rows at once, of one number, since the calibrator takes the first's shapes for all."""
    rows = len(next(iter(seen.values())))
    for begin in range(0, rows, ROWS):
        at = np.arange(begin, begin + ROWS) % rows
        yield signature, {name: array[at] for name, array in seen.items()}


def _widen(model: Any, step: Step, seen: Arrays) -> None:
    """Give every tensor MARGIN times its range, and a state one range where it comes in and goes out."""
    graph, places = model.subgraphs[0], _places(model)
    made = {int(i): _name(model, op) for op in graph.operators for i in op.outputs}
    for tensor in graph.tensors:
        reached = tensor.quantization
        if reached is not None and reached.min is not None and model.buffers[tensor.buffer].data is None:
            _set_range(tensor, MARGIN * max(abs(float(reached.min[0])), abs(float(reached.max[0]))))
    for state in step.spec.states:
        pair = [graph.tensors[places[name]] for name in (state.name, step.spec.next_of(state))]
        limit = max(float(tensor.quantization.max[0]) for tensor in pair)
        if made.get(places[step.spec.next_of(state)]) in ITSELF:
            limit = LARGEST * BOUNDED
        for tensor in pair:
            _set_range(tensor, limit)
    for token in (t for t in step.spec.inputs if t.tokens):  # the quantizer asks for one, and leaves it
        graph.tensors[places[token.name]].quantization = schema.QuantizationParametersT()
        _set_range(graph.tensors[places[token.name]], float(token.tokens or 1))


def _set_range(tensor: Any, limit: float) -> None:
    tensor.quantization.min, tensor.quantization.max = [-limit or -1.0], [limit or 1.0]


def _tables(model: Any) -> Iterator[tuple[bytes, NDArray[np.float32]]]:
    """The tables of floats that are looked up, by the names of their tensors."""
    graph = model.subgraphs[0]
    for operator in [op for op in graph.operators if _name(model, op) == "GATHER"]:
        table = graph.tensors[operator.inputs[0]]
        yield table.name, np.frombuffer(bytes(model.buffers[table.buffer].data), "<f4")


def _narrow_tables(model: Any, tables: dict[bytes, NDArray[np.float32]]) -> None:
    """Keep tables as int8, as other weights, and widen the row that was looked up.

    The quantizer keeps them in 16 bits, which TensorFlow Lite Micro does not look up.
    """
    graph = model.subgraphs[0]
    for operator in [op for op in graph.operators if _name(model, op) == "GATHER"]:
        table, row = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
        values = tables[table.name]
        scale = float(np.float32(np.abs(values).max() or 1.0) / np.float32(127))
        narrow: NDArray[np.int8] = np.rint(values / np.float32(scale)).astype(np.int8)
        model.buffers[table.buffer].data = np.frombuffer(narrow.tobytes(), np.uint8)
        table.type, table.quantization.scale = schema.TensorType.INT8, [scale]
        looked_up = schema.TensorT()
        looked_up.name, looked_up.type = row.name + b"/int8", schema.TensorType.INT8
        looked_up.shape, looked_up.shapeSignature = row.shape, row.shapeSignature
        looked_up.quantization = schema.QuantizationParametersT()
        looked_up.quantization.scale, looked_up.quantization.zeroPoint = [scale], [0]
        graph.tensors.append(looked_up)
        widen = schema.OperatorT()
        widen.opcodeIndex = _code(model, schema.BuiltinOperator.QUANTIZE)
        widen.inputs, widen.outputs = [len(graph.tensors) - 1], [int(operator.outputs[0])]
        operator.outputs = widen.inputs
        graph.operators.insert(graph.operators.index(operator) + 1, widen)


def _code(model: Any, number: int) -> int:
    """Where an operator is among those of the file, which may not have had it."""
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, number, 2
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _check_operators(model: Any) -> None:
    found = {_name(model, operator) for operator in model.subgraphs[0].operators}
    if strangers := sorted(found - OPERATORS):
        raise ExportError(
            f"int16x8 has no {', '.join(strangers)}: it is for LSTM, GRU and SimpleRNN, with Embedding or "
            "features, and Dense"
        )


def _check_scales(model: Any, step: Step) -> None:
    """A state that comes back in another scale could not be fed back as it is."""
    tensors, places = model.subgraphs[0].tensors, _places(model)
    for state in step.spec.states:
        names = state.name, step.spec.next_of(state)
        scales = [float(tensors[places[name]].quantization.scale[0]) for name in names]
        if scales[0] != scales[1]:
            raise ExportError(
                f"int16x8: the quantizer gives {names[0]} the scale {scales[0]} and {names[1]} {scales[1]}"
            )


def _places(model: Any) -> dict[str, int]:
    """The index of each tensor of the signature."""
    signature = model.signatureDefs[0]
    return {t.name.decode(): int(t.tensorIndex) for t in (*signature.inputs, *signature.outputs)}


def _name(model: Any, operator: Any) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    return str(CODES[max(code.builtinCode, code.deprecatedBuiltinCode)])


def _read(flatbuffer: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(flatbuffer, 0)


def _packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
