"""What is exported: a checkpoint folder, with its vocabulary, or a bare Keras file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from steprnn.runtime.errors import BundleError, CheckpointError
from steprnn.runtime.vocabulary import Vocabulary

FORMAT = "steprnn.checkpoint"
VERSION = 1


@dataclass(frozen=True)
class Source:
    """A trained model, the vocabulary it was trained on (if any), and where it came from."""

    model: keras.Model
    vocabulary: Vocabulary | None
    about: dict[str, Any]

    @property
    def hash(self) -> str:
        """sha256 of the architecture and the weights, in Keras's order."""
        digest = hashlib.sha256(json.dumps(self.model.get_config(), sort_keys=True, default=str).encode())
        for weight in self.model.get_weights():
            digest.update(weight.tobytes())
        return digest.hexdigest()


def open_source(path: Path) -> Source:
    """Read a checkpoint folder or a `.keras` file; raises `CheckpointError` where it is neither."""
    if path.is_file():
        return Source(_load(path), None, {"source": path.name})
    if not path.is_dir():
        raise CheckpointError(
            f"{path} does not exist; expected a checkpoint as `steprnn train --out` writes it"
        )
    record = _training_record(path)
    try:
        vocabulary = Vocabulary.read(path / "vocabulary.json")
    except BundleError as error:
        raise CheckpointError(str(error)) from None
    model = _load(path / "model.keras")
    size = model.outputs[0].shape[-1]
    if size != len(vocabulary):
        raise CheckpointError(
            f"{path} does not fit together: the model has {size} logits, the vocabulary {len(vocabulary)} "
            "characters; train again"
        )
    about: dict[str, Any] = {key: record[key] for key in ("corpus", "settings") if key in record}
    return Source(model, vocabulary, about | {"source": path.name})


def _training_record(folder: Path) -> dict[str, Any]:
    path = folder / "training.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} is not a checkpoint: it has no training.json; "
            "expected a folder that `steprnn train --out` wrote"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}); train again") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise CheckpointError(f'{path} is not of a checkpoint: expected "format": "{FORMAT}"')
    if record.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has format version {record.get('version')!r} and this steprnn reads {VERSION}; "
            "run: pip install --upgrade steprnn"
        )
    return record


def _load(path: Path) -> keras.Model:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; train again, or copy the whole folder")
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises ValueError, OSError, KeyError and TypeError for a bad file
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"Keras {keras.__version__} cannot open {path}: {first}") from None
