"""How many bytes of weights one step reads: all that the graph holds, and one row of a looked-up table.

Counted as they are stored, also where an engine widens them when it loads them. `steprnn inspect` counts
the same with the packages of the export extra; here each file is read with what its engine brings.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BundleError

# Field numbers of onnx.proto, which never change.
GRAPH, NODE, INITIALIZER = 7, 1, 5
NODE_WORDS = NODE_INPUT, NODE_OUTPUT, NODE_OPERATOR = 1, 2, 4
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_RAW = 1, 2, 8, 9
ONNX_INTEGERS = (6, 7, 9)  # int32, int64, bool: shapes, axes and indices
LOOKUPS = ("Gather", "GatherBlockQuantized")
WIDENING = ("Cast", "Mul", "DequantizeLinear", "Identity")  # of constants alone, once, when loaded


def read_per_step(path: Path, format: str) -> int:
    """Bytes of weights that a step of this graph reads; raises `BundleError` where the file is damaged."""
    try:
        return _of_onnx(path.read_bytes()) if format == "onnx" else _of_tflite(path)
    except (IndexError, ValueError, KeyError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is damaged ({type(error).__name__}: {error}); export again") from None


def _of_tflite(path: Path) -> int:
    from ..engines import litert

    interpreter = litert.Interpreter(str(path))  # type: ignore[attr-defined]
    # Without allocate_tensors() no delegate has taken operators over, and the list is the file's own.
    operators: list[dict[str, Any]] = interpreter._get_ops_details()
    details = {d["index"]: d for d in interpreter.get_tensor_details()}
    made = {i for operator in operators for i in operator["outputs"]}
    made |= {d["index"] for d in interpreter.get_input_details()}
    widened = {
        int(operator["outputs"][0]): int(operator["inputs"][0])
        for operator in operators
        if operator["op_name"] == "DEQUANTIZE" and operator["inputs"][0] not in made
    }
    reads: dict[int, int] = {}
    for operator in operators:
        if operator["outputs"][0] in widened:
            continue
        for position, given in enumerate(operator["inputs"]):
            index = widened.get(int(given), int(given))
            if index in made or index not in details or _is_index(details[index]):
                continue
            shape = [int(n) for n in details[index]["shape"]]
            size = prod(shape) * np.dtype(details[index]["dtype"]).itemsize
            looked_up = operator["op_name"] == "GATHER" and position == 0
            reads[index] = min(size, reads.get(index, 0) + (size // shape[0] if looked_up else size))
    return sum(reads.values())


def _is_index(detail: dict[str, Any]) -> bool:
    """Whether a constant is a shape, an axis or the like, and no quantized weight."""
    kind = np.dtype(detail["dtype"])
    return kind.kind not in "fiu" or (kind.itemsize >= 4 and kind.kind != "f" and not len(_scales(detail)))


def _scales(detail: dict[str, Any]) -> Any:
    return detail["quantization_parameters"]["scales"]


def _of_onnx(data: bytes) -> int:
    graph = next(value for number, value in _fields(memoryview(data)) if number == GRAPH)
    tables: dict[str, tuple[int, int]] = {}  # name -> bytes, and bytes of a row
    sources: dict[str, list[str]] = {}  # constant, or what is widened of some -> initializers
    readers: dict[str, list[bool]] = {}  # name -> for each reader, whether it looks rows up
    for number, value in _fields(graph):
        if number == INITIALIZER:
            name, kind, size, rows = _tensor(value)
            sources[name] = [name]
            if kind not in ONNX_INTEGERS:
                tables[name] = size, size // max(rows, 1)
    for number, value in _fields(graph):  # initializers come after the nodes in a file
        if number == NODE:
            words = [(n, bytes(v).decode()) for n, v in _fields(value) if n in NODE_WORDS]
            inputs, outputs, (operator,) = ([v for n, v in words if n == wanted] for wanted in NODE_WORDS)
            if operator in WIDENING and all(name in sources for name in inputs):
                sources[outputs[0]] = [source for name in inputs for source in sources[name]]
                continue
            for position, name in enumerate(inputs):
                for source in sources.get(name, ()):
                    readers.setdefault(source, []).append(operator in LOOKUPS and position == 0)
    total = 0
    for name, (size, row) in tables.items():
        reads = readers.get(name, [])
        total += min(size, sum(row if looked_up else size for looked_up in reads))
    return total


def _tensor(data: memoryview) -> tuple[str, int, int, int]:
    """Name, type, bytes and first dimension of an initializer."""
    dims: list[int] = []
    name, kind, size = "", 0, 0
    for number, value in _fields(data):
        if number == TENSOR_DIMS:
            dims += [value] if isinstance(value, int) else list(_varints(value))
        elif number == TENSOR_TYPE:
            kind = int(value)
        elif number == TENSOR_NAME:
            name = bytes(value).decode()
        elif isinstance(value, memoryview):  # raw_data, or a packed list: the names are short beside it
            size = max(size, len(value))
    return name, kind, size, dims[0] if dims else 1


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protobuf message: an int, or the bytes of what is longer."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        length = {1: 8, 5: 4}.get(kind)
        if length is None:
            if kind != 2:
                raise ValueError(f"wire type {kind}")
            length, place = _varint(data, place)
        if place + length > len(data):
            raise ValueError("a field ends after the file")
        yield key >> 3, data[place : place + length]
        place += length


def _varints(data: memoryview) -> Iterator[int]:
    place = 0
    while place < len(data):
        value, place = _varint(data, place)
        yield value


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """The number that begins at `place`, seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
