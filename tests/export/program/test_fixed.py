"""int8-fixed: gates and the sums before them in integers, to the bit of docs/program-format.md."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from steprnn.export.program import encoding, fusing, lowering, source
from steprnn.export.program.reading import Program
from steprnn.export.program.selftest import with_selftest
from steprnn.runtime.engines.native.library import HERE, Streams, aligned
from steprnn.runtime.errors import ExportError

from .cases import step
from .cells import cell_graph

Array = np.ndarray[Any, Any]
UNITS, FEATURES, MOST = 37, 21, 2**29
TABLE = np.rint(65536 * (1 / (1 + np.exp(-np.arange(385) / 32)) - 0.5)).astype(np.int64)


def written(cell: str, folder: Path, units: int = UNITS, features: int = FEATURES) -> Path:
    model, spec = cell_graph(cell, units, features)
    low = lowering.lower(source.read(model), spec)
    block = encoding.program(low, fusing.fused(low.operations), spec, "int8-fixed", "a test", {})
    path = folder / f"{cell}.program"
    path.write_bytes(with_selftest(block))
    return path


def opened(path: Path) -> Streams:
    data = np.fromfile(path, np.uint32)
    words = aligned(len(data))
    words[:] = data
    return Streams(words)


# The specification in NumPy's integers of 64 bits.


def fixed(x: Array) -> tuple[Array, Array]:
    """Numbers in 2^-16, and where there is none."""
    none = np.isnan(x)
    return np.clip(np.trunc(np.where(none, 0, x).astype(np.float64) * 65536), -MOST, MOST).astype(
        np.int64
    ), none


def floats(x: Array, none: Array) -> Array:
    return np.where(none, np.float32(np.nan), x.astype(np.float32) / np.float32(65536)).astype(np.float32)


def times(a: Array, b: Array) -> Array:
    return (a * b + 32768) >> 16


def half(x: Array) -> Array:
    """sigmoid(x) - 1/2, of x in 2^-16."""
    size = np.abs(x)
    i, part = np.minimum(size >> 11, 383), size & 2047
    line = TABLE[i] + (((TABLE[i + 1] - TABLE[i]) * part + 1024) >> 11)
    return np.sign(x) * np.where(size >> 11 < 384, line, 32768)


def lstm(i: Array, f: Array, g: Array, o: Array, c: Array) -> tuple[Array, Array]:
    (i, a), (f, b), (g, d), (o, e), (c, n) = (fixed(x) for x in (i, f, g, o, c))
    none = a | b | d | e | n | (np.abs(c) >= MOST)
    c = ((32768 + half(f)) * c + (32768 + half(i)) * (2 * half(2 * g)) + 32768) >> 16
    none |= np.abs(c) >= MOST
    return floats(c, none), floats(times(32768 + half(o), 2 * half(2 * c)), none)


def gru(*given: Array) -> tuple[Array]:
    (xz, xr, xg, hz, hr, hg, h), nones = zip(*map(fixed, given), strict=True)
    none = np.logical_or.reduce(nones) | (np.abs(h) >= MOST)
    z, r = 32768 + half(xz + hz), 32768 + half(xr + hr)
    g = 2 * half(2 * (xg + times(r, hg)))
    return (floats(g + times(z, h - g), none),)


def sums(x: Array, weights: Array, scales: Array, addends: list[Array]) -> Array:
    """A product of type 3: x rounded as in type 1, the rest in integers."""
    k = len(x)
    most = np.abs(x).max()
    with np.errstate(all="ignore"):
        t = np.float32(127) / most
        unit, q = most / np.float32(127), np.rint(x * t)
    if not np.isfinite(most):
        unit, q = np.float32(np.nan), np.zeros(k)
    elif not np.isfinite(t):
        unit, q = np.float32(1), np.zeros(k)
    exact = q.astype(np.int64) @ weights.astype(np.int64)
    raised = next(r for r in range(16, -1, -1) if r == 0 or k * 2**r <= 2**17)

    def parts(of: Array) -> tuple[Array, Array]:
        bits = np.asarray(of, np.float32).view(np.uint32).astype(np.int64)
        return (bits & 0x7FFFFF | 0x800000) << 8, bits >> 23 & 255

    (a, e), (b, f) = parts(unit), parts(scales)
    digits = np.array([int(a) * int(each) >> 33 for each in b], np.int64)
    high = (exact << raised) * digits >> 32
    total = np.zeros(len(b), np.int64)
    for j, (y, shift) in enumerate(zip(high.tolist(), (235 + raised - e - f).tolist(), strict=True)):
        if shift > 30:
            total[j] = 0
        elif shift > 0:
            total[j] = (y + 2 ** (shift - 1)) >> shift
        else:
            total[j] = min(max(y << min(-shift, 64), -MOST), MOST)
    none = np.full(len(b), np.isnan(unit))
    for addend in addends:
        more, missing = fixed(addend)
        total, none = total + more, none | missing
    return floats(total, none)


def by_hand(program: Program, arena: Array, units: int = UNITS) -> None:
    """The operations of a cell's program, over the words of its arena."""
    block = program.words

    def at(place: int, count: int) -> Array:
        return (block if place >> 31 else arena)[place & 0x7FFFFFFF :][:count].view(np.float32)

    held = [h for h in program.constants() if h.name.endswith("weights")]
    for name, op in program.operations():
        if name == "product":
            kind, k, n = op[1] & 255, op[2], op[3]
            assert kind == 3
            found = held.pop(0)
            assert found.step is not None
            scales = found.step[0]
            weights = np.rint(found.values / scales)
            addends = [at(place, n).copy() for place in op[9 : 9 + (op[1] >> 24)]]
            at(op[6 + 1], n)[:] = sums(at(op[6], k), weights, scales, addends)
        elif name == "LSTM fixed":
            results = lstm(*(at(place, op[1]) for place in op[2:7]))
            for place, result in zip(op[7:], results, strict=True):
                at(place, op[1])[:] = result
        elif name == "GRU fixed":
            at(op[9], op[1])[:] = gru(*(at(place, op[1]) for place in op[2:9]))[0]
        else:
            assert (name, op[1] & 255, op[2]) == ("map", 0, units)
            at(op[3], units)[:] = at(op[5], units)


def same_sums(streams: Streams, program: Program, arena: Array, when: str) -> None:
    places = {op[7]: op[3] for name, op in program.operations() if name == "product"}  # the last of each
    for place, n in places.items():
        theirs = streams.array(replace(streams.states[0], place=place, shape=(n,)))[0]
        np.testing.assert_array_equal(theirs, arena[place:][:n].view(np.float32), f"{when}, sums")


def test_the_table_is_its_formula() -> None:
    text = (HERE / "fixed.h").read_text()
    numbers = re.search(r"fixed_sigmoid\[385\] = \{([^}]+)\}", text)
    assert numbers is not None
    assert [int(n) for n in numbers[1].split(",")] == TABLE.tolist()


def test_gates_are_as_near_as_the_format_says() -> None:
    a = np.arange(-(2**21), 2**21)
    x = a / 65536
    assert np.abs((32768 + half(a)) / 65536 - 1 / (1 + np.exp(-x))).max() < 2.0**-15
    assert np.abs(2 * half(2 * a) / 65536 - np.tanh(x)).max() < 2.0**-14


@pytest.mark.parametrize("scale", [1e-39, 1e-5, 0.1, 1.0, 30.0, 3e4, 1e20])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_every_bit_is_that_of_the_integers(cell: str, scale: float, tmp_path: Path) -> None:
    path = written(cell, tmp_path)
    streams, program = opened(path), Program(path)
    arena = np.zeros(program.arena_bytes // 4, np.uint32)
    generator = np.random.default_rng(5)
    tensors = (*streams.inputs, *streams.states)
    names = {t.name: t for t in tensors}
    next_at = {
        s.name: int(program.words[int(program.words[9]) + 20 * i + 7]) for i, s in enumerate(streams.states)
    }
    for at in range(40):
        x = (generator.standard_normal(FEATURES) * scale).astype(np.float32)
        states = {s.name: streams.array(s).ravel().copy() for s in streams.states}
        if at % 4 == 3:  # what a caller may give; of h a NaN reaches all
            for state in states.values():
                state[:5] = [8191.99, -8192, 9000.0, 300.123, -1e-7]
                if at % 8 == 7:
                    state[5:7] = [np.nan, np.inf]
        if at == 20:
            x[3] = np.nan
        for name, value in (("x", x), *states.items()):
            streams.array(names[name])[...] = value
            place = names[name].place
            arena[place : place + value.size] = value.view(np.uint32)
        streams.step()
        by_hand(program, arena)
        same_sums(streams, program, arena, f"step {at}")
        for state in streams.states:
            ours = arena[next_at[state.name] :][:UNITS].view(np.float32)
            np.testing.assert_array_equal(streams.array(state).ravel(), ours, f"step {at}, {state.name}")
            streams.array(state)[...] = np.nan_to_num(ours, nan=0.25)


@pytest.mark.parametrize(("units", "features"), [(UNITS, FEATURES), (64, 1), (64, 2)])
def test_sums_of_every_size_have_every_bit(units: int, features: int, tmp_path: Path) -> None:
    """From those that are nothing to those beyond the range, a power of two at a time."""
    path = written("lstm", tmp_path, units, features)
    streams, program = opened(path), Program(path)
    generator = np.random.default_rng(6)
    arena = np.zeros(program.arena_bytes // 4, np.uint32)
    (x,) = streams.inputs
    for power in range(-60, 110):
        value = np.ldexp(generator.uniform(0.5, 1, features), power).astype(np.float32)
        for state in streams.states:
            streams.array(state)[...] = 0
        streams.array(x)[...] = value
        arena[x.place : x.place + features] = value.view(np.uint32)
        streams.step()
        by_hand(program, arena, units)
        same_sums(streams, program, arena, f"2^{power}")
        after = [streams.array(state).ravel() for state in streams.states]
        for state, mine in zip(streams.states, after, strict=True):
            place = int(program.words[int(program.words[9]) + 20 * streams.states.index(state) + 7])
            np.testing.assert_array_equal(mine, arena[place:][:units].view(np.float32), f"2^{power}")


def test_a_state_beyond_its_range_is_no_number(tmp_path: Path) -> None:
    """Rather than stay at the end of the range, where nothing would say so."""
    streams = opened(written("lstm", tmp_path))
    h, c = streams.states
    streams.array(c)[0, :3] = [8192, 8000, -8192]
    streams.step()
    assert np.isnan(streams.array(c)[0]).tolist() == [True, False, True, *[False] * (UNITS - 3)]
    assert np.isnan(streams.array(h)[0]).tolist() == np.isnan(streams.array(c)[0]).tolist()


def test_what_only_floats_have_is_refused_by_its_name() -> None:
    for name, words in (
        ("Softmax", "divide, exp, largest, subtract, sum"),
        ("MatMul", "no gates of LSTM or GRU"),
    ):
        model, spec = step(name)
        low = lowering.lower(source.read(model), spec)
        with pytest.raises(
            ExportError, match=f"the step holds {words}.*leave (int8-fixed|it) out of --quantize"
        ):
            encoding.program(low, fusing.fused(low.operations), spec, "int8-fixed", "a test", {})
