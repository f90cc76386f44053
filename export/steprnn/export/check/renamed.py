"""Graphs that another tool made, as candidates: stepped by the names that --map gives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from steprnn.runtime import engines
from steprnn.runtime.engines import Engine, Runner, Tensors
from steprnn.runtime.errors import UsageError
from steprnn.runtime.pairing import Declared, shape_text
from steprnn.runtime.parity.levels import Candidate
from steprnn.runtime.parity.profiles import Profile
from steprnn.runtime.parity.reference import Arrays
from steprnn.runtime.spec import StepSpec, TensorSpec

from ..formats import saved_model
from ..inspect import inspect
from .functions import FunctionEngine
from .structure import strange_tensors


@dataclass(frozen=True)
class Place:
    """Where a tensor of the step is in a graph: a tensor of the graph, or what an index picks out of it.

    `index` has a number for each axis that the step does not have, and None for each that it has, of which
    the batch is the first; axes behind it are the step's.
    """

    name: str
    index: tuple[int | None, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Place:
        """As in `hn[0]`, `states[:, 0, :, 1]`; raises `UsageError` where an index is none."""
        name, bracket, rest = text.partition("[")
        parts = [part.strip() for part in rest.removesuffix("]").split(",")] if bracket else []
        if bracket and (not rest.endswith("]") or not all(re.fullmatch(r":|\d+", p) for p in parts)):
            raise UsageError(f"--map {text!r} has no index such as h0[0] or states[:,0,:,1]")
        return cls(name, tuple(None if part == ":" else int(part) for part in parts))

    def __str__(self) -> str:
        index = ",".join(":" if i is None else str(i) for i in self.index)
        return f"{self.name}[{index}]" if self.index else self.name

    def of(self, array: Any) -> Any:
        """The view of an array of the graph's that is the step's tensor."""
        return array[tuple(slice(None) if i is None else i for i in self.index)]

    def declared(self, tensor: Declared) -> Declared:
        """What the graph declares of it, without the axes that are picked."""
        if tensor.shape is None or not self.index:
            return tensor
        if len(self.index) > len(tensor.shape):
            raise UsageError(f"--map {self}: {tensor.name} has {len(tensor.shape)} axes")
        for axis, i in enumerate(self.index):
            size = tensor.shape[axis]
            if i is not None and isinstance(size, int) and i >= size:
                raise UsageError(f"--map {self}: {tensor.name} is {shape_text(tensor.shape)}")
        kept = [*self.index, *[None] * (len(tensor.shape) - len(self.index))]
        shape = tuple(n for n, i in zip(tensor.shape, kept, strict=True) if i is None)
        return Declared(str(self), tensor.dtype, shape, tensor.scale)


class WideSpec(TensorSpec):
    """A tensor of the graph's own axes; `shape` has all but the batch, which is axis `batch_axis`."""

    batch_axis: int

    def array_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of the array for so many rows."""
        return (*self.shape[: self.batch_axis], batch, *self.shape[self.batch_axis :])


@dataclass(frozen=True)
class Layout:
    """Where each tensor of the step is in a graph, and what the graph declares."""

    places: Mapping[str, Place]  # by our name
    declared: Mapping[str, Declared]  # by theirs

    @classmethod
    def of(cls, spec: StepSpec, names: Mapping[str, str], declared: Iterable[Declared]) -> Layout:
        """By the names that were given, and by ours where none was."""
        known = {t.name: t for t in declared}
        ours = (*(t.name for t in (*spec.inputs, *spec.states)), *spec.result_names)
        texts = {n: names.get(n, n) for n in ours}
        return cls({n: Place(t) if t in known else Place.parse(t) for n, t in texts.items()}, known)

    def spec(
        self, tensors: Sequence[TensorSpec], called: Mapping[str, str] | None = None
    ) -> list[TensorSpec]:
        """The graph's own tensors that hold these, each once; `called` has other names for some of ours."""
        found: dict[str, TensorSpec] = {}
        for t in tensors:
            place = self.places[(called or {}).get(t.name, t.name)]
            declared = self.declared[place.name]
            if not place.index:
                found[place.name] = TensorSpec(place.name, declared.dtype, t.shape, t.tokens)
                continue
            rank = len(place.index) - place.index.count(None) + 1 + len(t.shape)
            index = [*place.index, *[None] * (rank - len(place.index))]
            ours = iter(t.shape)
            axis = index.index(None)
            shape = [
                self._size(place.name, a) if i is not None else next(ours)
                for a, i in enumerate(index)
                if a != axis
            ]
            wide = WideSpec(place.name, declared.dtype, tuple(shape))
            object.__setattr__(wide, "batch_axis", axis)
            found[place.name] = wide
        return list(found.values())

    def _size(self, name: str, axis: int) -> int:
        """How long an axis is that the step does not have: as declared, or as the indices ask."""
        shape = self.declared[name].shape
        size = shape[axis] if shape is not None else None
        if isinstance(size, int):
            return size
        return 1 + max(p.index[axis] or 0 for p in self.places.values() if p.name == name)


def foreign_candidate(path: Path, spec: StepSpec, names: dict[str, str], profile: Profile) -> Candidate:
    """A graph file whose tensors are called `names[ours]`, or as ours where nothing is said.

    A name may have an index, as in `hn[0]`, where the graph's tensor has more axes or holds several of ours.
    Its operators are its maker's business, and it may hold tensors besides those of the step. Raises
    `UsageError` where it has no tensor of such a name, and lists those it has.
    """
    if engine := engines.ENGINE_OF.get(path.suffix[1:].lower(), ""):
        graph = engines.open_graph(engine, path)
        inputs, outputs = graph.inputs, graph.outputs
    elif path.is_dir():
        engine = "tensorflow"
        inputs, outputs = saved_model.declared(saved_model.signature(path))
    else:
        raise UsageError(f"{path} is not a bundle, an .onnx or .tflite file, or a SavedModel folder")
    layout = Layout.of(spec, names, (*inputs, *outputs))
    _check_names(path, spec, names, layout)
    called = {ours: str(place) for ours, place in layout.places.items()}
    taken = [layout.places[t.name] for t in (*spec.inputs, *spec.states)]
    shapes = [place.declared(layout.declared[place.name]).shape for place in taken]
    return Candidate(
        path.name,
        engine,
        spec,
        profile,
        partial(_open, engine, path, spec, layout),
        look=lambda: strange_tensors(*_picked(layout, inputs, outputs), spec, called),
        batched=not any(shape and shape[0] == 1 for shape in shapes),
        path=path,
        own=False,
    )


def _picked(
    layout: Layout, inputs: Sequence[Declared], outputs: Sequence[Declared]
) -> tuple[list[Declared], list[Declared]]:
    """What is declared, with what an index picks out of it."""
    picked = {str(p): p for p in layout.places.values() if p.index}
    both = []
    for part in (inputs, outputs):
        named = {t.name: t for t in part}
        both.append([*part, *(p.declared(named[p.name]) for p in picked.values() if p.name in named)])
    return both[0], both[1]


def _check_names(path: Path, spec: StepSpec, names: dict[str, str], layout: Layout) -> None:
    ours = [*(t.name for t in (*spec.inputs, *spec.states)), *spec.result_names]
    strange = sorted(set(names) - set(ours))
    if strange:
        raise UsageError(f"--map names {', '.join(strange)}, and the step has {', '.join(ours)}")
    twice = sorted({n for n in names.values() if list(names.values()).count(n) > 1})
    if twice:
        raise UsageError(f"--map gives {', '.join(twice)} to two tensors of the step")
    missing = sorted({p.name for p in layout.places.values()} - set(layout.declared))
    if missing:
        _refuse_whole(path)
        raise UsageError(
            f"{path} has no {', '.join(missing)}; it has {', '.join(layout.declared)}. "
            "Say which is which with --map OURS=THEIRS"
        )
    for t in spec.states:
        state, following = layout.places[t.name], layout.places[spec.next_of(t)]
        if state.index != following.index:
            raise UsageError(
                f"--map gives {t.name} as {state} and {spec.next_of(t)} as {following}: the graph's tensor "
                "comes back whole, so both have the same index"
            )


def _refuse_whole(path: Path) -> None:
    """Say of a graph that runs over whole sequences what `inspect` says; no name would make it a step."""
    found = {hazard.kind: hazard.words for hazard in inspect(path).hazards}
    if "no-state" in found:
        words = [found[kind] for kind in ("loop", "hidden-state", "no-state") if kind in found]
        raise UsageError(
            f"{path} is no step: {'; '.join(words)}; export it with its states as inputs and outputs"
        )


class Renamed:
    """An engine, or a runner, whose tensors are called and laid out as the step has them."""

    def __init__(self, engine: Engine, layout: Layout) -> None:
        self._engine = engine
        self._layout = layout

    def runner(self, batch: int) -> Runner:
        """A new runner with zero states."""
        return RenamedRunner(self._engine.runner(batch), self._layout.places)


class RenamedRunner:
    """Views of the runner's own buffers under other names."""

    def __init__(self, runner: Runner, places: Mapping[str, Place]) -> None:
        self._runner = runner
        held = runner.get_state()
        self._states = {ours: place for ours, place in places.items() if place.name in held}
        self.inputs, self.outputs = (
            {ours: place.of(part[place.name]) for ours, place in places.items() if place.name in part}
            for part in (runner.inputs, runner.outputs)
        )
        self.run = runner.run

    def set_state(self, state: Tensors) -> None:
        """Copy states in, by name."""
        held = self._runner.get_state()
        for ours, place in self._states.items():
            place.of(held[place.name])[...] = state[ours]
        self._runner.set_state(held)

    def get_state(self) -> Arrays:
        """Copies of the states, by name."""
        held = self._runner.get_state()
        return {
            ours: np.ascontiguousarray(place.of(held[place.name])) for ours, place in self._states.items()
        }


def _open(engine: str, path: Path, spec: StepSpec, layout: Layout, threads: int) -> Engine:
    """The engine that a program would run the file in."""
    if engine == "tensorflow":
        return _saved_model(path, spec, layout)
    places = layout.places
    theirs = StepSpec(
        tuple(layout.spec(spec.inputs)),
        tuple(layout.spec(spec.states)),
        tuple(layout.spec(spec.outputs)),
        {places[t.name].name: places[spec.next_of(t)].name for t in spec.states},
    )
    return Renamed(engines.open_engine(engine, path, theirs, threads), layout)


def _saved_model(path: Path, spec: StepSpec, layout: Layout) -> Engine:
    function = saved_model.signature(path)
    taken = [*layout.spec(spec.inputs), *layout.spec(spec.states)]

    def step(**tensors: Any) -> dict[str, Any]:
        rows = len(next(iter(tensors.values())))
        given = {t.name: np.zeros(t.array_shape(rows), t.dtype) for t in taken}
        for ours, tensor in tensors.items():
            place = layout.places[ours]
            place.of(given[place.name])[...] = tensor
        results = function(**{name: tf.constant(array) for name, array in given.items()})
        places = {n: layout.places[n] for n in spec.result_names}
        return {n: place.of(results[place.name].numpy()) for n, place in places.items()}

    return FunctionEngine(step, spec)
