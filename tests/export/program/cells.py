"""An LSTM and a GRU as tf2onnx writes them, with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from steprnn.runtime.spec import StepSpec, TensorSpec

LSTM = """
MatMul h U -> hU; MatMul x W -> xW; Add xW hU -> s; Add s b -> z; Split z -> i f g o; Tanh g -> tg;
Sigmoid o -> so; Sigmoid f -> sf; Mul sf c -> kept; Sigmoid i -> si; Mul si tg -> new; Add kept new -> next_c;
Tanh next_c -> tc; Mul so tc -> next_h; Identity next_h -> y
"""
GRU = """
MatMul h U -> hU; Add hU b2 -> hz; MatMul x W -> xW; Add xW b -> xz; Split xz -> a0 a1 a2;
Split hz -> b0 b1 b3; Add a1 b1 -> r0; Sigmoid r0 -> r; Mul r b3 -> rh; Add a2 rh -> g0; Tanh g0 -> g;
Add a0 b0 -> z0; Sigmoid z0 -> u; Sub one u -> v; Mul v g -> m; Mul u h -> k; Add k m -> next_h;
Identity next_h -> y
"""


def cell_graph(cell: str, n: int, features: int, seed: int = 0) -> tuple[onnx.ModelProto, StepSpec]:
    """The step `x, h(, c) -> y, next_h(, next_c)` of n units, where y is next_h."""
    gates, states = {"lstm": (4, ("h", "c")), "gru": (3, ("h",))}[cell]
    generator = np.random.default_rng(seed)
    shapes = {"U": (n, gates * n), "W": (features, gates * n), "b": (gates * n,), "b2": (gates * n,)}
    arrays: dict[str, Any] = {k: generator.normal(0, 0.4, s).astype(np.float32) for k, s in shapes.items()}
    arrays["one"] = np.float32(1)
    text = {"lstm": LSTM, "gru": GRU}[cell]
    nodes = []
    for line in text.replace("\n", " ").split(";"):
        left, right = line.split("->")
        operator, *inputs = left.split()
        options = {"axis": 1, "num_outputs": gates} if operator == "Split" else {}
        nodes.append(helper.make_node(operator, inputs, right.split(), **options))
    used = {name for node in nodes for name in node.input}

    def value(name: str, size: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])

    graph = helper.make_graph(
        nodes,
        "step",
        [value("x", features), *(value(s, n) for s in states)],
        [value("y", n), *(value(f"next_{s}", n) for s in states)],
        [numpy_helper.from_array(np.asarray(a), k) for k, a in arrays.items() if k in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    tensors = tuple(TensorSpec(s, "float32", (n,)) for s in states)
    return model, StepSpec(
        (TensorSpec("x", "float32", (features,)),), tensors, (TensorSpec("y", "float32", (n,)),)
    )
