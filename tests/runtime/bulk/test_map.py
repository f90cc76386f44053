"""`steprnn map`: one row in, one row out, in order; killed and begun again, the same bytes."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import Model, cli
from steprnn.runtime.bulk import job

KNOWN = "云不走月在雨后分开 "
Capture = pytest.CaptureFixture[str]
Map = Callable[..., int]


def texts(count: int) -> list[Any]:
    """Texts, two of which cannot be done."""
    chance = random.Random(count)
    found = ["".join(chance.choices(KNOWN, k=chance.randint(2, 30))) for _ in range(count)]
    found[3], found[count - 2] = "", "分爱"
    return found


@pytest.fixture
def map_(tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Map:
    """Run the command in this process, with parts of seven rows."""
    monkeypatch.setattr(job, "ROWS", 7)
    monkeypatch.chdir(tmp_path)

    def run(*argv: object) -> int:
        return cli.main(["map", str(tiny), *map(str, argv), "--processes", "1"])

    return run


def write(path: Path, given: list[Any]) -> Path:
    """Rows with an id and a text, in the kind of file that the name says."""
    rows = [{"id": i, "text": text} for i, text in enumerate(given)]
    if path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=10)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["id", "text"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = given if path.suffix == ".txt" else map(json.dumps, rows)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return found
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("into", [".jsonl", ".parquet"])
@pytest.mark.parametrize("kind", [".txt", ".csv", ".jsonl", ".parquet"])
def test_every_kind_of_file(
    map_: Map, tmp_path: Path, models: dict[str, Model], capfd: Capture, kind: str, into: str
) -> None:
    if ".parquet" in (kind, into):
        pytest.importorskip("pyarrow")
    given = texts(40)
    assert map_(write(tmp_path / f"in{kind}", given), "--out", f"out{into}", "--task", "embed") == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"litert float32, 40 rows, 2 with an error \(row 4: .*empty.*\), \d+\.\d s\n", err)
    rows = read(tmp_path / f"out{into}")
    assert [row["text"] for row in rows] == given
    if kind != ".txt":
        assert [row["id"] for row in rows] == [str(i) if kind == ".csv" else i for i in range(40)]
    for text, row in zip(given, rows, strict=True):
        if row["error"] is None:
            expected = models["litert"].embed(text)
            np.testing.assert_allclose(np.array(row["embedding"], np.float32), expected, rtol=0, atol=2e-6)
        else:
            assert row["embedding"] is None
    assert [i for i, row in enumerate(rows) if row["error"]] == [3, 38]
    assert rows[38]["error"] == "'爱' not among the 21 characters of the vocabulary"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"in{kind}", f"out{into}"])


def test_scores_and_texts(map_: Map, tmp_path: Path, models: dict[str, Model]) -> None:
    given = texts(20)
    source = write(tmp_path / "in.jsonl", given)
    assert map_(source, "--out", "scores.jsonl", "--task", "score", "--engine", "onnx") == 0
    for text, row in zip(given, read(tmp_path / "scores.jsonl"), strict=True):
        if row["error"] is None:
            score = models["onnx"].score(text)
            assert row["log_probability"] == pytest.approx(score.log_probability, abs=1e-4)
            assert row["perplexity"] == pytest.approx(score.perplexity, rel=1e-4)
            assert row["scored"] == len(text) - 1
        else:
            assert (row["log_probability"], row["scored"]) == (None, None)
    flags = [
        "--task",
        "generate",
        "-n",
        "9",
        "--temp",
        "1.5",
        "--top-k",
        "5",
        "--seed",
        "100",
        "--stop",
        "月",
    ]
    assert map_(source, "--out", "texts.jsonl", *flags) == 0
    for i, (text, row) in enumerate(zip(given, read(tmp_path / "texts.jsonl"), strict=True)):
        if row["error"] is None:
            options: Any = {"temperature": 1.5, "top_k": 5, "seed": 100 + i, "stop": ["月"]}
            assert row["generated"] == models["litert"].generate(text, 9, **options)


def test_a_folder_of_files_and_lines_that_cannot_be_read(map_: Map, tmp_path: Path) -> None:
    folder = tmp_path / "poems"
    folder.mkdir()
    (folder / "b.jsonl").write_text('{"poem": "雨后", "by": 3}\n{"poet": "x"}\n', encoding="utf-8")
    (folder / "a.jsonl").write_bytes('"分开"\n[3\n\n'.encode() + b'"\xff"\n')
    (folder / "notes.md").write_text("not of them")
    assert map_(folder, "--out", "out.jsonl", "--task", "score", "--column", "poem") == 0
    rows = read(tmp_path / "out.jsonl")
    assert [row.get("poem") for row in rows] == ["分开", None, None, None, "雨后", None]
    assert [row["error"] and row["error"].partition(" (")[0] for row in rows] == [
        None,
        "the line is not JSON",
        "the line is not JSON",
        "the line is not UTF-8",
        None,
        "the object has no field 'poem'; it has 'poet'",
    ]
    assert rows[4]["by"] == 3
    assert rows[5]["poet"] == "x"


def test_parts_of_different_columns_and_types_are_one_table(
    map_: Map, tmp_path: Path, capfd: Capture
) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    rows: list[dict[str, Any]] = [{"text": "分开", "n": i} for i in range(7)]
    rows += [{"text": "分开", "n": i / 2, "late": [i]} for i in range(7)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert map_("in.jsonl", "--out", "out.parquet", "--task", "score") == 0
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["n"].to_pylist() == [row["n"] for row in rows]
    assert table["late"].to_pylist() == [None] * 7 + [[i] for i in range(7)]
    (tmp_path / "in.jsonl").write_text('{"text": "分", "n": 1}\n{"text": "分", "n": "x"}\n', encoding="utf-8")
    assert map_("in.jsonl", "--out", "other.parquet", "--task", "embed") == 2
    err = capfd.readouterr().err.splitlines()[-1]
    assert err.startswith("steprnn: the rows do not make one table (")
    assert err.endswith("); write .jsonl, which takes each as it is")


@pytest.mark.parametrize("into", [".jsonl", ".parquet"])
def test_no_rows(map_: Map, tmp_path: Path, into: str) -> None:
    if into == ".parquet":
        pytest.importorskip("pyarrow")
    (tmp_path / "in.txt").write_bytes(b"")
    assert map_("in.txt", "--out", f"out{into}", "--task", "embed") == 0
    assert read(tmp_path / f"out{into}") == []


def test_strict_stops_at_the_first_bad_row_and_goes_on_without(
    map_: Map, tmp_path: Path, capfd: Capture
) -> None:
    given = texts(40)
    given[3] = "分开"
    write(tmp_path / "in.jsonl", given)
    argv = ["in.jsonl", "--out", "out.jsonl", "--task", "score"]
    assert map_(*argv, "--strict") == 2
    assert capfd.readouterr().err == (
        "steprnn: in.jsonl row 39: '爱' not among the 21 characters of the vocabulary\n"
    )
    assert not (tmp_path / "out.jsonl").exists()
    assert len([*(tmp_path / "out.jsonl.parts").glob("*.jsonl")]) == 5
    assert map_(*argv) == 0
    told = "litert float32, 40 rows, 35 of them before, 1 with an error (row 39: '爱' not among the 21 char"
    assert capfd.readouterr().err.startswith(told)
    assert len(read(tmp_path / "out.jsonl")) == 40
    assert not (tmp_path / "out.jsonl.parts").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["in.jsonl", "--out", "o.csv"], "--out o.csv does not end in one of .jsonl, .ndjson, .parquet"),
        (
            ["gone.jsonl", "--out", "o.jsonl"],
            "gone.jsonl does not exist; expected a file or a folder of rows",
        ),
        (["in.md", "--out", "o.jsonl"], "in.md has .md; expected files of one kind: .txt, .csv, .jsonl"),
        (["empty", "--out", "o.jsonl"], "empty has no such file; expected files of one kind"),
        (["in.jsonl", "--out", "in.jsonl"], "in.jsonl is there already; remove it, or choose another --out"),
        (["in.jsonl", "--out", "o.jsonl", "--temp", "1"], "--seed is missing, so that a run that ends early"),
        (["in.csv", "--out", "o.jsonl"], "in.csv: the header has no column 'text'; it has 'id', 'poem'"),
        (["bad.csv", "--out", "o.jsonl"], "bad.csv: line 2 is not CSV (unexpected end of data)"),
        (["has.jsonl", "--out", "o.jsonl"], "the input has a column 'error' already; rename it"),
    ],
)
def test_what_cannot_be_meant(map_: Map, tmp_path: Path, capfd: Capture, argv: list[str], words: str) -> None:
    write(tmp_path / "in.jsonl", ["分开"])
    (tmp_path / "in.md").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "in.csv").write_text("id,poem\n1,分开\n", encoding="utf-8")
    (tmp_path / "bad.csv").write_text('id,text\n1,"分开\n', encoding="utf-8")
    (tmp_path / "has.jsonl").write_text('{"text": "分", "error": 1}\n', encoding="utf-8")
    before = (tmp_path / "in.jsonl").read_bytes()
    assert map_(*argv, "--task", "generate") == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"steprnn: {words}")
    assert (tmp_path / "in.jsonl").read_bytes() == before


def test_parts_of_another_job_are_refused(map_: Map, tmp_path: Path, capfd: Capture) -> None:
    """Unless there is none yet, as where the first job did not begin."""
    (tmp_path / "poems.csv").write_text("poem\n分开\n", encoding="utf-8")
    poems = ["poems.csv", "--out", "out.jsonl", "--task", "embed"]
    assert map_(*poems) == 2
    assert capfd.readouterr().err.endswith("the header has no column 'text'; it has 'poem'\n")
    assert map_(*poems, "--column", "poem") == 0
    (tmp_path / "out.jsonl").unlink()
    given = texts(40)
    given[3] = "分开"
    source = write(tmp_path / "in.jsonl", given)
    argv = ["in.jsonl", "--out", "out.jsonl", "--task", "embed"]
    assert map_(*argv, "--strict") == 2
    capfd.readouterr()
    assert map_(*argv, "--normalize") == 2
    assert capfd.readouterr().err == (
        "steprnn: out.jsonl.parts has parts of another job, whose normalize was False and now is True; "
        "remove it, or choose another --out\n"
    )
    source.write_bytes(source.read_bytes() + b'"more"\n')
    assert map_(*argv) == 2
    assert "another job, whose input was " in capfd.readouterr().err


def command(tiny: Path, *argv: object) -> list[str]:
    return [str(Path(sys.executable)), "-m", "steprnn.runtime", "map", str(tiny), *map(str, argv)]


def descendants(process: int) -> list[int]:
    """The processes that one has made, and those that they have made."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("processes are looked up in /proc")
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [process]
    for parent in found:
        found += [pid for pid, of in parents.items() if of == parent]
    return found[1:]


SEEDED = ("--task", "generate", "-n", "30", "--temp", "1.5", "--seed", "3")


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with in.jsonl, of eight parts, and what one process makes of it, whole.jsonl."""
    folder = tmp_path_factory.mktemp("undisturbed")
    source = write(folder / "in.jsonl", texts(8 * job.ROWS))
    whole = command(tiny, source, "--out", folder / "whole.jsonl", *SEEDED, "--processes", "1")
    subprocess.run(whole, capture_output=True, check=True)
    return folder


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_and_begun_again_it_gives_the_same_bytes(
    tiny: Path, undisturbed: Path, tmp_path: Path, how: signal.Signals
) -> None:
    """With two processes, which end with the first; the other run is one process."""
    source = undisturbed / "in.jsonl"
    killed = command(tiny, source, "--out", tmp_path / "killed.jsonl", *SEEDED, "--processes", "2")
    parts = tmp_path / "killed.jsonl.parts"
    with subprocess.Popen(killed, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while len([*parts.glob("*.jsonl")]) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        workers = descendants(process.pid)
        assert len(workers) >= 2
        process.send_signal(how)
        _, err = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[how]
    if how != signal.SIGKILL:  # after which Python's tracker of semaphores has a word
        assert re.fullmatch(r"steprnn: \w+; nothing half-written was left behind\n", err)
    done = len([*parts.glob("*.jsonl")])
    assert 2 <= done < 8
    assert not (tmp_path / "killed.jsonl").exists()
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    result = subprocess.run(killed, capture_output=True, text=True, check=True)
    assert re.search(rf"32,768 rows, {done * job.ROWS:,} of them before, 2 with an error", result.stderr)
    assert (tmp_path / "killed.jsonl").read_bytes() == (undisturbed / "whole.jsonl").read_bytes()
    assert not parts.exists()


def test_a_worker_that_is_killed_is_told_and_a_second_run_at_once_refused(tiny: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", texts(8 * job.ROWS))
    argv = command(tiny, source, "--out", tmp_path / "o.jsonl", "--task", "generate", "--processes", "2")
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while not [*(tmp_path / "o.jsonl.parts").glob("*.jsonl")] and time.monotonic() < until:
            time.sleep(0.01)
        second = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert second.returncode == 2
        assert "another steprnn is writing" in second.stderr
        os.kill(descendants(process.pid)[-1], signal.SIGKILL)
        _, err = process.communicate(timeout=60)
    words = "steprnn: a worker process was ended, perhaps for want of memory; run again to go on\n"
    assert (process.returncode, err) == (1, words)


def test_missing_packages_are_told_with_the_extra(
    steprnn: Any, without: Callable[..., dict[str, str]], tiny: Path, tmp_path: Path
) -> None:
    write(tmp_path / "in.jsonl", ["分开"])
    bare = without("pyarrow", "ray")
    for flags, words in (
        (["--out", "o.parquet"], "pyarrow is not installed; run: "),
        (["--out", "o.jsonl", "--ray"], "ray is not installed; run: "),
    ):
        argv = ["map", tiny, "in.jsonl", "--task", "score", *flags]
        result = steprnn(*argv, environment=bare, cwd=tmp_path)
        assert result.returncode == 2
        assert result.stderr.startswith(f"steprnn: {words}")
    argv = ["map", tiny, "in.jsonl", "--task", "score", "--out", "o.jsonl", "--processes", "1"]
    assert steprnn(*argv, environment=bare, cwd=tmp_path).returncode == 0
