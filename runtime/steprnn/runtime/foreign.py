"""Step graphs of other makers: the caller says which output is which state, and they run like a bundle's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import engines
from .bundle.checked import MOST_NUMBERS
from .bundle.manifest import Artefact, FileRecord, Manifest
from .engines import Engine, Graph, Runner
from .errors import UsageError, brief
from .files import MANIFEST
from .pairing import Declared, agree, pairs_by_name, shape_text
from .spec import KINDS, StepSpec, TensorSpec

Arrays = dict[str, NDArray[Any]]


class WholeSpec(TensorSpec):
    """A tensor whose `shape` is all of it; where the batch axis is, if there is one, its maker knows."""

    def array_shape(self, batch: int) -> tuple[int, ...]:
        """The shape it was loaded with; raises `UsageError` where another batch is asked for."""
        if batch != 1:
            raise UsageError(
                f"this graph was loaded with {self.name!r} as {list(self.shape)}; for other rows "
                "load it with shapes={...}, and leave batch out"
            )
        return self.shape


@dataclass(frozen=True)
class ForeignEngine:
    """An engine whose runners have the constants filled in already."""

    opened: Engine
    constants: Arrays

    def runner(self, batch: int) -> Runner:
        """A new runner with zero states."""
        runner = self.opened.runner(batch)
        for name, array in self.constants.items():
            runner.inputs[name][...] = array
        return runner


@dataclass(frozen=True)
class LoadedGraph:
    """What a `Model` is made of, but for a vocabulary."""

    manifest: Manifest
    artefact: Artefact
    engine: str  # its name
    opened: Engine
    initial_state: Arrays  # zeros, by name


def load_graph(
    path: Path,
    engine: str,
    variant: str,
    threads: int,
    states: Mapping[str, str] | None,
    constants: Mapping[str, ArrayLike] | None,
    shapes: Mapping[str, Sequence[int]] | None,
) -> LoadedGraph:
    """Load an `.onnx` or `.tflite` file of any maker.

    `states` maps each state to the output it comes back as. `constants` maps inputs to the value that
    they have at every step. Every other input is the caller's to give; its array has the graph's own
    full shape, with 1 for each free dimension that `shapes` does not tell. States begin at zero. Where all
    that a graph gives are next states, a session's step returns them.

    The graph runs once on zeros, which tells the shapes of its outputs. Saved states are bound to the
    sha256 of the file. Raises `UsageError` where a name, shape or dtype does not fit, and `BundleError`
    where the engine refuses the file.
    """
    name = engines.ENGINE_OF[path.suffix[1:].lower()]
    if engine not in ("auto", name):
        raise UsageError(f"{path} is for the engine {name}, not {engine}")
    if variant not in ("auto", "float32"):
        raise UsageError(f"{path} is one graph and has no {variant} variant beside it")
    graph = engines.open_graph(name, path, threads)
    if hidden := graph.hidden():
        raise UsageError(
            f"{path} is no step: {'; '.join(hidden)}; export it with its states as inputs and outputs"
        )
    states, constants, shapes = _checked_names(path, graph, states, constants or {}, shapes or {})
    declared = {t.name: t for t in graph.inputs}
    arrays = {n: np.full(_check_room(n, _shape(t, shapes.get(n))), _zero(t)) for n, t in declared.items()}
    fixed = {n: _constant(declared[n], value, arrays[n]) for n, value in constants.items()}
    try:
        results = graph.try_once(arrays | fixed)
    except Exception as error:  # each engine raises its own
        given = ", ".join(f"{n} {list(a.shape)}" for n, a in arrays.items())
        raise UsageError(
            f"{path} does not run on {given} ({brief(error)}); other shapes are given as shapes={{...}}"
        ) from error
    for state, following in states.items():
        _check_pair(declared[state], arrays[state], next(t for t in graph.outputs if t.name == following))
        _check_result(state, arrays[state], following, results[following])
    inputs = tuple(_spec(n, a) for n, a in arrays.items() if n not in states)
    outputs = tuple(_spec(n, a) for n, a in results.items() if n not in states.values())
    kept = tuple(_spec(n, arrays[n]) for n in states)
    opened = ForeignEngine(graph.engine(StepSpec(inputs, kept, outputs, dict(states))), fixed)
    step = StepSpec(tuple(t for t in inputs if t.name not in fixed), kept, outputs, dict(states))
    record = FileRecord.of(path)
    artefact = Artefact(path.name, path.suffix[1:], "float32", "as its maker left it", path.name)
    manifest = Manifest(record.sha256, step, (artefact,), {path.name: record}, {"source": path.name})
    return LoadedGraph(manifest, artefact, name, opened, {n: arrays[n] for n in states})


def _checked_names(
    path: Path,
    graph: Graph,
    states: Mapping[str, str] | None,
    constants: Mapping[str, ArrayLike],
    shapes: Mapping[str, Sequence[int]],
) -> tuple[Mapping[str, str], Mapping[str, ArrayLike], Mapping[str, Sequence[int]]]:
    holds = f"it takes {_listed(graph.inputs)} and gives {_listed(graph.outputs)}"
    if states is None and (path.parent / MANIFEST).is_file():
        raise UsageError(f"{path} is a graph of the bundle {path.parent}; give that folder")
    if states is None:
        raise UsageError(f"{path} does not say which outputs are its states: {holds}; {_advice(graph)}")
    inputs, outputs = ({t.name for t in part} for part in (graph.inputs, graph.outputs))
    asked = (
        ("states names the input", states, inputs),
        ("states names the output", states.values(), outputs),
        ("constants names the input", constants, inputs),
        ("shapes names the input", shapes, inputs),
    )
    for what, names, known in asked:
        for name in names:
            if name not in known:
                raise UsageError(f"{what} {name!r}, which {path} does not have: {holds}")
    for name in constants:
        if name in states:
            raise UsageError(f"{name!r} is among the states and the constants; expected it in one of them")
    for name in outputs:
        claimed = [s for s, following in states.items() if following == name]
        if len(claimed) > 1:
            raise UsageError(
                f"states gives the output {name!r} to {' and '.join(claimed)}; expected one state"
            )
    for tensor in (*graph.inputs, *graph.outputs):
        if tensor.dtype not in np.sctypeDict or np.dtype(tensor.dtype).kind not in KINDS:
            raise UsageError(f"{tensor.name!r} is {tensor.dtype}, which is no array of numbers")
    return states, constants, shapes


def _advice(graph: Graph) -> str:
    """The argument to paste where the names tell the pairs, else what could be meant."""
    pairs = pairs_by_name(graph.inputs, graph.outputs)
    if pairs:
        return f"by their names you may mean states={ {p.state: p.next for p in pairs} }"
    could = {t.name: [o.name for o in graph.outputs if agree(t, o)] for t in graph.inputs}
    told = [f"{name} as {' or '.join(names)}" for name, names in could.items() if names]
    meant = f"; by dtype and shape could come back: {', '.join(told)}" if told else ""
    return f"pass states={{input: output}}, or states={{}} where it has none{meant}"


def _listed(tensors: Sequence[Declared]) -> str:
    return ", ".join(map(str, tensors))


def _zero(tensor: Declared) -> Any:
    """Zero in the tensor's dtype; that of quantized values is their zero point."""
    dtype = np.dtype(tensor.dtype)
    return dtype.type(tensor.scale[1] if tensor.scale and dtype.kind in "iu" else 0)


def _shape(tensor: Declared, given: Sequence[int] | None) -> tuple[int, ...]:
    declared = tensor.shape or ()
    if given is None:
        return tuple(n if isinstance(n, int) else 1 for n in declared)
    fits = len(given) == len(declared) and all(
        g > 0 and (g == n or not isinstance(n, int)) for g, n in zip(given, declared, strict=True)
    )
    if not fits:
        raise UsageError(
            f"shapes gives {tensor.name!r} {list(given)}, which does not fit {shape_text(tensor.shape)}"
        )
    return tuple(given)


def _check_room(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if math.prod(shape) > MOST_NUMBERS:
        raise UsageError(f"{name!r} would be {list(shape)}; expected at most {MOST_NUMBERS:,} numbers")
    return shape


def _constant(tensor: Declared, value: ArrayLike, like: NDArray[Any]) -> NDArray[Any]:
    """A value in the tensor's dtype and shape; one number fills any shape."""
    array = np.asarray(value)
    kinds, words = KINDS[like.dtype.kind]
    if array.dtype.kind not in kinds:
        raise UsageError(
            f"constant {tensor.name!r} has dtype {array.dtype}, expected {words} ({tensor.dtype})"
        )
    if array.ndim and array.shape != like.shape:
        raise UsageError(
            f"constant {tensor.name!r} has shape {list(array.shape)}, expected {list(like.shape)}"
        )
    cast = array.astype(like.dtype)
    if like.dtype.kind in "iu" and (cast != array).any():
        raise UsageError(f"constant {tensor.name!r} is outside the range of {tensor.dtype}")
    return np.array(np.broadcast_to(cast, like.shape))


def _check_pair(state: Declared, array: NDArray[Any], following: Declared) -> None:
    if array.dtype.kind in "iu" and state.scale != following.scale:
        raise UsageError(
            f"state {state.name!r} is quantized by {state.scale} and {following.name!r} by {following.scale} "
            "(scale, zero point): fed back as it is, it would be another value"
        )


def _check_result(state: str, array: NDArray[Any], following: str, result: NDArray[Any]) -> None:
    if (result.dtype, result.shape) != (array.dtype, array.shape):
        raise UsageError(
            f"state {state!r} is {array.dtype} {list(array.shape)} and {following!r} is {result.dtype} "
            f"{list(result.shape)}: it cannot come back as that"
        )


def _spec(name: str, array: NDArray[Any]) -> WholeSpec:
    return WholeSpec(name, array.dtype.name, array.shape)
