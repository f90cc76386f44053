"""Each limit is what docs/parity.md says, and is judged: just inside it passes, just outside it fails."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from steprnn.runtime import StepSpec
from steprnn.runtime.bundle.manifest import VARIANTS
from steprnn.runtime.parity import decisions, levels, mutants, profiles
from steprnn.runtime.parity.measure import Measures, measure
from steprnn.runtime.parity.profiles import PROFILES, Profile
from steprnn.runtime.parity.reference import Arrays, Reference
from steprnn.runtime.spec import TensorSpec

DOCUMENT = (Path(__file__).parents[3] / "docs" / "parity.md").read_text(encoding="utf-8")
STEPS, TOKENS = 200, 21
X, H, Y = (
    TensorSpec("x", "int32", (), TOKENS),
    TensorSpec("h", "float32", (8,)),
    TensorSpec("y", "float32", (21,)),
)
LANGUAGE = StepSpec((X,), (H,), (Y,))
SIGNAL = StepSpec((TensorSpec("x", "float32", (4,)),), (H,), (TensorSpec("y", "float32", (2,)),))
QUANTIZED = ("float16", "int8", "int8-weights", "int16x8", "int8-fixed")

# Rows of the table of profiles -> the limit that each is.
ROWS = {
    "largest error of any result at any step": "units",
    "same-top-1 but for ties": "agreement",
    "mean KL divergence from the oracle, nats": "mean_kl",
    "change of the perplexity of the run's own text": "perplexity",
    "rms error over rms, of any state": "relative",
    "the same, of an output that is not logits": "signal",
    "growth of the error": "growth",
    "mean error of an output over its standard deviation": "spread",
    "largest error from the oracle of its own weights": "own",
}


def number(cell: str) -> float | None:
    """`8 u`, `95 %`, `1e-4`; None where nothing is judged."""
    if cell in ("", "not judged"):
        return None
    value = Decimal(cell.removesuffix(" u").removesuffix(" %"))
    return float(value / 100 if cell.endswith("%") else value)


def documented() -> dict[str, dict[str, float | None]]:
    """The table of profiles: variant -> limit -> number."""
    table = DOCUMENT.split("## The profiles\n\n")[1].split("\n\n")[0]
    (_, *variants), _, *lines = ([c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines())
    assert [line[0] for line in lines] == list(ROWS)
    return {
        variant: {ROWS[line[0]]: number(line[1 + i]) for line in lines}
        for i, cell in enumerate(variants)
        for variant in cell.split(", ")
    }


def test_the_limits_are_those_of_the_document() -> None:
    table = documented()
    assert sorted(table) == sorted(PROFILES)
    assert tuple(PROFILES) == VARIANTS
    beside = {"rounds": None}
    for variant, limits in table.items():
        assert asdict(PROFILES[variant]) | beside == limits | beside, variant
    assert [name for name, p in PROFILES.items() if p.rounds] == ["int8", "int8-fixed"]


def test_the_limits_are_literally_these() -> None:
    """Whoever moves one has to move it here, and in the document with its reason."""
    assert asdict(PROFILES["float32"]) == {
        "units": 8.0,
        "mean_kl": None,
        "agreement": 1.0,
        "perplexity": None,
        "relative": None,
        "signal": None,
        "growth": None,
        "spread": None,
        "own": None,
        "rounds": False,
    }
    quantized = {"units": None}
    assert asdict(PROFILES["float16"]) == quantized | {
        "mean_kl": 0.0001,
        "agreement": 0.99,
        "perplexity": 0.001,
        "relative": 0.01,
        "signal": 0.005,
        "growth": 4.0,
        "spread": None,
        "own": 8.0,
        "rounds": False,
    }
    int8 = quantized | {
        "mean_kl": 0.01,
        "agreement": 0.95,
        "perplexity": 0.01,
        "relative": 0.15,
        "signal": 0.05,
        "growth": 8.0,
        "spread": None,
    }
    assert asdict(PROFILES["int8"]) == int8 | {"own": 3.0, "rounds": True}
    assert asdict(PROFILES["int8-weights"]) == int8 | {"own": 8.0, "rounds": False}
    states = {"growth": 4.0, "spread": 0.01, "own": None, "rounds": False}
    assert asdict(PROFILES["int16x8"]) == int8 | states


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (r"to be within ([\d.]+) nats of its best", (decisions.TIE,)),
        (r"are not judged on fewer than (\d+) steps", (profiles.ENOUGH,)),
        (r"cut from the run at different steps, stepped together for (\d+) steps", (levels.BATCH_STEPS,)),
        (r"judged over (\d+) steps by the judgement", (mutants.STEPS,)),
    ],
)
def test_the_other_numbers_are_those_of_the_document(words: str, numbers: tuple[float, ...]) -> None:
    assert [float(n) for n in re.findall(words, DOCUMENT)] == list(numbers)


def reference_of(spec: StepSpec, steps: int = STEPS) -> Reference:
    """All tokens alike, all else one; the unit is a thousandth."""
    (x,), (y,) = spec.inputs, spec.outputs
    tokens = (np.arange(steps) % TOKENS).reshape(steps, 1).astype(np.int32)
    results = {
        "y": np.full((steps, 1, *y.shape), 0.0 if x.tokens else 1.0, np.float32),
        "next_h": np.ones((steps, 1, 8), np.float32),
    }
    inputs = {"x": tokens if x.tokens else np.ones((steps, 1, *x.shape), np.float32)}
    return Reference(inputs, results, dict.fromkeys(results, 1e-3))


def root(of: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Where a growing function has a value."""
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if of(middle) < value else (low, middle)
    return low


def off_in_units(candidate: Arrays, size: float) -> None:
    candidate["next_h"][7, 0, 3] += 1e-3 * size


def off_in_divergence(candidate: Arrays, size: float) -> None:
    """The first token is likelier at every step, by as much as makes the divergence this large."""

    def divergence(more: float) -> float:
        return math.log(TOKENS - 1 + math.exp(more)) - more / TOKENS - math.log(TOKENS)

    candidate["y"][..., 0] = root(divergence, size, 0.0, 10.0)


def off_in_decisions(candidate: Arrays, size: float) -> None:
    """The likeliest token is the same at this share of the steps."""
    candidate["y"][: round((1 - size) * STEPS), 0, 5] = 2.0


def off_in_perplexity(candidate: Arrays, size: float) -> None:
    """The token that follows is less likely at every step."""

    def change(less: float) -> float:
        return (TOKENS - 1 + math.exp(-less)) / math.exp(-less) / TOKENS - 1

    less = root(change, size, -5.0, 5.0)
    for t in range(STEPS - 1):
        candidate["y"][t, 0, (t + 1) % TOKENS] = -less


def off_in_state(candidate: Arrays, size: float) -> None:
    candidate["next_h"] *= 1 + size


def off_in_signal(candidate: Arrays, size: float) -> None:
    candidate["y"] *= 1 + size


def off_in_the_mean(candidate: Arrays, size: float) -> None:
    candidate["y"] += size  # of a deviation of nothing, for which 1 is taken


def off_more_and_more(candidate: Arrays, size: float) -> None:
    """One unit off in the first quarter, and so many times that in the last one."""
    candidate["next_h"][: STEPS // 4, 0, 0] += 1e-3
    candidate["next_h"][-STEPS // 4 :, 0, 0] += 1e-3 * size


FAULTS: dict[str, tuple[Callable[[Arrays, float], None], str]] = {
    "units": (off_in_units, r"next_h is \S+ units off at step 7 of row 0 \(got \S+, expected 1\), at most 8"),
    "mean_kl": (
        off_in_divergence,
        r"mean KL divergence is \S+, expected at most \S+ \(largest at step 0 of row 0: \S+\)",
    ),
    "agreement": (
        off_in_decisions,
        r"same-top-1 is 0\.\d{4} but for ties, expected at least \S+ \(first other at step 0 of row 0\)",
    ),
    "perplexity": (off_in_perplexity, r"perplexity changes by [+-]\S+%, expected at most \d\.\d{3}%"),
    "relative": (off_in_state, r"next_h is \d+\.\d\d% off in rms, expected at most \d+\.\d%"),
    "signal": (off_in_signal, r"y is \d+\.\d\d% off in rms, expected at most \d\.\d%"),
    "spread": (off_in_the_mean, r"y is 1\.00% of its spread off in the mean, expected at most 1\.0%"),
    "growth": (off_more_and_more, r"the error grows \S+-fold, expected at most \d-fold"),
}
LIMITS = [
    (variant, name) for variant, p in PROFILES.items() for name in FAULTS if getattr(p, name) is not None
]


def judged(name: str, profile: Profile, size: float) -> Measures:
    """A run that is this far off in what the limit is of, judged by a profile."""
    spec = SIGNAL if name == "signal" else LANGUAGE
    reference = reference_of(spec)
    if name == "agreement":  # the reference is sure of it
        reference.results["y"][..., 3] = 1.0
    candidate = {n: a.astype(np.float64) for n, a in reference.results.items()}
    FAULTS[name][0](candidate, size)
    return measure(spec, reference, candidate, profile.for_decisions(STEPS, 1))


@pytest.mark.parametrize(("variant", "name"), LIMITS)
def test_what_is_just_inside_a_limit_passes_and_just_outside_fails(variant: str, name: str) -> None:
    limit = getattr(PROFILES[variant], name)
    alone = replace(Profile(), **{name: limit})
    inside, outside = (limit, limit - 1 / STEPS) if name == "agreement" else (limit * 0.999, limit * 1.001)
    assert judged(name, alone, inside).failures == []
    (failure,) = judged(name, alone, outside).failures
    assert re.fullmatch(FAULTS[name][1], failure)
    assert failure in judged(name, PROFILES[variant], outside).failures, "nor is it left out among the others"


@pytest.mark.parametrize("variant", QUANTIZED)
def test_a_perplexity_that_falls_is_as_far_off_as_one_that_rises(variant: str) -> None:
    limit = PROFILES[variant].perplexity
    assert limit is not None
    alone = Profile(perplexity=limit)
    assert judged("perplexity", alone, -0.999 * limit).passed
    (failure,) = judged("perplexity", alone, -1.001 * limit).failures
    assert failure == f"perplexity changes by {-1.001 * limit:+.3%}, expected at most {limit:.3%}"


def test_a_limit_itself_is_inside() -> None:
    """In binary fractions, which are exact."""
    reference = reference_of(SIGNAL)
    exact = replace(reference, units=dict.fromkeys(reference.units, 0.125))
    candidate = {name: array * np.float32(1.25) for name, array in exact.results.items()}
    assert measure(SIGNAL, exact, candidate, Profile(units=2.0, relative=0.25, signal=0.25)).passed
    told = measure(SIGNAL, exact, candidate, Profile(units=1.9, relative=0.24, signal=0.24)).failures
    assert told == [
        "y is 2 units off at step 0 of row 0 (got 1.25, expected 1), at most 1.9",
        "next_h is 25.00% off in rms, expected at most 24.0%",
        "y is 25.00% off in rms, expected at most 24.0%",
    ]
    candidate["next_h"][-1] = 1 + 8 * 0.25
    assert measure(SIGNAL, exact, candidate, Profile(growth=8.0)).passed
    assert measure(SIGNAL, exact, candidate, Profile(growth=7.9)).failures == [
        "the error grows 8-fold, expected at most 7.9-fold"
    ]


def test_words_of_the_limits_of_int8() -> None:
    profile = PROFILES["int8"]
    for name, size, words in [
        ("relative", 0.1634, "next_h is 16.34% off in rms, expected at most 15.0%"),
        ("signal", 0.0567, "y is 5.67% off in rms, expected at most 5.0%"),
        ("growth", 12.34, "the error grows 12.3-fold, expected at most 8-fold"),
        ("perplexity", 0.0234, "perplexity changes by +2.340%, expected at most 1.000%"),
    ]:
        assert words in judged(name, profile, size).failures


def test_a_profile_without_limits_lets_all_pass_that_is_finite() -> None:
    for name in FAULTS:
        assert judged(name, Profile(), 0.5).failures == []


def test_logits_are_judged_by_what_they_decide_and_not_by_their_rms() -> None:
    """The same factor on every logit of a language model, and on a signal."""
    profile = Profile(signal=0.05)
    assert judged("signal", profile, 0.2).failures == ["y is 20.00% off in rms, expected at most 5.0%"]
    reference = reference_of(LANGUAGE)
    y = reference.results["y"] + 1
    results = reference.results | {"y": y}
    assert measure(LANGUAGE, replace(reference, results=results), results | {"y": y * 1.2}, profile).passed


def test_shares_and_trends_need_two_hundred_steps() -> None:
    for variant, profile in PROFILES.items():
        assert profile.for_decisions(200, 1) is profile, variant
        assert profile.for_decisions(100, 2) == replace(profile, growth=None), "a trend is over time"
        short = replace(profile, agreement=None, perplexity=None, growth=None, spread=None)
        assert profile.for_decisions(199, 1) == profile.for_decisions(66, 3) == short
