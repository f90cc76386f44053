"""Which inputs of a graph made elsewhere come back as which outputs, told by their names.

A pair needs a rule of the table, the same dtype and shapes that agree, and no second candidate on
either side. What is left is unpaired: a guess here would be a swapped state that raises nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Shape = tuple[int | str | None, ...]

# What a state is called, and what the state after the step is called; * is any text, case aside.
RULES = (
    *(("*", after) for after in ("next_*", "*_next", "next*", "new_*", "*_new", "updated_*")),
    *(("*", after) for after in ("out_*", "*_out", "*out", "output_*", "*_output", "r_*")),
    *(("*", after) for after in ("*n", "*_n", "*.1")),
    ("*_in", "*_out"),
    ("*_in", "*"),
    ("*in", "*out"),
    ("in_*", "out_*"),
    ("in*", "out*"),
    ("*_input", "*_output"),
    ("input_*", "output_*"),
    ("past*", "present*"),
    ("past_key_values*", "present*"),
    ("*0", "*n"),
    *(("initial_*", after) for after in ("*", "final_*", "next_*", "last_*", "y_*")),
    *(("init_*", after) for after in ("*", "final_*", "next_*", "last_*")),
    *(("prev_*", after) for after in ("*", "next_*", "new_*", "cur_*")),
    *(("previous_*", after) for after in ("*", "next_*", "new_*", "current_*")),
    *(("old_*", after) for after in ("*", "new_*")),
    ("*_prev", "*"),
    ("*_prev", "*_next"),
    ("*_old", "*_new"),
    ("*", "*"),  # a TFLite signature may use a name on both sides
)
# Names of what flows through a step: `audio_in` and `audio_out` have one shape and are no state.
SIGNALS = frozenset(
    "x y in out input output inputs outputs audio wav signal sample samples frame frames mix mag spec "
    "spectrum data feature features feats token tokens id ids input_ids mask noisy enhanced logits prob "
    "probs".split()
)
STATE_WORD = re.compile(r"state|hidden|cell|cache|past|present|memory|(^|_)[hc]([0-9n]|_in|_out)?$", re.I)


@dataclass(frozen=True)
class Declared:
    """A tensor as a graph declares it: a number in `shape` is fixed, a text or None is free.

    `shape` is None where the graph does not tell even the rank. `scale` is that of quantized values,
    `(scale, zero point)`: real = scale * (value - zero point).
    """

    name: str
    dtype: str
    shape: Shape | None
    scale: tuple[float, int] | None = None

    def __str__(self) -> str:
        """For messages: `state float32 [2, batch, 128]`."""
        return f"{self.name} {self.dtype} {shape_text(self.shape)}"


@dataclass(frozen=True)
class Pair:
    """A state, the output it comes back as, and why they are taken for a pair."""

    state: str
    next: str
    evidence: str


def shape_text(shape: Shape | None) -> str:
    """A shape for people; `?` is a free dimension without a name."""
    if shape is None:
        return "[...]"
    return f"[{', '.join('?' if n is None else str(n) for n in shape)}]"


def agree(state: Declared, following: Declared) -> bool:
    """Whether one may be fed back as the other: same dtype and, as far as declared, same shape."""
    if state.dtype != following.dtype:
        return False
    if state.shape is None or following.shape is None:
        return True
    if len(state.shape) != len(following.shape):
        return False
    both = zip(state.shape, following.shape, strict=True)
    return all(a == b for a, b in both if isinstance(a, int) and isinstance(b, int))


def pairs_by_name(inputs: Iterable[Declared], outputs: Sequence[Declared]) -> list[Pair]:
    """The pairs that the rules, dtypes and shapes leave no doubt of, in the order of the inputs."""
    found: dict[str, list[Pair]] = {}
    for state in inputs:
        candidates = {
            following.name: f"rule {rule}"
            for following in outputs
            if (rule := _rule(state.name, following.name)) and agree(state, following)
        }
        found[state.name] = [Pair(state.name, n, evidence) for n, evidence in candidates.items()]
    claims = Counter(pair.next for pairs in found.values() for pair in pairs)
    return [pairs[0] for pairs in found.values() if len(pairs) == 1 and claims[pairs[0].next] == 1]


def is_signal(name: str) -> bool:
    """Whether a name is that of a signal rather than of a state."""
    base = re.sub(r"^serving_default_|:\d+$", "", name.lower())
    return base in SIGNALS or re.fullmatch(r"(in|out)(put)?[_.]?\d*", base) is not None


def _rule(state: str, following: str) -> str | None:
    """The first rule by which the names pair, as text; None where there is none."""
    if is_signal(state):
        return None
    state, following = (re.sub(r"^serving_default_|:\d+$", "", n.lower()) for n in (state, following))
    for before, after in RULES:
        base = _base(before, state)
        if base is None or base.strip("_.") in SIGNALS:
            continue
        if after.replace("*", base) == following:
            return before if before == after else f"{before} -> {after}"
    return None


def _base(template: str, name: str) -> str | None:
    """What `*` stands for."""
    left, _, right = template.partition("*")
    fits = name.startswith(left) and name.endswith(right) and len(name) >= len(left) + len(right)
    base = name[len(left) : len(name) - len(right)] if fits else None
    # `past` -> `present` says enough; `_in` alone does not
    return base if base or template.startswith("past") else None
