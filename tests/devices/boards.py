"""Emulated boards: how a packaged model is compiled for each, run there, and what the run tells."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FIRMWARE = Path(__file__).with_name("firmware")
STEPS = 1000  # chained, and hashed
TOLD = re.compile(r"^(?:\x1b\[\d+m)*([a-z]+) (\d+)", re.M)  # simavr writes in colours
FLAGS = (
    "-std=gnu99 -O2 -ffp-contract=off -Wall -Wextra -Werror -ffunction-sections -fdata-sections "
    "-Wl,--gc-sections"
).split()


@dataclass(frozen=True)
class Board:
    """A processor in an emulator."""

    name: str
    processor: str  # and what of it matters here
    compiler: str
    flags: str
    family: str  # of a file in firmware/
    emulator: str  # what runs the firmware, whose path follows
    packages: str  # of Debian
    room: int = 512 * 1024  # bytes that the program may take; an AVR has it in its RAM
    steps: int = STEPS
    unit: str = "instructions"
    padded: bool = False  # whole panels in float32: kernels of cortex.h

    def missing(self) -> list[str]:
        """Programs that are not installed."""
        return [p for p in (self.compiler, self.emulator.split()[0]) if shutil.which(p) is None]


def _cortex(name: str, processor: str, flags: str, machine: str, padded: bool = False) -> Board:
    return Board(
        name,
        processor,
        "arm-none-eabi-gcc",
        f"{flags} -mthumb -nostartfiles -T {FIRMWARE / 'board.ld'} "
        "-Wl,--defsym=flash=0 -Wl,--defsym=ram=0x20000000",
        "cortex",
        f"qemu-system-arm -M {machine} -icount shift=0 -semihosting -display none -serial none -monitor none "
        "-kernel",
        "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm",
        padded=padded,
    )


def _riscv(name: str, processor: str, flags: str) -> Board:
    return Board(
        name,
        processor,
        "riscv64-unknown-elf-gcc",
        f"--specs=picolibc.specs {flags} -nostartfiles -T {FIRMWARE / 'board.ld'} "
        "-Wl,--defsym=flash=0x80000000 -Wl,--defsym=ram=0x80100000",
        "riscv",
        "qemu-system-riscv32 -M virt -bios none -icount shift=0 -semihosting -display none -serial none "
        "-monitor none -kernel",
        "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-misc",
    )


BOARDS = (
    _cortex("cortex-m3", "Cortex-M3, no floating-point unit", "-mcpu=cortex-m3", "mps2-an385"),
    _cortex(
        "cortex-m4f", "Cortex-M4F", "-mcpu=cortex-m4 -mfloat-abi=hard -mfpu=fpv4-sp-d16", "mps2-an386", True
    ),
    _cortex(
        "cortex-m7", "Cortex-M7", "-mcpu=cortex-m7 -mfloat-abi=hard -mfpu=fpv5-sp-d16", "mps2-an500", True
    ),
    _cortex("cortex-m55", "Cortex-M55 with Helium", "-mcpu=cortex-m55 -mfloat-abi=hard", "mps3-an547", True),
    _riscv("rv32imac", "RISC-V, no floating-point unit", "-march=rv32imac -misa-spec=2.2 -mabi=ilp32"),
    _riscv("rv32imafc", "RISC-V with one", "-march=rv32imafc -misa-spec=2.2 -mabi=ilp32f"),
    Board(
        "atmega1284p",
        "AVR of 8 bits, 16 kB of RAM",
        "avr-gcc",
        "-mmcu=atmega1284p -Os -Wno-maybe-uninitialized -DCOUNTED=4",
        "avr",
        "simavr -m atmega1284p -f 16000000",
        "gcc-avr avr-libc simavr",
        room=11_000,
        steps=100,
        unit="cycles",
    ),
    Board(
        "aarch64",
        "64-bit Arm under Linux",
        "aarch64-linux-gnu-gcc",
        "-static",
        "linux",
        "qemu-aarch64",
        "gcc-aarch64-linux-gnu qemu-user",
        unit="",
    ),
)


@dataclass(frozen=True)
class Run:
    """What a board told of a model: bytes, and instructions (of an AVR cycles) a step."""

    hash: int  # over the board's steps
    code: int  # of the interpreter and what it needs of the compiler's libraries; 0 under Linux
    program: int
    arena: int
    stack: int  # to open and to step, the stream's struct with it
    instructions: int  # 0 where none are counted


def run(board: Board, model: Path, folder: Path, extra: Sequence[str] = ()) -> Run:
    """Compile the C of a `package --as c` for a board, its self-test first, and step it there.

    Raises `CalledProcessError` where it does not compile, or where the board's bits are others.
    """
    firmware, objects = built(board, "main", model, folder, [f"-DSTEPS={board.steps}", *extra])
    told = {word: int(number) for word, number in TOLD.findall(printed(board, firmware))}
    if "lower" not in told:
        raise subprocess.CalledProcessError(0, firmware, str(told))
    tool = board.compiler.removesuffix("gcc") + "size"
    sizes = subprocess.check_output([tool, firmware, *objects[:2]], text=True).splitlines()[1:]
    whole, *ours = (sum(map(int, line.split()[:2])) for line in sizes)
    counted = told["counted"] / told["steps"] * 200_000 / told["loop"] if told["loop"] else 0
    return Run(
        hash=told["upper"] << 32 | told["lower"],
        code=whole - told["program"] - sum(ours) if board.unit else 0,  # a Linux program has a C library
        program=told["program"],
        arena=told["arena"],
        stack=told["stack"] + told["stream"],
        instructions=round(counted),
    )


def text(board: Board, model: Path, folder: Path) -> str:
    """What firmware/text.c writes there, with the model of a `package --as c` that writes text."""
    return printed(board, built(board, "text", model, folder)[0])


def built(
    board: Board, main: str, model: Path, folder: Path, extra: Sequence[str] = ()
) -> tuple[Path, list[Path]]:
    """The firmware, and the objects that it is made of, those of the tests first."""
    flags = [*FLAGS, *board.flags.split(), f"-I{model}", f"-I{FIRMWARE}", *extra]
    folder.mkdir(parents=True, exist_ok=True)
    sources = [FIRMWARE / f"{main}.c", FIRMWARE / f"{board.family}.c", model / "model.c", model / "steprnn.c"]
    objects = [folder / f"{source.stem}.o" for source in sources]
    for source, made in zip(sources, objects, strict=True):
        subprocess.run([board.compiler, *flags, "-c", "-o", made, source], check=True)
    firmware = folder / "firmware"
    subprocess.run([board.compiler, *flags, "-o", firmware, *objects], check=True)
    return firmware, objects


def printed(board: Board, firmware: Path) -> str:
    """What the firmware writes; raises `CalledProcessError` where it ends with an error."""
    command = [*board.emulator.split(), firmware]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, firmware, done.stdout, done.stderr)
    return done.stdout + done.stderr
