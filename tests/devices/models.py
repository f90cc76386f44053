"""The models that devices are measured with: text of 96 characters, and signals of sensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from steprnn.export.bundle import export
from steprnn.runtime import Vocabulary
from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.engines.native.library import Streams, aligned
from steprnn.runtime.package import c
from steprnn.train.model import build
from steprnn.train.settings import Settings

CHARACTERS = 96


def _text() -> Any:
    return build(CHARACTERS, Settings(cell="lstm", units=64))


def _sensor(layer: Any, inputs: int) -> Any:
    return keras.Sequential(
        [keras.Input((None, inputs)), layer(32, return_sequences=True), keras.layers.Dense(inputs)]
    )


MODELS = {  # the name of each, and what makes it
    "LSTM 64, 96 characters": _text,
    "LSTM 1 to 32": lambda: _sensor(keras.layers.LSTM, 1),
    "GRU 6 to 32": lambda: _sensor(keras.layers.GRU, 6),
}
VARIANTS = ("int8", "int8-fixed", "float32")


@dataclass(frozen=True)
class Packaged:
    """The C of a model, and its program as this machine runs it."""

    name: str
    variant: str
    folder: Path
    program: Path
    streams: Streams
    program_bytes: int

    def hash(self, steps: int) -> int:
        """Over so many chained steps here."""
        return self.streams.hash(steps)


def packaged(folder: Path) -> Iterator[Packaged]:
    """Every model in every variant, written into folders of its own."""
    for number, (name, make) in enumerate(MODELS.items()):
        keras.utils.set_random_seed(1)
        vocabulary = Vocabulary([chr(32 + i) for i in range(CHARACTERS)]) if make is _text else None
        bundle = folder / f"{number}.bundle"
        export(
            make(), bundle, formats=("program",), variants=VARIANTS, vocabulary=vocabulary, chained_steps=64
        )
        manifest = Manifest.read(bundle)
        for variant in VARIANTS:
            artefact = manifest.artefact("program", variant)
            assert artefact is not None
            data = np.fromfile(bundle / artefact.path, np.uint32)
            words = aligned(len(data))
            words[:] = data
            out = c.write(bundle, folder / f"{number}-{variant}", variant=variant)
            yield Packaged(name, variant, out, bundle / artefact.path, Streams(words), data.nbytes)
