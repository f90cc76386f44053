"""What a path is, before TensorFlow is imported to open it."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from steprnn.runtime.errors import CheckpointError
from steprnn.runtime.files import MANIFEST, TRAINING

SUFFIXES = (".keras", ".h5", ".hdf5")
HDF5 = b"\x89HDF\r\n\x1a\n"  # what such a file begins with, whatever its name


def refuse_strangers(path: Path) -> None:
    """Raise `CheckpointError`, with the way out, where the path can hold no Keras model."""
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; expected a checkpoint folder, a .keras or an .h5 file")
    if path.is_file() and path.suffix.lower() not in SUFFIXES and not _is_hdf5(path):
        raise CheckpointError(f"{path} is no model; expected a checkpoint folder, a .keras or an .h5 file")
    if not path.is_dir() or (path / TRAINING).is_file():
        return
    if (path / "saved_model.pb").is_file():
        raise CheckpointError(
            f"{path} is a SavedModel, whose layers are gone; export the Keras model it was made from, or "
            f"hold it against that: steprnn check {quote(str(path))} --reference MODEL.keras"
        )
    if (path / MANIFEST).is_file():
        raise CheckpointError(f"{path} is a bundle already; run: steprnn check {quote(str(path))}")
    raise CheckpointError(
        f"{path} is not a checkpoint: it has no {TRAINING}; "
        "expected a folder that `steprnn train --out` wrote"
    )


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(HDF5)) == HDF5
