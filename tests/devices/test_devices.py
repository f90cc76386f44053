"""A packaged model steps on emulated boards: this machine's bits, within the bytes and instructions told.

`make devices` runs every board; here are those that stand for the rest, where their tools are installed.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("keras")
pytest.importorskip("tf2onnx")

from steprnn.runtime import load

from . import boards, models

TRIED = ("cortex-m3", "cortex-m4f", "aarch64")


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> list[models.Packaged]:
    return list(models.packaged(tmp_path_factory.mktemp("devices")))


def board(name: str) -> boards.Board:
    found = next(b for b in boards.BOARDS if b.name == name)
    if missing := found.missing():
        pytest.skip(f"{missing[0]} is not installed here; make devices needs: apt install {found.packages}")
    return found


@pytest.mark.parametrize("name", TRIED)
def test_a_board_has_the_bits_of_this_machine(
    name: str, packaged: list[models.Packaged], tmp_path: Path
) -> None:
    tried = board(name)
    for model in packaged:
        told = boards.run(tried, model.folder, tmp_path)
        assert told.hash == model.hash(tried.steps), (model.name, model.variant)
        assert told.program == model.program_bytes
        if (name, model.name, model.variant) == ("cortex-m3", "LSTM 64, 96 characters", "int8-fixed"):
            assert told.instructions <= 120_000  # int8 takes 470,000 there


@pytest.mark.parametrize("name", TRIED)
def test_a_board_writes_the_text_of_a_seed(
    name: str, packaged: list[models.Packaged], tmp_path: Path
) -> None:
    """The sampler is in float64, which a Cortex-M computes by calls."""
    tried = board(name)
    for model in packaged:
        if model.name == "LSTM 64, 96 characters":
            bundle = load(model.program.parent, engine="native", variant=model.variant)
            expected = bundle.generate("!", 200, temperature=0.8, top_k=40, top_p=0.95, seed=7)
            assert boards.text(tried, model.folder, tmp_path) == expected[1:], model.variant


def test_other_weights_end_the_run(packaged: list[models.Packaged], tmp_path: Path) -> None:
    """The self-test that a package brings is what tells, before any step is counted."""
    model = next(m for m in packaged if (m.name, m.variant) == ("LSTM 1 to 32", "int8"))
    tried = board("cortex-m4f")
    for name in ("model.h", "steprnn.h", "steprnn.c"):
        (tmp_path / name).write_bytes((model.folder / name).read_bytes())
    text = (model.folder / "model.c").read_text()
    last = re.findall(r"0x[1-9a-f]\w+", text)[-1]  # a weight, a scale or a bias
    (tmp_path / "model.c").write_text(text.replace(last, f"{int(last, 16) ^ 1:#x}"))
    with pytest.raises(subprocess.CalledProcessError) as told:
        boards.run(tried, tmp_path, tmp_path / "build")
    assert "the self-test gives other bits" in told.value.stdout + told.value.stderr
