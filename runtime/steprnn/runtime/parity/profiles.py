"""What an artefact of each variant may be off; docs/parity.md has the distributions they come from."""

from __future__ import annotations

from dataclasses import dataclass, replace

ENOUGH = 200  # a share of 95 % of 200 steps is 10 steps, with a standard deviation of 3


@dataclass(frozen=True)
class Profile:
    """The limits of one variant; None is not judged."""

    units: float | None = None  # largest error of any output or state, at any step
    mean_kl: float | None = None  # nats, reference to candidate, mean over the steps
    agreement: float | None = None  # share of the steps at which the likeliest token is the same, or a tie
    perplexity: float | None = None  # relative change on the run's own text
    relative: float | None = None  # rms error of any state over its rms
    signal: float | None = None  # rms error of an output that is not logits over its rms
    own: float | None = None  # largest error against the oracle of the artefact's own weights, at any step
    rounds: bool = False  # the engine rounds what it multiplies these weights by to 8 bits as well
    growth: float | None = None  # p99 of the error in the last quarter of the steps over that in the first
    spread: float | None = None  # mean error of an output over its standard deviation

    def for_decisions(self, steps: int, rows: int) -> Profile:
        """Without what is a share of too few decisions, or a trend over too few steps."""
        few = replace(self, agreement=None, perplexity=None, spread=None)
        shares = self if steps * rows >= ENOUGH else few
        return shares if steps >= ENOUGH else replace(shares, growth=None)


# Weights of 8 bits move the logits by some hundredths; these limits are where generated text
# starts to read differently, not where arithmetic does. They hold for 8-bit activations too:
# they ask what the model says, and not how it is computed.
INT8 = Profile(mean_kl=1e-2, agreement=0.95, perplexity=0.01, relative=0.15, signal=0.05, growth=8.0)

# How far an engine may be off that computes in float32 with weights that were rounded; and in units of what
# rounding to 8 bits costs, one that rounds what it multiplies them by.
OWN, OWN_ROUNDED = 8.0, 3.0

PROFILES = {
    # Float32 engines differ from TensorFlow in the order of their sums and in how they approximate
    # sigmoid and tanh, which costs a few units. A wrong weight, a swapped state or a stale one is
    # thousands of units off.
    "float32": Profile(units=8.0, agreement=1.0),
    # Rounding a weight to 11 bits moves it by at most 1/2048, a sixteenth of what 8 bits do.
    "float16": Profile(
        mean_kl=1e-4, agreement=0.99, perplexity=1e-3, relative=0.01, signal=0.005, growth=4.0, own=OWN
    ),
    "int8-weights": replace(INT8, own=OWN),
    "int8": replace(INT8, own=OWN_ROUNDED, rounds=True),
    # States are rounded at every step, so that the error must not grow over a long run either.
    "int16x8": replace(INT8, growth=4.0, spread=0.01),
    # That its gates are right to 2^-14 only is far below what rounding to 8 bits costs.
    "int8-fixed": replace(INT8, own=OWN_ROUNDED, rounds=True),
}
