"""The batch: the rows that step together in one runner."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from ..engines import Runner
from ..engines.native.text import NativeSampler
from ..errors import NotFinite
from ..model import Model
from ..sampling.batch import NO_TOKEN, choose_each
from ..sampling.sampler import Sampler
from .prefixes import Prefixes, States
from .row import Row

STEPS_BEFORE_SHRINKING = 16  # with half of the batch empty: moving the rest costs about one
KEPT = 64  # steps whose tokens are kept before each row is told of its own


class Batch:
    """Rows join and leave between any two steps; for one thread.

    Its size is a power of two or `limit`, so that few runners are ever made. A row that has left is
    stepped along as an empty place until another takes it, or until the batch shrinks.

    Most rows are plain (`Row.is_plain`): telling each of every token took half as long as the engine. The
    tokens of the last steps stand in a table, with a column for each place, and a row is told of its own
    when somebody asks for them (`catch_up`), when it is done, and when the table is full.
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
        self._plain: list[int] = []  # the places of rows that are, in order
        self._samplers: list[Sampler | NativeSampler] = []  # theirs
        self._others: list[Row] = []
        self._make_tables(0)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def size(self) -> int:
        """Rows that each step is paid for, empty places among them."""
        return len(self._places)

    def join(self, joining: Sequence[Row]) -> None:
        """Take rows in, at the beginning of their prompts or where they rested; at most `limit` are in it."""
        for row in joining:
            if row.skips and (state := self._known(row)) is not None:
                row.begin_at_last(state)
        if (size := self._fitting(len(self) + len(joining))) > self.size:
            self._resize(size)
        free = [place for place, row in enumerate(self._places) if row is None]
        state = self._runner.get_state()
        for place, row in zip(free, joining, strict=False):
            begin = self._model.initial_state if row.state is None else row.state
            for name, array in state.items():
                array[place] = begin[name]
            self._take_in(row, place)
            row.turn, row.state = self.steps, None
        self._runner.set_state(state)
        self._sort()

    def _known(self, row: Row) -> States | None:
        """The states before the last token of a row's prompt, where another has read it."""
        if row.leader is not None and row.leader.last is not None:
            return row.leader.last
        return self._prefixes.find(row.client, row.prompt)

    def rest(self, resting: Sequence[Row]) -> None:
        """Take rows out, each with the state from which it goes on when it joins again."""
        for row in resting:
            self.catch_up(row)
        self._save(resting)
        self._leave(resting)

    def _save(self, rows: Sequence[Row]) -> None:
        """Give rows the states that they have."""
        state = self._runner.get_state()
        for row in rows:
            row.state = {name: array[row.place].copy() for name, array in state.items()}

    def catch_up(self, row: Row) -> None:
        """Tell a row in the batch of the tokens that it does not know of."""
        begin = self._begins[row.place]
        if row.is_plain and begin < self._kept:
            row.take(self._table[begin : self._kept, row.place].tolist())
            self._begins[row.place] = self._kept

    def step(self) -> list[Row]:
        """Take one step with every row; returns those that are done, which have left."""
        left = [row for row in self.rows if row.cancelled]
        self._leave(left)
        self._shrink()
        if not self.rows:
            return left
        (x,), (y,) = self._runner.inputs.values(), self._runner.outputs.values()
        x[...] = self._next
        self._runner.run()
        self.steps += 1
        speaking = self._read(y) if self._others else []
        self._write(y, speaking)
        self._table[self._kept] = self._next
        self._kept += 1
        for row in speaking:
            if row.is_plain:
                self._take_in(row, row.place)
        if self._kept == KEPT or self.steps == self._end:
            self._tell_all()
        done = [row for row in self.rows if row.finish]
        if any(row.keeps for row in done):
            self._save([row for row in done if row.keeps])
        if done:
            self._leave(done)
        elif speaking:
            self._sort()
        return left + done

    def clear(self) -> list[Row]:
        """Throw every row out, and return them."""
        self._tell_all()
        rows, self._places = self.rows, []
        self._sort()
        self._make_tables(0)
        self._borrowed.close()
        return rows

    def _read(self, y: NDArray[np.float32]) -> list[Row]:
        """Let the rows that are not plain read their logits; returns those that are to write now."""
        speaking = []
        for row in self._others:
            try:
                if row.read(y[row.place]):
                    speaking.append(row)
            except NotFinite as error:
                row.fail(error, self._model.manifest.model)
            self._next[row.place] = row.token
        read = [row for row in self._others if row.before_last and row.is_wanted_later]
        states = self._runner.get_state() if read else {}
        for row in read:
            row.last = {name: array[row.place].copy() for name, array in states.items()}
            if row.begins:
                self._prefixes.keep(row.client, row.prompt, row.last)
        return speaking

    def _write(self, y: NDArray[np.float32], speaking: Sequence[Row]) -> None:
        """Choose a token for each plain row and each of these."""
        places, samplers = self._plain, self._samplers
        if speaking:
            rows = sorted([*speaking, *(row for row in self.rows if row.is_plain)], key=lambda row: row.place)
            places, samplers = [row.place for row in rows], [row.sampler for row in rows]
        if not places:
            return
        logits = y if len(places) == self.size else y[places]
        tokens = choose_each(samplers, logits)
        self._next[places] = tokens
        self.written += len(places)
        for row in speaking:
            self._tell(row, y)
        if tokens.min() == NO_TOKEN:  # a row without one ends alone: the others have texts of their own
            for row in self.rows:
                if row.is_plain and self._next[row.place] == NO_TOKEN:
                    self.catch_up(row)
                    row.read(y[row.place])
                    self._tell(row, y)

    def _tell(self, row: Row, y: NDArray[np.float32]) -> None:
        """Tell a row of the token that was chosen for it."""
        try:
            row.write(int(self._next[row.place]), y[row.place])
        except NotFinite as error:
            row.fail(error, self._model.manifest.model)

    def _tell_all(self) -> None:
        """Tell each row of its tokens, and begin the table anew."""
        for row in self.rows:
            self.catch_up(row)
        self._kept, self._begins = 0, [0] * self.size

    def _take_in(self, row: Row, place: int) -> None:
        """A row has a place, or has become plain in it: what it does not know of begins here."""
        self._places[place], row.place = row, place
        self._next[place], self._begins[place] = row.token, self._kept
        self._ends[place] = self.steps + row.left

    def _leave(self, leaving: Sequence[Row]) -> None:
        for row in leaving:
            self._places[row.place], self._next[row.place] = None, 0
        if leaving:
            self._sort()

    def _sort(self) -> None:
        """Look anew which rows are where."""
        self.rows = [row for row in self._places if row is not None]
        self._others = [row for row in self.rows if not row.is_plain]
        self._plain = [row.place for row in self.rows if row.is_plain]
        self._samplers = [row.sampler for row in self.rows if row.is_plain]
        self._end = min([self._ends[place] for place in self._plain], default=0)

    def _fitting(self, count: int) -> int:
        return min(1 << max(count - 1, 0).bit_length(), self._limit) if count else 0

    def _shrink(self) -> None:
        smaller = self._fitting(len(self))
        self._steps_half_empty = self._steps_half_empty + 1 if smaller < self.size else 0
        if not smaller:
            self.clear()
        elif self._steps_half_empty > STEPS_BEFORE_SHRINKING:
            self._resize(smaller)

    def _resize(self, size: int) -> None:
        """Move the rows into the first places of a runner of this size."""
        borrowed = ExitStack()
        runner = borrowed.enter_context(self._model.runner(size))  # may fail, and nothing is moved
        rows = self.rows
        if rows:
            staying = [row.place for row in rows]
            before = self._runner.get_state()
            state = runner.get_state()
            for name, array in state.items():
                array[: len(rows)] = before[name][staying]
            runner.set_state(state)
        self._tell_all()
        self._borrowed.close()
        self._runner, self._borrowed = runner, borrowed
        self._places = [*rows, *[None] * (size - len(rows))]
        self._make_tables(size)
        for place, row in enumerate(rows):
            self._take_in(row, place)
        self._sort()
        self._steps_half_empty = 0

    def _make_tables(self, size: int) -> None:
        self._next = np.zeros(size, np.int32)  # what goes in at each place
        self._table = np.zeros((KEPT, size), np.int32)  # the same as it was after each of the last steps
        self._kept = 0  # how many these are
        self._begins = [0] * size  # the first of them, by place, that its row does not know of
        self._ends = [0] * size  # the step at which the row there is done, if it is plain
        self._end = 0  # the first of those
