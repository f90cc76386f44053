"""The runtime alone: the wheel with one engine in a clean environment, without TensorFlow.

`make alone` runs it. For each engine it installs the wheel with that extra only, asks for help, checks the
tiny bundle, generates from it, measures what the environment takes on disk, and freezes a program. Most of
that it does with NumPy alone too and a bundle of step programs, which the library in the wheel runs. Exits 1
where anything fails.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "tests" / "tiny" / "bundle"
ENGINES = ("onnx", "litert")
WRITTEN = ("-p", "分开", "-n", "20")
IN_THE_WHEEL = (
    "steprnn/train/lyrics.txt",
    "steprnn/train/py.typed",
    "steprnn/export/py.typed",
    "steprnn/runtime/py.typed",
)
PROGRAM = """\
import sys
from steprnn.runtime import __version__, load
print(load(sys.argv[1]).generate("分开", 20), __version__)
"""
ABSENT = ("tensorflow", "keras", "tf2onnx", "onnx", "matplotlib", "torch")


class AloneError(Exception):
    """Something is not as it must be."""


def main() -> int:
    """Build the wheel, try each engine, compare their texts."""
    with tempfile.TemporaryDirectory(prefix="steprnn-alone-") as folder:
        try:
            wheel = build(Path(folder))
            texts = {engine: alone(wheel, engine, Path(folder) / engine) for engine in ENGINES}
            for engine, form in zip(ENGINES, ("--onedir", "--onefile"), strict=True):
                texts[f"{engine}, frozen"] = frozen(Path(folder) / engine, form)
            expect(len(set(texts.values())) == 1, f"the engines write different texts: {texts}")
            bundle = with_programs(Path(folder))
            text = alone(wheel, "native", Path(folder) / "native", bundle)
            other = run(
                sys.executable, "-m", "steprnn.runtime", "generate", bundle, "--engine", "onnx", *WRITTEN
            )
            expect(text == other.rstrip("\n"), f"native writes {text!r}, onnx {other!r}")
        except AloneError as failure:
            say(f"FAILED: {failure}")
            return 1
    say("the runtime works alone with each engine")
    return 0


def build(folder: Path) -> Path:
    """The wheel, with all that it must hold."""
    say("building the wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    (wheel,) = folder.glob("steprnn-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in IN_THE_WHEEL:
        expect(name in names, f"{wheel.name} does not hold {name}")
    libraries = [n for n in names if n.startswith("steprnn/runtime/engines/native/libsteprnn")]
    expect(len(libraries) == (not wheel.name.endswith("-any.whl")), f"{wheel.name} holds {libraries}")
    expect("steprnn/__init__.py" not in names, "the namespace has an __init__.py")
    strangers = [n for n in names if not n.startswith(("steprnn/", "steprnn-"))]
    expect(not strangers, f"{wheel.name} holds {strangers}")
    return wheel


def with_programs(folder: Path) -> Path:
    """The tiny model exported again, with step programs."""
    say("exporting step programs")
    script = (
        f"import sys; sys.path.insert(0, {str(BUNDLE.parent)!r}); from make import *; "
        f"export(tiny_source(), Path({str(folder / 'b')!r}), formats=('onnx', 'program'))"
    )
    run(sys.executable, "-c", script)
    return folder / "b"


def alone(wheel: Path, engine: str, folder: Path, bundle: Path = BUNDLE) -> str:
    """Install the wheel with one engine, use it, and return the text that it wrote."""
    say(f"installing {wheel.name}[{engine}] in a clean environment")
    venv.create(folder, with_pip=True)
    python, steprnn = folder / "bin" / "python", folder / "bin" / "steprnn"
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    before = size(packages)
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[{engine}]")
    for module in ABSENT:
        found = run(python, "-c", f"import importlib.util as u; print(u.find_spec({module!r}) is not None)")
        expect(found.strip() == "False", f"{module} came along with steprnn[{engine}]")
    expect("generate" in run(steprnn, "--help"), "steprnn --help does not list generate")
    report = run(steprnn, "check", bundle)
    verdicts = re.findall(r"^\S+-\S+ .*  (\w+)$", report, re.MULTILINE)
    expect(verdicts == ["passed"] * 2, f"expected two artefacts of {engine} to pass:\n{report}")
    text = run(steprnn, "generate", bundle, *WRITTEN).rstrip("\n")
    expect(text.startswith("分开") and len(text) == 22, f"got the text {text!r}")
    say(f"steprnn[{engine}]: {(size(packages) - before) / 1e6:.0f} MB on disk, {text!r}")
    return text


def frozen(folder: Path, form: str) -> str:
    """Freeze a program with PyInstaller, by the hook that the wheel brings, and return what it wrote."""
    say(f"freezing a program with PyInstaller {form}")
    run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", "pyinstaller")
    program = folder / "poet.py"
    program.write_text(PROGRAM, encoding="utf-8")
    where = ("--distpath", folder / "dist", "--workpath", folder / "build", "--specpath", folder)
    run(folder / "bin" / "pyinstaller", form, "--noconfirm", "--log-level", "ERROR", *where, program)
    moved = folder.with_name(f"{folder.name}-away")
    folder.rename(moved)  # nothing of the environment is found by accident
    place = moved / "dist" / "poet"
    text, _, version = run(place if place.is_file() else place / "poet", BUNDLE).rpartition(" ")
    expect(bool(re.fullmatch(r"\d+\.\d+\.\d+\n", version)), f"the version was {version!r}")
    say(f"frozen: {size(moved / 'dist') / 1e6:.0f} MB on disk, {text!r}")
    return text


def run(*command: object) -> str:
    """What a command prints on stdout; raises `AloneError` with what it said where it fails."""
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        check=False,
        cwd=tempfile.gettempdir(),  # nothing of the tree is imported by accident
        encoding="utf-8",
    )
    if result.returncode:
        said = (result.stdout + result.stderr).strip()
        raise AloneError(f"`{' '.join(map(str, command))}` exited with {result.returncode}:\n{said}")
    return result.stdout


def size(folder: Path) -> int:
    """Bytes on disk, as du counts them."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def expect(condition: bool, otherwise: str) -> None:
    """Raise `AloneError` with these words if the condition does not hold."""
    if not condition:
        raise AloneError(otherwise)


def say(line: str) -> None:
    """Tell a person how far it has come."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
