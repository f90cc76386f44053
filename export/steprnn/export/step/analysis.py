"""A first walk of a model with symbolic tensors: what a step reads, remembers, returns and refuses."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import keras
import numpy as np
from keras import layers, ops, tree
from numpy.typing import NDArray

from steprnn.runtime.errors import ExportError
from steprnn.runtime.spec import StepSpec, TensorSpec

from .contract import Reading
from .graph import Call, is_final_state, is_window, makes_mask, operations, output_name, token_count, walk
from .layers import instead_of_padding, refusal, refuse
from .locality import Unreadable, read
from .memory import Convolution, Memory, Recurrent, reach
from .moment import Moment, Tensors
from .overridden import is_stock, read_around
from .parts import Encoded, Padding, Part, part_of

BATCH = 3  # a batch that is told apart from the time axis, which alone is None


class Analysis:
    """What the step of a model is made of; raises `ExportError` where it has none.

    `parts` has the part of each call by the call's key, `inputs` the position among the model's inputs by
    the name in the spec, `outputs` likewise. `mask_value` is what a masked time step holds throughout.
    """

    def __init__(self, graph: Any, model: str) -> None:
        self._graph = graph
        self._model = model
        self._held: list[Any] = []  # every tensor, as an id is that of another once it is gone
        self._padded: dict[int, Padding] = {}  # id of a tensor -> what padded it
        self._read: set[int] = set()  # ids of the tensors that some layer reads
        self._reach: dict[int, int] = {}  # id of a tensor -> how far back the convolutions before it look
        self._unread: list[str] = []
        self._compared: set[float] = set()
        self._layers_read = 0
        self._masks = any(type(op).__name__ == "NotEqual" or makes_mask(op) for op in operations(graph))
        masking = (op for op in operations(graph) if isinstance(op, layers.Masking))
        self.mask_value = next((float(op.mask_value) for op in masking), None)
        self.parts: dict[int, Part] = {}
        self.notes: list[str] = []
        self._memories: list[Memory] = []
        self._inputs = [self._symbol(t) for t in graph.inputs]
        timed = (t for t, s in zip(graph.inputs, self._inputs, strict=True) if None in s.shape)
        self._length = next((t.shape[1] for t in timed), None)  # that the model was built for
        # Ids of tensors that stay the same over the sequence: inputs without time, and what is made of them.
        self._static = {id(t) for t in self._inputs if None not in t.shape}
        self._outputs = walk(graph, list(self._inputs), self._visit)
        self._name_memories()
        self.initial: dict[str, NDArray[np.float32]] = {}
        for memory in self._memories:
            self.initial |= memory.initial
        self.inputs: dict[str, int] = {}
        self.outputs: dict[str, int] = {}
        self.spec = StepSpec(
            self._input_specs(), tuple(s for m in self._memories for s in m.states), self._output_specs()
        )

    @property
    def reading(self) -> Reading:
        """What was read besides."""
        return Reading(
            self._layers_read,
            tuple(self._unread),
            tuple(sorted(self._compared)),
            max(self._reach.values(), default=0),
            1 + any(isinstance(part, Encoded) for part in self.parts.values()),
        )

    def given(self, moment: Moment) -> list[Any]:
        """The model's inputs at one time step; an initial state, which the caller holds, is zero."""
        names = {position: name for name, position in self.inputs.items()}
        given = []
        for i, (tensor, symbol) in enumerate(zip(self._graph.inputs, self._inputs, strict=True)):
            if i not in names:
                given.append(ops.zeros((1, *tensor.shape[1:]), tensor.dtype))
            else:
                value = moment.tensors[names[i]]
                given.append(moment.add_time(value) if None in symbol.shape else value)
        return given

    def results(self, outputs: list[Any], moment: Moment) -> Tensors:
        """What a step returns, from the model's outputs at one time step."""
        results = dict(moment.following)
        for name, i in self.outputs.items():
            timed = None in self._outputs[i].shape
            results[name] = moment.drop_time(outputs[i]) if timed else outputs[i]
        tensors = {t.name: t for t in self.spec.outputs} | {self.spec.next_of(t): t for t in self.spec.states}
        return {name: ops.cast(results[name], tensors[name].dtype) for name in self.spec.result_names}

    def _symbol(self, tensor: Any) -> Any:
        rank = len(tensor.shape)
        is_token = token_count(self._graph, tensor) is not None
        has_time = rank > 2 or (
            rank == 2 and (tensor.shape[1] is None or is_token or is_window(self._graph, tensor))
        )
        shape = (BATCH, None, *tensor.shape[2:]) if has_time else (BATCH, *tensor.shape[1:])
        return keras.KerasTensor(shape, tensor.dtype)

    def _visit(self, call: Call) -> Any:
        op, arguments = call.op, call.arguments
        self._look_at(call)
        begins = arguments.pop("initial_state", None) if isinstance(op, layers.RNN) else None
        tensors = [t for t in tree.flatten(arguments) if isinstance(t, keras.KerasTensor)]
        self._read.update(id(t) for t in tensors)
        timed = any(None in t.shape for t in tensors)
        static = bool(tensors) and all(id(t) in self._static for t in tensors)
        refuse(op, timed, static)
        if timed and any(None not in t.shape and id(t) not in self._static for t in tensors):
            raise refusal(
                op,
                "takes the last time step of a sequence at each one",
                "use return_sequences=True before it",
            )
        padded = self._take_up_padding(op, tensors)
        if isinstance(op, layers.RNN):
            part: Part = self._recurrent(op, timed, arguments, begins)
        elif timed and reach(op):
            if op.padding == "valid" and not padded:
                raise refusal(op, "shortens the sequence (padding='valid')", instead_of_padding(op))
            part = Convolution(op, timed)
        else:
            part = part_of(op, timed)
        self.parts[call.key] = part
        if isinstance(part, Recurrent | Convolution):
            self._memories.append(part)
        outputs = part.shapes(call)
        if timed:
            self._read_layer(call, part, outputs)
        before = max((self._reach.get(id(t), 0) for t in tensors), default=0)
        held = tree.flatten(outputs)
        self._held += held
        self._reach |= {id(t): before + reach(op) * isinstance(part, Convolution) for t in held}
        if static:
            self._static |= {id(t) for t in held}
        if isinstance(part, Padding):
            self._padded[id(outputs)] = part
        return outputs

    def _read_layer(self, call: Call, part: Part, outputs: Any) -> None:
        """Show that what has a time axis acts on each time step alone, but for its memory."""
        op = call.op
        stock = is_stock(op)
        if stock and (part.remembers or part.by_rule):
            return
        look = read_around if part.remembers else read
        try:
            self._compared |= look(call, outputs, self._masks, self._length)
            self._layers_read += 1
        except Unreadable as error:
            self._unread.append(op.name)
            self.notes.append(
                f"layer {op.name!r} ({type(op).__name__}) cannot be read ({error}); that it acts on each "
                "time step alone is shown by test only"
            )

    def _look_at(self, call: Call) -> None:
        """What a person should know of a call before it is stepped."""
        op = call.op
        if not re.fullmatch(r"[A-Za-z0-9_.\\/>-]*", op.name):
            raise refusal(op, "has a name that TensorFlow does not take", "use letters, digits, _, . and -")
        if call.kwargs.get("training") is True:
            self.notes.append(
                f"layer {op.name!r} ({type(op).__name__}) is called with training=True; the step runs it as "
                "outside training"
            )

    def _take_up_padding(self, op: Any, tensors: list[Any]) -> int:
        """How much the tensors were padded on the left, all of which this operation has to take up."""
        pads: int = sum(self._padded[id(t)].left for t in tensors if id(t) in self._padded)
        if pads and not (reach(op) == pads and op.padding == "valid"):
            raise refusal(
                op,
                f"follows a padding of {pads} time steps that no convolution takes up",
                "pad just before it",
            )
        return pads

    def _recurrent(self, op: layers.RNN, timed: bool, arguments: dict[str, Any], begins: Any) -> Recurrent:
        flat = tree.flatten(begins) if begins is not None else []
        symbolic = [t for t in flat if isinstance(t, keras.KerasTensor)]
        if any(all(t is not s for s in self._inputs) for t in symbolic):
            raise refusal(
                op,
                "begins from a state that is computed from other inputs",
                "export it as a model of its own whose initial_state is an Input",
            )
        # Keras hands a mask on with the sequence only where that is the one tensor of the call.
        masked = arguments.get("mask") is not None or (self._masks and not flat)
        return Recurrent(op, timed, masked, flat)

    def _name_memories(self) -> None:
        if not self._memories:
            raise ExportError(
                f"model {self._model!r} has no recurrent layer; a step needs something to remember"
            )
        calls: Counter[str] = Counter()
        for memory in self._memories:
            name = re.sub(r"\W", "_", memory.op.name)
            calls[name] += 1
            if calls[name] > 1:  # the same layer called again: the same weights, another stream
                name = f"{name}_{calls[name]}"
            memory.take_names("" if len(self._memories) == 1 else f"{name}_")

    def _input_specs(self) -> tuple[TensorSpec, ...]:
        specs = []
        read = [i for i, symbol in enumerate(self._inputs) if id(symbol) in self._read]
        for i in read:
            tensor, symbol = self._graph.inputs[i], self._inputs[i]
            name = "x" if len(read) == 1 else re.sub(r"\W", "_", tensor.name)
            tokens = token_count(self._graph, tensor)
            dtype = "int32" if tokens is not None or "int" in tensor.dtype else "float32"
            static = id(symbol) in self._static
            specs.append(TensorSpec(name, dtype, _without_batch(symbol.shape), tokens, static))
            self.inputs[name] = i
        if all(t.static for t in specs):
            raise ExportError(
                f"model {self._model!r} has no input with a time axis; a step reads one at every time step"
            )
        return tuple(specs)

    def _output_specs(self) -> tuple[TensorSpec, ...]:
        returned = [i for i, t in enumerate(self._graph.outputs) if not is_final_state(t)]
        if not returned:
            raise ExportError(f"model {self._model!r} returns only states; a step needs an output")
        names = ["y"] if len(returned) == 1 else _distinct([output_name(self._graph, i) for i in returned])
        self.outputs = dict(zip(names, returned, strict=True))
        return tuple(
            TensorSpec(name, "float32", _without_batch(self._outputs[i].shape))
            for name, i in self.outputs.items()
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
