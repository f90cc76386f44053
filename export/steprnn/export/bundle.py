"""Export: from a Keras model to a bundle whose every artefact was shown to say the same."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from steprnn.runtime import engines
from steprnn.runtime.atomic import new_folder, write_text
from steprnn.runtime.engines import Engine, open_engine
from steprnn.runtime.errors import ParityError, UsageError
from steprnn.runtime.manifest import INITIAL, NAME, Artefact, FileRecord, Manifest
from steprnn.runtime.parity import PROFILES, Arrays, Measures, Reference, chain, measure
from steprnn.runtime.spec import NEXT, StepSpec
from steprnn.runtime.vocabulary import Vocabulary

from . import onnx, saved_model, tflite
from .derive import Step, derive
from .frozen import freeze
from .proofs import prove
from .reference import FunctionEngine, initial_state, input_run, own_text, reference_run
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
    source: Path | str | keras.Model | Step | Source,
    out: Path | str,
    *,
    formats: Sequence[str] = tuple(FORMATS),
    variants: Sequence[str] = VARIANTS,
    vocabulary: Vocabulary | None = None,
    text: str | None = None,
    trust: bool = False,
    golden_steps: int = GOLDEN_STEPS,
    say: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Write the step graphs of a model to the folder `out`, each shown to be right first.

    `source` is a checkpoint folder, a `.keras` or `.h5` file, a Keras model, or a `Step` written by
    hand. `text` is what the chained run reads; without it, one that the model writes itself. `trust`
    lets a file bring its own Python code. `say` is told each stage.

    Raises `ExportError` where the model has no step, `ParityError` where an artefact does not say the
    same, and then nothing is written at all; `CheckpointError` and `UsageError` as their names say.
    """
    out = Path(out)
    for given, known in ((formats, tuple(FORMATS)), (variants, VARIANTS)):
        for name in given:
            if name not in known:
                raise UsageError(f"{name!r} is unknown; expected one of: {', '.join(known)}")
    if out.exists() and not (out / NAME).is_file():
        raise UsageError(f"{out} exists and is not a bundle; choose another --out, nothing was changed")
    if isinstance(source, Path | str):
        source = open_source(Path(source), trust=trust)
    elif not isinstance(source, Source):
        source = Source(source, vocabulary)
    step = source.model if isinstance(source.model, Step) else derive(source.model)
    taken = (t.name for t in (*step.spec.inputs, *step.spec.states))
    say(f"step: {', '.join(taken)} -> {', '.join(step.spec.result_names)}")
    proofs = prove(step)
    if proofs is None:
        say("no whole-sequence model was given to compare the step with")
    else:
        say(f"the chained step is the whole model ({proofs.transform:.2g} units), and the model is causal")
    reference = reference_run(step, _inputs(source, step, text))
    with new_folder(out) as folder:
        artefacts = []
        records = []
        for variant in variants:
            for format in formats:
                module, pattern = FORMATS[format]
                if variant not in module.METHODS:
                    continue
                path = pattern.format("" if variant == "float32" else f".{variant}")
                module.write(step, folder / path, variant)
                name, method = f"{format}-{variant}", module.METHODS[variant]
                artefact = Artefact(name, format, variant, method, path)
                record = check_artefact(folder / path, artefact, step.spec, reference, initial_state(step, 1))
                records.append(record)
                artefacts.append(artefact)
                say(f"{name}: {record['summary']}")
        if source.vocabulary:
            source.vocabulary.write(folder / "vocabulary.json")
        if step.initial:
            np.savez(folder / INITIAL, **step.initial)  # type: ignore[arg-type]
        reference.first(golden_steps).write(folder / "golden.npz")
        parity = {"format": "steprnn.parity", "version": 1, "conditions": conditions(), "artefacts": records}
        write_text(folder / "parity.json", json.dumps(parity, ensure_ascii=False, indent=2) + "\n")
        files = {p.relative_to(folder).as_posix(): FileRecord.of(p) for p in folder.rglob("*") if p.is_file()}
        about = source.about | {
            "versions": conditions()["versions"],
            "proofs": None if proofs is None else asdict(proofs),
        }
        manifest = Manifest(weights_hash(step), step.spec, tuple(artefacts), files, about)
        manifest.write(folder)
    return manifest


def weights_hash(step: Step) -> str:
    """sha256 over the contract and all float constants in the order the step uses them; names are free."""
    graph = freeze(step).graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    digest = hashlib.sha256(json.dumps(step.spec.to_record(), sort_keys=True).encode())
    for tensor in (tf.make_ndarray(n.attr["value"].tensor) for n in nodes if n.op == "Const"):
        if tensor.dtype == np.float32:
            digest.update(tensor.tobytes())
    return digest.hexdigest()


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


def check_artefact(
    path: Path, artefact: Artefact, spec: StepSpec, reference: Reference, first: Arrays | None = None
) -> dict[str, Any]:
    """Judge one artefact by its profile: a chained run, and a batch of three rows from states it reached.

    The chained run begins at the states `first`, zero if None.

    Raises `ParityError` with the first breach in words.
    """
    engine, opened = _open(path, artefact, spec)
    profile = PROFILES[artefact.variant]
    chained = measure(spec, reference, chain(opened.runner(1), reference.inputs, first), profile)
    batch, state = batch_reference(spec, reference)
    batched = measure(spec, batch, chain(opened.runner(BATCH), batch.inputs, state), profile)
    runs = {"chained": chained, "batch": batched}
    for name, measures in runs.items():
        if not measures.passed:
            raise ParityError(
                f"{artefact.name} in {engine} fails, {name} run: {'; '.join(measures.failures)}"
            )
    records = {name: measures.to_record() for name, measures in runs.items()}
    return {"artefact": artefact.name, "engine": engine, "summary": summary(chained), **records}


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
        return f"{line}, {measures.relative:.1e} off in rms"
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
