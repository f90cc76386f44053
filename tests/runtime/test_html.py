"""What a notebook shows of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from steprnn.runtime import Model, load


def test_words_of_a_stranger_are_no_html(
    tiny_copy: Path, edit_manifest: Callable[..., None], models: dict[str, Model]
) -> None:
    about = {"corpus": {"name": "<script>", "characters": 7, "sha256": ""}}
    edit_manifest(tiny_copy, lambda record: record.update(about=about))
    shown = load(tiny_copy, engine="onnx")._repr_html_()
    assert "7 characters of &lt;script&gt;" in shown
    assert "<script>" not in shown
    assert "onnx-float32 in onnx, 7,772 bytes" in shown
    assert "trained on" not in models["onnx"]._repr_html_()  # the tiny bundle does not say
