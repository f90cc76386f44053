"""What is exported: a checkpoint folder, with its vocabulary, or a bare Keras file."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import keras

from steprnn.runtime.bundle.vocabulary import Vocabulary
from steprnn.runtime.errors import BundleError, CheckpointError, ExportError
from steprnn.runtime.files import CHECKPOINT_FORMAT, MODEL, TRAINING, VOCABULARY, read_record

from .step.contract import Step


@dataclass(frozen=True)
class Source:
    """A trained model (or a step written by hand), its vocabulary, and where it came from."""

    model: keras.Model | Step
    vocabulary: Vocabulary | None = None
    about: dict[str, Any] = field(default_factory=dict)


def open_source(path: Path, *, trust: bool = False) -> Source:
    """Read a checkpoint folder, a `.keras` or a legacy `.h5` file.

    `trust` lets a `.keras` file bring its own Python code (Lambda layers). Raises `CheckpointError`
    where the path is none of these, or the file is damaged.
    """
    if path.is_file():
        return Source(_load(path, trust), None, {"source": path.name})
    if not path.is_dir():
        raise CheckpointError(f"{path} does not exist; expected a checkpoint folder, a .keras or an .h5 file")
    record = _training_record(path)
    try:
        vocabulary = Vocabulary.read(path / VOCABULARY)
    except BundleError as error:
        raise CheckpointError(str(error)) from None
    model = _load(path / MODEL, trust)
    size = model.outputs[0].shape[-1]
    if size != len(vocabulary):
        raise CheckpointError(
            f"{path} does not fit together: the model has {size} logits, the vocabulary {len(vocabulary)} "
            "characters; train again"
        )
    about: dict[str, Any] = {key: record[key] for key in ("corpus", "settings") if key in record}
    return Source(model, vocabulary, about | {"source": path.name})


def _training_record(folder: Path) -> dict[str, Any]:
    if not (folder / TRAINING).is_file():
        raise CheckpointError(
            f"{folder} is not a checkpoint: it has no {TRAINING}; "
            "expected a folder that `steprnn train --out` wrote"
        )
    fix = "train again, or copy the whole folder again"
    return read_record(folder / TRAINING, CHECKPOINT_FORMAT, CheckpointError, fix)


def _load(path: Path, trust: bool) -> keras.Model:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; train again, or copy the whole folder")
    try:
        if h5py.is_hdf5(path):
            return _load_h5(path)
        return keras.models.load_model(path, compile=False, safe_mode=not trust)
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
        raise CheckpointError(f"Keras {keras.__version__} cannot open {path}: {message[:300]}") from None


def _load_h5(path: Path) -> keras.Model:
    """A legacy file, without the arguments of Keras 2 that Keras 3 no longer takes."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.h5"
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            if "model_config" not in file.attrs:
                raise ValueError("it holds weights alone, without the model")
            config = json.loads(file.attrs["model_config"])
            file.attrs["model_config"] = json.dumps(_without(config, "time_major"))
        with warnings.catch_warnings():  # of arguments that whoever wrote the model can no longer change
            warnings.simplefilter("ignore")
            return keras.models.load_model(copy, compile=False)


def _without(config: Any, key: str) -> Any:
    if isinstance(config, dict):
        return {k: _without(v, key) for k, v in config.items() if k != key}
    return [_without(v, key) for v in config] if isinstance(config, list) else config
