"""Programs in a bundle: judged like the other formats, run by the engine native, refused by name."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steprnn.runtime import BundleError, Model, NotFinite, UsageError, load
from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.engines import Writer, open_engine, open_graph
from steprnn.runtime.engines.native.library import Streams, aligned, compiler
from steprnn.runtime.engines.native.text import NativeSampler, NativeText
from steprnn.runtime.package import c
from steprnn.runtime.sampling.sampler import Sampling

keras = pytest.importorskip("keras")
pytest.importorskip("tf2onnx")

from steprnn.export.bundle import export  # noqa: E402
from steprnn.export.inspect import inspect  # noqa: E402
from steprnn.export.program.encoding import GATHER  # noqa: E402
from steprnn.runtime import Vocabulary  # noqa: E402

TOKENS, UNITS = 40, 24
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model with a program of each variant, and graphs of other engines to compare with."""
    keras.utils.set_random_seed(3)
    x = keras.Input((None,), dtype="int32")
    h = keras.layers.GRU(UNITS, return_sequences=True)(keras.layers.Embedding(TOKENS, 16)(x))
    model = keras.Model(x, keras.layers.Dense(TOKENS)(h))
    out = tmp_path_factory.mktemp("program") / "b.bundle"
    vocabulary = Vocabulary([chr(97 + i) for i in range(TOKENS)])
    variants = ("float32", "int8", "int8-weights", "int8-fixed")
    export(
        model,
        out,
        formats=("onnx", "program", "tflite"),
        variants=variants,
        vocabulary=vocabulary,
        chained_steps=256,
    )
    return out


def test_each_variant_passes_and_says_what_it_is(bundle: Path) -> None:
    held = {a.name: a.path for a in Manifest.read(bundle).artefacts if a.format == "program"}
    assert held == {
        "program-float32": "step.program",
        "program-int8": "step.int8.program",
        "program-int8-weights": "step.int8-weights.program",
        "program-int8-fixed": "step.int8-fixed.program",
    }
    found = {name: inspect(bundle / path) for name, path in held.items()}
    assert [t.name for t in found["program-float32"].inputs] == ["x", "h"]
    assert found["program-float32"].operators == {"gather": 1, "product": 3, "GRU": 1}
    assert found["program-int8-fixed"].operators == {"gather": 1, "product": 3, "GRU fixed": 1}
    weights = [f.weights.bytes for f in found.values() if f.weights]
    assert weights[1]["int8"] == 16 * 72 + 24 * 72 + 24 * 40 + 40 * 16
    assert "int8" not in weights[0]
    assert not any(f.hazards for f in found.values())


def test_the_engine_native_writes_the_same_text(bundle: Path) -> None:
    for sampled in ({}, {"temperature": 0.8, "seed": 5, "top_k": 9}):
        texts = {e: load(bundle, engine=e).generate("ab", 200, **sampled) for e in ("onnx", "native")}
        assert texts["onnx"] == texts["native"]
    many = load(bundle, engine="native").generate(["ab", "c"], 50, n=3, temperature=1.0, seed=1)
    assert many[2] == load(bundle, engine="native").generate("ab", 50, temperature=1.0, seed=3)


def test_rows_are_streams_of_their_own_to_the_bit(bundle: Path) -> None:
    engine = open_engine("native", bundle / "step.int8.program", Manifest.read(bundle).step)
    tokens = np.random.default_rng(0).integers(0, TOKENS, (50, 5)).astype(np.int32)

    def run(columns: Any) -> Any:
        runner = engine.runner(len(columns))
        for row in tokens[:, columns]:
            runner.inputs["x"][...] = row
            runner.run()
        return runner.outputs["y"].copy(), runner.get_state()["h"]

    together, alone = run([0, 1, 2, 3, 4]), run([3])
    assert np.array_equal(together[0][3], alone[0][0])
    assert np.array_equal(together[1][3], alone[1][0])


def test_a_block_is_its_steps_to_the_bit(bundle: Path) -> None:
    model = load(bundle, engine="native")
    singly, block = model.session(), model.session()
    tokens = np.arange(64) % model.manifest.step.inputs[0].tokens
    np.testing.assert_array_equal(block.run(tokens), np.stack([singly.step(int(x)) for x in tokens]))
    assert block.state.to_bytes() == singly.state.to_bytes()


def test_a_token_outside_is_refused_and_no_step_is_taken(bundle: Path) -> None:
    runner = open_engine("native", bundle / "step.program", Manifest.read(bundle).step).runner(1)
    runner.inputs["x"][...] = TOKENS
    with pytest.raises(UsageError, match="a token is outside the vocabulary"):
        runner.run()
    assert not runner.get_state()["h"].any()


@pytest.mark.parametrize(
    ("word", "value", "said"),
    [
        (0, 1, "this is no step program"),
        (1, 2, "of another version"),
        (2, 2**30, "shorter than it says"),
        (3, 9, "header is impossible"),
        (4, 1, "an input, a state or an output of the program is impossible"),
        (5, 0, "no or too many elements"),
        (25, 1, "header is impossible"),
        (35, 2**20, "an input, a state or an output of the program is impossible"),
    ],
)
def test_a_damaged_program_is_refused_by_name(
    bundle: Path, tmp_path: Path, word: int, value: int, said: str
) -> None:
    words = np.frombuffer((bundle / "step.program").read_bytes(), np.uint32).copy()
    words[word] = value
    path = tmp_path / "damaged.program"
    path.write_bytes(words.tobytes())
    with pytest.raises(BundleError, match=said):
        open_graph("native", path)


def test_of_another_step_is_refused(bundle: Path, tiny: Path) -> None:
    with pytest.raises(BundleError, match="not the same input in the program and in the manifest"):
        open_engine("native", bundle / "step.program", Manifest.read(tiny).step)


def test_what_a_program_has_not_is_left_out_by_its_name(tmp_path: Path) -> None:
    x = keras.Input((None, 4))
    h = keras.layers.GRU(5, return_sequences=True)(x)
    power = keras.layers.Lambda(lambda t: keras.ops.power(keras.ops.abs(t) + 1.0, 2.3))
    model = keras.Model(x, power(h))
    manifest = export(
        model, tmp_path / "b", formats=("onnx", "program"), variants=("float32",), chained_steps=64
    )
    assert [a.name for a in manifest.artefacts] == ["onnx-float32"]
    assert (
        "holds Pow to the power of 2.3, which a step program has not"
        in manifest.about["left_out"]["program-float32"]
    )


def test_as_c_it_is_built_and_writes_the_same_text(bundle: Path, tmp_path: Path) -> None:
    out = c.write(bundle, tmp_path / "c", variant="int8")
    found = compiler() or pytest.skip("no C compiler is installed here")
    build = [*found, "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-ffp-contract=off"]
    for name in ("main", "selftest"):
        sources = [f"{name}.c", "model.c", "steprnn.c"]
        subprocess.run([*build, "-o", name, *sources], cwd=out, check=True)
    assert subprocess.check_output([out / "selftest"], text=True) == "every bit is right\n"
    model = load(bundle, engine="native", variant="int8")
    for arguments, options in (
        ([], {}),
        (["11", "0.9", "12", "0.95"], {"seed": 11, "temperature": 0.9, "top_k": 12, "top_p": 0.95}),
    ):
        text = subprocess.check_output([out / "main", "ab", "120", *arguments], text=True)
        assert text == model.generate("ab", 120, **options) + "\n"
    with pytest.raises(UsageError, match="has no float16 program; it holds onnx-float32"):
        c.write(bundle, tmp_path / "d", variant="float16")


def writes_pythons_text(
    command: Sequence[str | Path],
    model: Model,
    unknown: str = "äb",
    words: str = "ä is not in the vocabulary",
) -> None:
    """A program that takes PROMPT LENGTH [SEED [TEMPERATURE]] writes what the model writes."""
    for arguments, options in (([], {}), (["23", "0.9"], {"seed": 23, "temperature": 0.9})):
        text = subprocess.check_output([*command, "ab", "150", *arguments], text=True)
        assert text == model.generate("ab", 150, **options) + "\n"
    done = subprocess.run([*command, unknown, "5"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, words)


def objects_of(bundle: Path, folder: Path, found: Sequence[str]) -> Path:
    """Compile a packaged model into `steprnn.o` and `model.o`; the folder of its sources."""
    out = c.write(bundle, folder / "c", variant="int8")
    sources = [out / "steprnn.c", out / "model.c"]
    subprocess.run([*found, "-O1", "-ffp-contract=off", "-c", *sources], cwd=folder, check=True)
    return out


def test_from_rust_a_seed_gives_the_same_text(bundle: Path, tmp_path: Path) -> None:
    found = compiler()
    if found is None or shutil.which("rustc") is None:
        pytest.skip("no rustc, or no C compiler, is installed here")
    objects_of(bundle, tmp_path, found)
    objects = [part for name in ("steprnn.o", "model.o") for part in ("-C", f"link-arg={tmp_path / name}")]
    command = ["rustc", "--deny", "warnings", "-o", tmp_path / "text", EXAMPLES / "text.rs", *objects]
    subprocess.run(command, cwd=tmp_path, check=True)
    model = load(bundle, engine="native", variant="int8")
    writes_pythons_text([tmp_path / "text"], model)


def test_from_swift_a_seed_gives_the_same_text(bundle: Path, tmp_path: Path) -> None:
    found = compiler()
    if found is None or shutil.which("swiftc") is None:
        pytest.skip("no swiftc, or no C compiler, is installed here")
    out = objects_of(bundle, tmp_path, found)
    swift = EXAMPLES / "swift"
    flags = ["-warnings-as-errors", "-I", out, "-import-objc-header", swift / "model_in_swift.h"]
    command = ["swiftc", *flags, swift / "text.swift", "steprnn.o", "model.o", "-o", "text"]
    subprocess.run(command, cwd=tmp_path, check=True)
    model = load(bundle, engine="native", variant="int8")
    writes_pythons_text([tmp_path / "text"], model)


def test_from_go_a_seed_gives_the_same_text(bundle: Path, tmp_path: Path) -> None:
    if compiler() is None or shutil.which("go") is None:
        pytest.skip("no go, or no C compiler, is installed here")
    sources = c.write(bundle, tmp_path / "c", variant="int8", target="arduino") / "src"
    shutil.copyfile(EXAMPLES / "text.go", sources / "text.go")
    environment = os.environ | {"GO111MODULE": "off", "CGO_ENABLED": "1", "GOFLAGS": ""}
    subprocess.run(["go", "vet", "."], cwd=sources, check=True, env=environment)
    subprocess.run(["go", "build", "-o", tmp_path / "text"], cwd=sources, check=True, env=environment)
    model = load(bundle, engine="native", variant="int8")
    writes_pythons_text([tmp_path / "text"], model, "äb", "äb is not in the vocabulary")


JNA = Path("/usr/share/java/jna.jar")  # of Debian's libjna-java


def test_from_java_a_seed_gives_the_same_text(bundle: Path, tmp_path: Path) -> None:
    found = compiler()
    if found is None or shutil.which("javac") is None or not JNA.exists():
        pytest.skip("no javac, JNA or C compiler is installed here")
    out = c.write(bundle, tmp_path / "c", variant="int8")
    library = [*found, "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-o", tmp_path / "libmodel.so"]
    subprocess.run([*library, out / "steprnn.c", out / "model.c"], check=True)
    compiling = ["javac", "-Xlint:all", "-Werror", "-cp", JNA, "-d", tmp_path, EXAMPLES / "Text.java"]
    subprocess.run(compiling, check=True)
    paths = ["-cp", f"{JNA}:{tmp_path}", f"-Djna.library.path={tmp_path}", "-Dfile.encoding=UTF-8"]
    java = ["java", *paths, "-Dsun.jnu.encoding=UTF-8", "Text"]
    model = load(bundle, engine="native", variant="int8")
    writes_pythons_text(java, model, "a?", "? is not in the vocabulary")


# What Debian's libonnxruntime-dev and libtensorflow-lite-dev bring, the second from forky on.
HEADERS = {
    "onnxruntime": ("onnxruntime/onnxruntime_cxx_api.h", "onnxruntime", "step.onnx", "onnx"),
    "litert": ("tensorflow/lite/interpreter.h", "tensorflow-lite", "step.tflite", "litert"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_from_cpp_with_an_engine_a_seed_gives_the_same_text(bundle: Path, tmp_path: Path, name: str) -> None:
    header, library, graph, engine = HEADERS[name]
    if shutil.which("c++") is None or not (Path("/usr/include") / header).exists():
        pytest.skip(f"no C++ compiler, or no {header}, is installed here")
    out = c.write(bundle, tmp_path / "c", variant="float32")
    common = ["-O1", "-ffp-contract=off", "-I", out]
    subprocess.run(["cc", *common, "-c", out / "steprnn.c", out / "model.c"], cwd=tmp_path, check=True)
    sources = [EXAMPLES / "cpp" / "text.cpp", EXAMPLES / "cpp" / f"{name}.cpp"]
    found = ["-isystem", "/usr/include/onnxruntime", *sources, "steprnn.o", "model.o", f"-l{library}"]
    build = ["c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", *common, *found, "-o", "text"]
    subprocess.run(build, cwd=tmp_path, check=True)
    model = load(bundle, engine=engine, variant="float32")
    writes_pythons_text([tmp_path / "text", bundle / graph], model, "äb", "äb is not in the vocabulary")


OPTIONS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 1e-7, 0.3, 0.8, 1.0, 2.5, 1000.0]),
        "top_k": st.sampled_from([0, 1, 5, 39, 60]),
        "top_p": st.sampled_from([1.0, 0.999, 0.9, 0.2, 1e-6]),
        "min_p": st.sampled_from([0.0, 0.01, 0.3, 1.0]),
        "repeat_penalty": st.sampled_from([1.0, 1.1, 3.0, 0.5, 100.0]),
        "repeat_last_n": st.sampled_from([0, 1, 7, 64, 2**31 - 1]),
        "seed": st.integers(0, 2**70),
        "stop": st.sampled_from([(), "a", ("bc", "d")]),
    }
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(prompt=st.text("abcdefgh", min_size=1, max_size=90), length=st.integers(0, 70), options=OPTIONS)
def test_each_engine_writes_the_same_text(
    models: dict[str, Any], prompt: str, length: int, options: dict[str, Any]
) -> None:
    expected = models["onnx"].generate(prompt, length, **options)
    assert models["litert"].generate(prompt, length, **options) == expected
    assert models["native"].generate(prompt, length, **options) == expected
    assert prompt + "".join(models["native"].stream(prompt, length, **options)) == expected
    stepped = models["native"].generate(prompt, length, logits_processor=lambda y, tokens: None, **options)
    assert stepped == expected


@pytest.fixture(scope="module")
def models(bundle: Path) -> dict[str, Any]:
    return {engine: load(bundle, engine=engine) for engine in ("litert", "onnx", "native")}


def test_the_engine_writes_by_itself(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a text nor a score takes a step from Python, which would be slower and show no other way."""
    with models["native"].runner() as runner:
        monkeypatch.setattr(type(runner), "run", None)
    assert len(models["native"].generate("ab", 500, temperature=0.7, seed=1)) == 502
    assert models["native"].score("abcde").characters[0][0] == "b"
    assert models["native"].embed("abcde").shape == (UNITS,)
    with pytest.raises(TypeError):
        models["native"].generate("ab", 5, logits_processor=lambda y, tokens: None)


def test_scores_and_states_are_those_of_steps(models: dict[str, Any]) -> None:
    text = "".join(chr(97 + i * i % TOKENS) for i in range(300))
    one, other = (models[engine].score(text) for engine in ("native", "onnx"))
    assert one.log_probability == pytest.approx(other.log_probability, rel=1e-5)
    session = models["native"].session()
    for token in models["native"].vocabulary.encode(text):
        session.step(token)
    assert np.array_equal(session.state.tensors["h"][0], models["native"].embed(text))


def test_many_texts_have_the_bits_of_each_alone(models: dict[str, Any]) -> None:
    """The rows of a program are streams of their own."""
    native, texts = models["native"], ["abcde", "ba" * 150, "hg", "fedcba" * 9]
    assert native.score(texts) == [native.score(text) for text in texts]
    for pool in ("last", "mean"):
        every = native.embed(texts, pool=pool)
        assert np.array_equal(every, [native.embed(text, pool=pool) for text in texts])
        np.testing.assert_allclose(every, models["onnx"].embed(texts, pool=pool), rtol=0, atol=1e-5)


def test_many_steps_in_one_call_give_the_same_bits(bundle: Path) -> None:
    engine = open_engine("native", bundle / "step.int8.program", Manifest.read(bundle).step)
    tokens = np.random.default_rng(5).integers(0, TOKENS, 200).tolist()
    single, many = engine.runner(1), engine.runner(1)
    every = []
    for token in tokens:
        single.inputs["x"][...] = token
        single.run()
        every.append(single.outputs["y"][0].copy())
    assert isinstance(many, Writer)
    given, results = np.array(tokens), np.empty((200, TOKENS), np.float32)
    many.many(given, results)
    assert np.array_equal(results, np.stack(every))
    assert np.array_equal(many.get_state()["h"], single.get_state()["h"])
    with pytest.raises(UsageError, match="a token is outside the vocabulary"):
        many.many(np.array([1, TOKENS]), None)


@pytest.mark.parametrize("rows", [2, 3, 4, 7, 8, 9, 65, 80])
@pytest.mark.parametrize(
    "path", ["step.program", "step.int8.program", "step.int8-weights.program", "step.int8-fixed.program"]
)
def test_rows_together_have_the_bits_of_each_alone_with_each_kernel(
    bundle: Path, rows: int, path: str
) -> None:
    words = np.fromfile(bundle / path, np.uint32)
    program = aligned(len(words))
    program[:] = words
    tokens = np.random.default_rng(rows).integers(0, TOKENS, (6, rows))
    together, alone = Streams(program, rows), Streams(program)
    for most in range(6):
        level = together.kernels(most)
        assert alone.kernels(0) == 0
        for kind in ("states", "outputs"):
            together.array(getattr(together, kind)[0])[...] = 0
        for row in tokens:
            together.array(together.inputs[0])[...] = row
            together.step()
        for i in range(0, rows, 3):
            alone.array(alone.states[0])[...] = 0
            for token in tokens[:, i]:
                alone.array(alone.inputs[0])[...] = token
                alone.step()
            for one, other in zip(alone.tensors[1:], together.tensors[1:], strict=True):
                assert np.array_equal(alone.array(one)[0], together.array(other)[i]), (level, one.name, i)


def test_a_session_takes_a_block_in_one_call(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.random.default_rng(6).integers(0, TOKENS, 60).astype(np.int32)
    session, other = models["native"].session(), models["native"].session()
    expected = np.stack([np.array(session.step(int(token)))[0] for token in tokens])
    with models["native"].runner() as runner:
        monkeypatch.setattr(type(runner), "run", None)
    assert np.array_equal(np.array(other.run(tokens)).reshape(expected.shape), expected)
    assert np.array_equal(other.state.tensors["h"], session.state.tensors["h"])


def test_an_impossible_token_steps_no_row(bundle: Path) -> None:
    runner = open_engine("native", bundle / "step.program", Manifest.read(bundle).step).runner(3)
    runner.inputs["x"][...] = [1, 2, TOKENS]
    with pytest.raises(UsageError, match="a token is outside the vocabulary"):
        runner.run()
    assert not runner.get_state()["h"].any()


def test_a_text_ends_where_logits_are_no_numbers(bundle: Path, models: dict[str, Any]) -> None:
    model = models["native"]
    expected = model.vocabulary.encode(model.generate("ab", 60, temperature=2.0, seed=4))
    words = np.fromfile(bundle / "step.program", np.uint32)
    program = aligned(len(words))
    program[:] = words
    at = int(program[13])
    while program[at] & 255 != GATHER:
        at += int(program[at]) >> 8
    row = int(program[at + 8] & 0x7FFFFFFF) + expected[20] * int(program[at + 4])
    program[row] = 0x7FC00000  # once this token is read, nothing is a number
    streams = Streams(program)
    streams.run(np.array(expected[:2], np.uint32))
    sampler = NativeSampler(Sampling(temperature=2.0), 4, expected[:2], TOKENS)
    text = NativeText(streams, sampler, 58)
    first = expected.index(expected[20], 2)
    assert text.write(2**40) == expected[2 : first + 1]
    with pytest.raises(NotFinite, match="the largest logit is nan"):
        text.write(2**40)
