"""The oracle of an artefact's own weights: rounding them is one error, computing with them another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tensorflow as tf

from steprnn.runtime.parity.reference import Reference, single_places, single_rows

from ..formats.frozen import Edit
from ..formats.splice import hold, spliced
from ..step.contract import Step
from .audit import Held
from .reference import Oracle

STEPS = 4  # of each chain; the second is the first that reads a state of the candidate's own
# What it multiplies is rounded to 127 steps of the largest of a row, to the nearest.
HALF_STEP = 1 / 254
PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "Einsum", "Conv2D", "DepthwiseConv2dNative")


def own_run(
    step: Step, run: Reference, held: dict[str, Held], rounds: bool, shared: bool = False
) -> Reference:
    """Short chains from states all along a run, by the step with these weights in float64; and single steps.

    Its units are TensorFlow's float32 errors with them; where the candidate `rounds` what it multiplies by
    weights of 8 bits, or what it costs to move that by up to half a step at random, the largest of some runs.
    The step is that of a row, or where it is `shared` of all: some engines round a batch as one.
    """
    moved = _moved_as_one if shared else _moved
    oracle = Oracle(step, holding(held), holding(held, moved) if rounds else None)
    steps = min(STEPS, run.steps)
    places = single_places(run.steps - steps + 1, run.batch)
    cut = Reference.beside([run.part(slice(t, t + steps), slice(row, row + 1)) for t, row in places])
    chains = oracle.chain(cut.inputs, cut.begin)
    return replace(chains, rows=single_rows(places), singles=oracle.singles(run))


def holding(held: dict[str, Held], moved: Callable[[Any], Any] | None = None) -> Edit:
    """An edit of a step's graph to what an artefact holds in place of its weights.

    What is multiplied by those of 8 bits is `moved`.
    """

    def edit(graph: tf.compat.v1.GraphDef) -> None:
        nodes, dtype = {node.name: node for node in graph.node}, _precision(graph)
        for name, one in held.items():
            hold(nodes[name], one.values.astype(dtype))
        if moved is None:
            return
        for node in [n for n in graph.node if n.op in PRODUCTS]:
            if any(held[s].is_int8 for s in _sources(nodes, node.input[1]) & held.keys()):
                node.input[0] = spliced(graph, f"{node.name}/rounded", node.input[0], tf.float64, moved)

    return edit


def _precision(graph: tf.compat.v1.GraphDef) -> str:
    """That of all floats of a frozen graph."""
    kinds = {node.attr["dtype"].type for node in graph.node if node.op == "Const"}
    return "float64" if tf.float64.as_datatype_enum in kinds else "float32"


def _sources(nodes: dict[str, Any], name: str) -> set[str]:
    """All that a tensor is computed of, and itself."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop().lstrip("^").split(":")[0]
        if one not in found:
            found.add(one)
            waiting += nodes[one].input
    return found


def _moved(x: Any) -> Any:
    return _by_half_a_step(x, tf.reduce_max(tf.abs(x), axis=tf.range(1, tf.rank(x)), keepdims=True))


def _moved_as_one(x: Any) -> Any:
    return _by_half_a_step(x, tf.reduce_max(tf.abs(x)))


def _by_half_a_step(x: Any, largest: Any) -> Any:
    step = largest * HALF_STEP
    return x + step * tf.random.uniform(tf.shape(x), -1, 1, x.dtype, seed=1)
