"""Rows of files, in parts of a fixed size: the same parts however often they are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .records import Record, of_csv, of_json, of_text

if TYPE_CHECKING:
    import pyarrow

READERS = {".txt": of_text, ".csv": of_csv, ".jsonl": of_json, ".ndjson": of_json}
PARQUET = ".parquet"
KINDS = (*READERS, PARQUET)


@dataclass(frozen=True)
class Part:
    """Some rows of the input; `first` is the place of the first of them, from 0."""

    first: int
    rows: list[Record] | pyarrow.Table

    def __len__(self) -> int:
        return len(self.rows)


class Source:
    """A file, or a folder of files of one kind in the order of their names."""

    def __init__(self, path: Path, column: str) -> None:
        if not path.exists():
            raise UsageError(f"{path} does not exist; expected a file or a folder of rows")
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in KINDS) if path.is_dir() else [path]
        kinds = {p.suffix.lower() for p in found}
        if len(kinds) != 1 or not kinds <= {*KINDS}:
            told = ", ".join(sorted(kinds)) or "no such file"
            raise UsageError(f"{path} has {told}; expected files of one kind: {', '.join(KINDS)}")
        self.path = path
        self.kind = kinds.pop()
        self._files, self._column = found, column
        self._bytes = [file.stat().st_size for file in found]
        self._read = 0  # bytes

    @property
    def record(self) -> list[list[Any]]:
        """What tells this input from another: name, size and time of each file."""
        return [[p.name, s.st_size, s.st_mtime_ns] for p in self._files for s in [p.stat()]]

    @property
    def share(self) -> float:
        """How much was read, of 1."""
        return self._read / max(sum(self._bytes), 1)

    def parts(self, size: int) -> Iterator[Part]:
        """All rows; a part has at most `size` of them, and those of one file."""
        first = before = 0
        for file, length in zip(self._files, self._bytes, strict=True):
            for rows in self._tables(file, size) if self.kind == PARQUET else self._records(file, size):
                yield Part(first, rows)
                first += len(rows)
                self._read = min(self._read, before + length)
            before = self._read = before + length

    def _records(self, path: Path, size: int) -> Iterator[list[Record]]:
        with path.open("rb") as file:

            def lines() -> Iterator[bytes]:
                for line in file:
                    self._read += len(line)
                    yield line

            records = READERS[self.kind](lines(), self._column)
            try:
                while rows := list(islice(records, size)):
                    yield rows
            except UsageError as error:
                raise UsageError(f"{path}: {error}") from None

    def _tables(self, path: Path, size: int) -> Iterator[pyarrow.Table]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                names = file.schema_arrow.names
                if self._column not in names:
                    raise UsageError(
                        f"{path} has no column {self._column!r}; it has {', '.join(map(repr, names))}"
                    )
                total = max(file.metadata.num_rows, 1)
                for batch in file.iter_batches(size):
                    self._read += path.stat().st_size * len(batch) // total
                    yield pa.Table.from_batches([batch])
        except pa.ArrowException as error:
            told = " ".join(str(error).split())
            raise UsageError(f"{path} cannot be read as Parquet ({told})") from None
