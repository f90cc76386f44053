"""Writes the graphs of all models of tests/export/models.py: `python tests/hostile/layers.py FOLDER`.

`fuzz.py --graphs FOLDER` makes mutants of them: they have the operators that the tiny bundle's graph has not.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.export.models import CASES, shaken

from steprnn.export.formats import onnx, tflite
from steprnn.export.step.derive import derive

QUANTIZED = ("lstm", "embedding", "causal_convolutions", "convolution_over_frequency_alone")


def main(folder: Path) -> None:
    """A folder for each model, with its spec and its graphs; a model that is there is left as it is."""
    for case in CASES:
        place = folder / case.name
        if (place / "spec.json").exists():
            continue
        place.mkdir(parents=True, exist_ok=True)
        step = derive(shaken(case.build()))
        for format, suffix in ((tflite, "tflite"), (onnx, "onnx")):
            for variant in format.METHODS if case.name in QUANTIZED else ("float32",):
                format.write(step, place / f"step.{variant}.{suffix}", variant)
        (place / "spec.json").write_text(json.dumps(step.spec.to_record()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
