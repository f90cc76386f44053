"""The machine: what it calls itself, how fast it reads memory, and one core of it to measure on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# What decides the speed of a matrix-vector product, in float32 and in int8.
FLAGS = (
    "sse4_1 avx avx2 fma f16c avx512f avx512vl avx512_vnni avx512_bf16 avx_vnni amx_int8 amx_tile "
    "neon asimd asimdhp asimddp i8mm bf16 sve sve2"
).split()
CPUINFO = Path("/proc/cpuinfo")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Machine:
    """What a figure was measured on."""

    processor: str
    cores: int  # that this process may use
    flags: tuple[str, ...]  # of FLAGS, where the system tells them
    caches: dict[str, int]  # "L1", "L2", ... -> bytes of data that one core sees
    system: str

    @classmethod
    def here(cls) -> Machine:
        """Ask the operating system; what it does not tell is empty."""
        told = _cpuinfo()
        flags = (told.get("flags") or told.get("Features") or "").split()
        processor = told.get("model name") or _sysctl("machdep.cpu.brand_string") or platform.processor()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
        known = tuple(flag for flag in FLAGS if flag in flags)
        return cls(processor or platform.machine(), cores, known, _caches(), system)

    def level(self, size: int) -> str:
        """The smallest cache that holds so many bytes, or "memory"; empty where the caches are unknown."""
        if not self.caches:
            return ""
        return next((name for name, held in sorted(self.caches.items()) if size <= held), "memory")


def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo."""
    pairs: dict[str, str] = {}
    with suppress(OSError):
        for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            pairs.setdefault(key.strip(), value.strip())
    return pairs


def _sysctl(name: str) -> str:
    if sys.platform != "darwin":
        return ""
    result = subprocess.run(["sysctl", "-n", name], capture_output=True, check=False, text=True)
    return result.stdout.strip()


def _caches() -> dict[str, int]:
    found = {}
    with suppress(OSError, ValueError, KeyError):
        for folder in CACHES.glob("index*"):
            level, kind, size = ((folder / n).read_text().strip() for n in ("level", "type", "size"))
            if kind != "Instruction":
                found[f"L{level}"] = int(size[:-1]) * UNITS[size[-1]]
    return dict(sorted(found.items()))


@contextmanager
def pinned() -> Iterator[int | None]:
    """Stay on one core, whose number it yields; None where the system has no such thing."""
    if not hasattr(os, "sched_setaffinity"):  # macOS, Windows
        yield None
        return
    before = os.sched_getaffinity(0)
    core = max(before)
    os.sched_setaffinity(0, {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, before)


def read_seconds(size: int, seconds: float = 0.1) -> float:
    """Time to read so many bytes once, again and again, so that they lie in the first cache they fit in.

    The best of many by the faster of two ways: C's memchr behind `bytes.find`, and NumPy's maximum.
    What either takes for next to nothing, the call itself, is taken off.
    """
    zeros, nothing = bytes(size), bytes(1)
    numbers, none = np.zeros(size, np.uint8), np.zeros(1, np.uint8)
    ways: list[tuple[Callable[[], object], Callable[[], object]]] = [
        (lambda: zeros.find(b"\x01"), lambda: nothing.find(b"\x01")),
        (lambda: np.maximum.reduce(numbers), lambda: np.maximum.reduce(none)),
    ]
    times = [max(_best(full, seconds) - _best(empty, seconds / 4), 1e-9) for full, empty in ways]
    return min(times)


def _best(call: Callable[[], object], seconds: float) -> float:
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(20):
            began = time.perf_counter()
            call()
            best = min(best, time.perf_counter() - began)
    return best
