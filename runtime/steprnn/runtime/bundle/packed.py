"""A bundle that is held in memory, with as much of `pathlib.Path` as its readers need."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO


class Packed:
    """A file or folder of a zip file, whose files were compared with the manifest when they were read.

    Nothing of it is on disk, so that a process that is killed leaves nothing there.
    """

    def __init__(self, archive: Path, files: Mapping[str, bytes], inside: str = "") -> None:
        self._archive = archive
        self._files = files  # of the whole archive, by name
        self._inside = inside

    def __truediv__(self, name: str) -> Packed:
        return Packed(self._archive, self._files, f"{self._inside}/{name}" if self._inside else name)

    def __str__(self) -> str:
        return str(self._archive / self._inside)

    @property
    def suffix(self) -> str:
        """The ending of its name."""
        return (self._archive / self._inside).suffix

    def exists(self) -> bool:
        """Whether it was read."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether it is a file that was read."""
        return self._inside in self._files

    def is_dir(self) -> bool:
        """Whether it is the bundle, or a folder of one of its files."""
        return not self._inside or any(name.startswith(f"{self._inside}/") for name in self._files)

    def read_bytes(self) -> bytes:
        """What the file holds; raises `FileNotFoundError` where it was not read."""
        try:
            return self._files[self._inside]
        except KeyError:
            raise FileNotFoundError(str(self)) from None

    def open(self, mode: str = "rb") -> BinaryIO:
        """The file, to be read in bytes."""
        return io.BytesIO(self.read_bytes())


Place = Path | Packed
