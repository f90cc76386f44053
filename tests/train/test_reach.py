"""How far the defaults get on the book's corpus, where it is at hand."""

from __future__ import annotations

from pathlib import Path

from steprnn.runtime.bundle.vocabulary import Vocabulary
from steprnn.train import corpus
from steprnn.train.fit import train


def test_the_book_s_corpus_is_known_by_heart_within_60_epochs(tmp_path: Path, real_corpus: Path) -> None:
    assert len(Vocabulary.of(corpus.load(real_corpus).text)) == 1027
    assert len(corpus.load(real_corpus, characters=0).text) == 63_282
    training = train(tmp_path / "c", source=real_corpus, verbose=0)
    assert len(training.history) == 60
    assert min(entry["perplexity"] for entry in training.history) <= 1.02
