"""`hf://` addresses and `package --as hub`: the Hub's own library, on a cache that is filled by hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steprnn.runtime import BundleError, Model, cli, load
from steprnn.runtime.origin import install

Run = Callable[..., Any]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def made(tiny: Path, tmp_path: Path) -> Path:
    """The folder that `package --as hub` writes."""
    out = tmp_path / "made"
    flags = ["--name", "me/verse", "--license", "cc-by-4.0", "--out", str(out)]
    assert cli.main(["package", str(tiny), "--as", "hub", *flags]) == 0
    return out


@pytest.fixture
def offline(made: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a machine without a network that has fetched me/verse before."""
    pytest.importorskip("huggingface_hub")
    repository = tmp_path / "hf" / "hub" / "models--me--verse"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(made, repository / "snapshots" / COMMIT)
    return os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}


def test_the_folder_is_a_bundle_with_a_card(made: Path, tiny: Path, models: dict[str, Model]) -> None:
    yaml = pytest.importorskip("yaml")
    assert {p.name for p in made.iterdir()} == {p.name for p in tiny.iterdir()} | {"README.md"}
    assert load(made, engine="onnx").generate("分开", 20) == models["onnx"].generate("分开", 20)
    _, head, body = (made / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "steprnn",
        "tags": ["rnn", "keras", "onnx", "tflite"],
        "license": "cc-by-4.0",
        "pipeline_tag": "text-generation",
    }
    assert 'model = load("hf://me/verse")' in body


@pytest.mark.parametrize("address", ["hf://me/verse", "hf://me/verse@main", f"hf://me/verse@{COMMIT}"])
def test_an_address_is_a_bundle(
    steprnn: Run, offline: dict[str, str], models: dict[str, Model], address: str
) -> None:
    result = steprnn("generate", address, "-p", "分开", "-n", 20, environment=offline)
    assert (result.returncode, result.stdout) == (0, models["litert"].generate("分开", 20) + "\n"), (
        result.stderr
    )
    if address == "hf://me/verse":  # a command that reads no text
        assert steprnn("bench", "--quick", "--json", address, environment=offline).returncode == 0


def test_what_cannot_be_fetched_is_told_in_one_line(steprnn: Run, offline: dict[str, str]) -> None:
    result = steprnn("generate", "hf://me/other", "-p", "分", environment=offline)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert result.stderr.startswith("steprnn: hf://me/other could not be fetched (")
    assert result.stderr.endswith("check the name and the network\n")
    with pytest.raises(BundleError, match="hf://verse is no address of the Hub; expected hf://OWNER/NAME"):
        load("hf://verse")


def test_the_extra_is_told(steprnn: Run, without: Callable[..., dict[str, str]]) -> None:
    result = steprnn("generate", "hf://me/verse", "-p", "分", environment=without("huggingface_hub"))
    words = "huggingface_hub, which fetches hf:// addresses, is not installed; run: "
    assert (result.returncode, result.stderr) == (2, f"steprnn: {words}{install('hub')}\n")


@pytest.mark.parametrize("name", [None, "verse", "me/../verse", "me/verse/more"])
def test_a_repository_has_an_owner_and_a_name(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str | None
) -> None:
    flags = ["--name", name] if name else []
    assert cli.main(["package", str(tiny), "--as", "hub", *flags, "--out", str(tmp_path / "x")]) == 2
    assert f"--name is {name}; expected OWNER/NAME of the repository" in capfd.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_folder_of_something_else_stays(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert cli.main(["package", str(tiny), "--as", "hub", "--name", "me/v", "--out", str(tmp_path)]) == 2
    assert "exists and is not such a folder" in capfd.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
