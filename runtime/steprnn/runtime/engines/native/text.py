"""Text in one call: the prompt, the steps and the sampler of docs/sampling.md, all in the interpreter."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ...sampling.sampler import Sampling, not_finite
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
    """Chooses the tokens of one text as `Sampler` does; `ValueError` where it cannot be made."""

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
            call(
                "steprnn_sampler_open_with",
                *(_kernels(), self.address, ctypes.byref(settings)),
                *(seed, vocabulary, memory, size),
            )
        )
        self._sample = library().steprnn_sample
        read = np.asarray(recent, np.uint32)
        call("steprnn_sampler_read", self.address, read.ctypes.data, len(read))

        self._token = ctypes.c_uint32()
        self._to = ctypes.addressof(self._token)
        self._seen: NDArray[np.float32] | None = None  # the array of the last call

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The next token for logits float32 `[vocabulary]`; raises `NotFinite` where the largest is none."""
        if logits is not self._seen:  # that of a runner is the same at each step
            self._seen = logits
            self._given = np.ascontiguousarray(logits)
            self._from = self._given.ctypes.data
            self._is_copy = self._given is not logits
        elif self._is_copy:
            self._given[:] = logits
        if self._sample(self.address, self._from, self._to):
            raise not_finite(float(logits.max()))
        return self._token.value


class NativeRows:
    """Chooses the tokens of many texts as `RowSampler` does, in one call."""

    def __init__(
        self, sampling: Sampling, seeds: Sequence[int], recent: Sequence[Sequence[int]], vocabulary: int
    ) -> None:
        each = zip(seeds, recent, strict=True)
        self._samplers = [NativeSampler(sampling, seed, tokens, vocabulary) for seed, tokens in each]
        self._addresses = np.array([sampler.address for sampler in self._samplers], np.uintp)

    def choose(self, rows: NDArray[np.intp], logits: NDArray[np.float32]) -> NDArray[np.intp]:
        """The next token of each of these rows, for logits `[len(rows), vocabulary]`; raises `NotFinite`."""
        tokens = sample_rows(self._addresses[rows], logits)
        if tokens.min(initial=0) < 0:
            raise not_finite(float(logits[tokens.argmin()].max()))
        return tokens


def sample_rows(addresses: NDArray[np.uintp], logits: NDArray[np.float32]) -> NDArray[np.intp]:
    """The next tokens of samplers at these addresses, for logits float32 `[samplers, vocabulary]`.

    -1 where one has none.
    """
    tokens, given = np.empty(len(addresses), np.int32), np.ascontiguousarray(logits)
    arrays = addresses.ctypes.data, len(addresses), given.ctypes.data, tokens.ctypes.data
    library().steprnn_sample_rows(*arrays)
    return tokens.astype(np.intp)


def log_probabilities(
    logits: NDArray[np.float32], following: Sequence[int] | NDArray[np.int32]
) -> NDArray[np.float64]:
    """The log-probability of a token of each row of logits `[rows, vocabulary]`, to 1e-6.

    NaN where a row's largest logit is no finite number.
    """
    tokens, given = np.ascontiguousarray(following, np.uint32), np.ascontiguousarray(logits)
    found = np.empty(len(tokens))
    arrays = given.ctypes.data, *given.shape, tokens.ctypes.data, found.ctypes.data
    library().steprnn_log_probabilities(_kernels(), *arrays)
    return found


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
def _kernels() -> int:
    """The best ones here; a virtual machine takes long to ask its processor."""
    return int(call("steprnn_best_kernels"))


@cache
def _keep() -> int:
    """The address of `steprnn_keep`."""
    return ctypes.cast(library().steprnn_keep, ctypes.c_void_p).value or 0


def _check(error: int) -> None:
    if error:
        raise ValueError(call("steprnn_error", error).decode())
