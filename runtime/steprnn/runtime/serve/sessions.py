"""Sessions: texts that go on from one request to the next, and outlive the process in a store."""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import StateError, UsageError
from ..model import Model
from ..session import first_bad
from ..streams.store import SQLite
from .errors import ApiError

NEW = "new"  # instead of an id: begin one
ID_BYTES = 24  # random ones: nobody guesses 192 bits
MOST = 10_000  # kept; each takes the model's states, 2.5 kB of the generator and 4 bytes a token of history
AGE = 30 * 24 * 3600.0  # seconds without a request after which one is forgotten
HISTORY = 4096  # tokens that a repetition penalty may look back
FORMAT = b"SES1"
HEAD = struct.Struct("<4s8sIddQIII")  # format, model, checksum, begun, used, tokens; sizes of what follows

States = Mapping[str, NDArray[np.float32]]  # of one row, `[size...]` by name


@dataclass(frozen=True)
class Head:
    """What is known of a session without its states."""

    model: bytes  # the first 8 of its hash
    created: float  # seconds since 1970
    used: float
    tokens: int  # read and written in all


@dataclass(frozen=True)
class Position:
    """Where a session stands."""

    states: States
    pending: Sequence[int]  # tokens that come after the states, and are not read yet; at least one
    history: Sequence[int]  # the latest tokens, those that are pending among them
    random: Sequence[int]  # the state of the generator, as `random.Random.getstate` has it


class Turn:
    """A request's hold on a session: nobody else has it until `release`."""

    def __init__(self, sessions: Sessions, name: str, head: Head, position: Position | None) -> None:
        self.name = name
        self.position = position  # None: it begins
        self._sessions = sessions
        self._head = head

    async def keep(self, position: Position, tokens: int) -> None:
        """It stands there now, so many tokens later; raises `ApiError` where that cannot be stored."""
        head = replace(self._head, used=time.time(), tokens=self._head.tokens + tokens)
        await self._sessions.put(self.name, head, position)

    def release(self) -> None:
        """Let others have it, as it was kept last."""
        self._sessions.busy.discard(self.name)


class Sessions:
    """The sessions of a store, by id. For one event loop; raises `StateError` where the file is no store."""

    def __init__(self, path: Path, model: Model, most: int = MOST, age: float = AGE) -> None:
        try:  # who knows an id may go on with its text
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise UsageError(f"cannot write {path} ({error.strerror}); choose another file") from None
        self._store = SQLite(path)
        self._model = model
        self._hash = bytes.fromhex(model.manifest.model[:16])
        self._most, self._age = most, age
        self._changed: dict[str, bytes | None] = {}  # what is to be stored; None: to be deleted
        self._storing = asyncio.Lock()
        self.busy: set[str] = set()
        rows = self._store.heads(HEAD.size)
        if not all(len(row) == HEAD.size and row.startswith(FORMAT) for _, row in rows):
            self._store.close()
            raise StateError(f"{path} has other things than sessions of this version; choose another file")
        heads = [(str(key), _head(row)) for key, row in rows]
        self._heads = dict(sorted(heads, key=lambda pair: pair[1].used))  # the latest last

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    async def begin(self, source: str | None) -> Turn:
        """A new session, at the beginning of a text or where another stands."""
        head = Head(self._hash, time.time(), time.time(), 0)
        position = None
        if source is not None:
            head = replace(self._known(source), created=head.created)
            position = await self._read(source)
        name = secrets.token_urlsafe(ID_BYTES)
        self.busy.add(name)
        return Turn(self, name, head, position)

    async def go_on(self, name: str) -> Turn:
        """A session for one request; raises `ApiError` where there is none, or another request has it."""
        head = self._known(name)
        if name in self.busy:
            raise ApiError(
                409,
                "another request goes on with this session; wait for its end, or fork it with `from`",
                param="session",
                code="session_busy",
            )
        self.busy.add(name)
        try:
            return Turn(self, name, head, await self._read(name))
        except BaseException:
            self.busy.discard(name)
            raise

    async def put(self, name: str, head: Head, position: Position) -> None:
        """Store where a session stands; it is in the file when this returns."""
        for state, array in position.states.items():
            if (bad := first_bad(array)) is not None:
                raise ApiError(500, f"state {state!r} holds {bad}; the session stays where it was")
        await self._store_all({name: self._packed(head, position)})
        self._heads.pop(name, None)
        self._heads[name] = head
        await self._store_all(dict.fromkeys(self._outdated()))

    async def delete(self, name: str) -> None:
        """Forget a session; raises `ApiError` where there is none, or a request has it."""
        self._known(name)
        if name in self.busy:
            raise ApiError(409, "a request goes on with this session; wait for its end", code="session_busy")
        del self._heads[name]
        await self._store_all({name: None})

    def described(self, name: str) -> dict[str, Any]:
        """What may be told of a session; raises `ApiError` where there is none."""
        head = self._known(name)
        told = {"created": int(head.created), "used": int(head.used), "tokens": head.tokens}
        return {"id": name, "object": "session"} | told

    def all(self) -> list[dict[str, Any]]:
        """The same of every one that this model can go on with, the one used last first."""
        return [self.described(name) for name, head in reversed(self._heads.items()) if self._is_ours(head)]

    def _is_ours(self, head: Head) -> bool:
        return head.model == self._hash and head.used > time.time() - self._age

    def _known(self, name: str) -> Head:
        head = self._heads.get(name)
        if head is None or head.used <= time.time() - self._age:
            raise ApiError(
                404,
                f'no such session: the server makes their ids, and begins one for "session": "{NEW}"; '
                "one that was not used for long is forgotten",
                param="session",
                code="session_not_found",
            )
        if head.model != self._hash:
            raise ApiError(
                409,
                f"the session is of another model than {self._model.manifest.model[:12]}; begin a new one",
                param="session",
                code="session_of_another_model",
            )
        return head

    def _outdated(self) -> list[str]:
        """Take those off the list that are too old or too many, the longest unused first."""
        oldest, free = time.time() - self._age, [name for name in self._heads if name not in self.busy]
        many = len(self._heads) - self._most
        out = [name for i, name in enumerate(free) if i < many or self._heads[name].used <= oldest]
        for name in out:
            del self._heads[name]
        return out

    async def _store_all(self, changed: Mapping[str, bytes | None]) -> None:
        """Store changes, together with those of others who wait for the file."""
        self._changed |= changed
        async with self._storing:
            if not any(name in self._changed for name in changed):  # somebody did it along with theirs
                return
            now, self._changed = self._changed, {}
            try:
                await asyncio.to_thread(self._write, now)
            except sqlite3.Error as error:
                raise ApiError(500, f"the session could not be stored ({error})") from None

    def _write(self, changed: Mapping[str, bytes | None]) -> None:
        self._store.delete([name for name, row in changed.items() if row is None])
        self._store.write((name, row) for name, row in changed.items() if row is not None)
        self._store.save()

    async def _read(self, name: str) -> Position:
        async with self._storing:
            rows = await asyncio.to_thread(self._store.read, [name])
        try:
            return self._unpacked(rows[name])
        except (KeyError, ValueError, struct.error):
            raise ApiError(500, "the session is damaged in the store; begin a new one") from None

    def _packed(self, head: Head, position: Position) -> bytes:
        states = [np.ravel(position.states[name]) for name in self._model.initial_state]
        history = position.history[-HISTORY:]
        numbers = [*position.pending, *history, *position.random]
        data = np.concatenate(states).astype("<f4").tobytes() + np.array(numbers, "<u4").tobytes()
        sizes = len(position.pending), len(history), len(position.random)
        times = head.created, head.used
        return HEAD.pack(FORMAT, head.model, zlib.crc32(data), *times, head.tokens, *sizes) + data

    def _unpacked(self, row: bytes) -> Position:
        *_, checksum, _, _, _, pending, history, generator = HEAD.unpack(row[: HEAD.size])
        data = row[HEAD.size :]
        if zlib.crc32(data) != checksum:
            raise ValueError("another checksum")
        states, at = {}, 0
        for name, initial in self._model.initial_state.items():
            flat = np.frombuffer(data, "<f4", initial.size, at).astype(np.float32)
            states[name] = flat.reshape(initial.shape)
            at += flat.nbytes
        numbers = np.frombuffer(data, "<u4", pending + history + generator, at).tolist()
        ends = pending, pending + history
        return Position(states, numbers[: ends[0]], numbers[ends[0] : ends[1]], numbers[ends[1] :])


def _head(row: bytes) -> Head:
    _, model, _, created, used, tokens, *_ = HEAD.unpack(row)
    return Head(model, created, used, tokens)
