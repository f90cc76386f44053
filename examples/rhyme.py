"""A hook that makes lines rhyme: it bans, step by step, what would break the form.

    python examples/rhyme.py lyrics.bundle --beginning 分开 --lines 4 --line 7

Every line has the same length, and ends on the rhyme of the first, never twice on one character. The rhymes
are those of 十三辙, the thirteen of northern songs, with a few characters each; write your own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from steprnn.runtime import Vocabulary, load

RHYMES = (
    "来开在海爱台外怀白载待才",
    "风停梦中空红动星听情声冷城影东灯",
    "走后又手流久头愁秋留有",
    "分云人春门问心今深尘音",
    "山天眼间年前见远暖晚边雁",
    "上光窗香想伤长望忘亮旁霜乡",
    "雨去里你意起水迹期絮",
    "我河歌落过多火说波",
    "月夜雪也别些街叶",
)


class Rhyme:
    """A logits processor: lines of `line` characters and a space, which end on one rhyme."""

    def __init__(self, vocabulary: Vocabulary, line: int) -> None:
        known = {token: index for index, token in enumerate(vocabulary.tokens)}
        self._groups = [{known[c] for c in group if c in known} for group in RHYMES]
        self._groups = [group for group in self._groups if len(group) > 1]
        self._space, self._line = vocabulary.encode(" ")[0], line

    def __call__(self, logits: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
        """The logits, float32 `[vocabulary]`, with -inf for what must not come after `tokens`."""
        place = len(tokens) % (self._line + 1)
        if place == self._line:
            return self._only(logits, {self._space})
        if place == self._line - 1:
            return self._only(logits, self._endings(tokens))
        logits[self._space] = -np.inf
        return logits

    def _endings(self, tokens: Sequence[int]) -> set[int]:
        """What a line may end on: the rhyme of the first line, without what has ended a line already."""
        used = [tokens[i] for i in range(self._line - 1, len(tokens), self._line + 1)]
        if not used:
            return set().union(*self._groups)
        group = next(group for group in self._groups if used[0] in group)
        return group - set(used) or group - {used[-1]}

    @staticmethod
    def _only(logits: np.ndarray, tokens: set[int]) -> np.ndarray:
        left = np.full_like(logits, -np.inf)
        chosen = sorted(tokens)
        left[chosen] = logits[chosen]
        return left


def main() -> None:
    """Write a few lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", help="a bundle: a folder, a .zip or an installed model")
    parser.add_argument("--beginning", default="分开", help="shorter than a line")
    parser.add_argument("--lines", type=int, default=4)
    parser.add_argument("--line", type=int, default=7, help="characters in a line")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not 0 < len(arguments.beginning) < arguments.line:
        parser.error(
            f"--beginning has {len(arguments.beginning)} characters; expected 1 to {arguments.line - 1}"
        )
    model = load(arguments.bundle)
    length = arguments.lines * (arguments.line + 1) - 1 - len(arguments.beginning)
    assert model.vocabulary is not None  # as every character model has one
    rhyme = Rhyme(model.vocabulary, arguments.line)
    text = model.generate(
        arguments.beginning,
        length,
        temperature=arguments.temperature,
        seed=arguments.seed,
        logits_processor=rhyme,
    )
    print(text.replace(" ", "\n"))


if __name__ == "__main__":
    main()
