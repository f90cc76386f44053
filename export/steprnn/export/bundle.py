"""Export: from a Keras model to a bundle whose every artefact was shown to say the same."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from steprnn.runtime import engines
from steprnn.runtime.atomic import new_folder, write_text
from steprnn.runtime.engines import Engine, open_engine
from steprnn.runtime.errors import ParityError, UsageError
from steprnn.runtime.manifest import NAME, Artefact, FileRecord, Manifest
from steprnn.runtime.parity import PROFILES, Arrays, Measures, Reference, chain, measure
from steprnn.runtime.spec import NEXT, StepSpec

from . import onnx, saved_model, tflite
from .derive import Step, derive
from .reference import FunctionEngine, input_run, own_text, reference_run
from .source import Source, open_source

FORMATS: dict[str, tuple[Any, str]] = {
    "saved_model": (saved_model, "saved_model"),
    "tflite": (tflite, "step{}.tflite"),
    "onnx": (onnx, "step{}.onnx"),
}
VARIANTS = ("float32", "int8")
CHAINED_STEPS = 1024
GOLDEN_STEPS = 256  # what a bundle carries to be checked elsewhere: 1.6 MB of the book's model
BATCH, BATCH_STEPS = 3, 128  # rows that must not touch each other


def export(
    source: Path | Source,
    out: Path,
    *,
    formats: Sequence[str] = tuple(FORMATS),
    variants: Sequence[str] = VARIANTS,
    text: str | None = None,
    golden_steps: int = GOLDEN_STEPS,
    say: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Write the step graphs of a model to the folder `out`, each shown to be right first.

    `text` is what the chained run reads; without it, one that the model writes itself. `say` is told
    each stage. Raises `ParityError` where an artefact fails, and then nothing is written at all;
    `CheckpointError`, `ExportError` and `UsageError` as their names say.
    """
    for given, known in ((formats, tuple(FORMATS)), (variants, VARIANTS)):
        for name in given:
            if name not in known:
                raise UsageError(f"{name!r} is unknown; expected one of: {', '.join(known)}")
    if out.exists() and not (out / NAME).is_file():
        raise UsageError(f"{out} exists and is not a bundle; choose another --out, nothing was changed")
    source = open_source(source) if isinstance(source, Path) else source
    step = derive(source.model)
    taken = (t.name for t in (*step.spec.inputs, *step.spec.states))
    say(f"step: {', '.join(taken)} -> {', '.join(step.spec.result_names)}")
    inputs = _inputs(source, step, text)
    reference = reference_run(step, inputs)
    transform = prove_transform(source.model, step.spec, reference)
    say(f"the chained step is the whole-sequence model: {transform:.2g} units over {CHAINED_STEPS:,} steps")
    with new_folder(out) as folder:
        artefacts = []
        records = []
        for variant in variants:
            for format in formats:
                module, pattern = FORMATS[format]
                if variant not in module.METHODS:
                    continue
                path = pattern.format("" if variant == "float32" else f".{variant}")
                artefact = Artefact(f"{format}-{variant}", format, variant, module.METHODS[variant], path)
                module.write(step, folder / path, variant)
                record = check_artefact(folder / path, artefact, step.spec, reference)
                records.append(record)
                artefacts.append(artefact)
                say(f"{artefact.name}: {record['summary']}")
        if source.vocabulary:
            source.vocabulary.write(folder / "vocabulary.json")
        reference.first(golden_steps).write(folder / "golden.npz")
        parity = {"format": "steprnn.parity", "version": 1, "conditions": conditions(), "artefacts": records}
        write_text(folder / "parity.json", json.dumps(parity, ensure_ascii=False, indent=2) + "\n")
        files = {p.relative_to(folder).as_posix(): FileRecord.of(p) for p in folder.rglob("*") if p.is_file()}
        about = source.about | {"versions": conditions()["versions"], "transform_units": transform}
        manifest = Manifest(source.hash, step.spec, tuple(artefacts), files, about)
        manifest.write(folder)
    return manifest


def _inputs(source: Source, step: Step, text: str | None) -> Arrays:
    """What the chained run reads, `[CHAINED_STEPS, 1, ...]`."""
    if not step.spec.is_language_model:
        return input_run(step, CHAINED_STEPS, 1)
    if text is None:
        return own_text(step, CHAINED_STEPS)
    if source.vocabulary is None:
        raise UsageError(
            "a text needs a vocabulary, and a bare Keras file has none; export a checkpoint folder"
        )
    tokens = source.vocabulary.encode(text, unknown="skip")
    if len(tokens) < CHAINED_STEPS:
        raise UsageError(
            f"the text has {len(tokens):,} known characters; expected at least {CHAINED_STEPS:,}"
        )
    return {step.spec.inputs[0].name: np.array(tokens[:CHAINED_STEPS], np.int32)[:, None]}


def prove_transform(model: Any, spec: StepSpec, reference: Reference) -> float:
    """How far the original whole-sequence model is from the chained step, in units; at most 8.

    Raises `ParityError` where it is further: a layer then mixes time steps.
    """
    sequences = [np.moveaxis(array, 0, 1) for array in reference.inputs.values()]
    outputs = tf.nest.flatten(model(sequences if len(sequences) > 1 else sequences[0], training=False))
    steps = len(next(iter(reference.inputs.values())))
    whole = [o.numpy() for o in outputs if o.ndim > 2 and o.shape[1] == steps]
    worst = 0.0
    for t, output in zip(spec.outputs, whole, strict=False):
        expected = np.moveaxis(reference.results[t.name], 0, 1)
        worst = max(worst, float(np.abs(output - expected).max()) / reference.units[t.name])
    if not worst <= (PROFILES["float32"].units or 0):
        raise ParityError(
            f"the chained step is {worst:.3g} units off the whole-sequence model (at most "
            f"{PROFILES['float32'].units:g}): a layer of {model.name!r} mixes time steps"
        )
    return worst


def check_artefact(path: Path, artefact: Artefact, spec: StepSpec, reference: Reference) -> dict[str, Any]:
    """Judge one artefact by its profile: a chained run, and a batch of three rows from states it reached.

    Raises `ParityError` with the first breach in words.
    """
    engine, opened = _open(path, artefact, spec)
    profile = PROFILES[artefact.variant]
    chained = measure(spec, reference, chain(opened.runner(1), reference.inputs), profile)
    batch, state = batch_reference(spec, reference)
    batched = measure(spec, batch, chain(opened.runner(BATCH), batch.inputs, state), profile)
    for name, measures in (("chained run", chained), (f"batch of {BATCH}", batched)):
        if not measures.passed:
            raise ParityError(f"{artefact.name} in {engine} fails, {name}: {'; '.join(measures.failures)}")
    return {
        "artefact": artefact.name,
        "engine": engine,
        "summary": summary(chained),
        "chained": chained.to_record(),
        "batch": batched.to_record(),
    }


def _open(path: Path, artefact: Artefact, spec: StepSpec) -> tuple[str, Engine]:
    if artefact.format == "saved_model":
        loaded = tf.saved_model.load(str(path))
        signature = loaded.signatures[saved_model.SIGNATURE]
        signature.owner = loaded  # TensorFlow frees the graph with the object that loaded it
        return "tensorflow", FunctionEngine(signature, spec)
    name = next(name for name, format in engines.ENGINES.items() if format == artefact.format)
    return name, open_engine(name, path, spec)


def batch_reference(spec: StepSpec, reference: Reference) -> tuple[Reference, Arrays]:
    """Rows cut from the run at different steps, and the states they begin with."""
    starts = [1 + row * BATCH_STEPS for row in range(BATCH)]

    def rows(array: Any) -> Any:
        return np.concatenate([array[s : s + BATCH_STEPS, :1] for s in starts], axis=1)

    cut = Reference(
        {n: rows(a) for n, a in reference.inputs.items()},
        {n: rows(a) for n, a in reference.results.items()},
        reference.units,
    )
    state = {
        t.name: np.concatenate([reference.results[NEXT + t.name][s - 1, :1] for s in starts])
        for t in spec.states
    }
    return cut, state


def summary(measures: Measures) -> str:
    """One line for a person."""
    line = f"{measures.largest:.3g} units over {measures.steps:,} steps"
    if measures.mean_kl is None:
        return line
    return (
        f"{line}, same-top-1 {measures.same_top_1:.2%}, mean KL {abs(measures.mean_kl):.1e}, "
        f"perplexity {measures.perplexity:+.3%}"
    )


def conditions() -> dict[str, Any]:
    """Where and with what the artefacts were made and judged."""
    packages = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert", "numpy")
    return {
        "versions": {"steprnn": version("steprnn")} | {p: version(p) for p in packages},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": 1,
    }
