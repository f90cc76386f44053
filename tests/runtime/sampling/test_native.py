"""The interpreter's sampler chooses what docs/sampling.md and Python's choose."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steprnn.runtime import Model, NotFinite, Sampling
from steprnn.runtime.engines import native
from steprnn.runtime.engines.native.text import NativeRows, NativeSampler, _Settings
from steprnn.runtime.sampling.batch import NO_TOKEN, choose_each
from steprnn.runtime.sampling.sampler import Sampler

DOCUMENT = Path(__file__).parents[3] / "docs" / "sampling.md"
ROW = re.compile(r"^\| (all off|`.*?) \| ?(\d*) ?\| ([\d ]+) \|$", re.M)
GOLDEN = ROW.findall(DOCUMENT.read_text(encoding="utf-8"))


def test_the_document_has_them() -> None:
    assert len(GOLDEN) == 12


def test_it_knows_every_option_that_python_has() -> None:
    """One that it did not know would be left out of a text without a word."""
    assert {name for name, _ in _Settings._fields_} == {field.name for field in fields(Sampling)}


@pytest.mark.parametrize(("told", "seed", "tokens"), GOLDEN)
def test_the_golden_cases_of_the_document(told: str, seed: str, tokens: str) -> None:
    logits = np.array([((37 * i) % 101) / 8 - 6 for i in range(20)], np.float32)
    options: dict[str, Any] = {name: float(n) for name, n in re.findall(r"`(\w+)` ([\d.]+)", told)}
    for name in ("top_k", "repeat_last_n"):
        options |= {name: int(options[name])} if name in options else {}
    sampler = NativeSampler(Sampling(**options), int(seed or 0), [9, 19], 20)
    assert [sampler.choose(logits) for _ in range(10)] == [int(n) for n in tokens.split()]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.8},
        {"temperature": 1.3, "top_k": 40},
        {"temperature": 1.0, "top_p": 0.9},
        {"temperature": 2.0, "min_p": 0.05},
        {"temperature": 0.9, "top_k": 50, "top_p": 0.95, "min_p": 0.02, "repeat_penalty": 1.3},
        {"repeat_penalty": 1.7, "repeat_last_n": 5},
        {"temperature": 1000.0},
    ],
    ids=str,
)
def test_it_draws_what_python_draws(options: dict[str, Any]) -> None:
    generator = np.random.default_rng(4)
    sampling, seed = Sampling(**options), 2**40 + 3
    ours, theirs = NativeSampler(sampling, seed, [1, 2], 300), Sampler(sampling, seed, [1, 2])
    for _ in range(500):
        logits = (3 * generator.standard_normal(300)).astype(np.float32)
        assert ours.choose(logits) == theirs.choose(logits)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.0},
        {"temperature": 0.9, "top_k": 50, "top_p": 0.95, "min_p": 0.02, "repeat_penalty": 1.3},
    ],
    ids=str,
)
def test_rows_choose_what_each_does_alone(options: dict[str, Any]) -> None:
    """Of all rows or some, in one call, and beside rows that Python chooses for; one ends without a token."""
    generator, seeds = np.random.default_rng(5), range(2**33, 2**33 + 7)
    sampling, past = Sampling(**options), [[i, 2 * i + 1] for i in range(7)]
    rows = NativeRows(sampling, seeds, past, 200)
    alone, beside = ([Sampler(sampling, s, t) for s, t in zip(seeds, past, strict=True)] for _ in range(2))
    mixed = [
        NativeSampler(sampling, s, t, 200) if i % 2 else beside[i]
        for i, (s, t) in enumerate(zip(seeds, past, strict=True))
    ]
    for turn in range(200):
        logits = (3 * generator.standard_normal((7, 200))).astype(np.float32)
        some = np.arange(7) if turn % 3 else np.array([1, 2, 5])
        given = logits[some] if turn % 2 else np.asfortranarray(logits[some])
        expected = [alone[row].choose(logits[row]) for row in some]
        assert rows.choose(some, given).tolist() == expected
        assert choose_each([mixed[row] for row in some], given).tolist() == expected
    logits[2] = np.nan
    logits[5] = -np.inf
    expected = [NO_TOKEN if row in (2, 5) else alone[row].choose(logits[row]) for row in range(7)]
    assert choose_each(mixed, logits).tolist() == expected
    with pytest.raises(NotFinite, match="the largest logit is nan"):
        rows.choose(np.arange(7), logits)


@pytest.mark.parametrize("options", [{}, {"top_p": 0.7}, {"repeat_penalty": 1.3, "min_p": 0.2}], ids=str)
def test_it_draws_what_python_draws_of_a_large_vocabulary(options: dict[str, Any]) -> None:
    """Of more tokens than one sum in float32 adds up."""
    generator, size = np.random.default_rng(7), 50_001
    sampling = Sampling(temperature=0.8, **options)
    ours, theirs = NativeSampler(sampling, 3, [4, 50_000], size), Sampler(sampling, 3, [4, 50_000])
    for spread in (1.0, 3.0, 10.0):
        for _ in range(10):
            logits = (spread * generator.standard_normal(size)).astype(np.float32)
            assert ours.choose(logits) == theirs.choose(logits)


def test_it_reads_logits_where_they_are() -> None:
    """An array that changes, as that of a runner does, and one whose numbers are apart."""
    generator, sampling = np.random.default_rng(6), Sampling(temperature=1.0)
    table = np.zeros((40, 3), np.float32)
    for logits in (np.zeros(40, np.float32), table[:, 1]):
        ours, theirs = NativeSampler(sampling, 3, [], 40), Sampler(sampling, 3)
        for _ in range(100):
            logits[:] = 3 * generator.standard_normal(40)
            assert ours.choose(logits) == theirs.choose(logits)


@pytest.mark.parametrize("engine", ["litert", "onnx"])
def test_the_text_of_a_seed_is_that_without_the_library(
    models: dict[str, Model], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models[engine]
    options: list[dict[str, Any]] = [
        {},
        {"temperature": 1.5},
        {"temperature": 1.5, "top_k": 9, "top_p": 0.9, "min_p": 0.02, "repeat_penalty": 1.2},
        {"temperature": 1.5, "repeat_penalty": 1.2, "repeat_last_n": 2**31 - 1},
        {"temperature": 1.5, "seed": 2**70},
    ]

    def texts() -> list[Any]:
        return [
            [
                model.generate("分开", 80, **({"seed": 9} | one)),
                model.generate("分开", 80, n=3, **({"seed": 9} | one)),
            ]
            for one in options
        ]

    assert native.is_ready()  # it was built for the tests above
    made: list[int] = []
    for kind in (NativeSampler, NativeRows):
        begin = kind.__init__

        def counted(self: Any, *given: Any, begin: Any = begin) -> None:
            made.append(1)
            begin(self, *given)

        monkeypatch.setattr(kind, "__init__", counted)
    with_it = texts()
    assert len(made) == 4 + 3 + 3 * 3, "one text, and three rows of a batch but greedy, for all that it can"
    monkeypatch.setattr(native, "is_ready", lambda: False)
    assert texts() == with_it
    assert len(made) == 16


@pytest.mark.parametrize("off", [-1e-9, 1e-9])
def test_a_boundary_that_float32_does_not_tell_is_looked_at_in_float64(off: float) -> None:
    generator = np.random.default_rng(2)
    for seed in range(40):
        logits = generator.standard_normal(12).astype(np.float32)
        inside = np.sort(logits.astype(np.float64))[::-1][:8]
        sums = np.cumsum(np.exp(inside - inside[0]))
        kept = float(np.exp(inside[4] - inside[0])) + off
        for filters in ({"top_p": sums[4] / sums[-1] + off}, {"min_p": kept}):
            sampling = Sampling(temperature=100.0, top_k=8, **filters)
            ours, theirs = NativeSampler(sampling, seed, [], 12), Sampler(sampling, seed, [])
            for _ in range(40):
                assert ours.choose(logits) == theirs.choose(logits)


@pytest.mark.parametrize("size", [1, 63, 64, 969, 5000])
@pytest.mark.parametrize("order", ["C", "F"])
def test_log_probabilities_are_right_to_a_millionth(size: int, order: Any) -> None:
    generator = np.random.default_rng(size)
    spreads = np.array([[1e-3], [1.0], [5.0], [40.0], [1e4]])
    logits = (spreads * generator.standard_normal((5, size))).astype(np.float32)
    logits[1, 1:] = -np.inf
    tokens = generator.integers(0, size, 5)
    tokens[1] = 0
    found = native.log_probabilities(np.asarray(logits, order=order), tokens)
    wide = logits.astype(np.float64)
    top = wide.max(axis=1, keepdims=True)
    exact = wide - top - np.log(np.exp(wide - top).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, exact[np.arange(5), tokens], rtol=0, atol=1e-6)


def test_log_probabilities_of_no_numbers_are_none() -> None:
    logits = np.zeros((6, 70), np.float32)
    logits[1, 3], logits[2, 69], logits[3, 65], logits[4] = np.nan, np.inf, -np.inf, -np.inf
    logits[5, 2] = 3e38
    found = native.log_probabilities(logits, [0, 0, 69, 65, 0, 2])
    np.testing.assert_array_equal(found[1:], [np.nan, np.nan, -np.inf, np.nan, 0])
    assert found[0] == pytest.approx(-np.log(70), abs=1e-6)


LOGIT = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 2.0, 2.2, -np.inf, 3e38, -3e38, 1e-40, 17.25]),
    st.floats(-30, 30, width=32),
    st.floats(-1e5, 1e5, width=32),
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    logits=st.lists(LOGIT, min_size=1, max_size=90),
    copies=st.integers(1, 4),
    recent=st.lists(st.integers(0, 89), max_size=9),
    options=st.fixed_dictionaries(
        {
            "temperature": st.sampled_from([0.0, 1e-6, 0.05, 0.7, 1.0, 3.0, 1000.0]),
            "top_k": st.sampled_from([0, 0, 1, 4, 70, 2**31 - 1]),
            "top_p": st.sampled_from([1.0, 1.0, 0.9999, 0.9, 0.1, 1e-9]),
            "min_p": st.sampled_from([0.0, 0.0, 1e-5, 0.05, 0.5, 1.0]),
            "repeat_penalty": st.sampled_from([1.0, 1.0001, 1.3, 100.0, 0.01]),
            "repeat_last_n": st.sampled_from([0, 1, 3, 50]),
        }
    ),
    seed=st.integers(0, 2**64 - 1),
    level=st.integers(0, 5),
)
def test_it_draws_what_python_draws_at_the_edges(
    logits: list[float], copies: int, recent: list[int], options: dict[str, Any], seed: int, level: int
) -> None:
    array = np.tile(np.array(logits, np.float32), copies)
    recent = [token for token in recent if token < len(array)]
    ours = NativeSampler(Sampling(**options), seed, recent, len(array))
    ours.struct.kernels = min(level, ours.struct.kernels)
    theirs = Sampler(Sampling(**options), seed, recent)
    for turn in range(12):
        rolled = np.roll(array, turn % 3)
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # -inf and 3e38 at a low temperature
                expected = theirs.choose(rolled)
        except NotFinite:
            with pytest.raises(NotFinite, match="the largest logit is"):
                ours.choose(rolled)
            return
        assert ours.choose(rolled) == expected


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "top_k": 1}], ids=str)
def test_what_a_penalty_told_apart_is_not_equal_once_rounded(options: dict[str, Any]) -> None:
    logits = np.array([2, 2.2, 2], np.float32)  # 2.2 / 1.1 is 2 in float32, and a little more in float64
    for recent, best in (([1], 1), ([], 1), ([0, 1], 1)):
        sampling = Sampling(repeat_penalty=1.1, repeat_last_n=2, **options)
        chosen = [NativeSampler(sampling, seed, recent, 3).choose(logits) for seed in range(9)]
        assert chosen == [Sampler(sampling, seed, recent).choose(logits) for seed in range(9)] == 9 * [best]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(bad: float) -> None:
    logits = np.zeros(5, np.float32)
    logits[3] = bad
    with pytest.raises(NotFinite, match="the largest logit is"):
        NativeSampler(Sampling(temperature=1.0), 0, [], 5).choose(logits)
    logits[3] = -np.inf
    sampler = NativeSampler(Sampling(temperature=1000.0), 0, [], 5)
    assert 3 not in {sampler.choose(logits) for _ in range(200)}
