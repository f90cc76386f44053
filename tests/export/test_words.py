"""What is wrong with a model or a path is said first, by the name of what is wrong, with the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tf2onnx")

import keras
from keras import layers

from steprnn.export import export
from steprnn.export.formats.frozen import freeze
from steprnn.export.paths import refuse_strangers
from steprnn.export.step.derive import derive
from steprnn.export.text import read_text
from steprnn.runtime import BundleError, CheckpointError, CorpusError, ExportError, cli, load

from .models import sequence


@pytest.fixture(autouse=True)
def _names_begin_anew() -> None:
    keras.utils.clear_session(free_memory=False)


def lstm(**options: Any) -> Any:
    return layers.LSTM(3, return_sequences=True, **options)


def spoiled(layer: Any, weight: str, value: float) -> keras.Model:
    model = sequence(layer, lstm())
    array = np.array(getattr(layer, weight))
    array.flat[0] = value
    getattr(layer, weight).assign(array)
    return model


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: spoiled(layers.Dense(4, name="d"), "kernel", np.nan),
            r"^weight 'sequential/d/kernel' has 1 of 16 values that are NaN or infinite; train again",
        ),
        (
            lambda: spoiled(layers.BatchNormalization(name="bn"), "moving_variance", -1.0),
            r"^weight 'sequential/bn/moving_variance' has 1 of 4 values that are negative, which a variance",
        ),
        (
            lambda: sequence(lstm(name="层")),
            r"^layer '层' \(LSTM\) has a name that TensorFlow does not take, so it has no step; use letters",
        ),
    ],
    ids=["nan", "variance", "name"],
)
def test_what_is_wrong_with_a_model_is_named_first(build: Any, words: str) -> None:
    with pytest.raises(ExportError, match=words):
        derive(build())


def test_an_operator_that_no_format_takes_is_told_with_its_layer() -> None:
    spectrum = layers.Lambda(lambda x: keras.ops.fft((x, x))[0], name="spectrum")
    with pytest.raises(
        ExportError,
        match=r"holds Complex, FFT, Real \(the first in step/spectrum_1/Complex\), and a step may",
    ):
        freeze(derive(sequence(lstm(), spectrum)))


def test_a_name_that_begins_with_an_underscore_exports(tmp_path: Path) -> None:
    """Keras runs it; TensorFlow takes it within another scope alone."""
    model = sequence(lstm(name="_rnn"), layers.Dense(2, name="_out"))
    manifest = export(model, tmp_path / "b", variants=("float32",), chained_steps=32, golden_steps=8)
    assert len(manifest.artefacts) == 3


def test_dropout_that_is_on_outside_training_is_told(tmp_path: Path) -> None:
    x = keras.Input((None, 4))
    model = keras.Model(x, layers.Dropout(0.5, name="drop")(lstm()(x), training=True))
    said: list[str] = []
    options = {"formats": ("onnx",), "variants": ("float32",), "chained_steps": 32, "golden_steps": 8}
    export(model, tmp_path / "b", say=said.append, **options)
    words = "layer 'drop' (Dropout) is called with training=True; the step runs it as outside training"
    assert words in said


def test_paths_are_told_for_what_they_are(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = sequence(lstm())
    model.export(str(tmp_path / "saved"), verbose=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("no model", encoding="utf-8")
    for name, words in (
        ("none.keras", "none.keras does not exist; expected a checkpoint folder, a .keras or an .h5 file"),
        ("saved", "saved is a SavedModel, whose layers are gone; export the Keras model it was made from"),
        ("text.txt", "text.txt is no model; expected a checkpoint folder, a .keras or an .h5 file"),
        ("empty", "empty is not a checkpoint: it has no training.json; expected a folder that"),
    ):
        with pytest.raises(CheckpointError) as raised:
            export(tmp_path / name, tmp_path / "b")
        assert words in str(raised.value)
    assert cli.main(["export", str(tiny), "--out", str(tmp_path / "b")]) == 1
    assert f"{tiny} is a bundle already; run: steprnn check {tiny}" in capsys.readouterr().err


def test_a_checkpoint_s_file_alone_is_told_to_be_without_its_vocabulary(tmp_path: Path) -> None:
    model = tmp_path / "c" / "model.keras"
    model.parent.mkdir()
    sequence(lstm()).save(model)
    options = {"formats": ("onnx",), "variants": ("float32",), "chained_steps": 32, "golden_steps": 8}
    for there in (False, True):
        said: list[str] = []
        export(model, tmp_path / f"b{there}", say=said.append, **options)
        words = f"without {model.parent / 'vocabulary.json'}, so that it writes no text: give the folder to "
        assert any(line.startswith(words) for line in said) == there
        (model.parent / "vocabulary.json").write_text("{}")


def test_a_path_with_a_space_is_quoted_in_what_is_to_be_run(tmp_path: Path) -> None:
    folder = tmp_path / "春 天"
    folder.mkdir()
    for name in ("manifest.json", "saved_model.pb"):
        (folder / name).write_bytes(b"")
        with pytest.raises(CheckpointError) as raised:
            refuse_strangers(folder)
        assert f"steprnn check '{folder}'" in str(raised.value)


def test_a_text_in_another_encoding_is_told_how_to_convert_it(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    for data, words in (
        ("分开".encode("utf-16"), f"is UTF-16, expected UTF-8; run: iconv -f UTF-16 -t UTF-8 {path} > OTHER"),
        (b"ab\xff", "is not UTF-8, first at byte 2; run: iconv -f ENCODING -t UTF-8 "),
    ):
        path.write_bytes(data)
        with pytest.raises(CorpusError) as raised:
            read_text(path)
        assert words in str(raised.value)
    path.write_bytes("分\r\n开".encode())
    assert read_text(path) == "分\n开"


def test_a_checkpoint_is_no_bundle_yet(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BundleError, match=r"is a checkpoint; run: steprnn export .* --out .*\.bundle$"):
        load(tmp_path)


def test_endings_are_read_in_capitals_too(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "STEP.ONNX").write_bytes((tiny / "step.onnx").read_bytes())
    assert load(tmp_path / "STEP.ONNX", states={"h": "next_h", "c": "next_c"}).engine == "onnx"
