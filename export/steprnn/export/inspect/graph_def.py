"""Reading TensorFlow graphs: what the outputs need, in functions too, without running any of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from math import prod
from typing import Any

import tensorflow as tf

from . import hazards
from .report import Hazard, Weights

LOOPS = ("While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase", "For")
READS = ("ReadVariableOp", "ResourceGather", "ResourceGatherNd")
ASSIGNS = ("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp")
THROUGH = ("Identity", "ReadVariableOp")  # hands on what it is given
LOOKUPS = ("GatherV2", "Gather", "GatherNd", "ResourceGather", "ResourceGatherNd")
SOURCES = ("Const", "VarHandleOp")
NO_WEIGHTS = ("int32", "int64", "bool", "string", "resource", "variant")
NO_OPERATORS = (
    *("Placeholder", "Const", "NoOp", "Identity", "IdentityN", "PartitionedCall"),
    "StatefulPartitionedCall",
)


class GraphReader:
    """Walks a GraphDef from its outputs; `operators` and `weights` are what it met."""

    def __init__(self, graph: tf.compat.v1.GraphDef, outputs: Iterable[str]) -> None:
        self._functions = {f.signature.name: f for f in graph.library.function}
        self.operators: Counter[str] = Counter()
        self._sources: dict[tuple[str, str], Any] = {}  # scope and name -> node that holds a weight
        self._reads: dict[tuple[str, str], list[bool]] = {}  # the same -> for each reader, is it a lookup
        self._walk("", {n.name: n for n in graph.node}, [_node(name) for name in outputs], {})

    @property
    def weights(self) -> Weights:
        """Bytes in the graph, and bytes that one step reads."""
        return Weights.of(self._constants())

    def hazards(self) -> Iterator[Hazard]:
        """Loops, branches and variables."""
        loops = {name: n for name, n in self.operators.items() if name in LOOPS}
        yield from hazards.of_operators(loops, {}, {})
        assigned = sum(self.operators[name] for name in ASSIGNS)
        if assigned:
            yield hazards.hidden(f"{assigned} operators assign variables: a state the caller does not hold")
        variables = sum(node.op == "VarHandleOp" for node in self._sources.values())
        if variables:
            yield hazards.hidden(f"{variables} variables are read: the weights are not frozen in the graph")

    def _walk(
        self, scope: str, nodes: dict[str, Any], ends: list[str], arguments: dict[str, tuple[str, str] | None]
    ) -> None:
        """Visit what `ends` need; `arguments` tells which weight a function was called with."""
        seen: set[str] = set()
        waiting = [*ends]
        while waiting:
            name = waiting.pop()
            if name in seen or name not in nodes:
                continue
            seen.add(name)
            node = nodes[name]
            waiting += [_node(i) for i in node.input]
            if node.op not in NO_OPERATORS:
                self.operators[node.op] += 1
            given = [self._source(scope, nodes, i, arguments) for i in node.input if not i.startswith("^")]
            called = self._called(node)
            for function in called:
                parameters = [a.name for a in function.signature.input_arg]
                # a branch is not given the condition, which comes first
                first = len(given) - len(parameters)
                inner = dict(zip(parameters, given[first:], strict=False)) if first >= 0 else {}
                inside = {n.name: n for n in function.node_def}
                ends_inside = [_node(r) for r in function.ret.values()]
                ends_inside += [_node(r) for r in function.control_ret.values()]
                self._walk(f"{scope}{name}/{function.signature.name}/", inside, ends_inside, inner)
            if node.op in SOURCES:
                self._sources[self._key(scope, node)] = node
            elif not called and node.op not in THROUGH:
                for position, source in enumerate(given):
                    if source is not None:
                        lookup = node.op in LOOKUPS and position == 0
                        self._reads.setdefault(source, []).append(lookup)

    def _called(self, node: Any) -> list[Any]:
        names = [a.func.name for a in node.attr.values() if a.WhichOneof("value") == "func"]
        names += [node.op] if node.op in self._functions else []
        return [self._functions[name] for name in names if name in self._functions]

    def _source(
        self, scope: str, nodes: dict[str, Any], name: str, arguments: dict[str, tuple[str, str] | None]
    ) -> tuple[str, str] | None:
        """The weight that a tensor is, by way of what only hands it on."""
        while (node := nodes.get(_node(name))) is not None and node.op in THROUGH:
            name = node.input[0]
        if node is None:
            return arguments.get(_node(name))
        return self._key(scope, node) if node.op in SOURCES else None

    @staticmethod
    def _key(scope: str, node: Any) -> tuple[str, str]:
        """Constants belong to their place; a variable is one wherever its handle stands."""
        if node.op == "VarHandleOp":
            return "variable", (node.attr["shared_name"].s or node.name.encode()).decode()
        return scope, str(node.name)

    def _constants(self) -> Iterator[tuple[str, int, int]]:
        for key, node in self._sources.items():
            if node.op == "Const":
                tensor = node.attr["value"].tensor
                dtype, dims = tf.as_dtype(tensor.dtype), [d.size for d in tensor.tensor_shape.dim]
            else:
                dtype = tf.as_dtype(node.attr["dtype"].type)
                dims = [d.size for d in node.attr["shape"].shape.dim]
            if dtype.name in NO_WEIGHTS:
                continue
            size = prod(dims) * dtype.size
            reads = self._reads.get(key, [])
            row = size // dims[0] if dims and dims[0] else size
            yield dtype.name, size, size if not all(reads) else min(size, row * len(reads))


def _node(name: str) -> str:
    """The node of `node:0`, `node:output:0` or `^node`."""
    return name.lstrip("^").split(":")[0]
