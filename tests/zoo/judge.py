"""Export one case in all formats and hold each format's step against the model in its own framework."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from ai_edge_litert.interpreter import Interpreter
from onnxruntime import InferenceSession

from steprnn.export import export
from steprnn.export.bundle import FORMATS
from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.engines.native.library import Streams, aligned
from steprnn.runtime.errors import SteprnnError
from steprnn.runtime.files import INITIAL

from .case import Case, State
from .reference import Reference, Speech

ROWS = (1, 3)
OPTIONS: dict[str, Any] = {
    "formats": tuple(FORMATS),
    "variants": ("float32",),
    "chained_steps": 128,
    "golden_steps": 8,
}
Stepper = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """What became of a case, and in which words."""

    kind: str  # exported, refused rightly, refused wrongly, traceback, silently wrong
    message: str
    left_out: str = ""  # why an exported one has no step program


class Wrong(Exception):  # noqa: N818 (it reads as what it says)
    """A step that was exported, and does not say what the model says."""


def measured(case: Case, folder: Path) -> Outcome:
    """Build, export and compare one case."""
    for framework in (keras, tf_keras):
        framework.backend.clear_session()
        framework.utils.set_random_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of Keras, about old files and dropped masks, which is not asked here
        model = shaken(case.build(), case.shake)
        source = case.save(model, folder) if case.save else model
        try:
            with patch.dict(sys.modules, {} if case.beside else {"tf_keras": None}):
                manifest = export(source, folder / "bundle", trust=case.trust, **OPTIONS)
        except SteprnnError as error:
            right = case.refused is not None and case.refused in str(error) and "\n" not in str(error)
            return Outcome("refused rightly" if right else "refused wrongly", _words(error, folder))
        except Exception as error:  # what no user should see
            return Outcome("traceback", f"{type(error).__name__}: {_words(error, folder)}")
        try:
            worst = compared(case, model, folder / "bundle", manifest)
        except Wrong as error:
            return Outcome("silently wrong", str(error))
    left_out = manifest.about.get("left_out", {}).get("program-float32", "")
    return Outcome("exported", f"{worst:.1e} of the largest output off", left_out)


def compared(case: Case, model: Any, bundle: Path, manifest: Manifest) -> float:
    """The largest error of any output in any format, of that output's own scale; raises `Wrong`."""
    spec = manifest.step
    reference = Reference(case, model)
    states = [kind.output for kind in case.inputs if isinstance(kind, State)]
    positions = [i for i in range(len(reference.ranks)) if i not in states]
    if len(positions) != len(spec.outputs):
        raise Wrong(f"the step has {len(spec.outputs)} outputs, the model {len(positions)}")
    named = list(zip(positions, spec.outputs, strict=True))
    timed = {i: reference.ranks[i] == len(output.shape) + 2 for i, output in named}
    worst = 0.0
    for rows in ROWS:
        speech = reference.run(rows, timed)
        for artefact in manifest.artefacts:
            step = STEPPERS[artefact.format](bundle / artefact.path, rows)
            begins = manifest.start and manifest.start.graph(artefact.format)
            start = STEPPERS[artefact.format](bundle / begins.path, rows) if begins else None
            results = chained(case, reference.names, speech, bundle, manifest, step, start, rows)
            for position, output in named:
                said = {t: value for (i, t), value in speech.said.items() if i == position}
                what = f"{output.name} of {artefact.format}, with {rows} {'row' if rows == 1 else 'rows'},"
                error = largest_error(what, said, {t: results[t][output.name] for t in said}, case.tolerance)
                worst = max(worst, error)
    return worst


def largest_error(what: str, said: dict[int, Any], got: dict[int, Any], tolerance: float) -> float:
    """By how much an output differs, of its own scale; raises `Wrong` where that is more than `tolerance`."""
    scale = max(float(np.abs(value).max()) for value in said.values())
    spread = float(np.ptp(np.stack(list(said.values())), axis=0).max())
    if not spread > 1e-2 * scale > 0:
        raise ValueError(f"{what} hardly changes in the model, so nothing is compared")
    worst = 0.0
    for t, expected in said.items():
        if got[t].shape != expected.shape or got[t].dtype != np.float32:
            raise Wrong(f"{what} is {got[t].dtype} {got[t].shape}, in the model {expected.shape}")
        error = float(np.abs(got[t] - expected).max()) / scale
        if not error <= tolerance:
            raise Wrong(f"{what} is {error:.1e} of the largest output off at step {t}")
        worst = max(worst, error)
    return worst


def chained(
    case: Case,
    names: list[str],
    speech: Speech,
    bundle: Path,
    manifest: Manifest,
    step: Stepper,
    start: Stepper | None,
    rows: int,
) -> list[dict[str, Any]]:
    """What a step says at each time step, fed with its own states, which begin anew where the model's do."""
    spec = manifest.step
    taken = {t.name: t for t in (*spec.stepped, *manifest.static)}
    feeds = {i: n for i, n in enumerate(names) if not isinstance(case.inputs[i], State)}
    timed = [i for i in feeds if case.inputs[i].timed]
    feeds = {i: re.sub(r"\W", "_", n) for i, n in feeds.items()}
    if len(timed) == 1 and "x" in taken:
        feeds[timed[0]] = "x"
    feeds = {i: n for i, n in feeds.items() if n in taken}
    if missing := set(taken) - set(feeds.values()):
        raise Wrong(f"the step asks for {', '.join(sorted(missing))}, which the model has not")
    begin = first_state(bundle, manifest, rows)
    if manifest.start and start:
        static = {
            name: speech.streams[i].reshape(rows, *taken[name].shape).astype(taken[name].dtype)
            for i, name in feeds.items()
            if name in {t.name for t in manifest.start.spec.inputs}
        }
        begin |= start(static)
    state, results = begin, []
    for t in range(speech.steps):
        if t in speech.starts:
            state = begin
        given = {}
        for i, name in feeds.items():
            array = speech.streams[i][:, t] if case.inputs[i].timed else speech.streams[i]
            if not case.inputs[i].timed and array.size == rows:  # one number a row, with an axis or without
                array = array.reshape(rows, *taken[name].shape)
            if name in {t.name for t in spec.inputs}:
                given[name] = np.ascontiguousarray(array.astype(taken[name].dtype))
        result = step(given | state)
        state = {s.name: result[spec.next_of(s)] for s in spec.states}
        results.append(result)
    return results


def first_state(bundle: Path, manifest: Manifest, rows: int) -> dict[str, Any]:
    """The states a stream begins with: zero, or what the bundle says."""
    initial = dict(np.load(bundle / INITIAL)) if (bundle / INITIAL).is_file() else {}
    states = {}
    for t in manifest.step.states:
        one = initial.get(t.name, np.zeros(t.shape, np.float32))
        states[t.name] = np.repeat(one[None], rows, axis=0)
    return states


def shaken(model: Any, size: float) -> Any:
    """The model with no weight left at zero or one, so that nothing can be left out unnoticed."""
    generator = np.random.default_rng(0)
    stateful = [m for m in model._flatten_layers() if getattr(m, "stateful", False) and hasattr(m, "cell")]
    kept = {id(s) for layer in stateful for s in tf.nest.flatten(layer.states)}
    for variable in model.variables if hasattr(model, "variables") else ():
        dtype = tf.as_dtype(variable.dtype)
        if not dtype.is_floating or id(variable) in kept:
            continue
        value = np.asarray(variable) + size * generator.standard_normal(variable.shape)
        variable.assign(
            np.abs(value) + 0.1 if "variance" in getattr(variable, "path", variable.name) else value
        )
    for layer in model._flatten_layers():
        if hasattr(layer, "finalize_state"):  # a Normalization, which computes with what it last looked up
            layer.finalize_state()
    return model


def _words(error: Exception, folder: Path) -> str:
    """One line of an error, without the folder that it was exported in."""
    line = re.sub(r"\x1b\[\d*m", "", " ".join(str(error).split())).replace(f"{folder}/", "")
    return re.sub(r"\.bundle\.\w+\.tmp/", "", line)[:300]


def _saved_model(path: Path, rows: int) -> Stepper:
    loaded = tf.saved_model.load(str(path))
    (step,) = loaded.signatures.values()
    step.owner = loaded  # TensorFlow frees the graph with the object that loaded it
    return lambda arrays: {
        n: t.numpy() for n, t in step(**{k: tf.constant(a) for k, a in arrays.items()}).items()
    }


def _tflite(path: Path, rows: int) -> Stepper:
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    for detail in interpreter.get_input_details():
        interpreter.resize_tensor_input(detail["index"], [rows, *detail["shape"][1:]])
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    return lambda arrays: runner(**arrays)


def _onnx(path: Path, rows: int) -> Stepper:
    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return lambda arrays: dict(zip(names, session.run(names, arrays), strict=True))


def _program(path: Path, rows: int) -> Stepper:
    data = path.read_bytes()
    words = aligned(len(data) // 4)
    words.view(np.uint8)[:] = np.frombuffer(data, np.uint8)
    streams = Streams(words, rows)

    def step(arrays: dict[str, Any]) -> dict[str, Any]:
        for tensor in (*streams.inputs, *streams.states):
            streams.array(tensor)[...] = arrays[tensor.name]
        streams.step()
        results = {t.name: streams.array(t).copy() for t in streams.outputs}
        return results | {f"next_{t.name}": streams.array(t).copy() for t in streams.states}

    return step


# Each format is opened by its vendor's own API, at its signature: not by way of the runtime.
STEPPERS: dict[str, Callable[[Path, int], Stepper]] = {
    "saved_model": _saved_model,
    "tflite": _tflite,
    "onnx": _onnx,
    "program": _program,
}
