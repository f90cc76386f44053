"""Whether a file of Keras 2 says in Keras 3 what it says in its own framework."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, tree

from steprnn.runtime.errors import CheckpointError

from ..step.graph import functional_graph, makes_mask, operations, token_count

STEPS = 12  # that a file is compared over
SAME, SAME_16 = 1e-5, 2e-2  # largest difference to the largest value, in float32 and in 16 bits


def compare(path: Path, model: keras.Model, trust: bool) -> dict[str, Any] | None:
    """Run the file in `tf_keras` and hold the model against it; None where it is not installed.

    Returns its version, the time steps, and the largest difference to the largest value. Raises
    `CheckpointError` where they do not say the same.
    """
    if importlib.util.find_spec("tf_keras") is None:
        _refuse_masks(path, model)
        return None
    import tf_keras

    inputs = [_sample(model, *numbered) for numbered in enumerate(model.inputs)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            own = tf_keras.models.load_model(path, compile=False, safe_mode=not trust)
            expected = tree.flatten(own(_packed(own, inputs), training=False))
        except Exception:  # code of the maker's own, what only an older Keras 2 read, or cuDNN without a GPU
            _refuse_masks(path, model)
            return None
    got = tree.flatten(model(_packed(model, inputs), training=False))
    difference = 0.0
    for one, other in zip(expected, got, strict=True):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        largest = float(np.abs(one).max()) or 1.0
        off = float(np.abs(one - other).max()) / largest if one.shape == other.shape else float("inf")
        if not off <= (SAME_16 if _is_16_bits(model) else SAME):
            raise CheckpointError(
                f"{path} means another thing in Keras {keras.__version__} than in tf_keras "
                f"{tf_keras.__version__}: an output is {off:.2g} of its largest value off; build it in "
                "Python and call steprnn.export.export(model, out)"
            )
        difference = max(difference, off)
    return {"tf_keras": tf_keras.__version__, "steps": STEPS, "difference": difference}


def _packed(model: Any, inputs: list[Any]) -> Any:
    return inputs if len(inputs) > 1 else inputs[0]


def _sample(model: Any, number: int, tensor: Any) -> Any:
    """Tokens, or a standard normal signal, for an input of the model; each input is masked elsewhere."""
    shape = [size or (STEPS if axis else 2) for axis, size in enumerate(tensor.shape)]
    generator = np.random.default_rng(number)
    graph = functional_graph(model)
    tokens = token_count(graph, tensor)
    if tokens is None:
        kind = "float32" if "float" in tensor.dtype else tensor.dtype
        sample, masked = generator.standard_normal(shape).astype(kind), _mask_value(graph)
    else:
        sample, masked = generator.integers(0, tokens, shape).astype(tensor.dtype), 0
    if masked is not None and len(shape) > 1:  # some time steps in the middle and at the end
        begin = STEPS // 3 + number
        sample[:, begin : begin + STEPS // 6] = sample[0, -STEPS // 6 :] = masked
    return sample


def _mask_value(graph: Any) -> float | None:
    masking = (op for op in operations(graph) if isinstance(op, layers.Masking))
    return next((op.mask_value for op in masking), None)


def _refuse_masks(path: Path, model: keras.Model) -> None:
    """Refuse what nobody compared where the two hand masks on in different ways."""
    found = operations(functional_graph(model))
    if not any(map(makes_mask, found)):
        return
    for op in found:
        if isinstance(op, layers.RNN):
            differs = any(map(_is_begun, op._inbound_nodes))
        elif isinstance(op, layers.Concatenate):
            # Keras 2 keeps a step that all keep, Keras 3 one that any does.
            differs = not all(map(_is_masked_alike, op._inbound_nodes))
        else:
            differs = isinstance(op, layers.Rescaling | layers.Identity)
        if differs:
            raise CheckpointError(
                f"{path} masks time steps before layer {op.name!r} ({type(op).__name__}), where Keras 2 hands"
                " masks on in another way than Keras 3; pip install tf_keras to have it compared"
            )


def _is_begun(node: Any) -> bool:
    """Whether a call of a recurrent layer is given states; a mask is not one."""
    given = {name: value for name, value in node.arguments.kwargs.items() if name != "mask"}
    tensors = [t for t in tree.flatten([node.arguments.args, given]) if isinstance(t, keras.KerasTensor)]
    return len(tensors) > 1


def _is_masked_alike(node: Any) -> bool:
    """Whether what a call is given is masked by one and the same table's tokens, or not at all."""
    return len({_masked_by(t) for t in node.input_tensors if t.dtype != "bool"}) == 1


def _masked_by(tensor: Any) -> Any:
    """The tokens whose zeros mask a tensor, by their identity; None where nothing does, else its own."""
    while True:
        op, index, _ = tensor._keras_history
        if isinstance(op, layers.Embedding):
            return id(op._inbound_nodes[index].input_tensors[0]) if op.mask_zero else None
        if isinstance(op, layers.InputLayer):
            return None
        given = [t for t in op._inbound_nodes[index].input_tensors if t.dtype != "bool"]
        if not (isinstance(op, layers.Layer) and op.supports_masking and len(given) == 1) or makes_mask(op):
            return id(tensor)
        tensor = given[0]


def _is_16_bits(model: keras.Model) -> bool:
    return any("16" in layer.compute_dtype for layer in model._flatten_layers())
