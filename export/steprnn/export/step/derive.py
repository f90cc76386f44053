"""Derive the single step from a functional Keras model by walking its own graph.

Every layer runs as it is on a time axis of length 1; only a layer that remembers (an `RNN`, a causal
convolution) is stepped on states that the caller holds. Nothing here knows a particular model.
"""

from __future__ import annotations

import contextlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from steprnn.runtime.errors import ExportError

from .analysis import Analysis
from .contract import Step
from .graph import Call, functional_graph, operations, walk
from .memory import DTYPE
from .moment import Moment, Tensors
from .sequences import SequenceModel


def derive(model: keras.Model) -> Step:
    """The step of a functional or Sequential model whose layers are all causal.

    Raises `ExportError` where the model has no graph to read, nothing to remember, or a layer that
    has no step, which it names.
    """
    graph = functional_graph(model)
    if graph is None:
        raise ExportError(
            f"model {getattr(model, 'name', '')!r} ({type(model).__name__}) has no graph to read: it is not "
            "functional, or a Sequential model that was not built; write its step as a function and pass "
            "steprnn.export.Step(spec, call)"
        )
    _refuse_weights(model)
    analysis = Analysis(graph, model.name)
    sequences = SequenceModel(model, analysis)

    def run(moment: Moment) -> list[Any]:
        with tf.name_scope("step"):  # within it a layer's name may begin with an underscore
            given = analysis.given(moment)
            return walk(analysis.graph, given, lambda c: analysis.parts[c.key].step(c, moment))

    def call(tensors: Tensors) -> Tensors:
        moment = Moment(tensors)
        return analysis.results(run(moment), moment)

    def begin(static: Tensors) -> Tensors:
        """The step again, of which nothing is kept but the states that it says it begins with."""
        moment = Moment({t.name: tf.zeros((1, *t.shape)) for t in analysis.spec.states} | static)
        run(moment)
        return {name: tf.cast(moment.beginning[name], DTYPE) for name in analysis.begun}

    return Step(
        analysis.spec,
        call,
        analysis.initial,
        sequences,
        sequences.fixed_steps,
        analysis.mask_value,
        notes=(*_notes_of(analysis), *analysis.notes, *analysis.reader.notes),
        start=Step(analysis.start, begin, name="start") if analysis.start else None,
        reading=analysis.reader.reading(),
        exactly=sequences.exactly,
        suspect=lambda inputs: _suspect(analysis, sequences.given(inputs), sequences.steps_of(inputs)),
    )


def _notes_of(analysis: Analysis) -> list[str]:
    """What the step computes otherwise than the model, within the model's own rounding."""
    narrow = ("float16", "bfloat16")
    found = {getattr(op, "compute_dtype", None) for op in operations(analysis.graph)}
    return [f"layers compute in {t}; the step computes in float32" for t in narrow if t in found]


def _refuse_weights(model: keras.Model) -> None:
    """Name the first weight that no number can come of."""
    for weight in model.weights:
        values = keras.ops.convert_to_numpy(weight).astype(np.float64)
        wrong = {"NaN or infinite": ~np.isfinite(values)}
        if weight.name == "moving_variance":
            wrong["negative, which a variance cannot be"] = values < 0
        for what, found in wrong.items():
            if found.any():
                raise ExportError(
                    f"weight {weight.path!r} has {int(found.sum())} of {found.size} values that are {what}; "
                    "train again from before it broke"
                )


def _suspect(analysis: Analysis, inputs: list[Any], steps: int) -> str:
    """Name the first layer whose output at one time step is not what it gives on that step alone.

    `inputs` are the model's, `[batch, steps, ...]`.
    """
    found: list[str] = []

    def visit(call: Call) -> Any:
        outputs = call.run()
        part = analysis.parts[call.key]
        judged = part.timed and not part.remembers and not found
        if judged and not all(_is_local(call, outputs, t, steps) for t in {0, steps // 2, steps - 1}):
            op = call.op
            found.append(f"layer {op.name!r} ({type(op).__name__}) mixes time steps, so it has no step")
        return outputs

    with contextlib.suppress(Exception):  # Keras's own complaint of these inputs says nothing of a layer
        walk(analysis.graph, inputs, visit)
    return found[0] if found else "no single layer was found that mixes time steps"


def _is_local(call: Call, outputs: Any, step: int, steps: int) -> bool:
    """Whether a layer gives the same at one of so many time steps where it is given that one alone."""

    def at_step(value: Any) -> Any:
        is_sequence = tf.is_tensor(value) and value.shape.rank > 1 and value.shape[1] == steps
        return value[:, step : step + 1] if is_sequence else value

    args, kwargs = tree.map_structure(at_step, (call.args, call.kwargs))
    try:
        pairs = zip(tree.flatten(outputs), tree.flatten(call.op(*args, **kwargs)), strict=True)
        return all(np.allclose(at_step(together), alone, 1e-3, 1e-3) for together, alone in pairs)
    except Exception:  # a layer that does not even run on one time step is the one
        return False
