"""The weights of an artefact against the model's own, one by one: what no run reads is judged too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ..formats.frozen import freeze
from ..step.contract import Step
from .constants import Constant, Floats, constants_of

LEAST = 2  # elements; fewer are the graph's own numbers, such as an axis or a half

Doubles = NDArray[np.float64]
LEAST = 2  # elements of what is audited; single numbers may be folded into anything
ULPS = 4  # that a converter's own arithmetic may differ by, where it computes with constants beforehand
FOLDED = 1e-5  # of the largest element, where a converter multiplied or added weights
NEAR = 0.1  # of its norm that a tensor may be off to be taken for a weight with a mistake
SLACK = 1e-3  # of half a step: a scale is rounded too


@dataclass(frozen=True)
class Weight:
    """A constant of the step: a weight of the model, or what is computed of weights alone, its `parts`."""

    name: str
    values: Floats
    parts: tuple[Weight, ...] = ()
    node: str = ""  # of the frozen graph


@dataclass(frozen=True)
class Held:
    """What an artefact computes with in place of a weight: its values, in the order of the weight's axes."""

    node: str  # of the frozen graph
    values: Floats
    is_int8: bool


@dataclass(frozen=True)
class Match:
    """What became of a weight in an artefact.

    It is matched, folded, permuted, changed or missing, or, of a vector, not found. What is matched or folded
    is `held` as it is or in parts, where that can be told.
    """

    weight: str
    verdict: str
    words: str = ""
    held: tuple[Held, ...] = ()

    @property
    def is_right(self) -> bool:
        """Whether every element is where it belongs, and as near as the artefact can hold it."""
        return self.verdict in ("matched", "folded")

    @property
    def is_wrong(self) -> bool:
        """Whether it is there with a mistake, or no longer there though some run may never read it.

        A vector acts on every step, so that the runs judge it where a converter's folding hides it.
        """
        return self.verdict in ("permuted", "changed", "missing")


def weights_of(step: Step) -> list[Weight]:
    """What a step computes with: constants, and what is computed of constants, where it meets the rest.

    Those whose elements are all equal are left out: adding zeros or multiplying by ones may be dropped.
    Single numbers are there for what a converter may fold them into, and to know how they are rounded; they
    are not audited.
    """
    values, made_of = values_of(freeze(step).graph.as_graph_def())
    told = {
        name: Weight(f"{_told(name)} [{', '.join(map(str, array.shape))}]", array, node=name.split(":")[0])
        for name, array in values.items()
        if array.dtype == np.float32 and array.size and (array.size < LEAST or np.ptp(array) > 0)
    }
    found = []
    for name in (name for name in made_of if name in told):
        weight, own = told[name], [told[part] for part in sorted(made_of[name]) if part in told]
        computed = not any(np.array_equal(weight.values, part.values) for part in own)
        found.append(replace(weight, parts=tuple(own)) if computed else weight)
    return found


def values_of(graph: tf.compat.v1.GraphDef) -> tuple[dict[str, NDArray[Any]], dict[str, set[str]]]:
    """The tensors of a graph that depend on constants alone where the rest reads them, and these constants.

    Their values by name; and of each that is read, of which constants it is computed.
    """
    parts: dict[str, set[str]] = {}  # node that depends on constants alone -> these
    read: list[str] = []
    for node in graph.node:
        sources = [name.lstrip("^").split(":")[0] for name in node.input]
        if node.op == "Const":
            parts[node.name] = {f"{node.name}:0"}
        elif sources and node.op != "Placeholder" and all(name in parts for name in sources):
            parts[node.name] = set().union(*(parts[name] for name in sources))
        else:
            read += [name for name in node.input if name.lstrip("^").split(":")[0] in parts]
    ends = [name if ":" in name else f"{name}:0" for name in dict.fromkeys(read) if not name.startswith("^")]
    made_of = {name: parts[name.split(":")[0]] for name in ends}
    names = list(dict.fromkeys([*ends, *(part for made in made_of.values() for part in sorted(made))]))
    evaluated = tf.function(
        lambda: tf.graph_util.import_graph_def(graph, {}, names, name=""), autograph=False
    )
    return dict(zip(names, (tensor.numpy() for tensor in evaluated()), strict=True)), made_of


def _told(node: str) -> str:
    """`lstm_cell/kernel` as near as the name of a node tells it."""
    name = re.sub(r":\d+$", "", node).removeprefix("step/")
    return re.sub(r"(/(Cast(_\d+)?|ReadVariableOp|resource))+$", "", name) or name


@dataclass(frozen=True)
class Audit:
    """What became of each weight in an artefact, and what it computes with in their place.

    `held` is by node of the frozen graph; None where some of it is not known.
    """

    matches: list[Match]
    held: dict[str, Held] | None

    @classmethod
    def of(cls, path: Path, weights: Sequence[Weight]) -> Audit:
        """Of an artefact's file, or a SavedModel folder."""
        constants = constants_of(path)
        matches = audited(weights, constants)
        if any(not m.held and m.verdict != "not found" for m in matches):  # vectors of 8 bits there are none
            return cls(matches, None)
        held = [*(held for match in matches for held in match.held), *_numbers(weights, constants)]
        return cls(matches, {one.node: one for one in held})


def _numbers(weights: Sequence[Weight], constants: Sequence[Constant]) -> Iterator[Held]:
    """Single numbers, such as an epsilon, that an artefact holds in 16 bits and not in 32 as well."""
    alone = [c for c in constants if c.values.size == 1]
    for weight in (w for w in weights if w.values.size == 1):
        values, half = weight.values, weight.values.astype(np.float16).astype(np.float32)
        exact = any(c.values.ravel() == values.ravel() for c in alone)
        if not exact and any(c.bits == 16 and c.values.ravel() == half.ravel() for c in alone):
            yield Held(weight.node, half, False)


def audited(weights: Sequence[Weight], constants: Sequence[Constant]) -> list[Match]:
    """Each weight of the step in what an artefact holds: itself, or what it is computed of."""
    known = {id(w): w for weight in weights for w in (weight, *weight.parts)}
    found = []
    for weight in (w for w in weights if w.values.size >= LEAST):
        match = _match(weight, constants)
        if not match.is_right and weight.parts:
            parts = [_match(part, constants) for part in weight.parts if part.values.size >= LEAST]
            held = tuple(held for part in parts for held in part.held)
            match = next((p for p in parts if not p.is_right), Match(weight.name, "matched", held=held))
        if not match.is_right:
            match = _folded(weight, constants, [w.values for w in known.values()]) or match
        found.append(match)
    return found


def _folded(weight: Weight, constants: Sequence[Constant], others: Sequence[Floats]) -> Match | None:
    """The weight scaled or moved by other weights, which a converter may do, where an artefact holds that.

    A scale behind a product goes into its matrix and its bias, a shift before one into its bias. What is held
    is the weight that would give what is there.
    """
    w = weight.values.squeeze().astype(np.float64)
    alike = [c for c in constants if c.values.size == w.size]
    for made, slope in _foldings(w, [other.squeeze().astype(np.float64) for other in others]):
        for constant in alike:
            near = FOLDED * np.abs(made).max() + (0 if constant.step is None else constant.step.max() / 2)
            if constant.bits == 16:
                near += np.abs(made).max() * np.finfo(np.float16).eps
            for order in permutations(range(made.ndim)):
                stored = constant.values.reshape(made.transpose(order).shape).transpose(np.argsort(order))
                if np.abs(made - stored).max() <= near:
                    values = (w + (stored - made) / slope).astype(np.float32).reshape(weight.values.shape)
                    held = Held(weight.node, values, constant.step is not None)
                    return Match(weight.name, "folded", held=(held,))
    return None


def _foldings(w: Doubles, others: Sequence[Doubles]) -> Iterator[tuple[Doubles, Doubles | float]]:
    """What a converter may make of a weight, and by how much that moves where the weight does."""
    vectors = [v for v in others if v.ndim < 2 and v.size in (1, *w.shape)]
    # What is multiplied by zero is lost, and negated it is another weight: no converter does either.
    factors = [v for v in vectors if v.all() and not (v == -1).all()]
    for v in factors:
        if w.ndim < 2 or v.size in (1, w.shape[-1]):
            yield w * v, v
        if w.ndim > 1 and v.size == w.shape[0]:
            rows = v.reshape(-1, *[1] * (w.ndim - 1))
            yield w * rows, rows
    if w.ndim > 1:
        return
    for v in (v for v in vectors if v.size == w.size):
        yield w + v, 1.0
        for factor in factors:
            yield from ((w * factor + v, factor), ((w + v) * factor, factor))
    matrices = [m for m in others if m.ndim == 2 and m.shape[1] == w.size]
    yield from ((w + v @ m, 1.0) for m in matrices for v in others if v.shape == m.shape[:1])


def _match(weight: Weight, constants: Sequence[Constant]) -> Match:
    size = weight.values.size
    best: tuple[float, str] = (0.0, "")
    for constant in (c for c in constants if c.values.size == size):
        limit = _limit(weight, constant)
        for order, arranged, inverse in _arrangements(weight):
            with np.errstate(invalid="ignore"):
                error = np.abs(arranged - constant.values.ravel())
            within = error <= (limit if np.ndim(limit) == 0 else np.asarray(limit).ravel())
            if within.all():
                held = (_held(weight, constant, order, inverse),)
                return _coarse(weight, constant) or Match(weight.name, "matched", held=held)
            near = _nearness(arranged, constant.values.ravel(), within)
            if near > best[0]:
                best = near, _difference(weight, constant, order, within)
        if np.array_equal(np.sort(weight.values, axis=None), np.sort(constant.values, axis=None)):
            return Match(weight.name, "permuted", f"{constant.name} has its elements in another order")
    if best[0]:
        return Match(weight.name, "changed", best[1])
    return Match(weight.name, "missing" if weight.values.squeeze().ndim > 1 else "not found")


def _limit(weight: Weight, constant: Constant) -> Any:
    """How far an element may be off: nothing, the rounding to 16 bits, or half a step of 8 bits."""
    if constant.step is not None:
        return constant.step * (0.5 + SLACK) + np.finfo(np.float32).tiny
    if constant.bits == 16:
        halves = np.abs(constant.values)
        return np.spacing(halves.astype(np.float16)).astype(np.float32) / 2
    return ULPS * np.spacing(np.abs(constant.values).max()) if weight.parts else 0.0


def _held(weight: Weight, constant: Constant, order: tuple[int, ...], inverse: bool) -> Held:
    shape = weight.values.squeeze().transpose(order).shape
    values = constant.values.reshape(shape).transpose(np.argsort(order)).reshape(weight.values.shape)
    return Held(weight.node, np.float32(1) / values if inverse else values, constant.step is not None)


def _arrangements(weight: Weight) -> Iterator[tuple[tuple[int, ...], Floats, bool]]:
    """The elements in a row, for each order of the axes; of what is computed, their inverses too."""
    squeezed = weight.values.squeeze()
    for order in permutations(range(squeezed.ndim)):
        yield order, squeezed.transpose(order).ravel(), False
        if weight.parts and squeezed.all():
            yield order, np.float32(1) / squeezed.transpose(order).ravel(), True


def _nearness(expected: Floats, got: Floats, within: Any) -> float:
    """How sure it is that one is the other with a mistake: 0 to 1, and 0 where it is something else."""
    share = float(within.mean())
    scale = float(np.linalg.norm(expected)) or 1.0
    off = float(np.linalg.norm(expected - got)) / scale
    return max(share if share > 0.5 else 0.0, 1 - off if off < NEAR else 0.0)


def _difference(weight: Weight, constant: Constant, order: tuple[int, ...], within: Any) -> str:
    squeezed = weight.values.squeeze().transpose(order)
    place = np.unravel_index(int(np.argmin(within)), squeezed.shape)
    got = float(constant.values.reshape(squeezed.shape)[place])
    at = ", ".join(str(int(i)) for _, i in sorted(zip(order, place, strict=True)))
    return (
        f"{constant.name} differs in {int((~within).sum()):,} of {within.size:,} elements, "
        f"the first at [{at}]: got {got:.6g}, expected {float(squeezed[place]):.6g}"
    )


def _coarse(weight: Weight, constant: Constant) -> Match | None:
    """A scale that is coarser than 8 bits need, which loses what the elements would still match."""
    if constant.step is None:
        return None
    step, largest = float(np.median(constant.step)), float(np.abs(weight.values).max())
    if step * 127 <= largest * (1 + SLACK):
        return None
    words = f"{constant.name} has a step of {step:.3g}, expected at most {largest / 127:.3g}"
    return Match(weight.name, "changed", words)
