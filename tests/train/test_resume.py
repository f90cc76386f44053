"""A run that is stopped at any moment goes on to the result it would have had."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from steprnn.runtime import atomic
from steprnn.runtime.claims import claimed
from steprnn.runtime.cli import Terminated
from steprnn.runtime.errors import CheckpointError, UsageError
from steprnn.train.checkpoint import Training
from steprnn.train.fit import train
from steprnn.train.resume import PARTS, Progress, State
from steprnn.train.settings import Settings
from steprnn.train.trainer import Trainer

RUN = Path(__file__).with_name("run.py")
FILES = ["history.png", "model.keras", "training.json", "vocabulary.json"]


def start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)


def await_epoch(process: subprocess.Popen[str], least: int) -> int:
    """The number of the first epoch from `least` on that the run samples after; 0 if it ended before."""
    assert process.stdout is not None
    for line in process.stdout:
        sampled = re.match(r"epoch (\d+): ", line)
        if sampled and int(sampled[1]) >= least:
            return int(sampled[1])
    return 0


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def result(folder: Path) -> tuple[list[Any], list[float], int | None]:
    training = Training.read(folder)
    weights = keras.models.load_model(folder / "model.keras").get_weights()
    losses = [entry[name] for entry in training.history for name in ("loss", "held_out_loss")]
    return weights, losses, training.best_epoch


def test_killed_at_random_moments_and_resumed_is_as_if_nothing_had_been(
    tmp_path: Path, text_file: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = start([sys.executable, str(RUN), str(whole), str(text_file), "1e9"])
    moments = random.Random()  # another moment in every run of the tests; the result is always the same
    reached = 0
    for _ in range(3):
        process = start([sys.executable, str(RUN), str(killed), str(text_file), "0.03"])
        number = await_epoch(process, reached + moments.randint(2, 12))
        time.sleep(moments.random() / 10)  # somewhere within it: of its ten steps many are kept
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert number > reached, "the run ended before it could be killed, or went back"
        reached = number
        assert not Training.read(killed).finished
    output = finish(start([sys.executable, str(RUN), str(killed), str(text_file), "0.03"]))
    assert "going on after " in output
    finish(undisturbed)

    (weights, losses, best), (other_weights, other_losses, other_best) = result(whole), result(killed)
    assert len(losses) == 80
    assert losses == other_losses
    assert best == other_best
    assert all(np.array_equal(a, b) for a, b in zip(weights, other_weights, strict=True))
    assert sorted(path.name for path in killed.iterdir()) == FILES


def test_ctrl_c_keeps_the_best_model_and_the_same_command_goes_on(tmp_path: Path, text_file: Path) -> None:
    folder = tmp_path / "checkpoint"
    command = [sys.executable, "-c", "import sys; from steprnn.runtime.cli import main; sys.exit(main())"]
    command += ["train", "--corpus", str(text_file), "--out", str(folder), "--epochs", "400", "--units", "16"]
    command += ["--batch", "4", "--window", "8", "--prompts", "分", "--sample-every", "1"]
    process = start(command)
    assert await_epoch(process, 4) == 4
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    last = output.strip().splitlines()[-1]
    assert last.startswith("steprnn: interrupted after ")
    assert "has the best model (epoch " in last
    assert last.endswith("the same command goes on from here")
    training = Training.read(folder)
    assert not training.finished
    assert keras.models.load_model(folder / "model.keras").name == "steprnn"

    process = start(command)
    assert process.stdout is not None
    said = next(line for line in process.stdout if "going on" in line)
    assert await_epoch(process, 1) >= 4, "the epochs that were over are not repeated"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert said.startswith("going on after ")
    assert "of 400 epochs" in said


def interrupt_after(monkeypatch: pytest.MonkeyPatch, step: int, error: type[BaseException]) -> None:
    """An interrupt between a step of the graph and its callbacks, or before the first."""
    make = Trainer.make_train_function

    def making(self: Any, force: bool = False) -> None:
        make(self, force)
        take = self.train_function

        def taking(iterator: Any) -> Any:
            logs = take(iterator)
            if int(self.optimizer.iterations.numpy()) == step:
                raise error
            return logs

        self.train_function = taking
        if step == 0:
            raise error

    monkeypatch.setattr(Trainer, "make_train_function", making)


def test_interrupted_within_an_epoch_what_was_learnt_is_kept(
    tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(units=16, batch=4, window=8, epochs=3, dropout=0.1, holdout=0.4)  # of seven steps
    said: list[str] = []

    def run(name: str, settings: Settings = settings) -> None:
        train(tmp_path / name, source=text_file, settings=settings, verbose=0, say=said.append)

    run("whole")
    other = replace(settings, units=17)
    words = "0 of 3 epochs and 4 of 7 steps", "1 of 3 epochs and 6 of 7 steps"
    kept = f"{tmp_path / 'cut'} {{}}; the same command goes on from here"
    for step, error, settings_then, told in [
        (
            0,
            KeyboardInterrupt,
            other,
            "interrupted before the first step was over; there is nothing to keep yet",
        ),
        (4, KeyboardInterrupt, settings, f"interrupted after {words[0]}; " + kept.format("keeps it")),
        (
            13,
            Terminated,
            settings,
            f"interrupted after {words[1]}; " + kept.format("has the best model (epoch 1)"),
        ),
    ]:
        with monkeypatch.context() as patched:
            interrupt_after(patched, step, error)
            with pytest.raises(error) as raised:
                run("cut", settings_then)
        assert str(raised.value) == told
    with pytest.raises(CheckpointError, match="holds an unfinished run with other settings: --units 16"):
        run("cut", other)
    run("cut")
    assert said == [f"going on after {w}" for w in words]
    (weights, losses, best), (other_weights, other_losses, other_best) = map(
        result, (tmp_path / "whole", tmp_path / "cut")
    )
    assert (losses, best) == (other_losses, other_best)
    assert all(np.array_equal(a, b) for a, b in zip(weights, other_weights, strict=True))
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == FILES


def test_the_second_that_trains_in_a_folder_is_told(tmp_path: Path, text_file: Path) -> None:
    (tmp_path / "c").mkdir()
    words = "another steprnn is writing .*c; wait for it, or choose another --out"
    with claimed(tmp_path / "c"), pytest.raises(UsageError, match=words):
        train(tmp_path / "c", source=text_file, settings=Settings(batch=4, window=8), verbose=0)
    assert list((tmp_path / "c").iterdir()) == []


def state(value: float) -> State:
    arrays = [np.full((2, 3), value, np.float32), np.array(7, np.int64)]
    return State(
        Progress([{"epoch": 1, "loss": value}], value, 0, 0, 3, 0.5), arrays, arrays[:1], arrays, arrays
    )


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "resume.npz"
    assert State.read(path) is None
    state(0.1).write(path)
    back = State.read(path)
    assert back is not None
    assert back.progress == state(0.1).progress
    for name in PARTS:
        before, after = getattr(state(0.1), name), getattr(back, name)
        assert all(
            np.array_equal(a, b) and a.dtype == b.dtype and a.shape == b.shape
            for a, b in zip(before, after, strict=True)
        )


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "resume.npz"
    state(1.0).write(path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(atomic.os if call == "fsync" else Path, call, full)
        with pytest.raises(OSError, match="No space left"):
            state(2.0).write(path)
    back = State.read(path)
    assert back is not None
    assert back.progress.best == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["resume.npz"]


@pytest.mark.parametrize("keep", [0, 10, 400])
def test_the_words_for_a_damaged_state(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "resume.npz"
    state(1.0).write(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"resume\.npz is damaged .*begin again with --overwrite"):
        State.read(path)
    np.savez(path, something=np.zeros(3))
    with pytest.raises(CheckpointError, match="was not written by this steprnn; begin again"):
        State.read(path)
