"""Where the states of streams are kept that do not fit into memory, or are to outlive a process."""

from __future__ import annotations

import sqlite3
import sys
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from ..errors import StateError

Key = str | int | bytes

TABLE = "CREATE TABLE IF NOT EXISTS streams (key NOT NULL PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID"
# A free-threaded Python lets go of a statement once the thread that prepared it runs again, and SQLite of a
# closed file once its statements are gone: there none is kept. Elsewhere that costs 3 us a query.
STATEMENTS = 128 if getattr(sys, "_is_gil_enabled", lambda: True)() else 0
AT_ONCE = 500  # keys in one query; SQLite took 999 before 3.32


class Store(Protocol):
    """Bytes by key. `Streams` calls it from one thread at a time."""

    def read(self, keys: Sequence[Key]) -> dict[Key, bytes]:
        """What was written last under those of the keys that there are."""

    def write(self, rows: Iterable[tuple[Key, bytes]]) -> None:
        """Write some; they need not outlive the process before `save`."""

    def delete(self, keys: Sequence[Key]) -> None:
        """Forget keys; some may not be there."""

    def save(self) -> None:
        """All that was written until now is to outlive the process, at once or not at all."""

    def close(self) -> None:
        """Let go of the file or the connection; what was not saved is lost."""


class SQLite:
    """A file of SQLite, which is always as it was at the last `save`; without a path, one for this process.

    Raises `StateError` where the file is no store, cannot be opened, or is open already.
    """

    def __init__(self, path: str | Path = "") -> None:
        self.path = path
        try:
            self._database = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=1, cached_statements=STATEMENTS
            )
        except sqlite3.Error as error:
            words = f"{path} cannot be opened ({error}); expected a file, in a folder that there is"
            raise StateError(words) from None
        weakref.finalize(self, self._database.close)  # else Python warns of a store that is just dropped
        try:
            self._database.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute(TABLE)
            columns = [row[1] for row in self._database.execute("PRAGMA table_info(streams)")]
            if columns != ["key", "state"]:
                raise sqlite3.DatabaseError(f"its table streams has columns {columns}")
        except sqlite3.DatabaseError as error:
            self._database.close()
            if "locked" in str(error):
                words = (
                    f"{path} is open already, here or in another process; close it there, or choose another"
                )
                raise StateError(words) from None
            raise StateError(f"{path} is not a store of streams ({error}); choose another file") from None

    def read(self, keys: Sequence[Key]) -> dict[Key, bytes]:
        """What was written last under those of the keys that there are."""
        found: dict[Key, bytes] = {}
        for i in range(0, len(keys), AT_ONCE):
            some = keys[i : i + AT_ONCE]
            marks = ",".join("?" * len(some))
            found.update(self._database.execute(f"SELECT * FROM streams WHERE key IN ({marks})", some))
        return found

    def heads(self, size: int) -> list[tuple[Key, bytes]]:
        """Every key, with the first bytes of what was written under it."""
        return self._database.execute("SELECT key, substr(state, 1, ?) FROM streams", (size,)).fetchall()

    def write(self, rows: Iterable[tuple[Key, bytes]]) -> None:
        """Write some, which are in the file after `save`."""
        self._database.executemany("REPLACE INTO streams VALUES (?, ?)", rows)

    def delete(self, keys: Sequence[Key]) -> None:
        """Forget keys; some may not be there."""
        self._database.executemany("DELETE FROM streams WHERE key = ?", [(key,) for key in keys])

    def save(self) -> None:
        """Put all that was written until now into the file, at once or not at all."""
        self._database.execute("COMMIT")
        self._database.execute("BEGIN IMMEDIATE")

    def close(self) -> None:
        """Close the file; what was not saved is lost."""
        self._database.close()
