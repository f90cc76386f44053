"""The folders of `package --as c --target ...`: compiled by the tools that are here, read where none are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tf2onnx")
yaml = pytest.importorskip("yaml")

from steprnn.export.bundle import export  # noqa: E402
from steprnn.runtime import Vocabulary, load  # noqa: E402
from steprnn.runtime.package import c, targets  # noqa: E402

from . import boards  # noqa: E402

ARDUINO = Path("/usr/share/arduino/hardware/arduino/avr")  # of Debian's arduino-core-avr
# The last is what avr-gcc 5 lacks in C++.
MEGA = (
    "-mmcu=atmega2560 -DF_CPU=16000000L -DARDUINO=10819 -DARDUINO_AVR_MEGA2560 -DARDUINO_ARCH_AVR "
    "-DDECIMAL_DIG=9"
)
LIBRARY = "-Os -ffunction-sections -fdata-sections -Wl,--gc-sections"  # as Arduino's platform.txt has them
KINDS = ("signal", "text")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A sensor of 12 units and a language model, with programs alone."""
    folder = tmp_path_factory.mktemp("targets")
    keras.utils.set_random_seed(2)
    sensor = keras.Sequential(
        [keras.Input((None, 1)), keras.layers.LSTM(12, return_sequences=True), keras.layers.Dense(2)]
    )
    tokens = keras.Input((None,), dtype="int32")
    hidden = keras.layers.GRU(16, return_sequences=True)(keras.layers.Embedding(26, 8)(tokens))
    text = keras.Model(tokens, keras.layers.Dense(26)(hidden))
    letters = Vocabulary([chr(97 + i) for i in range(26)])
    for name, model, vocabulary in (("signal", sensor, None), ("text", text, letters)):
        options: dict[str, Any] = {"vocabulary": vocabulary, "chained_steps": 64}
        export(model, folder / name, formats=("program",), variants=("float32", "int8"), **options)
    return {name: folder / name for name in KINDS}


def wave(bundle: Path, variant: str, steps: int) -> list[str]:
    """What the example for a signal prints."""
    session = load(bundle, engine="native", variant=variant).session()
    frames = [np.float32(n % 20) / np.float32(10) - np.float32(1) for n in range(steps)]
    return [" ".join(f"{v:.6f}" for v in session.step(np.full(1, x)).ravel()) for x in frames]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", targets.TARGETS)
def test_a_folder_has_all_that_it_names(
    target: str, kind: str, bundles: dict[str, Path], tmp_path: Path
) -> None:
    out = c.write(bundles[kind], tmp_path / "c", variant="int8", target=target)
    found = {p.relative_to(out).as_posix(): p.read_text() for p in out.rglob("*") if p.is_file()}
    assert not [name for name, text in found.items() if re.search("@[A-Z]+@", name + text)]
    place = targets.TARGETS[target][0].replace(".", "")
    for name in ("steprnn.h", "steprnn.c", "model.h", "model.c"):
        assert f"{place}/{name}".lstrip("/") in found
    if target == "platformio":
        library = json.loads(found["library.json"])
        (example,) = library["examples"]
        assert {f"{example['base']}/{f}" for f in example["files"]} <= set(found)
        assert library["build"]["flags"] == "-ffp-contract=off"
    if target == "arduino":
        told = dict(line.split("=", 1) for line in found["library.properties"].splitlines())
        needed = "name version author maintainer sentence paragraph category url architectures"
        assert all(told[name] for name in needed.split())
    if target == "esp-idf":
        (example,) = yaml.safe_load(found["idf_component.yml"])["examples"]
        assert (out / example["path"] / "main" / "main.c").is_file()
    if target == "zephyr":
        build = yaml.safe_load(found["zephyr/module.yml"])["build"]
        assert (out / build["kconfig"]).is_file()
        assert (out / build["cmake"] / "CMakeLists.txt").is_file()
    c.write(bundles[kind], out, target=target)  # such a folder is replaced


@pytest.mark.parametrize("target", ["esp-idf", "zephyr"])
def test_the_example_for_a_console_prints_what_python_gives(
    target: str, bundles: dict[str, Path], tmp_path: Path
) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler is installed here")
    for kind in KINDS:
        out = c.write(bundles[kind], tmp_path / kind, variant="int8", target=target)
        (main,) = out.rglob("main.c")
        sources = [main, out / "src" / "steprnn.c", out / "src" / "model.c"]
        flags = f"-std=c99 -Wall -Wextra -Werror -pedantic -O1 -ffp-contract=off -I{out / 'src'}".split()
        subprocess.run(["cc", *flags, "-o", tmp_path / "main", *sources], check=True)
        printed = subprocess.check_output([tmp_path / "main"], text=True)
        if kind == "signal":
            assert printed.splitlines() == wave(bundles[kind], "int8", 100)
        else:
            model = load(bundles[kind], engine="native", variant="int8")
            text = model.generate("a", 100, temperature=0.8, top_k=20, seed=7)
            assert printed == text[1:] + "\n"


def arduino(sketch: Path, library: Path, folder: Path, *, link: bool) -> Path:
    """A sketch with Arduino's own core for the Mega 2560, by the flags of its platform.txt."""
    core, variant = ARDUINO / "cores" / "arduino", ARDUINO / "variants" / "mega"
    flags = [*MEGA.split(), *LIBRARY.split(), f"-I{core}", f"-I{variant}", f"-I{library}"]
    cxx = ["avr-g++", "-std=gnu++11", "-fpermissive", "-fno-exceptions", "-fno-threadsafe-statics", *flags]
    objects = [folder / "sketch.o"]
    include = ("-x", "c++", "-include", "Arduino.h")
    subprocess.run([*cxx, "-Wall", *include, "-c", "-o", objects[0], sketch], check=True)
    if not link:
        return objects[0]
    for source in (*core.glob("*.c"), *core.glob("*.cpp"), *core.glob("*.S"), *library.glob("*.c")):
        objects.append(folder / f"{source.name}.o")
        compiler = cxx if source.suffix == ".cpp" else ["avr-gcc", *flags]
        subprocess.run([*compiler, "-w", "-c", "-o", objects[-1], source], check=True)
    subprocess.run(["avr-gcc", *flags, "-o", folder / "firmware", *objects, "-lm"], check=True)
    return folder / "firmware"


@pytest.fixture
def mega() -> None:
    missing = [p for p in ("avr-g++", "simavr") if shutil.which(p) is None]
    if missing or not ARDUINO.is_dir():
        what = (missing or ["arduino-core-avr"])[0]
        pytest.skip(f"{what} is not installed here: apt install gcc-avr avr-libc simavr arduino-core-avr")


@pytest.mark.usefixtures("mega")
def test_an_arduino_prints_what_python_gives(bundles: dict[str, Path], tmp_path: Path) -> None:
    out = c.write(bundles["signal"], tmp_path / "c", variant="int8", target="arduino")
    firmware = arduino(out / "examples/signal/signal.ino", out / "src", tmp_path, link=True)
    command = ["simavr", "-m", "atmega2560", "-f", "16000000", str(firmware)]
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as board:
        assert board.stdout is not None
        while len(lines) < 12 and (line := board.stdout.readline().decode()):  # the sketch has no end
            text = line.removeprefix("\x1b[0m").removeprefix("\x1b[32m").rstrip("\n")
            if text and text[0] in "-0123456789":
                lines.append(text.rstrip("."))
        board.kill()
    printed = np.array([[float(n) for n in line.split()] for line in lines])
    expected = np.array([[float(n) for n in line.split()] for line in wave(bundles["signal"], "int8", 12)])
    np.testing.assert_allclose(printed, expected, rtol=0, atol=1.1e-6)  # Arduino prints in float32


@pytest.mark.usefixtures("mega")
@pytest.mark.parametrize(
    ("target", "name"), [("arduino", "text/text.ino"), ("platformio", "text/src/main.cpp")]
)
def test_a_sketch_that_writes_text_compiles(
    target: str, name: str, bundles: dict[str, Path], tmp_path: Path
) -> None:
    """It is not linked: an AVR has no float64, which the sampler needs."""
    out = c.write(bundles["text"], tmp_path / "c", target=target)
    assert arduino(out / "examples" / name, out / "src", tmp_path, link=False).is_file()


def test_a_library_whose_user_gives_no_flag_is_not_contracted(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    """A Cortex-M4F multiplies and adds in one operation, and its compiler does so unless it is told."""
    board = next(b for b in boards.BOARDS if b.name == "cortex-m4f")
    if missing := board.missing():
        pytest.skip(f"{missing[0]} is not installed here")
    flag = ("-ffp-contract=fast",)
    out = c.write(bundles["signal"], tmp_path / "a", target="arduino")
    told = boards.run(board, out / "src", tmp_path / "build", flag)
    assert told.hash == boards.run(board, out / "src", tmp_path / "build").hash
    plain = c.write(bundles["signal"], tmp_path / "b", target="platformio")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        boards.run(board, plain / "src", tmp_path / "build", flag)
    assert "compiled in a way that changes float32 results" in refused.value.stdout + refused.value.stderr


def test_platformio_packs_its_library(bundles: dict[str, Path], tmp_path: Path) -> None:
    pio = shutil.which("pio")
    if pio is None:
        pytest.skip("PlatformIO is not installed here: pip install platformio")
    out = c.write(bundles["signal"], tmp_path / "c", target="platformio")
    environment = os.environ | {"PLATFORMIO_CORE_DIR": str(tmp_path / "core"), "PYTHONPATH": ""}
    packed = tmp_path / "steprnn_model.tar.gz"
    subprocess.run([pio, "pkg", "pack", out, "-o", packed], check=True, env=environment, stdout=sys.stderr)
    assert packed.stat().st_size > 10_000
