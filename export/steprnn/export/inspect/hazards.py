"""What is hazardous in a graph, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from steprnn.runtime.pairing import STATE_WORD, Declared, Pair, agree, is_signal, shape_text
from steprnn.runtime.spec import KINDS

from .report import Hazard

BRANCHES = ("If", "IF", "StatelessIf", "Case", "StatelessCase")


def of_tensors(
    inputs: Sequence[Declared], outputs: Sequence[Declared], pairs: Sequence[Pair]
) -> Iterator[Hazard]:
    """Hazards that show in the tensors alone: order, shapes, dtypes, and states without a partner."""
    if pairs:
        yield from _order(inputs, outputs, pairs)
        yield from _equal(inputs, pairs)
        yield from _integers(inputs, outputs, pairs)
        yield from _growing(inputs, outputs, pairs)
    for tensor in (*inputs, *outputs):
        if tensor.dtype not in np.sctypeDict or np.dtype(tensor.dtype).kind not in KINDS:
            yield Hazard("dtype", f"{tensor.name!r} is {tensor.dtype}, which is no array of numbers")
    yield from _unpaired(inputs, outputs, pairs)
    yield from _free(inputs, {pair.state for pair in pairs})


def of_operators(loops: dict[str, int], flex: dict[str, int], custom: dict[str, int]) -> Iterator[Hazard]:
    """Hazards of operators that are there, by how many."""
    branches = {name: loops[name] for name in loops if name in BRANCHES}
    if turning := {name: n for name, n in loops.items() if name not in branches}:
        yield Hazard("loop", f"{_counted(turning)}: it runs over a sequence, and is no step")
    if branches:
        words = f"{_counted(branches)}: of both sides, one runs; the weights of both are in the file"
        yield Hazard("branch", words, caution=True)
    if flex:
        yield Hazard("flex", f"{_counted(flex)}: needs the Flex delegate, that is TensorFlow, to run")
    if custom:
        yield Hazard("custom", f"{_counted(custom)}: runs only where somebody has registered them")


def hidden(words: str) -> Hazard:
    """A variable within the graph."""
    return Hazard("hidden-variable", words)


def _counted(operators: dict[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(operators.items()))


def _order(
    inputs: Sequence[Declared], outputs: Sequence[Declared], pairs: Sequence[Pair]
) -> Iterator[Hazard]:
    ins = [t.name for t in inputs if t.name in {p.state for p in pairs}]
    outs = [t.name for t in outputs if t.name in {p.next for p in pairs}]
    nexts = {p.state: p.next for p in pairs}
    if [nexts[name] for name in ins] != outs:
        yield Hazard(
            "order",
            f"the states come in as {', '.join(ins)} and out as {', '.join(outs)}: "
            "bound by position they would be swapped",
            caution=True,
        )


def _equal(inputs: Sequence[Declared], pairs: Sequence[Pair]) -> Iterator[Hazard]:
    alike: dict[str, list[str]] = {}
    for tensor in inputs:
        if tensor.name in {p.state for p in pairs}:
            alike.setdefault(f"{tensor.dtype} {shape_text(tensor.shape)}", []).append(tensor.name)
    for what, names in alike.items():
        if len(names) > 1:
            yield Hazard(
                "equal-shapes",
                f"{', '.join(names)} are all {what}: a swap would raise no error",
                caution=True,
            )


def _growing(
    inputs: Sequence[Declared], outputs: Sequence[Declared], pairs: Sequence[Pair]
) -> Iterator[Hazard]:
    """States that come back with another length, such as a cache of all that was read."""
    ins, outs = ({t.name: t for t in part} for part in (inputs, outputs))
    for pair in pairs:
        before, after = ins[pair.state].shape or (), outs[pair.next].shape or ()
        named = [(a, b) for a, b in zip(before[1:], after[1:], strict=False) if isinstance(a, str) and b != a]
        if named:
            yield Hazard(
                "growing-state",
                f"state {pair.state} {shape_text(before)} comes back as {pair.next} {shape_text(after)}: it "
                "grows, and a state of a step has one shape",
            )


def _integers(
    inputs: Sequence[Declared], outputs: Sequence[Declared], pairs: Sequence[Pair]
) -> Iterator[Hazard]:
    ins, outs = ({t.name: t for t in part} for part in (inputs, outputs))
    for pair in pairs:
        state, following = ins[pair.state], outs[pair.next]
        if state.dtype in ("int8", "uint8", "int16"):
            words = f"state {state.name} is {state.dtype}: it rounds at every step, and errors add up"
            if other := state.scale != following.scale:
                words += (
                    f"; and its scale {state.scale} is not that of {following.name}, {following.scale}, "
                    "so it cannot be fed back as it is"
                )
            fed_back = state.dtype == "int16" and not other
            yield Hazard("int8-state", words, caution=fed_back)


def _unpaired(
    inputs: Sequence[Declared], outputs: Sequence[Declared], pairs: Sequence[Pair]
) -> Iterator[Hazard]:
    taken = {p.state for p in pairs} | {p.next for p in pairs}
    ins = [t for t in inputs if t.name not in taken]
    outs = [t for t in outputs if t.name not in taken]
    found = False
    for state in ins:
        could = [t.name for t in outs if agree(state, t) and not is_signal(t.name)]
        sounds = STATE_WORD.search(state.name)
        possible = could and state.dtype.startswith("float") and not is_signal(state.name)
        if sounds or (possible and state.shape):
            found = True
            meant = f"could come back as {' or '.join(could)}" if could else "no output agrees with it"
            yield Hazard("unpaired", f"input {state.name} may be a state: {meant}; its name does not say")
    if not found:
        for t in outs:
            if STATE_WORD.search(t.name):
                found = True
                yield Hazard("unpaired", f"output {t.name} sounds like a state, and no input takes it")
    if not pairs and not found:
        yield Hazard("no-state", "no output comes back as an input: nothing is remembered between two calls")


def _free(inputs: Sequence[Declared], states: set[str]) -> Iterator[Hazard]:
    """Free dimensions that are not the batch: axis 0, the same name elsewhere, or a state's only one."""
    batch = {t.shape[0] for t in inputs if t.shape and isinstance(t.shape[0], str)}
    for t in inputs:
        if t.shape is None:
            yield Hazard("dynamic-shape", f"{t.name} has no declared shape")
            continue
        free = [axis for axis, n in enumerate(t.shape) if not isinstance(n, int)]
        if t.name in states and len(free) == 1:
            continue
        axes = [axis for axis in free if axis != 0 and t.shape[axis] not in batch]
        if axes:
            listed = ", ".join(map(str, axes))
            yield Hazard(
                "dynamic-shape",
                f"{t.name} {shape_text(t.shape)} is free in axis {listed}: a step has fixed shapes but "
                "for the batch",
            )
