"""Inspect a model file of any maker: what goes in and out, what comes back as state, what is hazardous.

>>> from steprnn.export.inspect import inspect
>>> inspect("their.onnx").hazards

Each kind of file needs its own package and no other: onnx, ai_edge_litert (or tensorflow), tensorflow.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

from steprnn.runtime.bundle.open import read_bundle
from steprnn.runtime.bundle.packed import Packed, Place
from steprnn.runtime.errors import BundleError, MissingExtra
from steprnn.runtime.files import MANIFEST, MODEL

from .report import Hazard, Inspection, Weights

__all__ = ["Hazard", "Inspection", "Weights", "inspect"]

SUFFIXES = {
    ".onnx": "onnx",
    ".tflite": "tflite",
    ".program": "program",
    ".keras": "keras",
    ".h5": "keras",
    ".hdf5": "keras",
}
# A file in a folder -> what the folder is; the first that is there decides.
FOLDERS = {MANIFEST: "bundle", "saved_model.pb": "saved_model", MODEL: "keras"}
# What reads each kind, and the extra that brings it; a bundle's manifest needs nothing.
READERS = {
    "onnx": ("onnx", "export"),
    "tflite": ("ai_edge_litert", "litert"),
    "keras": ("tensorflow", "export"),
    "saved_model": ("tensorflow", "export"),
}


def inspect(path: Place | str, *, trust: bool = False) -> Inspection:
    """Read a `.keras`, `.h5`, `.onnx` or `.tflite` file, a SavedModel, a checkpoint or a bundle,
    which may also be a `.zip` or an installed model's name.

    Nothing is run but what Keras runs to open its own files; `trust` lets a Keras file bring Python
    code. Raises `BundleError` or `CheckpointError` where the path cannot be read, and `MissingExtra`
    where the package that reads it is not installed.
    """
    opened = path if isinstance(path, Packed) else read_bundle(path)
    found = _read(opened, trust)
    return found if opened == Path(str(path)) else replace(found, path=str(path))


def _read(path: Place, trust: bool) -> Inspection:
    if path.is_dir():
        kind = next((kind for name, kind in FOLDERS.items() if (path / name).is_file()), None)
        if kind is None:
            raise BundleError(f"{path} holds none of {', '.join(FOLDERS)}; expected a bundle or a SavedModel")
    elif not path.is_file():
        raise BundleError(f"{path} does not exist; expected a model file or a folder")
    else:
        kind = SUFFIXES.get(path.suffix.lower())
        if kind is None:
            raise BundleError(f"{path} is none of {', '.join(SUFFIXES)}; expected a model file or a folder")
    try:
        module = importlib.import_module(f".{kind}", __package__)
    except ModuleNotFoundError:
        package, extra = READERS[kind]
        raise MissingExtra(f"{package}, which reads {path},", extra) from None
    found: Inspection = module.read(path, trust)
    return found
