"""A loaded bundle: text, likelihood and vectors, equal on every engine."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import itertools
import math
import pydoc
import shutil
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steprnn.runtime import (
    MissingExtra,
    Model,
    Options,
    Sampling,
    SteprnnError,
    UnknownToken,
    UsageError,
    load,
)
from steprnn.runtime.bulk import Generate
from steprnn.runtime.bundle.manifest import VARIANTS, Artefact, Manifest
from steprnn.runtime.cli import main
from steprnn.runtime.commands import serve
from steprnn.runtime.engines import ENGINES, native
from steprnn.runtime.loading import choose
from steprnn.runtime.origin import install
from steprnn.runtime.package.ort import engine_files
from steprnn.runtime.sampling.sampler import Sampler
from steprnn.runtime.texts import tasks
from steprnn.runtime.texts.options import Filters

SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0},
    {"temperature": 1.5, "top_k": 5},
    {"temperature": 1.5, "top_p": 0.9},
    {"temperature": 1.5, "min_p": 0.05},
    {"temperature": 0.9, "top_k": 8, "top_p": 0.95, "min_p": 0.01, "repeat_penalty": 1.3, "repeat_last_n": 8},
    {"repeat_penalty": 2.0, "repeat_last_n": 4},
]


def textbook(lstm: Any, model: Model, prompt: str, length: int, seed: int, **filters: Any) -> str:
    """What follows the prompt, by the NumPy step and the sampler."""
    tokens = model.vocabulary.encode(prompt)
    sampler = Sampler(Sampling(**filters), seed, tokens)
    h = c = np.zeros((1, 8))
    for token in tokens:
        y, h, c = lstm.step([token], h, c)
    chosen = []
    for _ in range(length):
        chosen.append(sampler.choose(y[0].astype(np.float32)))
        y, h, c = lstm.step(chosen[-1:], h, c)
    return model.vocabulary.decode(chosen)


@pytest.mark.parametrize("filters", SETTINGS)
def test_the_text_is_what_the_textbook_step_gives(model: Model, lstm: Any, filters: dict[str, Any]) -> None:
    for seed in range(3):
        expected = "分开" + textbook(lstm, model, "分开", 100, seed, **filters)
        assert model.generate("分开", 100, seed=seed, **filters) == expected


def test_engines_and_variants(tiny: Path, models: dict[str, Model]) -> None:
    for engine, model in models.items():
        assert (model.engine, model.artefact.name) == (
            engine,
            {"litert": "tflite", "onnx": "onnx"}[engine] + "-float32",
        )
        assert load(str(tiny), engine=engine, variant="int8").artefact.variant == "int8"
    assert load(tiny).engine == "litert"
    for seed in range(20):
        texts = {
            m.generate("不分开" if seed % 2 else "雨", 50, temperature=1.2, seed=seed)
            for m in models.values()
        }
        assert len(texts) == 1


@given(length=st.integers(0, 40), seed=st.integers(0, 2**32), temperature=st.floats(0, 2))
def test_generate_is_the_prompt_and_the_stream(
    models: dict[str, Model], length: int, seed: int, temperature: float
) -> None:
    for model in models.values():
        pieces = list(model.stream("分开", length, seed=seed, temperature=temperature))
        assert all(len(piece) == 1 for piece in pieces)
        assert len(pieces) == length
        assert model.generate("分开", length, seed=seed, temperature=temperature) == "分开" + "".join(pieces)


def test_without_a_seed_every_draw_is_new(model: Model) -> None:
    assert len({model.generate("分开", 60, temperature=3.0) for _ in range(5)}) == 5


@pytest.mark.parametrize("filters", SETTINGS)
def test_text_i_of_several_is_what_its_seed_gives_alone(model: Model, filters: dict[str, Any]) -> None:
    texts = model.generate("不分开", 60, n=8, seed=5, **filters)
    assert texts == [model.generate("不分开", 60, seed=5 + i, **filters) for i in range(8)]


def test_several_end_each_at_its_own_stop_string(model: Model) -> None:
    texts = model.generate("分开", 60, n=8, seed=5, temperature=1.2, stop=["云", "来 "])
    alone = [model.generate("分开", 60, seed=5 + i, temperature=1.2, stop=["云", "来 "]) for i in range(8)]
    assert texts == alone
    assert len({len(text) for text in texts}) > 1


def test_generation_ends_before_a_stop_string(model: Model) -> None:
    whole = model.generate("分开", 50)
    stop = whole[10:13]
    assert model.generate("分开", 50, stop=stop) == "分开" + whole[2:].partition(stop)[0]
    assert model.generate("分开", 50, stop=["\n", stop]) == "分开" + whole[2:].partition(stop)[0]
    assert model.generate("分开", 50, stop="\n") == whole
    assert model.generate("分开", 50, stop="分开"[:1] + "X") == whole
    assert model.generate(stop, 0, stop=stop) == stop, "a stop string in the prompt ends nothing"


def test_length_zero_is_the_prompt(model: Model) -> None:
    assert model.generate("分开", 0) == "分开"
    assert model.generate("分开", 0, n=2) == ["分开", "分开"]
    assert list(model.stream("分开", 0)) == []


def test_an_abandoned_stream_disturbs_no_other(model: Model) -> None:
    whole = model.generate("分开", 40)
    first = model.stream("分开", 40)
    begun = [next(first) for _ in range(5)]
    other = model.stream("不分开", 40)
    next(other)
    assert model.generate("分开", 40) == whole
    other.close()  # type: ignore[attr-defined]
    assert "分开" + "".join(begun) + "".join(first) == whole


def test_unknown_characters_are_named_or_skipped(model: Model) -> None:
    for call in (
        lambda: model.generate("分爱开", 5),
        lambda: model.stream("分爱开", 5),
        lambda: model.generate("分爱开", 5, n=2),
        lambda: model.score("分爱开"),
        lambda: model.embed("分爱开"),
    ):
        with pytest.raises(UnknownToken, match="'爱' not among the 21 characters of the vocabulary"):
            call()
    following = model.generate("分开", 20).removeprefix("分开")
    assert model.generate("分爱开", 20, unknown="skip") == "分爱开" + following
    assert model.generate("分爱开", 20, n=1, unknown="skip") == ["分爱开" + following]


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [
        ("", {}, "the prompt is empty; expected at least one character to begin with"),
        ("爱", {"unknown": "skip"}, "the prompt has no character of the vocabulary; expected at least one"),
        ("分", {"unknown": "drop"}, "unknown is 'drop'; expected 'error' or 'skip'"),
        ("分", {"length": -1}, "length is -1; expected at least 0"),
        ("分", {"length": 10.0}, "length is 10.0; expected a whole number, at least 0"),
        ("分", {"length": "10"}, "length is '10'; expected a whole number, at least 0"),
        ("分", {"length": None}, "length is None; expected a whole number, at least 0"),
        ("分", {"length": True}, "length is True; expected a whole number, at least 0"),
        ("分", {"stop": 5}, "stop is 5; expected a str, or several in a list"),
        ("分", {"stop": None}, "stop is None; expected a str, or several in a list"),
        ("分", {"stop": ["开", b"a"]}, "stop is ['开', b'a']; expected a str, or several in a list"),
        ("分", {"stop": b"ab"}, "stop is b'ab'; expected a str, or several in a list"),
        ("分", {"cancel": True}, "cancel is of type bool; expected a threading.Event, which another thread"),
        ("分", {"logits_processor": 5}, "logits_processor is of type int; expected a function of the logits"),
        ("分", {"temperature": True}, "temperature is True; expected a number from 0 to 1000"),
        ("分", {"seed": False}, "seed is False; expected a whole number, at least 0"),
        ("分", {"temperature": -1.0}, "temperature is -1.0; expected a number from 0 to 1000"),
        ("分", {"top_p": 0.0}, "top_p is 0.0; expected a number above 0 and at most 1"),
        ("分", {"stop": ""}, "a stop string is empty; expected at least one character"),
        ("分", {"stop": ["开", ""]}, "a stop string is empty; expected at least one character"),
        ("分", {"seed": -3}, "seed is -3; expected a whole number, at least 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    model: Model, prompt: str, options: dict[str, Any], words: str
) -> None:
    for call in (
        lambda: model.generate(prompt, **options),
        lambda: model.stream(prompt, **options),  # at the call, not at the first piece
        lambda: model.generate(prompt, n=2, **options),
    ):
        with pytest.raises(UsageError) as raised:
            call()
        assert str(raised.value).startswith(words)


def test_an_option_that_there_is_not_is_told_with_those_there_are(model: Model, tiny: Path) -> None:
    filters = "min_p, repeat_last_n, repeat_penalty, "
    with pytest.raises(TypeError) as raised:
        model.generate("分开", max_tokens=5)  # type: ignore[call-overload]
    assert str(raised.value) == (
        "generate() got an unexpected keyword argument 'max_tokens'; expected length, n, cancel, "
        f"logits_processor, {filters}seed, stop, temperature, top_k, top_p, unknown"
    )
    with pytest.raises(TypeError, match="'max_tokens'; expected column, length, seed, seeds, stop, "):
        Generate(tiny, max_tokens=5)  # type: ignore[call-arg]


def test_none_of_several_is_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="n is 0; expected at least 1"):
        model.generate("分开", 5, n=0)
    for n in (2.0, "2", True):
        with pytest.raises(UsageError, match=f"n is {n!r}; expected a whole number, at least 1"):
            model.generate("分开", 5, n=n)  # type: ignore[call-overload]


def test_a_whole_number_of_numpy_is_one(model: Model) -> None:
    assert model.generate("分开", np.int64(9), n=np.int32(1)) == [model.generate("分开", 9)]  # type: ignore[call-overload]


def test_score_is_the_chain_of_log_softmaxes(model: Model, lstm: Any) -> None:
    text = "云不走月不在 雨后分开"
    tokens = np.array(model.vocabulary.encode(text))
    logits = lstm.chain(tokens[:-1, None])["y"][:, 0]
    shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = [shares[i, token] for i, token in enumerate(tokens[1:])]
    score = model.score(text)
    assert "".join(character for character, _ in score.characters) == text[1:]
    np.testing.assert_allclose([log for _, log in score.characters], expected, rtol=0, atol=1e-5)
    assert score.log_probability == pytest.approx(sum(expected), abs=1e-4)
    assert score.perplexity == pytest.approx(math.exp(-sum(expected) / len(expected)), rel=1e-5)


def test_score_prefers_what_the_model_knows(model: Model) -> None:
    known, shuffled = model.score("云不走月不在 雨后你又回来"), model.score("来又回你后雨 在不月走不云")
    assert known.perplexity < 2
    assert shuffled.perplexity > 20
    with pytest.raises(UsageError, match="a score needs at least 2, as the first has no prediction"):
        model.score("云")


def test_embed_is_the_last_hidden_state(model: Model, lstm: Any) -> None:
    tokens = np.array(model.vocabulary.encode("雨后分开"))
    vector = model.embed("雨后分开")
    assert (vector.dtype, vector.shape) == (np.float32, (8,))
    np.testing.assert_allclose(vector, lstm.chain(tokens[:, None])["next_h"][-1, 0], rtol=0, atol=2e-6)
    session = model.session()
    for token in tokens:
        session.step(token)
    np.testing.assert_array_equal(vector, session.state.tensors["h"][0])
    model.generate("分开", 10)
    np.testing.assert_array_equal(model.embed("雨后分开"), vector)


def test_what_a_bundle_or_machine_lacks_is_told(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="engine 'tensorrt' is unknown; expected auto, litert, onnx"):
        load(tiny, engine="tensorrt")
    held = "it holds tflite-float32, onnx-float32, tflite-int8, onnx-int8"
    with pytest.raises(UsageError, match=f"the bundle has no int4 graph for engine auto; {held}"):
        load(tiny, variant="int4")
    with pytest.raises(UsageError, match="threads is 0; expected at least 1"):
        load(tiny, threads=0)
    for threads in (2.0, "2", True):
        with pytest.raises(UsageError, match=f"threads is {threads!r}; expected a whole number, at least 1"):
            load(tiny, threads=threads)  # type: ignore[arg-type]


def test_what_is_no_path_or_name_is_told_by_its_type(tiny: Path) -> None:
    for path in (None, 5, b"tiny.bundle"):
        with pytest.raises(
            UsageError, match=f"the path is of type {type(path).__name__}; expected str or Path"
        ):
            load(path)  # type: ignore[arg-type]
    for name in ("engine", "variant"):
        for value in (5, None, ["onnx"]):
            words = f"{name} is of type {type(value).__name__}; expected str, such as 'auto'"
            with pytest.raises(UsageError, match=words):
                load(tiny, **{name: value})  # type: ignore[arg-type]


def keep(*names: str) -> Any:
    """A change of a manifest that leaves these artefacts."""
    return lambda record: record.update(artefacts=[a for a in record["artefacts"] if a["name"] in names])


def test_a_bundle_of_int8_alone_is_loaded_without_naming_it(
    tiny_copy: Path, edit_manifest: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_manifest(tiny_copy, keep("tflite-int8", "onnx-int8"))
    assert load(tiny_copy).artefact.name == "tflite-int8"
    assert load(tiny_copy, engine="onnx").artefact.name == "onnx-int8"
    assert load(tiny_copy).generate("分开", 5) == load(tiny_copy, variant="int8").generate("分开", 5)
    with pytest.raises(UsageError) as raised:
        load(tiny_copy, variant="float32")
    held = "it holds tflite-int8, onnx-int8"
    assert str(raised.value) == f"the bundle has no float32 graph for engine auto; {held}"
    assert main(["generate", str(tiny_copy), "-p", "分开", "-n", "5"]) == 0
    assert "greedy, litert int8, 5 characters" in capsys.readouterr().err


def test_the_order_of_exactness_has_every_variant() -> None:
    assert VARIANTS == ("float32", "float16", "int8-weights", "int8", "int16x8", "int8-fixed")


def test_auto_is_native_first_where_it_is_the_fastest(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    formats = ("tflite", "program")
    held = tuple(Artefact(f"{f}-{v}", f, v, "", f) for f in formats for v in ("float32", "int8"))
    manifest = replace(Manifest.read(tiny), artefacts=held)
    for comes_first, engine in ((False, "litert"), (True, "native")):
        monkeypatch.setattr(native, "comes_first", lambda comes_first=comes_first: comes_first)
        assert choose(manifest, "auto", "auto")[0] == choose(manifest, "auto", "int8")[0] == engine
        assert choose(manifest, "auto", "auto")[1].variant == "float32"
        assert choose(manifest, "litert", "auto")[0] == "litert"
    without = replace(manifest, artefacts=held[:2])
    assert choose(without, "auto", "auto")[0] == "litert"


@pytest.mark.parametrize("hidden", [None, "ai_edge_litert", "onnxruntime"])
def test_auto_is_the_most_exact_graph_of_an_engine_that_can_be_had(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, hidden: str | None
) -> None:
    """Every bundle of up to three of the graphs there may be, and each wish for an engine."""
    if hidden is not None:
        monkeypatch.setitem(sys.modules, hidden, None)
    gone = {"ai_edge_litert": "litert", "onnxruntime": "onnx", None: None}[hidden]
    whole = Manifest.read(tiny)
    graphs = [
        Artefact(f"{format}-{variant}", format, variant, "", format)
        for format in ENGINES.values()
        for variant in VARIANTS
    ]
    for held in itertools.chain.from_iterable(itertools.combinations(graphs, n) for n in (1, 2, 3)):
        manifest = replace(whole, artefacts=held)
        for engine in ("auto", *ENGINES):
            fit = [
                (VARIANTS.index(a.variant), list(ENGINES).index(e), e, a.name)
                for a in held
                for e, format in ENGINES.items()
                if a.format == format and engine in ("auto", e)
            ]
            had = [found for found in fit if found[2] != gone]
            if had:
                chosen, artefact = choose(manifest, engine, "auto")
                assert (chosen, artefact.name) == min(had)[2:]
            else:
                with pytest.raises(MissingExtra if fit else UsageError) as raised:
                    choose(manifest, engine, "auto")
                assert str(raised.value) == (
                    f"the engine '{gone}' is not installed; run: {install(gone)}"
                    if fit
                    else f"the bundle has no {' or '.join(VARIANTS)} graph for "
                    f"engine {engine}; it holds {', '.join(a.name for a in held)}"
                    + ("; export with --formats program" if engine == "native" else "")
                )


@pytest.mark.parametrize(
    ("held", "variant", "expected"),
    [
        (["tflite-float32", "onnx-float32", "onnx-int8"], "auto", "float32"),
        (["tflite-float32", "onnx-int8"], "auto", "int8"),
        (["onnx-float32", "onnx-int8"], "int8", "int8"),
    ],
)
def test_the_page_of_a_server_runs_the_most_exact_onnx_graph(
    tiny_copy: Path, edit_manifest: Any, held: list[str], variant: str, expected: str
) -> None:
    try:
        engine_files()
    except SteprnnError as error:
        pytest.skip(f"there is no onnxruntime-web to make a page with: {error}")
    edit_manifest(tiny_copy, keep(*held))
    with contextlib.ExitStack() as stack:
        page = serve._page(argparse.Namespace(bundle=str(tiny_copy), variant=variant, ort=None), stack)
        assert f'data-variant="{expected}"' in (page / "index.html").read_text(encoding="utf-8")


def test_a_page_needs_an_onnx_graph(tiny_copy: Path, edit_manifest: Any) -> None:
    edit_manifest(tiny_copy, keep("tflite-int8"))
    asked = argparse.Namespace(bundle=str(tiny_copy), variant="auto", ort=None)
    with contextlib.ExitStack() as stack, pytest.raises(UsageError, match="has no float32 graph in ONNX"):
        serve._page(asked, stack)


def test_what_is_printed_of_a_model(tiny: Path, models: dict[str, Model]) -> None:
    assert repr(models["litert"]) == "<Model 2b9effb9 litert float32: x -> y, 2 states>"
    assert str(load(tiny, engine="onnx", variant="int8")) == "<Model 2b9effb9 onnx int8: x -> y, 2 states>"


# The options of generate, stream and astream


def test_an_option_that_there_is_not_is_refused_before_anything_runs(model: Model) -> None:
    seen: list[Any] = []
    options: dict[str, Any] = {"bogus": 3, "logits_processor": lambda logits, tokens: seen.append(tokens)}
    for call in (
        lambda: model.generate("分开", 5, **options),
        lambda: model.generate("分开", 5, n=2, **options),
        lambda: model.generate(["分开"], 5, **options),
        lambda: model.stream("分开", 5, **options),  # at the call, not at the first piece
        lambda: model.astream("分开", 5, **options),
    ):
        with pytest.raises(TypeError, match="got an unexpected keyword argument 'bogus'"):
            call()
    assert seen == []


@pytest.mark.parametrize("method", ["generate", "stream"])
def test_help_tells_every_option(method: str) -> None:
    text = pydoc.render_doc(getattr(Model, method), renderer=pydoc.plaintext)
    assert {name for name in Options.__annotations__ if name not in text} == set()


def test_options_are_the_same_wherever_they_stand() -> None:
    """Names, types and defaults."""
    stream = inspect.signature(Model.stream).parameters
    named = {name for name, parameter in stream.items() if parameter.kind is parameter.KEYWORD_ONLY}
    assert named == set(Options.__annotations__)
    types = get_type_hints(Model.stream)
    assert get_type_hints(Options) == {name: types[name] for name in named}
    assert set(Filters.__annotations__) == {field.name for field in fields(Sampling)}
    defaults = {name: parameter.default for name, parameter in stream.items()}
    assert all(defaults[field.name] == field.default for field in fields(Sampling))
    for name, parameter in inspect.signature(tasks.generation).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            assert parameter.default == defaults[name]


def test_without_a_vocabulary_a_model_only_steps(tiny_copy: Path, edit_manifest: Any) -> None:
    edit_manifest(tiny_copy, lambda record: record["files"].pop("vocabulary.json"))
    model = load(tiny_copy)
    assert model.vocabulary is None
    for call in (lambda: model.generate("分"), lambda: model.score("分开"), lambda: model.embed("分")):
        with pytest.raises(
            UsageError, match=r"the bundle has no vocabulary: step it with session\(\)\.step\(x\)"
        ):
            call()
    assert model.session().step(3).shape == (1, 21)


@pytest.mark.parametrize("engine", ["litert", "onnx"])
def test_a_loaded_model_outlives_its_files(tiny_copy: Path, models: dict[str, Model], engine: str) -> None:
    """A bundle that is exported anew, or removed, changes nothing for those who have loaded it."""
    model = load(tiny_copy, engine=engine)
    shutil.rmtree(tiny_copy)
    assert model.generate("分开", 30, n=3) == models[engine].generate("分开", 30, n=3)


@pytest.mark.parametrize("hidden", ["ai_edge_litert", "onnxruntime"])
def test_auto_takes_the_engine_that_is_installed(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    """Python refuses to import what stands as None in sys.modules, as if it were not installed."""
    monkeypatch.setitem(sys.modules, hidden, None)
    left, gone = ("onnx", "litert") if hidden == "ai_edge_litert" else ("litert", "onnx")
    assert load(tiny).engine == left
    with pytest.raises(MissingExtra) as raised:
        load(tiny, engine=gone)
    assert str(raised.value) == f"the engine '{gone}' is not installed; run: {install(gone)}"
