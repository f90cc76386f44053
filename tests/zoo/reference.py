"""What a model says in its own framework, Keras 3 or Keras 2, called as its maker calls it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from .case import Case, Flat, Frame, Input, State, TimeMajor

STEPS = 100
PREFIXES = (1, 2, 3, 10, 50, STEPS)  # where a model that takes any length speaks at the end of a sequence


@dataclass(frozen=True)
class Speech:
    """What a model said: by position of the output and time step an array `[rows, ...]`.

    `streams` are its inputs by position, `[rows, steps, ...]`, those without time `[rows, ...]`. A stream
    begins at zero at each step of `starts`.
    """

    streams: dict[int, Any]
    steps: int
    starts: frozenset[int]
    said: dict[tuple[int, int], Any]


class Reference:
    """A model of either Keras, run over streams of STEPS time steps or a little more, two windows at least.

    One that was built for a length is run on windows, each from zero, or one after the other where it is
    stateful or handed its states; one that was built for fewer rows on as many at a time.
    """

    def __init__(self, case: Case, model: Any) -> None:
        self._kinds: tuple[Input, ...] = case.inputs
        self._model = model
        self.names = [name_of(t) for t in model.inputs]
        self._shapes = [[None if n is None else int(n) for n in t.shape] for t in model.inputs]
        self.ranks = [len(t.shape) for t in model.outputs]
        self._swapped = any(isinstance(kind, TimeMajor) for kind in case.inputs)
        if self._swapped:
            self._shapes = [[shape[1], shape[0], *shape[2:]] for shape in self._shapes]
        if len(self._shapes) != len(self._kinds):
            raise ValueError(f"{case.name} has {len(self._shapes)} inputs, the case {len(self._kinds)}")
        first = next(i for i, kind in enumerate(self._kinds) if kind.timed)
        self._length = self._shapes[first][1]
        if isinstance(self._kinds[first], Frame | Flat):
            self._length = getattr(self._kinds[first], "steps", 1)
        self._layers = [
            m for m in model._flatten_layers() if getattr(m, "stateful", False) and hasattr(m, "cell")
        ]
        # Traced for each length: with a free one, the TimeDistributed of Keras 3 mixes up its axes.
        self._function = tf.function(self._call, autograph=False, reduce_retracing=False)

    def run(self, rows: int, timed: dict[int, bool]) -> Speech:
        """Speak on so many rows; `timed` tells of the outputs that count whether they have a time axis."""
        length = self._length
        steps = STEPS if length is None else max(2, -(-STEPS // length)) * length
        if length is not None:
            windows = [(start, start + length) for start in range(0, steps, length)]
        else:
            windows = [(0, steps)] if all(timed.values()) else [(0, end) for end in PREFIXES]
        goes_on = length is not None and bool(self._layers or any(isinstance(k, State) for k in self._kinds))
        streams = self._draw(rows, steps)
        groups: list[dict[tuple[int, int], Any]] = []
        size = self._shapes[0][0] or rows
        for first in range(0, rows, size):
            groups.append({})
            for (start, end), outputs in self._windows(
                streams, slice(first, min(first + size, rows)), windows, goes_on
            ):
                for i, has_time in timed.items():
                    steps_said = range(start, end) if has_time else [end - 1]
                    values = np.moveaxis(outputs[i], 1, 0) if has_time else [outputs[i]]
                    groups[-1] |= {(i, t): value for t, value in zip(steps_said, values, strict=True)}
        starts = {0} if goes_on else {start for start, _ in windows}
        said = {key: np.concatenate([group[key] for group in groups]) for key in groups[0]}
        return Speech(streams, steps, frozenset(starts), said)

    def _draw(self, rows: int, steps: int) -> dict[int, Any]:
        generator = np.random.default_rng(5)
        streams = {}
        for i, (kind, shape) in enumerate(zip(self._kinds, self._shapes, strict=True)):
            features = shape[2:] if kind.timed and not isinstance(kind, Frame) else shape[1:]
            if isinstance(kind, Flat):
                features = [(shape[1] or 0) // kind.steps]
            streams[i] = kind.draw([rows, steps, *features] if kind.timed else [rows, *features], generator)
        return streams

    def _windows(
        self, streams: dict[int, Any], rows: slice, windows: list[tuple[int, int]], goes_on: bool
    ) -> Iterator[tuple[tuple[int, int], list[Any]]]:
        """Each window and the outputs of these rows on it."""
        count = rows.stop - rows.start
        states: dict[int, Any] = {}
        for number, (start, end) in enumerate(windows):
            if number == 0 or not goes_on:
                states = {}
                for layer in self._layers:
                    (layer.reset_state if hasattr(layer, "reset_state") else layer.reset_states)()
            given = []
            for i, kind in enumerate(self._kinds):
                array = states.get(i, streams[i][rows])
                if isinstance(kind, Frame):
                    array = array[:, start]
                elif kind.timed:
                    array = array[:, start:end]
                    array = array.reshape(count, -1) if isinstance(kind, Flat) else array
                size = self._shapes[i][0] or count
                given.append(tf.cast(np.resize(array, (size, *array.shape[1:])), self._model.inputs[i].dtype))
            outputs = [tf.cast(t, tf.float64).numpy()[:count] for t in self._function(given)]
            states = {i: outputs[k.output] for i, k in enumerate(self._kinds) if isinstance(k, State)}
            yield (start, end), outputs

    def _call(self, given: list[Any]) -> list[Any]:
        given = [tf.experimental.numpy.swapaxes(t, 0, 1) for t in given] if self._swapped else given
        flat = tf.nest.flatten(self._model(given if len(given) > 1 else given[0], training=False))
        return [tf.experimental.numpy.swapaxes(t, 0, 1) for t in flat] if self._swapped else list(flat)


def name_of(tensor: Any) -> str:
    """The name of a model's input."""
    return str(tensor.name).split(":")[0]
