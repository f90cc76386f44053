"""What is done to a graph before it is run: a function in the way of a tensor, a value in place of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def spliced(
    graph: tf.compat.v1.GraphDef, name: str, tensor: str, dtype: Any, function: Callable[[Any], Any]
) -> str:
    """Add `function` of a tensor to a graph, its nodes named `name/...`; the name of what it gives."""
    traced = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec(None, dtype))
    (given,), (result,) = traced.inputs, traced.outputs
    for node in traced.graph.as_graph_def().node:
        if node.name == given.op.name:
            continue
        added = graph.node.add()
        added.CopyFrom(node)
        added.name = f"{name}/{node.name}"
        for i, source in enumerate(node.input):
            added.input[i] = tensor if source.split(":")[0] == given.op.name else f"{name}/{source}"
    return f"{name}/{result.name}"


def hold(node: Any, values: Any) -> None:
    """Make a node of a graph a constant, of the type that its values have."""
    node.op = "Const"
    del node.input[:]
    node.ClearField("attr")
    proto = tf.make_tensor_proto(values)
    node.attr["dtype"].type = proto.dtype
    node.attr["value"].tensor.CopyFrom(proto)
