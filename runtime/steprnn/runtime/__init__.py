"""Run a single-step recurrent model without TensorFlow.

>>> from steprnn.runtime import load
>>> model = load("lyrics.bundle")
>>> model.generate("分开", length=50)
"""

from typing import TYPE_CHECKING

from .bundle.vocabulary import Vocabulary
from .errors import (
    BundleError,
    CheckpointError,
    CorpusError,
    ExportError,
    MissingExtra,
    NotFinite,
    OutOfRange,
    ParityError,
    StateError,
    SteprnnError,
    UnknownToken,
    UsageError,
)
from .loading import load
from .model import Model
from .sampling.sampler import Sampling
from .session import Session, State
from .spec import StepSpec, TensorSpec
from .texts.hooks import LogitsProcessor
from .texts.options import Options
from .texts.reading import Score

__all__ = [
    "BundleError",
    "CheckpointError",
    "CorpusError",
    "ExportError",
    "LogitsProcessor",
    "MissingExtra",
    "Model",
    "NotFinite",
    "Options",
    "OutOfRange",
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

__version__: str

if not TYPE_CHECKING:  # a checker would take every misspelt name for one that this gives

    def __getattr__(name: str) -> str:
        """Look the version up when it is asked for: that takes longer than the rest of the import."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("steprnn")
        except PackageNotFoundError:  # run from a folder that nobody installed
            return "0+unknown"
