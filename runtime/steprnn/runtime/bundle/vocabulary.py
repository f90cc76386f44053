"""The vocabulary: which character a token index stands for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BundleError, UnknownToken, UsageError

FORMAT = "steprnn.vocabulary"
VERSION = 1


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
            named = " ".join(repr(c) for c in strangers[:10]) + (" ..." if len(strangers) > 10 else "")
            raise UnknownToken(
                f"{named} not among the {len(self)} characters of the vocabulary; "
                "choose others, or skip them with --unknown skip"
            )
        return [indices[c] for c in text if c in indices]

    def decode(self, indices: Sequence[int]) -> str:
        """The text of token indices."""
        return "".join(self.tokens[i] for i in indices)

    def write(self, path: Path) -> None:
        """Write `vocabulary.json`; see docs/bundle-format.md."""
        record = {"format": FORMAT, "version": VERSION, "unit": "character", "tokens": list(self.tokens)}
        from ..atomic import write_text  # readers need none of it

        write_text(path, json.dumps(record, ensure_ascii=False, indent=0) + "\n")

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Read `vocabulary.json`; raises `BundleError` where it is not one."""
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BundleError(f"{path} is missing; copy the whole folder again") from None
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise BundleError(f"{path} is not JSON ({error}); copy the folder again") from None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise BundleError(f'{path} is not a vocabulary: expected "format": "{FORMAT}"')
        version, tokens = record.get("version"), record.get("tokens")
        if version != VERSION:
            raise BundleError(
                f"{path} has version {version!r}; this steprnn reads {VERSION}: upgrade steprnn"
            )
        if not isinstance(tokens, list) or not tokens or not all(isinstance(t, str) and t for t in tokens):
            raise BundleError(f"{path}: tokens must be a list of characters")
        if len(set(tokens)) != len(tokens):
            raise BundleError(f"{path}: a character stands twice among the tokens")
        return cls(tuple(tokens))
