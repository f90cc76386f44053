"""A session: one stream of steps and the state it owns."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bundle.arrays import read_arrays
from .bundle.manifest import Manifest
from .engines import Runner, Tensors, run_block
from .errors import NotFinite, StateError, UsageError, check_whole, wrong_type
from .pool import Pool
from .spec import KINDS, TensorSpec

vdot: Callable[[Any, Any], float] = np.vdot  # looked up once


class Steppable(Protocol):
    """What a session needs of a `Model`."""

    manifest: Manifest
    initial_state: Mapping[str, NDArray[np.float32]]  # `[size...]` by name, for one row
    runners: Pool  # of the engine

    def runner(self, batch: int = 1) -> AbstractContextManager[Runner]:
        """Borrow a runner of the engine; its states are whatever the last borrower left."""

    def begin(self, static: Mapping[str, NDArray[Any]], batch: int = 1) -> dict[str, NDArray[np.float32]]:
        """The states that a stream begins with, `[batch, size...]` by name."""


@dataclass(frozen=True)
class State:
    """The states of a stream between two steps, bound to the model they came from.

    `tensors` maps each state's name to float32 `[batch, size...]`. States are float in every variant
    and engine, so one written on a server goes on on a phone.
    """

    model: str  # sha256 of the weights, as in the manifest
    tensors: Mapping[str, NDArray[np.float32]]

    def __repr__(self) -> str:
        held = ", ".join(f"{name} {list(array.shape)}" for name, array in self.tensors.items())
        return f"<State of model {self.model[:8]}: {held or 'none'}>"

    def to_bytes(self) -> bytes:
        """An npz file of the tensors and the model's hash; `from_bytes` reads it back exactly.

        Raises `NotFinite` where a value is NaN or infinite: no stream could go on from it.
        """
        for name, array in self.tensors.items():
            if (bad := first_bad(array)) is not None:
                raise NotFinite(f"state {name!r} holds {bad}", self.model)
        header = np.frombuffer(json.dumps({"model": self.model}).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **{"": header}, **self.tensors)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> State:
        """The inverse of `to_bytes`; raises `StateError` on anything else."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise StateError(f"a state comes from bytes, not from {type(data).__name__}; read the file first")
        try:
            # Nothing in it is packed, so that it holds no more than its own size.
            tensors = read_arrays(io.BytesIO(data), lambda name, dtype, shape: None, len(data))
            model = json.loads(tensors.pop("").tobytes())["model"]
            if not isinstance(model, str):
                raise ValueError("its model is no text")
            return cls(model, tensors)
        except Exception as error:  # a damaged zip raises what the zip and npy readers think of it
            raise StateError(
                f"these {len(data)} bytes are not a state ({error}); expected State.to_bytes()"
            ) from None


def check_state(state: object) -> None:
    """Raise `UsageError` where it is no `State`, such as the bytes of one."""
    if not isinstance(state, State):
        way_out = ", which State.from_bytes makes of them" if isinstance(state, bytes) else ""
        raise wrong_type("the state", state, f"State{way_out}")


def first_bad(array: NDArray[np.generic]) -> float | None:
    """The first NaN or infinity; None where all are numbers."""
    flat = array.ravel()
    (places,) = (~np.isfinite(flat)).nonzero()
    return float(flat[places[0]]) if len(places) else None


class Session:
    """Steps a model with a state of its own; made by `Model.session`. For one thread at a time."""

    def __init__(
        self,
        model: Steppable,
        state: State | None = None,
        batch: int = 1,
        static: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        check_whole("batch", batch, 1)
        if static is not None and not isinstance(static, Mapping):
            raise wrong_type("static", static, "a dict of inputs by name")
        if state is not None:
            check_state(state)
            ranks = {t.name: len(t.shape) for t in model.manifest.step.states}
            rows = [len(a) for n, a in state.tensors.items() if a.ndim > ranks.get(n, 0)]
            batch = max(rows, default=batch)
        self._model = model
        self._batch = batch
        self._tensors: dict[str, NDArray[np.float32]] = {}
        self._float_inputs = [t.name for t in model.manifest.step.stepped if np.dtype(t.dtype).kind == "f"]
        self._given = [t.name for t in model.manifest.step.inputs]  # what only begins the states is not
        self._static = self._checked_inputs(static or {}, model.manifest.static)
        # Of the one input, to be quick about it: its name and bound where it is a token, or its name, dtype
        # and the shapes that it comes in.
        self._token: tuple[str, int] | None = None
        self._frame: tuple[str, np.dtype[Any], tuple[Any, ...]] | None = None
        self.reset()
        if len(inputs := model.manifest.step.inputs) == 1:
            one, whole = inputs[0], inputs[0].array_shape(batch)
            if one.tokens is None:
                self._frame = one.name, np.dtype(one.dtype), (whole, one.shape if batch == 1 else whole)
            elif whole == (1,):
                self._token = one.name, one.tokens
        if state is not None:
            self.state = state

    def __repr__(self) -> str:
        return f"<Session of model {self._model.manifest.model[:8]}, batch {self._batch}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Session, (self._model, self.state, self._batch, self._static)

    @property
    def state(self) -> State:
        """A copy of the states; setting it raises `StateError` where it belongs to another model."""
        return State(self._model.manifest.model, {n: t.copy() for n, t in self._tensors.items()})

    @state.setter
    def state(self, state: State) -> None:
        check_state(state)
        if state.model != self._model.manifest.model:
            raise StateError(
                f"this state belongs to model {state.model[:12]}, not to {self._model.manifest.model[:12]}; "
                "load the bundle it was made with"
            )
        for name, array in state.tensors.items():
            if (bad := first_bad(array)) is not None:
                raise StateError(f"state {name!r} holds {bad}, from which no stream goes on; begin again")
        got = {n: (str(t.dtype), t.shape) for n, t in state.tensors.items()}
        expected = {n: (str(t.dtype), t.shape) for n, t in self._tensors.items()}
        if got != expected:
            raise StateError(f"this state has {got}, expected {expected}")
        self._tensors = {n: np.array(t) for n, t in state.tensors.items()}
        self._steps, self._mark = 0, object()

    def reset(self) -> None:
        """Back to the beginning: zero, or what the model was made with, or makes of its static inputs."""
        self._tensors = self._model.begin(self._static, self._batch)
        self._steps, self._mark = 0, object()  # of the runner that has these states

    def fork(self) -> Session:
        """A session that goes on from here on its own."""
        return Session(self._model, self.state, static=self._static)

    def step(
        self, x: ArrayLike | Mapping[str, ArrayLike]
    ) -> NDArray[np.float32] | dict[str, NDArray[np.float32]]:
        """Take one time step; return `y`, or a dict by name where the model has several outputs.

        A token model takes a token index, or `[batch]` of them; a signal model takes `[batch, features...]`;
        a model of several inputs takes a dict by name. `y` is float32 `[batch, ...]`, a copy. Which of both
        comes back is the model's, not the call's: `isinstance(y, dict)` tells a type checker. Static inputs
        are the session's, and not given here.
        Raises `UsageError` where a shape, a dtype or a token index does not fit, and `NotFinite` where an
        output is NaN, or where an input is NaN or infinite and a next state becomes so. The state is then
        what it was before the step: the stream goes on with the next input, or begins again with `reset`.
        """
        if self._token is not None and type(x) is int and 0 <= x < self._token[1]:
            arrays: dict[str, Any] = {self._token[0]: x}
        elif (
            (frame := self._frame) is not None
            and type(x) is np.ndarray
            and x.dtype == frame[1]
            and x.shape in frame[2]
        ):
            arrays = {frame[0]: x}
        else:
            spec = self._model.manifest.step
            named = x if isinstance(x, Mapping) else {spec.stepped[0].name: x}
            arrays = self._static | self._checked_inputs(named, spec.stepped)
        pool = self._model.runners
        runner, holder = pool.borrow(self._batch)
        try:
            if holder is not self._mark:  # another has stepped it since, or it is new
                runner.set_state(self._tensors)
            holder = None
            for name in self._given:
                runner.inputs[name][...] = arrays[name]
            runner.run()
            tensors = runner.get_state()
            self._steps += 1
            outputs = {}
            for name, array in runner.outputs.items():
                outputs[name] = y = array.copy()
                # NaN comes before all others. Infinity may be meant, as the logarithm of nothing is.
                if (largest := y.item(y.argmax())) != largest:
                    raise self._not_finite(f"output {name!r}", largest)
            for name in self._float_inputs:
                given = arrays[name]
                # A sum of squares has no inf - inf, and costs a third of a look at each; it is inf from 1e19.
                if not vdot(given, given) < inf:
                    self._check_states(tensors)
            holder = self._mark = object()  # a new one: a runner of an earlier step is not taken for it
        finally:
            pool.give(self._batch, runner, holder)
        self._tensors = tensors
        if len(outputs) == 1:
            return y
        if not outputs:  # a graph of another maker whose output is its next state
            spec = self._model.manifest.step
            outputs = {spec.next_of(t): self._tensors[t.name].copy() for t in spec.states}
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def run(
        self, frames: ArrayLike | Mapping[str, ArrayLike]
    ) -> NDArray[np.float32] | dict[str, NDArray[np.float32]]:
        """Take a block of steps in one call: to the bit what as many calls of `step` give, and faster.

        `frames` has one axis more than what `step` takes, before all others: `[steps]` or `[steps, batch]`
        tokens, `[steps, features...]` for a session of one row, `[steps, batch, features...]`, or a dict of
        such. `y` is float32 `[steps, batch, ...]`, or a dict by name. Raises what `step` raises; the state is
        then what it was before the block.
        """
        spec = self._model.manifest.step
        given = frames if isinstance(frames, Mapping) else {spec.stepped[0].name: frames}
        lengths = {len(array) if (array := np.asarray(value)).ndim else -1 for value in given.values()}
        if len(lengths) != 1 or -1 in lengths:
            way_out = "".join(_way_out(t, given[t.name]) for t in spec.stepped if t.name in given)
            raise UsageError(f"a block has an axis of time first, of one length in every input{way_out}")
        steps = lengths.pop()
        arrays = self._checked_inputs(given, spec.stepped, (steps,))
        finite = all(vdot(arrays[name], arrays[name]) < inf for name in self._float_inputs)
        if not (finite and spec.outputs):
            return self._run_singly(arrays, steps)
        pool = self._model.runners
        runner, holder = pool.borrow(self._batch)
        try:
            if holder is not self._mark:
                runner.set_state(self._tensors)
            holder = None
            outputs = {name: np.empty((steps, *y.shape), y.dtype) for name, y in runner.outputs.items()}
            run_block(runner, arrays, self._static, outputs)
            if fits := not (steps and any(np.isnan(array.max()) for array in outputs.values())):
                self._tensors, self._steps = runner.get_state(), self._steps + steps
                holder = self._mark = object()
        finally:
            pool.give(self._batch, runner, holder)
        if not fits:
            return self._run_singly(arrays, steps)  # which tells where
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def _run_singly(
        self, arrays: Tensors, steps: int
    ) -> NDArray[np.float32] | dict[str, NDArray[np.float32]]:
        """The block step by step, each of which is looked at; where one raises, none was taken."""
        before = self._tensors, self._steps
        try:
            results = [self.step({name: array[k] for name, array in arrays.items()}) for k in range(steps)]
        except BaseException:
            (self._tensors, self._steps), self._mark = before, object()
            raise
        if results and isinstance(results[0], dict):
            return {name: np.stack([y[name] for y in results]) for name in results[0]}  # type: ignore[call-overload]
        return np.stack(results) if results else np.zeros(0, np.float32)  # type: ignore[arg-type]

    def _check_states(self, tensors: Tensors) -> None:
        for name, array in tensors.items():
            if (bad := first_bad(array)) is not None:
                raise self._not_finite(f"state {name!r}", bad)

    def _not_finite(self, what: str, bad: float) -> NotFinite:
        return NotFinite(f"{what} holds {bad}", self._model.manifest.model, self._steps)

    def _checked_inputs(
        self, given: Mapping[str, ArrayLike], specs: Sequence[TensorSpec], steps: tuple[int, ...] = ()
    ) -> dict[str, NDArray[Any]]:
        return checked_inputs(given, specs, self._batch, steps)


def checked_inputs(
    given: Mapping[str, ArrayLike], specs: Sequence[TensorSpec], batch: int, steps: tuple[int, ...] = ()
) -> dict[str, NDArray[Any]]:
    """By name `[*steps, batch, ...]`; raises `UsageError` where something does not fit."""
    if set(given) != {t.name for t in specs}:
        static = [t.name for t in specs if t.static]
        way_out = f"; give session(static={{...}}) {', '.join(static)}" if static else ""
        raise UsageError(f"got inputs {sorted(given)}, expected {sorted(t.name for t in specs)}{way_out}")
    return {t.name: _checked(t, given[t.name], batch, steps) for t in specs}


def _checked(spec: TensorSpec, value: ArrayLike, batch: int, steps: tuple[int, ...]) -> NDArray[Any]:
    name, dtype, shape, tokens = spec.name, spec.dtype, (*steps, *spec.shape), spec.tokens
    array = np.asarray(value)
    expected = (*steps, *spec.array_shape(batch))
    if array.shape == shape != expected and batch == 1:
        array = np.expand_dims(array, len(steps))
    if array.shape != expected:
        raise UsageError(
            f"input {name!r} has shape {array.shape}, expected {expected}{_way_out(spec, array)}"
        )
    if array.dtype != (wanted := np.dtype(dtype)):
        kinds, words = KINDS[wanted.kind]
        if array.dtype.kind not in kinds:
            got = f"input {name!r} has dtype {array.dtype}"
            raise UsageError(f"{got}, expected {words} ({dtype}){_way_out(spec, array)}")
        if wanted.kind in "iu" and tokens is None:
            least, most = np.iinfo(wanted).min, np.iinfo(wanted).max
            if not ((array >= least) & (array <= most)).all():
                raise UsageError(f"input {name!r} has a value outside {least}..{most} ({dtype})")
    if tokens is not None and not ((array >= 0) & (array < tokens)).all():
        raise UsageError(f"input {name!r} has a token outside 0..{tokens - 1}: {array.tolist()}")
    return array


def _way_out(spec: TensorSpec, value: ArrayLike) -> str:
    """What to do where an input of tokens is given as text."""
    is_text = spec.tokens is not None and np.asarray(value).dtype.kind == "U"
    return "; a text is made tokens by model.vocabulary.encode" if is_text else ""
