"""A Keras model's own graph: how it is walked, and what its inputs and operations are."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import keras
from keras import layers, tree

Visit = Callable[..., Any]


def functional_graph(model: Any) -> Any:
    """The functional graph of a functional or built Sequential model, None of anything else.

    With `walk`, the one place that leans on Keras's private walk of a graph.
    """
    if isinstance(model, keras.Sequential):
        model = model._functional
    return model if hasattr(model, "_run_through_graph") and model.inputs else None


def walk(graph: Any, inputs: list[Any], visit: Visit) -> list[Any]:
    """Run `visit(op, *args, **kwargs)` for every operation in order, nested models too; flat outputs."""

    def operation(op: Any) -> Callable[..., Any]:
        inner = functional_graph(op)
        if inner is not None:
            return lambda *args, **kwargs: nested(inner, tree.flatten(args), kwargs.get("mask"))
        return lambda *args, **kwargs: visit(op, *args, **kwargs)

    def nested(inner: Any, inputs: list[Any], mask: Any) -> list[Any]:
        for tensor, own in zip(inputs, tree.flatten(mask), strict=False):
            if own is not None:
                tensor._keras_mask = own
        return walk(inner, inputs, visit)

    outputs: list[Any] = tree.flatten(graph._run_through_graph(inputs, operation_fn=operation))
    return outputs


def operations(graph: Any) -> list[Any]:
    found = []
    for op in graph.operations:
        inner = functional_graph(op)
        found.extend(operations(inner) if inner is not None else [op])
    return found


def makes_mask(op: Any) -> bool:
    """Whether a layer tells the ones behind it which time steps to leave out."""
    return isinstance(op, layers.Masking) or bool(getattr(op, "mask_zero", False))


def consumers(graph: Any, tensor: Any) -> list[Any]:
    found = []
    for op in graph.operations:
        for node in op._inbound_nodes:
            for position, read in enumerate(node.input_tensors):
                if read is not tensor:
                    continue
                inner = functional_graph(op)
                found.extend(consumers(inner, inner.inputs[position]) if inner is not None else [op])
    return found


def token_count(graph: Any, tensor: Any) -> int | None:
    """How many tokens there are, where the input is a token index; None where it is not."""
    for op in consumers(graph, tensor):
        if isinstance(op, layers.Embedding):
            return int(op.input_dim)
        if type(op).__name__ == "OneHot":
            return int(op.num_classes)
        if isinstance(op, layers.CategoryEncoding):
            return int(op.num_tokens)
    return None


def is_token(graph: Any, tensor: Any) -> bool:
    return token_count(graph, tensor) is not None


def is_final_state(tensor: Any) -> bool:
    """Whether an output of the model is a state that its recurrent layer returns: `next_` says it already."""
    op, _, index = tensor._keras_history
    return isinstance(op, layers.RNN) and index > 0


def output_name(graph: Any, i: int) -> str:
    return re.sub(r"\W", "_", graph.output_names[i])


def bound(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by the names of the operation's own signature."""
    bound = inspect.signature(op.call).bind(*args, **taken(op, kwargs))
    return dict(bound.arguments)


def taken(op: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Without what Keras takes for every layer (`training`, `mask`) and this one's `call` does not."""
    parameters = inspect.signature(op.call).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return kwargs
    return {name: value for name, value in kwargs.items() if name in parameters}
