"""Graphs that another tool made, as candidates: stepped by the names that --map gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf

from steprnn.runtime import engines
from steprnn.runtime.engines import Engine, Runner, Tensors
from steprnn.runtime.errors import UsageError
from steprnn.runtime.pairing import Declared
from steprnn.runtime.parity.levels import Candidate
from steprnn.runtime.parity.profiles import Profile
from steprnn.runtime.parity.reference import Arrays
from steprnn.runtime.spec import StepSpec, TensorSpec

from ..formats import saved_model
from .reference import FunctionEngine
from .structure import strange_tensors


def foreign_candidate(path: Path, spec: StepSpec, names: dict[str, str], profile: Profile) -> Candidate:
    """A graph file whose tensors are called `names[ours]`, or as ours where nothing is said.

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
    _check_names(path, spec, names, inputs, outputs)
    taken = {names.get(t.name, t.name) for t in (*spec.inputs, *spec.states)}
    return Candidate(
        path.name,
        engine,
        spec,
        profile,
        partial(_open, engine, path, spec, names, {t.name: t.dtype for t in inputs}),
        look=lambda: strange_tensors(inputs, outputs, spec, names),
        batched=not any(t.shape and t.shape[0] == 1 for t in inputs if t.name in taken),
        path=path,
    )


def _check_names(
    path: Path,
    spec: StepSpec,
    names: dict[str, str],
    inputs: Sequence[Declared],
    outputs: Sequence[Declared],
) -> None:
    ours = [*(t.name for t in (*spec.inputs, *spec.states)), *spec.result_names]
    strange = sorted(set(names) - set(ours))
    if strange:
        raise UsageError(f"--map names {', '.join(strange)}, and the step has {', '.join(ours)}")
    twice = sorted({n for n in names.values() if list(names.values()).count(n) > 1})
    if twice:
        raise UsageError(f"--map gives {', '.join(twice)} to two tensors of the step")
    has = [t.name for t in (*inputs, *outputs)]
    missing = sorted({names.get(n, n) for n in ours} - set(has))
    if missing:
        raise UsageError(
            f"{path} has no {', '.join(missing)}; it has {', '.join(has)}. "
            "Say which is which with --map OURS=THEIRS"
        )


class Renamed:
    """An engine, or a runner, whose tensors are called as the step calls them."""

    def __init__(self, engine: Engine, names: Mapping[str, str]) -> None:
        self._engine = engine
        self._names = names

    def runner(self, batch: int) -> Runner:
        """A new runner with zero states."""
        return RenamedRunner(self._engine.runner(batch), self._names)


class RenamedRunner:
    """The runner's own buffers under other names."""

    def __init__(self, runner: Runner, names: Mapping[str, str]) -> None:
        self._runner = runner
        self._theirs = names
        self._ours = ours = {theirs: ours for ours, theirs in names.items()}
        self.inputs = {ours.get(n, n): a for n, a in runner.inputs.items()}
        self.outputs = {ours.get(n, n): a for n, a in runner.outputs.items()}
        self.run = runner.run

    def set_state(self, state: Tensors) -> None:
        """Copy states in, by name."""
        self._runner.set_state({self._theirs.get(n, n): a for n, a in state.items()})

    def get_state(self) -> Arrays:
        """Copies of the states, by name."""
        return {self._ours.get(n, n): a for n, a in self._runner.get_state().items()}


def _open(
    engine: str, path: Path, spec: StepSpec, names: dict[str, str], dtypes: dict[str, str], threads: int
) -> Engine:
    """The engine that a program would run the file in."""
    if engine == "tensorflow":
        return _saved_model(path, spec, names, dtypes)
    called = partial(_called, names, dtypes)
    theirs = StepSpec(
        called(spec.inputs),
        called(spec.states),
        called(spec.outputs),
        {names.get(t.name, t.name): names.get(n, n) for t in spec.states for n in [spec.next_of(t)]},
    )
    return Renamed(engines.open_engine(engine, path, theirs, threads), names)


def _called(
    names: dict[str, str], dtypes: dict[str, str], tensors: Sequence[TensorSpec]
) -> tuple[TensorSpec, ...]:
    renamed = (replace(t, name=names.get(t.name, t.name)) for t in tensors)
    return tuple(replace(t, dtype=dtypes.get(t.name, t.dtype)) for t in renamed)


def _saved_model(path: Path, spec: StepSpec, names: dict[str, str], dtypes: dict[str, str]) -> Engine:
    function = saved_model.signature(path)

    def step(**tensors: Any) -> dict[str, Any]:
        given = {names.get(n, n): t for n, t in tensors.items()}
        results = function(**{n: tf.cast(t, dtypes[n]) for n, t in given.items()})
        return {n: results[names.get(n, n)] for n in spec.result_names}

    return FunctionEngine(step, spec)
