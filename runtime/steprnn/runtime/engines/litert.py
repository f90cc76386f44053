"""LiteRT: the tensors of the interpreter, bound by the names of the signature and written in place."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from ..bundle.packed import Place
from ..errors import BundleError
from ..pairing import Declared
from ..quiet import without_lines
from ..spec import SIGNATURES, StepSpec
from . import Engine, Graph, Runner, Tensors
from .flatbuffer import check
from .scaled import ScaledRunner, in_integers

Indices = tuple[dict[str, int], dict[str, int]]  # of inputs and of outputs, by name
_greeting = threading.Lock()


def load(path: Place, spec: StepSpec, threads: int = 1) -> Engine:
    """Load a TFLite step graph; raises `BundleError` where it is none, or LiteRT refuses it."""
    return LiteRTEngine(path, read(path), spec, threads)


def read(path: Place) -> bytes:
    """The flatbuffer of a step; raises `BundleError` where LiteRT is not to be given it."""
    data = path.read_bytes()
    try:
        check(data)
    except ValueError as error:
        raise BundleError(f"steprnn refuses {path}: {error}; do not trust it, or export again") from None
    return data


def open_graph(path: Place, threads: int = 1) -> Graph:
    """Open a TFLite file of any maker; raises `BundleError` where LiteRT refuses it."""
    return LiteRTGraph(path, threads)


class LiteRTGraph:
    """What a TFLite file of any maker declares: by its signature or, without one, its tensors' names."""

    def __init__(self, path: Place, threads: int) -> None:
        self._path, self._flatbuffer, self._threads = path, path.read_bytes(), threads
        try:
            interpreter = Interpreter(model_content=self._flatbuffer, num_threads=threads)
            inputs, outputs = _indices(interpreter)
        except (ValueError, RuntimeError) as error:
            raise BundleError(f"LiteRT refuses {path}: {' '.join(str(error).split())}") from error
        details = {d["index"]: d for d in interpreter.get_tensor_details()}
        self.inputs = [_declared(name, details[i]) for name, i in inputs.items()]
        self.outputs = [_declared(name, details[i]) for name, i in outputs.items()]

    def hidden(self) -> list[str]:
        """Variables of the file: two streams would share them."""
        from ai_edge_litert import schema_py_generated as schema  # only a file of another maker needs it

        from . import hidden

        model = schema.ModelT.InitFromPackedBuf(self._flatbuffer, 0)
        names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
        codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
        operators = [op for graph in model.subgraphs for op in graph.operators or ()]
        counts = Counter(str(names.get(codes[op.opcodeIndex])) for op in operators)
        return [*hidden.assigned(counts), *hidden.kept(model)]

    def try_once(self, inputs: Tensors) -> dict[str, NDArray[np.generic]]:
        """Run on arrays of full shapes, by name; every output by name."""
        interpreter = Interpreter(model_content=self._flatbuffer)
        names, results = _indices(interpreter)
        for name, array in inputs.items():
            interpreter.resize_tensor_input(names[name], array.shape)
        _allocate(interpreter)
        for name, array in inputs.items():
            interpreter.set_tensor(names[name], array)
        interpreter.invoke()
        return {name: interpreter.get_tensor(i) for name, i in results.items()}

    def engine(self, spec: StepSpec) -> Engine:
        """The engine of this file for a spec."""
        return LiteRTEngine(self._path, self._flatbuffer, spec, self._threads)


def _declared(name: str, detail: dict[str, Any]) -> Declared:
    shape = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    parameters = detail["quantization_parameters"]
    scales, zeros = parameters["scales"], parameters["zero_points"]
    scale = (float(scales[0]), int(zeros[0])) if len(scales) == 1 else None
    free = tuple(None if n < 0 else int(n) for n in shape)
    return Declared(name, np.dtype(detail["dtype"]).name, free, scale)


def _indices(interpreter: Any) -> Indices:
    """Tensor indices of the inputs and of the outputs by name.

    Those of the first of `SIGNATURES` that there is, else of the first signature.
    """
    signatures = list(interpreter.get_signature_list())
    if not signatures:
        details = interpreter.get_input_details(), interpreter.get_output_details()
        inputs, outputs = ({d["name"]: d["index"] for d in part} for part in details)
        return inputs, outputs
    known = [s for s in SIGNATURES if s in signatures]
    signature = interpreter.get_signature_runner([*known, *signatures][0])
    inputs, outputs = (
        {name: detail["index"] for name, detail in part.items()}
        for part in (signature.get_input_details(), signature.get_output_details())
    )
    return inputs, outputs


class LiteRTEngine:
    """A flatbuffer. An interpreter serves one thread, so every runner has its own."""

    def __init__(self, path: Place, flatbuffer: bytes, spec: StepSpec, threads: int) -> None:
        self._path = path
        self._flatbuffer = flatbuffer  # a runner made later still runs this model, whatever is at path
        self._spec = spec
        self._threads = threads

    def runner(self, batch: int) -> Runner:
        """A new runner with zero states."""
        try:
            interpreter = Interpreter(model_content=self._flatbuffer, num_threads=self._threads)
            indices = _indices(interpreter)
            expected = {t.name for t in (*self._spec.inputs, *self._spec.states)}
            if strangers := sorted(expected ^ indices[0].keys()):
                raise ValueError(
                    f"{strangers[0]!r} is an input of the graph or of the manifest, and not of both"
                )
            for t in (*self._spec.inputs, *self._spec.states):
                interpreter.resize_tensor_input(indices[0][t.name], t.array_shape(batch))
            _allocate(interpreter)
            invoke = _private_invoke(interpreter)
            scales = _scales(interpreter, indices, self._spec)
            spec = in_integers(self._spec, scales)
            runner: Runner
            if invoke is not None and _has_fixed_shapes(interpreter, indices):
                runner = LiteRTRunner(interpreter, invoke, indices, spec, batch)
            else:
                runner = DynamicRunner(interpreter, indices, spec, batch)
            return ScaledRunner(runner, self._spec, scales, batch) if scales else runner
        except (ValueError, RuntimeError, KeyError) as error:
            told = " ".join(str(error).split())
            raise BundleError(f"LiteRT refuses {self._path} at batch {batch}: {told}") from error


def _scales(interpreter: Any, indices: Indices, spec: StepSpec) -> dict[str, float]:
    """Of each tensor that is float32 in the spec and int16 in the graph, what one stands for.

    Raises `ValueError` where it has none, or a state comes back in another.
    """
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    scales = {}
    for side, tensors in zip(indices, ((*spec.inputs, *spec.states), spec.outputs), strict=True):
        for t in tensors:
            found = _declared(t.name, details[side[t.name]])
            if (t.dtype, found.dtype) == ("float32", "int16"):
                if found.scale is None or found.scale[1] or not 0 < found.scale[0] < np.inf:
                    raise ValueError(f"{t.name} is int16 without a scale")
                scales[t.name] = found.scale[0]
    floats = [t.name for t in (*spec.inputs, *spec.states, *spec.outputs) if t.dtype == "float32"]
    if scales and len(scales) < len(floats):
        raise ValueError(f"some of {', '.join(floats)} are int16, and others are not")
    for t in spec.states:
        after = _declared(t.name, details[indices[1][spec.next_of(t)]]).scale
        if t.name in scales and after != (scales[t.name], 0):
            raise ValueError(f"{t.name} comes back in another scale")
    return scales


def _allocate(interpreter: Any) -> None:
    """Allocate the tensors.

    The first time that a process does, LiteRT greets on file descriptor 2 ("INFO: Created TensorFlow Lite
    XNNPACK delegate for CPU."), and nothing that Python reaches turns that off.
    """
    if _greeting.acquire(blocking=False):  # and never let go: it greets once
        with without_lines(b"INFO: "):
            interpreter.allocate_tensors()
    else:
        interpreter.allocate_tensors()


def _failed(error: Exception) -> BundleError:
    return BundleError(f"LiteRT cannot take this step ({' '.join(str(error).split())}); export again")


def _private_invoke(interpreter: Any) -> Callable[[], object] | None:
    """What the public invoke() calls; None in a LiteRT that has it elsewhere.

    The public one refuses to run while views are alive, lest a reallocation moves them, and a runner with
    views never reallocates. Views in place save more than half of the time of an int8 step.
    """
    return getattr(getattr(interpreter, "_interpreter", None), "Invoke", None)


def _has_fixed_shapes(interpreter: Any, indices: Indices) -> bool:
    """Whether every tensor has a place of its own in memory, and a view of it, before the first step."""
    inputs, outputs = ({*part.values()} for part in indices)
    if inputs & outputs:  # an input handed through: its view would be overwritten before it is read
        return False
    try:
        views = [interpreter.tensor(index)() for index in inputs | outputs]
    except ValueError:  # "Tensor data is null": its shape is computed by the graph itself
        return False
    return all(isinstance(view, np.ndarray) for view in views)  # of a tensor without axes it is a number


class DynamicRunner:
    """Copies in and out at every step: a graph that computes shapes may move its tensors each time.

    It needs nothing of LiteRT that is private.
    """

    def __init__(self, interpreter: Any, indices: Indices, spec: StepSpec, batch: int) -> None:
        self.inputs = {t.name: np.zeros(t.array_shape(batch), t.dtype) for t in spec.inputs}
        self.outputs = {t.name: np.zeros(t.array_shape(batch), t.dtype) for t in spec.outputs}
        self._states = {t.name: np.zeros(t.array_shape(batch), t.dtype) for t in spec.states}
        given, results = (
            self.inputs | self._states,
            self.outputs | {spec.next_of(t): self._states[t.name] for t in spec.states},
        )
        self._given = [(indices[0][name], array) for name, array in given.items()]
        self._results = [(indices[1][name], array) for name, array in results.items()]
        self._interpreter = interpreter

    def run(self) -> None:
        """Take one time step."""
        try:
            for index, array in self._given:
                self._interpreter.set_tensor(index, array)
            self._interpreter.invoke()
            results = [self._interpreter.get_tensor(index) for index, _ in self._results]
        except (ValueError, RuntimeError) as error:
            raise _failed(error) from None
        for (_, array), result in zip(self._results, results, strict=True):
            if result.shape != array.shape:  # assigned, it would be broadcast
                raise BundleError(f"LiteRT gives a tensor of shape {result.shape}, expected {array.shape}")
            array[...] = result

    def set_state(self, state: Tensors) -> None:
        """Copy states in, by name."""
        for name, array in self._states.items():
            array[...] = state[name]

    def get_state(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the states, by name."""
        return {name: array.copy() for name, array in self._states.items()}


class LiteRTRunner:
    """Views of the interpreter's tensors; after each step the next states are copied onto the states."""

    def __init__(
        self,
        interpreter: Any,
        invoke: Callable[[], object],
        indices: Indices,
        spec: StepSpec,
        batch: int,
    ) -> None:
        inputs, outputs = (
            {name: interpreter.tensor(index)() for name, index in part.items()} for part in indices
        )
        given = {t.name: t for t in spec.outputs} | {spec.next_of(t): t for t in spec.states}
        for name, tensor in given.items():
            shape = outputs[name].shape
            if shape != tensor.array_shape(batch):  # copied onto the state, it would be broadcast
                raise ValueError(f"{name} has shape {shape}, expected {tensor.array_shape(batch)}")
        self.inputs = {t.name: inputs[t.name] for t in spec.inputs}
        self.outputs = {t.name: outputs[t.name] for t in spec.outputs}
        self._states = {t.name: inputs[t.name] for t in spec.states}
        self._pairs = [(self._states[t.name], outputs[spec.next_of(t)]) for t in spec.states]
        for array in (*self.inputs.values(), *self._states.values()):
            array.fill(0)  # a token left over in memory may be out of range
        self._invoke = invoke
        self._interpreter = interpreter  # holds the flatbuffer, which is not copied

    def run(self) -> None:
        """Take one time step."""
        try:
            self._invoke()
        except RuntimeError as error:
            raise _failed(error) from None
        for state, following in self._pairs:
            state[...] = following

    def set_state(self, state: Tensors) -> None:
        """Copy states in, by name."""
        for name, array in self._states.items():
            array[...] = state[name]

    def get_state(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the states, by name."""
        return {name: array.copy() for name, array in self._states.items()}
