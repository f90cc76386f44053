"""`steprnn train` as a command: what it imports, says and refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from steprnn.runtime.cli import main

HEAVY = ("tensorflow", "keras", "matplotlib")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, steprnn.train, steprnn.train.command\n"
        "from steprnn.runtime.cli import main\n"
        "try: main(['train', '--help'])\n"
        f"except SystemExit: print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    for words in ("--corpus FILE", "--cell {lstm,gru,rnn}", "--sample-every N", "example:\n  steprnn train"):
        assert words in done.stdout


def test_the_package_offers_train_and_settings() -> None:
    import steprnn.train
    from steprnn.train import Settings, train

    assert Settings().units == 256
    assert callable(train)
    assert sorted(steprnn.train.__all__) == ["Settings", "train"]
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        steprnn.train.nothing  # noqa: B018


def test_the_command_trains_and_talks_on_stderr_alone(
    tmp_path: Path, text_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c"
    arguments = ["--units", "8", "--batch", "4", "--window", "8", "--epochs", "2", "--holdout", "0.1"]
    arguments += ["--prompts", "分开", "--sample-every", "2"]
    assert main(["train", "--corpus", str(text_file), "--out", str(out), *arguments]) == 0
    said = capfd.readouterr()
    assert said.out == ""
    assert "Epoch 2/2" in said.err
    assert "perplexity: " in said.err
    assert "val_perplexity: " in said.err
    assert "epoch 2: 分开" in said.err
    last = said.err.strip().splitlines()[-1]
    assert last.startswith("perplexity ")
    assert ", held out " in last
    assert last.endswith(f"of 2; wrote {out}")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--corpus", "none.txt"], 1, "none.txt does not exist; expected a .txt, .zip or .gz file, or a URL"),
        (["--units", "0"], 2, "--units is 0; expected at least 1"),
        (["--prompts", "龘"], 2, "'龘' not among the"),
        (["--batch", "9999"], 1, "--batch 9999 --window 35 needs at least 350,000"),
    ],
)
def test_an_error_is_one_line(
    arguments: list[str], code: int, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--out", str(tmp_path / "c"), *arguments]) == code
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("steprnn: ")
    assert words in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "c").exists()
