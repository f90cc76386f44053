"""What is read of the layers of a model, one call after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import layers, tree

from .contract import Reading
from .graph import Call, is_stock
from .layers import refusal, slides_over_one
from .locality import Unreadable, read
from .memory import Convolution, reach
from .parts import Encoded, Part


class Reader:
    """Shows of each call that it acts on each time step alone, but for its memory.

    `masked` tells whether there are masks, `length` is the sequence length that the model was built for. In
    one that was built for a single time step there is no other to depend on.
    """

    def __init__(self, masked: bool, length: int | None) -> None:
        self._masked = masked
        self._length = length
        self._layers = 0
        self._unread: list[str] = []
        self._compared: set[float] = set()
        self._reach: dict[int, int] = {}  # id of a tensor -> how far back the convolutions before it look
        self._shortest = 1
        self.notes: list[str] = []

    def follow(self, call: Call, part: Part, tensors: Sequence[Any], outputs: Any, static: bool) -> Any:
        """The outputs of a call of these tensors; raises `ExportError` where it is not local in time.

        `static` tells whether the tensors without a time axis stay the same over the sequence.
        """
        timed = any(None in t.shape for t in tensors)
        if timed and not static:
            instead = "use return_sequences=True before it"
            raise refusal(call.op, "takes the last time step of a sequence at each one", instead)
        if timed and self._length != 1:
            outputs = self._read(call, part, outputs)
        before = max((self._reach.get(id(t), 0) for t in tensors), default=0)
        own = reach(call.op) if isinstance(part, Convolution) else 0
        self._reach |= {id(t): before + own for t in tree.flatten(outputs)}
        self._shortest = max(self._shortest, 1 + isinstance(part, Encoded))
        return outputs

    def reading(self) -> Reading:
        """What was read so far."""
        compared = tuple(sorted(self._compared))
        reached = max(self._reach.values(), default=0)
        return Reading(self._layers, tuple(self._unread), compared, reached, self._shortest)

    def _read(self, call: Call, part: Part, outputs: Any) -> Any:
        op = call.op
        slides = isinstance(part, Convolution) or slides_over_one(op)
        maker = getattr(op.activation, "__module__", "keras.") if slides else "keras."
        if not maker.startswith("keras."):  # a function that runs on the whole sequence within Keras's call
            activation = layers.Activation(op.activation, name=op.name)
            self._read(Call(call.key, activation, (outputs,), {}), Part(True), outputs)
        if is_stock(op) and (part.remembers or part.by_rule or slides):
            return outputs
        try:
            outputs, compared = read(call, outputs, self._masked, self._length)
            self._compared |= compared
            self._layers += 1
        except Unreadable as error:
            self._unread.append(op.name)
            self.notes.append(
                f"layer {op.name!r} ({type(op).__name__}) cannot be read ({error}); that it acts on each "
                "time step alone is shown by test only"
            )
        return outputs
