"""The programs in examples/, each run as its reader would run it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import Model, load

EXAMPLES = Path(__file__).parents[1] / "examples"


def command(name: str, *argv: object) -> list[str]:
    return [sys.executable, "-X", "utf8", str(EXAMPLES / name), *map(str, argv)]


def run(name: str, *argv: object, **options: Any) -> str:
    """What an example prints."""
    result = subprocess.run(
        command(name, *argv), capture_output=True, encoding="utf-8", timeout=300, check=False, **options
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_example_is_tested() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert len(names) == 10
    assert {name for name in names if f'"{name}"' in source} == names


def test_poet(tiny: Path, models: dict[str, Model]) -> None:
    written = run("poet.py", tiny, "--length", 20, "--seed", 5, input="分开\n爱\n雨后\n\n云\n")
    options: dict[str, Any] = {"temperature": 0.8, "repeat_penalty": 1.1}
    model = models["litert"]
    poems = [model.generate("分开", 20, seed=5, **options), model.generate("雨后", 20, seed=7, **options)]
    assert written == "".join(poem.replace(" ", "\n") + "\n\n" for poem in poems)


@pytest.fixture(scope="module")
def address(tiny: Path) -> Iterator[str]:
    """Where the web handler is, on a free port."""
    with subprocess.Popen(
        command("web_handler.py", tiny, "--port", 0), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def get(address: str, **query: object) -> str:
    with urllib.request.urlopen(f"{address}/?{urllib.parse.urlencode(query)}", timeout=60) as response:
        return str(response.read().decode())


def test_web_handler_answers_many_at_once(address: str, models: dict[str, Model]) -> None:
    def ask(seed: int) -> str:
        return get(address, prompt="分开", length=100, seed=seed, temperature=1)

    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(ask, range(16)))
    expected = models["litert"].generate
    assert texts == [expected("分开", 100, temperature=1.0, seed=seed) + "\n" for seed in range(16)]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"prompt": "爱"}, "'爱' not among the 21 characters"),
        ({}, "the prompt is empty"),
        ({"prompt": "分", "length": "many"}, "invalid literal for int()"),
        ({"prompt": "分", "temperature": "-1"}, "temperature is -1.0; expected a number from 0 to 1000"),
    ],
)
def test_web_handler_says_what_is_wrong(address: str, query: dict[str, str], words: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as raised:
        get(address, **query)
    assert raised.value.code == 400
    assert words in raised.value.read().decode()


def test_web_handler_survives_clients_that_leave_or_babble(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    for said in (
        b"",
        b"hello\r\n\r\n",
        b"\xff" * 100_000,
        b"GET /?prompt=%E5%88%86&length=1000 HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(said)
    assert len(get(address, prompt="分", length=10)) == 12


def test_raspberry_pi_goes_on_after_a_restart(tiny: Path, tmp_path: Path) -> None:
    def write(state: str, *characters: int) -> str:
        argv = (tiny, tmp_path / state, "--seconds", 0)
        return "".join(run("raspberry_pi.py", *argv, "--characters", n) for n in characters)

    whole = write("one", 40)
    assert len(whole) == 40
    assert write("two", 1, 15, 24) == whole


def test_raspberry_pi_goes_on_after_it_was_killed(tiny: Path, tmp_path: Path) -> None:
    argv = command("raspberry_pi.py", tiny, tmp_path / "state", "--seconds", 0)
    written = ""
    for _ in range(2):
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            data = process.stdout.read(3 * 30)
            process.send_signal(signal.SIGKILL)
            data += process.stdout.read()
        written += data.decode(errors="ignore")
    written += run("raspberry_pi.py", tiny, tmp_path / "state", "--seconds", 0, "--characters", 20)
    argv = command(
        "raspberry_pi.py", tiny, tmp_path / "other", "--seconds", 0, "--characters", len(written) + 2
    )
    whole = subprocess.run(argv, capture_output=True, check=True, encoding="utf-8").stdout
    # What was saved and not yet shown when it was killed is missing: at most a character each time.
    missing = len(whole) - len(written)
    rest = iter(whole)
    assert all(character in rest for character in written)
    assert missing <= 2


def test_rhyme(tiny: Path) -> None:
    """Three seeds: lines of seven that end on one rhyme, on the first one that the model takes."""
    rhymes = ["来开在", "停风", "走后又", "分云", "雨你", "月夜"]
    for seed in range(3):
        lines = run("rhyme.py", tiny, "--seed", seed, "--lines", 4, "--temperature", 1.5).splitlines()
        assert [len(line) for line in lines] == [7, 7, 7, 7]
        assert lines[0].startswith("分开")
        (group,) = (group for group in rhymes if lines[0][-1] in group)
        endings = [line[-1] for line in lines]
        assert set(endings) <= set(group)
        assert all(a != b for a, b in zip(endings, endings[1:], strict=False))
    plain = load(tiny).generate("分开", 29, temperature=1.5, seed=2)
    assert plain.replace(" ", "\n").splitlines() != lines, "the hook had something to do"


def test_signal_model() -> None:
    pytest.importorskip("tensorflow")
    written = run("signal_model.py")
    before, after = map(float, re.findall(r"[\d.]+(?= before| after)", written))
    assert after < before / 2, written
    difference = re.search(r"largest difference from the whole model: (\S+)", written)
    assert difference is not None
    assert float(difference[1]) < 1e-5
    assert re.search(r"^\d+ us a frame$", written, re.MULTILINE)


def test_denoiser(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    noisy, clean = tmp_path / "noisy.wav", tmp_path / "clean.wav"
    first = run("denoiser.py", noisy, clean)
    before, after = re.findall(r"(-?[\d.]+) dB", first)
    assert float(after) > float(before) + 3
    written = clean.read_bytes()
    again = run("denoiser.py", noisy, clean)  # reads the sound, and trains nothing
    assert clean.read_bytes() == written
    assert len(written) == noisy.stat().st_size
    for printed in (first, again):
        (factor,) = re.findall(r"10\.0 s of sound in .*: real-time factor ([\d.]+)", printed)
        assert 0 < float(factor) < 1
    clean.write_bytes(written[:22] + b"\2\0" + written[24:])  # two channels
    result = subprocess.run(
        command("denoiser.py", clean, noisy), capture_output=True, encoding="utf-8", check=False
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(
        f"{clean} is no WAV of 16000 Hz, 16 bits and one channel"
    )


def rows(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)))
    return path


def test_datasets_rows(tiny: Path, models: dict[str, Model], tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    pq = pytest.importorskip("pyarrow.parquet")
    texts = ["分开", "云不走 月", "爱", "雨后分开"] * 10
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    out = tmp_path / "out.parquet"
    said = run("datasets_rows.py", tiny, rows(tmp_path / "in.jsonl", texts), out, env=environment)
    assert said == "40 rows, 10 with an error\n"
    found = pq.read_table(out).to_pylist()
    assert [row["text"] for row in found] == texts
    for row in found:
        if row["error"] is None:
            expected = models["litert"].embed(row["text"], normalize=True)
            np.testing.assert_allclose(row["embedding"], expected, rtol=0, atol=2e-6)


def test_beam_rows(tiny: Path, models: dict[str, Model], tmp_path: Path) -> None:
    if importlib.util.find_spec("apache_beam") is None:
        pytest.skip("apache_beam is not installed")
    texts = ["分开", "云不走 月", "爱", "雨后分开"] * 10
    run("beam_rows.py", tiny, rows(tmp_path / "in.jsonl", texts), tmp_path / "out")
    files = [path.read_text(encoding="utf-8") for path in tmp_path.glob("out*.jsonl")]
    found = [json.loads(line) for file in files for line in file.splitlines()]
    found.sort(key=lambda row: row["id"])
    assert [row["text"] for row in found] == texts
    for row in found:
        if row["text"] == "爱":
            assert row["error"] == "'爱' not among the 21 characters of the vocabulary"
            assert row["log_probability"] is None
        else:
            expected = models["litert"].score(row["text"]).log_probability
            assert row["log_probability"] == pytest.approx(expected, abs=1e-4)


SPARK = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}


def written(folder: Path) -> list[dict[str, Any]]:
    """The rows of the files that Spark says are there."""
    found = [json.loads(line) for path in folder.glob("*.json") for line in path.read_text().splitlines()]
    return sorted(found, key=lambda row: [row.get(name) for name in ("id", "device", "time")])


def test_spark_rows(tiny: Path, models: dict[str, Model], tmp_path: Path) -> None:
    pytest.importorskip("pyspark")
    texts = ["分开", "云不走 月", "爱", "雨后分开"]
    run("spark_rows.py", tiny, rows(tmp_path / "in.jsonl", texts), tmp_path / "out", env=os.environ | SPARK)
    found = written(tmp_path / "out")
    assert [row["text"] for row in found] == texts
    assert found[2]["error"] == "'爱' not among the 21 characters of the vocabulary"
    for i in (0, 1, 3):
        expected = models["litert"].score(texts[i]).log_probability
        assert found[i]["log_probability"] == pytest.approx(expected, abs=1e-4)


def test_spark_streams_killed_and_begun_again(tiny: Path, models: dict[str, Model], tmp_path: Path) -> None:
    """Four minutes: Spark takes its time for each file."""
    pytest.importorskip("pyspark")
    arriving, out, checkpoint = (tmp_path / name for name in ("arriving", "out", "checkpoint"))
    arriving.mkdir()
    sessions, expected = {device: models["litert"].session() for device in "ab"}, []
    for time_ in range(5):
        lines = []
        for device, x in (("a", time_), ("b", 20 - time_)):
            lines.append(json.dumps({"device": device, "time": time_, "x": x}))
            following = int(sessions[device].step(x).argmax())  # type: ignore[union-attr]
            expected.append({"device": device, "time": time_, "next": following})
        (arriving / f"{time_}.json").write_text("\n".join(lines))
        os.utime(arriving / f"{time_}.json", (time_, time_))  # the order in which Spark takes them
    argv = command("spark_streams.py", tiny, arriving, out, checkpoint)
    with subprocess.Popen(
        argv,
        env=os.environ | SPARK,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        until = time.monotonic() + 300
        while not [*(checkpoint / "commits").glob("1")] and time.monotonic() < until:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    assert 0 < len([*(checkpoint / "commits").glob("[0-9]*")]) < 5
    run("spark_streams.py", tiny, arriving, out, checkpoint, env=os.environ | SPARK)
    logged = "".join(path.read_text() for path in (out / "_spark_metadata").glob("[0-9]*"))  # what counts
    found = [
        json.loads(line)
        for path in out.glob("*.json")
        if path.name in logged
        for line in path.read_text().splitlines()
    ]
    key = lambda row: (row["device"], row["time"])  # noqa: E731
    assert sorted(found, key=key) == sorted(expected, key=key)
