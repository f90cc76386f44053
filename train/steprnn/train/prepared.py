"""What a run is made of, and whether it can be: looked at before TensorFlow starts, which takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steprnn.runtime.bundle.vocabulary import Vocabulary
from steprnn.runtime.errors import CorpusError, UsageError

from . import corpus
from .corpus import Corpus
from .settings import Settings

MANY_TIMES = 10  # what is trained on: such a text has enough for few epochs


@dataclass(frozen=True)
class Prepared:
    """A text, its vocabulary, and the prompts that are continued, all of known characters."""

    corpus: Corpus
    vocabulary: Vocabulary
    prompts: tuple[str, ...]

    @property
    def summary(self) -> str:
        """What is trained on of what, and how to take the rest."""
        used, whole, name = len(self.corpus.text), self.corpus.whole, self.corpus.name
        kinds = f"{len(self.vocabulary):,} distinct"
        if self.vocabulary.unit == "byte":
            kinds = f"{len(self.vocabulary.encode(self.corpus.text)):,} bytes"
        if used == whole:
            return f"{name}: all {used:,} characters, {kinds}"
        # 60 epochs of ten times the text would be hours, and learn no more than these: docs/training.md
        epochs = " --epochs 5" if whole >= MANY_TIMES * used else ""
        return (
            f"{name}: the first {used:,} of {whole:,} characters, {kinds}; --characters 0{epochs} takes all"
        )


def prepare(
    source: str | Path | None,
    sha256: str | None,
    settings: Settings,
    prompts: Sequence[str] = (),
    unknown: str = "error",
) -> Prepared:
    """Read the corpus and look at all that a run needs of it.

    `unknown` is that of `Vocabulary.encode`, for the prompts. Raises `CorpusError` and `UsageError`, of
    which `UnknownToken` is one.
    """
    text = corpus.load(
        source,
        sha256=sha256,
        characters=settings.characters,
        keep_line_breaks=settings.keep_line_breaks,
    )
    vocabulary = Vocabulary.of_bytes() if settings.tokens == "bytes" else Vocabulary.of(text.text)
    if len(vocabulary) < 2:
        raise CorpusError(f"{text.name} is {text.text[0]!r} alone; expected at least 2 distinct characters")
    as_read = (corpus.prepare(p, characters=0, keep_line_breaks=settings.keep_line_breaks) for p in prompts)
    known = tuple(_known(prompt, vocabulary, unknown) for prompt in as_read)
    seen, unseen = text.split(settings.holdout)
    corpus.check_length(len(seen), settings.batch, settings.window)
    if settings.holdout:
        corpus.check_held_out(len(unseen))
    return Prepared(text, vocabulary, known)


def _known(prompt: str, vocabulary: Vocabulary, unknown: str) -> str:
    if not prompt:
        raise UsageError("a prompt is empty; expected at least one character")
    known = vocabulary.decode(vocabulary.encode(prompt, unknown=unknown))
    if not known:
        raise UsageError(f"of the prompt {prompt!r} no character is known; expected at least one")
    return known


def check_sample_every(sample_every: int | None) -> None:
    """Raise `UsageError` where no epoch could be meant."""
    if sample_every is not None and sample_every < 1:
        raise UsageError(f"--sample-every is {sample_every}; expected at least 1")
