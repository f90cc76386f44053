"""The states of the streams that were used last, a row for each, and the way of the others to a store."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import StateError, UsageError
from .numbers import NONE, Numbers
from .store import Key, Store

AT_ONCE = 64  # a share of one in so many streams makes room for others together
HEAD = 12  # bytes before the states of a row in a store: 8 of the model's hash, 4 of a checksum


class Memory:
    """`table`, float32 `[most, width]`, has a row for each key; `begin` is that of a stream that begins."""

    def __init__(self, model: str, begin: NDArray[np.float32], most: int, store: Store) -> None:
        self.most = most
        self.store = store
        self.table = np.zeros((most, len(begin)), np.float32)
        # Rows as one thing each, which are put in half the time.
        self._whole = self.table.view((np.void, begin.nbytes))[:, 0]
        self._model = model
        self._head = bytes.fromhex(model[:16])
        self._begin = begin
        self._used = np.zeros(most, np.int64)  # when a slot was used last; 0 where it is free
        self._dirty = np.zeros(most, np.bool_)  # whether the store does not have what a slot has
        self._keys: list[Key] = [0] * most
        self._slots: dict[Key, int] = {}  # of texts and bytes
        self._numbers = Numbers(most)
        self._free = [*range(most - 1, -1, -1)]
        self._time = 0

    def __len__(self) -> int:
        return self.most - len(self._free)

    def has(self, key: Key) -> bool:
        """Whether there is a stream of this key, here or in the store."""
        return bool(self._lookup([checked(key)])[0] >= 0) or checked(key) in self.store.read([checked(key)])

    def find(self, keys: Sequence[Key] | NDArray[Any]) -> NDArray[np.intp]:
        """The slots of at most `most` keys, which stay until the next call; a key that is new begins.

        Raises `UsageError` where a key is none, and `StateError` where the store has it otherwise.
        """
        self._time += 1
        slots = self._lookup(keys)
        if (missing := slots < 0).any():
            self._used[slots[~missing]] = self._time  # these are not to go
            self._bring([*dict.fromkeys(checked(keys[i]) for i in missing.nonzero()[0].tolist())])
            slots = self._lookup(keys)
        self._used[slots] = self._time
        return slots

    def put(self, slots: NDArray[np.intp], rows: NDArray[np.float32]) -> None:
        """Take states over, `[slots, width]`."""
        self._whole[slots] = np.ascontiguousarray(rows, np.float32).view(self._whole.dtype)[:, 0]
        self._dirty[slots] = True

    def delete(self, key: Key) -> None:
        """Forget a stream, here and in the store."""
        key = checked(key)
        if (slot := int(self._lookup([key])[0])) >= 0:
            self._release([slot])
        self.store.delete([key])

    def save(self) -> None:
        """Write what the store does not have, and have it keep all."""
        (slots,) = (self._dirty & (self._used > 0)).nonzero()
        for i in range(0, len(slots), 2**14):
            self._spill(slots[i : i + 2**14])
        self.store.save()

    def _lookup(self, keys: Sequence[Key] | NDArray[Any]) -> NDArray[np.intp]:
        """The slots of keys; -1 for those that have none."""
        if len(keys) and isinstance(keys[0], int | np.integer):
            numbers = np.asarray(keys)
            if numbers.dtype.kind == "i" or (numbers.dtype.kind == "u" and numbers.max() < 2**63):
                return self._numbers.find(numbers.astype(np.int64))
        try:
            slots = list(map(self._slots.get, keys, repeat(NONE)))
        except TypeError:  # one of them cannot be hashed, and is none
            slots = [self._slots.get(checked(key), NONE) for key in keys]
        if NONE in slots:  # among texts there may be numbers
            for i, key in enumerate(keys):
                if slots[i] == NONE and type(checked(key)) is int:
                    slots[i] = int(self._numbers.find(np.array([key], np.int64))[0])
        return np.array(slots, np.intp)

    def _assign(self, keys: Sequence[Key], slots: Sequence[int]) -> None:
        pairs = [*zip(keys, slots, strict=True)]
        for key, slot in pairs:
            self._keys[slot] = key
        self._slots.update(pair for pair in pairs if type(pair[0]) is not int)
        numbers = [(key, slot) for key, slot in pairs if isinstance(key, int)]
        self._numbers.add([key for key, _ in numbers], [slot for _, slot in numbers])

    def _release(self, slots: Sequence[int]) -> None:
        keys = [self._keys[slot] for slot in slots]
        for key in keys:
            if not isinstance(key, int):
                del self._slots[key]
        self._numbers.remove([key for key in keys if isinstance(key, int)])
        self._used[slots] = 0
        self._free.extend(slots)

    def _bring(self, keys: Sequence[Key]) -> None:
        """Give slots to keys that have none, with their states from the store, or those of a beginning."""
        rows = {key: self._unpacked(key, row) for key, row in self.store.read(keys).items()}
        if len(self._free) < len(keys):
            self._make_room(len(keys) - len(self._free))
        slots = [self._free.pop() for _ in keys]
        self.table[slots] = self._begin
        self._dirty[slots] = True
        self._assign(keys, slots)
        for key, slot in zip(keys, slots, strict=True):
            if key in rows:
                self.table[slot], self._dirty[slot] = rows[key], False
        self._used[slots] = self._time

    def _make_room(self, least: int) -> None:
        """Free slots, of the streams that were not used for longest."""
        (slots,) = ((self._used > 0) & (self._used < self._time)).nonzero()
        count = max(least, self.most // AT_ONCE)
        if count < len(slots):
            slots = slots[np.argpartition(self._used[slots], count)[:count]]
        self._spill(slots[self._dirty[slots]])
        self._release(slots.tolist())

    def _spill(self, slots: NDArray[np.intp]) -> None:
        """Write the states of slots to the store."""
        rows = self.table[slots].astype("<f4", copy=False)
        self.store.write(
            (self._keys[slot], self._packed(row.tobytes())) for slot, row in zip(slots, rows, strict=True)
        )
        self._dirty[slots] = False

    def _packed(self, data: bytes) -> bytes:
        return self._head + zlib.crc32(data).to_bytes(4, "little") + data

    def _unpacked(self, key: Key, row: bytes) -> NDArray[np.float32]:
        data = row[HEAD:]
        if row[:8] != self._head:
            raise StateError(
                f"the state of key {key!r} belongs to another model than {self._model[:12]}; "
                "give this model a store of its own, or delete the key"
            )
        if len(data) != self._begin.nbytes or zlib.crc32(data).to_bytes(4, "little") != row[8:HEAD]:
            raise StateError(f"the state of key {key!r} is damaged in the store; delete the key")
        return np.frombuffer(data, "<f4").astype(np.float32)


def checked(key: Any) -> Key:
    """The key as a store has it; raises `UsageError` where it is none."""
    plain = key.item() if isinstance(key, np.generic) else key
    if type(plain) not in (str, int, bytes):
        raise UsageError(f"the key {key!r} is of type {type(key).__name__}; expected str, int or bytes")
    if type(plain) is int and not -(2**63) <= plain < 2**63:
        raise UsageError(f"the key {key!r} is beyond 64 bits; expected -2**63 to 2**63 - 1, or a str")
    if type(plain) is str and any("\ud800" <= c <= "\udfff" for c in plain):
        raise UsageError(f"the key {key!r} holds half of a surrogate pair; expected text")
    found: Key = plain
    return found
