"""`steprnn check`: what a person sees, exit codes, and artefacts that another tool made."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import cli

keras = pytest.importorskip("keras")
onnx = pytest.importorskip("onnx")
tf = pytest.importorskip("tensorflow")
tf2onnx = pytest.importorskip("tf2onnx")

from steprnn.export.bundle import export  # noqa: E402

Capture = pytest.CaptureFixture[str]
QUICK = ("--steps", "64", "--seeds", "2")
THEIRS = {
    "x": "token",
    "h": "state_in",
    "c": "cell_in",
    "y": "logits",
    "next_h": "state_out",
    "next_c": "cell_out",
}
MAP = [word for ours, theirs in THEIRS.items() for word in ("--map", f"{ours}={theirs}")]


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "random.bundle"
    export(checkpoint, out, chained_steps=96, golden_steps=32)
    return out


@pytest.fixture
def check(capfd: Capture) -> Callable[..., tuple[int, str, str]]:
    """The exit code, stdout and stderr of the command."""

    def run(*argv: object) -> tuple[int, str, str]:
        code = cli.main(["check", *map(str, argv)])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def rename(path: Path, out: Path, names: dict[str, str]) -> Path:
    """The graph with other names for its inputs and outputs."""
    model = onnx.load(path)
    for node in model.graph.node:
        node.input[:] = [names.get(n, n) for n in node.input]
        node.output[:] = [names.get(n, n) for n in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    onnx.save(model, out)
    return out


def verdicts(out: str) -> dict[str, str]:
    return {line.split("  ")[0]: line.split()[-1] for line in out.splitlines() if " in " in line}


# A bundle.


def test_a_bundle_against_its_model(
    bundle: Path, checkpoint: Path, tmp_path: Path, check: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = check(bundle, "--reference", checkpoint, *QUICK, "--report", tmp_path / "report")
    assert code == 0, err
    names = {
        "saved_model-float32 in tensorflow",
        *(f"tflite-{v} in litert" for v in ("float32", "int8")),
        *(f"onnx-{v} in onnx" for v in ("float32", "int8")),
    }
    assert verdicts(out).items() >= dict.fromkeys(names, "passed").items()
    assert set(verdicts(out).values()) == {"passed"}
    head = out.splitlines()[0].split("  ")
    assert [w.strip() for w in head if w.strip()] == [
        "structure",
        "weights",
        "one step",
        "own weights",
        "chained",
        "batch",
        "free run",
        "semantics",
        "sensitivity",
        "same-top-1",
        "mean KL",
        "verdict",
    ]
    assert "the bundle, structure: " in out
    assert "the step, transform: " in out
    assert "reference on its own text" in err, "progress goes to stderr"
    assert "steprnn: " not in err
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["passed"] is True
    kinds = {f["case"] for f in report["findings"] if f["level"] == "chained"}
    assert kinds == {"its own text", "uniform tokens", "one token repeated"}
    assert {f["case"] for f in report["findings"] if f["level"] == "sensitivity"} == {
        "two states swapped",
        "state one step stale",
        "state zeroed",
        "vocabulary shifted by one",
        "one weight off by 1 %",
        "gates permuted",
    }
    assert {p.name for p in (tmp_path / "report").iterdir()} == {"report.json", "junit.xml", "report.html"}


def test_a_text_of_ones_own(
    bundle: Path, checkpoint: Path, tmp_path: Path, check: Callable[..., tuple[int, str, str]]
) -> None:
    text = tmp_path / "held-out.txt"
    text.write_text("雨不停风不来 你我在此分开 " * 9, encoding="utf-8")
    code, _, err = check(bundle, "--reference", checkpoint, "--text", text, *QUICK)
    assert code == 0, err
    assert "reference on text\n" in err


def test_a_bundle_of_another_model_fails_with_the_first_breach_in_words(
    tiny: Path, bundle: Path, checkpoint: Path, tmp_path: Path, check: Callable[..., tuple[int, str, str]]
) -> None:
    other = shutil.copytree(checkpoint, tmp_path / "other.checkpoint")
    model = keras.models.load_model(other / "model.keras", compile=False)
    for variable in model.trainable_variables:
        variable.assign(variable * 1.05)
    model.save(other / "model.keras")
    code, out, err = check(bundle, "--reference", other, *QUICK, "--report", tmp_path / "report")
    assert code == 1
    assert verdicts(out)["onnx-float32 in onnx"] == "FAILED"
    lines = [line for line in err.splitlines() if line.startswith("steprnn: onnx-float32 in onnx fails at")]
    assert "fails at the level 'weights': " in lines[0]
    assert " differs in " in lines[0]
    assert "fails at the level 'one step': " in lines[1]
    assert " units off at step 0 of the state before step " in lines[1]
    assert re.search(r" of seed \d \(got ", lines[1])
    assert any("at the level 'chained, its own text': " in line and " of seed " in line for line in lines)
    assert json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))["passed"] is False
    code, out, err = check(tiny, "--reference", checkpoint, *QUICK)
    assert code == 1
    assert "the bundle fails at the level 'structure': its states are " in err
    assert re.search(r"its states are \w+ float32 \[\d+\].*, expected \w+ float32 .*: another model", err)
    assert "{" not in err
    assert "the bundle, structure: 7 files as listed FAILED" in out


def test_weights_that_were_audited_at_export_are_told_by_the_hash_of_their_file(
    bundle: Path, check: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = check(bundle)
    assert code == 0, err
    assert out.splitlines()[0].split()[:2] == ["structure", "weights"]
    assert len(re.findall(r"\d+ of \d+, by hash", out)) == len(verdicts(out))


def test_a_file_that_was_altered(
    tiny_copy: Path, checkpoint: Path, check: Callable[..., tuple[int, str, str]]
) -> None:
    data = bytearray((tiny_copy / "step.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (tiny_copy / "step.onnx").write_bytes(data)
    for flags in ([], ["--reference", str(checkpoint)]):
        code, out, err = check(tiny_copy, *flags)
        assert (code, out) == (1, "")
        assert f"steprnn: {tiny_copy / 'step.onnx'} was altered" in err


def test_another_profile(tiny: Path, check: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = check(tiny, "--profile", "float32")
    assert code == 1
    assert verdicts(out)["onnx-int8 in onnx"] == "FAILED"
    assert verdicts(out)["onnx-float32 in onnx"] == "passed"
    assert "onnx-int8 in onnx fails at the level 'one step': y is " in err
    assert check(tiny, "--profile", "int8")[0] == 0


def metadata_of_another_step(path: Path) -> None:
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"steprnn.step": '{"inputs": []}'})
    onnx.save(model, path)


def no_metadata(path: Path) -> None:
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)


def a_loop(path: Path) -> None:
    """An If whose branches say the same: right numbers, and an operator that a step may not hold."""
    model = onnx.load(path)
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["inner" if n == "y" else n for n in node.output]
    helper, kind = onnx.helper, onnx.TensorProto
    result = helper.make_tensor_value_info("branch", kind.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Identity", ["inner"], ["branch"])], "branch", [], [result])
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    graph.node.append(helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch))
    onnx.save(model, path)


def an_uneven_split(path: Path) -> None:
    """onnxruntime ends the process that gives it such a graph."""
    model = onnx.load(path)
    (split,) = (node for node in model.graph.node if node.op_type == "Split")
    next(a for a in split.attribute if a.name == "num_outputs").i = 3
    onnx.save(model, path)


def another_name(path: Path) -> None:
    rename(path, path, {"next_c": "c_out"})


def another_dtype(path: Path) -> None:
    model = onnx.load(path)
    token = next(i for i in model.graph.input if i.name == "x")
    token.type.tensor_type.elem_type = onnx.TensorProto.INT64
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (metadata_of_another_step, "its metadata steprnn.step tells another step"),
        (no_metadata, "its metadata has no steprnn.step"),
        (a_loop, "step.onnx holds If, and a step has no loop and no branch"),
        (an_uneven_split, "step.onnx splits a tensor in other parts than it says"),
        (another_name, "it has no output 'next_c'; it has c_out, next_h, y"),
        (another_dtype, "x int64 [batch], expected int32 [batch]"),
    ],
)
def test_structure_without_tensorflow(
    tiny_copy: Path,
    edit_manifest: Callable[..., None],
    check: Callable[..., tuple[int, str, str]],
    spoil: Callable[[Path], None],
    words: str,
) -> None:
    spoil(tiny_copy / "step.onnx")
    edit_manifest(tiny_copy)
    code, out, err = check(tiny_copy)
    assert code == 1
    failed = [line for line in err.splitlines() if line.startswith("steprnn: ")]
    assert len(failed) == 1
    assert failed[0].startswith("steprnn: onnx-float32 in onnx fails at the level 'structure': ")
    assert words in failed[0]
    assert list(verdicts(out).values()).count("FAILED") == 1


# Graphs of other tools.


@pytest.fixture(scope="module")
def foreign(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The step in each format under other names, as another tool would have written it."""
    folder = tmp_path_factory.mktemp("foreign")
    inner = tf.saved_model.load(str(bundle / "saved_model")).signatures["step"]
    ours = {theirs: name for name, theirs in THEIRS.items()}
    units = 32

    class Module(tf.Module):  # type: ignore[misc]
        @tf.function(
            input_signature=[
                tf.TensorSpec([1], tf.int32, "token"),
                tf.TensorSpec([1, units], tf.float32, "state_in"),
                tf.TensorSpec([1, units], tf.float32, "cell_in"),
            ]
        )
        def step(self, token: Any, state_in: Any, cell_in: Any) -> Any:
            results = inner(x=token, h=state_in, c=cell_in)
            return {theirs: results[name] for theirs, name in ours.items() if name in results}

    module = Module()
    module.inner = inner
    tf.saved_model.save(module, str(folder / "saved"), signatures=module.step)
    flatbuffer = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved")).convert()
    (folder / "theirs.tflite").write_bytes(flatbuffer)
    rename(bundle / "step.onnx", folder / "theirs.onnx", THEIRS)
    model = onnx.load(folder / "theirs.onnx")  # its maker wants int64, and tells nothing of itself
    for node in model.graph.node:
        node.input[:] = ["token32" if n == "token" else n for n in node.input]
    model.graph.node.insert(
        0, onnx.helper.make_node("Cast", ["token"], ["token32"], to=onnx.TensorProto.INT32)
    )
    token = next(i for i in model.graph.input if i.name == "token")
    token.type.tensor_type.elem_type = onnx.TensorProto.INT64
    del model.metadata_props[:]
    onnx.save(model, folder / "theirs.onnx")
    return {p.name: p for p in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "engine"), [("theirs.onnx", "onnx"), ("theirs.tflite", "litert"), ("saved", "tensorflow")]
)
def test_a_graph_of_another_tool(
    foreign: dict[str, Path],
    checkpoint: Path,
    check: Callable[..., tuple[int, str, str]],
    name: str,
    engine: str,
) -> None:
    code, out, err = check(foreign[name], "--reference", checkpoint / "model.keras", *MAP, *QUICK)
    assert code == 0, err
    assert verdicts(out) == {f"{name} in {engine}": "passed"}
    assert ("batch" in out.splitlines()[0]) == (engine == "onnx"), "the others are fixed at one row"
    swapped = [*MAP, "--map", "next_h=cell_out", "--map", "next_c=state_out"]
    code, out, err = check(foreign[name], "--reference", checkpoint / "model.keras", *swapped, *QUICK)
    assert code == 1, "h and c have one shape, and a swap raises nothing"
    assert (
        f"steprnn: {name} in {engine} fails at the level 'one step': it looks as if h and c are swapped "
        in err
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("whole.onnx", "LSTM 'LSTM__33' begins at a state of its own at every call"),
        ("whole", "1 While: it runs over a sequence, and is no step"),
    ],
)
def test_a_graph_of_whole_sequences_is_no_step(
    tmp_path: Path, checkpoint: Path, check: Callable[..., tuple[int, str, str]], name: str, words: str
) -> None:
    """As `inspect` says: no --map makes it one."""
    model = keras.models.load_model(checkpoint / "model.keras")
    if name == "whole":
        model.export(tmp_path / name, verbose=False)
    else:
        whole = tf.function(lambda x: model(x))
        signature = [tf.TensorSpec([None, None], tf.int32, "x")]
        tf2onnx.convert.from_function(whole, signature, output_path=str(tmp_path / name), opset=18)
    code, out, err = check(tmp_path / name, "--reference", checkpoint / "model.keras", *QUICK)
    assert (code, out) == (2, "")
    assert f"steprnn: {tmp_path / name} is no step: " in err
    assert words in re.sub(r"LSTM__\d+", "LSTM__33", err)
    assert "no output comes back as an input" in err
    assert "--map" not in err


PACKED = {
    "x": "ids[:,0]",
    "h": "states[0]",
    "c": "states[1]",
    "y": "logits[:, 0]",
    "next_h": "after[0]",
    "next_c": "after[1]",
}
PACKED_MAP = [word for ours, theirs in PACKED.items() for word in ("--map", f"{ours}={theirs}")]


@pytest.fixture(scope="module")
def packed(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Graphs as PyTorch lays them out: a time axis of 1, and all states in one `[states, batch, hidden]`."""
    folder = tmp_path_factory.mktemp("packed")
    inner = tf.saved_model.load(str(bundle / "saved_model")).signatures["step"]
    size = inner.structured_input_signature[1]["h"].shape[1]

    class Module(tf.Module):  # type: ignore[misc]
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 1], tf.int32, "ids"),
                tf.TensorSpec([2, None, size], tf.float32, "states"),
            ]
        )
        def step(self, ids: Any, states: Any) -> Any:
            results = inner(x=ids[:, 0], h=states[0], c=states[1])
            after = tf.stack([results["next_h"], results["next_c"]])
            return {"logits": results["y"][:, tf.newaxis], "after": after}

    module = Module()
    module.inner = inner
    tf.saved_model.save(module, str(folder / "saved"), signatures=module.step)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
    (folder / "theirs.tflite").write_bytes(converter.convert())
    tf2onnx.convert.from_function(
        module.step, module.step.input_signature, output_path=str(folder / "theirs.onnx"), opset=18
    )
    return {p.name: p for p in folder.iterdir()}


@pytest.mark.parametrize("name", ["theirs.onnx", "theirs.tflite", "saved"])
def test_states_in_one_tensor_with_the_batch_behind(
    packed: dict[str, Path], checkpoint: Path, check: Callable[..., tuple[int, str, str]], name: str
) -> None:
    code, out, err = check(packed[name], "--reference", checkpoint / "model.keras", *PACKED_MAP, *QUICK)
    assert code == 0, err
    assert list(verdicts(out).values()) == ["passed"]
    swapped = [*PACKED_MAP, "--map", "h=states[1]", "--map", "c=states[0]"]
    swapped += ["--map", "next_h=after[1]", "--map", "next_c=after[0]"]
    code, out, err = check(packed[name], "--reference", checkpoint / "model.keras", *swapped, *QUICK)
    assert code == 1
    assert "fails at the level 'one step'" in err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--map", "h=states[x]"], "--map 'states[x]' has no index such as h0[0] or states[:,0,:,1]"),
        (["--map", "h=states[2]", "--map", "next_h=after[2]"], "--map states[2]: states is [2, ?, "),
        (
            ["--map", "h=states[0,:,0,0]", "--map", "next_h=after[0,:,0,0]"],
            "--map states[0,:,0,0]: states has 3 axes",
        ),
        (["--map", "next_h=after[1]", "--map", "next_c=after[0]"], "so both have the same index"),
    ],
)
def test_an_index_that_does_not_fit(
    packed: dict[str, Path],
    checkpoint: Path,
    check: Callable[..., tuple[int, str, str]],
    flags: list[str],
    words: str,
) -> None:
    argv = ("--reference", checkpoint / "model.keras", *PACKED_MAP, *flags, *QUICK)
    code, out, err = check(packed["saved"], *argv)
    assert (code, out) == (2, "")
    assert words in err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "has no c, h, next_c, next_h, x, y; it has token"),
        (["--map", "h"], "--map 'h' is not OURS=THEIRS"),
        ([*MAP, "--map", "hidden=state_in"], "--map names hidden, and the step has x, h, c, y"),
        ([*MAP, "--map", "h=cell_in"], "--map gives cell_in to two tensors of the step"),
    ],
)
def test_a_map_that_does_not_fit(
    foreign: dict[str, Path],
    checkpoint: Path,
    check: Callable[..., tuple[int, str, str]],
    flags: list[str],
    words: str,
) -> None:
    code, out, err = check(foreign["theirs.onnx"], "--reference", checkpoint / "model.keras", *flags, *QUICK)
    assert (code, out) == (2, "")
    assert words in err


def test_a_graph_of_another_shape_is_a_finding(
    foreign: dict[str, Path], tmp_path: Path, check: Callable[..., tuple[int, str, str]]
) -> None:
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(21, 8),
            keras.layers.LSTM(16, return_sequences=True),
            keras.layers.Dense(21),
        ]
    )
    model.save(tmp_path / "other.keras")
    code, _, err = check(foreign["theirs.onnx"], "--reference", tmp_path / "other.keras", *MAP, *QUICK)
    assert code == 1
    assert "theirs.onnx in onnx fails at the level 'structure': state_in float32 [batch, 32], " in err
    assert "expected float32 [batch, 16]" in err


# Usage.


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--text", "some.txt"], "--text only means something with --reference MODEL"),
        (["--map", "h=a", "--trust"], "--map and --trust only means something"),
        (["--profile", "int3"], "invalid choice: 'int3'"),
        (["--reference", "CHECKPOINT", "--steps", "4"], "--steps 4 --seeds 8: expected at least 16 steps"),
        (["--reference", "CHECKPOINT", "--map", "h=a", *QUICK], "--map is for the graphs of other tools"),
    ],
)
def test_usage(
    tiny: Path,
    checkpoint: Path,
    check: Callable[..., tuple[int, str, str]],
    flags: list[str],
    words: str,
) -> None:
    code, out, err = check(tiny, *(str(checkpoint) if f == "CHECKPOINT" else f for f in flags))
    assert (code, out) == (2, "")
    assert words in err


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signal model, saved and exported."""
    folder = tmp_path_factory.mktemp("denoiser")
    keras.utils.set_random_seed(0)
    x = keras.Input((None, 2), name="frames")
    y = keras.layers.GRU(8, return_sequences=True)(keras.layers.Normalization(mean=3.0, variance=4.0)(x))
    keras.Model(x, keras.layers.Dense(2)(y)).save(folder / "model.keras")
    argv = ["export", str(folder / "model.keras"), "--out", str(folder / "bundle"), "--formats", "onnx"]
    assert cli.main([*argv, "--quantize", "none"]) == 0
    return folder


def test_recorded_signals_are_what_is_in_use_and_a_long_run_tells_its_drift(
    denoiser: Path, tmp_path: Path, check: Callable[..., tuple[int, str, str]]
) -> None:
    recorded = np.random.default_rng(0).normal(3, 2, (64, 3, 2)).astype(np.float32)
    np.savez(tmp_path / "recorded.npz", x=recorded)
    model, bundle = denoiser / "model.keras", denoiser / "bundle"
    code, out, err = check(
        *(bundle, "--reference", model, "--inputs", tmp_path / "recorded.npz", "--long", "--steps", 32),
        *("--report", tmp_path / "report"),
    )
    assert code == 0, err
    assert "rms of y" in out.splitlines()[0]
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    chained = {f["case"]: f for f in report["findings"] if f["level"] == "chained"}
    assert list(chained)[:2] == ["recorded.npz", "noise"]
    assert chained["recorded.npz"]["figures"]["steps"] == 64
    assert list(chained)[-1] == "noise, long"
    assert chained["noise, long"]["figures"]["steps"] == 10240
    assert re.search(r" u of 8, drift [+-]\S+ ± \S+ u a thousand steps$", chained["noise, long"]["summary"])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": (64, 1, 2)}, "holds y; expected the inputs of the step, x"),
        ({"x": (64, 2)}, r"x is \[64, 2\], expected \[steps, rows, 2\] of 16 steps or more"),
        ({"x": (15, 1, 2)}, r"x is \[15, 1, 2\], expected \[steps, rows, 2\] of 16 steps or more"),
        ({"x": (64, 0, 2)}, "x is float32, expected float32 of one row or more"),
        (None, "is not an .npz file of arrays"),
    ],
)
def test_recorded_signals_that_do_not_fit(
    denoiser: Path,
    tmp_path: Path,
    check: Callable[..., tuple[int, str, str]],
    arrays: dict[str, tuple[int, ...]] | None,
    words: str,
) -> None:
    path = tmp_path / "recorded.npz"
    if arrays is None:
        path.write_bytes(b"RIFF")
    else:
        np.savez(path, **{n: np.zeros(shape, np.float32) for n, shape in arrays.items()})
    code, _, err = check(
        denoiser / "bundle", "--reference", denoiser / "model.keras", "--inputs", path, "--steps", 32
    )
    assert code == 2
    assert re.search(rf"steprnn: --inputs \S+ ?{words}|steprnn: --inputs \S+: {words}", err), err


def test_one_graph_needs_a_reference(tiny: Path, check: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = check(tiny / "step.onnx")
    assert code == 2
    assert f"{tiny / 'step.onnx'} is one graph; give the model it came from with --reference" in err


def test_a_text_is_no_graph(tmp_path: Path, check: Callable[..., tuple[int, str, str]]) -> None:
    path = tmp_path / "zh.txt"
    path.write_text("分开", encoding="utf-8")
    code, _, err = check(path)
    assert code == 2
    assert f"{path} is no bundle and no graph; expected a folder, .zip, .onnx or .tflite" in err
