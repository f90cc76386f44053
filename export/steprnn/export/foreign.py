"""Graphs that another tool made, as candidates: stepped by the names that --map gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from steprnn.runtime.contract import Candidate
from steprnn.runtime.errors import UsageError
from steprnn.runtime.parity import Profile
from steprnn.runtime.spec import StepSpec

from .reference import FunctionEngine

Call = Callable[..., dict[str, Any]]


def foreign_candidate(path: Path, spec: StepSpec, names: dict[str, str], profile: Profile) -> Candidate:
    """A graph file whose tensors are called `names[ours]`, or as ours where nothing is said.

    Raises `UsageError` where it has no tensor of such a name, and lists those it has.
    """
    if path.suffix == ".onnx":
        open_with, engine = _onnx, "onnx"
    elif path.suffix == ".tflite":
        open_with, engine = _tflite, "litert"
    elif path.is_dir():
        open_with, engine = _saved_model, "tensorflow"
    else:
        raise UsageError(f"{path} is not a bundle, an .onnx or .tflite file, or a SavedModel folder")
    ours = (*(t.name for t in (*spec.inputs, *spec.states)), *spec.result_names)
    has = open_with(path, 1)[1]
    strange = sorted(set(names) - set(ours))
    if strange:
        raise UsageError(f"--map names {', '.join(strange)}, and the step has {', '.join(ours)}")
    missing = sorted({names.get(n, n) for n in ours} - set(has))
    if missing:
        raise UsageError(
            f"{path} has no {', '.join(missing)}; it has {', '.join(sorted(has))}. "
            "Say which is which with --map OURS=THEIRS"
        )

    def open_engine(threads: int) -> FunctionEngine:
        function = open_with(path, threads)[0]

        def step(**tensors: Any) -> dict[str, Any]:
            given = {names.get(n, n): np.asarray(t) for n, t in tensors.items()}
            results = function(**given)
            return {n: results[names.get(n, n)] for n in spec.result_names}

        return FunctionEngine(step, spec)

    return Candidate(path.name, engine, spec, profile, open_engine)


def _onnx(path: Path, threads: int) -> tuple[Call, list[str]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs = [o.name for o in session.get_outputs()]

    def call(**tensors: Any) -> dict[str, Any]:
        return dict(zip(outputs, session.run(outputs, tensors), strict=True))

    return call, [*(i.name for i in session.get_inputs()), *outputs]


def _tflite(path: Path, threads: int) -> tuple[Call, list[str]]:
    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    runner = interpreter.get_signature_runner()
    return runner, [*runner.get_input_details(), *runner.get_output_details()]


def _saved_model(path: Path, threads: int) -> tuple[Call, list[str]]:
    loaded = tf.saved_model.load(str(path))
    key = next((k for k in ("step", "serving_default") if k in loaded.signatures), None)
    if key is None:
        raise UsageError(
            f"{path} has no signature 'step' or 'serving_default'; it has {sorted(loaded.signatures)}"
        )
    signature = loaded.signatures[key]
    signature.owner = loaded

    def call(**tensors: Any) -> dict[str, Any]:
        return dict(signature(**{n: tf.constant(t) for n, t in tensors.items()}))

    return call, [*signature.structured_input_signature[1], *signature.structured_outputs]
