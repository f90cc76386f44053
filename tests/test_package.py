"""`steprnn package --as zip|wheel` and `steprnn models`, with pip, twine and a clean environment."""

from __future__ import annotations

import email
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from steprnn.runtime import BundleError, Model, cli, load
from steprnn.runtime.bundle import installed
from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.bundle.open import open_bundle
from steprnn.runtime.origin import install
from steprnn.runtime.package import wheel as wheel_package

ROOT = Path(__file__).parents[1]
Capture = pytest.CaptureFixture[str]
NAMED = ("--name", "tiny-verse", "--version", "1.0")


@pytest.fixture
def package(tiny: Path, tmp_path: Path, capfd: Capture) -> Callable[..., Path]:
    """Run the command on the tiny bundle, and return the path that it prints."""

    def run(*argv: object, bundle: object = tiny) -> Path:
        out = () if "--out" in argv else ("--out", tmp_path / "out")
        code = cli.main([str(a) for a in ("package", bundle, "--as", *argv, *out)])
        printed, err = capfd.readouterr()
        assert code == 0, err
        path = Path(printed.removesuffix("\n"))
        assert err == f"{path.stat().st_size:,} bytes\n"
        return path

    return run


@pytest.fixture
def refusal(
    tiny: Path, capfd: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Run the command where it must exit with 2 and write nothing; return what it says."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert cli.main([str(a) for a in ("package", tiny, "--as", *argv)]) == 2
        assert sorted(tmp_path.rglob("*")) == before
        out, err = capfd.readouterr()
        assert out == ""
        return err.removeprefix("steprnn: ").removesuffix("\n")

    return run


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as file:
        (name,) = (n for n in file.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(file.read(name))


# zip


def test_every_command_takes_the_zip(
    package: Any, models: dict[str, Model], capfd: Capture, tmp_path: Path
) -> None:
    path = package("zip", "--out", tmp_path / "verse.zip")
    assert cli.main(["generate", str(path), "-p", "分开", "-n", "20"]) == 0
    assert capfd.readouterr().out == models["litert"].generate("分开", 20) + "\n"
    assert cli.main(["check", str(path)]) == 0
    assert "tflite-int8" in capfd.readouterr().out
    assert cli.main(["inspect", str(path)]) == 0
    assert capfd.readouterr().out.startswith(f"{path}: bundle, ")
    again = package("zip", "--out", tmp_path / "again.zip", bundle=path)
    assert again.read_bytes() == path.read_bytes()


def test_a_hostile_zip_is_one_line_in_every_command(package: Any, capfd: Capture, tmp_path: Path) -> None:
    path = package("zip", "--out", tmp_path / "verse.zip")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("../evil", "x")
    for argv in (
        ["generate", path, "-p", "分"],
        ["check", path],
        ["inspect", path],
        ["package", path, "--as", "zip"],
    ):
        assert cli.main([str(a) for a in argv]) == 1
        out, err = capfd.readouterr()
        words = "holds the name '../evil', which is not inside the bundle; do not trust it, or pack"
        assert (out, err.startswith(f"steprnn: {path} {words}"), err.count("\n")) == ("", True, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["verse.zip"]


def test_the_zip_is_named_after_the_bundle(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny, tmp_path / "verse.bundle")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["package", "verse.bundle", "--as", "zip"]) == 0
    assert load("verse.zip").generate("分开", 5) == load(tiny).generate("分开", 5)


def test_a_saved_model_stays_at_home(
    tiny_copy: Path, edit_manifest: Any, package: Any, tmp_path: Path
) -> None:
    """It is a program for TensorFlow; what is left has a manifest of its own."""
    (tiny_copy / "saved_model").mkdir()
    (tiny_copy / "saved_model" / "saved_model.pb").write_bytes(b"a graph")
    artefact = {"format": "saved_model", "variant": "float32", "method": "", "path": "saved_model"}
    edit_manifest(tiny_copy, lambda r: r["files"].update({"saved_model/saved_model.pb": {}}))
    edit_manifest(tiny_copy)
    edit_manifest(tiny_copy, lambda r: r["artefacts"].append({"name": "saved_model-float32", **artefact}))
    path = package("zip", "--out", tmp_path / "out.zip", bundle=tiny_copy)
    with open_bundle(path) as folder:
        manifest = Manifest.read(folder)
        manifest.verify(folder, list(manifest.files))
        assert not (folder / "saved_model").exists()
    assert not folder.exists()
    assert [a.format for a in manifest.artefacts] == ["tflite", "onnx", "tflite", "onnx"]


def test_a_damaged_bundle_is_not_packed(tiny_copy: Path, capfd: Capture, tmp_path: Path) -> None:
    (tiny_copy / "golden.npz").write_bytes(b"")
    for kind in (("zip",), ("wheel", *NAMED)):
        assert cli.main([*map(str, ("package", tiny_copy, "--as", *kind, "--out", tmp_path / "x.zip"))]) == 1
        assert "golden.npz has 0 bytes, expected" in capfd.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == [tiny_copy.name]


# wheel


def test_every_engine_has_an_extra_that_a_wheel_may_ask_for() -> None:
    from steprnn.runtime.engines import ENGINES

    assert set(ENGINES) <= set(importlib.metadata.metadata("steprnn").get_all("Provides-Extra"))


@pytest.mark.parametrize("engine", ["onnx", "litert"])
def test_a_wheel_holds_one_engines_graphs_and_what_they_need(
    package: Any, tmp_path: Path, engine: str, models: dict[str, Model]
) -> None:
    path = package("wheel", *NAMED, "--engine", engine, "--license", "cc-by-4.0")
    assert path.name == "tiny_verse-1.0-py3-none-any.whl"
    told = metadata(path)
    assert (told["Name"], told["Version"], told["License-Expression"]) == ("tiny-verse", "1.0", "CC-BY-4.0")
    assert told.get_all("Requires-Dist") == [f"steprnn[{engine}]>={wheel_package.version_of('steprnn')}"]
    assert told["Requires-Python"] == ">=3.10"
    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path / "site")
    graph = {"onnx": "onnx", "litert": "tflite"}[engine]
    files = {p.name for p in (tmp_path / "site" / "tiny_verse" / "bundle").iterdir()}
    kept = {"golden.npz", "manifest.json", "parity.json", "vocabulary.json"}
    assert files == kept | {f"step.{graph}", f"step.int8.{graph}"}
    model = load(tmp_path / "site" / "tiny_verse" / "bundle")
    assert model.manifest.read_bytes.keys() == {f"{graph}-float32", f"{graph}-int8"}
    assert model.generate("分开", 20) == models[engine].generate("分开", 20)
    run = [sys.executable, "-m", "twine", "check", "--strict", str(path)]
    result = subprocess.run(run, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_model_card(package: Any, tmp_path: Path, tiny_copy: Path, edit_manifest: Any) -> None:
    """What the model is, how far each graph is off, how it is used, and what may be done with it."""
    licence = tmp_path / "TERMS.txt"
    licence.write_text("Sing it.\n", encoding="utf-8")
    parity = json.loads((tiny_copy / "parity.json").read_text(encoding="utf-8"))
    for finding in parity["findings"]:  # the tiny bundle goes without the figures, which export writes
        if finding["level"] == "chained":
            of_int8 = "int8" in finding["candidate"]
            units = {"y": 0.5, "next_h": 4321.0 if of_int8 else 1.25, "next_c": None}
            finding["figures"] = {
                "units": units,
                "same_top_1": 0.9876,
                "mean_kl": 1.5e-4 if of_int8 else None,
            }
    (tiny_copy / "parity.json").write_text(json.dumps(parity), encoding="utf-8")
    edit_manifest(tiny_copy)
    path = package("wheel", *NAMED, "--license", licence, "--engine", "onnx", bundle=tiny_copy)
    told = metadata(path)
    card = told.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert told["Description-Content-Type"] == "text/markdown"
    assert "A recurrent language model of 21 tokens and 16 numbers of state" in card
    assert 'load("tiny_verse")' in card
    assert "steprnn generate tiny_verse -p " in card
    sizes = [f"{(tiny_copy / name).stat().st_size:,}" for name in ("step.onnx", "step.int8.onnx")]
    rows = [line.partition(" | ")[2] for line in card.splitlines() if line.startswith("| onnx-")]
    assert rows == [f"{sizes[0]} | 1.2 | 98.76% |  |", f"{sizes[1]} | 4,321 | 98.76% | 0.0001 |"]
    assert "tflite" not in card
    assert "In the file TERMS.txt." in card
    with zipfile.ZipFile(path) as file:
        assert file.read("tiny_verse-1.0.dist-info/licenses/LICENSE") == b"Sing it.\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", r"parity\.json is not JSON \(.*\); export again"),
        ("[]", r'parity\.json is not a record of parity: expected "format": "steprnn\.parity"'),
        ('{"format": "steprnn.parity", "version": 2}', r"parity\.json has format version 2 and this steprnn"),
    ],
)
def test_a_record_of_parity_that_is_none(
    tiny_copy: Path, tmp_path: Path, edit_manifest: Any, capfd: Capture, content: str, words: str
) -> None:
    """Its hash is right, so nothing but the card finds it."""
    (tiny_copy / "parity.json").write_text(content, encoding="utf-8")
    edit_manifest(tiny_copy)
    argv = ["package", str(tiny_copy), "--as", "wheel", *NAMED, "--out", str(tmp_path / "out")]
    assert cli.main(argv) == 1
    assert re.fullmatch(rf"steprnn: \S*{words}.*\n", capfd.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_without_a_licence_no_index_takes_it(package: Any) -> None:
    told = metadata(package("wheel", *NAMED))
    assert told.get_all("Classifier") == ["Private :: Do Not Upload"]
    assert "None was stated." in told.get_payload(decode=True).decode()  # type: ignore[union-attr]


def test_equal_wheels_have_equal_bytes(package: Any, tmp_path: Path) -> None:
    one, other = (package("wheel", *NAMED, "--out", tmp_path / name).read_bytes() for name in "ab")
    assert one == other


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["wheel"], "a wheel has a name and a version; give --name lyrics-lstm --version 1.0.0"),
        (["wheel", "--name", "x"], "a wheel has a name and a version"),
        (
            ["wheel", "--name", "3d", "--version", "1"],
            "--name 3d cannot be imported; expected letters, digits",
        ),
        (["wheel", "--name", "歌", "--version", "1"], "--name 歌 cannot be imported"),
        (["wheel", "--name", "a/../b", "--version", "1"], "--name a/../b cannot be imported"),
        (
            ["wheel", "--name", "json", "--version", "1"],
            "--name json would hide Python's own json; choose another",
        ),
        (["wheel", "--name", "SteprNN", "--version", "1"], "--name SteprNN would hide Python's own steprnn"),
        (["wheel", "--name", "class", "--version", "1"], "--name class would hide"),
        (
            ["wheel", "--name", "x", "--version", "one"],
            "--version one is not one to Python; expected such as 1.0.0",
        ),
        (
            ["wheel", *NAMED, "--license", "be nice"],
            "--license 'be nice' is neither a file nor an SPDX expression, such as CC-BY-4.0",
        ),
        (["zip", "--name", "x"], "--name only means something with --as wheel or npm or hub"),
        (["zip", "--out", "verse.tar"], "--out verse.tar does not end in .zip, by which `load` knows it"),
        (["tar"], "argument --as: invalid choice: 'tar'"),
    ],
)
def test_flags_that_cannot_be_meant(refusal: Callable[..., str], argv: list[str], words: str) -> None:
    assert refusal(*argv).startswith(words)


@pytest.mark.parametrize("gone", ["build", "hatchling"])
def test_without_the_builder(refusal: Callable[..., str], gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, gone, None)
    said = refusal("wheel", *NAMED)
    assert said == f"{gone}, which builds wheels, is not installed; run: {install('package')}"


# installed models


@pytest.fixture
def site(tmp_path: Path, package: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on sys.path with the wheel's files in it, as pip lays them."""
    with zipfile.ZipFile(package("wheel", *NAMED)) as file:
        file.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site"


def test_an_installed_model_is_loaded_by_its_name(
    site: Path, models: dict[str, Model], capfd: Capture
) -> None:
    (site / "tiny_verse" / "__init__.py").write_text("raise SystemExit('it was imported')")
    for name in ("tiny_verse", "tiny-verse", "Tiny-Verse"):
        assert load(name).generate("分开", 20) == models["litert"].generate("分开", 20)
    assert cli.main(["models"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert out.startswith("tiny_verse  1.0  tflite-float32, tflite-int8  ")
    assert out.endswith(" bytes  A recurrent language model of 21 tokens and 16 numbers of state\n")
    with pytest.raises(
        BundleError, match=r"^lyrics is neither a path nor an installed model; installed: tiny_verse$"
    ):
        load("lyrics")
    with pytest.raises(BundleError, match="does not exist; expected a bundle as"):
        load("./tiny_verse")


def test_a_path_comes_before_an_installed_model(
    site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tiny_verse").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"tiny_verse holds no manifest.json"):
        load("tiny_verse")


def test_an_installed_model_that_is_damaged(site: Path, capfd: Capture) -> None:
    (site / "tiny_verse" / "bundle" / "step.tflite").write_bytes(b"")
    assert cli.main(["models"]) == 1
    assert "tiny_verse 1.0: " in (err := capfd.readouterr().err)
    assert "step.tflite has 0 bytes, expected" in err
    shutil.rmtree(site / "tiny_verse")
    assert cli.main(["models"]) == 1
    words = "the installed model tiny_verse has no folder tiny_verse/bundle; install it again"
    assert capfd.readouterr().err == f"steprnn: tiny_verse 1.0: {words}\n"
    with pytest.raises(BundleError, match=words):
        load("tiny_verse")


def test_without_installed_models(capfd: Capture) -> None:
    if installed.models():
        pytest.skip("this environment has models installed")
    assert cli.main(["models"]) == 0
    words = "no model is installed; make one with: steprnn package BUNDLE --as wheel\n"
    assert capfd.readouterr() == ("", words)
    with pytest.raises(BundleError, match="lyrics does not exist; expected a bundle as"):
        load("lyrics")


def test_pip_in_a_clean_environment(tmp_path: Path, package: Any, models: dict[str, Model]) -> None:
    """pip brings the engine that the wheel asks for; what is installed writes what was packed."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (steprnn,) = tmp_path.glob("steprnn-*.whl")
    verse = package("wheel", *NAMED, "--engine", "litert")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "v"], check=True)
    bin = tmp_path / "v" / "bin"

    def run(*argv: object) -> str:
        command = [str(bin / str(argv[0])), *map(str, argv[1:])]
        result = subprocess.run(command, capture_output=True, check=False, cwd=tmp_path, encoding="utf-8")
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run("python", "-m", "pip", "install", "--quiet", steprnn, verse)
    expected = models["litert"].generate("分开", 20)
    program = "from steprnn.runtime import load; print(load('tiny_verse').generate('分开', 20))"
    assert run("python", "-X", "utf8", "-c", program) == expected + "\n"
    assert run("steprnn", "generate", "tiny_verse", "-p", "分开", "-n", 20) == expected + "\n"
    assert run("steprnn", "models").startswith("tiny_verse  1.0  tflite-float32, tflite-int8  ")
    assert "onnxruntime" not in run("python", "-m", "pip", "list")
