"""Reading TFLite files of any maker; only the flatbuffer, nothing is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from steprnn.runtime.bundle.packed import Place
from steprnn.runtime.engines import hidden
from steprnn.runtime.errors import BundleError
from steprnn.runtime.pairing import Declared, pairs_by_name
from steprnn.runtime.spec import SIGNATURES

from . import hazards
from .arena import structure_bytes, tensor_bytes
from .report import Hazard, Inspection, Weights

try:
    from ai_edge_litert import schema_py_generated as schema
except ImportError:  # TensorFlow carries the same
    from tensorflow.lite.python import schema_py_generated as schema

BUILTINS = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
DTYPES = {v: k.lower() for k, v in vars(schema.TensorType).items() if not k.startswith("_")}
LOOPS = ("WHILE", "IF")
LOOKUPS = {"GATHER": 0, "GATHER_ND": 0, "EMBEDDING_LOOKUP": 1}  # operator -> where its table comes in
WEIGHTS = ("float16", "float32", "float64", "bfloat16", "int4", "int8", "uint8", "int16")


def read(path: Place, trust: bool = False) -> Inspection:
    """Inspect a TFLite file; raises `BundleError` where it is not one."""
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise BundleError(f"{path} is not a TFLite file: it lacks the mark TFL3")
    try:
        return _read(path, schema.ModelT.InitFromPackedBuf(data, 0))
    except Exception as error:  # what a damaged offset leads to: flatbuffers, struct and NumPy all raise
        raise BundleError(f"{path} is damaged ({type(error).__name__}: {error})") from None


def _read(path: Place, model: Any) -> Inspection:
    signature = _signature(model)
    graph = model.subgraphs[signature.subgraphIndex if signature else 0]
    inputs = _tensors(graph, graph.inputs, signature and signature.inputs)
    outputs = _tensors(graph, graph.outputs, signature and signature.outputs)
    pairs = tuple(pairs_by_name(inputs, outputs))
    operators = [(_operator(model, op), op, g) for g in model.subgraphs for op in _each(g.operators)]
    counts = Counter(name for name, _, _ in operators)
    found = [
        *hazards.of_operators(
            {name: n for name, n in counts.items() if name in LOOPS},
            {name: n for name, n in counts.items() if name.startswith("Flex")},
            {name: n for name, n in counts.items() if not name.isupper() and not name.startswith("Flex")},
        ),
        *_variables(model, counts),
        *hazards.of_tensors(inputs, outputs, pairs),
    ]
    maker = f"signature {_text(signature.signatureKey)!r}" if signature else "no signature"
    notes: tuple[str, ...] = ()
    if signature:
        sides = ((graph.inputs, signature.inputs), (graph.outputs, signature.outputs))
        notes = (f"by position: {' -> '.join(', '.join(_positions(*side)) for side in sides)}",)
        notes += _arena(graph)
    if len(_each(model.signatureDefs)) > 1:
        keys = ", ".join(repr(_text(s.signatureKey)) for s in model.signatureDefs)
        notes = (*notes, f"signatures: {keys}")
    weights = Weights.of(_constants(model, operators))
    return Inspection(
        str(path), "TFLite", maker, inputs, outputs, pairs, dict(counts), weights, tuple(found), notes
    )


def _signature(model: Any) -> Any:
    """`step`, else `serving_default`, else the first; None where there is none."""
    signatures = {_text(s.signatureKey): s for s in _each(model.signatureDefs)}
    known = [signatures[key] for key in SIGNATURES if key in signatures]
    return next(iter([*known, *signatures.values()]), None)


def _tensors(graph: Any, positions: Any, named: Any) -> tuple[Declared, ...]:
    """In the order of the graph, which a caller without names binds by; two names may share a tensor."""
    order = [int(i) for i in _each(positions)]
    names = [(t.tensorIndex, _text(t.name)) for t in _each(named)]
    names = names or [(i, _text(graph.tensors[i].name)) for i in dict.fromkeys(order)]
    names.sort(key=lambda item: order.index(item[0]))
    return tuple(_declared(name, graph.tensors[i]) for i, name in names)


def _positions(positions: Any, named: Any) -> list[str]:
    """The name of what is at each position of the graph, as TensorFlow Lite Micro binds."""
    names: dict[int, list[str]] = {}
    for tensor in _each(named):
        names.setdefault(int(tensor.tensorIndex), []).append(_text(tensor.name))
    return ["=".join(sorted(names.get(int(i), ["?"]))) for i in _each(positions)]


def _arena(graph: Any) -> tuple[str, ...]:
    """What TensorFlow Lite Micro needs of memory for a graph that it runs: of floats, or of integers."""
    kinds = {_dtype(tensor) for tensor in graph.tensors}
    size = tensor_bytes(graph, DTYPES)
    if size is None or "float16" in kinds or {"int8", "float32"} <= kinds:
        return ()
    weights = {int(op.inputs[1]) for op in graph.operators if len(_each(op.inputs)) > 1}
    scales = (graph.tensors[i].quantization for i in weights if i >= 0)
    channels = sum(n for found in scales if found and (n := len(_each(found.scale))) > 1)
    whole = size + structure_bytes(graph, channels)
    return (
        f"arena of TensorFlow Lite Micro: about {whole:,} bytes on 64 bits, less on 32; {size:,} of tensors",
    )


def _declared(name: str, tensor: Any) -> Declared:
    shape = tensor.shapeSignature if len(_each(tensor.shapeSignature)) else tensor.shape
    return Declared(
        name, _dtype(tensor), tuple(None if n < 0 else int(n) for n in _each(shape)), _scale(tensor)
    )


def _scale(tensor: Any) -> tuple[float, int] | None:
    """Scale and zero point of a tensor quantized as a whole."""
    parameters = tensor.quantization
    if parameters is None or len(_each(parameters.scale)) != 1:
        return None
    return float(parameters.scale[0]), int(parameters.zeroPoint[0])


def _operator(model: Any, operator: Any) -> str:
    """`FULLY_CONNECTED`, or the name of a custom operator."""
    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    name = BUILTINS.get(number, f"BUILTIN_{number}")  # one that is newer than the schema
    return _text(code.customCode) or "custom" if name == "CUSTOM" else name


def _variables(model: Any, counts: Counter[str]) -> Iterator[Hazard]:
    yield from map(hazards.hidden, hidden.assigned(counts))
    for words in hidden.kept(model):
        yield Hazard("hidden-state", words)


def _constants(model: Any, operators: list[tuple[str, Any, Any]]) -> Iterator[tuple[str, int, int]]:
    """`(dtype, bytes, bytes read per step)` of every weight; tensors may share a buffer."""
    sizes: dict[int, tuple[str, int]] = {}
    reads: dict[int, int] = {}
    for graph in model.subgraphs:
        for tensor in _each(graph.tensors):
            size = len(_each(model.buffers[tensor.buffer].data))
            scaled = tensor.quantization is not None and len(_each(tensor.quantization.scale)) > 0
            if size and (_dtype(tensor) in WEIGHTS or (_dtype(tensor) == "int32" and scaled)):
                sizes[tensor.buffer] = (_dtype(tensor), size)
    widened: dict[tuple[int, int], Any] = {}  # graph and tensor -> the constant that it is widened from
    for name, operator, graph in operators:
        given = graph.tensors[operator.inputs[0]] if name == "DEQUANTIZE" else None
        if given is not None and given.buffer in sizes:
            widened[id(graph), int(operator.outputs[0])] = given
    for name, operator, graph in operators:
        if name == "DEQUANTIZE" and (id(graph), int(operator.outputs[0])) in widened:
            continue
        for position, index in enumerate(_each(operator.inputs)):
            own = graph.tensors[index] if index >= 0 else None
            tensor = widened.get((id(graph), int(index)), own)
            if tensor is None or tensor.buffer not in sizes:
                continue
            size = sizes[tensor.buffer][1]
            row = (
                size // int(tensor.shape[0]) if LOOKUPS.get(name) == position and len(tensor.shape) else size
            )
            reads[tensor.buffer] = min(size, reads.get(tensor.buffer, 0) + row)
    for buffer, (dtype, size) in sizes.items():
        yield dtype, size, reads.get(buffer, 0)


def _dtype(tensor: Any) -> str:
    return str(DTYPES[tensor.type])


def _each(values: Any) -> Any:
    """A vector of a flatbuffer, which is None where it is empty."""
    return () if values is None else values


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
