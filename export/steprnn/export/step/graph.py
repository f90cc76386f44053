"""A Keras model's own graph: how it is walked, and what its inputs and operations are."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, tree

MAY_REMEMBER = (layers.RNN, layers.Conv1D, layers.DepthwiseConv1D, layers.Conv2D, layers.DepthwiseConv2D)


@dataclass(frozen=True)
class Call:
    """One call of an operation in a walk.

    Every walk of a graph meets its calls in the same order, and `key` counts them: equal keys are the same
    call, also of a layer that is called twice.
    """

    key: int
    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def run(self) -> Any:
        """What the operation gives on these arguments."""
        return self.op(*self.args, **self.kwargs)

    def output_spec(self) -> Any:
        """The shapes and dtypes of that, of symbolic arguments."""
        return self.op.compute_output_spec(*self.args, **self._taken)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments by the names of the operation's own signature."""
        return dict(inspect.signature(self.op.call).bind(*self.args, **self._taken).arguments)

    @property
    def _taken(self) -> dict[str, Any]:
        """Without what Keras gives to every layer (`training`, `mask`) and this one does not take."""
        parameters = inspect.signature(self.op.call).parameters
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return self.kwargs
        return {name: value for name, value in self.kwargs.items() if name in parameters}


def functional_graph(model: Any) -> Any:
    """The functional graph of a functional or built Sequential model, None of anything else.

    With `walk`, the one place that leans on Keras's private walk of a graph.
    """
    if isinstance(model, keras.Sequential):
        model = model._functional
    if hasattr(model, "_run_through_graph") and model.inputs:
        return model
    return _opened(model) if isinstance(model, layers.Layer) else None


def _opened(layer: layers.Layer) -> Any:
    """A layer of somebody's own that is made of layers that remember, as a graph; None where it cannot be.

    Its `call` is run once on a symbolic tensor, which works where it is made of layers and `keras.ops`.
    """
    if not hasattr(layer, "_steprnn_graph"):
        object.__setattr__(layer, "_steprnn_graph", _traced(layer))
    return layer._steprnn_graph


def _traced(layer: layers.Layer) -> Any:
    own = not type(layer).__module__.startswith("keras.") and not isinstance(layer, keras.Model | layers.RNN)
    inner = [one for one in layer._flatten_layers(include_self=False) if isinstance(one, MAY_REMEMBER)]
    tensors = layer._inbound_nodes[0].input_tensors if own and inner and layer._inbound_nodes else []
    if len(tensors) != 1:
        return None
    x = keras.Input(tensors[0].shape[1:], tensors[0].shape[0], tensors[0].dtype)
    try:
        return keras.Model(x, layer.call(x))
    except Exception:  # it asks for values, which a symbolic tensor does not have
        return None


def walk(graph: Any, inputs: list[Any], visit: Callable[[Call], Any]) -> list[Any]:
    """Run `visit` for every call in order, those of nested models too; the graph's outputs, flat."""
    keys = itertools.count()

    def operation(op: Any) -> Callable[..., Any]:
        inner = functional_graph(op)
        if inner is not None:
            return lambda *args, **kwargs: nested(inner, tree.flatten(args), kwargs.get("mask"))
        return lambda *args, **kwargs: visit(Call(next(keys), op, args, kwargs))

    def nested(inner: Any, inputs: list[Any], mask: Any) -> list[Any]:
        for tensor, own in zip(inputs, tree.flatten(mask), strict=False):
            if own is not None:
                tensor._keras_mask = own
        return run(inner, inputs)

    def run(graph: Any, inputs: list[Any]) -> list[Any]:
        outputs: list[Any] = tree.flatten(graph._run_through_graph(inputs, operation_fn=operation))
        return outputs

    return run(graph, inputs)


def operations(graph: Any) -> list[Any]:
    """Every operation, those of nested models in place of the model."""
    found = []
    for op in graph.operations:
        inner = functional_graph(op)
        found.extend(operations(inner) if inner is not None else [op])
    return found


def makes_mask(op: Any) -> bool:
    """Whether a layer tells the ones behind it which time steps to leave out."""
    return isinstance(op, layers.Masking) or bool(getattr(op, "mask_zero", False))


def mask_of(tensor: Any) -> Any:
    """The mask that Keras hangs on a tensor, `[batch, time]`; None where all time steps count."""
    return getattr(tensor, "_keras_mask", None)


def consumers(graph: Any, tensor: Any) -> list[Any]:
    """The operations that read a tensor, in nested models too."""
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
        if type(op).__name__ == "Cast":
            return token_count(graph, op.output)
        if isinstance(op, layers.Embedding):
            return int(op.input_dim)
        if type(op).__name__ == "OneHot":
            return int(op.num_classes)
        if isinstance(op, layers.CategoryEncoding):
            return int(op.num_tokens)
    return None


def is_window(graph: Any, tensor: Any) -> bool:
    """Whether an input `[batch, n]` is a sequence of n numbers, which gets its feature axis by a layer."""
    window = tensor.shape[1]
    for op in consumers(graph, tensor):
        if isinstance(op, layers.Reshape) and tuple(op.target_shape) in ((window, 1), (-1, 1)):
            return True
        if type(op).__name__ == "ExpandDims" and op.axis in (-1, 2):
            return True
    return False


def is_final_state(tensor: Any) -> bool:
    """Whether an output of the model is a state that its recurrent layer returns: `next_` says it already."""
    op, _, index = tensor._keras_history
    return isinstance(op, layers.RNN) and index > 0


def output_name(graph: Any, i: int) -> str:
    """The name of a model's output, as a tensor of a step may have it."""
    return re.sub(r"\W", "_", graph.output_names[i])
