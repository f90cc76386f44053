"""What is exported: a checkpoint folder, with its vocabulary, or a bare Keras file."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import keras

from steprnn.runtime.bundle.vocabulary import Vocabulary
from steprnn.runtime.errors import BundleError, CheckpointError, ExportError, SteprnnError, brief
from steprnn.runtime.files import CHECKPOINT_FORMAT, MODEL, TRAINING, VOCABULARY, read_record

from .keras2 import files as keras2
from .keras2.comparison import compare
from .paths import refuse_strangers
from .room import check_room
from .step.contract import Step


@dataclass(frozen=True)
class Source:
    """A trained model (or a step written by hand), its vocabulary, and where it came from."""

    model: keras.Model | Step
    vocabulary: Vocabulary | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def how_it_was_read(self) -> str:
        """Of a file of Keras 2, in words: as what, and whether its own framework says the same."""
        if "keras" not in self.about:
            return ""
        read = f"read as Keras {self.about['keras']} meant it"
        compared = self.about["compared"]
        if compared is None:
            return f"{read}; not compared, as tf_keras is not installed or does not open it"
        own = f"tf_keras {compared['tf_keras']}"
        return f"{read}: {own} says the same over {compared['steps']} steps, to {compared['difference']:.1e}"


def open_source(path: Path, *, trust: bool = False) -> Source:
    """Read a checkpoint folder, a `.keras` or a legacy `.h5` file.

    `trust` lets a `.keras` file bring its own Python code (Lambda layers). Raises `CheckpointError`
    where the path is none of these, or the file is damaged.
    """
    refuse_strangers(path)
    if path.is_file():
        model, read = _load(path, trust)
        return Source(model, None, {"source": path.name} | read)
    record = _training_record(path)
    try:
        vocabulary = Vocabulary.read(path / VOCABULARY)
    except BundleError as error:
        raise CheckpointError(str(error)) from None
    model, read = _load(path / MODEL, trust)
    size = model.outputs[0].shape[-1]
    if size != len(vocabulary):
        raise CheckpointError(
            f"{path} does not fit together: the model has {size} logits, the vocabulary {len(vocabulary)} "
            "characters; train again"
        )
    about: dict[str, Any] = {key: record[key] for key in ("corpus", "settings") if key in record}
    return Source(model, vocabulary, about | {"source": path.name} | read)


def _training_record(folder: Path) -> dict[str, Any]:
    fix = "train again, or copy the whole folder again"
    return read_record(folder / TRAINING, CHECKPOINT_FORMAT, CheckpointError, fix)


def _load(path: Path, trust: bool) -> tuple[keras.Model, dict[str, Any]]:
    """The model, and how it was read where Keras 3 did not write it."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; train again, or copy the whole folder")
    try:
        if h5py.is_hdf5(path):
            _refuse_weights_alone(path)
        check_room(path)
        version = keras2.written_by(path)
        if version.startswith("1."):
            raise CheckpointError(
                f"{path} is of Keras {version}; open it in Keras 2.2.4 and save it there once (Python 3.7: "
                "pip install keras==2.2.4 tensorflow==1.15.5 h5py==2.10.0), then export that file"
            )
        if version.startswith("2."):
            model = keras2.load(path, trust)
            return model, {"keras": version, "compared": compare(path, model, trust)}
        with warnings.catch_warnings():  # of arguments that whoever wrote the model can no longer change
            warnings.simplefilter("ignore")
            return keras.models.load_model(path, compile=False, safe_mode=not trust), {}
    except SteprnnError:
        raise
    except Exception as error:  # Keras raises ValueError, OSError, KeyError and TypeError for a bad file
        message = " ".join(str(error).split()) or type(error).__name__
        if "safe_mode" in message or "enable_unsafe_deserialization" in message:
            raise ExportError(
                f"{path} holds Python code (a Lambda layer), which is not run from a file; "
                "if you trust whoever made it, run again with --trust"
            ) from None
        unknown = re.search(r"(?:Could not locate class|Unknown layer:) '?(\w+)", message)
        if unknown:
            raise CheckpointError(
                f"{path} needs the class {unknown[1]!r}, which this program does not have; "
                "build the model in Python and call steprnn.export.export(model, out)"
            ) from None
        raise CheckpointError(f"Keras {keras.__version__} cannot open {path}: {brief(message)}") from None


def _refuse_weights_alone(path: Path) -> None:
    with h5py.File(path) as file:
        if "model_config" not in file.attrs:
            raise CheckpointError(
                f"{path} holds weights alone, without the model; build it in Python, load_weights() into it "
                "and call steprnn.export.export(model, out)"
            )
