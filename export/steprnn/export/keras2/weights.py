"""The weights of a file of Keras 2, layer by layer and by name."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import keras
import numpy as np

from steprnn.runtime.errors import CheckpointError

from .config import MODELS, Config, plain


def assign_h5(model: keras.Model, group: Any, config: Config) -> None:
    """The weights of each layer by its name: first those that are trained, as Keras 2 wrote them."""
    kinds = _kinds(config)
    for stored in _texts(group.attrs["layer_names"]):
        names = _texts(group[stored].attrs["weight_names"])
        values = [np.asarray(group[stored][name]) for name in names]
        if not values:
            continue
        layer = model.get_layer(plain(stored))
        values = _from_cudnn(kinds.get(stored, ""), values)
        _assign([*layer.trainable_weights, *layer.non_trainable_weights], values, stored)


def _texts(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _kinds(config: Config) -> dict[str, str]:
    """Class of each layer by name, as Keras 2 called them."""
    described = config["config"] if isinstance(config["config"], list) else config["config"]["layers"]
    return {
        entry["config"].get("name", ""): entry["class_name"]
        for entry in described
        if isinstance(entry["config"], dict)
    }


def _from_cudnn(kind: str, values: list[Any]) -> list[Any]:
    """cuDNN's LSTM has two biases, which are added up; its kernels lie transposed, gate by gate."""
    if kind not in ("CuDNNLSTM", "CuDNNGRU"):
        return values
    gates = 4 if kind == "CuDNNLSTM" else 3
    kernel, recurrent, bias = values

    def turned(weights: Any, part: Any) -> Any:
        return np.hstack([part(gate) for gate in np.hsplit(weights, gates)])

    kernel = turned(kernel, lambda gate: gate.T.reshape(gate.shape, order="F"))
    recurrent = turned(recurrent, lambda gate: gate.T)
    bias = bias.reshape(2, -1).sum(axis=0) if kind == "CuDNNLSTM" else bias.reshape(2, -1)
    return [kernel, recurrent, bias]


def _assign(variables: list[Any], values: list[Any], name: str) -> None:
    shapes = [tuple(v.shape) for v in variables], [tuple(v.shape) for v in values]
    if shapes[0] != shapes[1]:
        raise CheckpointError(f"layer {name!r} has weights of shapes {shapes[1]}, expected {shapes[0]}")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def assign_zip(model: Any, group: Any, config: Config) -> None:
    """The weights of each layer from its folder, which is named by its class and numbered."""
    container = group["layers"] if "layers" in group else group["_layer_checkpoint_dependencies"]
    counts: Counter[str] = Counter()
    for entry in config["config"]["layers"]:
        kind = _snake(entry["class_name"])
        folder = kind if not counts[kind] else f"{kind}_{counts[kind]}"
        counts[kind] += 1
        if entry["class_name"] == "InputLayer":
            continue
        layer = model.get_layer(plain(entry["config"]["name"]))
        if entry["class_name"] in MODELS:
            assign_zip(layer, container[folder], entry)
        else:
            _assign_folder(layer, container[folder], entry["config"]["name"])


def _assign_folder(layer: Any, group: Any, name: str) -> None:
    stored = group.get("vars")
    if stored is not None and len(stored):
        values = [np.asarray(stored[str(i)]) for i in range(len(stored))]
        _assign(list(layer._trainable_variables) + list(layer._non_trainable_variables), values, name)
    for key in group:
        if key == "vars":
            continue
        inner = getattr(layer, key, None)
        if isinstance(inner, list):
            counts: Counter[str] = Counter()
            for one in inner:
                kind = _snake(type(one).__name__)
                folder = kind if not counts[kind] else f"{kind}_{counts[kind]}"
                counts[kind] += 1
                _assign_folder(one, group[key][folder], name)
        elif inner is not None:
            _assign_folder(inner, group[key], name)


def _snake(name: str) -> str:
    """As Keras names folders: `GRUCell` is `gru_cell`, `TFOpLambda` is `tf_op_lambda`."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
