"""SavedModel: the step as the signature `step`, for any batch size."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from .derive import Step
from .frozen import freeze

SIGNATURE = "step"
METHODS = {"float32": "float32 weights"}


def write(step: Step, path: Path, variant: str = "float32", batch: int | None = None) -> None:
    """Write the folder `path` with the one signature `step`."""
    tf.saved_model.save(tf.Module(), str(path), signatures={SIGNATURE: freeze(step, batch)})
