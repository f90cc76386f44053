"""Reading Keras files: the step that each would give, or the layers that stand in its way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from steprnn.runtime.errors import ExportError
from steprnn.runtime.pairing import Declared, Pair
from steprnn.runtime.spec import NEXT, TensorSpec

from ..formats.frozen import freeze
from ..source import open_source
from ..step import layers
from ..step.derive import derive
from ..step.graph import functional_graph
from . import hazards
from .graph_def import GraphReader
from .report import Hazard, Inspection, Weights


def read(path: Path, trust: bool = False) -> Inspection:
    """Inspect a `.keras` or `.h5` file or a checkpoint folder; raises `CheckpointError` where it is none.

    `trust` lets the file bring Python code (Lambda layers); without it such a file raises `ExportError`.
    """
    model: Any = open_source(path, trust=trust).model
    maker = f"{type(model).__name__} {model.name!r}, opened by Keras {keras.__version__}"
    stored = Weights.of((v.dtype, _bytes(v), 0) for v in model.weights).bytes
    try:
        step = derive(model)
    except ExportError as error:
        inputs, outputs = (tuple(_tensor(t) for t in part) for part in (model.inputs, model.outputs))
        found = tuple(Hazard("refused", words) for words in _refused(model, str(error)))
        why = "it has no step; these are the inputs and outputs of the whole model"
        kinds = _kinds(model)
        return Inspection(
            str(path), "Keras", maker, inputs, outputs, (), kinds, Weights(stored), found, (why,)
        )
    spec = step.spec
    frozen = freeze(step)
    reader = GraphReader(frozen.graph.as_graph_def(), [t.name for t in frozen.outputs])
    inputs = tuple(_declared(t) for t in (*spec.inputs, *spec.states))
    nexts = tuple(TensorSpec(NEXT + t.name, t.dtype, t.shape) for t in spec.states)
    outputs = tuple(_declared(t) for t in (*spec.outputs, *nexts))
    pairs = tuple(Pair(t.name, NEXT + t.name, "the step of the layer") for t in spec.states)
    notes = ("the step that `steprnn export` would write, before its proofs", *step.notes)
    return Inspection(
        str(path),
        "Keras",
        maker,
        inputs,
        outputs,
        pairs,
        dict(reader.operators),
        Weights(stored, reader.weights.per_step),
        (*reader.hazards(), *hazards.of_tensors(inputs, outputs, pairs)),
        notes,
    )


def _declared(spec: TensorSpec) -> Declared:
    return Declared(spec.name, spec.dtype, ("batch", *spec.shape))


def _tensor(tensor: Any) -> Declared:
    return Declared(tensor.name, tensor.dtype, tuple(tensor.shape))


def _bytes(variable: Any) -> int:
    size = 1
    for n in variable.shape:
        size *= n
    return int(size * keras.ops.convert_to_numpy(variable.value).dtype.itemsize)


def _refused(model: Any, first: str) -> Iterator[str]:
    """What derivation stumbled over, then every other layer that it would refuse."""
    yield first
    for op in _layers(model):
        named = f"layer {op.name!r} "
        try:
            layers.refuse(op, _has_time(op))
        except ExportError as error:
            if named not in first:
                yield str(error)


def _layers(model: Any) -> Iterator[Any]:
    for op in getattr(functional_graph(model), "operations", ()):
        if functional_graph(op) is None:
            yield op
        else:
            yield from _layers(op)


def _has_time(op: Any) -> bool:
    """Whether a layer's input looks like a sequence: `[batch, time, ...]` of three axes or more."""
    nodes = getattr(op, "_inbound_nodes", [])
    return any(len(t.shape) > 2 or None in t.shape[1:] for node in nodes for t in node.input_tensors)


def _kinds(model: Any) -> dict[str, int]:
    """Layers by class, in place of the operators of a step."""
    kinds: dict[str, int] = {}
    for op in _layers(model):
        kind = re.sub(r"^InputLayer$", "", type(op).__name__)
        if kind:
            kinds[kind] = kinds.get(kind, 0) + 1
    return kinds
