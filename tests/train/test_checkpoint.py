"""The checkpoint folder: what is refused, continued and swept away before a run begins."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steprnn.runtime.errors import CheckpointError
from steprnn.runtime.origin import upgrade
from steprnn.train.checkpoint import Training, enter
from steprnn.train.corpus import Corpus
from steprnn.train.settings import Settings

CORPUS = Corpus("verses.txt", "山外有雨")
TRAINING = Training.of(Settings(), CORPUS, {"keras": "3"})


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    later = TRAINING.advance([{"epoch": 1, "loss": 0.5}], 1)
    later.write(tmp_path)
    assert Training.read(tmp_path) == later
    record = json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))
    assert list(record)[:2] == ["format", "version"]
    assert record["best_epoch"] == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, r"training\.json is missing; train again, or copy the whole folder again"),
        ("{", r"training\.json is not JSON .*train again"),
        ('{"format": "other"}', r'is not of a checkpoint: expected "format": "steprnn\.checkpoint"'),
        ("[]", "is not of a checkpoint"),
        (
            '{"format": "steprnn.checkpoint", "version": 2}',
            f"has format version 2 and this steprnn reads 1; {upgrade()}",
        ),
        ('{"format": "steprnn.checkpoint", "version": 1}', r"is damaged \(.*corpus.*train again"),
    ],
)
def test_the_words_for_a_folder_that_is_no_checkpoint(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "training.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=words):
        Training.read(tmp_path)


def test_an_unfinished_run_goes_on_with_its_own_settings_alone(tmp_path: Path) -> None:
    TRAINING.write(tmp_path)
    assert enter(tmp_path, TRAINING, Settings(), overwrite=False) == TRAINING
    (tmp_path / "resume.npz").write_bytes(b"what was learnt")
    other = Settings(learning_rate=0.5)
    words = r"holds an unfinished run with other settings: --learning-rate 0\.01 \(here 0\.5\); give another"
    with pytest.raises(CheckpointError, match=words):
        enter(tmp_path, replace(TRAINING, settings=other.record()), other, overwrite=False)
    more = Settings(epochs=80)
    words = (
        "end it with --epochs 60, which --epochs 80 then goes on from, give another --out, or throw it away"
    )
    with pytest.raises(CheckpointError, match=words):
        enter(tmp_path, replace(TRAINING, settings=more.record()), more, overwrite=False)
    assert Training.read(tmp_path) == TRAINING
    (tmp_path / "resume.npz").unlink()
    assert enter(tmp_path, replace(TRAINING, settings=other.record()), other, overwrite=False) is None
    assert list(tmp_path.iterdir()) == [], "nothing was learnt, so nothing is in the way"


def test_what_a_killed_run_was_writing_is_swept_away_and_nothing_else(tmp_path: Path) -> None:
    TRAINING.write(tmp_path)
    for name in (".model.keras.x1y2abcd.tmp", ".resume.npz.abcd1234.999999999.new", ".mine.tmp", "notes.tmp"):
        (tmp_path / name).write_bytes(b"half")
    enter(tmp_path, TRAINING, Settings(), overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.tmp", "notes.tmp", "training.json"]


def test_an_empty_or_absent_folder_is_made_ready(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "a" / "b"):
        assert enter(folder, TRAINING, Settings(), overwrite=False) is None
        assert folder.is_dir()


def test_settings_are_recorded_under_the_names_of_the_flags() -> None:
    record: dict[str, Any] = Settings(keep_line_breaks=True).record()
    assert record["keep_line_breaks"] is True
    assert Settings(**record) == Settings(keep_line_breaks=True)
    assert Settings(units=9).difference(Settings().record()) == "--units 256 (here 9)"
