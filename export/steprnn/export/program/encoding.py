"""Operations as the words of a step program: places in the arena, weights as the kernels read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steprnn.runtime.errors import ExportError
from steprnn.runtime.spec import StepSpec

from .fixed import before_gates, refuse_strangers
from .values import Buffer, Gates, Gather, Map, Operation, Product, Reduce, View
from .weights import rounded, stored, units

if TYPE_CHECKING:  # it needs onnx, and who checks a program may have none
    from .lowering import Lowering

MAGIC, VERSION, HEADER, RECORD = 0x50525453, 1, 32, 20
MAP, REDUCE, PRODUCT, GATHER, LSTM, GRU, LSTM_FIXED, GRU_FIXED = range(1, 9)
VARIANTS = ("float32", "int8", "int8-weights", "int8-fixed")  # by their number in the header
INT8, FIXED = 1, 3  # types of a product
CONSTANT = 0x80000000
LEAST_INT8 = 256  # weights; a smaller matrix costs nothing, and what it multiplies may need its digits
DEEPEST_INT8 = 131072
MOST_RANK, MOST_INNER = 6, 4
ALIGNED = 16  # words

Axes = list[tuple[int, ...]]  # of each axis its size, then the strides of the operands


class Encoder:
    """The words of a program, as they come to be."""

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self.scratch = 0
        self.before_gates: set[Buffer] = set()
        self.operations: list[list[int]] = []
        self._tensors: list[NDArray[np.uint32]] = []
        self._held: dict[bytes, int] = {}
        self._places: dict[Buffer, int] = {}
        self._size = 0  # of the tensors
        self.first = 0  # offset of the first tensor

    def put(self, array: NDArray[np.generic]) -> int:
        """Keep a tensor; where it lies, counted from the first one."""
        data = array.tobytes()
        data += b"\0" * (-len(data) % (4 * ALIGNED))
        if data not in self._held:
            self._held[data] = self._size
            self._tensors.append(np.frombuffer(data, np.uint32))
            self._size += len(data) // 4
        return self._held[data]

    def tensors(self) -> NDArray[np.uint32]:
        """All that was kept."""
        return np.concatenate([*self._tensors, np.zeros(0, np.uint32)])

    def place(self, view: View) -> int:
        """Where a view begins: in the arena, or in the block."""
        data = view.buffer.data
        if data is not None:
            return (self.first + self.put(data) + view.offset) | CONSTANT
        return self._places[view.buffer] + view.offset

    def lay_out(self, lowering: Lowering, spec: StepSpec, operations: Sequence[Operation]) -> int:
        """Give every buffer its place in the arena; returns the arena's words."""
        pinned = [lowering.tensor(t.name).buffer for t in (*spec.inputs, *spec.states)]
        pinned += [lowering.tensor(name).buffer for name in spec.result_names]
        end = 0
        for buffer in pinned:
            self._places[buffer] = end
            end += _aligned(buffer.size)
        last = {view.buffer: i for i, op in enumerate(operations) for view in (*op.reads(), *op.writes())}
        free: list[tuple[int, int]] = []  # place, words
        for i, operation in enumerate(operations):
            for buffer in (view.buffer for view in operation.writes()):
                if buffer in self._places:
                    continue
                if (given := _given(operation, buffer, last, i)) is not None:
                    self._places[buffer] = self._places[given]
                    last[given] = -1  # it is another's now
                    continue
                size = _aligned(buffer.size)
                fit = next((f for f in sorted(free, key=lambda f: f[1]) if f[1] >= size), None)
                if fit is None:
                    self._places[buffer], end = end, end + size
                else:
                    free.remove(fit)
                    self._places[buffer] = fit[0]
                    free += [(fit[0] + size, fit[1] - size)] if fit[1] > size else []
            for buffer in {view.buffer for view in (*operation.reads(), *operation.writes())}:
                if last[buffer] == i and not buffer.pinned and buffer.data is None:
                    free = _joined([*free, (self._places[buffer], _aligned(buffer.size))])
        return end

    def encode(self, operation: Operation) -> None:
        """Add the words of an operation."""
        kind, words = {
            Map: self._map,
            Reduce: self._reduce,
            Product: self._product,
            Gather: self._gather,
            Gates: self._gates,
        }[type(operation)](operation)  # type: ignore[operator]
        self.operations.append([kind | (len(words) + 1) << 8, *words])

    def _map(self, op: Map) -> tuple[int, list[int]]:
        views = [op.out, *op.operands]
        axes = _joined_axes(_by_stride(_axes(views)))
        axes = axes or [(1, *[0] * len(views))]
        _check_rank(len(axes), MOST_RANK)
        words = [op.function | len(axes) << 8 | len(views) << 16, *(a[0] for a in axes)]
        for i, view in enumerate(views):
            words += [self.place(view), *(_signed(a[1 + i]) for a in axes)]
        return MAP, words

    def _reduce(self, op: Reduce) -> tuple[int, list[int]]:
        rank = len(op.operands[0].shape) - op.inner
        lead = [View(v.buffer, v.offset, v.shape[:rank], v.strides[:rank]) for v in op.operands]
        outer = _joined_axes(_axes([op.out, *lead]))
        inner = _joined_axes(
            _axes([View(v.buffer, v.offset, v.shape[rank:], v.strides[rank:]) for v in op.operands])
        )
        inner = inner or [(1, *[0] * len(op.operands))]
        _check_rank(len(outer), MOST_RANK)
        _check_rank(len(inner), MOST_INNER)
        words = [op.function | len(outer) << 8 | len(inner) << 16, *(a[0] for a in (*outer, *inner))]
        words += [self.place(op.out), *(_signed(a[1]) for a in outer)]
        for i, view in enumerate(op.operands):
            words += [
                self.place(view),
                *(_signed(a[2 + i]) for a in outer),
                *(_signed(a[1 + i]) for a in inner),
            ]
        return REDUCE, words

    def _product(self, op: Product) -> tuple[int, list[int]]:
        k, n = op.weights.shape
        r = op.rows
        inner = _joined_axes(_axes([View(op.x.buffer, op.x.offset, op.x.shape[r:], op.x.strides[r:])]))
        inner = inner or [(1, 0)]
        lead = [View(v.buffer, v.offset, v.shape[:r], v.strides[:r]) for v in (op.x, op.y)]
        rows = _joined_axes(_axes(lead))
        _check_rank(len(rows), MOST_INNER)
        _check_rank(len(inner), MOST_INNER)
        kind = 0 if op.weights.size < LEAST_INT8 or k > DEEPEST_INT8 else VARIANTS.index(self.variant)
        if kind == FIXED and op.y.buffer not in self.before_gates:
            kind = INT8
        held, scales = stored(op.weights, kind)
        self.scratch = max(self.scratch, 4 * _aligned(k) + -(-k // 64) * 64)
        head = kind | len(inner) << 8 | len(rows) << 16 | len(op.addends) << 24
        weights = self.first + self.put(held)
        scaled = self.first + self.put(scales) if scales is not None else 0
        words = [head, k, n, weights, scaled, self.place(op.x), self.place(op.y), _signed(op.y.strides[-1])]
        words += [self.place(view) for view in op.addends]
        words += [a[0] for a in inner] + [_signed(a[1]) for a in inner]
        words += [a[0] for a in rows] + [_signed(a[1]) for a in rows] + [_signed(a[2]) for a in rows]
        return PRODUCT, words

    def _gather(self, op: Gather) -> tuple[int, list[int]]:
        (count,), (stride,) = op.index.shape, op.index.strides
        kind = int(op.table is not None and self.variant != "float32" and op.table.size >= LEAST_INT8)
        scales = 0
        if op.table is None:
            assert op.data is not None
            data = self.place(op.data)
        elif kind:
            each = units(op.table, axis=1)
            data = (self.first + self.put(rounded(op.table, each))) | CONSTANT
            scales = self.first + self.put(each)
        else:
            data = (self.first + self.put(op.table)) | CONSTANT
        words = [kind, op.outer, op.rows, op.inner, count, self.place(op.index), stride, data, scales]
        return GATHER, [*words, self.place(op.out)]

    def _gates(self, op: Gates) -> tuple[int, list[int]]:
        n = op.operands[0].size
        kinds = (LSTM_FIXED, GRU_FIXED) if self.variant == "int8-fixed" else (LSTM, GRU)
        return kinds[not op.lstm], [n, *(self.place(v) for v in (*op.operands, *op.results))]


def _given(operation: Operation, buffer: Buffer, last: dict[Buffer, int], i: int) -> Buffer | None:
    """An addend that nobody reads after this product, whose place its result can have."""
    if isinstance(operation, Product) and not operation.rows and operation.y.size == buffer.size:
        for view in (v for v in operation.addends if v.in_a_row and v.size == v.buffer.size == buffer.size):
            given = view.buffer
            free = given.data is None and not given.pinned and last[given] == i
            if free and given is not operation.x.buffer and operation.y.in_a_row:
                return given
    return None


def _aligned(words: int) -> int:
    return -(-words // ALIGNED) * ALIGNED


def _signed(number: int) -> int:
    return number & 0xFFFFFFFF


def _joined(free: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Free pieces, neighbours as one."""
    joined: list[tuple[int, int]] = []
    for place, size in sorted(free):
        if joined and sum(joined[-1]) == place:
            joined[-1] = joined[-1][0], joined[-1][1] + size
        else:
            joined.append((place, size))
    return joined


def _axes(views: Sequence[View]) -> Axes:
    """The axes of more than one element, of views of one shape."""
    shape = views[0].shape
    return [(n, *(v.strides[i] for v in views)) for i, n in enumerate(shape) if n > 1]


def _by_stride(axes: Axes) -> Axes:
    """The axis whose result lies in a row last, where the order is free."""
    return sorted(axes, key=lambda axis: -abs(axis[1]))


def _joined_axes(axes: Axes) -> Axes:
    """Neighbouring axes as one where no operand sees them apart."""
    joined: Axes = []
    for axis in axes:
        if joined and all(a == b * axis[0] for a, b in zip(joined[-1][1:], axis[1:], strict=True)):
            joined[-1] = (joined[-1][0] * axis[0], *axis[1:])
        else:
            joined.append(axis)
    return joined


def _check_rank(rank: int, most: int) -> None:
    if rank > most:
        raise ExportError(
            f"the step holds an operation over {rank} axes, and a step program has at most {most}; "
            "leave program out of --formats"
        )


def program(
    lowering: Lowering,
    operations: Sequence[Operation],
    spec: StepSpec,
    variant: str,
    method: str,
    initial: dict[str, NDArray[np.float32]],
) -> bytearray:
    """The bytes of a step program, without a self-test."""
    meta = json.dumps({"step": spec.to_record(), "variant": method}, ensure_ascii=False).encode()
    names = [t.name.encode() for t in (*spec.inputs, *spec.states, *spec.outputs)]
    text = b"".join([meta, *names])
    records = len(names) * RECORD
    encoder = Encoder(variant)
    if variant == "int8-fixed":
        refuse_strangers(operations)
        encoder.before_gates = before_gates(operations)
    arena = encoder.lay_out(lowering, spec, operations)
    for _ in range(2):  # once to count the words, once to know where the tensors lie
        encoder.operations = []
        for operation in operations:
            encoder.encode(operation)
        firsts = {
            name: encoder.put(array.astype(np.float32)) for name, array in initial.items() if array.any()
        }
        length = sum(map(len, encoder.operations))
        encoder.first = _aligned(HEADER + records + length + -(-len(text) // 4))
    tensors = encoder.tensors()
    at_text = HEADER + records + length
    words = np.zeros(encoder.first + len(tensors), np.uint32)
    words[encoder.first :] = tensors
    words[:HEADER] = _header(spec, variant, len(words), arena, encoder, records, length, at_text, len(meta))
    place = 4 * at_text + len(meta)
    for i, (tensor, name) in enumerate(zip((*spec.inputs, *spec.states, *spec.outputs), names, strict=True)):
        state = tensor in spec.states
        record = words[HEADER + i * RECORD :][:RECORD]
        record[:7] = [
            place,
            len(name),
            tensor.dtype == "int32",
            _place(encoder, lowering, tensor.name),
            tensor.size,
            tensor.tokens or 0,
            tensor.static,
        ]
        record[7] = _place(encoder, lowering, spec.next_of(tensor)) if state else 0
        record[8] = encoder.first + firsts[tensor.name] if state and tensor.name in firsts else 0
        record[9 : 10 + len(tensor.shape)] = [len(tensor.shape), *tensor.shape]
        place += len(name)
    words[HEADER + records : at_text] = [word for op in encoder.operations for word in op]
    block = bytearray(words.astype("<u4").tobytes())
    block[4 * at_text : 4 * at_text + len(text)] = text
    return block


def _place(encoder: Encoder, lowering: Lowering, name: str) -> int:
    return encoder.place(lowering.tensor(name))


def _header(
    spec: StepSpec,
    variant: str,
    words: int,
    arena: int,
    encoder: Encoder,
    records: int,
    length: int,
    text: int,
    meta: int,
) -> list[int]:
    inputs, states = len(spec.inputs), len(spec.states)
    at = [HEADER, HEADER + inputs * RECORD, HEADER + (inputs + states) * RECORD]
    header = [MAGIC, VERSION, 4 * words, VARIANTS.index(variant), arena, encoder.scratch]
    header += [inputs, at[0], states, at[1], len(spec.outputs), at[2]]
    header += [len(encoder.operations), HEADER + records, length, text, meta]
    return header + [0] * (HEADER - len(header))
