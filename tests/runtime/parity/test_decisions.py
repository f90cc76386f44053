"""What a difference of logits means, in numbers that can be checked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from steprnn.runtime.parity.decisions import Decisions, log_softmax
from steprnn.runtime.parity.profiles import Profile

ROWS = ["seed 0", "seed 1"]


def decisions(expected: Any, got: Any, x: Any = None) -> Decisions:
    """Of logits `[steps, rows, vocabulary]`; the token read is always the first, unless told."""
    expected, got = np.array(expected, np.float32), np.array(got, np.float32)
    tokens = np.zeros(expected.shape[:2]) if x is None else np.array(x)
    return Decisions.of(expected, got, tokens.astype(np.int32))


def test_log_probabilities_do_not_overflow() -> None:
    logits = np.array([[0.0, math.log(3)], [1000.0, 1000.0], [-3e38, 3e38]], np.float32)
    np.testing.assert_allclose(
        log_softmax(logits),
        [[math.log(0.25), math.log(0.75)], [math.log(0.5)] * 2, [-6e38, 0]],
        rtol=1e-6,
    )
    assert log_softmax(logits).dtype == np.float64


def test_divergence_goes_from_the_reference_to_the_candidate() -> None:
    """0.75 log(0.75 / 0.5) + 0.25 log(0.25 / 0.5), and not the other way."""
    sure, even = [math.log(3), 0.0], [0.0, 0.0]
    found = decisions([[sure, even]], [[even, sure]])
    assert found.kl[0].tolist() == pytest.approx(
        [0.75 * math.log(1.5) + 0.25 * math.log(0.5), 0.5 * math.log(2 / 3) + 0.5 * math.log(2)]
    )
    assert found.kl.shape == (1, 2)


@pytest.mark.parametrize(("gap", "agreed"), [(0.0, True), (0.049, True), (0.051, False), (0.49, False)])
def test_a_tie_is_what_the_reference_holds_to_be_within_a_twentieth_of_a_nat(
    gap: float, agreed: bool
) -> None:
    found = decisions([[[gap, 0.0, -1.0]]], [[[0.0, 5.0, 0.0]]])
    assert found.agreed.tolist() == [[agreed]]
    assert found.same.tolist() == [[False]]
    other = decisions([[[0.0, 5.0, 0.0]]], [[[gap, 0.0, -1.0]]])
    assert not other.agreed.any(), "a tie by the candidate is none"


def test_a_gap_of_just_the_tie_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steprnn.runtime.parity.decisions.TIE", 0.0)
    assert decisions([[[1.0, 1.0, 0.0]]], [[[0.0, 1.0, 0.0]]]).agreed.all()
    assert not decisions([[[1.0, 0.999, 0.0]]], [[[0.0, 1.0, 0.0]]]).agreed.any()


def test_the_same_token_is_no_disagreement_however_sure() -> None:
    found = decisions([[[9.0, 0.0]], [[0.0, 1.0]]], [[[0.1, 0.0]], [[0.0, 30.0]]])
    assert found.same.all()
    assert found.agreed.all()


def test_perplexity_is_of_the_tokens_that_follow() -> None:
    """Three steps: the token after the first is 1, and after the second 0; the last has none."""
    even = [[0.0, 0.0]]
    found = decisions(
        [even] * 3, [[[0.0, math.log(3)]], [[math.log(3), 0.0]], [[50.0, 0.0]]], [[0], [1], [0]]
    )
    assert found.perplexity == pytest.approx(0.5 / 0.75 - 1)
    worse = decisions([even] * 3, [[[math.log(3), 0.0]], even, even], [[0], [1], [0]])
    assert worse.perplexity == pytest.approx(math.sqrt(0.5 / 0.25) - 1)
    two = decisions([even * 2] * 2, [[[0.0, math.log(3)], [0.0, 0.0]], even * 2], [[0, 0], [1, 1]])
    assert two.perplexity == pytest.approx(math.sqrt(0.5 / 0.75) - 1), "the mean is over rows too"


def test_a_single_step_has_no_perplexity() -> None:
    assert decisions([[[0.0, 1.0]]], [[[5.0, 1.0]]]).perplexity == 0.0


def test_figures() -> None:
    kl = np.arange(200.0).reshape(100, 2)
    same, agreed = np.zeros((100, 2), bool), np.zeros((100, 2), bool)
    same[:20], agreed[:30] = True, True
    assert Decisions(kl, same, agreed, -0.25).figures() == {
        "mean_kl": 99.5,
        "max_kl": 199.0,
        "p99_kl": pytest.approx(197.01),
        "same_top_1": 0.2,
        "agreement": 0.3,
        "perplexity": -0.25,
    }


ONES = np.ones((2, 2), bool)


@pytest.mark.parametrize(
    ("kl", "words"),
    [
        ([[0.0, 0.0], [0.04, 0.0]], []),
        (
            [[0.0, 0.0], [0.0, 0.048]],
            ["mean KL divergence is 0.012, expected at most 0.01 (largest at step 1 of seed 1: 0.048)"],
        ),
        (
            [[0.0, 0.0], [math.nan, 5.0]],
            ["mean KL divergence is nan, expected at most 0.01 (largest at step 1 of seed 0: inf)"],
        ),
    ],
)
def test_a_divergence_in_words(kl: Any, words: list[str]) -> None:
    found = Decisions(np.array(kl), ONES, ONES, 0.0)
    assert found.failures(Profile(mean_kl=0.01), ROWS) == words
    assert found.failures(Profile(), ROWS) == []


def test_a_disagreement_in_words() -> None:
    agreed = np.array([[True, True], [True, False]])
    found = Decisions(np.zeros((2, 2)), ~ONES, agreed, 0.0)
    assert found.failures(Profile(agreement=0.75), ROWS) == []
    assert found.failures(Profile(agreement=0.76), ROWS) == [
        "same-top-1 is 0.7500 but for ties, expected at least 0.76 (first other at step 1 of seed 1)"
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (0.01, []),
        (-0.01, []),
        (0.0101, ["perplexity changes by +1.010%, expected at most 1.000%"]),
        (-0.0101, ["perplexity changes by -1.010%, expected at most 1.000%"]),
        (math.nan, ["perplexity changes by +nan%, expected at most 1.000%"]),
    ],
)
def test_a_change_of_perplexity_in_words(change: float, words: list[str]) -> None:
    assert Decisions(np.zeros((2, 2)), ONES, ONES, change).failures(Profile(perplexity=0.01), ROWS) == words


def test_all_that_is_beyond_is_told_in_order() -> None:
    found = Decisions(np.ones((2, 2)), ONES, ~ONES, 1.0)
    told = found.failures(Profile(mean_kl=0.1, agreement=0.5, perplexity=0.1), ROWS)
    assert [words.split(" is ")[0].split(" changes")[0] for words in told] == [
        "mean KL divergence",
        "same-top-1",
        "perplexity",
    ]


def test_what_is_not_finite_disagrees_and_does_not_warn() -> None:
    found = decisions([[[0.0, 1.0]], [[0.0, 1.0]]], [[[math.nan, 0.0]], [[math.inf, 0.0]]])
    assert np.isnan(found.kl).all()
    assert found.failures(Profile(mean_kl=0.1), ROWS)
