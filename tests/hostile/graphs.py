"""Mutants of graphs by field: of an ONNX model through its messages, of a TFLite file through its tables."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np

NUMBERS = [-(2**31), -2, -1, 0, 1, 2, 7, 9, 255, 2**15, 2**31 - 1]
NAMES = ["", "x", "h", "c", "y", "next_h", "next_c", "../secret", "\ud7ff", "Loop", "MatMul", "a" * 300]


def mutated_onnx(data: bytes, chance: random.Random) -> bytes:
    """One to three fields of the messages of a model changed, dropped or doubled."""
    import onnx

    model = onnx.load_from_string(data)
    for _ in range(chance.randint(1, 3)):
        message, field = chance.choice(_places(model))
        value = getattr(message, field.name)
        if field.enum_type:
            setattr(message, field.name, chance.choice(field.enum_type.values).number)
        elif field.is_repeated:
            at = chance.randrange(len(value))
            what = chance.randrange(4)
            if what == 0:
                del value[at]
            elif what == 1 and field.message_type:
                value.add().CopyFrom(value[at])
            elif what == 1:
                value.append(value[at])
            elif what == 2 and len(value) > 1 and not field.message_type:
                value[at], value[at - 1] = value[at - 1], value[at]
            elif not field.message_type:
                value[at] = _other(value[at], chance)
        elif field.message_type:
            message.ClearField(field.name)
        else:
            setattr(message, field.name, _other(value, chance))
    out: bytes = model.SerializeToString()
    return out


def _places(message: Any) -> list[tuple[Any, Any]]:
    """Every field that is set, with the message it is in."""
    found: list[tuple[Any, Any]] = []
    for field, value in message.ListFields():
        found.append((message, field))
        if field.message_type:
            for inner in value if field.is_repeated else [value]:
                found += _places(inner)
    return found


def _other(value: Any, chance: random.Random) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice([*NUMBERS, value + 1, max(value - 1, 0)])
    if isinstance(value, float):
        return chance.choice([0.0, -1.0, 1e38, float("nan"), float("inf")])
    if isinstance(value, str):
        return chance.choice(NAMES)
    changed = bytearray(value)
    if changed and chance.random() < 0.7:
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        return bytes(changed)
    return bytes(changed[: len(changed) // 2])


def mutated_tflite(data: bytes, chance: random.Random) -> bytes:
    """One to three fields of the tables of a model changed, dropped or doubled, and written anew."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    while True:
        model = schema.ModelT.InitFromPackedBuf(data, 0)
        for _ in range(chance.randint(1, 3)):
            table, name = chance.choice(_fields(model))
            _change(table, name, chance)
        try:
            builder = flatbuffers.Builder(len(data))
            builder.Finish(model.Pack(builder), b"TFL3")
            return bytes(builder.Output())
        except Exception:  # what cannot be written is no mutant
            continue


def _fields(table: Any) -> list[tuple[Any, str]]:
    found: list[tuple[Any, str]] = []
    for name, value in vars(table).items():
        if value is None:
            continue
        found.append((table, name))
        for inner in value if isinstance(value, list) else [value]:
            if hasattr(inner, "Pack"):
                found += _fields(inner)
    return found


def _change(table: Any, name: str, chance: random.Random) -> None:
    value = getattr(table, name)
    if isinstance(value, np.ndarray):
        value = value.copy()
        if not len(value) or chance.random() < 0.2:
            value = value[: len(value) // 2] if chance.random() < 0.5 else np.append(value, value[-1:])
        else:
            whole = value.dtype.kind in "iu"
            least, most = (np.iinfo(value.dtype).min, np.iinfo(value.dtype).max) if whole else (-9, 9)
            value[chance.randrange(len(value))] = min(max(chance.choice(NUMBERS), least), most)
        setattr(table, name, value)
    elif isinstance(value, list):
        if value and chance.random() < 0.5:
            del value[chance.randrange(len(value))]
        elif value:
            value.insert(chance.randrange(len(value)), copy.deepcopy(chance.choice(value)))
    elif hasattr(value, "Pack") or chance.random() < 0.1:
        setattr(table, name, None)
    elif isinstance(value, bytes):
        setattr(table, name, chance.choice(NAMES).encode())
    else:
        setattr(table, name, _other(value, chance))
