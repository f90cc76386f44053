"""The configuration of Keras 2 in the words of Keras 3.

docs/supported-layers.md lists what changed its meaning between the two, and what is done about it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from keras import layers

from steprnn.runtime.errors import ExportError

from .layers import HARD_SIGMOID, OPERATIONS, OWN

Config = dict[str, Any]

MODELS = ("Functional", "Model", "Sequential")
RENAMED = {
    "CuDNNLSTM": "LSTM",
    "CuDNNGRU": "GRU",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
}
RECURRENT = ("RNN", "SimpleRNN", "LSTM", "GRU", "CuDNNLSTM", "CuDNNGRU")
# How weights begin, are punished or bounded in training says nothing of a model that is trained.
TRAINING = re.compile(r"\w+_(initializer|regularizer|constraint)$")
# What Keras 2 wrote and Keras 3 does not take, and what changes no result whatever its value.
WITHOUT_MEANING = {
    *("implementation", "input_length", "fused", "batch_input_shape", "unit_forget_bias"),
    *("optional", "sparse", "ragged", "seed", "trainable"),
}
IN_PYTHON = "build the model in Python and call steprnn.export.export(model, out)"


def translated(entry: Config) -> Config:
    """A Sequential or functional model, with the models in it; raises `ExportError` by the layer's name."""
    kind, config = entry["class_name"], entry["config"]
    if kind not in MODELS:
        raise ExportError(
            f"the file holds a subclassed model ({kind}), whose class it does not bring; {IN_PYTHON}"
        )
    if isinstance(config, list):  # Sequential before Keras 2.2.3
        config = {"layers": config}
    config = _from_the_first_call(config)
    inner = [_layer(layer) for layer in config["layers"]]
    model: Config = {"name": plain(config.get("name") or kind.lower()), "layers": inner}
    if "trainable" in config:
        model["trainable"] = config["trainable"]
    if kind == "Sequential":
        model["layers"] = [*_input_of(config["layers"][0]), *inner]
        return _entry("Sequential", model, "keras") | _place(entry)
    for key in ("input_layers", "output_layers"):
        places = _renamed(config[key])
        model[key] = places[0] if len(places) == 1 else places  # a list of one is a structure to Keras 3
    return _entry("Functional", model, "keras.src.models.functional", "Functional") | _place(entry)


def plain(name: str) -> str:
    """A layer's name without `/`, which Keras 3 does not take."""
    return name.replace("/", "_")


def _entry(kind: str, config: Config, module: str | None = "keras.layers", name: str | None = None) -> Config:
    return {"module": module, "class_name": kind, "config": config, "registered_name": name}


def _input_of(first: Config) -> list[Config]:
    """The input of a Sequential model whose first layer tells its shape."""
    shape = first["config"].get("batch_input_shape") if isinstance(first["config"], dict) else None
    if first["class_name"] == "InputLayer" or shape is None:
        return []
    return [_entry("InputLayer", {"batch_shape": shape, "name": f"{plain(first['config']['name'])}_input"})]


def _layer(entry: Config) -> Config:
    """A layer, or a model that is used as one."""
    kind: str = entry["class_name"]
    if kind in MODELS:
        return translated(entry)
    config = dict(entry["config"])
    config["name"] = plain(config.get("name") or entry.get("name") or kind.lower())
    _refuse_time_major(kind, config)
    for key in ("layer", "backward_layer", "cell"):
        if config.get(key):
            config[key] = _layer(config[key])
    if "cells" in config:
        config["cells"] = [_layer(cell) for cell in config["cells"]]
    for key in ("activation", "recurrent_activation"):
        if key in config:
            config[key] = _activation(config[key])
    if isinstance(config.get("dtype"), dict):  # {"class_name": "Policy", "config": {"name": "mixed_float16"}}
        config["dtype"] = config["dtype"]["config"]["name"]
    config = SPECIAL.get(kind, _same)(config)
    kind = RENAMED.get(kind, kind)
    known = getattr(layers, kind, None)
    if known is not None:
        return _entry(kind, _taken(known, kind, config)) | _place(entry)
    if kind in OWN:
        if not OPERATIONS.match(config["function"]):
            raise ExportError(
                f"layer {config['name']!r} calls tf.{config['function']}, which is no plain operation; "
                f"{IN_PYTHON}"
            )
        config = {key: config[key] for key in ("name", "function", "dtype") if key in config}
    return _entry(kind, config, None, kind) | _place(entry)


def _refuse_time_major(kind: str, config: Config) -> None:
    if config.pop("time_major", False):
        raise ExportError(
            f"layer {config['name']!r} ({kind}) has time before the batch (time_major=True), which Keras 3 "
            "does not have, so it has no step; build it with time_major=False, which takes the same weights"
        )


def _same(config: Config) -> Config:
    return config


def _input(config: Config) -> Config:
    shape = config.get("batch_input_shape") or config.get("batch_shape")
    return {"batch_shape": shape, "dtype": config.get("dtype"), "name": config["name"]}


def _gru(config: Config) -> Config:
    """Keras before 2.2 knew no `reset_after`, and what it did is False."""
    return {"reset_after": False} | config


def _cudnn_lstm(config: Config) -> Config:
    return config | {"activation": "tanh", "recurrent_activation": "sigmoid"}


def _cudnn_gru(config: Config) -> Config:
    return _cudnn_lstm(config) | {"reset_after": True}


def _leaky_relu(config: Config) -> Config:
    alpha = config.pop("alpha", None)
    return config if alpha is None else config | {"negative_slope": _number(alpha)}


def _elu(config: Config) -> Config:
    return config | {"alpha": _number(config.get("alpha", 1.0))}


def _batch_normalization(config: Config) -> Config:
    if isinstance(config.get("axis"), list):
        (config["axis"],) = config["axis"]
    return config


def _lambda(config: Config) -> Config:
    """Python's own code, as Keras 3 keeps it; it is not run unless the file is trusted."""
    function = config["function"]
    if config.get("function_type") == "function":
        raise ExportError(
            f"layer {config['name']!r} (Lambda) calls the function {function!r}, which the file does not "
            f"bring; {IN_PYTHON}"
        )
    if isinstance(function, dict):  # of Keras 2.12 and later
        function = function["config"]
        code = [function["code"], function["defaults"], function["closure"]]
    else:
        code = function
    held = dict(zip(("code", "defaults", "closure"), code, strict=True))
    told = {"class_name": "__lambda__", "config": held}
    return {"name": config["name"], "function": told, "arguments": config.get("arguments") or {}}


SPECIAL: dict[str, Callable[[Config], Config]] = {
    "InputLayer": _input,
    "GRU": _gru,
    "GRUCell": _gru,
    "CuDNNLSTM": _cudnn_lstm,
    "CuDNNGRU": _cudnn_gru,
    "LeakyReLU": _leaky_relu,
    "ELU": _elu,
    "BatchNormalization": _batch_normalization,
    "BatchNormalizationV1": _batch_normalization,
    "BatchNormalizationV2": _batch_normalization,
    "Lambda": _lambda,
}


def _taken(known: type, kind: str, config: Config) -> Config:
    """What Keras 3's layer takes; `ExportError` where something is lost that changes results."""
    parameters = _parameters(known)
    kept = {}
    for key, value in config.items():
        if TRAINING.match(key):
            continue
        if key in parameters:
            kept[key] = value
        elif not (key in WITHOUT_MEANING or _is_off(value)):
            raise ExportError(
                f"layer {config['name']!r} ({kind}) has {key}={value!r}, which Keras 3's does not have; "
                f"{IN_PYTHON}"
            )
    return kept


def _parameters(known: type) -> set[str]:
    """The names that a class takes: its own, and its bases' as far as it hands others on to them."""
    names: set[str] = set()
    for c in known.__mro__:
        parameters = inspect.signature(c.__init__).parameters  # type: ignore[misc]
        names |= set(parameters)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return names


def _is_off(value: Any) -> bool:
    """Whether an option that Keras 3 does not have does nothing: `noise_shape=None`, `groups=1`."""
    return value in (None, [], {}) or value is False or (type(value) is int and value == 1)


def _activation(value: Any) -> Any:
    """By name, or a layer; the one that changed its meaning keeps that of Keras 2."""
    if isinstance(value, dict) and value.get("class_name") == "function":
        value = value["config"]
    if isinstance(value, dict):
        return _layer(value)
    if value != "hard_sigmoid":
        return value
    return {
        "module": "builtins",
        "class_name": "function",
        "config": HARD_SIGMOID,
        "registered_name": HARD_SIGMOID,
    }


def _number(value: Any) -> Any:
    """A number that an old file wrote as an array."""
    return value["value"] if isinstance(value, dict) and "value" in value else value


# Places: which output of which call of which layer, as `[name, call, output]`.

CONSTANT = "_CONSTANT_VALUE"  # in the place of a layer: the third is the value itself


def _from_the_first_call(config: Config) -> Config:
    """With the calls of nested models counted from 0.

    Keras 2 counts as the first call of a model what made its own graph, which Keras 3 does not.
    """
    nested = {e["config"]["name"] for e in config["layers"] if e["class_name"] in MODELS and "name" in e}
    nodes = [entry.get("inbound_nodes", []) for entry in config["layers"]]
    used = [place for place in _places([nodes, config.get("output_layers", [])]) if place[0] in nested]
    first = {name: min(call for other, call, *_ in used if other == name) for name in {p[0] for p in used}}

    def counted(value: Any) -> Any:
        if _is_place(value) and value[0] in first:
            return [value[0], value[1] - first[value[0]], *map(counted, value[2:])]
        if isinstance(value, list):
            return [counted(inner) for inner in value]
        return {key: counted(inner) for key, inner in value.items()} if isinstance(value, dict) else value

    moved = ("inbound_nodes", "output_layers")
    inner = [{k: counted(v) if k in moved else v for k, v in entry.items()} for entry in config["layers"]]
    return {key: counted(value) if key in moved else value for key, value in config.items()} | {
        "layers": inner
    }


def _place(entry: Config) -> Config:
    """Where a layer stands in a functional model: its name, and what each of its calls is given."""
    if "inbound_nodes" not in entry:
        return {}
    recurrent = entry["class_name"] in RECURRENT
    for place in _places(entry["inbound_nodes"]):
        if len(place) == 4 and place[3].get("training"):  # Keras 3 forgets it when the model predicts
            raise ExportError(
                f"layer {entry['name']!r} ({entry['class_name']}) is called with training=True, which "
                "Keras 2 keeps when it predicts (it draws at random, or normalises by the batch), so it "
                "has no step; call it without"
            )
    nodes = [_node(node, recurrent) for node in entry["inbound_nodes"]]
    return {"name": plain(entry["name"]), "inbound_nodes": nodes}


def _is_place(value: Any) -> bool:
    if not isinstance(value, list) or len(value) not in (3, 4):
        return False
    return isinstance(value[0], str) and isinstance(value[1], int)


def _renamed(places: Any) -> Any:
    """The places of a model's inputs or outputs, in any structure."""
    if isinstance(places, dict):
        return {key: _renamed(place) for key, place in places.items()}
    if _is_place(places):
        return [plain(places[0]), *places[1:]]
    return [_renamed(place) for place in places]


def _node(node: Any, recurrent: bool) -> Config:
    """The arguments of one call. Keras 2 puts those by keyword into the place of the first tensor."""
    if isinstance(node, dict):
        return node
    places = list(_places(node))
    kwargs = places[0][3] if len(places[0]) == 4 else {}
    kept = {key: _argument(value) for key, value in kwargs.items() if not (key == "name" and value is None)}
    kept.pop("training", None)
    tensors = [_tensor(place) for place in places]
    if places[0][0] == CONSTANT:  # Keras 3 takes nothing but tensors by position
        name = next(key for key, value in kwargs.items() if _is_place(value))
        return {"args": [kept.pop(name)], "kwargs": kept | {"constant": places[0][2], "tensor_as": name}}
    if recurrent and len(tensors) > 1:  # the initial states come behind the sequence
        return {"args": tensors[:1], "kwargs": kept | {"initial_state": tensors[1:]}}
    return {"args": [tensors] if len(tensors) > 1 else tensors, "kwargs": kept}


def _places(structure: Any) -> Iterator[Any]:
    """The places in lists of lists; those in arguments by keyword are left out."""
    if _is_place(structure):
        yield structure
    elif isinstance(structure, list):
        for part in structure:
            yield from _places(part)


def _tensor(place: list[Any]) -> Config:
    """The output of a call."""
    name, call, output = place[:3]
    config = {"shape": [1], "dtype": "float32", "keras_history": [plain(name), call, output]}
    return {"class_name": "__keras_tensor__", "config": config}


def _argument(value: Any) -> Any:
    """An argument by keyword, which may hold tensors of the model."""
    if _is_place(value) and len(value) == 3:
        return _tensor(value)
    if isinstance(value, list):
        return [_argument(inner) for inner in value]
    return value
