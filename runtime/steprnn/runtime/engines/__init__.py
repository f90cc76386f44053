"""The engines that run a step graph; each is imported only when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..bundle.packed import Place
from ..errors import MissingExtra, UsageError, check_whole
from ..pairing import Declared
from ..spec import StepSpec

if TYPE_CHECKING:
    from ..sampling.sampler import Sampling

# From 1.29 on onnxruntime looks up mobile.events.data.microsoft.com seconds after a session is made, also
# after `disable_telemetry_events()`. This it reads once, as it starts, and then sends and keeps nothing.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

Tensors = Mapping[str, NDArray[np.generic]]

# In the order of preference: the faster one at batch 1 first (benchmarks/steps.py).
ENGINES = {"litert": "tflite", "onnx": "onnx", "native": "program"}  # engine -> the format that it runs
ENGINE_OF = {format: engine for engine, format in ENGINES.items()}
MODULES = {"litert": "ai_edge_litert", "onnx": "onnxruntime"}  # of an engine that is not our own


class Runner(Protocol):
    """One stream of steps at a fixed batch size, for one thread at a time.

    Write `inputs` in place, call `run()`, read `outputs`: the arrays are the engine's own buffers and
    are overwritten by the next step. The next states become the states by themselves.
    """

    inputs: dict[str, NDArray[np.generic]]  # name -> [batch, ...]
    outputs: dict[str, NDArray[np.float32]]  # name -> [batch, ...]

    def run(self) -> None:
        """Take one time step."""

    def set_state(self, state: Tensors) -> None:
        """Copy states `[batch, size...]` in, by name."""

    def get_state(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the states, by name."""


def run_block(
    runner: Runner, frames: Tensors, static: Tensors, outputs: Mapping[str, NDArray[np.float32]]
) -> None:
    """Step a runner through `frames`, `[steps, batch, ...]` by name, into `outputs`, of the same axes.

    `static` is given at every step, by name `[batch, ...]`: an engine may write over its inputs.
    """
    given = [(runner.inputs[name], array) for name, array in frames.items()]
    same = [(runner.inputs[name], array) for name, array in static.items() if name in runner.inputs]
    taken = [(array, runner.outputs[name]) for name, array in outputs.items()]
    run = runner.run
    if len(given) == len(taken) == 1 and not same:
        (x, arrays), (results, y) = given[0], taken[0]
        if len(x) == 1 and isinstance(runner, Writer):
            runner.many(arrays, results)
            return
        for frame, result in zip(arrays, results, strict=True):
            x[...] = frame
            run()
            result[...] = y
        return
    for k in range(len(next(iter(frames.values())))):
        for x, array in same:
            x[...] = array
        for x, arrays in given:
            x[...] = arrays[k]
        run()
        for results, y in taken:
            results[k] = y


class Text(Protocol):
    """A text that an engine writes by itself."""

    def write(self, work: int) -> list[int]:
        """The next tokens, as many as take about `work` operations; none at the end.

        Raises `NotFinite` where the logits after those that were given are no numbers.
        """


@runtime_checkable
class Writer(Protocol):
    """What a runner has too where its engine takes many steps in one call."""

    def many(self, inputs: NDArray[Any], outputs: NDArray[np.float32] | None) -> None:
        """A time step for each of `inputs` `[steps, ...]`, with the bits of single steps; of one row.

        For a step of one input that is not static and of one output, which go to `outputs` `[steps, ...]`
        where they are wanted.
        """

    def text(self, sampling: Sampling, seed: int, tokens: Sequence[int], length: int) -> Text | None:
        """What follows `tokens`, which are read before; None where it has to be written step by step."""


class Engine(Protocol):
    """A loaded graph: immutable, and shared by threads."""

    def runner(self, batch: int) -> Runner:
        """A new runner with zero states."""


class Graph(Protocol):
    """A file of any maker, opened to see what it declares before a spec is made of it."""

    inputs: list[Declared]
    outputs: list[Declared]

    def hidden(self) -> list[str]:
        """In words, the states that the file keeps to itself between two steps."""

    def try_once(self, inputs: Tensors) -> dict[str, NDArray[np.generic]]:
        """Run on arrays of full shapes, by name; every output by name. Raises what the engine raises."""

    def engine(self, spec: StepSpec) -> Engine:
        """The engine of this file for a spec."""


def installed() -> list[str]:
    """Names of the engines that can be imported here, in the order of preference."""
    return [name for name in ENGINES if _is_installed(name)]


def in_order() -> list[str]:
    """Names of all engines, the fastest at batch 1 first, for a variant that has a step program."""
    native = importlib.import_module(".native", __package__)
    if not native.comes_first():
        return list(ENGINES)
    return sorted(ENGINES, key=lambda name: name != "native")


def _is_installed(name: str) -> bool:
    if name in MODULES:
        return importlib.util.find_spec(MODULES[name]) is not None
    return bool(importlib.import_module(f".{name}", __package__).available())


def open_engine(name: str, path: Place, spec: StepSpec, threads: int = 1) -> Engine:
    """Load the graph at `path` in the engine `name`.

    Raises `MissingExtra` where it is not installed, and `BundleError` where it refuses the file.
    """
    return _module(name, threads).load(path, spec, threads)  # type: ignore[no-any-return]


def check_file(name: str, path: Place) -> None:
    """Raise `BundleError` where a graph of a bundle is such that the engine `name` is not to be given it."""
    _module(name, 1).read(path)


def open_graph(name: str, path: Place, threads: int = 1) -> Graph:
    """Open a file of any maker in the engine `name`; raises as `open_engine` does."""
    return _module(name, threads).open_graph(path, threads)  # type: ignore[no-any-return]


def _module(name: str, threads: int) -> ModuleType:
    if name not in ENGINES:
        raise UsageError(f"engine {name!r} is unknown; expected one of: {', '.join(ENGINES)}")
    if name in MODULES and name not in installed():
        raise MissingExtra(f"the engine {name!r}", name)
    check_whole("threads", threads, 1)
    return importlib.import_module(f".{name}", __package__)
