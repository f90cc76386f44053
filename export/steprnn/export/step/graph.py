"""A Keras model's own graph: how it is walked, and what its inputs and operations are."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
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
    if isinstance(model, keras.Model) and _calls_its_own_way(model):
        return _opened(model)
    if isinstance(model, keras.Sequential):
        model = model._functional
    if hasattr(model, "_run_through_graph") and model.inputs:
        return model
    return _opened(model) if isinstance(model, layers.Layer) else None


def _calls_its_own_way(layer: Any) -> bool:
    """Whether the class of a layer, or one between it and Keras's, has a `call` of its own."""
    own = itertools.takewhile(lambda c: not c.__module__.startswith("keras."), type(layer).__mro__)
    return any("call" in vars(c) for c in own)


def is_stock(op: Any) -> bool:
    """Whether Keras's own code runs where a layer is called."""
    names = ("__call__", "call", "inner_loop", "convolution_op")
    return all(
        getattr(type(op), name).__module__.startswith("keras.") for name in names if hasattr(type(op), name)
    )


def _opened(layer: layers.Layer) -> Any:
    """A layer of somebody's own that is made of layers that remember, as a graph; None where it cannot be.

    Its `call` is run once on a symbolic tensor, which works where it is made of layers and `keras.ops`.
    """
    if not hasattr(layer, "_steprnn_graph"):
        object.__setattr__(layer, "_steprnn_graph", _traced(layer))
    return layer._steprnn_graph


def _traced(layer: layers.Layer) -> Any:
    if type(layer).__module__.startswith("keras."):
        return None
    if isinstance(layer, keras.Model):
        tensors = list(getattr(layer, "inputs", None) or ()) if _calls_its_own_way(layer) else []
        remembers = False
    else:
        tensors = _sequences_given(layer)
        remembers = isinstance(layer, MAY_REMEMBER) and _calls_its_own_way(layer)
        inner = [one for one in layer._flatten_layers(include_self=False) if isinstance(one, MAY_REMEMBER)]
        if not remembers and (isinstance(layer, layers.RNN) or not inner):
            return None
    if len(tensors) != 1:
        return None
    x = keras.Input(tensors[0].shape[1:], tensors[0].shape[0], tensors[0].dtype)
    try:
        with _as_it_is_called(layer) if remembers else nullcontext():
            return keras.Model(x, layer.call(x))
    except Exception:  # it asks for values, which a symbolic tensor does not have
        return None


def _sequences_given(layer: layers.Layer) -> list[Any]:
    """What the first call of a layer was given, but for the mask, which a walk hangs on the tensor."""
    if not layer._inbound_nodes:
        return []
    node = layer._inbound_nodes[0]
    masks = {id(t) for t in tree.flatten(node.arguments.kwargs.get("mask"))}
    return [t for t in node.input_tensors if id(t) not in masks]


@contextmanager
def _as_it_is_called(layer: layers.Layer) -> Iterator[None]:
    """While a kind of a Keras layer calls that layer's own `call`, it shows as a layer in the graph."""
    base: Any = next(c for c in type(layer).__mro__ if c.__module__.startswith("keras."))
    plain = object.__new__(base)
    plain.__dict__.update(layer.__dict__)  # the same weights and options
    plain.__dict__.update(_inbound_nodes=[], _outbound_nodes=[])
    call = base.call

    def shown(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self is not layer:
            return call(self, *args, **kwargs)
        given = inspect.signature(call).bind(self, *args, **kwargs).arguments
        _, (_, sequence), *options = given.items()
        return plain(sequence, **{n: v for n, v in options if v is not None and n != "training"})

    base.call = shown
    try:
        yield
    finally:
        base.call = call


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
    """Whether an input `[batch, n]` is a sequence of n numbers, which gets its feature axis by a layer.

    Or a mask of n truth values. `RepeatVector(n)` of it is not that: it is n times all of it.
    """
    window = tensor.shape[1]
    for op in graph.operations:
        for node in op._inbound_nodes:
            if any(t is tensor for t in tree.flatten(node.arguments.kwargs.get("mask"))):
                return True
    return any(
        len(output.shape) == 3 and output.shape[1] == window
        for op in consumers(graph, tensor)
        for output in tree.flatten(op.output)
        if not isinstance(op, layers.RepeatVector)
    )


def flat_sequence(graph: Any, tensor: Any) -> tuple[int, int] | None:
    """The time steps and features of an input `[batch, n]` that a layer lays out as a sequence; or None."""
    readers = consumers(graph, tensor)
    output = readers[0].output if len(readers) == 1 and type(readers[0]).__name__ == "Reshape" else None
    return tuple(output.shape[1:]) if output is not None and len(output.shape) == 3 else None


# They give their elements as they are, in another place.
MOVES = frozenset(
    "Concatenate ExpandDims Flatten GetItem Identity Reshape Split Squeeze Stack Transpose Unstack".split()
)


def state_inputs(graph: Any) -> dict[int, list[Any]]:
    """The inputs that hold initial states of recurrent layers, as they are or several packed into one.

    Their positions, with the states after the sequence where the layers return them.
    """
    found: dict[int, list[Any]] = {}
    for op in (op for op in graph.operations if isinstance(op, layers.RNN)):
        for node in op._inbound_nodes:
            call = inspect.signature(op.call).bind(*node.arguments.args, **node.arguments.kwargs)
            for k, begin in enumerate(tree.flatten(call.arguments.get("initial_state"))):
                source = _moved_from(begin)
                for i in (i for i, tensor in enumerate(graph.inputs) if tensor is source):
                    found.setdefault(i, []).extend(node.output_tensors[1 + k : 2 + k])
    return found


def carried(graph: Any, states: dict[int, list[Any]]) -> dict[int, int]:
    """The inputs among `state_inputs` that take back what an output gave at the last call, as positions."""
    found = {}
    for i, following in states.items():
        for j, output in enumerate(graph.outputs):
            held = {id(t) for t in final_states(output)}
            if (
                held
                and held == {id(t) for t in following}
                and tuple(output.shape) == tuple(graph.inputs[i].shape)
            ):
                found[i] = j
    return found


def final_states(tensor: Any) -> list[Any]:
    """The states of recurrent layers of which a tensor holds the elements, and nothing else; or none."""
    op, node, index = tensor._keras_history
    if isinstance(op, layers.RNN):
        return [tensor] if index > 0 else []
    parts = op._inbound_nodes[node].input_tensors if type(op).__name__ in MOVES else []
    found = [final_states(part) for part in parts]
    return [state for states in found for state in states] if all(found) else []


def is_final_state(tensor: Any) -> bool:
    """Whether an output of the model is a state that its recurrent layer returns: `next_` says it already."""
    op, _, index = tensor._keras_history
    return isinstance(op, layers.RNN) and index > 0


def _moved_from(tensor: Any) -> Any:
    """The input of which a tensor holds elements, and nothing else; or None."""
    if not isinstance(tensor, keras.KerasTensor):
        return None
    op, node, _ = tensor._keras_history
    read = op._inbound_nodes[node].input_tensors
    if not read:
        return tensor
    return _moved_from(read[0]) if type(op).__name__ in MOVES and len(read) == 1 else None


def output_name(graph: Any, i: int) -> str:
    """The name of a model's output, as a tensor of a step may have it."""
    return re.sub(r"\W", "_", graph.output_names[i])
