"""A first walk of a model with symbolic tensors: what a step reads, remembers, returns and refuses."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import layers, ops, tree
from numpy.typing import NDArray

from steprnn.runtime.errors import ExportError
from steprnn.runtime.spec import StepSpec, TensorSpec

from .graph import (
    MOVES,
    Call,
    carried,
    is_final_state,
    is_stock,
    makes_mask,
    operations,
    output_name,
    state_inputs,
    token_count,
    walk,
)
from .inputs import symbols_of
from .layers import instead_of_padding, refusal, refuse
from .memory import Convolution, Memory, Recurrent, reach
from .moment import Moment, Tensors
from .parts import Cropped, Padding, Part, Unrolled, part_of, recurrences
from .reader import Reader

TIME = -1  # among the origins of a tensor: a memory, whose output changes along the sequence


class Analysis:
    """What the step of a model is made of; raises `ExportError` where it has none.

    `graph` is what is stepped. `parts` has the part of each call by the call's key, `inputs` the position
    among the model's inputs by the name in `spec` or in `start`, `outputs` likewise. `start` is the contract
    of what computes states from static inputs, None where all begin by themselves. `carried` has for the
    inputs that hold states the outputs that they take back at the next call, by position. `mask_value` is
    what a masked time step holds throughout.
    """

    def __init__(self, graph: Any, model: str) -> None:
        self._model = model
        states = state_inputs(graph)
        self.carried = carried(graph, states)
        packed = {j for j in self.carried.values() if not is_final_state(graph.outputs[j])}
        self._positions = [j for j in range(len(graph.outputs)) if j not in packed]
        self._output_names = [output_name(graph, j) for j in self._positions]
        # What packs states is not run: it may ask for the batch that it was made for.
        kept = [graph.outputs[j] for j in self._positions]
        self.graph = keras.Function(graph.inputs, kept) if packed else graph
        self._padded: dict[int, tuple[Any, Padding, Any]] = {}  # id of a tensor -> it, what padded it, before
        self._tails: dict[int, int] = {}  # id of a tensor -> time steps beyond the sequence, to be cropped
        # id of a tensor -> it, and the positions of the inputs that it is computed from.
        self._origins: dict[int, tuple[Any, frozenset[int]]] = {}
        self._moved: dict[int, int] = {}  # id of a tensor -> the one input whose elements it holds
        self._masks = any(type(op).__name__ == "NotEqual" or makes_mask(op) for op in operations(self.graph))
        masking = (op for op in operations(self.graph) if isinstance(op, layers.Masking))
        self.mask_value = next((float(op.mask_value) for op in masking), None)
        self.parts: dict[int, Part] = {}
        self.notes: list[str] = []
        self._memories: list[Memory] = []
        self._pasts: dict[tuple[Any, ...], Convolution] = {}  # (a sequence, reach) -> what remembers it
        self._read: set[int] = set()  # positions of the inputs that a step reads
        self._symbols, self.flat = symbols_of(self.graph, states)
        timed = (t for t, s in zip(self.graph.inputs, self._symbols, strict=True) if None in s.shape)
        self.reader = Reader(self._masks, next((t.shape[1] for t in timed if len(t.shape) > 1), None))
        for i, t in enumerate(self._symbols):
            self._origins[id(t)], self._moved[id(t)] = (t, frozenset({i})), i
        self._outputs = walk(self.graph, list(self._symbols), self._visit)
        for t in self._outputs:
            self._read |= self._origin_of([t]) - {TIME}
        self._name_memories()
        self.initial: dict[str, NDArray[np.float32]] = {}
        for memory in self._memories:
            self.initial |= memory.initial
        self.inputs: dict[str, int] = {}
        self.outputs: dict[str, int] = {}
        self._held: dict[int, str] = {}  # position of an input -> the state that it hands in at every call
        self.begun = self._begun_states()  # states that the start computes -> the inputs that they come from
        self.spec = StepSpec(
            self._input_specs(), tuple(s for m in self._memories for s in m.states), self._output_specs()
        )
        self.start = self._start_spec()

    def given(self, moment: Moment) -> list[Any]:
        """The model's inputs at one time step; what it does not read is zero."""
        names = self._held | {position: name for name, position in self.inputs.items()}
        given = []
        for i, (tensor, symbol) in enumerate(zip(self.graph.inputs, self._symbols, strict=True)):
            timed = None in symbol.shape
            value = moment.tensors.get(names.get(i, ""))
            if value is None:
                value = ops.zeros((1, *symbol.shape[1 + timed :]), tensor.dtype)
            if not timed or "int" in tensor.dtype:  # whole numbers of 8 bits wrap around in the model too
                value = ops.cast(value, tensor.dtype)
            given.append(moment.add_time(value) if timed else value)
        return given

    def results(self, outputs: list[Any], moment: Moment) -> Tensors:
        """What a step returns, from the model's outputs at one time step."""
        results = dict(moment.following)
        for name, i in self._returned.items():
            timed = None in self._outputs[i].shape
            results[name] = moment.drop_time(outputs[i]) if timed else outputs[i]
        tensors = {t.name: t for t in self.spec.outputs} | {self.spec.next_of(t): t for t in self.spec.states}
        return {name: ops.cast(results[name], tensors[name].dtype) for name in self.spec.result_names}

    def _visit(self, call: Call) -> Any:
        op, arguments = call.op, call.arguments
        self._look_at(call)
        begins = arguments.pop("initial_state", None) if isinstance(op, layers.RNN) else None
        tensors = [t for t in tree.flatten(arguments) if isinstance(t, keras.KerasTensor)]
        origin = self._origin_of(tensors)
        timed = any(None in t.shape for t in tensors)
        cropped = self._crop_tail(op, tensors)
        asks = [None in t.shape for t in tensors[:3]] in ([True, False], [True, False, False])
        refuse(op, timed, self._is_static(origin), cropped, asks)
        padded = self._take_up_padding(op, tensors)
        if not timed and self._is_static(origin) and recurrences(op):
            part: Part = Unrolled(timed)
        elif isinstance(op, layers.RNN):
            part = self._recurrent(op, timed, arguments, begins)
        elif cropped:
            part = Cropped(timed)
        elif timed and reach(op):
            if op.padding == "valid" and not padded and not isinstance(op, layers.Conv2DTranspose):
                raise refusal(op, "shortens the sequence (padding='valid')", instead_of_padding(op))
            part = self._convolution(op, tensors[0])
        else:
            part = part_of(op, timed)
        if part.remembers and not is_stock(op):  # one that can be followed was opened by the walk
            instead = "put what it does into a layer before or behind it"
            raise refusal(op, "has a call of its own that cannot be followed", instead)
        self.parts[call.key] = part
        if part.remembers:
            self._read |= origin - {TIME}
            origin |= {TIME}
        outputs = part.shapes(call)
        untimed = (t for t in tensors if None not in t.shape)
        static = all(self._is_static(self._origin_of([t])) for t in untimed)
        outputs = self.reader.follow(call, part, tensors, outputs, static)
        for t in tree.flatten(outputs):  # holding them keeps their ids from being reused
            self._origins[id(t)] = t, origin
            if type(op).__name__ in MOVES and len(tensors) == 1 and id(tensors[0]) in self._moved:
                self._moved[id(t)] = self._moved[id(tensors[0])]
        if timed and reach(op) and isinstance(op, layers.Conv2DTranspose):
            self._tails[id(outputs)] = reach(op)
        if isinstance(part, Padding):
            self._padded[id(outputs)] = (outputs, part, tensors[0])
        return outputs

    def _origin_of(self, tensors: Iterable[Any]) -> frozenset[int]:
        return frozenset().union(*(self._origins[id(t)][1] for t in tensors if id(t) in self._origins))

    def _is_static(self, origin: frozenset[int]) -> bool:
        """Whether what is computed from these inputs stays the same over a stream."""
        return bool(origin) and all(i != TIME and None not in self._symbols[i].shape for i in origin)

    def _look_at(self, call: Call) -> None:
        """What a person should know of a call before it is stepped."""
        op = call.op
        if not re.fullmatch(r"[A-Za-z0-9_.\\/>-]*", op.name):
            raise refusal(op, "has a name that TensorFlow does not take", "use letters, digits, _, . and -")
        if call.kwargs.get("training") is True and isinstance(op, layers.BatchNormalization):
            instead = "call it without, so that it normalises by what it learnt"
            raise refusal(op, "normalises over the batch (training=True)", instead)
        if call.kwargs.get("training") is True:
            self.notes.append(
                f"layer {op.name!r} ({type(op).__name__}) is called with training=True; the step runs it as "
                "outside training"
            )

    def _take_up_padding(self, op: Any, tensors: list[Any]) -> int:
        """How much the tensors were padded on the left, all of which this operation has to take up."""
        pads: int = sum(self._padded[id(t)][1].left for t in tensors if id(t) in self._padded)
        if pads and not (reach(op) == pads and op.padding == "valid"):
            raise refusal(
                op,
                f"follows a padding of {pads} time steps that no convolution takes up",
                "pad just before it",
            )
        return pads

    def _crop_tail(self, op: Any, tensors: list[Any]) -> bool:
        """Whether this crops what a transposed convolution made beyond the sequence, which it has to."""
        tail = max((self._tails.get(id(t), 0) for t in tensors), default=0)
        if not tail:
            return False
        if isinstance(op, layers.Cropping2D) and tuple(op.cropping[0]) == (0, tail):
            return True
        instead = f"crop them just behind it: Cropping2D(((0, {tail}), (0, 0)))"
        raise refusal(op, f"reads {tail} more time steps of a Conv2DTranspose than there are", instead)

    def _convolution(self, op: Any, tensor: Any) -> Convolution:
        """What remembers the sequence for it, which another of the same reach may do already."""
        key: tuple[Any, ...] = (reach(op),)
        while id(tensor) in self._padded:
            _, padding, before = self._padded[id(tensor)]
            key, tensor = (*key, padding.over), before
        key = (*key, id(tensor))
        known = self._pasts.get(key)
        if known is None:
            known = self._pasts[key] = Convolution(op, True)
            self._memories.append(known)
            return known
        return Convolution(op, True, known)

    def _recurrent(self, op: layers.RNN, timed: bool, arguments: dict[str, Any], begins: Any) -> Recurrent:
        flat = tree.flatten(begins) if begins is not None else []
        symbolic = [t for t in flat if isinstance(t, keras.KerasTensor)]
        if not all(self._is_static(self._origin_of([t])) for t in symbolic):
            raise refusal(
                op,
                "begins from a state that is computed from other inputs",
                "export it as a model of its own whose initial_state is an Input",
            )
        # Keras hands a mask on with the sequence only where that is the one tensor of the call.
        masked = arguments.get("mask") is not None or (self._masks and not flat)
        memory = Recurrent(op, timed, masked, flat)
        self._memories.append(memory)
        return memory

    def _name_memories(self) -> None:
        if not self._memories:
            if any(recurrences(op) for op in operations(self.graph)):  # of what stays the same
                raise self._timeless()
            raise ExportError(
                f"model {self._model!r} has no recurrent layer; a step needs something to remember"
            )
        names = [re.sub(r"\W", "_", memory.op.name) for memory in self._memories]
        given: set[str] = set()
        for memory, name in zip(self._memories, names, strict=True):
            if name in given:  # called again: the same weights, another stream
                numbered = (f"{name}_{number}" for number in itertools.count(2))
                name = next(n for n in numbered if n not in given and n not in names)
            given.add(name)
            memory.take_names("" if len(self._memories) == 1 else f"{name}_")

    def _begun_states(self) -> dict[str, frozenset[int]]:
        """The states that are computed from static inputs, and from which.

        An input that is an initial state and nothing else is the caller's, and zero at first. One that is
        read elsewhere too is a state where a call is one time step; else it is what the stream begins from.
        """
        begun = {}
        pairs = zip(self.graph.inputs, self._symbols, strict=True)
        one_step = all(t.shape[1] == 1 for t, symbol in pairs if None in symbol.shape)
        for memory in (m for m in self._memories if isinstance(m, Recurrent)):
            for state, begin in zip(memory.states, memory.begins, strict=False):
                handed = self._moved.get(id(begin))
                if not isinstance(begin, keras.KerasTensor) or (
                    handed is not None and handed not in self._read
                ):
                    continue
                if handed is not None and one_step:
                    if begin is not self._symbols[handed]:
                        raise refusal(
                            memory.op,
                            "begins from a part of an input that other layers read too",
                            "give each state an Input of its own",
                        )
                    self._held[handed] = state.name
                else:
                    begun[state.name] = self._origin_of([begin])
        self._read -= set(self._held)
        return begun

    def _input_specs(self) -> tuple[TensorSpec, ...]:
        specs = tuple(self._input_spec(i, alone=len(self._read) == 1) for i in sorted(self._read))
        if all(t.static for t in specs):
            raise self._timeless()
        return specs

    def _timeless(self) -> ExportError:
        return ExportError(
            f"model {self._model!r} has no input with a time axis; a step reads one at every time step"
        )

    def _input_spec(self, i: int, alone: bool = False) -> TensorSpec:
        tensor, symbol = self.graph.inputs[i], self._symbols[i]
        name = "x" if alone else re.sub(r"\W", "_", tensor.name)
        tokens = token_count(self.graph, tensor)
        dtype = "int32" if tokens is not None or "int" in tensor.dtype else "float32"
        self.inputs[name] = i
        return TensorSpec(name, dtype, _without_batch(symbol.shape), tokens, None not in symbol.shape)

    def _start_spec(self) -> StepSpec | None:
        if not self.begun:
            return None
        known = {self.inputs[t.name]: t for t in self.spec.inputs}
        read = sorted(frozenset().union(*self.begun.values()))
        inputs = (replace(known.get(i) or self._input_spec(i), static=False) for i in read)
        return StepSpec(tuple(inputs), (), tuple(t for t in self.spec.states if t.name in self.begun))

    def _output_specs(self) -> tuple[TensorSpec, ...]:
        returned = [i for i, t in enumerate(self.graph.outputs) if not is_final_state(t)]
        if not returned:
            raise ExportError(f"model {self._model!r} returns only states; a step needs an output")
        names = ["y"] if len(returned) == 1 else _distinct([self._output_names[i] for i in returned])
        self._returned = dict(zip(names, returned, strict=True))
        self.outputs = {name: self._positions[i] for name, i in self._returned.items()}
        return tuple(
            TensorSpec(name, "float32", _without_batch(self._outputs[i].shape))
            for name, i in self._returned.items()
        )


def _without_batch(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """The shape of one time step of one row."""
    return tuple(shape[2:] if None in shape else shape[1:])  # type: ignore[arg-type]


def _distinct(names: list[str]) -> list[str]:
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return result
