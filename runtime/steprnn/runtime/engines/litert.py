"""LiteRT: the tensors of the interpreter, bound by the names of the signature and written in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..spec import NEXT, StepSpec
from . import Engine, Runner, Tensors

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:  # its older name, still the one on some devices
    from tflite_runtime.interpreter import Interpreter

SIGNATURE = "step"


def load(path: Path, spec: StepSpec, threads: int = 1) -> Engine:
    """Load a TFLite step graph; raises `BundleError` where LiteRT refuses it."""
    return LiteRTEngine(path, spec, threads)


class LiteRTEngine:
    """A flatbuffer. An interpreter serves one thread, so every runner has its own."""

    def __init__(self, path: Path, spec: StepSpec, threads: int) -> None:
        self._path = path
        self._flatbuffer = path.read_bytes()  # a runner made later still runs this model, whatever is at path
        self._spec = spec
        self._threads = threads

    def runner(self, batch: int) -> Runner:
        """A new runner with zero states."""
        try:
            interpreter = Interpreter(model_content=self._flatbuffer, num_threads=self._threads)
            signature = interpreter.get_signature_runner(SIGNATURE)
            indices = {
                name: detail["index"]
                for details in (signature.get_input_details(), signature.get_output_details())
                for name, detail in details.items()
            }
            del signature  # it holds tensors, and the interpreter then refuses to resize
            for t in (*self._spec.inputs, *self._spec.states):
                interpreter.resize_tensor_input(indices[t.name], [batch, *t.shape])
            interpreter.allocate_tensors()
            return LiteRTRunner(interpreter, indices, self._spec)
        except (ValueError, RuntimeError, KeyError) as error:
            raise BundleError(f"LiteRT refuses {self._path} at batch {batch}: {error}") from error


class LiteRTRunner:
    """Views of the interpreter's tensors; after each step the next states are copied onto the states."""

    def __init__(self, interpreter: Any, indices: dict[str, int], spec: StepSpec) -> None:
        def view(name: str) -> NDArray[Any]:
            return interpreter.tensor(indices[name])()  # type: ignore[no-any-return]

        self.inputs = {t.name: view(t.name) for t in spec.inputs}
        self.outputs = {t.name: view(t.name) for t in spec.outputs}
        self._states = {t.name: view(t.name) for t in spec.states}
        self._pairs = [(self._states[t.name], view(NEXT + t.name)) for t in spec.states]
        for array in (*self.inputs.values(), *self._states.values()):
            array.fill(0)  # a token left over in memory may be out of range
        # The public invoke() refuses to run while views are alive, lest a reallocation moves them;
        # this runner never reallocates. Views in place save more than half of the time of an int8 step.
        self._invoke = interpreter._interpreter.Invoke
        self._interpreter = interpreter  # holds the flatbuffer, which is not copied

    def run(self) -> None:
        """Take one time step."""
        self._invoke()
        for state, following in self._pairs:
            state[...] = following

    def set_state(self, state: Tensors) -> None:
        """Copy states in, by name."""
        for name, array in self._states.items():
            array[...] = state[name]

    def get_state(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the states, by name."""
        return {name: array.copy() for name, array in self._states.items()}
