"""Reading ONNX files of any maker; only protobuf, nothing is run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from steprnn.runtime.bundle.packed import Place
from steprnn.runtime.errors import BundleError
from steprnn.runtime.pairing import Declared, Pair, pairs_by_name

from . import hazards
from .report import Hazard, Inspection, Weights

LOOPS = ("Loop", "Scan", "If", "SequenceMap")
STANDARD = ("", "ai.onnx", "ai.onnx.ml")
CONTRIB = "com.microsoft"
RECURRENT = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}  # operator -> where its initial states come in
PACKED = (TensorProto.INT4, TensorProto.UINT4)  # two to a byte
WIDENING = ("Cast", "Mul", "DequantizeLinear", "Identity")  # of constants alone, once, when loaded
NO_WEIGHTS = ("int32", "int64", "bool", "object", "str")  # shapes, axes and indices


def read(path: Place, trust: bool = False) -> Inspection:
    """Inspect an ONNX file; raises `BundleError` where it is not one."""
    try:
        model = onnx.load_from_string(path.read_bytes())
    except (DecodeError, ValueError, OSError) as error:
        raise BundleError(f"{path} is not an ONNX file ({' '.join(str(error).split())})") from None
    if not model.ir_version or not model.graph.output:
        raise BundleError(f"{path} is not an ONNX file: it declares no version or no outputs")
    graph = model.graph
    initializers = {i.name for i in graph.initializer}
    inputs = tuple(_declared(v) for v in graph.input if v.name not in initializers)
    outputs = tuple(_declared(v) for v in graph.output)
    pairs = tuple(_told(model) or pairs_by_name(inputs, outputs))
    functions = {(f.domain, f.name): f for f in model.functions}
    nodes = [n for n in _nodes(graph.node, functions) if (n.domain, n.op_type) not in functions]
    operators = Counter(_name(n) for n in nodes)
    found = [
        *hazards.of_operators(
            {name: n for name, n in operators.items() if name in LOOPS},
            {},
            {_name(n): operators[_name(n)] for n in nodes if n.domain not in (*STANDARD, CONTRIB)},
        ),
        *_inner_states(nodes, {t.name for t in inputs} | _parameters(model)),
        *hazards.of_tensors(inputs, outputs, pairs),
    ]
    contrib = sorted({n.op_type for n in nodes if n.domain == CONTRIB})
    if contrib:
        words = f"{', '.join(contrib)} of {CONTRIB}: onnxruntime has them, other engines may not"
        found.append(Hazard("contrib", words, caution=True))
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None)
    maker = " ".join(part for part in (model.producer_name, model.producer_version) if part)
    maker = f"opset {opset}" + (f", made by {maker}" if maker else "")
    weights = Weights.of(_constants(model, nodes))
    return Inspection(
        str(path), "ONNX", maker, inputs, outputs, pairs, dict(operators), weights, tuple(found)
    )


def _declared(value: Any) -> Declared:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return Declared(value.name, kind or "unknown", None)
    tensor = value.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(
            d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in tensor.shape.dim
        )
    return Declared(value.name, _dtype(tensor.elem_type), shape)


def _dtype(number: int) -> str:
    return str(helper.tensor_dtype_to_np_dtype(number).name) if number else "unknown"


def _told(model: Any) -> list[Pair]:
    """The pairs that steprnn's own metadata tells, if they are there and fit the graph."""
    text = next((p.value for p in model.metadata_props if p.key == "steprnn.step"), None)
    try:
        states = json.loads(text)["states"] if text else []
        pairs = [Pair(s["name"], s["next"], "the file's metadata") for s in states]
    except (ValueError, KeyError, TypeError):
        return []
    ins, outs = ({v.name for v in part} for part in (model.graph.input, model.graph.output))
    return pairs if all(p.state in ins and p.next in outs for p in pairs) else []


def _nodes(nodes: Any, functions: dict[tuple[str, str], Any]) -> Iterator[Any]:
    """Every node, in subgraphs and in the functions that are called too."""
    for node in nodes:
        yield node
        for graph in _within(node):
            yield from _nodes(graph.node, functions)
        called = functions.get((node.domain, node.op_type))
        if called is not None:
            yield from _nodes(called.node, functions)


def _name(node: Any) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def _parameters(model: Any) -> set[str]:
    """What functions and loops are given by whoever calls them: taken for values from outside."""
    _, *bodies = _graphs(model.graph)
    names = {value.name for graph in bodies for value in graph.input}
    return names | {name for function in model.functions for name in function.input}


def _inner_states(nodes: list[Any], inputs: set[str]) -> Iterator[Hazard]:
    """Recurrent operators whose state begins inside the graph at each call."""
    makers = {output: node for node in nodes for output in node.output}

    def fed(name: str, seen: set[str]) -> bool:
        """Whether a tensor's values (not only its shape) come from an input of the graph."""
        if name in inputs:
            return True
        node = makers.get(name)
        if node is None or name in seen or node.op_type in ("Shape", "Size"):
            return False
        seen.add(name)
        inside = [result.name for graph in _within(node) for result in graph.output]
        return any(fed(source, seen) for source in (*node.input, *inside) if source)

    for node in nodes:
        places = RECURRENT.get(node.op_type, ()) if node.domain in ("", "ai.onnx") else ()
        given = [node.input[i] if i < len(node.input) else "" for i in places]
        if given and not all(name and fed(name, set()) for name in given):
            yield Hazard(
                "hidden-state",
                f"{node.op_type} {node.name!r} begins at a state of its own at every call: "
                "the caller can neither give it nor take it on",
            )


def _constants(model: Any, nodes: list[Any]) -> Iterator[tuple[str, int, int]]:
    """`(dtype, bytes, bytes read per step)` of every weight."""
    readers: dict[str, list[tuple[Any, int]]] = {}
    for node in nodes:
        for position, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, position))
    tensors = [(i.name, i) for graph in _graphs(model.graph) for i in graph.initializer]
    tensors += [
        (node.output[0], a.t)
        for node in nodes
        if node.op_type == "Constant"
        for a in node.attribute
        if a.name == "value"
    ]
    fixed = {name for name, _ in tensors}
    for node in nodes:
        if node.op_type in WIDENING and all(name in fixed for name in node.input):
            fixed.add(node.output[0])
    for name, tensor in tensors:
        dtype = _dtype(tensor.data_type)
        if dtype in NO_WEIGHTS:
            continue
        count = prod(tensor.dims)
        size = (
            (count + 1) // 2
            if tensor.data_type in PACKED
            else count * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        )
        yield dtype, size, _read(name, size, tensor.dims, readers, fixed)


def _read(name: str, size: int, dims: Any, readers: dict[str, list[tuple[Any, int]]], fixed: set[str]) -> int:
    """Bytes that one step reads: one row for each lookup, or all of it where anything else reads it.

    `fixed` are the names of what is constant once the graph is loaded.
    """
    passed = [node.output[0] for node, _ in readers.get(name, []) if node.output[0] in fixed]
    reads = [(node, place) for node, place in readers.get(name, []) if node.output[0] not in fixed]
    rows = [r for r in reads if _is_lookup(*r)]
    if len(rows) < len(reads):
        return size
    return min(
        size,
        len(rows) * (size // dims[0] if dims else 0)
        + sum(_read(n, size, dims, readers, fixed) for n in passed),
    )


def _is_lookup(node: Any, position: int) -> bool:
    axis = next((a.i for a in node.attribute if a.name in ("axis", "gather_axis")), 0)
    return node.op_type in ("Gather", "GatherND", "GatherBlockQuantized") and position == 0 and axis == 0


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph and those within its nodes."""
    yield graph
    for node in graph.node:
        for inner in _within(node):
            yield from _graphs(inner)


def _within(node: Any) -> list[Any]:
    """The graphs that a node holds: branches, or the body of a loop."""
    return [g for a in node.attribute for g in ([a.g] if a.HasField("g") else []) + list(a.graphs)]
