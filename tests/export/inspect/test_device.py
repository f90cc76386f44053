"""What `inspect --target` tells of a step program on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from steprnn.export.inspect import device
from steprnn.export.program import encoding, fusing, lowering, source
from steprnn.export.program.reading import Program
from steprnn.runtime import UsageError
from steprnn.runtime.cli import main

from ..program.cases import step
from ..program.cells import cell_graph


def program(folder: Path, model: Any, spec: Any, variant: str = "int8") -> Path:
    low = lowering.lower(source.read(model), spec)
    path = folder / "step.program"
    path.write_bytes(encoding.program(low, fusing.fused(low.operations), spec, variant, "a test", {}))
    return path


def test_the_work_of_a_step_is_counted(tmp_path: Path) -> None:
    path = program(tmp_path, *cell_graph("lstm", 20, 6))
    counted = device.counts(Program(path), padded=True)
    assert counted is not None
    assert counted == {"LSTM": 20, "int8": 20 * 80 + 8 * 80}  # k in fours, columns in sixteens


def test_padded_panels_are_counted_whole(tmp_path: Path) -> None:
    path = program(tmp_path, *cell_graph("lstm", 5, 3), "float32")
    assert (device.counts(Program(path), True) or {})["float32"] == (5 + 3) * 32
    assert (device.counts(Program(path), False) or {})["float32"] == (5 + 3) * 20


def test_a_program_on_a_device(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = program(tmp_path, *cell_graph("lstm", 20, 6))
    assert main(["inspect", str(path), "--target", "cortex-m4f"]) == 0
    told = capfd.readouterr().out
    assert f"cortex-m4f: flash {path.stat().st_size:,} bytes of program exactly, and about" in told
    assert "cortex-m4f: RAM " in told
    known = device.devices()["cortex-m4f"]
    counted = device.counts(Program(path), True) or {}
    about = sum(known["each"][name] * n for name, n in counted.items())
    assert f"about {round(about, -2):,.0f} instructions a step, estimated from measured ones" in told
    assert 5_000 < about < 20_000  # of 3,000 weights and 20 units


def test_what_was_not_measured_is_not_estimated(tmp_path: Path) -> None:
    path = program(tmp_path, *step("Softmax"), "float32")
    (*_, last) = device.notes(Program(path), "cortex-m3")
    assert last == "cortex-m3: instructions are not estimated, as the step holds operations not measured"


def test_an_unknown_device_is_refused_by_name(tmp_path: Path) -> None:
    path = program(tmp_path, *cell_graph("gru", 5, 3))
    with pytest.raises(
        UsageError, match=r"no device 'pdp-11' was measured; choose one of cortex-m3, cortex-m4f"
    ):
        device.notes(Program(path), "pdp-11")


def test_without_a_program_there_is_nothing_to_tell(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tiny), "--target", "cortex-m3"]) == 2
    assert "holds no step program; export with --formats program" in capfd.readouterr().err
