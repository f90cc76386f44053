"""The batch: the rows that step together in one runner."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from ..batch_sampling import choose_each
from ..engines import Runner
from ..errors import NotFinite
from ..model import Model
from .prefixes import SHORTEST, Prefixes
from .row import Row

STEPS_BEFORE_SHRINKING = 16  # with half of the batch empty: moving the rest costs about one


class Batch:
    """Rows join and leave between any two steps; for one thread.

    Its size is a power of two or `limit`, so that few runners are ever made. A row that has left is
    stepped along as an empty place until another takes it, or until the batch shrinks.
    """

    def __init__(self, model: Model, limit: int) -> None:
        self._model = model
        self._limit = limit
        self.rows: list[Row] = []  # those that are in it
        self._places: list[Row | None] = []  # the same, and the empty places
        self._runner: Runner
        self._borrowed = ExitStack()
        self.written = 0  # tokens, since the beginning
        self.steps = 0  # likewise
        self._prefixes = Prefixes()
        self._steps_half_empty = 0  # since more than half of the places were taken

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def size(self) -> int:
        """Rows that each step is paid for, empty places among them."""
        return len(self._places)

    def join(self, joining: Sequence[Row]) -> None:
        """Take rows in, at the beginning of their prompts or where they rested; at most `limit` are in it."""
        for row in joining:
            if row.skips and (state := self._prefixes.find(row.client, row.prompt)) is not None:
                row.begin_at_last(state)
        count = len(self) + len(joining)
        self._arrange(max(self.size, self._fitting(count)), joining)
        for row in joining:
            row.turn, row.state = self.steps, None

    def rest(self, resting: Sequence[Row]) -> None:
        """Take rows out, each with the state from which it goes on when it joins again."""
        places = [self._places.index(row) for row in resting]
        for name, array in self._runner.get_state().items():
            for row, place in zip(resting, places, strict=True):
                row.state = {**(row.state or {}), name: array[place].copy()}
        self._leave(resting)

    def step(self) -> list[Row]:
        """Take one step with every row; returns those that are done, which have left."""
        left = [row for row in self.rows if row.cancelled]
        self._leave(left)
        self._shrink()
        if not self.rows:
            return left
        (x,), (y,) = self._runner.inputs.values(), self._runner.outputs.values()
        x[...] = [0 if row is None else row.token for row in self._places]
        self._runner.run()
        self.steps += 1
        if places := self._read(y):
            rows = (
                self.rows
                if len(places) == len(self.rows)
                else [row for p in places if (row := self._places[p])]
            )
            logits = y if len(places) == self.size else y[places]
            tokens = choose_each([row.sampler for row in rows], logits).tolist()
            for row, token, seen in zip(rows, tokens, logits, strict=True):
                try:
                    row.write(token, seen)
                except NotFinite as error:  # it ends alone: the others have texts of their own
                    row.fail(error, self._model.manifest.model)
            self.written += len(rows)
        done = [row for row in self.rows if row.finish]
        self._leave(done)
        return left + done

    def _read(self, y: NDArray[np.float32]) -> list[int]:
        """Let every row read its logits; returns the places of those that are to write now."""
        places = []
        for place, row in enumerate(self._places):
            if row is not None:
                try:
                    if row.read(y[place]):
                        places.append(place)
                except NotFinite as error:
                    row.fail(error, self._model.manifest.model)
        read = [
            (p, row)
            for p, row in enumerate(self._places)
            if row is not None and row.before_last and len(row.prompt) > SHORTEST
        ]
        states = self._runner.get_state() if read else {}
        for place, row in read:
            kept = {name: array[place].copy() for name, array in states.items()}
            self._prefixes.keep(row.client, row.prompt, kept)
        return places

    def clear(self) -> list[Row]:
        """Throw every row out, and return them."""
        rows, self.rows, self._places = self.rows, [], []
        self._borrowed.close()
        return rows

    def _leave(self, leaving: Sequence[Row]) -> None:
        if leaving:
            self._places = [None if row in leaving else row for row in self._places]
            self.rows = [row for row in self._places if row is not None]

    def _fitting(self, count: int) -> int:
        return min(1 << max(count - 1, 0).bit_length(), self._limit) if count else 0

    def _shrink(self) -> None:
        smaller = self._fitting(len(self))
        self._steps_half_empty = self._steps_half_empty + 1 if smaller < self.size else 0
        if not smaller:
            self.clear()
        elif self._steps_half_empty > STEPS_BEFORE_SHRINKING:
            self._arrange(smaller, ())

    def _arrange(self, size: int, joining: Sequence[Row]) -> None:
        """Move the rows into the first places of a runner of this size, and let others follow."""
        staying = [place for place, row in enumerate(self._places) if row is not None]
        before = self._runner.get_state() if staying else {}
        rows = [*self.rows, *joining]
        if size != self.size:
            borrowed = ExitStack()
            self._runner = borrowed.enter_context(self._model.runner(size))  # may fail, and nothing is moved
            self._borrowed.close()
            self._borrowed = borrowed
        state = {}
        for name, initial in self._model.initial_state.items():
            array = np.empty((size, *initial.shape), np.float32)
            array[...] = initial
            if staying:
                array[: len(staying)] = before[name][staying]
            for place, row in enumerate(joining, len(staying)):
                if row.state is not None:
                    array[place] = row.state[name]
            state[name] = array
        self._runner.set_state(state)
        self.rows, self._places = rows, [*rows, *[None] * (size - len(rows))]
        self._steps_half_empty = 0
