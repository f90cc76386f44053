"""Where a bundle is: a folder, a zip file, or the name of a package that pip installed."""

from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from steprnn.runtime import BundleError, cli
from steprnn.runtime.bundle.installed import InstalledModel, models, plain
from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.bundle.open import open_bundle
from steprnn.runtime.files import MANIFEST
from steprnn.runtime.package import zip as zip_package

Install = Callable[[str, str, str], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a package where Python finds it, as pip does: its entry point, its name, its version."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def put(name: str, package: str, version: str) -> Path:
        told = site / f"{package}-{version}.dist-info"
        told.mkdir()
        (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (told / "entry_points.txt").write_text(f"[steprnn.models]\n{name} = {package}\n")
        (site / package).mkdir()
        (site / package / "__init__.py").write_text(
            "raise RuntimeError('a bundle is found without importing it')\n"
        )
        return site / package

    return put


def test_installed_models_by_name_in_the_order_of_their_names(install: Install) -> None:
    install("verse--lstm.small", "verse_package", "1.2")
    install("a_first", "another", "0.1")
    found = {name: model for name, model in models().items() if model.package in ("verse_package", "another")}
    assert list(found.items()) == [
        ("a_first", InstalledModel("a_first", "another", "0.1")),
        ("verse_lstm_small", InstalledModel("verse_lstm_small", "verse_package", "1.2")),
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Lyrics-LSTM", "lyrics_lstm"), ("a.-_b", "a_b"), ("_x_", "_x_"), ("plain9", "plain9")],
)
def test_a_name_as_its_package_has_it(name: str, expected: str) -> None:
    assert plain(name) == expected


def test_the_folder_of_an_installed_model(install: Install, tiny: Path) -> None:
    package = install("verse", "verse_package", "1.2")
    words = "^the installed model verse has no folder verse_package/bundle; install it again$"
    with pytest.raises(BundleError, match=words):
        models()["verse"].folder.exists()
    (package / "bundle").write_text("not a folder")
    with pytest.raises(BundleError, match=words):
        models()["verse"].folder.exists()
    (package / "bundle").unlink()
    shutil.copytree(tiny, package / "bundle")
    assert models()["verse"].folder == package / "bundle"
    for name in ("verse", "Verse", Path("verse")):
        with open_bundle(name) as folder:
            assert folder == package / "bundle"
    with open_bundle("./verse") as folder:
        assert folder == Path("./verse"), "a path, and none that is there"
    with (
        pytest.raises(
            BundleError, match=r"^lyrics is neither a path nor an installed model; installed: .*verse"
        ),
        open_bundle("lyrics"),
    ):
        pytest.fail("there is no such model")


def test_all_that_is_installed_is_told_to_who_asks_for_another(install: Install) -> None:
    install("one", "package_one", "1")
    install("two", "package_two", "2")
    with pytest.raises(BundleError) as raised, open_bundle("three"):
        pytest.fail("there is no such model")
    assert str(raised.value) == (
        f"three is neither a path nor an installed model; installed: {', '.join(models())}"
    )


@pytest.mark.parametrize("package", ["not.a-package", "no_such_package", "pathlib"])
def test_a_package_that_is_none(package: str) -> None:
    with pytest.raises(BundleError) as raised:
        _ = InstalledModel("verse", package, "").folder
    assert str(raised.value) == f"the installed model verse has no folder {package}/bundle; install it again"


def test_a_folder_and_what_is_no_zip_are_given_back(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "file.onnx").write_bytes(b"")
    for path in (tiny, tmp_path / "folder.zip", tmp_path / "file.onnx", tmp_path / "absent.zip"):
        with open_bundle(str(path)) as folder:
            assert folder == path


def test_a_path_that_is_there_comes_before_an_installed_model(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("verse", "verse_package", "1.2")
    (tmp_path / "verse").mkdir()
    monkeypatch.chdir(tmp_path)
    with open_bundle("verse") as folder:
        assert folder == Path("verse")


@pytest.mark.parametrize("name", ["tiny.zip", "Tiny.ZIP"])
def test_a_zip_is_unpacked_where_only_its_user_reads_and_gone_behind_the_block(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    packed = zip_package.write(tiny, tmp_path / name)
    with open_bundle(packed) as folder:
        assert folder.name == name, "errors of what reads it name the zip file"
        assert folder.parent.parent == temporary
        assert folder.parent.name.startswith("steprnn-")
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        assert Manifest.read(folder) == Manifest.read(tiny)
        assert {p.name for p in folder.iterdir()} == {p.name for p in tiny.iterdir()}
    with open_bundle(packed, lambda manifest: ["vocabulary.json"]) as folder:
        assert {p.name for p in folder.iterdir()} == {MANIFEST, "vocabulary.json"}
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("command", ["inspect", "check", "generate", "bench"])
def test_commands_read_a_zip_in_memory(
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    """So that nothing is left of one that is killed: there is no folder for temporary files here."""
    pytest.importorskip("onnx")
    packed = zip_package.write(tiny, tmp_path / "tiny.zip")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    flags = {"bench": ["--quick"], "generate": ["-p", "分", "-n", "3"]}.get(command, [])
    assert cli.main([command, str(packed), *flags]) == 0
    if command != "generate":
        assert "tflite-int8" in (out := capsys.readouterr().out) or "litert int8" in out
