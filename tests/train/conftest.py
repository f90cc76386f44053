"""What the tests of training share: a small text, small settings, and the book's corpus where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steprnn.train.settings import Settings

# Two verses whose continuations differ with what stood before, so that learning them needs a state.
TEXT = "分开的时候，山外有雨，雨外有山。\n不分开的时候，灯下有酒，酒下有灯。\n" * 12

TINY: dict[str, Any] = {
    "units": 24,
    "batch": 4,
    "window": 8,
    "epochs": 6,
    "learning_rate": 2e-2,
}

REAL = Path(__file__).parents[3] / "shared" / "data" / "jaychou_lyrics.txt.zip"


@pytest.fixture(scope="session")
def tiny() -> Settings:
    return Settings(**TINY)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "verses.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def real_corpus() -> Path:
    if not REAL.exists():
        pytest.skip(
            "the book's corpus is under copyright and not in the repository; put it in ../shared/data"
        )
    return REAL
