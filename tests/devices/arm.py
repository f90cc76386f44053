"""The runtime under Linux on emulated processors, with Debian's and PyPI's packages: `make arm`.

Each machine is a folder of unpacked packages, and QEMU runs one program at a time from it (`-L`): nothing is
installed, nothing is mounted and nobody has to be root. On aarch64 the wheel of steprnn and those of LiteRT
and onnxruntime check every artefact of the bundles and run the tests that the runtime's arithmetic rests on.
On armv7 and RISC-V, for which PyPI has no engine, and with musl the engine native does it alone. Exits 1
where anything fails. `--tables FILE` writes what passed, and with which versions, into a document.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks")]

from tables import add_argument, put  # noqa: E402

FOLDER = ROOT / "build" / "arm"
TINY = ROOT / "tests" / "tiny" / "bundle"
SUITE = "trixie"  # QEMU 10.0; in 7.2 of Debian 12 LiteRT and onnxruntime crash
PYTHON = "3.13"  # of that suite
APT = {
    "Dir::State": "state",
    "Dir::State::status": "status",
    "Dir::Cache": "cache",
    "Dir::Etc::sourcelist": "sources.list",
}
STEPRNN = (sys.executable, "-m", "steprnn.runtime")
ZIG = (sys.executable, "-m", "ziglang", "cc", "-target")
C99 = ("-std=c99", "-O3", "-ffp-contract=off")
TEXT = ("分开", "40", "7", "2", "10")  # prompt, characters, seed, temperature, top_k
FLAGS = ("-p", "分开", "-n", "40", "--seed", "7", "--temperature", "2", "--top-k", "10")
EXPORT = """\
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from make import export, tiny_source
export(tiny_source(), Path(sys.argv[2]), formats=("tflite", "onnx", "program"))
"""
GLIBC = ("2_17", "2_27", "2_28")  # of the wheels that are taken; pip does not infer the older ones
TESTS = (  # what starts no other process, for some minutes
    "test_engines.py",
    "sampling/test_sampler.py",
    "test_session.py",
    "parity/test_streams.py",
)


class ArmError(Exception):
    """Something is not as it must be."""


@dataclass(frozen=True)
class Machine:
    """A processor under Linux, and what its Python is given."""

    name: str
    debian: str  # its name of the architecture
    emulator: str
    wheel: str  # of steprnn: a platform of hatch_build.py, or "any"
    packages: tuple[str, ...]  # of Debian
    requirements: tuple[str, ...] = ()  # of PyPI
    engines: tuple[str, ...] = ("native",)
    zig: str = ""  # compiles the library where the wheel is pure


MACHINES = (
    Machine(
        "aarch64",
        "arm64",
        "qemu-aarch64",
        "manylinux_2_17_aarch64",
        ("python3", "libstdc++6"),
        ("numpy", "ai-edge-litert", "onnxruntime", "pytest", "hypothesis"),
        ("litert", "onnx", "native"),
    ),
    Machine("armv7", "armhf", "qemu-arm", "manylinux_2_31_armv7l", ("python3", "python3-numpy")),
    Machine(
        "riscv64", "riscv64", "qemu-riscv64", "any", ("python3", "python3-numpy"), zig="riscv64-linux-gnu"
    ),
)
MUSL = {  # processor: its name in zig, and its emulator
    "x86-64": ("x86_64-linux-musl", "qemu-x86_64"),
    "aarch64": ("aarch64-linux-musl", "qemu-aarch64"),
    "armv7": ("arm-linux-musleabihf", "qemu-arm"),
    "riscv64": ("riscv64-linux-musl", "qemu-riscv64"),
}
VERSIONS = """\
import importlib.metadata as m, platform
print("Python", platform.python_version())
for name in ("numpy", "ai-edge-litert", "onnxruntime"):
    try: print(name, m.version(name))
    except m.PackageNotFoundError: pass
"""


def main() -> int:
    """Make each machine and use it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("bundles", type=Path, nargs="*", help="other bundles with programs to check too")
    add_argument(parser)
    arguments = parser.parse_args()
    try:
        table = rows([path.resolve() for path in arguments.bundles])
    except ArmError as failure:
        say(f"FAILED: {failure}")
        return 1
    put(arguments.tables, {"device-linux": table})
    say("\n".join(table))
    return 0


def rows(bundles: Sequence[Path]) -> list[str]:
    """What passed where, as a table; raises `ArmError` at the first that does not."""
    emulators = unpacked("qemu", host(), ("qemu-user",)) / "usr" / "bin"
    (version,) = re.findall(r"version (\S+)", run(emulators / "qemu-aarch64", "--version"))
    own = exported()
    expected = run(*STEPRNN, "generate", own, "--engine", "native", "--variant", "int8", *FLAGS)
    table = ["| machine | passed | with |", "| --- | --- | --- |"]
    for machine in MACHINES:
        python = set_up(machine, emulators)
        passed = [checked(python, own, machine), *(checked(python, path, machine) for path in bundles)]
        text = run(*python, *STEPRNN[1:], "generate", own, "--engine", "native", "--variant", "int8", *FLAGS)
        expect(text == expected, f"{machine.name} writes {text!r}, this machine {expected!r}")
        passed.append("a seeded text")
        if "pytest" in machine.requirements:
            passed += [checked(python, TINY, machine), tested(python)]
        versions = run(*python, "-c", VERSIONS).replace("\n", ", ") + f"QEMU {version}"
        table.append(f"| {machine.name}, glibc | {'; '.join(passed)} | {versions} |")
    return table + with_musl(own, emulators, expected, version)


def exported() -> Path:
    """The model of the tiny bundle again, in all formats that run without TensorFlow."""
    bundle = FOLDER / "tiny-with-programs"
    shutil.rmtree(bundle, ignore_errors=True)
    say(f"exporting {bundle.name}")
    run(sys.executable, "-c", EXPORT, TINY.parent, bundle)
    return bundle


def set_up(machine: Machine, emulators: Path) -> tuple[object, ...]:
    """Unpack a machine and install the wheel of steprnn there; the command that runs its Python."""
    root = unpacked(machine.name, machine.debian, machine.packages)
    site = FOLDER / machine.name / "site"
    shutil.rmtree(site, ignore_errors=True)
    own = wheel(machine.wheel)
    tags = [machine.wheel, *(f"manylinux_{glibc}_{machine.name}" for glibc in GLIBC)]
    what = (own, *machine.requirements) if machine.requirements else (own, "--no-deps")
    say(f"{machine.name}: installing {' '.join((own.name, *machine.requirements))}")
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "--target", site),
        *("--implementation", "cp", "--python-version", PYTHON),
        *(part for tag in tags for part in ("--platform", tag)),
        *what,
    )
    native = site / "steprnn" / "runtime" / "engines" / "native"
    if machine.zig:
        shared = (*C99, "-shared", "-fPIC", "-o", native / "libsteprnn.so")
        run(*ZIG, machine.zig, *shared, native / "steprnn.c")
    expect((native / "libsteprnn.so").is_file(), f"the wheel {machine.wheel} has no library")
    # Debian chooses a BLAS when packages are configured, which nobody does here.
    libraries = [
        str(found.parent) for name in ("libblas.so.3", "liblapack.so.3") for found in root.rglob(name)
    ]
    inside = [f"PYTHONPATH={site}", f"LD_LIBRARY_PATH={':'.join(libraries)}", "PYTHONDONTWRITEBYTECODE=1"]
    flags = [part for setting in inside for part in ("-E", setting)]
    return (emulators / machine.emulator, "-L", root, *flags, root / "usr" / "bin" / f"python{PYTHON}")


def checked(python: Sequence[object], bundle: Path, machine: Machine) -> str:
    """Let the machine check a bundle; what passed, in words."""
    say(f"{machine.name}: checking {bundle.name}")
    report = run(*python, *STEPRNN[1:], "check", bundle)
    found = re.findall(r"^(\S+-\S+) in (\S+) .*  (\w+)$", report, re.MULTILINE)
    engines = {engine for _, engine, _ in found}
    expected = set(machine.engines) - ({"native"} if bundle == TINY else set())
    expect(engines == expected, f"{machine.name} checked on {engines}, expected {expected}:\n{report}")
    expect(all(verdict == "passed" for *_, verdict in found), f"on {machine.name}:\n{report}")
    name = "tests/tiny/bundle" if bundle == TINY else bundle.name
    return f"{len(found)} artefacts of {name}"


def tested(python: Sequence[object]) -> str:
    """Run the runtime's tests there; how many passed."""
    files = [ROOT / "tests" / "runtime" / name for name in TESTS]
    told = run(*python, "-m", "pytest", "-p", "no:cacheprovider", *files)
    say(told.splitlines()[-1])
    (passed,) = re.findall(r"(\d+) passed", told)
    skipped = re.findall(r"(\d+) skipped", told)
    return f"{passed} tests" + (f" ({skipped[0]} skipped)" if skipped else "")


def with_musl(bundle: Path, emulators: Path, expected: str, version: str) -> list[str]:
    """Packaged C that zig links with musl, and the library of a wheel for musl in Debian's musl."""
    package = FOLDER / "c"
    shutil.rmtree(package, ignore_errors=True)
    run(*STEPRNN, "package", bundle, "--as", "c", "--variant", "int8", "--out", package)
    main, model = package / "main.c", package / "model.c"
    zig = f"zig {run(*ZIG[:-2], 'version').strip()}"
    found = []
    for name, (target, emulator) in MUSL.items():
        say(f"{target}: compiling the packaged C and running it")
        for source in (package / "selftest.c", main):
            run(*ZIG, target, *C99, "-static", "-o", source.stem, source, package / "steprnn.c", model)
        run(emulators / emulator, FOLDER / "selftest")
        text = run(emulators / emulator, FOLDER / "main", *TEXT)
        expect(text == expected, f"{target} writes {text!r}, this machine {expected!r}")
        passed = "packaged C: its self-test, a seeded text"
        found.append(f"| {name}, musl, static | {passed} | {zig}, QEMU {version} |")
    root = unpacked("musl", "arm64", ("musl",))
    with zipfile.ZipFile(wheel("musllinux_1_2_aarch64")) as held:
        (library,) = (n for n in held.namelist() if n.endswith("/libsteprnn.so"))
        (FOLDER / "libsteprnn.so").write_bytes(held.read(library))
    run(*ZIG, "aarch64-linux-musl", *C99, "-dynamic", "-o", "main", main, model, "libsteprnn.so")
    text = run(emulators / "qemu-aarch64", "-L", root, "-E", f"LD_LIBRARY_PATH={FOLDER}", "main", *TEXT)
    expect(text == expected, f"with the wheel's library for musl {text!r}, this machine {expected!r}")
    musl = next((FOLDER / "musl" / "apt" / "cache" / "archives").glob("musl_*.deb")).name.split("_")[1]
    passed = "the library of the wheel, called from C: a seeded text"
    found.append(f"| aarch64, musl | {passed} | musl {musl}, {zig}, QEMU {version} |")
    return found


def wheel(platform: str) -> Path:
    """Build steprnn's wheel for a platform, as somebody who ships it does."""
    folder = FOLDER / "wheels" / platform
    shutil.rmtree(folder, ignore_errors=True)
    line = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*line, "--wheel-dir", folder, ROOT, STEPRNN_WHEEL=platform)
    (built,) = folder.glob("*.whl")
    return built


def unpacked(name: str, architecture: str, packages: Sequence[str]) -> Path:
    """Packages of Debian and all that they depend on, in a folder, by an apt of its own, not as root."""
    folder = FOLDER / name
    root, apt = folder / "root", folder / "apt"
    shutil.rmtree(root, ignore_errors=True)
    for part in ("state/lists/partial", "cache/archives/partial"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (apt / "sources.list").write_text(f"deb [signed-by={keys}] {mirror()} {SUITE} main\n", encoding="utf-8")
    options = {option: str(apt / path) for option, path in APT.items()}
    options |= {"Dir::Etc::sourceparts": "/dev/null", "APT::Install-Recommends": "0"}
    options |= {"APT::Architecture": architecture, "APT::Architectures": architecture}
    line = ["apt-get", "-qq", *(part for option in options.items() for part in ("-o", "=".join(option)))]
    say(f"{name}: fetching {' '.join(packages)} of Debian {SUITE} for {architecture}")
    run(*line, "update")
    shutil.rmtree(apt / "cache" / "archives")  # what an older run asked for
    (apt / "cache" / "archives" / "partial").mkdir(parents=True)
    run(*line, "--yes", "--download-only", "install", *packages)
    for package in sorted((apt / "cache" / "archives").glob("*.deb")):
        run("dpkg-deb", "-x", package, root)
    if not (root / "lib").exists():
        (root / "lib").symlink_to("usr/lib")  # base-files has it, which nothing depends on
    return root


def mirror() -> str:
    """Where this machine's apt gets Debian from."""
    told = run(
        "apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages"
    )
    for line in told.splitlines():
        if line.startswith("Debian Debian http"):
            return line.split()[2]
    raise ArmError("apt knows no mirror of Debian; run: apt update")


def host() -> str:
    """Debian's name of the processor that this runs on."""
    return run("dpkg", "--print-architecture").strip()


def run(*command: object, **environment: str) -> str:
    """What a command prints on stdout; raises `ArmError` with what it said where it fails."""
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        check=False,
        cwd=FOLDER,  # nothing of the tree is imported by accident
        encoding="utf-8",
        env=os.environ | environment,
    )
    if result.returncode:
        said = (result.stdout + result.stderr).strip()
        raise ArmError(f"`{' '.join(map(str, command))}` exited with {result.returncode}:\n{said}")
    return result.stdout


def expect(condition: bool, otherwise: str) -> None:
    """Raise `ArmError` with these words if the condition does not hold."""
    if not condition:
        raise ArmError(otherwise)


def say(line: str) -> None:
    """Tell a person how far it has come."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    sys.exit(main())
