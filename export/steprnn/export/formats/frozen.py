"""The graph that every format is written from: weights as constants, the one-hot product as a gather."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from ..step.contract import Step
from . import operators

# Graphs are float32 even where the model computes in 16 bits (mixed_float16), as its weights are float32 and
# CPUs run float16 by way of it, or in 64, as engines take no other. The oracle is the same graph, all of it
# in float64.
NARROW = (tf.float16, tf.bfloat16)
PRECISIONS = {
    "float32": dict.fromkeys((*NARROW, tf.float64), tf.float32),
    "float64": dict.fromkeys((*NARROW, tf.float32), tf.float64),
    "its own": {},
}


Change = Callable[[NDArray[Any], str | None], NDArray[Any] | None]
Edit = Callable[[tf.compat.v1.GraphDef], None]
Made = TypeVar("Made")
_kept: ContextVar[dict[tuple[int, str], tuple[Step, Any]] | None] = ContextVar("_kept", default=None)


@contextmanager
def frozen_once() -> Iterator[None]:
    """Within the outermost a step is traced, frozen and converted once: its weights must stay as they are."""
    outer = _kept.get()
    before = _kept.set({} if outer is None else outer)
    try:
        yield
    finally:
        _kept.reset(before)


def freeze(
    step: Step, precision: str = "float32", change: Change | None = None, edit: Edit | None = None
) -> Any:
    """A concrete function with the names of the step and no variables, for any batch size.

    `change` may replace constants, to see what a mistake in them does: it is given each, with the name of
    the input or state that it is multiplied by where there is one, and returns None to leave it. `edit` is
    given the graph in that precision before, to do with as it likes.
    """
    if change is not None or edit is not None:
        return _freeze(step, precision, change, edit)
    return made_once(step, precision, lambda: _freeze(step, precision))


def made_once(step: Step, what: str, make: Callable[[], Made]) -> Made:
    """What is made of a step: of that name the one made before, within `frozen_once`."""
    kept = _kept.get()
    if kept is None:
        return make()
    key = id(step), what  # holding the step keeps its id from being reused
    if key not in kept:
        kept[key] = step, make()
    made: Made = kept[key][1]
    return made


def node_names(step: Step) -> set[str]:
    """Those of the graph that an edit is given."""
    graph, _ = made_once(step, "traced", lambda: _traced(step))
    return {node.name for node in graph.node}


def _traced(step: Step) -> tuple[tf.compat.v1.GraphDef, list[str]]:
    """The graph with its weights as constants, as the model computes it, and the tensors of its results."""
    frozen = convert_variables_to_constants_v2(step.function())
    graph = frozen.graph.as_graph_def()
    gather_one_hot(graph)
    ends = [t.op.name for t in frozen.outputs]
    graph = tf.compat.v1.graph_util.extract_sub_graph(graph, [*ends, *step.signature()])
    operators.check_tensorflow(graph)  # a loop would not even run, once frozen
    return graph, [t.name for t in frozen.outputs]


def _freeze(step: Step, precision: str, change: Change | None = None, edit: Edit | None = None) -> Any:
    traced, ends = made_once(step, "traced", lambda: _traced(step))
    graph = tf.compat.v1.GraphDef()
    graph.CopyFrom(traced)
    kinds = PRECISIONS[precision]
    retype(graph, kinds)
    if edit:
        edit(graph)
    if change:
        factors = _factors(graph)
        for node in (n for n in graph.node if n.op == "Const"):
            changed = change(tf.make_ndarray(node.attr["value"].tensor), factors.get(node.name))
            if changed is not None:
                node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(changed))
    signature = {
        name: tf.TensorSpec(t.shape, kinds.get(t.dtype, t.dtype), name)
        for name, t in step.signature().items()
    }
    # A concrete function flattens a dict in the order of its sorted names.
    results = dict(zip(sorted(step.spec.result_names), ends, strict=True))

    def call(**tensors: Any) -> dict[str, Any]:
        values = tf.graph_util.import_graph_def(
            graph,
            input_map={f"{name}:0": tensors[name] for name in signature},
            return_elements=list(results.values()),
            name="",
        )
        return {name: tf.identity(value, name=name) for name, value in zip(results, values, strict=True)}

    return tf.function(call, autograph=False).get_concrete_function(**signature)


def _factors(graph: tf.compat.v1.GraphDef) -> dict[str, str]:
    """Of each constant on the right of a matrix product, the input or state on its left."""
    nodes = {node.name: node for node in graph.node}

    def source(name: str) -> Any:
        node = nodes[name.split(":")[0].lstrip("^")]
        return source(node.input[0]) if node.op in ("Identity", "Cast") else node

    products = [[source(name) for name in node.input[:2]] for node in graph.node if node.op == "MatMul"]
    return {w.name: x.name for x, w in products if (x.op, w.op) == ("Placeholder", "Const")}


def retype(graph: tf.compat.v1.GraphDef, kinds: dict[tf.DType, tf.DType]) -> None:
    """Change the types of all tensors and constants of a graph, in place."""
    numbers = {old.as_datatype_enum: new.as_datatype_enum for old, new in kinds.items()}
    for node in graph.node:
        for attribute in node.attr.values():
            if attribute.type in numbers:
                attribute.type = numbers[attribute.type]
            for i, kind in enumerate(attribute.list.type):
                if kind in numbers:
                    attribute.list.type[i] = numbers[kind]
            if attribute.HasField("tensor") and attribute.tensor.dtype in numbers:
                new = tf.as_dtype(numbers[attribute.tensor.dtype])
                values = tf.make_ndarray(attribute.tensor).astype(new.as_numpy_dtype)
                attribute.tensor.CopyFrom(tf.make_tensor_proto(values))


def gather_one_hot(graph: tf.compat.v1.GraphDef) -> int:
    """Replace `one_hot(x) @ W` by the rows `W[x]` in place; return how many products it replaced.

    A one-hot row has a single term that is not zero, so both are the same numbers, while the product
    reads all V rows of W at every step.
    """
    nodes = {node.name: node for node in graph.node}

    def source(name: str) -> Any:
        node = nodes[name.split(":")[0].lstrip("^")]
        return source(node.input[0]) if node.op == "Identity" else node

    def constant(name: str) -> float:
        return float(tf.make_ndarray(source(name).attr["value"].tensor))

    int32 = tf.int32.as_datatype_enum
    replaced = 0
    for node in [node for node in graph.node if node.op == "MatMul"]:
        one_hot = source(node.input[0])
        if one_hot.op == "Cast":  # to the 16 bits of a mixed policy
            one_hot = source(one_hot.input[0])
        if one_hot.op != "OneHot" or node.attr["transpose_a"].b or node.attr["transpose_b"].b:
            continue
        indices, _, on, off = one_hot.input
        if one_hot.attr["axis"].i != -1 or constant(on) != 1.0 or constant(off) != 0.0:
            continue
        cast, index_type = source(indices), one_hot.attr["TI"].type
        if cast.op == "Cast" and cast.attr["SrcT"].type == int32:  # a Keras Input of int32: no need to cast
            indices, index_type = cast.input[0], int32
        weights, weight_type = node.input[1], node.attr["T"].type
        axis = graph.node.add(name=f"{node.name}/axis", op="Const")
        axis.attr["dtype"].type = int32
        axis.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.int32(0)))
        node.op = "GatherV2"
        node.ClearField("attr")
        del node.input[:]
        node.input.extend([weights, indices, axis.name])
        node.attr["Tparams"].type = weight_type
        node.attr["Tindices"].type = index_type
        node.attr["Taxis"].type = int32
        replaced += 1
    return replaced
