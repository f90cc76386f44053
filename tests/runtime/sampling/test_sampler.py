"""Choosing a token: each filter against a slow and obvious one, and literal cases for other languages."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from steprnn.runtime import NotFinite, Sampling, UsageError
from steprnn.runtime.sampling.batch import NO_TOKEN, RowSampler, choose_each
from steprnn.runtime.sampling.sampler import Sampler

# Halves are exact in float32 and make ties common.
logit_lists = st.lists(st.integers(-20, 20).map(lambda n: n / 2), min_size=1, max_size=30)


def as_logits(values: Sequence[float]) -> np.ndarray:
    return np.array(values, np.float32)


def reachable(values: Sequence[float], sampling: Sampling, draws: int = 300) -> set[int]:
    """Tokens that come out of many draws at a temperature so high that all that are kept are near equal."""
    sampler = Sampler(sampling, 0)
    return {sampler.choose(as_logits(values)) for _ in range(draws)}


def probabilities(values: Sequence[float], temperature: float = 1.0) -> list[float]:
    weights = [math.exp((v - max(values)) / temperature) for v in values]
    return [w / math.fsum(weights) for w in weights]


def slow_top_k(values: Sequence[float], k: int) -> set[int]:
    """The first k by logit, the lower index first among equals."""
    return set(sorted(range(len(values)), key=lambda i: (-values[i], i))[:k])


def slow_top_p(values: Sequence[float], p: float) -> set[int]:
    """The first by logit, the lower index first among equals, until together they reach p."""
    shares = probabilities(values)
    total, kept = 0.0, set()
    for i in sorted(range(len(values)), key=lambda i: (-values[i], i)):
        kept.add(i)
        total += shares[i]
        assume(abs(total - p) > 1e-4)  # float32 may fall on either side of the border
        if total >= p:
            break
    return kept


def slow_min_p(values: Sequence[float], p: float) -> set[int]:
    shares = probabilities(values)
    assume(all(abs(s / max(shares) - p) > 1e-6 for s in shares))
    return {i for i, s in enumerate(shares) if s >= p * max(shares)}


@given(logit_lists.filter(lambda values: len(values) <= 8), st.integers(1, 10))
def test_top_k(values: list[float], k: int) -> None:
    assert reachable(values, Sampling(temperature=1e3, top_k=k)) == slow_top_k(values, k)


@given(logit_lists.filter(lambda values: len(values) <= 8), st.floats(0.01, 0.99))
def test_top_p(values: list[float], p: float) -> None:
    assert reachable(values, Sampling(temperature=1e3, top_p=p)) == slow_top_p(values, p)


@given(logit_lists.filter(lambda values: len(values) <= 8), st.floats(0.001, 1.0))
def test_min_p(values: list[float], p: float) -> None:
    assert reachable(values, Sampling(temperature=1e3, min_p=p)) == slow_min_p(values, p)


@given(
    logit_lists,
    st.lists(st.integers(0, 29), max_size=12),
    st.sampled_from([0.5, 1.25, 2.0]),
    st.integers(1, 5),
)
def test_repeat_penalty(values: list[float], past: list[int], penalty: float, last_n: int) -> None:
    past = [token % len(values) for token in past]
    expected = list(values)
    for token in set(past[-last_n:]):
        expected[token] = values[token] / penalty if values[token] > 0 else values[token] * penalty
    sampler = Sampler(Sampling(repeat_penalty=penalty, repeat_last_n=last_n), 0, past)
    logits = as_logits(values)
    assert sampler.choose(logits) == expected.index(max(expected))
    assert logits.tolist() == values, "the caller's logits were changed"


def slow_choice(logits: np.ndarray, sampling: Sampling, u: float, recent: Sequence[int]) -> tuple[int, float]:
    """docs/sampling.md in plain Python and float64; also how near the draw is to a boundary."""
    z = [float(v) for v in logits]
    for token in set(recent[-sampling.repeat_last_n :] if sampling.repeat_last_n else []):
        z[token] = z[token] / sampling.repeat_penalty if z[token] > 0 else z[token] * sampling.repeat_penalty
    order = sorted(range(len(z)), key=lambda i: (-z[i], i))
    if sampling.temperature == 0:
        return order[0], 1.0
    near = 1.0
    if sampling.top_k:
        order = order[: sampling.top_k]
    if sampling.top_p < 1:
        shares = np.exp([z[i] - z[order[0]] for i in order])
        cumulative = shares.cumsum() / shares.sum()
        near = min(near, float(np.abs(cumulative - sampling.top_p).min()))
        order = order[: int((cumulative < sampling.top_p).sum()) + 1]
    if sampling.min_p:
        distances = [z[i] - z[order[0]] - math.log(sampling.min_p) for i in order]
        near = min(near, min(abs(d) for d in distances))
        order = [i for i, d in zip(order, distances, strict=True) if d >= 0]
    weights = np.exp([(z[i] - z[order[0]]) / sampling.temperature for i in order])
    cumulative = weights.cumsum() / weights.sum()
    near = min(near, float(np.abs(cumulative[:-1] - u).min(initial=1.0)))
    return order[min(int((cumulative <= u).sum()), len(order) - 1)], near


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.2, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 5, 40]),
    top_p=st.sampled_from([1.0, 0.95, 0.3]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    repeat_penalty=st.sampled_from([1.0, 1.3, 0.7]),
    repeat_last_n=st.sampled_from([0, 4, 64]),
)


@given(
    sampling=samplings,
    size=st.sampled_from([1, 2, 40, 1027]),
    scale=st.sampled_from([0.01, 0.5, 2.0, 8.0]),
    seed=st.integers(0, 2**40),
)
def test_every_choice_is_that_of_the_slow_and_obvious_sampler(
    sampling: Sampling, size: int, scale: float, seed: int
) -> None:
    """Alone, and as a row beside others; whatever the filters, the shape of the logits and the past."""
    generator = np.random.default_rng(seed)
    draws, recent = random.Random(seed), [0, size - 1]
    alone = Sampler(sampling, seed, recent)
    rows = RowSampler(sampling, [seed, seed + 1], [recent, recent], size)
    for _ in range(8):
        logits = (generator.standard_normal((2, size)) * scale).astype(np.float32)
        u = draws.random() if sampling.temperature else 0.0
        expected, near = slow_choice(logits[0], sampling, u, recent)
        token, row = alone.choose(logits[0]), int(rows.choose(np.array([0, 1]), logits)[0])
        if near < 1e-12:  # the streams part from here on
            return
        assert token == row == expected
        recent.append(token)


LAYOUTS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "flat": lambda generator: 0.01 * generator.standard_normal(300),  # many tokens are nearly equal
    "steep": lambda generator: 3 * generator.standard_normal(300),
    "every eighth": lambda generator: 0.1 * generator.standard_normal(300) + 2 * (np.arange(300) % 8 == 0),
    "all but every eighth": lambda generator: generator.standard_normal(300) + 2 * (np.arange(300) % 8 != 0),
}
FILTERS = [
    {"top_k": k, "top_p": p, "min_p": m}
    for k in (0, 3, 40)
    for p in (1.0, 0.95, 0.3)
    for m in (0.0, 0.05, 0.6)
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("temperature", [0.7, 3.0])
def test_every_filter_with_every_other_is_that_of_the_slow_and_obvious_sampler(
    layout: str, temperature: float
) -> None:
    """Where few of the likeliest are looked at first, and the token is not among them, more are."""
    for seed, filters in enumerate(FILTERS):
        sampling = Sampling(temperature=temperature, **filters)  # type: ignore[arg-type]
        generator, draws = np.random.default_rng(seed), random.Random(seed)
        alone, rows = Sampler(sampling, seed), RowSampler(sampling, [seed, seed + 1], [[], []], 300)
        for _ in range(6):
            logits = LAYOUTS[layout](generator).astype(np.float32)
            expected, near = slow_choice(logits, sampling, draws.random(), [])
            token, row = alone.choose(logits), rows.choose(np.array([0, 1]), np.stack([logits] * 2))[0]
            assert token == row == expected or near < 1e-12, filters


def test_the_shares_of_many_unlikely_tokens_do_not_drown_in_rounding() -> None:
    """A sum in float32 is off by a token here, whose share is a fifty-thousandth."""
    logits = (0.001 * np.random.default_rng(0).standard_normal(50_000)).astype(np.float32)
    order = np.argsort(-logits, kind="stable")
    weights = np.exp(logits[order].astype(np.float64) - float(logits.max()))
    for filters in ({}, {"top_k": 49_999}):
        kept = weights[: filters.get("top_k")].cumsum()
        sampler, draws = Sampler(Sampling(temperature=1.0, **filters), 3), random.Random(3)  # type: ignore[arg-type]
        for _ in range(25):
            assert sampler.choose(logits) == order[kept.searchsorted(draws.random() * kept[-1], "right")]


def test_a_token_of_just_the_least_share_is_kept() -> None:
    beyond = np.float32(-math.log(0.5))  # rounded up: 0.69314718246 of 0.69314718056
    least = float(np.nextafter(beyond, np.float32(0)))
    for filters in ({}, {"top_p": 0.999}, {"top_k": 3}, {"top_k": 3, "top_p": 0.999}):
        sampling = Sampling(temperature=1e3, min_p=0.5, **filters)  # type: ignore[arg-type]
        assert reachable([0.0, -least, -float(beyond)], sampling) == {0, 1}


class AlmostOne(random.Random):
    """The largest random number there is."""

    def random(self) -> float:
        return math.nextafter(1.0, 0.0)


def test_the_largest_random_number_draws_a_token_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """u times a sum is less than the sum, whatever it is: no draw goes beyond the last token."""
    monkeypatch.setattr(random, "Random", AlmostOne)
    u = math.nextafter(1.0, 0.0)
    for seed in range(200):
        logits = (np.random.default_rng(seed).standard_normal(60)).astype(np.float32)
        for filters in ({}, {"top_k": 50}):
            sampling = Sampling(temperature=1.0, **filters)
            expected, _ = slow_choice(logits, sampling, u, [])
            assert Sampler(sampling, 0).choose(logits) == expected


@given(
    streams=st.lists(samplings, min_size=1, max_size=4),
    size=st.sampled_from([1, 2, 40, 300]),
    seed=st.integers(0, 2**40),
)
def test_streams_of_other_samplings_are_chosen_for_together_as_each_is_alone(
    streams: list[Sampling], size: int, seed: int
) -> None:
    """Some greedy, some with a penalty, in one batch, as the server has them."""
    generator = np.random.default_rng(seed)
    together, alone = ([Sampler(s, seed + i, [0]) for i, s in enumerate(streams)] for _ in range(2))
    for _ in range(6):
        logits = generator.standard_normal((len(streams), size)).astype(np.float32)
        chosen = choose_each(together, logits.copy())
        assert chosen.shape == (len(streams),)
        assert chosen.tolist() == [sampler.choose(row) for sampler, row in zip(alone, logits, strict=True)]


@given(sampling=samplings, rows=st.integers(1, 4), seed=st.integers(0, 2**40), data=st.data())
def test_rows_that_are_left_are_chosen_for_as_each_is_alone(
    sampling: Sampling, rows: int, seed: int, data: st.DataObject
) -> None:
    """Texts end at their own time: any of the rows, in their order, and each with its own past."""
    generator = np.random.default_rng(seed)
    past = [[row, 3] for row in range(rows)]
    sampler = RowSampler(sampling, range(seed, seed + len(past)), past, 40)
    alone = [Sampler(sampling, seed + row, past[row]) for row in range(rows)]
    for _ in range(6):
        left = np.array(sorted(data.draw(st.sets(st.integers(0, rows - 1), min_size=1))))
        logits = generator.standard_normal((len(left), 40)).astype(np.float32)
        chosen = sampler.choose(left, logits)
        assert chosen.tolist() == [alone[i].choose(row) for i, row in zip(left, logits, strict=True)]


@given(logit_lists)
def test_greedy_takes_the_likeliest_and_of_equals_the_first(values: list[float]) -> None:
    for options in ({}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.5}):
        assert Sampler(Sampling(**options), 0).choose(as_logits(values)) == values.index(max(values))


@pytest.mark.parametrize("temperature", [5e-324, 1e-308, 1e-45, 1e-30, 1e-7])
def test_a_temperature_next_to_zero_is_greedy(temperature: float) -> None:
    sampler = Sampler(Sampling(temperature=temperature), 0)
    assert [sampler.choose(as_logits([-30.0, 20.0, 19.5])) for _ in range(20)] == [1] * 20


@pytest.mark.parametrize(("temperature", "tokens"), [(1e-6, {0, 1}), (9.9e-7, {0})])
def test_the_least_temperature_draws_among_equals_and_below_it_nothing_does(
    temperature: float, tokens: set[int]
) -> None:
    assert reachable([2.0, 2.0, 1.9], Sampling(temperature=temperature)) == tokens


def test_the_largest_temperature_draws_evenly() -> None:
    sampler = Sampler(Sampling(temperature=1000.0), 0)
    assert {sampler.choose(as_logits([-30.0, 20.0, 19.5])) for _ in range(50)} == {0, 1, 2}


@given(logit_lists, st.integers(0, 2**64), st.integers(1, 5))
def test_a_seed_gives_the_same_tokens_again(values: list[float], seed: int, k: int) -> None:
    sampling = Sampling(temperature=1.0, top_k=k, top_p=0.95, min_p=0.01, repeat_penalty=1.2)
    first, second = (Sampler(sampling, seed) for _ in range(2))
    logits = as_logits(values)
    assert [first.choose(logits) for _ in range(20)] == [second.choose(logits) for _ in range(20)]


@pytest.mark.parametrize(
    ("logits", "penalty", "recent", "token"),
    [
        ([2.0, 2.2], 1.1, [1], 1),  # 2.2 / 1.1 is 2.00000004 of the float32 nearest to 2.2
        ([2.2, 2.0], 1.1, [0], 0),
        ([1.0, 3.0], 3.0, [1], 0),  # equal, and the first comes first
        ([-3.0, -1.0], 3.0, [1], 0),
        ([0.3, 0.1], 3.0, [0], 0),  # 0.10000000397 is above 0.10000000149
        ([3e38, 1.0], 0.01, [0], 0),  # beyond float32, and no infinity
        ([3e38, 2.9e38], 0.01, [0, 1], 0),
    ],
)
def test_a_penalised_logit_is_not_rounded(
    logits: list[float], penalty: float, recent: list[int], token: int
) -> None:
    sampling = Sampling(repeat_penalty=penalty)
    given_logits = as_logits(logits)
    exact = [float(v) for v in given_logits]
    for i in recent:
        exact[i] = exact[i] / penalty if exact[i] > 0 else exact[i] * penalty
    assert exact.index(max(exact)) == token
    assert Sampler(sampling, 0, recent).choose(given_logits) == token
    rows = RowSampler(sampling, [0, 1], [recent, []], 2)
    assert rows.choose(np.array([0]), given_logits[np.newaxis]).tolist() == [token]
    each = [Sampler(sampling, 0, recent), Sampler(Sampling(), 0)]
    assert choose_each(each, np.stack([given_logits] * 2)).tolist()[0] == token


@pytest.mark.parametrize("size", [1_000, 50_000])
def test_the_kept_set_is_that_of_float64(size: int) -> None:
    """The sum of 50,000 float32 shares is off by more than some of them."""
    for seed in range(40):
        generator = np.random.default_rng(seed)
        logits = (generator.standard_normal(size) * 2).astype(np.float32)
        top_p = float(generator.uniform(0.05, 0.999))
        sampler = Sampler(Sampling(temperature=1.0, top_p=top_p), 0)
        sampler._allocate(size)
        _, kept = sampler._kept(logits, logits, int(logits.argmax()))
        order = np.argsort(-logits.astype(np.float64), kind="stable")
        shares = np.exp(logits[order].astype(np.float64) - float(logits.max())).cumsum()
        assert kept.tolist() == order[: int((shares < top_p * shares[-1]).sum()) + 1].tolist()


def test_seeds_differ() -> None:
    logits = np.zeros(1000, np.float32)
    assert len({Sampler(Sampling(temperature=1.0), seed).choose(logits) for seed in range(20)}) > 15


def test_the_share_of_each_token_is_its_probability() -> None:
    values = [0.0, 1.0, 2.0]
    sampler = Sampler(Sampling(temperature=0.5), 0)
    drawn = [sampler.choose(as_logits(values)) for _ in range(20_000)]
    for token, expected in enumerate(probabilities(values, 0.5)):
        # four standard deviations of a share over 20,000 draws are at most 0.0142
        assert abs(drawn.count(token) / len(drawn) - expected) < 0.0142


def test_the_penalty_comes_before_top_k() -> None:
    sampling = Sampling(temperature=1e3, top_k=1, repeat_penalty=10.0)
    assert Sampler(sampling, 0, [0]).choose(as_logits([5.0, 4.0, 1.0])) == 1


def test_top_k_comes_before_top_p() -> None:
    """Of all four, 0.5 needs two; of the two that top-k leaves, whose shares have grown, only one."""
    values = [math.log(0.4), math.log(0.3), math.log(0.2), math.log(0.1)]
    assert reachable(values, Sampling(temperature=1e3, top_p=0.5)) == {0, 1}
    assert reachable(values, Sampling(temperature=1e3, top_k=2, top_p=0.5)) == {0}


def test_temperature_comes_after_the_filters() -> None:
    """At temperature 1000 first, all shares would be near equal and every filter would keep more."""
    values = [math.log(0.6), math.log(0.3), math.log(0.1)]
    assert reachable(values, Sampling(temperature=1e3, top_p=0.5)) == {0}
    assert reachable(values, Sampling(temperature=1e3, min_p=0.4)) == {0, 1}


def test_recent_tokens_are_those_given_and_those_chosen() -> None:
    sampler = Sampler(Sampling(repeat_penalty=10.0, repeat_last_n=2), 0, [2])
    logits = as_logits([3.0, 2.0, 4.0, 1.0])
    assert [sampler.choose(logits) for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_a_token_that_is_no_longer_recent_has_its_own_logit_again() -> None:
    """One of both signs: what a positive logit is multiplied by is not what a negative one is."""
    sampling = Sampling(repeat_penalty=2.0, repeat_last_n=1)
    for values, tokens in (([-1.0, -1.05], [0, 1, 0, 1]), ([1.05, 1.0], [0, 1, 0, 1])):
        logits = as_logits([values, values])
        alone, rows = Sampler(sampling, 0), RowSampler(sampling, [0, 1], [[], []], 2)
        each = [Sampler(sampling, 0), Sampler(Sampling(), 0)]
        assert [alone.choose(logits[0]) for _ in range(4)] == tokens
        assert [rows.choose(np.arange(2), logits).tolist() for _ in range(4)] == [[t, t] for t in tokens]
        assert [choose_each(each, logits).tolist() for _ in range(4)] == [[t, 0] for t in tokens]


def test_a_token_is_recent_until_its_last_place_is_forgotten() -> None:
    """Twice among the latest three: forgotten once, it is still there."""
    sampler = Sampler(Sampling(repeat_penalty=2.0, repeat_last_n=3), 0, [0, 1, 0])
    assert [sampler.choose(as_logits([3.0, 3.2, 2.0])) for _ in range(4)] == [2, 1, 1, 0]


LOGITS = [1.5, -0.5, 2.0, 0.25, 1.75, -2.0, 0.0, 1.0]
PAST = (2, 4)
GOLDEN = [
    (Sampling(), 0, [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]),
    (Sampling(temperature=1.0), 0, [7, 7, 4, 2, 4, 4, 7, 2, 4, 0, 3, 4, 2, 7, 0, 2]),
    (Sampling(temperature=1.0), 7, [4, 2, 0, 2, 4, 4, 2, 4, 2, 4, 2, 2, 4, 7, 2, 2]),
    (Sampling(temperature=0.5), 7, [2, 2, 4, 2, 4, 2, 2, 4, 2, 2, 2, 2, 2, 0, 2, 2]),
    (Sampling(temperature=2.0, top_k=3), 42, [4, 2, 2, 2, 0, 4, 0, 2, 4, 2, 2, 4, 2, 2, 4, 4]),
    (Sampling(temperature=2.0, top_p=0.8), 42, [0, 2, 2, 2, 0, 0, 7, 2, 4, 2, 2, 4, 2, 2, 0, 4]),
    (Sampling(temperature=2.0, min_p=0.15), 42, [0, 2, 4, 2, 7, 0, 3, 2, 4, 2, 2, 4, 2, 2, 0, 0]),
    (
        Sampling(temperature=1.5, top_k=5, top_p=0.9, min_p=0.05, repeat_penalty=1.3, repeat_last_n=3),
        1,
        [2, 7, 4, 2, 0, 4, 0, 0, 2, 4, 7, 0, 0, 2, 2, 0],
    ),
    (Sampling(repeat_penalty=1.5), 0, [0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]),
    (Sampling(repeat_penalty=3.0, repeat_last_n=2), 0, [0, 2, 4, 0, 2, 4, 0, 2, 4, 0, 2, 4, 0, 2, 4, 0]),
    (Sampling(temperature=1.0), 2**32 + 5, [2, 2, 0, 2, 0, 7, 6, 0, 4, 4, 7, 7, 2, 0, 7, 3]),
]


@pytest.mark.parametrize(("sampling", "seed", "tokens"), GOLDEN)
def test_literal_tokens(sampling: Sampling, seed: int, tokens: list[int]) -> None:
    sampler = Sampler(sampling, seed, PAST)
    assert [sampler.choose(as_logits(LOGITS)) for _ in range(16)] == tokens


class Halves(random.Random):
    """Random numbers that are all a half: on the very boundary between two equal tokens."""

    def random(self) -> float:
        return 0.5


def test_a_draw_on_the_boundary_is_that_of_the_next_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first whose cumulative weight is above u times the sum, and not the one that equals it."""
    monkeypatch.setattr(random, "Random", Halves)
    for options in ({}, {"top_k": 2}, {"top_p": 0.99}, {"min_p": 0.5}):
        sampling = Sampling(temperature=1.0, **options)  # type: ignore[arg-type]
        logits = np.array([[1.0, 1.0]] * 2, np.float32)
        alone, rows = Sampler(sampling, 0), RowSampler(sampling, [0, 1], [[], []], 2)
        each = [Sampler(sampling, 0), Sampler(sampling, 1)]
        for _ in range(2):
            assert alone.choose(logits[0]) == 1
            assert rows.choose(np.arange(2), logits).tolist() == [1, 1]
            assert choose_each(each, logits).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("seed", "second", "token"),
    [(1424, 0.5002600421204506, 1), (2002, 0.5002834373979512, 1), (5742, 0.49986678912335303, 0)],
)
def test_a_draw_next_to_the_boundary_falls_on_its_own_side(seed: int, second: float, token: int) -> None:
    """Of two equal tokens the first is drawn below a half; from the second draw on by a shorter way."""
    numbers, logits = random.Random(seed), as_logits([2.0, 2.0])
    assert [numbers.random(), numbers.random()][1] == second
    sampling = Sampling(temperature=1.0)
    alone, rows = Sampler(sampling, seed), RowSampler(sampling, [seed], [[]], 2)
    for _ in range(2):
        drawn = [alone.choose(logits), *rows.choose(np.array([0]), logits[np.newaxis])]
    assert drawn == [token, token]


def test_literal_random_numbers() -> None:
    """What a Mersenne Twister seeded as Python's must give first, and what `choose` draws with."""
    assert random.Random(0).random() == 0.8444218515250481
    assert random.Random(7).random() == 0.32383276483316237
    assert random.Random(2**32 + 5).random() == 0.15727238718789782  # a key of two words


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("temperature", -0.1, "a number from 0 to 1000"),
        ("temperature", 1000.1, "a number from 0 to 1000"),
        ("temperature", math.inf, "a number from 0 to 1000"),
        ("temperature", math.nan, "a number from 0 to 1000"),
        ("temperature", "1", "a number from 0 to 1000"),
        ("top_k", -1, "a whole number from 0 to 2147483647"),
        ("top_k", 2**31, "a whole number from 0 to 2147483647"),
        ("top_k", 2.5, "a whole number from 0 to 2147483647"),
        ("top_p", 0.0, "a number above 0 and at most 1"),
        ("top_p", 1.1, "a number above 0 and at most 1"),
        ("top_p", math.nan, "a number above 0 and at most 1"),
        ("min_p", -0.1, "a number from 0 to 1"),
        ("min_p", 1.1, "a number from 0 to 1"),
        ("repeat_penalty", 0.0099, "a number from 0.01 to 100"),
        ("repeat_penalty", 100.1, "a number from 0.01 to 100"),
        ("repeat_penalty", math.inf, "a number from 0.01 to 100"),
        ("repeat_last_n", -1, "a whole number from 0 to 2147483647"),
        ("repeat_last_n", 2**63, "a whole number from 0 to 2147483647"),  # more than a deque can be told
        ("repeat_last_n", None, "a whole number from 0 to 2147483647"),
    ],
)
def test_a_value_outside_its_range_is_refused(name: str, value: object, expected: str) -> None:
    with pytest.raises(UsageError) as raised:
        Sampling(**{name: value})  # type: ignore[arg-type]
    assert str(raised.value) == f"{name} is {value!r}; expected {expected}"


@pytest.mark.parametrize("seed", [-1, 1.0, "7", None])
def test_a_seed_that_is_none_is_refused(seed: object) -> None:
    with pytest.raises(UsageError) as raised:
        Sampler(Sampling(), seed)  # type: ignore[arg-type]
    assert str(raised.value) == f"seed is {seed!r}; expected a whole number, at least 0"


EDGES = [
    Sampling(t, k, p, m, r, n)
    for t in (0.0, 5e-324, 1e-6, 1000.0)
    for k in (0, 1, 2**31 - 1)
    for p in (5e-324, 0.5, math.nextafter(1.0, 0.0), 1.0)
    for m in (0.0, 5e-324, 1.0)
    for r, n in ((0.01, 2**31 - 1), (100.0, 2**31 - 1), (1.0, 0))
]


@pytest.mark.parametrize("scale", [1.0, 1e30, 1e-44])
def test_every_parameter_at_its_ends_chooses_a_token_that_is_there(scale: float) -> None:
    """No legal request may make a row without a token: the server steps it with those of others."""
    logits = np.array([0.5, -3.0, 2.0, 2.0, 1e-3] * 9, np.float32) * np.float32(scale)
    for sampling in EDGES:
        with np.errstate(over="ignore"):  # of logits that no model gives
            sampler, rows = Sampler(sampling, 3, [2, 3]), RowSampler(sampling, [3], [[2, 3]], len(logits))
            alone = [sampler.choose(logits) for _ in range(4)]
            assert all(0 <= token < len(logits) for token in alone)
            assert [int(rows.choose(np.array([0]), logits[None])[0]) for _ in range(4)] == alone


NOT_FINITE = {
    "nan": [1.0, math.nan, 3.0],
    "inf": [1.0, math.inf, 3.0],
    "-inf": [-math.inf] * 3,  # every token is banned
}


@pytest.mark.parametrize("top", NOT_FINITE)
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=1.0),
        Sampling(temperature=1.0, top_k=2),
        Sampling(temperature=1.0, top_p=0.9),
        Sampling(temperature=1.0, min_p=0.1),
        Sampling(temperature=1.0, repeat_penalty=1.3),
        Sampling(repeat_penalty=0.7),
    ],
)
def test_logits_that_are_no_numbers_have_no_token(top: str, sampling: Sampling) -> None:
    logits = as_logits(NOT_FINITE[top] * 20)
    good = as_logits([1.0, 2.0, 3.0] * 20)
    sampler, rows = Sampler(sampling, 0, [0]), RowSampler(sampling, [0, 1], [[0], [0]], 60)
    for _ in range(2):  # the second time there is room for weights
        with pytest.raises(NotFinite) as raised:
            sampler.choose(logits)
        assert raised.value.what == f"the largest logit is {top}"
        with pytest.raises(NotFinite, match=f"the largest logit is {top};"):
            rows.choose(np.arange(2), np.stack([good, logits]))
        assert 0 <= sampler.choose(good) < 60


@given(
    streams=st.lists(samplings, min_size=1, max_size=5),
    bad=st.sets(st.integers(0, 4)),
    top=st.sampled_from(sorted(NOT_FINITE)),
)
def test_a_row_without_a_token_leaves_the_others_theirs(
    streams: list[Sampling], bad: set[int], top: str
) -> None:
    generator = np.random.default_rng(len(bad))
    together, alone = ([Sampler(s, i, [0]) for i, s in enumerate(streams)] for _ in range(2))
    for _ in range(4):
        logits = generator.standard_normal((len(streams), 60)).astype(np.float32)
        for row in bad & set(range(len(streams))):
            logits[row] = NOT_FINITE[top] * 20
        chosen = choose_each(together, logits.copy()).tolist()
        for i, token in enumerate(chosen):
            assert token == (NO_TOKEN if i in bad else alone[i].choose(logits[i]))


def test_a_token_that_the_graph_bans_is_not_drawn() -> None:
    logits = as_logits([-math.inf, 1.0, -math.inf, 1.0])
    for options in ({}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}, {"repeat_penalty": 1.2}):
        sampler = Sampler(Sampling(temperature=1.0, **options), 0)  # type: ignore[arg-type]
        assert {sampler.choose(logits) for _ in range(60)} == {1, 3}


def test_values_at_the_ends_of_their_ranges_mean_off() -> None:
    make: Callable[..., Sampler] = lambda **options: Sampler(Sampling(temperature=1.0, **options), 3)  # noqa: E731
    logits = as_logits(LOGITS)
    plain = [make().choose(logits)]
    for off in ({"top_k": 0}, {"top_k": 99}, {"top_p": 1.0}, {"min_p": 0.0}, {"repeat_penalty": 1.0}):
        assert [make(**off).choose(logits)] == plain
