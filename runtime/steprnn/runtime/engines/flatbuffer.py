"""What a TFLite file of a bundle has to be before LiteRT reads it, from its bytes.

LiteRT looks after the offsets of a flatbuffer. It takes for given how many tensors an operator has, and in
how many a split ends: where a damaged file has less, it reads what is not there and ends the process.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

# The operators of a step, by how many inputs they cannot do without. Each with its number in the schema.
NEEDED = {
    1: "101 ABS, 1 AVERAGE_POOL_2D, 53 CAST, 104 CEIL, 2 CONCATENATION, 108 COS, 6 DEQUANTIZE, 111 ELU, 47 "
    "EXP, 8 FLOOR, 150 GELU, 117 HARD_SWISH, 98 LEAKY_RELU, 73 LOG, 87 LOGICAL_NOT, 14 LOGISTIC, 50 "
    "LOG_SOFTMAX, 17 MAX_POOL_2D, 59 NEG, 83 PACK, 114 QUANTIZE, 19 RELU, 21 RELU6, 20 RELU_N1_TO_1, 22 "
    "RESHAPE, 116 ROUND, 76 RSQRT, 77 SHAPE, 158 SIGN, 66 SIN, 25 SOFTMAX, 75 SQRT, 92 SQUARE, 43 "
    "SQUEEZE, 28 TANH, 88 UNPACK, 93 ZEROS_LIKE",
    2: "0 ADD, 56 ARG_MAX, 79 ARG_MIN, 126 BATCH_MATMUL, 130 BROADCAST_TO, 3 CONV_2D, 128 CUMSUM, 4 "
    "DEPTHWISE_CONV_2D, 42 DIV, 7 EMBEDDING_LOOKUP, 71 EQUAL, 70 EXPAND_DIMS, 94 FILL, 90 FLOOR_DIV, 95 "
    "FLOOR_MOD, 9 FULLY_CONNECTED, 36 GATHER, 107 GATHER_ND, 61 GREATER, 62 GREATER_EQUAL, 58 LESS, 63 "
    "LESS_EQUAL, 86 LOGICAL_AND, 84 LOGICAL_OR, 55 MAXIMUM, 40 MEAN, 57 MINIMUM, 18 MUL, 72 NOT_EQUAL, 34 "
    "PAD, 78 POW, 54 PRELU, 91 REDUCE_ANY, 82 REDUCE_MAX, 89 REDUCE_MIN, 81 REDUCE_PROD, 105 REVERSE_V2, "
    "49 SPLIT, 99 SQUARED_DIFFERENCE, 41 SUB, 74 SUM, 69 TILE, 48 TOPK_V2, 39 TRANSPOSE",
    3: "37 BATCH_TO_SPACE_ND, 60 PADV2, 96 RANGE, 64 SELECT, 123 SELECT_V2, 65 SLICE, 38 SPACE_TO_BATCH_ND, "
    "102 SPLIT_V, 67 TRANSPOSE_CONV",
    4: "85 ONE_HOT, 45 STRIDED_SLICE",
}
OPERATORS = {  # number -> name, and how many inputs it needs
    int(number): (name, least)
    for least, listed in NEEDED.items()
    for number, name in (item.split() for item in listed.split(", "))
}
BIASED = {"FULLY_CONNECTED": 2, "CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "TRANSPOSE_CONV": 3}  # what may be -1
OUTPUTS = {"TOPK_V2": 2}  # where it is not one
# Operators whose first option counts tensors: the type of their options, and whether it counts inputs.
COUNTED = {"SPLIT": (35, False), "SPLIT_V": (79, False), "UNPACK": (64, False), "PACK": (59, True)}
# Of the others, those whose options are steps or sizes, which are divided by: the type, and where they are.
DIVIDING = {
    "AVERAGE_POOL_2D": (5, (1, 2, 3, 4)),
    "MAX_POOL_2D": (5, (1, 2, 3, 4)),
    "CONV_2D": (1, (1, 2)),
    "DEPTHWISE_CONV_2D": (2, (1, 2)),
    "TRANSPOSE_CONV": (49, (1, 2)),
}
DAMAGED = "it is damaged, or no TFLite file"


def check(data: bytes) -> None:
    """Raise `ValueError` where a file is not of one graph of operators of a step, each with its tensors."""
    try:
        _check(Table.root(data))
    except struct.error:
        raise ValueError(DAMAGED) from None


class Table:
    """A table of a flatbuffer. What lies outside the bytes raises `ValueError` or `struct.error`."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - self._read("<i", at)
        self._size = self._read("<H", self._fields)

    @classmethod
    def root(cls, data: bytes) -> Table:
        """The table of the whole file."""
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _read(self, kind: str, at: int) -> int:
        if at < 0:  # struct would count from the end
            raise ValueError(DAMAGED)
        return int(struct.unpack_from(kind, self._data, at)[0])

    def _place(self, field: int) -> int:
        """Where a field is; 0 where it is left out."""
        at = 4 + 2 * field
        offset = self._read("<H", self._fields + at) if at + 2 <= self._size else 0
        return self._at + offset if offset else 0

    def _pointed(self, field: int) -> int:
        """Where what a field points to is; 0 where it is left out."""
        at = self._place(field)
        return at + self._read("<I", at) if at else 0

    def number(self, field: int, kind: str = "<i") -> int:
        """A number of the kind that `struct` knows; 0 where it is left out."""
        at = self._place(field)
        return self._read(kind, at) if at else 0

    def count(self, field: int) -> int:
        """How long a vector is."""
        at = self._pointed(field)
        return self._read("<I", at) if at else 0

    def numbers(self, field: int) -> list[int]:
        """A vector of int32."""
        count, begin = self.count(field), self._pointed(field) + 4
        if begin + 4 * count > len(self._data):
            raise ValueError(DAMAGED)
        return np.frombuffer(self._data, "<i4", count, begin).tolist() if count else []

    def table(self, field: int) -> Table | None:
        """The table that a field points to; None where it is left out."""
        at = self._pointed(field)
        return Table(self._data, at) if at else None

    def tables(self, field: int) -> Iterator[Table]:
        """A vector of tables."""
        begin = self._pointed(field) + 4
        for place in range(begin, begin + 4 * self.count(field), 4):
            yield Table(self._data, place + self._read("<I", place))


def _check(model: Table) -> None:
    codes = [max(code.number(0, "<b"), code.number(3)) for code in model.tables(1)]
    if strangers := [code for code in codes if code not in OPERATORS]:
        raise ValueError(f"it holds the operator {strangers[0]}, and no step that is exported does")
    graphs = list(model.tables(2))
    if len(graphs) != 1:
        raise ValueError(f"it holds {len(graphs)} graphs, and a step is one")
    (graph,) = graphs
    tensors = list(graph.tables(0))
    if any(tensor.number(5, "<B") for tensor in tensors):
        raise ValueError("a tensor of it is kept from step to step, and no caller has it")
    filled = [buffer.count(0) > 0 for buffer in model.tables(4)]
    shapes = [tensor.numbers(0) for tensor in tensors]
    inputs = graph.numbers(1)
    _check_indices("the graph", [*inputs, *graph.numbers(2)], len(tensors))
    for signature in model.tables(7):
        _check_signature(signature, len(tensors))
    there = set(inputs)  # tensors that have a value by now
    for index, tensor in enumerate(tensors):
        buffer = tensor.number(2, "<I")
        if 0 in shapes[index] or (buffer < len(filled) and filled[buffer]):
            there.add(index)
    for operator in graph.tables(3):
        code = operator.number(0, "<I")
        if code >= len(codes):
            raise ValueError("an operator is of no kind that it lists")
        name, least = OPERATORS[codes[code]]
        given, made = _check_operator(operator, name, least, len(tensors))
        if not there.issuperset(given) or not there.isdisjoint(made) or len(set(made)) < len(made):
            raise ValueError(f"{name} reads a tensor that is not made yet, or makes one that is there")
        if name == "DEQUANTIZE" and shapes[given[0]] != shapes[made[0]]:
            raise ValueError("DEQUANTIZE makes a tensor of another shape than it reads")
        there.update(made)


def _check_signature(signature: Table, tensors: int) -> None:
    if signature.number(4, "<I"):
        raise ValueError("a signature is of another graph than there is")
    inputs, outputs = ([entry.number(1, "<I") for entry in signature.tables(field)] for field in (0, 1))
    _check_indices("a signature", inputs + outputs, tensors)
    if len(set(inputs)) < len(inputs):
        raise ValueError("two inputs of a signature are one tensor")


def _check_operator(operator: Table, name: str, least: int, tensors: int) -> tuple[list[int], list[int]]:
    """The tensors that an operator reads, and those that it makes."""
    inputs, outputs = operator.numbers(1), operator.numbers(2)
    if len(inputs) < least or len(outputs) < OUTPUTS.get(name, 1):
        raise ValueError(f"{name} has {len(inputs)} inputs and {len(outputs)} outputs, which are too few")
    given = [index for at, index in enumerate(inputs) if index != -1 or at != BIASED.get(name)]
    _check_indices(name, given + outputs, tensors)
    kind, options = operator.number(3, "<B"), operator.table(4)
    if name in COUNTED:
        wanted, of_inputs = COUNTED[name]
        counted = len(inputs if of_inputs else outputs)
        if options is None or kind != wanted or options.number(0) != counted:
            raise ValueError(f"{name} does not say that it has {counted} tensors")
    if name in DIVIDING:
        wanted, fields = DIVIDING[name]
        if options is None or kind != wanted or any(options.number(field) < 1 for field in fields):
            raise ValueError(f"{name} has a stride or a size that is not positive")
    return given, outputs


def _check_indices(whose: str, indices: list[int], tensors: int) -> None:
    if any(not 0 <= index < tensors for index in indices):
        raise ValueError(f"{whose} has a tensor that is none of its {tensors}")
