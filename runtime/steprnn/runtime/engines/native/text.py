"""Text in one call: the prompt, the steps and the sampler of docs/sampling.md, all in the interpreter."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...sampling import Sampling
from .library import Streams, aligned, call

WRITE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32)
LONGEST = 2**24  # tokens that the repetition penalty may look back


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
        ("values", ctypes.c_void_p),
        ("seen", ctypes.c_uint64),
        ("order", ctypes.c_void_p),
        ("recent", ctypes.c_void_p),
        ("numbers", ctypes.c_uint32 * 4),
        ("twister", ctypes.c_uint32 * 624),
    )


class NativeSampler:
    """Chooses the tokens of one text as `Sampler` does; `ValueError` where that cannot be."""

    def __init__(self, sampling: Sampling, seed: int, recent: Iterable[int], vocabulary: int) -> None:
        kept = min(sampling.repeat_last_n, LONGEST)
        given = (sampling.temperature, sampling.top_p, sampling.min_p, sampling.repeat_penalty)
        settings = _Settings(*given, sampling.top_k, kept)
        size = call(
            "steprnn_sampler_bytes",
            ctypes.c_uint32(vocabulary),
            ctypes.c_uint32(kept),
            result=ctypes.c_size_t,
        )
        self._memory = aligned(-(-size // 4))  # the struct points into it
        self.struct = _Sampler()
        _check(
            call(
                "steprnn_sampler_open",
                ctypes.byref(self.struct),
                ctypes.byref(settings),
                ctypes.c_uint64(seed),
                ctypes.c_uint32(vocabulary),
                ctypes.c_void_p(self._memory.ctypes.data),
                ctypes.c_size_t(size),
            )
        )
        for token in recent:
            call("steprnn_sampler_read", ctypes.byref(self.struct), ctypes.c_uint32(token))

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The next token for logits `[vocabulary]`; `ValueError` where the largest is not finite."""
        token, given = ctypes.c_uint32(), np.ascontiguousarray(logits, np.float32)
        pointer = ctypes.c_void_p(given.ctypes.data)
        _check(call("steprnn_sample", ctypes.byref(self.struct), pointer, ctypes.byref(token)))
        return token.value


def write(
    streams: Streams, prompt: Sequence[int], length: int, sampler: NativeSampler, stop: Callable[[int], bool]
) -> list[int]:
    """At most `length` tokens after the prompt, in the first row; it ends after one that `stop` is true of.

    `ValueError` where the program is no language model, a token is impossible or the logits are not finite.
    """
    written: list[int] = []

    def each(context: Any, token: int) -> int:
        written.append(token)
        return int(stop(token))

    tokens = np.asarray(prompt, np.uint32)
    first = ctypes.c_void_p(streams.call[1][0])
    _check(call("steprnn_read", first, ctypes.c_void_p(tokens.ctypes.data), ctypes.c_size_t(len(tokens))))
    count, back = ctypes.c_size_t(length), WRITE(each)
    _check(call("steprnn_generate", first, ctypes.byref(sampler.struct), count, back, None))
    return written


def _check(error: int) -> None:
    if error:
        raise ValueError(call("steprnn_error", ctypes.c_int(error), result=ctypes.c_char_p).decode())
