"""A run from corpus to checkpoint folder: what it leaves, repeats, refuses and measures."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from steprnn.runtime.bundle.vocabulary import Vocabulary
from steprnn.runtime.errors import CheckpointError, CorpusError, SteprnnError, UnknownToken, UsageError
from steprnn.train import corpus
from steprnn.train.checkpoint import Training
from steprnn.train.fit import train
from steprnn.train.settings import Settings

FILES = ["history.png", "model.keras", "training.json", "vocabulary.json"]


def weights(folder: Path) -> list[np.ndarray[Any, Any]]:
    return [np.array(weight) for weight in keras.models.load_model(folder / "model.keras").get_weights()]


def perplexity(model: Any, text: str, vocabulary: Vocabulary) -> float:
    """By hand: the exponential of the mean of -log p over all characters but the first."""
    tokens = vocabulary.encode(text)
    logits = np.asarray(model(np.array([tokens[:-1]]))[0][0], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return float(np.exp(-np.mean([log_p[t, token] for t, token in enumerate(tokens[1:])])))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, text_file: Path, tiny: Settings) -> Path:
    folder = tmp_path_factory.mktemp("run") / "checkpoint"
    train(folder, source=text_file, settings=replace(tiny, holdout=0.2), verbose=0)
    return folder


def test_what_a_run_leaves(finished: Path, text_file: Path) -> None:
    assert sorted(path.name for path in finished.iterdir()) == FILES
    record = json.loads((finished / "training.json").read_text(encoding="utf-8"))
    text = corpus.load(text_file)
    assert record["format"] == "steprnn.checkpoint"
    assert record["version"] == 1
    assert record["finished"] is True
    assert record["corpus"] == {"name": "verses.txt", "sha256": text.sha256, "characters": len(text.text)}
    assert record["settings"]["units"] == 24
    assert set(record["versions"]) == {"steprnn", "keras", "tensorflow", "python"}
    model = (finished / "model.keras").read_bytes()
    assert record["model_sha256"] == hashlib.sha256(model).hexdigest()
    assert Vocabulary.read(finished / "vocabulary.json") == Vocabulary.of(text.text)
    assert (finished / "history.png").read_bytes().startswith(b"\x89PNG")
    assert "山外有雨" not in json.dumps(record, ensure_ascii=False)  # the text itself is nowhere kept


def test_the_history_tells_every_epoch(finished: Path, text_file: Path) -> None:
    history = Training.read(finished).history
    seen, _ = corpus.load(text_file).split(0.2)
    characters = (len(seen) - 8) // 4 // 8 * 4 * 8  # whole windows of 8 in 4 rows, from any offset below 8
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4, 5, 6]
    for entry in history:
        assert entry["perplexity"] == pytest.approx(np.exp(entry["loss"]), rel=1e-5)
        assert entry["held_out_perplexity"] == pytest.approx(np.exp(entry["held_out_loss"]), rel=1e-5)
        assert entry["characters_per_second"] * entry["seconds"] == pytest.approx(characters, rel=0.05)
    assert history[-1]["perplexity"] < history[0]["perplexity"] / 2


def test_the_model_opens_in_plain_keras_and_is_the_best_one(finished: Path, text_file: Path) -> None:
    training = Training.read(finished)
    model = keras.models.load_model(finished / "model.keras")
    assert model.input.shape == (None, None)
    assert [layer.name for layer in model.layers] == ["tokens", "lstm", "logits"]
    assert not model.get_layer("lstm").stateful
    _, unseen = corpus.load(text_file).split(0.2)
    measured = perplexity(model, unseen, Vocabulary.read(finished / "vocabulary.json"))
    held_out = [entry["held_out_perplexity"] for entry in training.history]
    assert training.best_epoch == int(np.argmin(held_out)) + 1
    assert measured == pytest.approx(min(held_out), rel=1e-4)  # float32 means over some 80 characters


@pytest.mark.parametrize(
    ("cell", "layers", "names"),
    [("lstm", 2, ["lstm_1", "lstm_2"]), ("gru", 1, ["gru"])],
)
def test_the_layers_are_named_after_the_cell(
    cell: str, layers: int, names: list[str], tmp_path: Path, text_file: Path, tiny: Settings
) -> None:
    settings = replace(tiny, cell=cell, layers=layers, epochs=1, embedding=6, dropout=0.1)
    train(tmp_path / "c", source=text_file, settings=settings, verbose=0)
    model = keras.models.load_model(tmp_path / "c" / "model.keras")
    recurrent = [layer for layer in model.layers if isinstance(layer, keras.layers.RNN)]
    assert [layer.name for layer in recurrent] == names
    logits, *states = model(np.zeros((5, 3), np.int32))
    assert logits.shape == (5, 3, len(Vocabulary.read(tmp_path / "c" / "vocabulary.json")))
    assert [state.shape for state in states] == [(5, 24)] * layers * (2 if cell == "lstm" else 1)


def test_a_seed_repeats_a_run_bit_for_bit_and_another_does_not(
    tmp_path: Path, text_file: Path, tiny: Settings
) -> None:
    settings = replace(tiny, epochs=3, dropout=0.2)
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        train(tmp_path / name, source=text_file, settings=replace(settings, seed=seed), verbose=0)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert not any(np.array_equal(x, y) for x, y in zip(a, c, strict=True) if x.std() > 0)
    losses = [[entry["loss"] for entry in Training.read(tmp_path / name).history] for name in "ab"]
    assert losses[0] == losses[1]


def test_samples_of_the_prompts_on_request(tmp_path: Path, text_file: Path, tiny: Settings) -> None:
    said: list[str] = []
    train(
        tmp_path / "c",
        source=text_file,
        settings=replace(tiny, epochs=4),
        prompts=["分开", "山"],
        sample_every=2,
        verbose=0,
        say=said.append,
    )
    beginnings = [line[: len("epoch 2: 分")] for line in said]
    assert beginnings == ["epoch 2: 分", "epoch 2: 山", "epoch 4: 分", "epoch 4: 山"]
    assert [len(line.split(": ")[1]) for line in said] == [52, 51, 52, 51]


@pytest.mark.parametrize(
    ("epochs", "every", "told"), [(8, None, [2, 4, 6, 8]), (3, None, [1, 2, 3]), (5, 3, [3, 5])]
)
def test_samples_come_at_sensible_times_and_at_the_end(
    tmp_path: Path, text_file: Path, tiny: Settings, epochs: int, every: int | None, told: list[int]
) -> None:
    said: list[str] = []
    train(
        tmp_path / "c",
        source=text_file,
        settings=replace(tiny, epochs=epochs),
        prompts=["分龘"],
        unknown="skip",
        sample_every=every,
        verbose=0,
        say=said.append,
    )
    assert [line.partition(": ")[0] for line in said] == [f"epoch {epoch}" for epoch in told]
    assert all(line.partition(": ")[2].startswith("分") for line in said)


def test_tensorboard_on_request(tmp_path: Path, text_file: Path, tiny: Settings) -> None:
    logs, settings = tmp_path / "logs", replace(tiny, epochs=1)
    if importlib.util.find_spec("tensorboard") is None:
        with pytest.raises(UsageError, match=r"--tensorboard needs .*; run: pip install tensorboard"):
            train(tmp_path / "c", source=text_file, settings=settings, tensorboard=logs, verbose=0)
    else:
        train(tmp_path / "c", source=text_file, settings=settings, tensorboard=logs, verbose=0)
        assert list(logs.rglob("events.*"))


def test_patience_stops_and_the_best_model_is_kept(tmp_path: Path, text_file: Path, tiny: Settings) -> None:
    # A rate this high makes every epoch worse than the first.
    settings = replace(tiny, epochs=30, patience=2, learning_rate=3.0)
    training = train(tmp_path / "c", source=text_file, settings=settings, verbose=0)
    assert training.best_epoch is not None
    assert len(training.history) == training.best_epoch + 2 < 30
    best = min(training.history, key=lambda entry: entry["loss"])
    assert best["epoch"] == training.best_epoch


def test_a_finished_run_is_left_as_it_is(finished: Path, text_file: Path, tiny: Settings) -> None:
    said: list[str] = []
    before = (finished / "model.keras").stat().st_mtime_ns
    train(finished, source=text_file, settings=replace(tiny, holdout=0.2), verbose=0, say=said.append)
    assert said == [f"{finished} is finished already; nothing to do"]
    assert (finished / "model.keras").stat().st_mtime_ns == before


def test_more_epochs_go_on_from_a_finished_run(
    tmp_path: Path, finished: Path, text_file: Path, tiny: Settings
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "c"))
    said: list[str] = []
    before = Training.read(folder)
    settings = replace(tiny, holdout=0.2, epochs=9)
    after = train(folder, source=text_file, settings=settings, verbose=0, say=said.append)
    words = "going on after 6 of 9 epochs of a finished run, from its best model; Adam's moments begin anew"
    assert said == [words]
    assert after.history[:6] == before.history
    assert [entry["epoch"] for entry in after.history] == list(range(1, 10))
    assert after.history[6]["perplexity"] < before.history[0]["perplexity"] / 2  # not from the beginning
    assert (after.finished, after.went_on_after, after.settings["epochs"]) == (True, [6], 9)
    assert "went_on_after" not in json.loads((finished / "training.json").read_text("utf-8"))
    assert sorted(path.name for path in folder.iterdir()) == FILES
    _, unseen = corpus.load(text_file).split(0.2)
    model = keras.models.load_model(folder / "model.keras")
    measured = perplexity(model, unseen, Vocabulary.read(folder / "vocabulary.json"))
    assert measured == pytest.approx(min(e["held_out_perplexity"] for e in after.history), rel=1e-4)


def test_a_run_that_went_on_goes_on_bit_for_bit_after_an_interrupt(
    tmp_path: Path, finished: Path, text_file: Path, tiny: Settings
) -> None:
    settings = replace(tiny, holdout=0.2, epochs=9)
    for name in ("whole", "stopped"):
        shutil.copytree(finished, tmp_path / name)
    train(tmp_path / "whole", source=text_file, settings=settings, verbose=0)

    def interrupt(line: str) -> None:
        if line.startswith("epoch 8"):
            raise KeyboardInterrupt

    stopped = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt, match=r"interrupted after [78] of 9 epochs"):
        train(
            stopped,
            source=text_file,
            settings=settings,
            prompts=["分"],
            sample_every=1,
            verbose=0,
            say=interrupt,
        )
    training = train(stopped, source=text_file, settings=settings, verbose=0)
    assert training.went_on_after == [6]
    pairs = zip(weights(tmp_path / "whole"), weights(stopped), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_fewer_epochs_than_a_finished_run_has_are_refused(
    finished: Path, text_file: Path, tiny: Settings
) -> None:
    with pytest.raises(CheckpointError, match=r"a finished run with other settings: --epochs 6 \(here 4\)"):
        train(finished, source=text_file, settings=replace(tiny, holdout=0.2, epochs=4), verbose=0)


def test_other_settings_do_not_overwrite_a_run(finished: Path, text_file: Path, tiny: Settings) -> None:
    before = (finished / "model.keras").read_bytes()
    words = r"holds a finished run with other settings: --units 24 \(here 25\), --holdout 0\.2 \(here 0\.0\)"
    with pytest.raises(CheckpointError, match=words):
        train(finished, source=text_file, settings=replace(tiny, units=25), verbose=0)
    other = finished.parent / "other.txt"
    other.write_text("山水" * 200, encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"corpus verses\.txt \(here other\.txt\); give another --out, or"
    ):
        train(finished, source=other, settings=replace(tiny, holdout=0.2), verbose=0)
    assert (finished / "model.keras").read_bytes() == before


def test_overwrite_throws_a_checkpoint_away_and_nothing_else(
    tmp_path: Path, finished: Path, text_file: Path, tiny: Settings
) -> None:
    folder = tmp_path / "c"
    shutil.copytree(finished, folder)
    (folder / "notes.md").write_text("mine")
    training = train(folder, source=text_file, settings=replace(tiny, epochs=2), overwrite=True, verbose=0)
    assert len(training.history) == 2
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "notes.md"])
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.txt").write_text("mine")
    with pytest.raises(
        CheckpointError, match="strange holds other files and no checkpoint; give another --out"
    ):
        train(strange, source=text_file, settings=tiny, overwrite=True, verbose=0)
    assert (strange / "thesis.txt").read_text() == "mine"
    with pytest.raises(CheckpointError, match=r"thesis\.txt is a file; expected a folder"):
        train(strange / "thesis.txt", source=text_file, settings=tiny, verbose=0)


def test_an_altered_model_is_noticed(tmp_path: Path, finished: Path, text_file: Path, tiny: Settings) -> None:
    shutil.copytree(finished, tmp_path / "c")
    with (tmp_path / "c" / "model.keras").open("ab") as file:
        file.write(b"x")
    with pytest.raises(
        CheckpointError, match=r"model\.keras is missing or altered; train again with --overwr"
    ):
        train(tmp_path / "c", source=text_file, settings=replace(tiny, holdout=0.2), verbose=0)


def test_nothing_is_written_for_bad_input(tmp_path: Path, text_file: Path, tiny: Settings) -> None:
    out = tmp_path / "c"
    with pytest.raises(UnknownToken, match="'龘' not among the"):
        train(out, source=text_file, settings=tiny, prompts=["龘"], verbose=0)
    with pytest.raises(UsageError, match="a prompt is empty"):
        train(out, source=text_file, settings=tiny, prompts=[""], verbose=0)
    with pytest.raises(UsageError, match="--sample-every is 0; expected at least 1"):
        train(out, source=text_file, settings=tiny, sample_every=0, verbose=0)
    with pytest.raises(CorpusError, match="needs at least 42,000: give a longer text"):
        train(out, source=text_file, settings=replace(tiny, batch=419, window=100), verbose=0)
    assert not out.exists()


def test_a_loss_that_is_no_number_is_told(tmp_path: Path, text_file: Path, tiny: Settings) -> None:
    with pytest.raises(
        SteprnnError, match=r"the loss became nan in epoch \d+; expected a number below 88: lower --learn"
    ):
        train(tmp_path / "c", source=text_file, settings=replace(tiny, learning_rate=1e38), verbose=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cell": "lsmt"}, "--cell is 'lsmt'; expected one of lstm, gru, rnn"),
        ({"units": 0}, "--units is 0; expected at least 1"),
        ({"holdout": 1.0}, r"--holdout is 1\.0; expected a share from 0 to below 1"),
        ({"learning_rate": 0.0}, r"--learning-rate is 0\.0; expected more than 0"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan; expected more than 0"),
    ],
)
def test_the_words_for_a_setting_that_cannot_be_meant(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Settings(**change)


def test_the_learning_rate_is_level_and_then_falls() -> None:
    settings = Settings(epochs=10, learning_rate=1.0, decay=0.4)
    assert [settings.rate(epoch) for epoch in range(10)] == [1, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert Settings(epochs=10, learning_rate=1.0, decay=0.0).rate(9) == 1
