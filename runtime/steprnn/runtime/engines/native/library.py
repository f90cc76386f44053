"""The interpreter as a shared library, built once for a user from the C sources beside this file."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import platform
import shutil
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError, brief

HERE = Path(__file__).parent
SOURCE = "steprnn.c"
SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
BUILT = HERE / f"libsteprnn{SUFFIX}"  # of a wheel
FLAGS = ("-std=c99", "-O3", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Wextra")
LINE = 64  # bytes that an arena and a program are aligned to
KINDS = ("inputs", "states", "outputs")
VNNI = 5  # STEPRNN_VNNI of steprnn.h


class _Stream(ctypes.Structure):
    """`steprnn` of steprnn.h."""

    _fields_ = (
        ("program", ctypes.c_void_p),
        ("arena", ctypes.c_void_p),
        ("work", ctypes.c_uint64),
        ("kernels", ctypes.c_int32),
    )


class _Tensor(ctypes.Structure):
    """`steprnn_tensor` of steprnn.h."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_bytes", ctypes.c_size_t),
        ("dtype", ctypes.c_int),
        ("elements", ctypes.c_size_t),
        ("tokens", ctypes.c_uint32),
        ("is_static", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("rank", ctypes.c_size_t),
        ("shape", ctypes.c_uint32 * 8),
    )


_stream, _pointer, _size = ctypes.POINTER(_Stream), ctypes.c_void_p, ctypes.c_size_t
_error, _word = ctypes.c_int, ctypes.c_uint32
FUNCTIONS: dict[str, tuple[Any, ...]] = {  # of steprnn.h: what each returns, then what it takes
    "steprnn_arena": (_size, _pointer, _size),
    "steprnn_open": (_error, _stream, _pointer, _size, _pointer, _size),
    "steprnn_error": (ctypes.c_char_p, _error),
    "steprnn_tensor_at": (_error, _stream, ctypes.c_int, _size, ctypes.POINTER(_Tensor)),
    "steprnn_step_all": (_error, _pointer, _size),
    "steprnn_run": (_error, _pointer, _pointer, _size, _pointer, ctypes.POINTER(_size)),
    "steprnn_hash": (ctypes.c_uint64, _stream, _word),
    "steprnn_selftest": (_error, _stream),
    "steprnn_best_kernels": (ctypes.c_int,),
    "steprnn_kernels": (ctypes.c_int, _stream, ctypes.c_int),
    "steprnn_sampler_bytes": (_size, _word, _word),
    "steprnn_sampler_open_with": (
        *(_error, ctypes.c_int, _pointer, _pointer),
        *(ctypes.c_uint64, _word, _pointer, _size),
    ),
    "steprnn_sampler_read": (None, _pointer, _pointer, _size),
    "steprnn_sample": (_error, _pointer, _pointer, _pointer),
    "steprnn_sample_rows": (None, _pointer, _size, _pointer, _pointer),
    "steprnn_log_probabilities": (None, ctypes.c_int, _pointer, _size, _word, _pointer, _pointer),
    "steprnn_generate": (_error, _pointer, _pointer, _size, _pointer, _pointer),
}
# These take some microseconds: to let go of Python's lock and get it back takes longer where others want it.
LOCKED = {name for name in FUNCTIONS if "sampl" in name} | {"steprnn_log_probabilities"}


@dataclass(frozen=True)
class Tensor:
    """A tensor of one row, and where in its arena it lies, in words."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    tokens: int | None
    place: int


def available() -> bool:
    """Whether there is a library, or a compiler to build it with."""
    return BUILT.is_file() or compiler() is not None or _cached().is_file()


@cache
def is_ready() -> bool:
    """Whether there is a library that is not to be built first."""
    try:
        if BUILT.is_file() or _cached().is_file():
            library()
            return True
    except (OSError, RuntimeError, UsageError):  # of another system, without a home, or not private
        pass
    return False


def comes_first() -> bool:
    """Whether it came built, on a processor where it was measured to be the faster at batch 1.

    That is x86-64 with AVX-512 VNNI (docs/decisions/0056-step-program.md). A library that was compiled here
    does not count, as the text of a seed must not depend on what was loaded before.
    """
    if not BUILT.is_file() or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return int(call("steprnn_best_kernels")) == VNNI


def aligned(words: int) -> NDArray[np.uint32]:
    """Zeroed words that begin at an address which `LINE` divides."""
    room = np.zeros(words + LINE // 4, np.uint32)
    start = -room.ctypes.data % LINE // 4
    return room[start : start + words]


class Streams:
    """A program opened for some rows, each a stream with an arena of its own. `ValueError` where refused."""

    def __init__(self, program: NDArray[np.uint32], rows: int = 1) -> None:
        self._library = library()
        self._program = program
        size = self._library.steprnn_arena(program.ctypes.data, program.nbytes)
        self._pitch = -(-max(size, 4) // LINE) * LINE // 4  # words from one arena to the next
        if self._pitch * rows > 2**33:
            raise ValueError(f"{rows} rows would need {4 * self._pitch * rows:,} bytes")
        self._arenas = aligned(self._pitch * rows)
        self._streams = (_Stream * rows)()
        for row, stream in enumerate(self._streams):
            arena = self._arenas.ctypes.data + 4 * row * self._pitch
            error = self._library.steprnn_open(stream, program.ctypes.data, program.nbytes, arena, size)
            if error:
                raise ValueError(self.words(error))
        self.inputs, self.states, self.outputs = (self._tensors(kind) for kind in range(3))
        self.tensors = (*self.inputs, *self.states, *self.outputs)
        self.call: tuple[Callable[..., int], tuple[Any, ...]]
        self.call = self._library.steprnn_step_all, (ctypes.addressof(self._streams), rows)

    def _tensors(self, kind: int) -> tuple[Tensor, ...]:
        found: list[Tensor] = []
        record = _Tensor()
        while self._library.steprnn_tensor_at(self._streams[0], kind, len(found), record):
            name = ctypes.string_at(record.name, record.name_bytes).decode("utf-8", "replace")
            place = (record.data - self._arenas.ctypes.data) // 4
            dtype = ("float32", "int32")[record.dtype]
            found.append(
                Tensor(name, dtype, tuple(record.shape[: record.rank]), record.tokens or None, place)
            )
        return tuple(found)

    def array(self, tensor: Tensor) -> NDArray[Any]:
        """A tensor of all rows, `[rows, ...]`, in place."""
        part = self._arenas.view(tensor.dtype)[tensor.place :]
        strides = (4 * self._pitch, *np.zeros(tensor.shape, tensor.dtype).strides)
        return np.lib.stride_tricks.as_strided(part, (len(self._streams), *tensor.shape), strides)

    def step(self) -> None:
        """Take one time step in every row; `ValueError` where one has an impossible token."""
        step, arguments = self.call
        if error := step(*arguments):
            raise ValueError(self.words(error))

    def run(self, inputs: NDArray[Any], outputs: NDArray[np.float32] | None = None) -> None:
        """Take a time step of the first row for each of the `inputs`, words `[steps, ...]` of all that is not
        static; those of the outputs go to `outputs` `[steps, ...]`. `ValueError` as of `step`."""
        to = None if outputs is None else outputs.ctypes.data
        if error := self._library.steprnn_run(self.call[1][0], inputs.ctypes.data, len(inputs), to, None):
            raise ValueError(self.words(error))

    def hash(self, steps: int) -> int:
        """The hash of the self-test over so many steps of the first row."""
        return int(self._library.steprnn_hash(self._streams[0], steps))

    def selftest(self) -> str:
        """What the self-test finds, in words; empty where every bit is right."""
        error = self._library.steprnn_selftest(self._streams[0])
        return self.words(error) if error else ""

    def kernels(self, most: int) -> int:
        """Use at most these kernels in every row; those in use."""
        return max(int(self._library.steprnn_kernels(stream, most)) for stream in self._streams)

    @property
    def arena_bytes(self) -> int:
        """The memory that one row needs."""
        return int(self._library.steprnn_arena(self._program.ctypes.data, self._program.nbytes))

    @property
    def work(self) -> int:
        """The operations of one step of a row."""
        return int(self._streams[0].work)

    def words(self, error: int) -> str:
        """An error of the interpreter."""
        return str(self._library.steprnn_error(error).decode())


@cache
def library() -> ctypes.CDLL:
    """The library, loaded once; `UsageError` where it cannot be built."""
    path = str(BUILT if BUILT.is_file() else _build())
    opened, locked = ctypes.CDLL(path), ctypes.PyDLL(path)
    for name, (result, *arguments) in FUNCTIONS.items():
        function = getattr(locked if name in LOCKED else opened, name)
        function.restype, function.argtypes = result, arguments
        setattr(opened, name, function)
    return opened


def call(name: str, *arguments: Any) -> Any:
    """Call a function of steprnn.h, one of `FUNCTIONS`."""
    return getattr(library(), name)(*arguments)


def compiler() -> list[str] | None:
    """How to call a C compiler."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and shutil.which(name.split()[0]):
            return name.split()
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    return None


def _cached() -> Path:
    """Where this user's library of these sources is kept."""
    digest = hashlib.sha256(" ".join((*FLAGS, sys.platform, platform.machine())).encode())
    for source in sorted((*HERE.glob("*.h"), *HERE.glob("*.c"))):
        digest.update(source.read_bytes())
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "steprnn" / f"native-{digest.hexdigest()[:24]}{SUFFIX}"


def _build() -> Path:
    """The library in the cache, compiled where it is not there yet; it appears whole or not at all."""
    import subprocess  # a built library needs neither
    import tempfile

    path = _cached()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(_no_place(path.parent, error.strerror)) from None
    _check_private(path.parent)
    if path.is_file():
        return path
    if not os.access(path.parent, os.W_OK):
        raise UsageError(_no_place(path.parent, "it cannot be written in"))
    found = compiler()
    if found is None:
        raise UsageError(
            "the engine 'native' needs a C compiler once, and none is here; install one (apt install gcc, or "
            "pip install ziglang), or choose another --engine"
        )
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        command = [*found, *FLAGS, "-o", str(made), str(HERE / SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            told = brief(done.stderr)
            raise UsageError(f"{found[0]} does not compile the engine 'native' ({told}); set CC to another")
        made.replace(path)
    return path


def _no_place(folder: Path, reason: str | None) -> str:
    return f"the engine 'native' has no place in {folder} ({reason}); set XDG_CACHE_HOME to another folder"


def _check_private(folder: Path) -> None:
    """A library is run as this user, so nobody else may have put it there."""
    if not hasattr(os, "getuid"):
        return
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(
            f"{folder} can be written by others; run: chmod go-w {quote(str(folder))}, or set XDG_CACHE_HOME"
        )
