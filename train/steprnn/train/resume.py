"""The state of an unfinished run: one file, written at once, from which training goes on bit for bit."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steprnn.runtime.atomic import write_bytes
from steprnn.runtime.errors import CheckpointError

Arrays = list[NDArray[Any]]
PARTS = ("variables", "optimizer", "metrics", "best_weights")

FORMAT = "steprnn.resume"
VERSION = 2


@dataclass(frozen=True)
class Progress:
    """Everything about a run that is not an array."""

    history: list[dict[str, Any]]  # as long as the epochs that are over
    best: float | None  # the monitored loss; None within the first epoch
    best_epoch: int  # counted from 0
    wait: int  # epochs since the best one
    step: int = 0  # windows that were read of the epoch that is under way
    seconds: float = 0.0  # that they took
    before: int = 0  # epochs of a finished run that this one went on from, which the optimizer did not see


@dataclass(frozen=True)
class State:
    """A run between two steps: the variables of trainer, optimizer and metrics, and the best weights."""

    progress: Progress
    variables: Arrays
    optimizer: Arrays
    metrics: Arrays
    best_weights: Arrays  # none within the first epoch

    def write(self, path: Path) -> None:
        """Replace `path` at once, so that a kill leaves this state or the one before."""
        head = {"format": FORMAT, "version": VERSION, **asdict(self.progress)}
        arrays = {"head": np.frombuffer(json.dumps(head).encode("utf-8"), np.uint8)}
        for name in PARTS:
            arrays |= {f"{name}/{number:04}": array for number, array in enumerate(getattr(self, name))}
        stream = io.BytesIO()
        np.savez(stream, **arrays)  # type: ignore[arg-type] # its keywords are arrays but for one
        write_bytes(path, stream.getvalue())

    @classmethod
    def read(cls, path: Path) -> State | None:
        """The state in `path`, None where nothing has been kept; raises `CheckpointError` if damaged."""
        damaged = f"{path} is damaged ({{}}); begin again with --overwrite"
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in sorted(file.files)}
            head = json.loads(arrays.pop("head", np.zeros(0, np.uint8)).tobytes() or b"{}")
        except FileNotFoundError:
            return None
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise CheckpointError(damaged.format(error)) from None
        if not isinstance(head, dict) or (head.pop("format", None), head.pop("version", None)) != (
            FORMAT,
            VERSION,
        ):
            raise CheckpointError(f"{path} was not written by this steprnn; begin again with --overwrite")
        parts: dict[str, Arrays] = {name: [] for name in PARTS}
        try:
            for name, array in arrays.items():
                parts[name.split("/")[0]].append(array)
            return cls(Progress(**head), **parts)
        except (KeyError, TypeError) as error:
            raise CheckpointError(damaged.format(error)) from None
