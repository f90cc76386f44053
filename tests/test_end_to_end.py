"""The whole way by the commands alone: a text file, a checkpoint, a bundle, and text again."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import Vocabulary, load
from steprnn.runtime.bundle.manifest import Manifest

keras = pytest.importorskip("keras")

LINES = ("雨不停风不来\n", "你我在此分开\n", "云不走月不在\n", "雨后你又回来\n", "山上夜风分开云\n")
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,900 characters: the lines in an arbitrary order, so that there is something to be unsure of."""
    path = tmp_path_factory.mktemp("end_to_end") / "corpus.txt"
    generator = random.Random(0)
    path.write_text("".join(generator.choice(LINES) for _ in range(260)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(corpus: Path, steprnn: Run) -> Path:
    """A checkpoint folder."""
    out = corpus.parent / "checkpoint"
    flags = "--units 32 --epochs 8 --batch 8 --window 12 --learning-rate 0.02 --quiet".split()
    result = steprnn("train", "--corpus", corpus, "--out", out, *flags)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    return out


@pytest.fixture(scope="module")
def exported(corpus: Path, trained: Path, steprnn: Run) -> Path:
    """A bundle of everything."""
    out = corpus.parent / "bundle"
    result = steprnn("export", trained, "--out", out, "--text", corpus)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    (corpus.parent / "export.log").write_text(result.stderr, encoding="utf-8")
    assert result.stderr.splitlines()[-1].endswith(
        f"wrote {out}: saved_model-float32, tflite-float32, onnx-float32, tflite-int8, onnx-int8"
    )
    return out


def test_export_says_nothing_but_its_stages(exported: Path) -> None:
    """Nor do TensorFlow, LiteRT and onnxruntime."""
    lines = (exported.parent / "export.log").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.match(r"\[ *\d+\.\d s\] ", line)] == []
    assert len(lines) == 9


def test_check_passes_in_a_process_without_tensorflow(exported: Path, steprnn: Run, without: Run) -> None:
    environment = without("tensorflow", "keras", "onnx", "tf2onnx", "matplotlib")
    result = steprnn("check", exported, environment=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("  passed\n") == 4


@pytest.mark.parametrize("engine", ["litert", "onnx"])
def test_greedy_text_is_the_keras_models_own(
    trained: Path, exported: Path, steprnn: Run, without: Run, engine: str
) -> None:
    """At every position the whole-sequence model finds the next character the likeliest."""
    environment = without("tensorflow", "keras", "onnx", "tf2onnx", "matplotlib")
    argv = ("generate", exported, "-p", "分开", "-n", 200, "--engine", engine)
    text = steprnn(*argv, environment=environment).stdout.rstrip("\n")
    assert text.startswith("分开")
    assert len(text) == 202
    assert len(set(text)) > 8, "the model learned nothing to tell apart"
    tokens = Vocabulary.read(trained / "vocabulary.json").encode(text)
    model = keras.models.load_model(trained / "model.keras")
    logits, *_ = model(np.array([tokens], np.int32), training=False)
    assert np.argmax(logits[0, 1:-1], axis=-1).tolist() == tokens[2:]


def test_a_drawn_text_is_the_same_on_every_engine(exported: Path) -> None:
    for seed in range(10):
        options: dict[str, Any] = {"temperature": 1.0, "top_k": 8, "seed": seed}
        texts = {
            engine: load(exported, engine=engine).generate("不", 80, **options)
            for engine in ("onnx", "litert")
        }
        assert texts["onnx"] == texts["litert"]


def test_int8_text_reads_the_same_to_the_model(exported: Path, corpus: Path) -> None:
    text = corpus.read_text(encoding="utf-8").replace("\n", " ")[:500]
    expected = load(exported).score(text).perplexity
    for engine in ("litert", "onnx"):
        assert load(exported, engine=engine, variant="int8").score(text).perplexity == pytest.approx(
            expected, rel=0.01
        )


def test_the_bundle_tells_where_it_comes_from(exported: Path) -> None:
    about = Manifest.read(exported).about
    assert about["source"] == "checkpoint"
    assert about["corpus"]["name"] == "corpus.txt"
    assert about["settings"]["units"] == 32
