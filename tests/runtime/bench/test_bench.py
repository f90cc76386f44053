"""`steprnn bench`: that it measures what is there and prints it; never how fast this machine is."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from steprnn.runtime import BundleError, UsageError, cli
from steprnn.runtime.bench.machine import Machine, pinned, read_seconds
from steprnn.runtime.bench.measure import Pace, figures, measure
from steprnn.runtime.bench.process import peak_bytes
from steprnn.runtime.bench.rounds import Spread, time_rounds
from steprnn.runtime.bench.tables import markdown
from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.origin import install

BRIEF = Pace(rounds=2, seconds=0.0005, processes=1)
EVERYTHING = [("litert", "float32"), ("onnx", "float32"), ("litert", "int8"), ("onnx", "int8")]
WORDS = ("engine", "variant", "method", "read_from")
# Of two noisy times, so that no sign is certain.
DIFFERENCES = ("temperature_adds_us", "filters_adds_us", "session_adds_us")


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """What --quick measures, shorter still."""
    monkeypatch.setattr("steprnn.runtime.bench.measure.QUICK", BRIEF)


def test_json_and_progress(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    assert cli.main(["bench", str(tiny), "--quick", "--json"]) == 0
    if before is not None:
        assert os.sched_getaffinity(0) == before
    out, err = capfd.readouterr()
    assert "in a process of its own" in err
    report = json.loads(out)
    assert report["machine"]["processor"]
    assert report["rounds"] == BRIEF.rounds
    assert [(row["engine"], row["variant"]) for row in report["rows"]] == EVERYTHING
    manifest = Manifest.read(tiny)
    for row in report["rows"]:
        for name in row.keys() - {*WORDS, *DIFFERENCES}:
            assert 0 < row[name] < math.inf, name
        assert row["floor_us"] <= row["raw_us_min"] <= row["raw_us"] <= row["raw_us_p90"]
        assert row["generate_us_min"] <= row["generate_us"] <= row["generate_us_p90"]
        artefact = manifest.artefact("tflite" if row["engine"] == "litert" else "onnx", row["variant"])
        assert artefact is not None
        assert (row["bytes"], row["method"]) == (manifest.size_of(artefact), artefact.method)


@pytest.mark.parametrize("flag", ["--csv", None])
def test_the_other_forms(tiny: Path, flag: str | None, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", str(tiny), "--quick", *filter(None, [flag])]) == 0
    out = capfd.readouterr().out
    if flag:
        lines = list(csv.DictReader(io.StringIO(out)))
        assert [(line["engine"], line["variant"]) for line in lines] == EVERYTHING
        assert {*WORDS, *DIFFERENCES, "floor_us", "peak_bytes"} <= lines[0].keys()
        assert all(float(line["raw_us"]) > 0 for line in lines)
        return
    tables = [part.splitlines() for part in out.split("\n\n") if part.startswith("|")]
    assert len(tables) == 4
    for head, ruler, *body in tables:
        assert {line.count("|") for line in (head, ruler, *body)} == {head.count("|")}
        assert set(ruler) <= set("|-: ")
        assert [line.split("|")[1].strip() for line in body] == [" ".join(pair) for pair in EVERYTHING]
        assert not any(cell.strip() in ("", "nan", "-") for line in body for cell in line.split("|")[1:-1])


def test_a_bundle_without_a_vocabulary_has_the_engine_alone(
    tiny_copy: Path, edit_manifest: Callable[..., None]
) -> None:
    edit_manifest(tiny_copy, lambda record: record["files"].pop("vocabulary.json"))
    report = measure(tiny_copy, BRIEF)
    for row in report.rows:
        assert row["raw_us"] > 0
        assert min(row["session_us"], row["block_us"]) > 0
        assert row["raw_64_tokens_per_second"] > 0
        assert row["generate_us"] is row["filters_adds_us"] is row["generate_64_tokens_per_second"] is None
    assert any(" - |" in line for line in markdown(report))


def test_what_does_not_run_here_is_left_out_and_told(
    tiny_copy: Path, edit_manifest: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steprnn.runtime.engines.installed", lambda: ["onnx"])
    report = measure(tiny_copy, BRIEF)
    assert {row["engine"] for row in report.rows} == {"onnx"}
    assert report.left_out[0] == f"tflite-float32 needs: {install('litert')}"
    edit_manifest(tiny_copy, lambda record: record.update(artefacts=record["artefacts"][:1]))
    with pytest.raises(UsageError, match=r"^nothing to measure: tflite-float32 needs: pip install"):
        measure(tiny_copy, BRIEF)


# One row of the kernel, the recurrent kernel, its bias, the dense layer and its bias.
FLOATS = 4 * 8 + 8 * 4 * 8 + 4 * 8 + 8 * 21 + 21
# The same with a scale for each column, of which MatMulNBits rounds the depth, 8, up to 16.
BYTES = (4 * 8 + 4) + 4 * 8 * (16 + 4) + 4 * 4 * 8 + 21 * (16 + 4) + 4 * 21
READ = {
    "tflite-float32": 4 * FLOATS,
    "onnx-float32": 4 * FLOATS,
    "tflite-int8": 4 * FLOATS,  # so small a model is not quantized
    "onnx-int8": BYTES,
}


def test_bytes_read_are_those_of_the_textbook_and_of_inspect(tiny: Path) -> None:
    pytest.importorskip("onnx")
    from steprnn.export.inspect import inspect

    manifest = Manifest.read(tiny)
    assert manifest.read_bytes == READ
    for artefact in manifest.artefacts:
        weights = inspect(tiny / artefact.path).weights
        assert weights is not None
        assert weights.per_step == READ[artefact.name], artefact.name


def test_a_bundle_that_does_not_tell_what_a_step_reads(
    tiny_copy: Path, edit_manifest: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    """Older ones do not: the rest is measured."""
    edit_manifest(tiny_copy, lambda record: record.pop("read_bytes"))
    assert cli.main(["bench", str(tiny_copy), "--quick"]) == 0
    out, err = capfd.readouterr()
    assert err.splitlines()[-1] == (
        "left out: what a step reads and its floor, which the manifest does not tell; export again"
    )
    batch_1 = [line.split(" | ") for line in out.splitlines() if line.startswith(("| litert", "| onnx"))][:4]
    assert [cells[1:3] for cells in batch_1] == [["-", "-"]] * 4
    assert all(cells[3] != "-" for cells in batch_1)
    assert cli.main(["bench", str(tiny_copy), "--quick", "--json"]) == 0
    for row in json.loads(capfd.readouterr().out)["rows"]:
        assert row["read_bytes"] is row["read_from"] is row["floor_us"] is None
        assert row["raw_us"] > 0


WRONG_READ = r"a step of onnx-int8 reads .* bytes, expected 1 to |read_bytes of 'onnx-int8' is (-1|10{15})\)"


@pytest.mark.parametrize("read", [0, -1, 10**15])
def test_a_manifest_that_cannot_be_right_about_it(
    tiny_copy: Path, edit_manifest: Callable[..., None], read: int
) -> None:
    edit_manifest(tiny_copy, lambda record: record["read_bytes"].update({"onnx-int8": read}))
    with pytest.raises(BundleError, match=WRONG_READ):
        measure(tiny_copy, BRIEF)


def test_turns_alternate_and_divide_by_the_length() -> None:
    order: list[str] = []
    spent = {"a": 0, "b": 0}

    def work(name: str, each: float) -> Callable[[int], None]:
        def run(length: int) -> None:
            order.append(name)
            spent[name] = length
            end = time.process_time() + length * each
            while time.process_time() < end:
                pass

        return run

    times = time_rounds({"a": work("a", 2e-5), "b": work("b", 1e-4)}, 3, 0.004)
    assert order[-6:] == ["a", "b"] * 3
    assert [len(values) for values in times.values()] == [3, 3]
    assert all(value >= 20 for value in times["a"])
    assert all(value >= 100 for value in times["b"])
    assert spent["a"] > spent["b"]
    time_rounds({"a": work("a", 1e-6)}, 1, 0.0001, least=300)
    assert spent["a"] >= 300


def test_spread() -> None:
    assert Spread.of([5.0]) == Spread(5.0, 5.0, 5.0)
    assert Spread.of([float(n) for n in range(10, 0, -1)]) == Spread(5.5, 1.0, 9.0)


def test_figures_compare_within_a_round() -> None:
    """A machine that is slow for one round is slow for both."""
    row = figures({"raw": [10.0, 100.0, 20.0], "generate": [11.0, 120.0, 22.0]})
    assert row["generate_to_raw"] == pytest.approx(1.1)
    assert row["raw_us"] == 20.0
    assert row["tokens_per_second"] == pytest.approx(1e6 / 22)


def test_figures_of_given_times() -> None:
    """What a draw adds is what it takes longer than the likeliest token does, round by round."""
    times = {
        "raw": [10.0, 100.0, 20.0],
        "generate": [11.0, 120.0, 22.0],
        "stream": [12.0, 140.0, 23.0],
        "temperature": [14.0, 125.0, 24.0],
        "filters": [20.0, 119.0, 33.0],
        "prompt": [5.0, 7.0, 9.0],
        "session": [13.0, 104.0, 26.0],
        "block": [6.5, 52.0, 26.0],
        "raw 64": [640.0, 320.0, 160.0],
        "generate 64": [64.0, 128.0, 256.0],
    }
    assert figures(times) == {
        "raw_us": 20.0,
        "raw_us_min": 10.0,
        "raw_us_p90": 100.0,
        "generate_us": 22.0,
        "generate_us_min": 11.0,
        "generate_us_p90": 120.0,
        "generate_to_raw": 1.1,
        "stream_to_raw": 1.2,
        "temperature_adds_us": 3.0,
        "filters_adds_us": 9.0,
        "prompt_us": 7.0,
        "session_us": 26.0,
        "block_us": 26.0,
        "session_adds_us": 4.0,
        "session_to_block": 2.0,
        "tokens_per_second": pytest.approx(1e6 / 22),
        "raw_64_tokens_per_second": 200_000.0,
        "generate_64_tokens_per_second": 500_000.0,
        "temperature_64_tokens_per_second": None,
        "filters_64_tokens_per_second": None,
    }


def test_what_a_draw_adds_is_negative_where_it_took_less_time() -> None:
    row = figures({"raw": [1.0], "generate": [5.0], "temperature": [4.5], "filters": [3.0]})
    assert (row["temperature_adds_us"], row["filters_adds_us"]) == (-0.5, -2.0)


def test_pinned_is_undone_after_an_error() -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system pins nothing")
    before = os.sched_getaffinity(0)
    held: list[set[int]] = []

    def interrupted() -> None:
        with pinned():
            held.append(os.sched_getaffinity(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [len(cores) for cores in held] == [1]
    assert os.sched_getaffinity(0) == before


def test_reading_more_takes_longer() -> None:
    assert 0 < read_seconds(1 << 16, 0.02) < read_seconds(1 << 24, 0.02)


def test_the_machine() -> None:
    machine = Machine("a processor", 2, ("avx2",), {"L1": 100, "L2": 1000}, "a system")
    assert [machine.level(size) for size in (100, 101, 1001)] == ["L1", "L2", "memory"]
    assert Machine("a processor", 2, (), {}, "a system").level(1) == ""
    assert Machine.here().cores > 0


def test_peak_memory_is_this_process_s_own() -> None:
    before = peak_bytes()
    if before is None:
        pytest.skip("this system does not tell")
    held = np.ones(1 << 25, np.uint8)
    after = peak_bytes()
    assert after is not None
    assert after >= before
    assert after > held.nbytes
