"""SavedModel: the step as the signature `step`, for any batch size."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from . import operators
from .derive import Step
from .frozen import freeze

SIGNATURE = "step"
METHODS = {"float32": "float32 weights"}


def write(step: Step, path: Path, variant: str = "float32") -> None:
    """Write the folder `path` with the one signature `step`.

    Raises `ExportError` where an operator is not on the list.
    """
    function = freeze(step)
    operators.check_tensorflow(function.graph.as_graph_def())
    # A step is never trained further, and some activations have gradients that cannot be saved.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(tf.Module(), str(path), signatures={SIGNATURE: function}, options=options)
