"""A model of bytes, the whole way: `train --tokens bytes`, a bundle, and its text on every way out."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from steprnn.runtime import Model, Vocabulary, load
from steprnn.runtime.engines.native.library import compiler
from steprnn.runtime.package import c

from .runtime.serve.server import Server

ENGINES = ("onnx", "litert", "native")
WILD = {"temperature": 3.0, "seed": 4}  # hardly a byte in ten goes on with a character

Run = Callable[..., Any]


@pytest.fixture(scope="module", params=ENGINES)
def model(request: pytest.FixtureRequest, byte_bundle: Path) -> Model:
    return load(byte_bundle, engine=request.param)


def test_it_knows_all_scripts(byte_bundle: Path) -> None:
    record = json.loads((byte_bundle / "vocabulary.json").read_text(encoding="utf-8"))
    assert record == {"format": "steprnn.vocabulary", "version": 1, "unit": "byte"}
    manifest = json.loads((byte_bundle / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["step"]["inputs"][0]["tokens"] == 256


def test_it_has_learnt_whole_characters(model: Model) -> None:
    text = model.generate("雨", 60)
    assert len(text.encode()) in range(63, 66)  # a character that was begun is told as one of three bytes
    assert "不停" in text
    assert "\ufffd" not in text[:-1]
    assert model.generate("Ωб😀", 3)[:3] == "Ωб😀"


def test_engines_write_the_same(byte_bundle: Path) -> None:
    models = [load(byte_bundle, engine=engine) for engine in ENGINES]
    for options in ({}, WILD, {"temperature": 0.8, "top_k": 20, "seed": 9}):
        texts = {m.generate("雨", 200, **options) for m in models}  # type: ignore[arg-type]
        assert len(texts) == 1
    assert "\ufffd" in models[0].generate("雨", 200, **WILD)  # type: ignore[arg-type]


@given(
    st.sampled_from([0.0, 0.7, 1.5, 3.0]),
    st.integers(0, 99),
    st.integers(0, 40),
    st.sampled_from([(), "不", "\ufffd", ("e", "风不"), "\ufffd\ufffd"]),
)
@given_settings(max_examples=60)
def test_streams_and_batches_are_the_text(
    model: Model, temperature: float, seed: int, length: int, stop: Any
) -> None:
    """However pieces are cut: characters come whole, and what never became one is told at the end."""
    options = {"temperature": temperature, "seed": seed, "stop": stop}
    text = model.generate("雨", length, **options)
    pieces = [*model.stream("雨", length, **options)]
    assert "".join(pieces) == text[1:]
    assert all(pieces)
    assert model.generate(["雨", "风", "雨"], length, **options)[0] == text
    hooked = model.generate("雨", length, logits_processor=lambda logits, tokens: None, **options)
    assert hooked == text


def test_a_score_is_of_bytes(model: Model) -> None:
    score = model.score("雨e")
    assert [name for name, _ in score.characters] == ["bytes:\\x9b", "bytes:\\xa8", "e"]
    assert model.score("雨").log_probability == pytest.approx(
        sum(p for _, p in score.characters[:2]), abs=1e-5
    )
    assert model.embed("😀").shape == (32,)


@pytest.fixture(scope="module")
def server(byte_bundle: Path) -> Iterator[Server]:
    pytest.importorskip("uvicorn")
    server = Server(byte_bundle, "--name", "bytes", "--engine", "onnx")
    yield server
    assert server.stop() == (0, "")


def complete(server: Server, **asked: Any) -> Any:
    body = json.dumps({"model": "bytes", "prompt": "雨", "max_tokens": 60} | asked).encode()
    status, _, answer = server.request("POST", "/v1/completions", body)
    assert status == 200, answer
    return answer if asked.get("stream") else json.loads(answer)


@pytest.mark.parametrize("asked", [{"temperature": 0}, {"temperature": 3.0, "seed": 4}])
@pytest.mark.parametrize("stop", [[], ["\ufffd"], ["停风"]])
def test_served_it_is_the_same_text(
    server: Server, byte_bundle: Path, asked: dict[str, Any], stop: list[str]
) -> None:
    expected = load(byte_bundle, engine="onnx").generate("雨", 60, stop=stop, **asked)
    (choice,) = complete(server, stop=stop, **asked)["choices"]
    assert choice["text"] == expected[1:]
    events = complete(server, stop=stop, stream=True, **asked).decode().split("\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events if event.startswith("data: {")]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == expected[1:]


def test_log_probabilities_name_bytes_and_tell_where_they_are(server: Server) -> None:
    (choice,) = complete(server, temperature=0, logprobs=0, echo=True, max_tokens=7)["choices"]
    scored = choice["logprobs"]
    assert scored["tokens"][:3] == ["bytes:\\xe9", "bytes:\\x9b", "bytes:\\xa8"]
    text = Vocabulary.of_bytes().decode(
        int(name[8:], 16) if name.startswith("bytes:") else ord(name) for name in scored["tokens"]
    )
    assert text == choice["text"]
    assert scored["text_offset"][:4] == [0, 0, 0, 1]
    assert len(scored["text_offset"]) == 10


def test_as_c_it_writes_the_same_bytes(byte_bundle: Path, tmp_path: Path) -> None:
    found = compiler() or pytest.skip("no C compiler is installed here")
    out = c.write(byte_bundle, tmp_path / "c")
    sources = ["main.c", "model.c", "steprnn.c"]
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-ffp-contract=off"]
    subprocess.run([*found, *flags, "-o", "main", *sources], cwd=out, check=True)
    model = load(byte_bundle, engine="native")
    for arguments, options in ((["9"], {"temperature": 1.0, "seed": 9}), (["4", "3"], WILD)):
        written = subprocess.check_output([out / "main", "雨", "150", *arguments])
        assert written.decode("utf-8", "replace") == model.generate("雨", 150, **options) + "\n"  # type: ignore[arg-type]


def test_another_tokens_is_another_run(byte_checkpoint: Path, steprnn: Run, tmp_path: Path) -> None:
    """And a checkpoint of before there was a choice was of characters."""
    folder = shutil.copytree(byte_checkpoint, tmp_path / "checkpoint")
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    corpus = byte_checkpoint.with_name("corpus.txt")
    flags = ["--units", 32, "--epochs", record["settings"]["epochs"], "--batch", 8, "--window", 32]
    rate = ["--learning-rate", record["settings"]["learning_rate"]]
    done = steprnn("train", "--corpus", corpus, "--out", folder, *flags, *rate)
    assert done.returncode == 1
    assert "--tokens bytes (here characters)" in done.stderr
    del record["settings"]["tokens"]
    (folder / "training.json").write_text(json.dumps(record), encoding="utf-8")
    done = steprnn("train", "--corpus", corpus, "--out", folder, *flags, *rate)
    assert f"{folder} is finished already; nothing to do" in done.stderr
