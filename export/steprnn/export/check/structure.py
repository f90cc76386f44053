"""What a graph file declares, before it runs, against the step that it is to be; TensorFlow is not needed."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from typing import Any

from steprnn.runtime import engines
from steprnn.runtime.bundle.packed import Place
from steprnn.runtime.errors import ExportError
from steprnn.runtime.pairing import Declared
from steprnn.runtime.spec import StepSpec, TensorSpec

from ..formats import operators

METADATA = "steprnn.step"


def strange_file(engine: str, path: Place, spec: StepSpec) -> list[str]:
    """What is not as the contract says in a graph file of a bundle: tensors, operators, metadata."""
    engines.check_file(engine, path)
    graph = engines.open_graph(engine, path)
    problems = strange_tensors(graph.inputs, graph.outputs, spec)
    if engine == "onnx":
        return problems + _onnx(path, spec)
    if engine == "native":
        return problems + _program(path, spec)
    return problems + _operators(lambda: operators.check_tflite(path.read_bytes()))


def strange_tensors(
    inputs: Sequence[Declared],
    outputs: Sequence[Declared],
    spec: StepSpec,
    names: Mapping[str, str] | None = None,
) -> list[str]:
    """Tensors that are missing, too many, or of another dtype or shape than the spec's.

    `names` gives ours in theirs where they differ; then the graph may hold others besides.
    """
    theirs = names or {}
    taken = {t.name: t for t in (*spec.inputs, *spec.states)}
    given = {t.name: t for t in spec.outputs} | {spec.next_of(t): t for t in spec.states}
    problems = []
    for what, expected, declared in (("input", taken, inputs), ("output", given, outputs)):
        found = {t.name: t for t in declared}
        for ours, tensor in expected.items():
            name = theirs.get(ours, ours)
            if name not in found:
                problems.append(f"it has no {what} {name!r}; it has {', '.join(sorted(found)) or 'none'}")
            elif not _fits(found[name], tensor, foreign=names is not None):
                axes = ["batch", *tensor.shape]
                problems.append(f"{found[name]}, expected {tensor.dtype} [{', '.join(map(str, axes))}]")
        strangers = sorted(set(found) - {theirs.get(n, n) for n in expected})
        if strangers and names is None:
            problems.append(f"it has an {what} {', '.join(strangers)}, which the step does not have")
    return problems


def _fits(declared: Declared, tensor: TensorSpec, foreign: bool) -> bool:
    """The dtype is the same, the batch axis is free or 1, and no axis that is declared is another.

    Other tools take tokens as int64, which holds the same numbers.
    """
    wide = foreign and (declared.dtype, tensor.dtype) == ("int64", "int32")
    scaled = (declared.dtype, tensor.dtype) == ("int16", "float32") and declared.scale is not None
    if declared.dtype != tensor.dtype and not wide and not (scaled and not foreign):
        return False
    if declared.shape is None:
        return True
    if len(declared.shape) != len(tensor.shape) + 1:
        return False
    batch, *axes = declared.shape
    fixed = [(a, b) for a, b in zip(axes, tensor.shape, strict=True) if isinstance(a, int)]
    return (not isinstance(batch, int) or batch == 1) and all(a == b for a, b in fixed)


def _onnx(path: Place, spec: StepSpec) -> list[str]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map.get(METADATA)
    problems = []
    if told is None:
        problems.append(f"its metadata has no {METADATA}")
    elif _json(told) != spec.to_record():
        problems.append(f"its metadata {METADATA} tells another step: {told[:200]}")
    if importlib.util.find_spec("onnx") is None:  # the hash of the file stands for them
        return problems
    import onnx

    return problems + _operators(lambda: operators.check_onnx(onnx.load_from_string(path.read_bytes())))


def _program(path: Place, spec: StepSpec) -> list[str]:
    from steprnn.runtime.engines import native

    from ..program.reading import Program

    told = Program(path).meta.get("step")
    problems = [] if told == spec.to_record() else [f"its metadata tells another step: {str(told)[:200]}"]
    failure = native.selftest(path)
    return [*problems, failure] if failure else problems


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _operators(check: Any) -> list[str]:
    try:
        check()
    except ExportError as error:
        return [str(error)]
    return []
