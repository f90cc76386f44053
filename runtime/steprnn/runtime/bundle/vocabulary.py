"""The vocabulary: which character a token index stands for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BundleError, UnknownToken, UsageError
from ..files import VOCABULARY_FORMAT, read_record, write_record
from .packed import Place


@dataclass(frozen=True)
class Vocabulary:
    """Characters in the order of their token indices: `tokens[i]` is what index `i` stands for."""

    tokens: tuple[str, ...]
    _indices: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_indices", {token: index for index, token in enumerate(self.tokens)})

    @classmethod
    def of(cls, text: Iterable[str]) -> Vocabulary:
        """The distinct characters of a text in code point order, so that equal texts give equal indices."""
        return cls(tuple(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str, *, unknown: str = "error") -> list[int]:
        """Token indices of a text.

        `unknown="skip"` leaves out characters that are not in the vocabulary; `"error"` raises
        `UnknownToken`, which names them.
        """
        if unknown not in ("error", "skip"):
            raise UsageError(f"unknown is {unknown!r}; expected 'error' or 'skip'")
        indices = self._indices
        strangers = [c for c in dict.fromkeys(text) if c not in indices]
        if strangers and unknown == "error":
            raise UnknownToken(strangers, len(self))
        return [indices[c] for c in text if c in indices]

    def decode(self, indices: Sequence[int]) -> str:
        """The text of token indices."""
        return "".join(self.tokens[i] for i in indices)

    def write(self, path: Path) -> None:
        """Write `vocabulary.json`; see docs/bundle-format.md."""
        record = {"unit": "character", "tokens": list(self.tokens)}
        write_record(path, VOCABULARY_FORMAT, record, indent=0)

    @classmethod
    def read(cls, path: Place) -> Vocabulary:
        """Read `vocabulary.json`; raises `BundleError` where it is not one."""
        record = read_record(path, VOCABULARY_FORMAT, BundleError, "copy the whole folder again")
        tokens = record.get("tokens")
        if not isinstance(tokens, list) or not tokens or not all(isinstance(t, str) and t for t in tokens):
            raise BundleError(f"{path}: tokens must be a list of characters")
        if record.get("unit") != "character":
            raise BundleError(f"{path}: unit is {record.get('unit')!r}, expected 'character'")
        if any("\ud800" <= c <= "\udfff" for token in tokens for c in token):
            raise BundleError(f"{path}: a token is half of a surrogate pair, which is no character")
        if len(set(tokens)) != len(tokens):
            raise BundleError(f"{path}: a character stands twice among the tokens")
        return cls(tuple(tokens))
