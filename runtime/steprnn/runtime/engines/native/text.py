"""Text in one call: the prompt, the steps and the sampler of docs/sampling.md, all in the interpreter."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ...sampling import Sampling, not_finite
from .library import Streams, aligned, call, library

LONGEST = 2**20  # tokens that the repetition penalty may look back
LARGEST_SEED = 2**64 - 1


class _Settings(ctypes.Structure):
    """`steprnn_settings` of steprnn.h."""

    _fields_ = (
        ("temperature", ctypes.c_double),
        ("top_p", ctypes.c_double),
        ("min_p", ctypes.c_double),
        ("repeat_penalty", ctypes.c_double),
        ("top_k", ctypes.c_uint32),
        ("repeat_last_n", ctypes.c_uint32),
    )


class _Sampler(ctypes.Structure):
    """`steprnn_sampler` of steprnn.h."""

    _fields_ = (
        ("settings", _Settings),
        ("most_behind", ctypes.c_double),
        ("seen", ctypes.c_uint64),
        ("keys", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
        ("narrow", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("floats", ctypes.c_float * 3),
        ("recent", ctypes.c_void_p),
        ("numbers", ctypes.c_uint32 * 5),
        ("twister", ctypes.c_uint32 * 624),
        ("is_recent", ctypes.c_void_p),
        ("kernels", ctypes.c_int32),
    )


class NativeSampler:
    """Chooses the tokens of one text as `Sampler` does; `ValueError` where that cannot be."""

    def __init__(self, sampling: Sampling, seed: int, recent: Sequence[int], vocabulary: int) -> None:
        kept = min(sampling.repeat_last_n, LONGEST)
        given = (sampling.temperature, sampling.top_p, sampling.min_p, sampling.repeat_penalty)
        settings = _Settings(*map(float, given), sampling.top_k, kept)
        size = call("steprnn_sampler_bytes", vocabulary, kept)
        self._memory = aligned(-(-size // 4))  # the struct points into it
        self.struct = _Sampler()
        self.address = ctypes.addressof(self.struct)
        memory = self._memory.ctypes.data
        _check(
            call("steprnn_sampler_open", self.address, ctypes.byref(settings), seed, vocabulary, memory, size)
        )
        read = np.asarray(recent, np.uint32)
        call("steprnn_sampler_read", self.address, read.ctypes.data, len(read))

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The next token for logits `[vocabulary]`; `ValueError` where the largest is not finite."""
        token, given = ctypes.c_uint32(), np.ascontiguousarray(logits, np.float32)
        _check(call("steprnn_sample", self.address, given.ctypes.data, ctypes.byref(token)))
        return token.value


class NativeText:
    """A text that goes on from what a stream has read, many tokens in one call."""

    def __init__(self, streams: Streams, sampler: NativeSampler, length: int) -> None:
        self._streams, self._sampler, self._left = streams, sampler, length
        self._last: int | None = None  # the token that was written last, and is not read yet
        self._error = 0

    def write(self, work: int) -> list[int]:
        """The next tokens, as many as take about `work` operations; none at the end.

        Raises `NotFinite` where the logits after those that were given are no numbers.
        """
        if self._error:
            raise not_finite(float(self._streams.array(self._streams.outputs[0]).max()))
        most = min(self._left, max(1, work // self._streams.work))
        if not most:
            return []
        if self._last is not None:
            self._streams.run(np.array([self._last], np.uint32))
        room = np.empty(most, np.uint32)
        end = ctypes.c_void_p(room.ctypes.data)
        stream = self._streams.call[1][0]
        self._error = call(
            "steprnn_generate", stream, self._sampler.address, most, _keep(), ctypes.byref(end)
        )
        tokens: list[int] = room[: ((end.value or 0) - room.ctypes.data) // 4].tolist()
        if self._error and not tokens:
            return self.write(work)
        self._left -= len(tokens)
        self._last = tokens[-1]
        return tokens


@cache
def _keep() -> int:
    """The address of `steprnn_keep`."""
    return ctypes.cast(library().steprnn_keep, ctypes.c_void_p).value or 0


def _check(error: int) -> None:
    if error:
        raise ValueError(call("steprnn_error", error).decode())
