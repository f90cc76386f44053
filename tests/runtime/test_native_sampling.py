"""The interpreter's sampler chooses what docs/sampling.md and Python's choose."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import Sampling
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


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(bad: float) -> None:
    logits = np.zeros(5, np.float32)
    logits[3] = bad
    with pytest.raises(ValueError, match="the largest logit is not finite"):
        NativeSampler(Sampling(temperature=1.0), 0, [], 5).choose(logits)
    logits[3] = -np.inf
    sampler = NativeSampler(Sampling(temperature=1000.0), 0, [], 5)
    assert 3 not in {sampler.choose(logits) for _ in range(200)}
