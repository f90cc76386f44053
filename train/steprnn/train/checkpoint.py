"""The checkpoint folder: what a training run leaves behind; see docs/checkpoint-format.md."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from steprnn.runtime.atomic import tidy, write_bytes
from steprnn.runtime.errors import CheckpointError
from steprnn.runtime.files import (
    CHECKPOINT_FORMAT,
    HISTORY,
    MODEL,
    RESUME,
    TRAINING,
    VOCABULARY,
    read_record,
    write_record,
)

from .corpus import Corpus
from .settings import Settings

FILES = (TRAINING, RESUME, MODEL, VOCABULARY, HISTORY)

Epoch = dict[str, Any]  # epoch, loss, perplexity, seconds, characters_per_second, and held_out_* on request


@dataclass(frozen=True)
class Training:
    """What `training.json` holds: how the model came about, and how far it has come."""

    settings: dict[str, Any]
    corpus: dict[str, Any]  # name, sha256 of the prepared text in UTF-8, characters; never the text
    versions: dict[str, str]
    history: list[Epoch] = field(default_factory=list)
    best_epoch: int | None = None  # counted from 1; None before the first epoch is over
    finished: bool = False
    model_sha256: str | None = None  # None while training writes the model anew
    went_on_after: list[int] = field(default_factory=list)  # epochs, of finished runs that were given more

    @classmethod
    def of(cls, settings: Settings, corpus: Corpus, versions: dict[str, str]) -> Training:
        """The record of a run that is about to begin."""
        described = {"name": corpus.name, "sha256": corpus.sha256, "characters": len(corpus.text)}
        return cls(settings.record(), described, versions)

    def write(self, folder: Path) -> None:
        """Write `training.json`, at once or not at all."""
        record = asdict(self)
        if not self.went_on_after:
            del record["went_on_after"]  # most runs never do
        write_record(folder / TRAINING, CHECKPOINT_FORMAT, record, indent=1)

    @classmethod
    def read(cls, folder: Path) -> Training:
        """Read `training.json`; raises `CheckpointError` where it is none, or a newer one."""
        path = folder / TRAINING
        fix = "train again, or copy the whole folder again"
        record = read_record(path, CHECKPOINT_FORMAT, CheckpointError, fix)
        try:
            return cls(**record)
        except TypeError as error:
            raise CheckpointError(f"{path} is damaged ({error}); train again") from None

    def difference(self, other: Training, settings: Settings) -> str:
        """What `other`, a run with `settings`, would do otherwise; empty if nothing."""
        differences = [settings.difference(self.settings)]
        if self.corpus.get("sha256") != other.corpus["sha256"]:
            differences.append(f"corpus {self.corpus.get('name')} (here {other.corpus['name']})")
        return ", ".join(filter(None, differences))

    def advance(self, history: list[Epoch], best_epoch: int | None) -> Training:
        """The same run, some epochs later."""
        return replace(self, history=history, best_epoch=best_epoch)


def enter(folder: Path, training: Training, settings: Settings, *, overwrite: bool) -> Training | None:
    """Make the folder ready for a run; returns the record of the run that is there and goes on, if any.

    A finished one has the same settings, or fewer epochs and otherwise the same. Raises `CheckpointError`
    where anything else would be lost: a run with other settings, or a folder that is no checkpoint.
    `overwrite` throws away a checkpoint, and only that.
    """
    check(folder, training, settings, overwrite=overwrite)
    if folder.is_dir():
        for name in FILES:
            tidy(folder / name)
        if (folder / TRAINING).exists():
            if overwrite:
                _clear(folder)
            else:
                return _continue(folder, training, settings)
    folder.mkdir(parents=True, exist_ok=True)
    return None


def check(folder: Path, training: Training, settings: Settings, *, overwrite: bool) -> None:
    """Raise what `enter` raises, and change nothing."""
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; expected a folder: give another --out")
    if not folder.is_dir():
        return
    if not (folder / TRAINING).exists():
        if not _is_beginning(folder):
            raise CheckpointError(f"{folder} holds other files and no checkpoint; give another --out")
    elif not overwrite:
        there = Training.read(folder)
        difference = there.difference(training, settings)
        if difference and not _is_nothing(folder, there) and not _goes_on(there, training, settings):
            state = "a finished run" if there.finished else "an unfinished run"
            instead = "give another --out"
            if not there.finished and _goes_on(replace(there, finished=True), training, settings):
                least, most = there.settings["epochs"], settings.epochs
                instead = f"end it with --epochs {least}, which --epochs {most} then goes on from, {instead}"
            raise CheckpointError(
                f"{folder} holds {state} with other settings: {difference}; "
                f"{instead}, or throw it away with --overwrite"
            )


def _is_nothing(folder: Path, there: Training) -> bool:
    """Whether a run ended before anything was learnt."""
    return not there.finished and not any((folder / name).exists() for name in (RESUME, MODEL))


def _goes_on(there: Training, training: Training, settings: Settings) -> bool:
    same = there.corpus.get("sha256") == training.corpus["sha256"]
    return there.finished and same and settings.goes_on(there.settings)


def store(folder: Path, training: Training, model: bytes) -> str:
    """Write the model and the record that names its hash, which is returned."""
    digest = hashlib.sha256(model).hexdigest()
    write_bytes(folder / MODEL, model)
    replace(training, model_sha256=digest).write(folder)
    return digest


def _clear(folder: Path) -> None:
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def _continue(folder: Path, training: Training, settings: Settings) -> Training | None:
    there = Training.read(folder)
    if there.difference(training, settings) and _is_nothing(folder, there):
        _clear(folder)
        return None
    if not there.finished:
        return there
    (folder / RESUME).unlink(missing_ok=True)
    model = folder / MODEL
    if not model.is_file() or hashlib.sha256(model.read_bytes()).hexdigest() != there.model_sha256:
        raise CheckpointError(f"{model} is missing or altered; train again with --overwrite")
    return there


def _is_beginning(folder: Path) -> bool:
    """Whether a folder is empty, or holds what a run that ended before its first record leaves."""
    names = {path.name for path in folder.iterdir()}
    return not names or (VOCABULARY in names and names <= {VOCABULARY, MODEL, RESUME, HISTORY})
