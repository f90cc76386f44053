"""What a difference of logits means to a language model: divergence, the likeliest token, perplexity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .profiles import Profile

# Nats between the two best below which it is a toss-up which of them is the likeliest: 5 %. A model that
# is not sure has such gaps at many steps, and 8-bit weights decide them by the way.
TIE = 0.05


@dataclass(frozen=True)
class Decisions:
    """Logits of a candidate against those of the reference on the same tokens, teacher-forced."""

    kl: NDArray[np.float64]  # [steps, rows], nats, from the reference to the candidate
    same: NDArray[np.bool_]  # [steps, rows]: the likeliest token is the same
    agreed: NDArray[np.bool_]  # [steps, rows]: the same, or a tie by the reference
    perplexity: float  # relative change on the run's own text

    @classmethod
    def of(cls, expected: NDArray[Any], got: NDArray[Any], x: NDArray[Any]) -> Decisions:
        """From logits `[steps, rows, vocabulary]` and the tokens read, `[steps, rows]`."""
        with np.errstate(all="ignore"):  # a candidate may say anything, and fails elsewhere for it
            p, q = log_softmax(expected), log_softmax(got)
            kl = (np.exp(p) * (p - q)).sum(axis=-1)
            following = x[1:, :, None].astype(np.int64)
            change = 0.0
            if len(following):
                of_p, of_q = (float(np.take_along_axis(a[:-1], following, axis=-1).mean()) for a in (p, q))
                change = float(np.expm1(of_p - of_q))
            chosen = q.argmax(axis=-1)
            lost = p.max(axis=-1) - np.take_along_axis(p, chosen[..., None], axis=-1)[..., 0]
        return cls(kl, p.argmax(axis=-1) == chosen, lost <= TIE, change)

    def figures(self) -> dict[str, Any]:
        """The measures that a profile judges, and those beside them."""
        return {
            "mean_kl": float(self.kl.mean()),
            "max_kl": float(self.kl.max()),
            "p99_kl": float(np.quantile(self.kl, 0.99)),
            "same_top_1": float(self.same.mean()),
            "agreement": float(self.agreed.mean()),
            "perplexity": self.perplexity,
        }

    def failures(self, profile: Profile, rows: list[str]) -> list[str]:
        """What is beyond the profile, in words that tell where it is largest or first."""
        found, figures = [], self.figures()
        if profile.mean_kl is not None and not figures["mean_kl"] <= profile.mean_kl:
            finite = np.where(np.isnan(self.kl), np.inf, self.kl)
            step, row = np.unravel_index(int(finite.argmax()), finite.shape)
            found.append(
                f"mean KL divergence is {figures['mean_kl']:.3g}, expected at most {profile.mean_kl:g} "
                f"(largest at step {step} of {rows[row]}: {finite[step, row]:.3g})"
            )
        if profile.agreement is not None and not figures["agreement"] >= profile.agreement:
            step, row = np.unravel_index(int((~self.agreed).argmax()), self.agreed.shape)
            found.append(
                f"same-top-1 is {figures['agreement']:.4f} but for ties, expected at least "
                f"{profile.agreement:g} (first other at step {step} of {rows[row]})"
            )
        if profile.perplexity is not None and not abs(self.perplexity) <= profile.perplexity:
            found.append(
                f"perplexity changes by {self.perplexity:+.3%}, expected at most {profile.perplexity:.3%}"
            )
        return found


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Log-probabilities over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
