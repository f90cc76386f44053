"""Makes tests/tiny/bundle, a whole bundle small enough to commit: `python tests/tiny/make.py`.

The tests of the runtime load it, so they need neither training nor TensorFlow. Its model knows one
verse of twenty characters, well enough to be likely to recite it and not so well that draws are all alike.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from steprnn.export.bundle import export
from steprnn.export.source import Source
from steprnn.runtime import Vocabulary
from steprnn.runtime.atomic import write_text
from steprnn.runtime.bundle.manifest import FileRecord, Manifest

BUNDLE = Path(__file__).parent / "bundle"
VERSE = "雨不停风不来 你我在此分开 云不走月不在 雨后你又回来 山上夜风分开云 "
UNITS = 8  # too few for the TFLite converter to quantize, which the tests of export do at 32
LIMIT = 50_000  # bytes of all files together


def tiny_source(units: int = UNITS) -> Source:
    """The trained model and its vocabulary; the same on every run on one machine."""
    keras.utils.set_random_seed(1)
    vocabulary = Vocabulary.of(VERSE)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    sequence = keras.ops.one_hot(tokens, len(vocabulary))
    sequence, h, c = keras.layers.LSTM(units, return_sequences=True, return_state=True, name="lstm")(sequence)
    logits = keras.layers.Dense(len(vocabulary), name="logits")(sequence)
    model = keras.Model(tokens, [logits, h, c], name="tiny")
    model.compile(
        keras.optimizers.Adam(2e-2),
        loss=[keras.losses.SparseCategoricalCrossentropy(from_logits=True)] + [None] * 2,
    )
    text = np.array(vocabulary.encode(VERSE * 8), np.int32)
    windows = np.stack([text[start : start + len(VERSE) + 1] for start in range(len(VERSE))])
    model.fit(windows[:, :-1], windows[:, 1:], batch_size=len(windows), epochs=120, shuffle=False, verbose=0)
    return Source(model, vocabulary, {"source": "tests/tiny/make.py", "text": VERSE})


def shorten(manifest: Manifest) -> None:
    """Keep the verdicts of parity.json and leave out their figures, which are most of all bytes."""
    path = BUNDLE / "parity.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    for finding in record["findings"]:
        finding.pop("figures", None)
    write_text(path, json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
    manifest.files["parity.json"] = FileRecord.of(path)
    manifest.write(BUNDLE)


def main() -> None:
    """Write the bundle and tell its size."""
    manifest = export(
        tiny_source(),
        BUNDLE,
        formats=("tflite", "onnx"),
        golden_steps=16,
        say=lambda line: sys.stderr.write(line + "\n"),
    )
    shorten(manifest)
    size = sum(path.stat().st_size for path in BUNDLE.rglob("*") if path.is_file())
    sys.stderr.write(f"{BUNDLE}: {size:,} bytes of {LIMIT:,}\n")
    if size >= LIMIT:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
