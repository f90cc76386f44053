"""steprnn.js in headless Chromium: the same texts, states and refusals as in Python."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import Model, load
from steprnn.runtime.bundle.manifest import FileRecord

Run = Callable[..., Any]
LENGTH = 200
# Options in Python and the same in JavaScript.
OPTIONS = [
    ({}, "{}"),
    ({"temperature": 0.8, "top_k": 5, "seed": 7}, "{ temperature: 0.8, topK: 5, seed: 7 }"),
    ({"temperature": 1.0, "seed": 2**80 + 3}, "{ temperature: 1, seed: 2n ** 80n + 3n }"),
    (
        {
            "temperature": 1.5,
            "top_p": 0.9,
            "min_p": 0.02,
            "repeat_penalty": 1.2,
            "repeat_last_n": 8,
            "seed": 1,
        },
        "{ temperature: 1.5, topP: 0.9, minP: 0.02, repeatPenalty: 1.2, repeatLastN: 8, seed: 1 }",
    ),
    (
        {"temperature": 1.0, "seed": 5, "stop": ["山上", "我在"]},
        "{ temperature: 1, seed: 5, stop: ['山上', '我在'] }",
    ),
    ({"temperature": 1.0, "seed": 5, "unknown": "skip"}, "{ temperature: 1, seed: 5, unknown: 'skip' }"),
]
TEXTS = f"""const texts = [];
    for (const options of [{", ".join(options for _, options in OPTIONS)}]) {{
      texts.push(await model.generate("分开", {{ length: {LENGTH}, ...options }}));
    }}
    return texts;"""


def test_texts_are_those_of_python(run: Run, page: Path, models: dict[str, Model]) -> None:
    expected = [models["onnx"].generate("分开", LENGTH, **options) for options, _ in OPTIONS]
    assert run(page, TEXTS) == expected
    assert len(set(expected)) >= 4  # the options make a difference


def test_the_prompt_counts_as_recent(run: Run, page: Path, models: dict[str, Model]) -> None:
    expected = models["onnx"].generate("雨不停风不来 你我在", 9, repeat_penalty=9.0, repeat_last_n=20)
    body = "return model.generate('雨不停风不来 你我在', { length: 9, repeatPenalty: 9, repeatLastN: 20 });"
    assert run(page, body) == expected


def test_int8(run: Run, make_page: Run, tmp_path: Path, tiny: Path) -> None:
    """The wasm keeps activations in float, so that logits differ by more than rounding."""
    folder = make_page(tiny, tmp_path / "site", variant="int8")
    model = load(tiny, engine="onnx", variant="int8")
    body = f"return [model.artefact.variant, await model.generate('分开', {{ length: {LENGTH} }})];"
    assert run(folder, body, "int8") == ["int8", model.generate("分开", LENGTH)]


def test_int8_weights(run: Run, make_page: Run, checkpoint: Path, tmp_path: Path) -> None:
    """Drawn too: the arithmetic is that of float32, as it is in Python."""
    pytest.importorskip("tf2onnx")
    from steprnn.export.bundle import export

    bundle = tmp_path / "verse.bundle"
    export(checkpoint, bundle, formats=("onnx",), variants=("float32", "int8-weights"))
    model = load(bundle, engine="onnx", variant="int8-weights")
    expected = [model.generate("分开", LENGTH, **options) for options, _ in OPTIONS]
    assert expected[0] != expected[2]
    folder = make_page(bundle, tmp_path / "site", variant="int8-weights")
    assert run(folder, TEXTS, "int8-weights") == expected


def test_a_page_that_was_replaced_is_loaded_anew(
    browser: Any, serve: Callable[..., tuple[str, list[str]]], page_copy: Path, edit_page_manifest: Run
) -> None:
    """A browser may keep files of some age without asking; the new manifest and the old graph do not fit."""
    long_ago = time.time() - 30 * 86_400
    for path in page_copy.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    address, _ = serve(page_copy)
    script = """const [address, done] = arguments;
        import(`${address}/steprnn.js`).then(({ load }) => load(`${address}/model`)).then(
          (model) => done(model.vocabulary.at(-1)), (error) => done(error.message));"""
    browser.get(f"{address}/icon.svg")
    before = browser.execute_async_script(script, address)
    vocabulary = page_copy / "model" / "vocabulary.json"
    vocabulary.write_text(vocabulary.read_text(encoding="utf-8").replace(before, "歌"), encoding="utf-8")
    record = vars(FileRecord.of(vocabulary))
    edit_page_manifest(page_copy, lambda manifest: manifest["files"].update({"vocabulary.json": record}))
    browser.get(f"{address}/icon.svg")
    assert browser.execute_async_script(script, address) == "歌"


def test_a_stream_comes_a_character_at_a_time_and_can_be_stopped(
    run: Run, page: Path, models: dict[str, Model]
) -> None:
    got = run(
        page,
        """const controller = new AbortController();
        const pieces = [];
        let error = null;
        try {
          for await (const piece of model.stream("雨", { length: Infinity, signal: controller.signal })) {
            pieces.push(piece);
            if (pieces.length === 30) controller.abort();
          }
        } catch (e) { error = e.name; }
        return [pieces, error];""",
    )
    assert got == [list(models["onnx"].stream("雨", 30)), "AbortError"]


def test_two_streams_at_once_do_not_mix(run: Run, page: Path, models: dict[str, Model]) -> None:
    options = [{"temperature": 1.0, "seed": seed} for seed in range(4)]
    body = (
        f"return Promise.all({json.dumps(options)}.map((o) => model.generate('云', {{ length: 60, ...o }})));"
    )
    assert run(page, body) == [models["onnx"].generate("云", 60, **o) for o in options]


def test_sessions_step_fork_reset_and_take_up_a_state(run: Run, page: Path, models: dict[str, Model]) -> None:
    got = run(
        page,
        """const session = model.session();
        await session.step(3);
        const kept = session.state;
        const twin = session.fork();
        const [a, b] = await Promise.all([session.step(5), session.step(7)]);
        const other = await twin.step(5);
        session.reset();
        const anew = await session.step(3);
        const again = await model.session(structuredClone(kept)).step(5);
        return [[...a], [...b], [...other], [...anew], [...again], [...kept.tensors.h]];""",
    )
    session = models["onnx"].session()
    first = session.step(3)
    h = session.state.tensors["h"][0]
    a, b = session.step(5), session.step(7)
    for expected, result in zip((a[0], b[0], a[0], first[0], a[0], h), got, strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(a - b).max() > 0.1


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("model.stream('分x€')", "unknown", "'x' '€' not among the 21 characters of the vocabulary; choose"),
        ("model.stream('')", "prompt-empty", "the prompt is empty; expected at least one character"),
        ("model.stream('x', { unknown: 'skip' })", "prompt-unknown", "the prompt has no character of"),
        ("model.stream('分', { seed: -1 })", "range", "seed is -1; expected a whole number, at least 0"),
        ("model.stream('分', { seed: 2 ** 60 })", "range", "seed is 1152921504606847000; expected"),
        ("model.stream('分', { length: 1.5 })", "range", "length is 1.5; expected a whole number"),
        ("model.stream('分', { top_k: 3 })", "option", "top_k is no option of stream"),
        ("model.stream('分', { stop: '' })", "stop", "a stop string is empty"),
        ("model.session().step(21)", "input", "input x has a token outside 0..20: 21"),
        ("model.session().step(1.5)", "input", "input x has a value that is no int32"),
        ("model.session().step([1, 2])", "input", "input x has 2 values, expected 1"),
        ("model.session({ model: 'a', tensors: {} })", "state", "this state belongs to model a, not to "),
        ("model.session({ ...model.session().state, tensors: {} })", "state", "this state has , expected"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_said(run: Run, page: Path, body: str, code: str, words: str) -> None:
    got = run(page, f"return await {body};")
    assert got["code"] == code, got["message"]
    assert got["message"].startswith(words)


def test_a_state_that_does_not_begin_at_zero(
    run: Run, page_copy: Path, tiny_copy: Path, edit_page_manifest: Run
) -> None:
    initial = {"h": np.linspace(-1, 1, 8, dtype=np.float32), "c": np.linspace(9, -9, 8, dtype=np.float32)}
    for folder in (tiny_copy, page_copy / "model"):
        np.savez(folder / "initial.npz", **initial)
    record = vars(FileRecord.of(tiny_copy / "initial.npz"))
    edit_page_manifest(page_copy, lambda manifest: manifest["files"].update({"initial.npz": record}))
    shutil.copyfile(tiny_copy / "initial.npz", page_copy / "model" / "initial.npz")
    shutil.copyfile(page_copy / "model" / "manifest.json", tiny_copy / "manifest.json")
    model = load(tiny_copy, engine="onnx")
    options = {"temperature": 1.0, "seed": 3}
    expected = model.generate("月", LENGTH, **options)
    assert expected != load(Path(__file__).parents[1] / "tiny" / "bundle").generate("月", LENGTH, **options)
    assert (
        run(page_copy, f"return model.generate('月', {{ length: {LENGTH}, temperature: 1, seed: 3 }});")
        == expected
    )


def test_characters_are_code_points(
    run: Run, page_copy: Path, tiny_copy: Path, edit_page_manifest: Run
) -> None:
    """One that takes two units of a JavaScript string is one character all the same."""
    vocabulary = tiny_copy / "vocabulary.json"
    vocabulary.write_text(vocabulary.read_text(encoding="utf-8").replace("雨", "𠮷"), encoding="utf-8")
    record = vars(FileRecord.of(vocabulary))
    edit_page_manifest(page_copy, lambda manifest: manifest["files"].update({"vocabulary.json": record}))
    shutil.copyfile(vocabulary, page_copy / "model" / "vocabulary.json")
    shutil.copyfile(page_copy / "model" / "manifest.json", tiny_copy / "manifest.json")
    expected = load(tiny_copy, engine="onnx").generate("𠮷不", 40, temperature=1.0, seed=2)
    assert expected.count("𠮷") > 1
    body = "return model.generate('𠮷不', { length: 40, temperature: 1, seed: 2 });"
    assert run(page_copy, body) == expected


def test_loading_tells_how_far_it_has_come_and_can_be_given_up(run: Run, page: Path) -> None:
    size = (page / "model" / "step.onnx").stat().st_size
    body = """const seen = [];
        await library.load("/model", { progress: (bytes, of) => seen.push([bytes, of]) });
        const signal = AbortSignal.abort();
        return [seen.at(-1), await library.load("/model", { signal }).catch((e) => e.name)];"""
    assert run(page, body) == [[size, size], "AbortError"]


def test_files_are_verified_without_https_too(run: Run, page: Path, models: dict[str, Model]) -> None:
    """Browsers keep their own sha256 for https and localhost."""
    got = run(
        page, "return [isSecureContext, !!crypto.subtle, await model.generate('分')];", host="page.test"
    )
    assert got == [False, False, models["onnx"].generate("分")]
