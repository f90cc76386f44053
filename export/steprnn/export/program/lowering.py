"""From ONNX nodes to operations: the tensors by name, and what rules build on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from steprnn.runtime.errors import ExportError
from steprnn.runtime.spec import StepSpec

from .source import Source
from .values import INTEGERS, KEEPING, Buffer, Function, Map, Operation, Reduce, Reduction, View


class Lowering:
    """The operations of a step so far, and the view that each tensor of the graph is."""

    def __init__(self, source: Source, spec: StepSpec) -> None:
        self.source = source
        self.operations: list[Operation] = []
        self._views: dict[str, View] = {}
        self._results: dict[str, View] = {}
        for tensor in (*spec.inputs, *spec.states):
            buffer = Buffer(tensor.size, tensor.dtype == "int32", pinned=True)
            self._views[tensor.name] = View.whole(buffer, source.shapes[tensor.name])
        for name in spec.result_names:
            shape = source.shapes[name]
            buffer = Buffer(int(np.prod(shape)), False, pinned=True)
            self._results[name] = View.whole(buffer, shape)
            if name in source.constants:  # it depends on no input
                self.alias(name, self.constant(source.constants[name]))

    def tensor(self, name: str) -> View:
        """The buffer of an input, a state or a result."""
        return self._results.get(name) or self._views[name]

    # Of nodes.

    def fixed(self, name: str) -> NDArray[Any] | None:
        """The value of a constant tensor."""
        return self.source.constants.get(name)

    def needed(self, node: Any, position: int) -> NDArray[Any]:
        """The value of an input that has to be constant."""
        value = self.fixed(node.input[position])
        if value is None:
            raise ExportError(
                f"the step holds {node.op_type} of what is computed at each step ({node.input[position]!r}), "
                "which a step program has not; leave program out of --formats"
            )
        return value

    def view(self, name: str) -> View:
        """A tensor of the graph."""
        if name not in self._views:
            self._views[name] = self.constant(self.source.constants[name])
        return self._views[name]

    def inputs(self, node: Any) -> list[View]:
        """All inputs of a node."""
        return [self.view(name) for name in node.input]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor at batch 1."""
        return self.source.shapes[name]

    def out(self, node: Any, position: int = 0) -> View:
        """A buffer for a result of a node."""
        name = node.output[position]
        view = self._results.get(name)
        if view is None:
            shape = self.source.shapes[name]
            integer = self.source.dtypes[name] != np.float32
            view = self.new(shape, integer)
        self._views[name] = view
        return view

    def alias(self, name: str, view: View) -> None:
        """A tensor is a view of another; a result of the step has to be a copy."""
        view = self.reshaped(view, self.source.shapes[name])
        if name in self._results:
            self.map(Function.COPY, [view], self._results[name])
            view = self._results[name]
        self._views[name] = view

    # Of values.

    @staticmethod
    def new(shape: Sequence[int], integer: bool = False) -> View:
        """A buffer of this shape."""
        return View.whole(Buffer(int(np.prod(shape)), integer), shape)

    @staticmethod
    def constant(array: NDArray[Any] | np.generic | float) -> View:
        """A constant; whole numbers and truth values become int32."""
        array = np.asarray(array, None if isinstance(array, np.ndarray | np.generic) else np.float32)
        integer = array.dtype.kind != "f"
        if integer:
            array = np.clip(array.astype(np.int64), -(2**31), 2**31 - 1).astype(np.int32)
        data = np.ascontiguousarray(array, np.int32 if integer else np.float32).ravel()
        return View.whole(Buffer(data.size, integer, data), array.shape)

    def map(self, function: Function, operands: Sequence[View | float], out: View | None = None) -> View:
        """A map; its operands are broadcast, and the result is new where no `out` is given."""
        views = [o if isinstance(o, View) else self.constant(o) for o in operands]
        shape = np.broadcast_shapes(*(v.shape for v in views)) if out is None else out.shape
        if out is None:
            out = self.new(shape, views[-1].integer if function in KEEPING else function in INTEGERS)
        self.operations.append(Map(function, out, [v.broadcast(shape) for v in views]))
        return out

    def reduce(
        self, function: Reduction, operands: Sequence[View], inner: int, out: View | None = None
    ) -> View:
        """A reduction of the last `inner` axes; the result is new where no `out` is given."""
        shape = operands[0].shape[: len(operands[0].shape) - inner]
        if out is None:
            out = self.new(shape, function >= Reduction.WHERE_LARGEST)
        self.operations.append(Reduce(function, out, list(operands), inner))
        return out

    def compact(self, view: View) -> View:
        """The same elements in a row."""
        return view if view.in_a_row else self.map(Function.COPY, [view])

    def reshaped(self, view: View, shape: Sequence[int]) -> View:
        """The same elements in another shape, copied where no strides can say it."""
        if view.shape == tuple(shape):
            return view
        squeezed = view.squeezed()
        if squeezed.shape == tuple(n for n in shape if n > 1):  # only axes of one element come or go
            left = iter(squeezed.strides)
            return View(
                view.buffer, view.offset, tuple(shape), tuple(next(left) if n > 1 else 0 for n in shape)
            )
        fresh = self.compact(squeezed)
        return View(fresh.buffer, fresh.offset, tuple(shape), View.whole(fresh.buffer, shape).strides)

    def floats(self, view: View) -> View:
        """As float32."""
        return self.map(Function.FLOAT_OF_INT, [view]) if view.integer else view

    def filled(self, shape: Sequence[int], value: float) -> View:
        """A new buffer of one value."""
        return self.map(Function.COPY, [value], self.new(shape))


Rule = Callable[[Lowering, Any], None]


def attributes(node: Any) -> dict[str, Any]:
    """The attributes of a node by name; text is str."""
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {name: v.decode() if isinstance(v, bytes) else v for name, v in found.items()}


def refuse(node: Any, why: str) -> ExportError:
    """The error of an operator that has operations in other cases."""
    return ExportError(
        f"the step holds {node.op_type} {why}, which a step program has not; leave program out of --formats"
    )


def lower(source: Source, spec: StepSpec) -> Lowering:
    """Every node as operations.

    Raises `ExportError` with the operator's name where one has no operations.
    """
    from .rules import RULES

    lowering = Lowering(source, spec)
    for node in source.nodes:
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            raise ExportError(
                f"the step holds {node.op_type}, which a step program has not; leave program out of --formats"
            )
        rule(lowering, node)
    return lowering
