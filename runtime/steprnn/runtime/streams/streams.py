"""Streams of a model by key, of which those that are given together step together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import NotFinite, StateError, UsageError, check_whole, wrong_type
from ..session import Session, State, Steppable, check_state, checked_inputs, vdot
from .memory import Memory, checked
from .store import Key, SQLite, Store

# That step together: more are no faster, and what they read and write leaves the cache.
MOST_ROWS, MOST_BYTES = 1024, 2**19

Rows = slice | NDArray[np.intp]


class Streams:
    """A state for each key, in memory for the `most` that were used last, the others in a store.

    Made by `Model.streams`. For one thread at a time.
    """

    def __init__(
        self, model: Steppable, most: int = 100_000, store: Store | str | Path | None = None
    ) -> None:
        step = model.manifest.step
        if model.manifest.static:
            names = ", ".join(t.name for t in model.manifest.static)
            raise UsageError(f"the model has static inputs, {names}: step session(static={{...}})")
        if step.nexts:  # of a graph file: its shapes hold for one batch
            raise UsageError("a graph file has no streams, as its batch is fixed; export a bundle")
        if not step.states:
            raise UsageError("the model has no state, so that it has no streams; step a session")
        check_whole("most", most, 1)
        if store is not None and not isinstance(store, str | Path) and not hasattr(store, "read"):
            raise wrong_type("store", store, "a path or a Store")
        begin = np.concatenate([array.ravel() for array in model.begin({}).values()])
        kept = SQLite(store or "") if store is None or isinstance(store, str | Path) else store
        self._model = model
        self._memory = Memory(model.manifest.model, begin, most, kept)
        ends = np.cumsum([t.size for t in step.states]).tolist()
        self._places = {
            t.name: (slice(end - t.size, end), t) for t, end in zip(step.states, ends, strict=True)
        }
        row = 4 * sum(t.size for t in (*step.inputs, *step.states, *step.outputs))
        self._rows = min(MOST_ROWS, most, max(64, 1 << (MOST_BYTES // row).bit_length() - 1))
        self._turn = np.zeros(most, np.intp)
        # Written anew in each step, the first with a row for each key that was ever given together: memory of
        # this size that is got anew comes by pages, each with a fault.
        self._before, self._after = (np.zeros((self._rows, len(begin)), np.float32) for _ in range(2))
        self._floats = [t.name for t in step.stepped if np.dtype(t.dtype).kind == "f"]

    def __repr__(self) -> str:
        held = f"{len(self._memory):,} of at most {self._memory.most:,} in memory"
        return f"<Streams of model {self._model.manifest.model[:8]}: {held}>"

    def step(
        self, keys: Sequence[Key] | NDArray[Any], x: ArrayLike | Mapping[str, ArrayLike]
    ) -> NDArray[np.float32] | dict[str, NDArray[np.float32]]:
        """One time step of each of the keys, in the order given; a key that is new begins a stream.

        `keys` are texts, whole numbers or bytes. `x` has a row for each: tokens `[keys]`, frames
        `[keys, features...]`, or a dict of such by name. `y` is float32 `[keys, ...]`, or a dict by name. A
        key that stands twice takes two steps, in that order. Raises what `Session.step` raises, and
        `StateError` where the store has no state of this model under a key; no stream has taken a step then.
        """
        if isinstance(keys, str | bytes) or not hasattr(keys, "__len__"):
            raise wrong_type("keys", keys, "a list of them, with a row of x for each")
        if isinstance(keys, np.ndarray) and keys.dtype.kind not in "iu":
            keys = keys.tolist()
        spec, count = self._model.manifest.step, len(keys)
        named = x if isinstance(x, Mapping) else {spec.stepped[0].name: x}
        arrays = checked_inputs(named, spec.stepped, count)
        outputs = {t.name: np.empty(t.array_shape(count), np.float32) for t in spec.outputs}
        if len(self._before) < count + self._rows:
            self._before = np.zeros((count + self._rows, self._before.shape[1]), np.float32)
        undo: list[tuple[Rows, NDArray[np.float32]]] = []
        done = 0
        try:
            for i in range(0, count, self._memory.most):
                slots = self._memory.find(keys[i : i + self._memory.most])
                for chunk, rows in self._chunks(slots, i):
                    before = self._before[done : done + self._rows]
                    after = self._stepped(chunk, rows, before, arrays, outputs, keys)
                    undo.append((rows, before[: len(chunk)]))
                    done += len(chunk)
                    self._memory.put(chunk, after)
        except BaseException:
            for rows, before in reversed(undo):
                several = keys[rows] if isinstance(rows, slice) else [keys[row] for row in rows]
                self._memory.put(self._memory.find(several), before)
            raise
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def __contains__(self, key: Key) -> bool:
        return self._memory.has(key)

    def __iter__(self) -> NoReturn:  # else Python would ask for the keys 0, 1, ...
        raise UsageError(
            "streams do not list their keys, which a store may not know; look one up with streams[key]"
        )

    def __getitem__(self, key: Key) -> State:
        """The state of a stream, a copy, which a session takes up; raises `KeyError` where there is none."""
        if key not in self:
            raise KeyError(key)
        row = self._memory.table[self._memory.find([key])]
        return State(self._model.manifest.model, self._split(row))

    def __setitem__(self, key: Key, state: State) -> None:
        """Go on from a state; raises `StateError` where it belongs to another model or has several rows."""
        check_state(state)
        tensors = Session(self._model, state).state.tensors
        if any(len(array) != 1 for array in tensors.values()):
            raise StateError("this state has several rows; expected that of one stream")
        self._memory.put(self._memory.find([key]), self._joined(tensors, 1))

    def __delitem__(self, key: Key) -> None:
        """End a stream: its key begins another. One that there is not is no error."""
        self._memory.delete(key)

    def save(self) -> None:
        """Put all states as they are now into the store, at once: another process goes on from there."""
        self._memory.save()

    def close(self) -> None:
        """Let go of the store; what was stepped since the last `save` is lost."""
        self._memory.store.close()

    def __enter__(self) -> Streams:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _chunks(self, slots: NDArray[np.intp], first: int) -> Iterator[tuple[NDArray[np.intp], Rows]]:
        """Slots that step together, none twice, with where their rows are; `first` is where all of them are.

        The steps of a slot that stands several times come in order.
        """
        places = np.arange(len(slots))
        self._turn[slots] = places
        if (self._turn[slots] == places).all():
            for i in range(0, len(slots), self._rows):
                chunk = slots[i : i + self._rows]
                yield chunk, slice(first + i, first + i + len(chunk))
            return
        order = np.argsort(slots, kind="stable")
        begins = np.append(True, np.diff(slots[order]) != 0)
        number = np.empty_like(order)  # how often the slot stood before
        number[order] = places - np.maximum.accumulate(np.where(begins, places, 0))
        for turn in range(number.max() + 1):
            (now,) = (number == turn).nonzero()
            for i in range(0, len(now), self._rows):
                chunk = now[i : i + self._rows]
                yield slots[chunk], first + chunk

    def _stepped(
        self,
        slots: NDArray[np.intp],
        rows: Rows,
        before: NDArray[np.float32],
        arrays: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[np.float32]],
        keys: Sequence[Key] | NDArray[Any],
    ) -> NDArray[np.float32]:
        """The states after a step of some slots, `[slots, width]`; what comes out is put into `outputs`.

        Those before it are put into the first rows of `before`, which has as many as step together.
        The rows that fill the engine's batch up to one of few sizes go nowhere: each size is set up once.
        """
        count = len(slots)
        with self._model.runner(min(self._rows, 1 << (count - 1).bit_length())) as runner:
            for name, x in runner.inputs.items():
                x[:count] = arrays[name][rows]
                x[count:] = x[0]
            before = before[: len(x)]
            self._memory.table.take(slots, axis=0, out=before[:count], mode="clip")  # else it is buffered
            before[count:] = before[0]
            runner.set_state(self._split(before))
            runner.run()
            states = {name: array[:count] for name, array in runner.get_state().items()}
            for name, y in runner.outputs.items():
                outputs[name][rows] = y[:count]
                if np.isnan(y[:count].max()):
                    raise self._not_finite(f"output {name!r}", np.isnan(y[:count]), rows, keys)
        for name in self._floats:
            given = arrays[name][rows]
            if not vdot(given, given) < inf:
                for state, array in states.items():
                    if (bad := ~np.isfinite(array)).any():
                        raise self._not_finite(f"state {state!r}", bad, rows, keys)
        return self._joined(states, count)

    def _split(self, table: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """States by name, `[rows, size...]`, of rows of the memory."""
        return {
            name: table[:, at].reshape(t.array_shape(len(table))) for name, (at, t) in self._places.items()
        }

    def _joined(self, states: Mapping[str, NDArray[np.float32]], count: int) -> NDArray[np.float32]:
        """The inverse of `_split`."""
        if len(states) == 1:
            return next(iter(states.values())).reshape(count, -1)
        for name, (at, _) in self._places.items():
            self._after[:count, at] = states[name].reshape(count, -1)
        return self._after[:count]

    def _not_finite(
        self, what: str, bad: NDArray[np.bool_], rows: Rows, keys: Sequence[Key] | NDArray[Any]
    ) -> NotFinite:
        row = np.arange(len(keys))[rows][bad.reshape(len(bad), -1).any(axis=1).argmax()]
        return NotFinite(f"{what} of key {checked(keys[row])!r} is no number", self._model.manifest.model)
