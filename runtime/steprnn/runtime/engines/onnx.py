"""onnxruntime: two bindings over two sets of state buffers, so that no state is ever copied."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..bundle.packed import Place
from ..errors import BundleError
from ..pairing import Declared
from ..spec import StepSpec
from . import Engine, Graph, Runner, Tensors
from .loops import CONTROL, EXTERNAL, UNEVEN, operators

LONGEST = 20  # seconds that the first step of a file of another maker may take


def load(path: Place, spec: StepSpec, threads: int = 1) -> Engine:
    """Load an ONNX step graph on the CPU; raises `BundleError` where onnxruntime refuses it."""
    session = _open(path, threads, read(path))
    expected = {t.name for t in (*spec.inputs, *spec.states)}
    if strangers := sorted(expected ^ {t.name for t in session.get_inputs()}):
        raise BundleError(
            f"{path}: {strangers[0]!r} is an input of the graph or of the manifest, and not of both"
        )
    if missing := sorted({*spec.result_names} - {t.name for t in session.get_outputs()}):
        raise BundleError(f"{path} does not give {missing[0]!r}, which the manifest names")
    return OnnxEngine(session, spec)


def read(path: Place) -> bytes:
    """The bytes of a step; raises `BundleError` where onnxruntime is not to be given them."""
    data = path.read_bytes()
    try:
        found = set(operators(data))
    except ValueError as error:
        raise BundleError(f"onnxruntime refuses {path}: it is no ONNX file ({error})") from None
    if EXTERNAL in found:
        raise BundleError(f"{path} has weights in another file, where a bundle has none; do not trust it")
    if UNEVEN in found:
        raise BundleError(f"{path} splits a tensor {UNEVEN}; do not trust it, or export again")
    if control := sorted(CONTROL & found):
        raise BundleError(f"{path} holds {control[0]}, and a step has no loop and no branch; do not trust it")
    return data


def open_graph(path: Place, threads: int = 1) -> Graph:
    """Open an ONNX file of any maker; raises `BundleError` where onnxruntime refuses it."""
    data = None if isinstance(path, Path) else path.read_bytes()  # a file may have weights beside it
    return OnnxGraph(_open(path, threads, data))


def _open(path: Place, threads: int, data: bytes | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        # With its fallback it would print to stdout and try the same again.
        return onnxruntime.InferenceSession(
            str(path) if data is None else data,
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,
        )
    except Exception as error:  # onnxruntime raises its own classes, which share no base of their own
        told = " ".join(str(error).split())
        raise BundleError(f"onnxruntime {onnxruntime.__version__} refuses {path}: {told}") from error


class OnnxGraph:
    """What an ONNX file of any maker declares."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self.inputs = [_declared(t) for t in session.get_inputs()]
        self.outputs = [_declared(t) for t in session.get_outputs()]

    def hidden(self) -> list[str]:
        """None: ONNX has no variables."""
        return []

    def try_once(self, inputs: Tensors) -> dict[str, NDArray[np.generic]]:
        """Run on arrays of full shapes, by name; every output by name. Gives up after `LONGEST` seconds."""
        names = [t.name for t in self.outputs]
        options = onnxruntime.RunOptions()
        timer = threading.Timer(LONGEST, lambda: setattr(options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            return dict(zip(names, self._session.run(names, dict(inputs), options), strict=True))
        except Exception as error:
            if options.terminate:
                raise TimeoutError(f"one step takes more than {LONGEST} s; it may hold a loop") from error
            raise
        finally:
            timer.cancel()

    def engine(self, spec: StepSpec) -> Engine:
        """The engine of this file for a spec."""
        return OnnxEngine(self._session, spec)


def _declared(tensor: Any) -> Declared:
    """onnxruntime's `tensor(float)` is float32; what is no tensor of numbers keeps its own word."""
    inner = tensor.type.removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32", "double": "float64"}.get(inner, inner)
    return Declared(tensor.name, dtype, tuple(tensor.shape))


class OnnxEngine:
    """An `InferenceSession`, which is safe to share between threads."""

    def __init__(self, session: onnxruntime.InferenceSession, spec: StepSpec) -> None:
        self._session = session
        self._spec = spec

    def runner(self, batch: int) -> Runner:
        """A new runner with zero states."""
        return OnnxRunner(self._session, self._spec, batch)


class OnnxRunner:
    """Reads the states from one set of buffers and writes the next ones to the other, in turn."""

    def __init__(self, session: onnxruntime.InferenceSession, spec: StepSpec, batch: int) -> None:
        self.inputs = {t.name: np.zeros(t.array_shape(batch), t.dtype) for t in spec.inputs}
        self.outputs = {t.name: np.zeros(t.array_shape(batch), t.dtype) for t in spec.outputs}
        self._states: list[dict[str, NDArray[np.float32]]] = [
            {t.name: np.zeros(t.array_shape(batch), t.dtype) for t in spec.states} for _ in range(2)
        ]
        self._bound = *self.inputs.values(), *self.outputs.values()  # a binding holds addresses alone
        self._run = session.run_with_iobinding
        self._current = 0
        self._bindings = []
        for current in range(2):
            binding = session.io_binding()
            for name, array in (self.inputs | self._states[current]).items():
                binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            nexts = {spec.next_of(t): self._states[1 - current][t.name] for t in spec.states}
            for name, array in (self.outputs | nexts).items():
                binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            self._bindings.append(binding)

    def run(self) -> None:
        """Take one time step."""
        try:
            self._run(self._bindings[self._current])
        except Exception as error:  # onnxruntime raises its own classes
            told = " ".join(str(error).split())
            raise BundleError(f"onnxruntime cannot take this step ({told}); export again") from None
        self._current = 1 - self._current

    def set_state(self, state: Tensors) -> None:
        """Copy states in, by name."""
        for name, array in self._states[self._current].items():
            array[...] = state[name]

    def get_state(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the states, by name."""
        return {name: array.copy() for name, array in self._states[self._current].items()}
