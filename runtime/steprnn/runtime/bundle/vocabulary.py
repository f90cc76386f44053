"""The vocabulary: which character, or which byte, a token index stands for."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, UnknownToken, UsageError, wrong_type
from ..files import VOCABULARY_FORMAT, read_record, write_record
from .packed import Place

ASCII = 128  # bytes that are characters by themselves
WIDEST = 4  # bytes of a character


@dataclass(frozen=True)
class Vocabulary:
    """What token indices stand for: characters, or the 256 bytes of UTF-8 (`Vocabulary.of_bytes`).

    `tokens[i]` names index i: the character, or of a byte that is none by itself `bytes:\\xe5`, as servers
    of completions write it.
    """

    tokens: tuple[str, ...]
    unit: str = "character"  # or "byte"
    _indices: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_indices", {token: index for index, token in enumerate(self.tokens)})

    @classmethod
    def of(cls, text: Iterable[str]) -> Vocabulary:
        """The distinct characters of a text in code point order, so that equal texts give equal indices."""
        return cls(tuple(sorted(set(text))))

    @classmethod
    def of_bytes(cls) -> Vocabulary:
        """The bytes of UTF-8, index i for byte i: for texts of any script, and for small models."""
        return cls(tuple(chr(i) if i < ASCII else f"bytes:\\x{i:02x}" for i in range(256)), "byte")

    @property
    def characters(self) -> tuple[str, ...]:
        """The tokens that are text by themselves."""
        return self.tokens[:ASCII] if self.unit == "byte" else self.tokens

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str, *, unknown: str = "error") -> list[int]:
        """Token indices of a text.

        `unknown="skip"` leaves out characters that are not in the vocabulary; `"error"` raises
        `UnknownToken`, which names them. Bytes have all but half of a surrogate pair.
        """
        if unknown not in ("error", "skip"):
            raise UsageError(f"unknown is {unknown!r}; expected 'error' or 'skip'")
        if not isinstance(text, str):
            raise wrong_type("the text", text, "str")
        indices = self._indices
        if self.unit == "byte":
            strangers = [c for c in dict.fromkeys(text) if "\ud800" <= c <= "\udfff"]
            tokens = [*text.encode("utf-8", "ignore")]
        else:
            try:
                return [*map(indices.__getitem__, text)]
            except KeyError:
                strangers = [c for c in dict.fromkeys(text) if c not in indices]
                tokens = [indices[c] for c in text if c in indices]
        if strangers and unknown == "error":
            raise UnknownToken(strangers, len(self))
        return tokens

    def decode(self, indices: Iterable[int]) -> str:
        """The text of token indices; bytes that are no character become U+FFFD."""
        try:
            return "".join(self.pieces(indices))
        except (IndexError, TypeError, ValueError) as error:  # not looked for before: texts come by here
            words = (
                f"there is a token that is none ({error}); expected whole numbers from 0 to {len(self) - 1}"
            )
            raise UsageError(words) from error

    def pieces(self, indices: Iterable[int]) -> Iterator[str]:
        """The text of token indices as they come, a character as soon as its last byte is there."""
        if self.unit == "character":
            return (self.tokens[i] for i in indices)
        joiner = self.joiner()
        return filter(None, chain((joiner.push(i) for i in indices), _closed(joiner)))

    def joiner(self) -> Joiner:
        """What joins tokens to text, one at a time."""
        return Joiner(self)

    def tail(self, indices: NDArray[np.int32], characters: int) -> str:
        """The end of the text of token indices, of at least so many characters where there are as many.

        A character that is not whole yet is left out, as more bytes may follow.
        """
        if self.unit == "character":
            return self.decode(indices[-characters:].tolist())
        data = bytes(indices[-WIDEST * characters :].tolist())
        begins = next((i for i, byte in enumerate(data) if byte & 0xC0 != 0x80), len(data))
        return codecs.utf_8_decode(data[begins:], "replace", False)[0]

    def write(self, path: Path) -> None:
        """Write `vocabulary.json`; see docs/bundle-format.md."""
        record = {"unit": self.unit} | ({} if self.unit == "byte" else {"tokens": list(self.tokens)})
        write_record(path, VOCABULARY_FORMAT, record, indent=0)

    @classmethod
    def read(cls, path: Place) -> Vocabulary:
        """Read `vocabulary.json`; raises `BundleError` where it is not one."""
        record = read_record(path, VOCABULARY_FORMAT, BundleError, "copy the whole folder again")
        tokens, unit = record.get("tokens"), record.get("unit")
        if unit == "byte" and tokens is None:
            return cls.of_bytes()
        if not isinstance(tokens, list) or not tokens or not all(isinstance(t, str) and t for t in tokens):
            raise BundleError(f"{path}: tokens must be a list of characters")
        if unit != "character":
            raise BundleError(f"{path}: unit is {unit!r}, expected 'character', or 'byte' alone")
        if any("\ud800" <= c <= "\udfff" for token in tokens for c in token):
            raise BundleError(f"{path}: a token is half of a surrogate pair, which is no character")
        if len(set(tokens)) != len(tokens):
            raise BundleError(f"{path}: a character stands twice among the tokens")
        return cls(tuple(tokens))


class Joiner:
    """Joins tokens to text as they come."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._tokens = vocabulary.tokens
        self._decoder = (
            codecs.getincrementaldecoder("utf-8")("replace") if vocabulary.unit == "byte" else None
        )

    def push(self, token: int) -> str:
        """The text that is whole with this token; empty within a character of several bytes."""
        return self._tokens[token] if self._decoder is None else self._decoder.decode(bytes((token,)))

    def close(self) -> str:
        """What stands for the bytes of a character that never became whole."""
        return "" if self._decoder is None else self._decoder.decode(b"", True)


def _closed(joiner: Joiner) -> Iterator[str]:
    yield joiner.close()
