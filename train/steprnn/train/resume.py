"""The state of an unfinished run: one file, written at once, from which training goes on bit for bit."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steprnn.runtime.atomic import write_bytes
from steprnn.runtime.errors import CheckpointError

Arrays = list[NDArray[Any]]

FORMAT = "steprnn.resume"
VERSION = 1


@dataclass(frozen=True)
class Progress:
    """Everything about a run that is not an array."""

    history: list[dict[str, Any]]  # as long as the epochs that are over
    best: float  # the monitored loss
    best_epoch: int  # counted from 0
    wait: int  # epochs since the best one


@dataclass(frozen=True)
class State:
    """A run at the end of an epoch: the variables of trainer and optimizer, and the best weights so far."""

    progress: Progress
    variables: Arrays
    optimizer: Arrays
    best_weights: Arrays

    def write(self, path: Path) -> None:
        """Replace `path` at once, so that a kill leaves this state or the one before."""
        head = {"format": FORMAT, "version": VERSION, **asdict(self.progress)}
        arrays = {"head": np.frombuffer(json.dumps(head).encode("utf-8"), np.uint8)}
        for name in ("variables", "optimizer", "best_weights"):
            arrays |= {f"{name}/{number:04}": array for number, array in enumerate(getattr(self, name))}
        stream = io.BytesIO()
        np.savez(stream, **arrays)  # type: ignore[arg-type] # its keywords are arrays but for one
        write_bytes(path, stream.getvalue())

    @classmethod
    def read(cls, path: Path) -> State | None:
        """The state in `path`, None where no epoch has been kept; raises `CheckpointError` if damaged."""
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in sorted(file.files)}
        except FileNotFoundError:
            return None
        except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{path} is damaged ({error}); begin again with --overwrite") from None
        head = json.loads(arrays.pop("head", np.zeros(0, np.uint8)).tobytes() or b"{}")
        if (head.pop("format", None), head.pop("version", None)) != (FORMAT, VERSION):
            raise CheckpointError(f"{path} was not written by this steprnn; begin again with --overwrite")
        parts: dict[str, Arrays] = {"variables": [], "optimizer": [], "best_weights": []}
        for name, array in arrays.items():
            parts[name.split("/")[0]].append(array)
        return cls(Progress(**head), **parts)
