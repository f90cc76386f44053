"""The interpreter's sampler chooses what docs/sampling.md and Python's choose."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steprnn.runtime import NotFinite, Sampling
from steprnn.runtime.engines.native.text import NativeSampler
from steprnn.runtime.sampling import Sampler

DOCUMENT = Path(__file__).parents[2] / "docs" / "sampling.md"
ROW = re.compile(r"^\| (all off|`.*?) \| ?(\d*) ?\| ([\d ]+) \|$", re.M)
GOLDEN = ROW.findall(DOCUMENT.read_text(encoding="utf-8"))


def test_the_document_has_them() -> None:
    assert len(GOLDEN) == 12


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
            with pytest.raises(ValueError, match="is not finite"):
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
    with pytest.raises(ValueError, match="the largest logit is not finite"):
        NativeSampler(Sampling(temperature=1.0), 0, [], 5).choose(logits)
    logits[3] = -np.inf
    sampler = NativeSampler(Sampling(temperature=1000.0), 0, [], 5)
    assert 3 not in {sampler.choose(logits) for _ in range(200)}
