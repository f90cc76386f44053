"""Opening a file of Keras 2: its configuration in Keras 3's words, its weights layer by layer."""

from __future__ import annotations

import io
import json
import zipfile
from collections import defaultdict
from pathlib import Path

import h5py
import keras
from keras.src.backend.common import global_state

from steprnn.runtime.errors import CheckpointError

from .config import Config, translated
from .layers import OWN
from .weights import assign_h5, assign_zip


def written_by(path: Path) -> str:
    """The version of Keras that a `.h5` or `.keras` file says wrote it; empty where it does not say."""
    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            told = file.attrs.get("keras_version", "")
            return told.decode() if isinstance(told, bytes) else str(told)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "metadata.json" in archive.namelist():
                return str(json.loads(archive.read("metadata.json")).get("keras_version", ""))
    return ""


def load(path: Path, trust: bool) -> keras.Model:
    """The model of a `.h5` or `.keras` file of Keras 2, built anew in Keras 3.

    `trust` lets it bring Python code (Lambda layers). Raises `ExportError` where a layer has no meaning in
    Keras 3, and `CheckpointError` or what Keras raises where the file cannot be read.
    """
    is_h5 = h5py.is_hdf5(path)
    config = _config_of_h5(path) if is_h5 else _config_of_zip(path)
    entry = translated(config)
    _pass_over({layer["config"]["name"] for layer in entry["config"]["layers"]})
    with keras.saving.custom_object_scope(OWN):
        model = keras.saving.deserialize_keras_object(entry, safe_mode=not trust)
    if not model.built:
        raise CheckpointError(f"{path} does not tell the shape of its input; build the model in Python")
    if is_h5:
        with h5py.File(path) as file:
            assign_h5(model, file.get("model_weights", file), config)
    else:
        with (
            zipfile.ZipFile(path) as archive,
            h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file,
        ):
            assign_zip(model, file, config)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with what it makes of its weights
    return model


def _pass_over(names: set[str]) -> None:
    """Let Keras name no operation of its own (it joins masks by some) as a layer of the file is named."""
    used = global_state.get_global_attribute("object_name_uids", defaultdict(int), set_to_default=True)
    for name in names:
        kind, _, number = name.rpartition("_")
        kind, number = (kind, number) if number.isdecimal() else (name, "0")
        used[kind] = max(used[kind], int(number) + 1)


def _config_of_h5(path: Path) -> Config:
    with h5py.File(path) as file:
        config: Config = json.loads(file.attrs["model_config"])
    return config


def _config_of_zip(path: Path) -> Config:
    with zipfile.ZipFile(path) as archive:
        config: Config = json.loads(archive.read("config.json"))
    return config
