"""A step program gives the same bits with every compiler, optimization, kernel and processor.

Three builds by default; STEPRNN_BITS=all tries each toolchain that is here, the others are skipped:

    STEPRNN_BITS=all pytest tests/export/program/test_bits.py
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from steprnn.export.program import encoding, fusing, lowering, source  # noqa: E402
from steprnn.export.program.selftest import with_selftest  # noqa: E402
from steprnn.runtime.engines.native import library  # noqa: E402
from steprnn.runtime.engines.native.library import Streams, aligned  # noqa: E402

from .cases import step  # noqa: E402
from .cells import cell_graph  # noqa: E402

STEPS = 1000
OPERATORS = (
    "Softmax",
    "LayerNormalization",
    "Mish",
    "Erf",
    "Conv",
    "ConvDepthwise",
    "MatMulItself",
    "DivInt",
)
C99 = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-ffp-contract=off")
CXX = ("-x", "c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-pedantic", "-ffp-contract=off")
ZIG = (sys.executable, "-m", "ziglang", "cc")
ARM64, ARMHF = (
    ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"),
    ("qemu-arm", "-L", "/usr/arm-linux-gnueabihf"),
)
BUILDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # compiler and flags; what runs it
    "cc -O0": (("cc", *C99, "-O0"), ()),
    "cc -O2": (("cc", *C99, "-O2"), ()),
    "cc -O3 -march=native": (("cc", *C99, "-O3", "-march=native"), ()),
    "cc -O3 without kernels": (("cc", *C99, "-O3", "-DSTEPRNN_NO_KERNELS"), ()),
    "cc -O2 as for a small processor": (("cc", *C99, "-O2", "-DSTEPRNN_SMALL"), ()),
    "c++ -O2": (("c++", *CXX, "-O2"), ()),
    "c++ -O2 as for a small processor": (("c++", *CXX, "-O2", "-DSTEPRNN_SMALL"), ()),
    "clang -O0": (("clang", *C99, "-O0"), ()),
    "clang -O3": (("clang", *C99, "-O3"), ()),
    "clang++ -O2": (("clang++", *CXX, "-O2"), ()),
    "zig cc -O3": ((*ZIG, *C99, "-O3"), ()),
    "aarch64 -O2": (("aarch64-linux-gnu-gcc", *C99, "-O2"), ARM64),
    "aarch64 -O3, dot product": (("aarch64-linux-gnu-gcc", *C99, "-O3", "-march=armv8.2-a+dotprod"), ARM64),
    "armhf -O2": (("arm-linux-gnueabihf-gcc", *C99, "-O2"), ARMHF),
    "armhf -O3": (("arm-linux-gnueabihf-gcc", *C99, "-O3"), ARMHF),
    # As wheels are compiled for them.
    "zig aarch64": ((*ZIG, "-target", "aarch64-linux-musl", *C99, "-O3"), ("qemu-aarch64",)),
    "zig armv7": ((*ZIG, "-target", "arm-linux-musleabihf", *C99, "-O3"), ("qemu-arm",)),
}
USUAL = ("cc -O0", "cc -O2", "cc -O2 as for a small processor")
RUN = BUILDS if os.environ.get("STEPRNN_BITS") == "all" else USUAL


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("programs")
    steps = {name: (*step(name), "float32") for name in OPERATORS}
    for variant in encoding.VARIANTS:
        steps |= {f"{cell}-{variant}": (*cell_graph(cell, 37, 21), variant) for cell in ("lstm", "gru")}
    paths = []
    for name, (model, spec, variant) in steps.items():
        low = lowering.lower(source.read(model), spec)
        block = encoding.program(low, fusing.fused(low.operations), spec, variant, "a test", {})
        paths.append(folder / f"{name}.program")
        paths[-1].write_bytes(with_selftest(block))
    return paths


def opened(path: Path) -> Streams:
    data = path.read_bytes()
    words = aligned(len(data) // 4)
    words.view(np.uint8)[:] = np.frombuffer(data, np.uint8)
    return Streams(words)


def test_kernels_give_the_same_bits(programs: list[Path]) -> None:
    for path in programs:
        streams = opened(path)
        hashes = {}
        for most in range(6):
            hashes[streams.kernels(most)] = streams.hash(STEPS)
        assert len(set(hashes.values())) == 1, (path.stem, hashes)
        assert streams.selftest() == ""


def test_another_number_is_another_hash(programs: list[Path]) -> None:
    path = programs[-1]
    data = bytearray(path.read_bytes())
    at = 4 * (int.from_bytes(data[52:56], "little") + 5)  # what the first operation, a product, reads
    weights = 4 * int.from_bytes(data[at - 4 : at], "little")
    data[weights + 2] ^= 1
    path = path.with_name("changed.program")
    path.write_bytes(data)
    assert "other bits" in opened(path).selftest()


@pytest.mark.parametrize("name", RUN)
def test_builds_give_the_same_bits(name: str, programs: list[Path], tmp_path: Path) -> None:
    command, runner = BUILDS[name]
    missing = [p for p in (command[0], *runner[:1]) if shutil.which(p) is None]
    if missing or (command[:3] == ZIG[:3] and importlib.util.find_spec("ziglang") is None):
        pytest.skip(f"{(missing or ['ziglang'])[0]} is not installed here")
    made = tmp_path / "hash"
    sources = (str(Path(__file__).with_name("hash.c")), str(library.HERE / library.SOURCE))
    subprocess.run([*command, f"-I{library.HERE}", "-o", str(made), *sources], check=True)
    expected = [f"{opened(path).hash(STEPS):016x}" for path in programs]
    for kernels in "543210":
        line = [*runner, str(made), str(STEPS), kernels, *map(str, programs)]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        found = done.stdout.split()
        wrong = [p.stem for p, a, b in zip(programs, found, expected, strict=True) if a != b]
        assert not wrong, f"{name}: {', '.join(wrong)}"


def test_quick_functions_have_the_same_bits(tmp_path: Path) -> None:
    """Every 4,999th float here; `quick 1` tries all, which takes some minutes."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler is installed here")
    source, made = Path(__file__).with_name("quick.c"), tmp_path / "quick"
    subprocess.run(["cc", *C99, "-O2", f"-I{library.HERE}", "-o", made, source], check=True)
    subprocess.run([made, "4999"], check=True)
