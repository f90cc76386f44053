"""`steprnn score` and `steprnn embed`: texts in, a line of JSON or a row of an array out."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import Model, cli

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Capture = pytest.CaptureFixture[str]
TEXTS = ["分开", "云不走 月", "雨后分开"]


def written(text: str) -> list[dict[str, Any]]:
    """The records on stdout."""
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    return path


def test_a_score_a_line(tiny: Path, lines: Path, models: dict[str, Model], capfd: Capture) -> None:
    assert cli.main(["score", str(tiny), str(lines), "--engine", "onnx"]) == 0
    out, err = capfd.readouterr()
    scores = models["onnx"].score(TEXTS)
    assert written(out) == [
        {
            "text": text,
            "log_probability": score.log_probability,
            "perplexity": score.perplexity,
            "scored": len(text) - 1,
        }
        for text, score in zip(TEXTS, scores, strict=True)
    ]
    mean = sum(score.log_probability for score in scores) / 8
    assert re.fullmatch(
        rf"onnx float32, 3 texts, perplexity {np.exp(-mean):.2f} of 8 characters in \d+\.\d ms\n", err
    )


def test_a_vector_a_line_has_all_its_bits(
    tiny: Path, lines: Path, models: dict[str, Model], capfd: Capture
) -> None:
    flags = ["--pool", "mean", "--normalize", "--variant", "float32"]
    assert cli.main(["embed", str(tiny), str(lines), *flags]) == 0
    out, err = capfd.readouterr()
    vectors = models["litert"].embed(TEXTS, pool="mean", normalize=True)
    assert [record["text"] for record in written(out)] == TEXTS
    found = np.array([record["embedding"] for record in written(out)], np.float32)
    np.testing.assert_array_equal(found, vectors)
    assert re.fullmatch(r"litert float32, 3 texts in \d+\.\d ms\n", err)


@pytest.mark.parametrize("count", [0, 1, 3, 1100])
def test_an_array_of_any_size(
    tiny: Path, tmp_path: Path, models: dict[str, Model], capfd: Capture, count: int
) -> None:
    texts = [TEXTS[i % 3] for i in range(count)]
    (tmp_path / "lines.txt").write_text("\n".join(texts), encoding="utf-8")
    out = tmp_path / "vectors.npy"
    assert cli.main(["embed", str(tiny), str(tmp_path / "lines.txt"), "--out", str(out)]) == 0
    assert capfd.readouterr().out == ""
    vectors = np.load(out)
    assert (vectors.shape, vectors.dtype) == ((count, 8), np.float32)
    np.testing.assert_array_equal(vectors, models["litert"].embed(texts))


def test_lines_come_by_a_pipe(steprnn: Run, tiny: Path) -> None:
    result = steprnn("score", tiny, input="\ufeff分开\r\n云不走\n")
    assert result.returncode == 0, result.stderr
    assert [record["text"] for record in written(result.stdout)] == ["分开", "云不走"]
    again = steprnn("embed", tiny, "-", "--jsonl", input=result.stdout)
    assert [[*record] for record in written(again.stdout)] == [
        ["text", "log_probability", "perplexity", "scored", "embedding"]
    ] * 2
    assert steprnn("embed", tiny, input="").stdout == ""


def test_json_lines_keep_what_they_have(tiny: Path, tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / "poems.jsonl"
    given = [{"id": 7, "poem": "云不走", "tags": ["雨", None]}, {"poem": "分爱开", "half": "\ud800"}]
    path.write_text("\n".join([*map(json.dumps, given), '"月在"']), encoding="utf-8")
    flags = ["--column", "poem", "--unknown", "skip"]
    assert cli.main(["score", str(tiny), str(path), *flags]) == 0
    records = written(capfd.readouterr().out)
    results = ("log_probability", "perplexity", "scored")
    assert [{k: v for k, v in record.items() if k not in results} for record in records] == [
        *given,
        {"poem": "月在"},
    ]
    assert [record["scored"] for record in records] == [2, 1, 1]


@pytest.mark.parametrize(
    ("content", "flags", "before", "words"),
    [
        (
            "分开\n爱\n",
            [],
            1,
            "FILE line 2: '爱' not among the 21 characters of the vocabulary; choose others",
        ),
        ("分开\n雨后\n\n", [], 2, "FILE line 3: the text is empty; expected at least one character"),
        ("分开\n雨\n", [], 1, "FILE line 2: the text has one token; a score needs at least 2"),
        ("分开\n".encode() + b"\xff\n", [], 1, "FILE line 2: the line is not UTF-8 (invalid start byte at"),
        ("分开\n", ["--jsonl"], 0, "FILE line 1: the line is not JSON (Expecting value"),
        ("3\n", ["--jsonl"], 0, "FILE line 1: the line is neither an object of JSON nor a text"),
        ('{"t": "分开"}\n', ["--jsonl"], 0, "FILE line 1: the object has no field 'text'; it has 't'"),
        ('{"text": 3}\n', ["--jsonl"], 0, "FILE line 1: the text is of type int; expected str"),
        (
            '{"text": "分开", "perplexity": 3}\n',
            ["--jsonl"],
            0,
            "the input has a field 'perplexity' already; rename it",
        ),
    ],
)
def test_what_is_refused_has_its_line_and_those_before_are_written(
    tiny: Path,
    tmp_path: Path,
    capfd: Capture,
    content: str | bytes,
    flags: list[str],
    before: int,
    words: str,
) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert cli.main(["score", str(tiny), str(path), *flags]) == 2
    out, err = capfd.readouterr()
    assert err.startswith("steprnn: " + words.replace("FILE", str(path)))
    assert err.count("\n") == 1
    assert len(written(out)) == before


def test_a_text_that_gives_no_numbers(poisoned: Path, tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / "lines.txt"
    character = (poisoned / "vocabulary.json").read_text(encoding="utf-8")
    poison = json.loads(character)["tokens"][5]
    path.write_text(f"分开\n{poison}分\n", encoding="utf-8")
    assert cli.main(["embed", str(poisoned), str(path)]) == 1
    out, err = capfd.readouterr()
    assert len(written(out)) == 1
    assert err.startswith(f"steprnn: {path} line 2: state 'h' holds nan after 2 steps of model ")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["score", "BUNDLE", "gone.txt"], "gone.txt does not exist; expected a UTF-8 file with texts"),
        (["score", "BUNDLE", "."], ". is no file; expected a UTF-8 file with texts"),
        (["embed", "BUNDLE", "-", "--out", "v.npz"], "--out v.npz does not end in .npy; JSON lines go to"),
    ],
)
def test_files_that_cannot_be_meant(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Capture, argv: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([str(tiny) if a == "BUNDLE" else a for a in argv]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("steprnn: " + words)


def test_a_refused_text_leaves_the_array_that_was_there(tiny: Path, tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "lines.txt").write_text("分开\n爱\n", encoding="utf-8")
    (tmp_path / "v.npy").write_bytes(b"before")
    argv = ["embed", str(tiny), str(tmp_path / "lines.txt"), "--out", str(tmp_path / "v.npy")]
    assert cli.main(argv) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.txt", "v.npy"]
    assert (tmp_path / "v.npy").read_bytes() == b"before"


def test_nobody_is_waited_for_at_a_keyboard(steprnn: Run, tiny: Path) -> None:
    pty = pytest.importorskip("pty")
    keyboard, terminal = pty.openpty()
    result = steprnn("score", tiny, stdin=terminal)
    os.close(keyboard)
    os.close(terminal)
    words = "steprnn: the texts are missing; give a FILE, or pipe them in, one a line\n"
    assert (result.returncode, result.stdout, result.stderr) == (2, "", words)


def test_a_reader_that_leaves_and_a_full_disk(steprnn: Run, tiny: Path, lines: Path) -> None:
    program = f"{Path(sys.executable).with_name('steprnn')} score {tiny}"
    piped = f"yes 分开 | head -200000 | {program} | head -c 9; echo ${{PIPESTATUS[2]}}"
    result = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ('{"text": 1\n', "")
    with Path("/dev/full").open("w") as full:
        options = {"capture_output": False, "stdout": full, "stderr": subprocess.PIPE}
        result = steprnn("embed", tiny, lines, **options)
    assert result.returncode == 1
    assert re.fullmatch(r"steprnn: the disk is full \(.*\); free some space and run again\n", result.stderr)


def test_progress_is_told_on_a_terminal_after_two_seconds(tiny: Path) -> None:
    pty = pytest.importorskip("pty")
    terminal, their = pty.openpty()
    command = [str(Path(sys.executable).with_name("steprnn")), "embed", str(tiny)]
    source = subprocess.Popen(["yes", "分开"], stdout=subprocess.PIPE)
    process = subprocess.Popen(command, stdin=source.stdout, stdout=subprocess.DEVNULL, stderr=their)
    os.close(their)
    said, until = b"", time.monotonic() + 60
    try:
        while b"second" not in said and time.monotonic() < until:
            if select.select([terminal], [], [], 1)[0]:
                said += os.read(terminal, 1000)
    finally:
        process.kill()
        source.kill()
        process.wait()
        source.wait()
        os.close(terminal)
        assert source.stdout is not None
        source.stdout.close()
    assert re.match(rb"\r[\d,]+ texts, [\d,]+ a second", said)
