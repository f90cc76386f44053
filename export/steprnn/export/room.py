"""Whether a .keras file has the weights that its configuration would allocate: few bytes can ask for all."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steprnn.runtime.errors import ExportError

MOST_CONFIG = 2**26  # bytes of config.json
LEAST = 2  # bytes that a weight is kept in
RECURRENT = ("LSTM", "GRU", "SimpleRNN", "LSTMCell", "GRUCell", "SimpleRNNCell")


def check_room(path: Path) -> None:
    """Refuse a file whose layers have more weights than its bytes; what is no .keras is left to its reader.

    Raises `ExportError`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            held = sum(i.file_size for i in archive.infolist() if i.filename.endswith((".h5", ".npz")))
            entry = archive.getinfo("config.json")
            if entry.file_size > MOST_CONFIG:
                raise ExportError(f"{path} has a config.json of {entry.file_size:,} bytes; do not trust it")
            config = json.loads(archive.read(entry))
    except (OSError, KeyError, ValueError, RecursionError, zipfile.BadZipFile, NotImplementedError):
        return
    for name, weights in _least_weights(config):
        if weights * LEAST > held:
            raise ExportError(
                f"{path}: {name} has {weights:,} weights or more, and the file holds {held:,} bytes of them; "
                "do not trust it, or save the model again"
            )


def _least_weights(config: Any) -> Iterator[tuple[str, int]]:
    """Each layer's name, and how many weights it has at least."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        inner = value.get("config") if isinstance(value, dict) else None
        if isinstance(inner, dict):
            kind, name = value.get("class_name"), str(inner.get("name"))
            if kind in RECURRENT and isinstance(units := inner.get("units"), int):
                yield name, units * units
            if kind == "Embedding":
                rows, width = inner.get("input_dim"), inner.get("output_dim")
                if isinstance(rows, int) and isinstance(width, int):
                    yield name, rows * width
            if kind == "Dense" and isinstance(units := inner.get("units"), int):
                yield name, units
