"""SavedModel: the step as the one signature, for any batch size."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import tensorflow as tf

from steprnn.runtime.errors import UsageError
from steprnn.runtime.pairing import Declared
from steprnn.runtime.spec import SIGNATURES

from ..step.contract import Step
from . import operators
from .frozen import Edit, freeze

METHODS = {"float32": "float32 weights"}


def write(step: Step, path: Path, variant: str = "float32", edit: Edit | None = None) -> None:
    """Write the folder `path` with one signature, named as the step is; `edit` is as in `freeze`.

    Raises `ExportError` where an operator is not on the list.
    """
    function = freeze(step, edit=edit)
    operators.check_tensorflow(function.graph.as_graph_def())
    # A step is never trained further, and some activations have gradients that cannot be saved.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        tf.saved_model.save(tf.Module(), str(path), signatures={step.name: function}, options=options)
    except tf.errors.ResourceExhaustedError as error:  # TensorFlow's own name for a full disk
        raise OSError(errno.ENOSPC, str(error), str(path)) from error


def signature(path: Path) -> Any:
    """The function `step` or `start` of a SavedModel, or `serving_default` where another tool wrote it.

    Raises `UsageError` where it has none of them.
    """
    loaded = tf.saved_model.load(str(path))
    found = next((k for k in SIGNATURES if k in loaded.signatures), None)
    if found is None:
        has = ", ".join(loaded.signatures) or "none"
        raise UsageError(f"{path} has no signature 'step' or 'serving_default'; it has {has}")
    function = loaded.signatures[found]
    function.owner = loaded  # TensorFlow frees the graph with the object that loaded it
    return function


def declared(function: Any) -> tuple[list[Declared], list[Declared]]:
    """Inputs and outputs of a signature."""
    inputs, outputs = function.structured_input_signature[1], function.structured_outputs

    def tensors(specs: dict[str, Any]) -> list[Declared]:
        return [
            Declared(n, t.dtype.name, None if t.shape.rank is None else tuple(t.shape))
            for n, t in specs.items()
        ]

    return tensors(inputs), tensors(outputs)
