"""`steprnn train` as a command: what it imports, says and refuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from steprnn.runtime.cli import main
from steprnn.train.prepared import prepare
from steprnn.train.settings import Settings

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
    out = tmp_path / "a model"
    arguments = ["--units", "8", "--batch", "4", "--window", "8", "--epochs", "2", "--holdout", "0.1"]
    arguments += ["--prompts", "分开", "--sample-every", "2"]
    assert main(["train", "--corpus", str(text_file), "--out", str(out), *arguments]) == 0
    said = capfd.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0] == "verses.txt: all 420 characters, 16 distinct"
    assert lines[1].startswith("training on ")
    told = [line for line in lines if line.startswith("epoch 2 of 2: ")]
    figure = r"[\d.,]+"
    assert len(told) == 1
    assert re.fullmatch(
        rf"epoch 2 of 2: perplexity {figure}, held out {figure}, {figure} characters/s", told[0]
    )
    assert "epoch 2: 分开" in said.err
    last, following = said.err.strip().splitlines()[-2:]
    assert last.startswith("perplexity ")
    assert ", held out " in last
    assert last.endswith(f"of 2; wrote {out}")
    assert following == f"next: steprnn export '{out}' --out '{out}.bundle'"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--corpus", "none.txt"], 1, "none.txt does not exist; expected a .txt, .zip or .gz file, or a URL"),
        (["--units", "0"], 2, "--units is 0; expected at least 1"),
        (["--prompts", "龘"], 2, "'龘' not among the"),
        (["--prompts", "龘", "--unknown", "skip"], 2, "of the prompt '龘' no character is known"),
        (["--batch", "9999"], 1, "--batch 9999 --window 35 needs at least 350,000"),
        (["--holdout", "0.00001"], 1, "the held-out text has 0 characters and needs at least 2"),
        (["--sample-every", "0"], 2, "--sample-every is 0; expected at least 1"),
        (["--corpus", "gbk.txt"], 1, "gbk.txt is not UTF-8"),
        (["--corpus", "one.txt"], 1, "one.txt is 'a' alone; expected at least 2 distinct characters"),
        (["--out", "gbk.txt"], 1, "gbk.txt is a file; expected a folder: give another --out"),
        (["--out", "."], 1, ". holds other files and no checkpoint; give another --out"),
    ],
)
def test_an_error_is_one_line_before_tensorflow_starts(
    arguments: list[str], code: int, words: str, tmp_path: Path
) -> None:
    (tmp_path / "gbk.txt").write_bytes("分开".encode("gbk"))
    (tmp_path / "one.txt").write_text("a" * 5000)
    script = (
        "import sys\nfrom steprnn.runtime.cli import main\ncode = main(sys.argv[1:])\n"
        "assert not {'tensorflow', 'keras'} & sys.modules.keys()\nsys.exit(code)\n"
    )
    command = [sys.executable, "-c", script, "train", "--out", "c", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("steprnn: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "c").exists()


def test_a_part_of_the_text_is_told_also_when_quiet(
    tmp_path: Path, text_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--units", "8", "--batch", "4", "--window", "8", "--epochs", "1", "--characters", "200"]
    out = str(tmp_path / "c")
    assert main(["train", "--corpus", str(text_file), "--out", out, "--quiet", *arguments]) == 0
    first, last = capfd.readouterr().err.splitlines()
    assert first == "verses.txt: the first 200 of 420 characters, 16 distinct; --characters 0 takes all"
    assert last.startswith("perplexity ")


def test_few_epochs_are_enough_for_a_text_ten_times_as_long(text_file: Path) -> None:
    told = []
    for characters in (42, 43):
        settings = Settings(characters=characters, batch=2, window=4)
        told.append(prepare(text_file, None, settings).summary)
    assert told[0].endswith("; --characters 0 --epochs 5 takes all")
    assert told[1].endswith("; --characters 0 takes all")


def test_a_terminal_shows_one_bar_for_the_whole_run(tmp_path: Path, text_file: Path) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    flags = "--units 8 --batch 4 --window 8 --epochs 40 --sample-every 40 --prompts 分开".split()
    command = [sys.executable, "-m", "steprnn.runtime", "train", "--corpus", str(text_file), *flags]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "NO_COLOR": "1"}
    with subprocess.Popen(command, cwd=tmp_path, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 2**16)
            except OSError:  # how Linux says that the other side is closed
                break
            if not part:
                break
            shown += part
    os.close(ours)
    text = shown.decode()
    assert process.returncode == 0, text
    assert "Epoch 1/40" not in text  # Keras's own bars
    assert re.search(r"epoch \d+ of 40: perplexity [\d.,]+", text)
    assert "━" in text
    assert re.search(r"epoch 40: 分开", text)
    assert "wrote checkpoint" in text


def test_a_run_that_diverges_is_told_in_words(
    tmp_path: Path, text_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The exponential of its loss is beyond any number that a line could hold."""
    arguments = ["--units", "8", "--batch", "4", "--window", "8", "--epochs", "9", "--clip", "0"]
    arguments += ["--learning-rate", "1e30", "--corpus", str(text_file), "--out", str(tmp_path / "c")]
    assert main(["train", *arguments]) == 1
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert said.splitlines()[-1].endswith("lower --learning-rate, or give --clip 0.25")
    assert max(map(len, said.splitlines())) < 160


def test_a_model_that_does_not_fit_into_memory_is_told(
    tmp_path: Path, text_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--units", "300000", "--batch", "4", "--window", "8", "--epochs", "1"]
    assert main(["train", "--corpus", str(text_file), "--out", str(tmp_path / "c"), *arguments]) == 2
    words = "not enough memory for --units 300000 --layers 1 --batch 4 --window 8; lower one of them"
    assert capfd.readouterr().err.splitlines()[-1] == f"steprnn: {words}"


def test_line_breaks_of_a_prompt_are_read_as_those_of_the_text(text_file: Path) -> None:
    assert prepare(text_file, None, Settings(batch=4, window=8), ["雨\r\n分"]).prompts == ("雨 分",)
