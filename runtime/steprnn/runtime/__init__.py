"""Run a single-step recurrent model without TensorFlow.

>>> from steprnn.runtime import load
>>> model = load("lyrics.bundle")
>>> model.generate("分开", length=50)
"""

from .bundle.vocabulary import Vocabulary
from .errors import (
    BundleError,
    CheckpointError,
    CorpusError,
    ExportError,
    MissingExtra,
    ParityError,
    StateError,
    SteprnnError,
    UnknownToken,
    UsageError,
)
from .model import Model, Score, load
from .sampling import Sampling
from .session import Session, State
from .spec import StepSpec, TensorSpec

__all__ = [
    "BundleError",
    "CheckpointError",
    "CorpusError",
    "ExportError",
    "MissingExtra",
    "Model",
    "ParityError",
    "Sampling",
    "Score",
    "Session",
    "State",
    "StateError",
    "StepSpec",
    "SteprnnError",
    "TensorSpec",
    "UnknownToken",
    "UsageError",
    "Vocabulary",
    "load",
]
