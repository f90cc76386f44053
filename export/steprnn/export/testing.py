"""Parity as one assertion, for the test suites of other projects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras

from steprnn.runtime.bundle.open import open_bundle
from steprnn.runtime.bundle.vocabulary import Vocabulary
from steprnn.runtime.errors import UsageError
from steprnn.runtime.parity.findings import Finding, Verdict
from steprnn.runtime.parity.profiles import PROFILES

from .check.candidates import candidates_of
from .check.judge import judge_all
from .check.runs import STEPS
from .source import Source, open_source
from .step.contract import Step
from .step.derive import derive

SEEDS = 2


def assert_parity(
    reference: keras.Model | Step | Path | str,
    candidate: Path | str,
    *,
    names: Mapping[str, str] | None = None,
    profile: str | None = None,
    text: str | None = None,
    vocabulary: Vocabulary | None = None,
    steps: int = STEPS,
    seeds: int = SEEDS,
    trust: bool = False,
) -> list[Finding]:
    """Put a bundle, or a graph that any tool made, through the whole contract against a Keras model.

    `reference` is a model, a `Step` written by hand, or a file or checkpoint folder. `candidate` is a
    bundle, an `.onnx` or `.tflite` file or a SavedModel folder; `names` gives the tensors of the step as
    such a graph calls them, as in `{"h": "state_in", "next_h": "state_out"}`. `profile` is that of the
    variant for a bundle, and "float32" for a graph, unless it is named. `text` is run on, with the
    `vocabulary` of the model where the reference does not bring one.

    Returns the findings. Raises `AssertionError` with every breach in words, the first one first;
    `UsageError`, `ExportError` and the like where the two cannot be compared at all.
    """
    if profile is not None and profile not in PROFILES:
        raise UsageError(f"profile {profile!r} is unknown; expected one of: {', '.join(PROFILES)}")
    if isinstance(reference, Path | str):
        source = open_source(Path(reference), trust=trust)
    else:
        source = Source(reference)
    step = source.model if isinstance(source.model, Step) else derive(source.model)
    with open_bundle(candidate) as path:
        structure, candidates = candidates_of(path, step, dict(names or {}), profile)
        judged = judge_all(
            step, candidates, text=text, vocabulary=vocabulary or source.vocabulary, steps=steps, seeds=seeds
        )
    findings = [*structure, *judged]
    failed = [str(f) for f in findings if f.verdict is Verdict.FAILED]
    if failed:
        raise AssertionError("\n".join(failed))
    return findings
