"""Our own interpreter of step programs, by ctypes: it needs NumPy and a C compiler, or a built library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...bundle.packed import Place
from ...errors import BundleError, UsageError
from ...pairing import Declared
from ...sampling.sampler import Sampling
from ...spec import StepSpec
from .. import Engine, Graph, Runner, Tensors, Text
from .library import Streams, Tensor, aligned, available, comes_first, is_ready
from .text import LARGEST_SEED, LONGEST, NativeRows, NativeSampler, NativeText, log_probabilities

__all__ = [
    "available",
    "comes_first",
    "is_ready",
    "load",
    "log_probabilities",
    "open_graph",
    "row_sampler",
    "sampler",
    "selftest",
]


def load(path: Place, spec: StepSpec, threads: int = 1) -> Engine:
    """Load a step program; one thread steps it, whatever `threads` is.

    Raises `BundleError` where the interpreter refuses it, or it is of another step.
    """
    return NativeEngine(path, read(path), spec)


def open_graph(path: Place, threads: int = 1) -> Graph:
    """Open a step program to see what it declares; raises `BundleError` where the interpreter refuses it."""
    return NativeGraph(path)


def sampler(
    sampling: Sampling, seed: int, tokens: Sequence[int], vocabulary: int, length: int
) -> NativeSampler | None:
    """What chooses as `Sampler` does for a text of so many tokens after `tokens`.

    None without a library that is there already, and for a seed of more than 64 bits or recent tokens
    without end.
    """
    fitting = _fitting(sampling, seed, len(tokens) + length)
    return NativeSampler(fitting, seed, tokens, vocabulary) if fitting and is_ready() else None


def row_sampler(
    sampling: Sampling, seeds: Sequence[int], tokens: Sequence[Sequence[int]], vocabulary: int, length: int
) -> NativeRows | None:
    """The same for many texts, as `RowSampler` does."""
    fitting = _fitting(sampling, max(seeds, default=0), max(map(len, tokens), default=0) + length)
    return NativeRows(fitting, seeds, tokens, vocabulary) if fitting and is_ready() else None


def _fitting(sampling: Sampling, seed: int, tokens: int) -> Sampling | None:
    """How a text of so many tokens is sampled; None where the interpreter's sampler cannot."""
    recent = min(sampling.repeat_last_n, tokens)
    if seed > LARGEST_SEED or (sampling.repeat_penalty != 1.0 and recent > LONGEST):
        return None
    return replace(sampling, repeat_last_n=recent)


def selftest(path: Place) -> str:
    """What the self-test of a program finds here, in words; empty where every bit is right."""
    return _opened(path, read(path), 1).selftest()


def read(path: Place) -> NDArray[np.uint32]:
    """The words of the program, at an address that 64 divides."""
    data = path.read_bytes()
    words = aligned(-(-len(data) // 4))
    words.view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
    return words[: len(data) // 4]


class NativeGraph:
    """What a step program declares."""

    def __init__(self, path: Place) -> None:
        self._path, self._program = path, read(path)
        self._streams = _opened(path, self._program, 1)
        found = self._streams.inputs, self._streams.states, self._streams.outputs
        self.inputs = [_declared(t) for part in found[:2] for t in part]
        self.outputs = [_declared(t) for t in found[2]]
        self.outputs += [_declared(t, "next_") for t in found[1]]

    def hidden(self) -> list[str]:
        """None: every state of a program is named."""
        return []

    def try_once(self, inputs: Tensors) -> dict[str, NDArray[np.generic]]:
        """Run on arrays of one row, by name; every output by name."""
        streams = _opened(self._path, self._program, 1)
        for tensor in (*streams.inputs, *streams.states):
            streams.array(tensor)[...] = inputs[tensor.name]
        streams.step()
        results = {t.name: np.array(streams.array(t), order="C") for t in streams.outputs}
        return results | {f"next_{t.name}": np.array(streams.array(t), order="C") for t in streams.states}

    def engine(self, spec: StepSpec) -> Engine:
        """The engine of this file for a spec."""
        return NativeEngine(self._path, self._program, spec)


def _declared(tensor: Tensor, prefix: str = "") -> Declared:
    return Declared(prefix + tensor.name, tensor.dtype, (None, *tensor.shape))


def _opened(path: Place, program: NDArray[np.uint32], rows: int) -> Streams:
    try:
        return Streams(program, rows)
    except ValueError as error:
        raise BundleError(f"{path} is refused: {error}; export again") from None


class NativeEngine:
    """A step program, which is only read, and shared by threads."""

    def __init__(self, path: Place, program: NDArray[np.uint32], spec: StepSpec) -> None:
        self._path, self._program, self._spec = path, program, spec
        streams = _opened(path, program, 1)
        for what, tensors, expected in (
            ("input", streams.inputs, spec.inputs),
            ("state", streams.states, spec.states),
            ("output", streams.outputs, spec.outputs),
        ):
            found = {(t.name, t.dtype, t.shape, t.tokens) for t in tensors}
            wanted = {(t.name, t.dtype, t.shape, t.tokens) for t in expected}
            if strangers := sorted(name for name, *_ in found ^ wanted):
                raise BundleError(
                    f"{path}: {strangers[0]!r} is not the same {what} in the program and in the manifest; "
                    "export again"
                )

    def runner(self, batch: int) -> Runner:
        """A new runner with zero states."""
        return NativeRunner(_opened(self._path, self._program, batch), self._spec)


class NativeRunner:
    """Views of the arenas of its rows, one after the other; each row is a stream of its own."""

    def __init__(self, streams: Streams, spec: StepSpec) -> None:
        arrays: dict[str, NDArray[Any]] = {t.name: streams.array(t) for t in streams.tensors}
        self.inputs = {t.name: arrays[t.name] for t in spec.inputs}
        self.outputs = {t.name: arrays[t.name] for t in spec.outputs}
        self._states = {t.name: arrays[t.name] for t in spec.states}
        for state in self._states.values():
            state[...] = 0
        self._streams = streams
        self._step, self._arguments = streams.call

    def run(self) -> None:
        """Take one time step."""
        if error := self._step(*self._arguments):
            raise UsageError(self._streams.words(error))

    def many(self, inputs: NDArray[Any], outputs: NDArray[np.float32] | None) -> None:
        """A time step for each of `inputs` `[steps, ...]` in one call; of one row, one input and one output.

        Raises `UsageError` where a token is impossible: the steps before it were taken.
        """
        (x,) = self.inputs.values()
        room = outputs if outputs is None or outputs.flags.c_contiguous else np.empty_like(outputs, order="C")
        try:
            self._streams.run(np.ascontiguousarray(inputs, x.dtype), room)
        except ValueError as error:
            raise UsageError(str(error)) from None
        if room is not outputs and outputs is not None and room is not None:
            outputs[...] = room

    def text(self, sampling: Sampling, seed: int, tokens: Sequence[int], length: int) -> Text | None:
        """The text that follows `tokens`, which are read; None where it has to be written step by step.

        Of one row. That is for a seed of more than 64 bits, and for recent tokens without end.
        """
        if (fitting := _fitting(sampling, seed, len(tokens) + length)) is None:
            return None
        (y,) = self.outputs.values()
        return NativeText(self._streams, NativeSampler(fitting, seed, tokens, y.shape[-1]), length)

    def set_state(self, state: Tensors) -> None:
        """Copy states in, by name."""
        for name, array in self._states.items():
            array[...] = state[name]

    def get_state(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the states, by name."""
        return {name: np.array(array, order="C") for name, array in self._states.items()}
