"""A model as a notebook shows it."""

from __future__ import annotations

from html import escape

from .bundle.manifest import Artefact, Manifest
from .bundle.vocabulary import Vocabulary
from .spec import TensorSpec


def facts(manifest: Manifest, artefact: Artefact, engine: str, vocabulary: Vocabulary | None) -> str:
    """A small table in HTML: the graph and its engine, what goes in and out, what it was made of."""
    step = manifest.step
    rows = {
        "graph": f"{artefact.name} in {engine}, {manifest.size_of(artefact):,} bytes",
        "in": _tensors(step.inputs),
        "out": _tensors(step.outputs),
        "state": _tensors(step.states),
    }
    if vocabulary is not None:
        rows["vocabulary"] = f"{len(vocabulary):,} {vocabulary.unit}s"
    corpus = manifest.about.get("corpus")
    if isinstance(corpus, dict):
        rows["trained on"] = f"{corpus.get('characters')} characters of {corpus.get('name')}"
    cells = "".join(
        f'<tr><th style="text-align:left">{name}</th><td style="text-align:left">{escape(text)}</td></tr>'
        for name, text in rows.items()
    )
    return f"<table><caption>steprnn model {escape(manifest.model[:12])}</caption>{cells}</table>"


def _tensors(tensors: tuple[TensorSpec, ...]) -> str:
    return "; ".join(f"{t.name} {t.dtype} {list(t.array_shape(1))}" for t in tensors)
