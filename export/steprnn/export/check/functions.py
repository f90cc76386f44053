"""An engine whose step is a TensorFlow function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.protobuf.config_pb2 import CallableOptions
from tensorflow.python.eager.polymorphic_function.concrete_function import ConcreteFunction

from steprnn.runtime.engines import Runner, Tensors
from steprnn.runtime.errors import ParityError
from steprnn.runtime.parity.reference import Arrays
from steprnn.runtime.spec import NEXT, StepSpec


class FunctionEngine:
    """An engine whose step is a TensorFlow function of the step's names: Keras's own, or a SavedModel's."""

    def __init__(self, function: Any, spec: StepSpec, dtype: str = "float32") -> None:
        self._function = _called_by_name(function) or function
        self._spec = spec
        self._dtype = dtype

    def runner(self, batch: int) -> Runner:
        """A new runner with zero states."""
        return FunctionRunner(self._function, self._spec, self._dtype, batch)


def _called_by_name(function: Any) -> Callable[..., Arrays] | None:
    """The graph of a function without variables, run by a session; None where that cannot run it.

    A call of the function is some 300 us of Python around the same kernels, a session's own callable a tenth.
    Nothing is optimized, which takes longer than a few hundred steps do, and the operators run one after the
    other: handing them to threads costs as much as a step of a small model.
    """
    if not isinstance(function, ConcreteFunction):
        return None
    named = function.structured_input_signature[1]
    if len(named) != len(function.inputs):  # it has variables, or takes tensors by position
        return None
    # The order of the flat tensors. A tool of others may have given them names of their own.
    names, given = sorted(function.structured_outputs), sorted(named)
    options = CallableOptions(
        feed=[tensor.name for tensor in function.inputs],
        fetch=[tensor.name for tensor in function.outputs],
    )
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.experimental.executor_type = "SINGLE_THREADED_EXECUTOR"
    session = tf.compat.v1.Session(graph=function.graph, config=config)
    try:
        call = session._make_callable_from_options(options)
    except tf.errors.OpError:  # that executor has no branches and no loops
        return None

    def called(**tensors: Any) -> Arrays:
        return dict(zip(names, call(*(np.asarray(tensors[name]) for name in given)), strict=True))

    return called


class FunctionRunner:
    """Calls the function with the inputs and the states, by name."""

    def __init__(self, function: Any, spec: StepSpec, dtype: str, batch: int) -> None:
        self.inputs = {
            t.name: np.zeros((batch, *t.shape), dtype if t.dtype.startswith("float") else t.dtype)
            for t in spec.inputs
        }
        self.outputs: dict[str, NDArray[Any]] = {
            t.name: np.zeros((batch, *t.shape), dtype) for t in spec.outputs
        }
        self._states: Arrays = {t.name: np.zeros((batch, *t.shape), dtype) for t in spec.states}
        self._function = function

    def run(self) -> None:
        """Take one time step."""
        results = self._function(**self.inputs, **self._states)
        following = {NEXT + name: array for name, array in self._states.items()}
        for name, array in (self.outputs | following).items():
            result = np.asarray(results[name])
            if result.shape != array.shape:  # never broadcast
                raise ParityError(f"{name} came back with shape {result.shape}, expected {array.shape}")
            array[...] = result

    def set_state(self, state: Tensors) -> None:
        """Copy states in, by name."""
        for name, array in self._states.items():
            array[...] = state[name]

    def get_state(self) -> Arrays:
        """Copies of the states, by name."""
        return {name: array.copy() for name, array in self._states.items()}
